//! A tunnel between two ends over a wire that misbehaves, in virtual time.

mod wire;

use bytes::Bytes;
use futures::future::join_all;
use longshore_tunnel::{Config, Ended, Incoming, OpenError, Opener, Side, Stream, Tunnel};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use wire::{Mode, Wire};

struct Pair {
    wire: Wire,
    agent: Opener,
    agent_incoming: Incoming,
    server: Opener,
    server_incoming: Incoming,
}

fn pair() -> Pair {
    pair_with(8, Config::default(), Config::default())
}

fn pair_with(depth: usize, agent: Config, server: Config) -> Pair {
    let (wire, agent_end, server_end) = Wire::new(depth);
    let (agent, agent_incoming) = Tunnel::start(agent_end, Side::Agent, agent);
    let (server, server_incoming) = Tunnel::start(server_end, Side::Server, server);
    Pair { wire, agent, agent_incoming, server, server_incoming }
}

/// Sends back what each stream brings, and its end.
fn echo(mut incoming: Incoming) {
    tokio::spawn(async move {
        while let Some(stream) = incoming.next().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + seed * 7) as u8).collect()
}

/// Writes and reads at once, as both windows are smaller than the body.
async fn round_trip(stream: Stream, body: Vec<u8>) -> io::Result<Vec<u8>> {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        write.write_all(&body).await?;
        write.shutdown().await
    };
    let mut back = Vec::new();
    let (wrote, came) = tokio::join!(writing, read.read_to_end(&mut back));
    wrote?;
    came?;
    Ok(back)
}

const NOTICED: Duration = Duration::from_secs(21);

#[tokio::test(start_paused = true)]
async fn many_streams_of_both_ends_carry_their_own_bytes() {
    let pair = pair();
    echo(pair.agent_incoming);
    echo(pair.server_incoming);
    let opened = (0..300).map(|i| {
        let opener = if i % 2 == 0 { pair.agent.clone() } else { pair.server.clone() };
        async move {
            let body = pattern(i, 1000 * (i % 40));
            let back = round_trip(opener.open().await.unwrap(), body.clone()).await.unwrap();
            assert!(back == body, "stream {i}");
        }
    });
    join_all(opened).await;
}

#[tokio::test(start_paused = true)]
async fn bulk_both_ways_over_a_narrow_wire_never_deadlocks() {
    let pair = pair_with(1, Config::default(), Config::default());
    echo(pair.agent_incoming);
    echo(pair.server_incoming);
    let body = pattern(1, 8 * 1024 * 1024);
    let both = [&pair.agent, &pair.server, &pair.agent, &pair.server].map(|opener| async {
        let back = round_trip(opener.open().await.unwrap(), body.clone()).await.unwrap();
        assert!(back == body);
    });
    join_all(both).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_holds_up_only_its_own_stream() {
    let mut pair = pair();
    let mut stuck = pair.server.open().await.unwrap();
    let writing = tokio::spawn(async move { stuck.write_all(&pattern(0, 4 * 1024 * 1024)).await });
    let unread = pair.agent_incoming.next().await.unwrap();
    echo(pair.agent_incoming);
    for i in 0..50 {
        let body = pattern(i, 100_000);
        assert!(round_trip(pair.server.open().await.unwrap(), body.clone()).await.unwrap() == body);
    }
    assert!(!writing.is_finished(), "4 MiB can't be under way when nobody reads them");
    drop(unread);
    let error = writing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_stays_open_and_its_contact_fresh() {
    let pair = pair();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(pair.agent.is_open() && pair.server.is_open());
    assert!(pair.server.last_contact().elapsed() <= Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_servers_beat_follows_on_its_agents() {
    use futures::{SinkExt, StreamExt};
    const BEAT: u8 = 1;
    let (_wire, mut agent, end) = Wire::new(8);
    let (_server, _incoming) = Tunnel::start(end, Side::Server, Config::default());
    // The multiplexer has something to say now and then, too.
    let beat = async |agent: &mut wire::End| while agent.next().await.unwrap().unwrap()[0] != BEAT {};
    beat(&mut agent).await;
    for heard in 1..=20u64 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let said = Instant::now();
        agent.send([&[BEAT][..], &heard.to_be_bytes()[..]].concat().into()).await.unwrap();
        beat(&mut agent).await;
        assert_eq!(said.elapsed(), Duration::ZERO);
    }
    let alone = Instant::now();
    beat(&mut agent).await;
    assert_eq!(alone.elapsed(), Config::default().beat * 3 / 2);
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_is_noticed_by_both_ends_and_all_streams_fail() {
    let mut pair = pair();
    let mut asking = pair.server.open().await.unwrap();
    asking.write_all(b"hello").await.unwrap();
    let mut asked = pair.agent_incoming.next().await.unwrap();
    let mut buf = [0; 5];
    asked.read_exact(&mut buf).await.unwrap();

    pair.wire.set_both(Mode::Swallow);
    let start = Instant::now();
    let reads = async {
        let mut rest = Vec::new();
        let one = asking.read_to_end(&mut rest).await;
        let other = asked.read_to_end(&mut rest).await;
        (one, other)
    };
    let (one, other) = timeout(NOTICED, reads).await.unwrap();
    assert_eq!(one.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(other.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(matches!(pair.server.ended().await, Ended::Silent(_)));
    assert!(matches!(pair.agent.ended().await, Ended::Silent(_)));
    assert!(start.elapsed() < NOTICED);
    assert!(matches!(pair.agent.open().await, Err(OpenError::Ended(Ended::Silent(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_link_open_one_way_only_is_noticed_by_the_end_that_still_hears() {
    for to_agent in [true, false] {
        // The deaf end would find out first; without it the other must notice by itself.
        let patient = Config { silence: Duration::from_secs(3600), ..Config::default() };
        let (agent, server) = if to_agent { (patient, Config::default()) } else { (Config::default(), patient) };
        let pair = pair_with(8, agent, server);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        let way = if to_agent { &pair.wire.to_agent } else { &pair.wire.to_server };
        way.send_replace(Mode::Swallow);
        let hears = if to_agent { &pair.server } else { &pair.agent };
        assert!(matches!(hears.ended().await, Ended::Deaf(_)));
        assert!(start.elapsed() < NOTICED, "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_wire_full_of_bulk_is_noticed_and_a_close_does_not_wait_for_it() {
    let pair = pair();
    echo(pair.agent_incoming);
    let stream = pair.server.open().await.unwrap();
    let bulk = tokio::spawn(round_trip(stream, pattern(0, 64 * 1024 * 1024)));
    tokio::task::yield_now().await;
    pair.wire.set_both(Mode::Stall);
    let start = Instant::now();
    assert!(bulk.await.unwrap().is_err());
    pair.agent.ended().await;
    pair.server.ended().await;
    assert!(start.elapsed() < NOTICED);

    let pair = pair_with(1, Config::default(), Config::default());
    let mut stream = pair.server.open().await.unwrap();
    pair.wire.set_both(Mode::Stall);
    let _ = timeout(Duration::from_secs(1), stream.write_all(&pattern(0, 1024 * 1024))).await;
    let start = Instant::now();
    pair.server.close();
    assert_eq!(pair.server.ended().await, Ended::Closed);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_full_of_bulk_lives_as_long_as_it_moves() {
    let pair = pair_with(256, Config::default(), Config::default());
    echo(pair.agent_incoming);
    // Some 20 pieces in each silence, and a queue of several silences' length.
    pair.wire.to_agent.send_replace(Mode::Slow(Duration::from_millis(500)));
    let start = Instant::now();
    let body = pattern(3, 4 * 1024 * 1024);
    let back = round_trip(pair.server.open().await.unwrap(), body.clone()).await.unwrap();
    assert!(back == body);
    assert!(start.elapsed() > Duration::from_secs(50), "{:?}", start.elapsed());
    assert!(pair.agent.is_open() && pair.server.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_reset_fails_everything_at_once() {
    let pair = pair();
    let mut stream = pair.agent.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let start = Instant::now();
    pair.wire.set_both(Mode::Cut);
    assert!(stream.read_u8().await.is_err());
    assert!(matches!(pair.agent.ended().await, Ended::Broken(_)));
    assert!(matches!(pair.server.ended().await, Ended::Broken(_)));
    assert!(start.elapsed() < Duration::from_secs(1));
}

/// Time is paused: it goes on when nobody has anything to do. (Who is just saying something when the other end closes may find
/// that the link broke.)
async fn first_words_have_passed() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_close_is_told_from_a_break() {
    let mut pair = pair();
    first_words_have_passed().await;
    pair.server.close();
    assert_eq!(pair.server.ended().await, Ended::Closed);
    assert_eq!(pair.agent.ended().await, Ended::ClosedByPeer);
    assert!(pair.agent_incoming.next().await.is_none());
    assert!(pair.server_incoming.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_end_of_bytes_is_told_from_a_reset() {
    let mut pair = pair();
    let mut finished = pair.server.open().await.unwrap();
    finished.write_all(b"whole").await.unwrap();
    finished.shutdown().await.unwrap();
    let mut stream = pair.agent_incoming.next().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "whole");

    let mut dropped = pair.server.open().await.unwrap();
    dropped.write_all(b"half").await.unwrap();
    let mut stream = pair.agent_incoming.next().await.unwrap();
    let mut half = [0; 4];
    stream.read_exact(&mut half).await.unwrap();
    drop(dropped);
    assert_eq!(stream.read_to_string(&mut text).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_the_tunnel_outlives_the_attempt() {
    let few = Config { streams: 10, ..Config::default() };
    let greedy = Config { streams: 30, ..Config::default() };
    let mut pair = pair_with(8, greedy, few);
    let mut held = Vec::new();
    for _ in 0..30 {
        let mut stream = pair.agent.open().await.unwrap();
        stream.write_all(b"?").await.unwrap();
        held.push(stream);
    }
    assert_eq!(pair.agent.open().await.err(), Some(OpenError::Busy));
    let mut taken = Vec::new();
    while let Ok(Some(stream)) = timeout(Duration::from_secs(1), pair.server_incoming.next()).await {
        taken.push(stream);
    }
    assert_eq!(taken.len(), 10);
    assert!(held[29].read_u8().await.is_err(), "what is beyond is reset");
    drop(taken);
    drop(held);
    echo(pair.server_incoming);
    let back = round_trip(pair.agent.open().await.unwrap(), b"again".to_vec()).await.unwrap();
    assert_eq!(back, b"again");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_ends_the_tunnel() {
    use futures::{SinkExt, StreamExt};
    for bad in
        [Bytes::from_static(b"\xff"), Bytes::from_static(b"\0not the multiplexer's"), Bytes::from(vec![0; 300_000])]
    {
        let (_wire, mut raw, end) = Wire::new(8);
        let (server, _incoming) = Tunnel::start(end, Side::Server, Config::default());
        raw.send(bad).await.unwrap();
        let drain = tokio::spawn(async move { while raw.next().await.is_some() {} });
        let why = server.ended().await;
        assert!(matches!(why, Ended::Broken(_) | Ended::ClosedByPeer), "{why:?}");
        drain.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_behind_however_it_ends() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for mode in [Mode::Forward, Mode::Cut, Mode::Swallow, Mode::Stall] {
        let pair = pair();
        echo(pair.agent_incoming);
        echo(pair.server_incoming);
        let streams = join_all((0..20).map(|_| pair.agent.open())).await;
        let transfers = streams.into_iter().map(|s| tokio::spawn(round_trip(s.unwrap(), pattern(0, 10_000_000))));
        let transfers: Vec<_> = transfers.collect();
        tokio::task::yield_now().await;
        pair.wire.set_both(mode);
        if mode == Mode::Forward {
            pair.agent.close();
        }
        for transfer in transfers {
            assert!(transfer.await.unwrap().is_err());
        }
        pair.agent.ended().await;
        pair.server.ended().await;
        drop(pair.wire);
    }
    timeout(Duration::from_secs(60), async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("tasks were left behind");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_incoming_end_closes_the_tunnel() {
    let pair = pair();
    first_words_have_passed().await;
    drop(pair.server_incoming);
    assert_eq!(pair.server.ended().await, Ended::Closed);
    assert_eq!(pair.agent.ended().await, Ended::ClosedByPeer);
}
