//! What the world does to a server: its Postgres slow, silent, cut off, full, out of connections, replaced by an older one.
//! Each time: clear errors as Kubernetes words them, nothing acknowledged lost, and all is well again afterwards.

mod history;
#[path = "../../../../e2e/src/linearizable.rs"]
mod linearizable;
mod postgres;
mod wire;

use crate::app::{Answer, TestApp};
use history::{Clients, is_error};
use longshore_server::resources::registry;
use longshore_server::store::testing::{Database, database};
use longshore_server::store::{MasterKey, Store, StoreOptions};
use postgres::{Private, exhausted};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Target, Wire};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

/// A server with a wire to its Postgres.
struct Place {
    app: TestApp,
    wire: Wire,
    pool: PgPool,
}

impl Place {
    async fn new(to: Target, options: PgConnectOptions) -> Self {
        let wire = Wire::to(to).await;
        let options = options.host("127.0.0.1").port(wire.address.port());
        let limits = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(5));
        let pool = limits.connect_with(options).await.expect("Postgres answers through the wire");
        let options = StoreOptions::new(Arc::new(registry()));
        let store = Store::open(pool.clone(), Arc::new(MasterKey::new([7; 32])), options).await.expect("a store");
        let insert = sqlx::query("INSERT INTO organizations (id, name) VALUES ('o-1', 'o-1')").execute(&pool).await;
        insert.expect("an organization");
        Self { app: TestApp::on(store).await, wire, pool }
    }

    /// On the shared Postgres of all tests, in a database of its own.
    async fn shared() -> (Self, Database) {
        let database = database().await;
        let options = database.options.clone();
        let to = Target::Tcp(format!("{}:{}", options.get_host(), options.get_port()));
        (Self::new(to, options).await, database)
    }

    async fn private(postgres: &Private) -> Self {
        Self::new(postgres.target(), postgres.options()).await
    }

    async fn create(&self, name: &str) -> Answer {
        self.app.owner().post(MAPS, config_map(name, "v")).await
    }

    async fn list(&self) -> Answer {
        self.app.owner().get(MAPS).await
    }

    async fn get(&self, name: &str) -> Answer {
        self.app.owner().get(&format!("{MAPS}/{name}")).await
    }
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

/// Asks until the answer has this status; fails with the last answer after half a minute.
async fn until<F: Future<Output = Answer>>(status: u16, mut ask: impl FnMut() -> F) -> Answer {
    let begun = Instant::now();
    loop {
        let answer = ask().await;
        if answer.status.as_u16() == status {
            return answer;
        }
        assert!(begun.elapsed() < HALF_A_MINUTE, "no {status}: {} {}", answer.status, answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_takes_two_seconds_a_commit_slows_writes_and_nothing_else() {
    let (place, _database) = Place::shared().await;
    place.create("before").await;
    for sql in [
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'",
        "CREATE TRIGGER slow AFTER UPDATE OF revision ON clusters FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    ] {
        sqlx::query(sql).execute(&place.pool).await.expect("Postgres is made slow");
    }
    let begun = Instant::now();
    let names: Vec<String> = (0..300).map(|n| format!("slow-{n}")).collect();
    let writes = futures::future::join_all(names.iter().map(|name| place.create(name)));
    let reads = async {
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            let answer = place.get("before").await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(writes, reads);
    assert!(answers.iter().all(|answer| answer.status == 201));
    // The first flush carries one write and the next all others.
    assert!((4..20).contains(&begun.elapsed().as_secs()), "300 writes took {:?}", begun.elapsed());
    assert!(slowest < Duration::from_secs(1), "a read took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_postgres_is_told_at_once_and_forgiven() {
    let (place, _database) = Place::shared().await;
    place.create("before").await;
    place.wire.hold();
    let hanging = tokio::spawn(place.app.owner_request("POST", MAPS, config_map("hanging", "v")));
    // Past its lease the server can't know whether it has the newest state, and says so; what may be old it serves.
    let refused = until(503, || place.get("before")).await;
    assert_eq!(refused.body["reason"], "ServiceUnavailable", "{}", refused.text);
    assert!(refused.headers.contains_key("retry-after"));
    let asked = Instant::now();
    let refused = place.create("meanwhile").await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(asked.elapsed() < Duration::from_secs(1), "nobody waits for what can't be");
    assert_eq!(place.app.owner().get(&format!("{MAPS}/before?resourceVersion=0")).await.status, 200);
    assert_eq!(place.app.owner().delete(&format!("{MAPS}/before")).await.status, 503, "not a 404, not a 409");
    place.wire.release();
    until(200, || place.get("before")).await;
    until(201, || place.create("after")).await;
    let ended = hanging.await.expect("it is answered");
    let there = place.get("hanging").await.status == 200;
    match ended.status.as_u16() {
        201 => assert!(there),
        503 => assert!(!there),
        504 => {}
        other => panic!("{other}: {}", ended.text),
    }
    assert_eq!(place.get("meanwhile").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_all_the_time_lose_nothing_and_answers_stay_in_order() {
    let (place, _database) = Place::shared().await;
    let seconds = std::env::var("LONGSHORE_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4);
    let clients = Clients::start(&place.app, 6, 3);
    let begun = Instant::now();
    let mut cuts = 0;
    // On a machine that is busy with other things it takes longer until enough was done to be judged.
    let enough = |cuts: usize| begun.elapsed() >= Duration::from_secs(seconds) && clients.done() > 40 && cuts > 5;
    while !enough(cuts) && begun.elapsed() < Duration::from_secs(seconds + 60) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..250))).await;
        place.wire.cut();
        cuts += 1;
    }
    let seen = clients.stop().await;
    until(201, || place.create("after")).await;
    let (done, open) = seen.count();
    assert!(done > 40 && cuts > 5, "{done} done, {open} open, {cuts} cuts");
    seen.judge(&place.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_without_free_connections_is_waited_for() {
    let postgres = Private::start().await;
    let place = Place::private(&postgres).await;
    place.create("before").await;
    // Others take every connection there is, and then the server loses its own.
    let greedy = exhausted(&postgres).await;
    place.wire.cut();
    let refused = until(503, || place.create("meanwhile")).await;
    assert_eq!(refused.body["reason"], "ServiceUnavailable", "{}", refused.text);
    until(503, || place.get("before")).await;
    greedy.end().await;
    until(201, || place.create("after")).await;
    until(200, || place.get("before")).await;
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let postgres = Private::start_on(220).await;
    let place = Place::private(&postgres).await;
    let random = || (0..400_000).map(|_| char::from(rand::random_range(b'!'..b'~'))).collect::<String>();
    let write = async |n: usize| place.app.owner().post(MAPS, config_map(&format!("big-{n}"), &random())).await;
    let mut written = vec![];
    assert_eq!(write(0).await.status, 201);
    written.push(0);
    postgres.fill();
    let mut refused = Vec::new();
    for n in 1..200 {
        let answer = write(n).await;
        match answer.status.as_u16() {
            201 => written.push(n),
            _ => refused.push(answer),
        }
        if refused.len() > 8 {
            break;
        }
    }
    assert!(refused.len() > 8, "the disk is never full: {} written", written.len());
    for answer in &refused {
        is_error(answer.status.as_u16(), &answer.body);
    }
    let told = refused.iter().find(|answer| answer.status == 507);
    if let Some(told) = told {
        assert_eq!(told.body["reason"], "InsufficientStorage", "{}", told.text);
    }
    postgres.make_room();
    let again = until(201, || write(1000)).await;
    written.push(1000);
    let list = until(200, || place.list()).await;
    let stored: Vec<&str> =
        list.body["items"].as_array().unwrap().iter().filter_map(|o| o["metadata"]["name"].as_str()).collect();
    let lost: Vec<_> = written.iter().map(|n| format!("big-{n}")).filter(|n| !stored.contains(&n.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(
        told.is_some(),
        "nobody was told that the disk is full: {:?}",
        refused.iter().map(|a| &a.text).collect::<Vec<_>>()
    );
    drop(again);
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lagged_is_found_out_and_revisions_go_on_far_ahead() {
    let mut postgres = Private::start().await;
    let place = Place::private(&postgres).await;
    place.create("kept").await;
    postgres = postgres.copied().await;
    place.wire.lead_to(postgres.target());
    let last = until(201, || place.create("lost-1")).await;
    until(201, || place.create("lost-2")).await;
    let seen: i64 = place.get("lost-2").await.body["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    // The copy from before takes over.
    postgres = postgres.replaced_by_copy().await;
    place.wire.lead_to(postgres.target());
    let after = until(201, || place.create("after")).await;
    let revision: i64 = after.body["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(revision > seen + 100_000, "{revision} after {seen}: revisions must not come twice");
    assert_eq!(place.get("kept").await.status, 200);
    assert_eq!(place.get("lost-1").await.status, 404, "what the standby never had is gone");
    // Whoever watches from what they saw lists again.
    let from = last.body["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = place.app.owner().get(&format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={from}")).await;
    let event: Value = serde_json::from_str(watch.text.lines().next().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)), "{}", watch.text);
    postgres.stop().await;
}
