//! The one who breaks things: servers, their database, machines, roads, containers; one fault after another, several at a
//! time, each for a while.

use crate::dice::Dice;
use crate::fate::Way;
use crate::machine::Machine;
use crate::net::Net;
use crate::wire::Traffic;
use crate::witness::Witness;
use std::sync::Arc;
use std::time::Duration;

pub struct Nemesis {
    pub net: Arc<Net>,
    pub machines: Vec<Arc<Machine>>,
    pub witness: Witness,
    pub dice: Dice,
    pub seed: u64,
    done: u64,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    ServerKilled,
    ServerStopped,
    DatabaseAway,
    DatabaseSlow,
    CommitsBreak,
    HostCutOff,
    MachineCutOff,
    MachineCutOffForLong,
    OneWay,
    Stalled,
    Reset,
    AgentKilled,
    PowerLost,
    DiskLost,
    RuntimeAway,
    RuntimeSlow,
    RegistryAway,
    ContainerKilled,
}

const FAULTS: &[(u64, Fault)] = &[
    (8, Fault::ServerKilled),
    (3, Fault::ServerStopped),
    (4, Fault::DatabaseAway),
    (4, Fault::DatabaseSlow),
    (8, Fault::CommitsBreak),
    (8, Fault::HostCutOff),
    (6, Fault::MachineCutOff),
    (2, Fault::MachineCutOffForLong),
    (3, Fault::OneWay),
    (3, Fault::Stalled),
    (4, Fault::Reset),
    (6, Fault::AgentKilled),
    (4, Fault::PowerLost),
    (2, Fault::DiskLost),
    (4, Fault::RuntimeAway),
    (3, Fault::RuntimeSlow),
    (4, Fault::RegistryAway),
    (10, Fault::ContainerKilled),
];

impl Nemesis {
    pub fn new(net: &Arc<Net>, machines: &[Arc<Machine>], witness: &Witness, seed: u64) -> Self {
        Self {
            net: net.clone(),
            machines: machines.to_vec(),
            witness: witness.clone(),
            dice: Dice::new(seed, "nemesis"),
            seed,
            done: 0,
        }
    }

    /// One fault after another, for ever. What is broken when this is dropped stays so until it is healed.
    pub async fn run(mut self) {
        let pace = self.dice.weighted(&[(2, 3000), (3, 10_000), (2, 40_000)]);
        let mut under_way = tokio::task::JoinSet::new();
        loop {
            tokio::time::sleep(self.dice.millis(100, pace)).await;
            let fault = self.dice.weighted(FAULTS);
            self.done += 1;
            let host = usize::try_from(self.dice.between(0, self.net.hosts() as u64 - 1)).unwrap_or_default();
            let dice = Dice::new(self.seed, &format!("fault {}", self.done));
            let machine = self.dice.pick(&self.machines).clone();
            let one = Breaking { net: self.net.clone(), witness: self.witness.clone(), dice, host, machine };
            under_way.spawn(one.befall(fault));
        }
    }
}

struct Breaking {
    net: Arc<Net>,
    witness: Witness,
    dice: Dice,
    host: usize,
    machine: Arc<Machine>,
}

impl Breaking {
    async fn befall(mut self, fault: Fault) {
        let whom = match fault {
            Fault::ServerKilled | Fault::ServerStopped | Fault::HostCutOff => format!("host {}", self.host),
            Fault::DatabaseAway | Fault::DatabaseSlow | Fault::CommitsBreak => "the database".into(),
            _ => self.machine.name.clone(),
        };
        self.witness.tell(format!("FAULT {fault:?}: {whom}"));
        self.strike(fault).await;
        self.witness.tell(format!("over: {fault:?}: {whom}"));
    }

    async fn strike(&mut self, fault: Fault) {
        let machine = self.machine.clone();
        match fault {
            Fault::ServerKilled | Fault::ServerStopped => {
                if let Some(process) = self.net.process(self.host) {
                    match fault {
                        Fault::ServerKilled => process.kill(),
                        _ => process.stop().await,
                    }
                }
                self.pass(100, 15_000).await;
                self.net.start(self.host).await;
            }
            Fault::DatabaseAway => {
                let way = Way::Away(self.dice.between(1, 3000));
                self.everywhere(way, 500, 40_000).await;
            }
            Fault::DatabaseSlow => {
                let way = Way::Slow(self.dice.weighted(&[(2, 200), (2, 1500), (1, 6000)]));
                self.everywhere(way, 2000, 30_000).await;
            }
            Fault::CommitsBreak => {
                let way = Way::Breaks(*self.dice.pick(&[5, 20, 50]));
                self.everywhere(way, 2000, 30_000).await;
            }
            Fault::HostCutOff => {
                let way = Way::Away(self.dice.between(1, 12_000));
                self.net.set_way(self.host, way);
                self.pass(500, 40_000).await;
                self.net.set_way(self.host, Way::Good);
            }
            Fault::MachineCutOff => self.road(Traffic::Swallowed, 1000, 60_000).await,
            Fault::MachineCutOffForLong => self.road(Traffic::Swallowed, 300_000, 700_000).await,
            Fault::Stalled => self.road(Traffic::Stalled, 500, 20_000).await,
            Fault::OneWay => {
                let way = if self.dice.percent(50) { &machine.road.to_server } else { &machine.road.to_machine };
                way.send_replace(Traffic::Swallowed);
                self.pass(1000, 40_000).await;
                way.send_replace(Traffic::Flows);
            }
            Fault::Reset => machine.road.reset(),
            Fault::AgentKilled => {
                machine.kill_agent();
                self.pass(50, 10_000).await;
                machine.start_agent();
            }
            Fault::PowerLost | Fault::DiskLost => {
                machine.lose_power(matches!(fault, Fault::DiskLost));
                self.pass(2000, 60_000).await;
                machine.start_agent();
            }
            Fault::RuntimeAway => {
                machine.containers.set_trouble(|t| t.unreachable = true);
                self.pass(500, 40_000).await;
                machine.containers.set_trouble(|t| t.unreachable = false);
            }
            Fault::RuntimeSlow => {
                machine.containers.set_trouble(|t| t.slow = true);
                self.pass(500, 40_000).await;
                machine.containers.set_trouble(|t| t.slow = false);
            }
            Fault::RegistryAway => {
                machine.containers.set_trouble(|t| t.registry_away = true);
                self.pass(1000, 60_000).await;
                machine.containers.set_trouble(|t| t.registry_away = false);
            }
            Fault::ContainerKilled => drop(machine.containers.kill_one()),
        }
    }

    async fn everywhere(&mut self, way: Way, low: u64, high: u64) {
        (0..self.net.hosts()).for_each(|host| self.net.set_way(host, way));
        self.pass(low, high).await;
        (0..self.net.hosts()).for_each(|host| self.net.set_way(host, Way::Good));
    }

    async fn road(&mut self, traffic: Traffic, low: u64, high: u64) {
        self.machine.road.set(traffic);
        self.pass(low, high).await;
        self.machine.road.set(Traffic::Flows);
    }

    async fn pass(&mut self, low: u64, high: u64) {
        let pause: Duration = self.dice.millis(low, high);
        tokio::time::sleep(pause).await;
    }
}
