//! Time and chance of a simulated world: the operating system's answers to "what time is it" and "give me random bytes".
//!
//! The code under simulation, and every library it uses, reads clocks and draws random bytes in dozens of places, most of
//! which nobody thinks of: the keys of each `HashMap`, the branch that `select!` polls first, names, uids, back-off, leases.
//! To hand all of them a clock and a generator of ours would change production code everywhere and still miss some. So the
//! seam is where all of them end: this program brings its own `clock_gettime` and `getrandom`. In a thread that has entered
//! a world they answer from virtual time (tokio's, which stands still while there is work and jumps when there is none) and
//! from the seed; in all others they ask the kernel. (madsim found this seam first.)
//!
//! A world is one thread of one process: what is global in a process (lazily built tables, counters of libraries) would
//! otherwise leak from one run into the next.

#![allow(unsafe_code, reason = "the two functions of the C library are its ABI")]

use nix::libc;
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z: when every world begins.
const BEGIN: Duration = Duration::from_secs(1_767_225_600);
/// How long its machines are up by then.
const UP: Duration = Duration::from_secs(100_000);

thread_local! {
    /// The state of the generator; none outside of a world.
    static CHANCE: Cell<Option<u64>> = const { Cell::new(None) };
    /// When virtual time began.
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// tokio is being asked: should it ask us, the answer is what it was.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread's random bytes come from `seed` and its clocks stand still.
pub fn enter(seed: u64) {
    CHANCE.set(Some(seed));
}

/// From now on clocks follow tokio's, whose paused runtime this is called in.
pub fn start() {
    BEGUN.set(Some(Instant::now()));
}

/// How much virtual time has passed.
pub fn elapsed() -> Duration {
    if let Some(begun) = BEGUN.get()
        && !ASKING.replace(true)
    {
        let elapsed = Instant::now().duration_since(begun);
        ELAPSED.set(elapsed.max(ELAPSED.get()));
        ASKING.set(false);
    }
    ELAPSED.get()
}

/// SplitMix64 (Steele, Lea, Flood 2014): every state is a good one, so every seed is.
fn draw(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

/// # Safety
/// As the C library's: `time` points to a `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let begin = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => BEGIN,
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => UP,
        _ => Duration::MAX,
    };
    if CHANCE.get().is_none() || begin == Duration::MAX {
        // SAFETY: the caller's promise is the kernel's demand.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, libc::c_long::from(clock), time) as libc::c_int };
    }
    let now = begin + elapsed();
    let now = libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: now.subsec_nanos().into() };
    // SAFETY: the caller's promise.
    unsafe { time.write(now) };
    0
}

/// # Safety
/// As the C library's: `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    bytes: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let Some(mut state) = CHANCE.get() else {
        // SAFETY: the caller's promise is the kernel's demand.
        return unsafe { libc::syscall(libc::SYS_getrandom, bytes, length, flags) as libc::ssize_t };
    };
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        let drawn;
        (state, drawn) = draw(state);
        chunk.copy_from_slice(&drawn.to_le_bytes()[..chunk.len()]);
    }
    CHANCE.set(Some(state));
    length as libc::ssize_t
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What a world sees: an order of a set, a random number, its wall clock, and how long an hour is.
    fn world(seed: u64) -> (Vec<u32>, u64, u64, jiff::Timestamp, jiff::Timestamp, Duration) {
        let run = move || {
            enter(seed);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(async {
                start();
                let (begun, first) = (std::time::Instant::now(), jiff::Timestamp::now());
                tokio::time::sleep(Duration::from_secs(3600)).await;
                let set: HashSet<u32> = (0..100).collect();
                let branch = tokio::select! { () = async {} => 0, () = async {} => 1 };
                let drawn = rand::random::<u64>();
                (set.into_iter().collect(), branch, drawn, first, jiff::Timestamp::now(), begun.elapsed())
            })
        };
        std::thread::spawn(run).join().expect("it runs")
    }

    #[test]
    fn a_world_is_its_seeds() {
        let (set, _, drawn, begin, end, hour) = world(7);
        assert_eq!(begin.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(end.duration_since(begin), jiff::SignedDuration::from_hours(1));
        assert_eq!(hour, Duration::from_secs(3600));
        let again = world(7);
        assert_eq!((&again.0, again.2), (&set, drawn));
        let other = world(8);
        assert_ne!((&other.0, other.2), (&set, drawn));
    }

    #[test]
    fn outside_of_a_world_the_kernel_answers() {
        assert_ne!(rand::random::<u64>(), rand::random::<u64>());
        let wall = jiff::Timestamp::now();
        assert!(wall > jiff::Timestamp::from_second(1_767_225_600).expect("a time"));
    }
}
