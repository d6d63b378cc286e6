//! A machine with its agent: the real node agent over simulated containers, connected through a road that may be blocked.
//! Agent and machine die apart: what runs goes on without an agent, and is found by the next one.

use crate::containers::Containers;
use crate::dice::Dice;
use crate::net::Net;
use crate::wire::{Road, Traffic};
use crate::witness::Witness;
use longshore_agent::connection::backoff::Backoff;
use longshore_agent::connection::{Link, client};
use longshore_agent::node::{NodeAgent, Parts};
use longshore_agent::runtime::hollow::HollowNetwork;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_server::gateway::Member;
use longshore_tunnel::{Config, Side, Tunnel};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// What connecting may take before it is given up, where nobody answers.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Machine {
    pub name: String,
    number: u8,
    cluster: ClusterId,
    net: Arc<Net>,
    witness: Witness,
    pub containers: Arc<Containers>,
    pod_network: Arc<HollowNetwork>,
    pub road: Road,
    dice: Mutex<Dice>,
    agent: Mutex<Option<Agent>>,
}

struct Agent {
    _node: NodeAgent,
    _connection: AbortOnDropHandle<()>,
}

impl Machine {
    pub fn new(number: u8, cluster: &ClusterId, net: &Arc<Net>, witness: &Witness, seed: u64) -> Arc<Self> {
        let name = format!("n{number}");
        let containers = Containers::new(&name, Dice::new(seed, &format!("containers of {name}")), witness.clone());
        Arc::new(Self {
            dice: Mutex::new(Dice::new(seed, &format!("machine {name}"))),
            name,
            number,
            cluster: cluster.clone(),
            net: net.clone(),
            witness: witness.clone(),
            containers,
            pod_network: Arc::default(),
            road: Road::default(),
            agent: Mutex::default(),
        })
    }

    /// The agent's process starts, unless it runs.
    pub fn start_agent(self: &Arc<Self>) {
        let mut agent = self.agent.lock();
        if agent.is_some() {
            return;
        }
        self.witness.tell(format!("{}: the agent starts", self.name));
        let link = Link::default();
        let node = NodeAgent::start(Parts {
            node: self.id(),
            name: self.name.clone(),
            client: client::client(&link, &self.cluster),
            link: link.clone(),
            runtime: self.containers.clone(),
            network: self.pod_network.clone(),
            data_dir: "/nonexistent".into(),
            labels: Default::default(),
        });
        let connection = AbortOnDropHandle::new(tokio::spawn(self.clone().stay_connected(link)));
        *agent = Some(Agent { _node: node, _connection: connection });
    }

    /// The agent's process is killed.
    pub fn kill_agent(&self) {
        if self.agent.lock().take().is_some() {
            self.witness.tell(format!("{}: the agent is killed", self.name));
        }
    }

    /// Everything on the machine ends.
    pub fn lose_power(&self, disk: bool) {
        self.kill_agent();
        self.road.reset();
        self.containers.lose_power(disk);
    }

    fn id(&self) -> NodeId {
        NodeId::new(format!("n-{}", self.name))
    }

    fn member(&self) -> Member {
        Member { cluster: self.cluster.clone(), node: self.id(), name: self.name.clone(), key: [self.number; 32] }
    }

    /// As `Link::run`, but for the names of servers and TLS.
    async fn stay_connected(self: Arc<Self>, link: Link) {
        let mut backoff = Backoff::connecting();
        let mut at = usize::from(self.number);
        loop {
            match self.connect(&link, at).await {
                true => backoff = Backoff::connecting(),
                false => at += 1,
            }
            tokio::time::sleep(backoff.after(false)).await;
        }
    }

    /// Whether there was a connection; returns at its end.
    async fn connect(&self, link: &Link, at: usize) -> bool {
        let latency = {
            let mut dice = self.dice.lock();
            let far = dice.percent(20);
            if far { dice.millis(20, 200) } else { dice.millis(1, 20) }
        };
        if !self.road.is_open() {
            tokio::time::sleep(PATIENCE).await;
            return false;
        }
        tokio::time::sleep(2 * latency).await;
        let Some(process) = self.net.process(at) else { return false };
        if process.admit(&self.cluster).await.is_none() {
            return false;
        }
        let (near, far) = self.road.wire(latency, process.gone());
        process.serve(self.member(), far);
        let (opener, mut incoming) = Tunnel::start(near, Side::Agent, Config::default());
        self.witness.tell(format!("{}: connected to {}", self.name, process.name));
        // Now and then the machine has got another address since.
        let moved = u8::from(self.dice.lock().percent(10));
        link.set(opener.clone(), Some(IpAddr::from([10, 1, moved, self.number])));
        // Nobody asks nodes for logs here.
        while incoming.next().await.is_some() {}
        let why = opener.ended().await;
        self.witness.tell(format!("{}: disconnected: {why}", self.name));
        true
    }

    /// Everything that is wrong with the machine is over.
    pub fn heal(self: &Arc<Self>) {
        self.road.set(Traffic::Flows);
        self.containers.set_trouble(|trouble| *trouble = Default::default());
        self.start_agent();
    }
}
