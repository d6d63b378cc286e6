//! Two replicas on one Postgres: one is cut off from it, one stands still, one dies. The other one takes over, and whoever comes
//! back says nothing of the past.

use longshore_e2e::writers::{Client, live_through};
use longshore_e2e::{Installation, Replica};
use std::cell::RefCell;
use std::time::Duration;

#[test]
fn a_replica_that_is_cut_off_stands_still_or_dies_is_replaced_and_tells_nothing_old() {
    let mut installation = Installation::start();
    let admin = installation.admin();
    // Postgres goes on without it.
    installation.kill_server();
    let (one, two) = (Replica::start(&installation, "one"), Replica::start(&installation, "two"));
    let bases = [&one, &two].map(|replica| replica.url(&admin.cluster_url)).to_vec();
    let client = Client::new(bases, &admin.token, Duration::from_secs(4));
    let two = RefCell::new(Some(two));
    live_through(
        &client,
        |record| {
            record.progress();
            one.cut_off(true);
            record.progress();
            one.cut_off(false);
            record.progress();
            let second = two.borrow();
            let second = second.as_ref().expect("it lives");
            second.stand_still(true);
            record.progress();
            second.stand_still(false);
            record.progress();
        },
        || drop(two.take()),
    );
}
