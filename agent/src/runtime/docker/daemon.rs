//! What the daemon's process may do, which its API doesn't say.

use std::path::Path;
use tokio::net::UnixStream;

const CAP_SYS_RESOURCE: u32 = 24;
/// The lowest score there is.
const LOWEST: i64 = -1000;

/// The lowest `oom_score_adj` that containers of the daemon behind `socket` can be given. A daemon without the right to
/// lower it (it runs in a container itself) can't start a container that asks for less than its own.
pub async fn lowest_oom_score_adj(socket: &Path) -> i64 {
    let Some(pid) = pid(socket).await else { return LOWEST };
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    lowest(&read("status"), &read("oom_score_adj"))
}

/// Of the process that listens: the daemon, or the system's manager where that one holds its socket. `None` when it can't
/// be seen from here.
pub async fn pid(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).await.ok()?;
    stream.peer_cred().ok()?.pid().filter(|pid| *pid > 0)
}

fn lowest(status: &str, own: &str) -> i64 {
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    match capabilities {
        Some(capabilities) if capabilities & (1 << CAP_SYS_RESOURCE) == 0 => own.trim().parse().unwrap_or(LOWEST),
        _ => LOWEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_daemon_without_the_right_is_bound() {
        assert_eq!(lowest("Name:\tdockerd\nCapEff:\t000001ffffffffff\n", "-500\n"), LOWEST);
        assert_eq!(lowest("CapEff:\t000001fffeffffff\n", "0\n"), 0);
        assert_eq!(lowest("CapEff:\t000001fffeffffff\n", "-500\n"), -500);
        assert_eq!(lowest("", ""), LOWEST, "what can't be seen binds nobody");
    }
}
