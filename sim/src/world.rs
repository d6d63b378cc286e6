//! One world, from its seed to its verdict: it begins, it is troubled, it is healed, and it must come to rest.

use crate::checks::end;
use crate::clockwork;
use crate::dice::Dice;
use crate::fate::Way;
use crate::machine::Machine;
use crate::nemesis::Nemesis;
use crate::net::{Client, Net};
use crate::process::Setup;
use crate::users::{User, put_in_order};
use crate::watchers::{WATCHED, Watcher, has_heard_everything};
use crate::witness::{Broken, Witness};
use longshore_api::ids::{ClusterId, OrganizationId};
use longshore_server::store::{NewCluster, Retention};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// By when everything must be as it is wanted after the last fault: back-offs go up to five minutes, twice over.
const CONVERGES_WITHIN: Duration = Duration::from_secs(1200);
/// How long nobody may write anything then.
const RESTS_FOR: Duration = Duration::from_secs(90);

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub seed: u64,
    pub broken: Option<Broken>,
    /// Of the whole history of changes: the same for each run of a seed.
    pub digest: String,
    pub changes: usize,
    pub acknowledgements: u64,
    /// Virtual.
    pub took: Duration,
    pub last_events: Vec<String>,
}

/// Lives through a world, in a thread that enters it. Once in a process, where histories are compared.
pub fn live(seed: u64, loud: bool) -> Verdict {
    let run = move || {
        clockwork::enter(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        runtime.block_on(async move {
            clockwork::start();
            story(seed, loud).await
        })
    };
    std::thread::Builder::new().stack_size(16 << 20).spawn(run).expect("a thread").join().expect("it ends")
}

async fn story(seed: u64, loud: bool) -> Verdict {
    let witness = Witness::default();
    if loud {
        witness.be_loud();
    }
    notice_panics(&witness);
    let told = witness.clone();
    let chapters = async move {
        let mut world = World::begin(seed, &told).await;
        world.trouble().await;
        world.heal().await;
        world.come_to_rest().await
    };
    tokio::select! {
        biased;
        _ = witness.broken() => {}
        () = chapters => {}
    }
    Verdict {
        seed,
        broken: witness.finding(),
        digest: witness.digest(),
        changes: witness.changes(),
        acknowledgements: witness.acknowledgements(),
        took: clockwork::elapsed(),
        last_events: witness.last_events(),
    }
}

/// A panic anywhere is a finding, also where somebody catches it.
fn notice_panics(witness: &Witness) {
    let panics: Arc<Mutex<Option<String>>> = Arc::default();
    let noted = panics.clone();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
        noted.lock().get_or_insert(info.to_string());
    }));
    let witness = witness.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if let Some(info) = panics.lock().take() {
                witness.check("nothing_panics", Err(info));
            }
        }
    });
}

struct World {
    seed: u64,
    witness: Witness,
    net: Arc<Net>,
    cluster: ClusterId,
    machines: Vec<Arc<Machine>>,
    watchers: Vec<(&'static str, Arc<Mutex<i64>>)>,
    dice: Dice,
}

impl World {
    /// Two servers, a cluster, a few machines.
    async fn begin(seed: u64, witness: &Witness) -> Self {
        let mut dice = Dice::new(seed, "world");
        let short = Retention { age: Duration::from_secs(30), revisions: 100, ..Retention::default() };
        let retention = if dice.percent(30) { short } else { Retention::default() };
        let net = Arc::new(Net::new(&["a", "b"], Setup { retention }, witness, seed));
        let first = net.start(0).await;
        net.start(1).await;
        let new = NewCluster::new(OrganizationId::new("o-1"), "simulated");
        let cluster = first.store.create_cluster(new).await.expect("a database without faults makes a cluster");
        let machines = u8::try_from(dice.between(1, 4)).unwrap_or(1);
        let machine = |number| Machine::new(number, &cluster, &net, witness, seed);
        let machines: Vec<_> = (0..machines).map(machine).collect();
        machines.iter().for_each(|machine| machine.start_agent());
        let watchers = (0..WATCHED.len() + 1).map(|number| Watcher::start(number, &net, &cluster, witness, seed));
        let watchers = watchers.collect();
        Self { seed, witness: witness.clone(), net, cluster, machines, watchers, dice }
    }

    /// Users work while things break.
    async fn trouble(&mut self) {
        let nodes = u8::try_from(self.machines.len()).unwrap_or(1);
        let user = |number| User::new(number, &self.net, &self.cluster, &self.witness, self.seed, nodes);
        let users: Vec<_> = (0..2).map(|n| AbortOnDropHandle::new(tokio::spawn(user(n).run()))).collect();
        tokio::time::sleep(self.dice.seconds(5, 40)).await;
        self.net.trouble.store(true, Ordering::Relaxed);
        let nemesis = Nemesis::new(&self.net, &self.machines, &self.witness, self.seed);
        let nemesis = AbortOnDropHandle::new(tokio::spawn(nemesis.run()));
        // Many short ones find more than few long ones; what takes long needs some.
        let length = self.dice.weighted(&[(12, 60), (4, 120), (2, 300), (1, 1200)]);
        tokio::time::sleep(self.dice.seconds(20, length)).await;
        drop((nemesis, users));
    }

    async fn heal(&mut self) {
        self.witness.tell("all faults are over");
        self.net.trouble.store(false, Ordering::Relaxed);
        for host in 0..self.net.hosts() {
            self.net.set_way(host, Way::Good);
            self.net.start(host).await;
        }
        self.machines.iter().for_each(|machine| machine.heal());
        let mut client = Client::new(&self.net, &self.cluster, Dice::new(self.seed, "administrator"));
        for _ in 0..100 {
            if put_in_order(&mut client).await.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        self.witness.check("a_healed_cluster_takes_writes", Err("nothing could be put in order in 200 s".into()));
    }

    async fn come_to_rest(&mut self) {
        let begun = clockwork::elapsed();
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let unfinished = self.witness.model(|model| end::unfinished(model));
            let quiet = clockwork::elapsed() - self.witness.moved() >= RESTS_FOR;
            let (sentence, why) = match unfinished {
                None if quiet => break,
                None => ("controllers_come_to_rest", "they go on writing".to_string()),
                Some(unfinished) => unfinished,
            };
            if clockwork::elapsed() - begun > CONVERGES_WITHIN {
                self.witness.check(sentence, Err(why));
                return;
            }
        }
        self.witness.tell("everything is as it is wanted");
        for (resource, told) in &self.watchers {
            let heard = has_heard_everything(&self.witness, resource, told).await;
            self.witness.check("watchers_hear_everything_in_the_end", heard);
        }
        self.witness.check("the_log_is_what_the_database_has", self.the_log_is_what_the_database_has());
    }

    /// The current state in the database is what its log adds up to.
    fn the_log_is_what_the_database_has(&self) -> Result<(), String> {
        let objects = self.net.database.objects(&self.cluster);
        self.witness.model(|model| {
            let sealed = |key: &longshore_server::store::Key| *key.resource == *"secrets";
            let logged: Vec<_> = model.all().map(|(key, _)| key).collect();
            let kept: Vec<_> = objects.keys().filter(|key| !sealed(key)).collect();
            match logged == kept {
                true => Ok(()),
                false => Err(format!("{} objects in the log, {} in the table", logged.len(), kept.len())),
            }
        })
    }
}
