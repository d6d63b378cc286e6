//! Server and Postgres are killed (-9) again and again while clients write: nothing acknowledged is lost, no revision is
//! given twice, no object is torn, and every watcher can tell the same story.
//!
//! `LONGSHORE_KILLS` says how often (6 unless told).

use longshore_e2e::Installation;
use longshore_e2e::writers::{Client, live_through};
use std::cell::RefCell;
use std::time::Duration;

fn kills() -> usize {
    std::env::var("LONGSHORE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

#[test]
fn server_and_postgres_are_killed_in_a_loop_and_nothing_acknowledged_is_lost() {
    let installation = RefCell::new(Installation::start());
    let admin = installation.borrow().admin();
    let base = admin.cluster_url.replacen("https", "http", 1);
    let client = Client::new(vec![base], &admin.token, Duration::from_secs(40));
    let kill_server = || {
        installation.borrow_mut().kill_server();
        installation.borrow_mut().start_server();
    };
    live_through(
        &client,
        |record| {
            for kill in 0..kills() {
                record.progress();
                if kill % 2 == 0 {
                    kill_server();
                } else {
                    installation.borrow().kill_postgres();
                }
            }
            record.progress();
        },
        kill_server,
    );
}
