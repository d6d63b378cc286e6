//! The edge at work: what the world reaches the apps of this replica's clusters through.
//!
//! `longshore-edge` knows routes, TLS and proxying; this room tells it of clusters. A cluster whose nodes are connected is
//! loaded where their tunnels end, so the replica that has a cluster's routes is the one that can reach its pods.
//!
//! - `part`: a cluster's Ingresses and what they name, as far as the edge needs it; `backends`: Services and endpoints (pure).
//! - `follower`: keeps the edge in step with one cluster's log. A cluster without an Ingress costs a watch on nothing.
//! - `balancers`: Services of type LoadBalancer, at [`ports`] of the edge's address.
//! - [`hosts`]: which cluster serves which host, and `proof` of it.
//! - `certificates`: of Secrets, of an authority by ACME, or of the installation's own.
//! - `nodes`: what nodes are told that serve their cluster's Ingresses themselves.
//! - `report`: what Ingresses are told: their address, and what is wrong with them.
//!
//! What comes in here is not subject to network policies, as what a kubelet sends is not: an Ingress says itself what is to
//! be reached from outside.

mod backends;
mod balancers;
mod certificates;
mod follower;
pub mod hosts;
mod nodes;
mod part;
pub mod ports;
mod proof;
mod report;

use crate::accounts::Accounts;
use crate::apiserver::Api;
use crate::gateway::Gateway;
use crate::store::{Cluster, ClusterHook, MasterKey, StoreError};
use balancers::Balancers;
use certificates::Certificates;
use follower::Follower;
use futures::future::BoxFuture;
use hosts::{Hosts, Rules};
use ipnet::IpNet;
use longshore_api::ids::ClusterId;
use longshore_edge::acme::{Authority, Proof};
use longshore_edge::{Edge, Family};
use ports::PortRules;
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Before what was refused is asked for again: a record may have been made, another cluster may have let go.
const ASKED_AGAIN: Duration = Duration::from_secs(20);

/// What a replica's edge is told.
pub struct Settings {
    /// Where plain HTTP is served.
    pub http: Option<TcpListener>,
    pub https: Option<TcpListener>,
    pub rules: Rules,
    /// The addresses or names under which the world finds this edge: what the status of an Ingress tells.
    pub addresses: Vec<String>,
    /// Ports for Services of type LoadBalancer, where there are any.
    pub ports: Option<PortRules>,
    /// Proxies that say by the PROXY protocol who the client is.
    pub proxies: Vec<IpNet>,
    /// Who issues certificates; none: the installation's own authority does.
    pub authority: Option<Authority>,
    /// `mailto:…`, for the authority.
    pub contact: Option<String>,
    /// How hosts are proven to it.
    pub proof: Proof,
}

/// The edge of one replica. Cheap to clone.
#[derive(Clone)]
pub struct EdgeRoom(Arc<Room>);

struct Room {
    edge: Edge,
    api: Api,
    hosts: Hosts,
    certificates: Certificates,
    pool: PgPool,
    addresses: Vec<String>,
    /// Where HTTP is served, plain and over TLS.
    ports: Vec<u16>,
    balanced: Option<PortRules>,
}

/// The sockets of an edge that isn't serving yet.
pub struct Listeners {
    http: Option<TcpListener>,
    https: Option<TcpListener>,
}

impl EdgeRoom {
    pub fn open(
        settings: Settings,
        pool: PgPool,
        master: Arc<MasterKey>,
        gateway: Gateway,
        api: Api,
        accounts: Arc<Accounts>,
    ) -> (Self, Listeners) {
        let port =
            |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok()).map(|a| a.port());
        let (http, https) = (port(&settings.http), port(&settings.https));
        let certificates =
            Certificates::new(pool.clone(), master, accounts, settings.authority, settings.contact, settings.proof);
        let served = longshore_edge::Settings {
            reserved: settings.rules.reserved.clone(),
            proxies: settings.proxies,
            https_port: https.unwrap_or(443),
            ..Default::default()
        };
        let edge = Edge::start(served, Arc::new(gateway), Arc::new(certificates.clone()));
        let room = Room {
            edge,
            api,
            hosts: Hosts::new(pool.clone(), settings.rules),
            certificates,
            pool,
            addresses: settings.addresses,
            ports: http.into_iter().chain(https).collect(),
            balanced: settings.ports,
        };
        (Self(Arc::new(room)), Listeners { http: settings.http, https: settings.https })
    }

    /// Serves until `stop` turns true.
    pub async fn serve(&self, listeners: Listeners, stop: watch::Receiver<bool>) {
        let edge = &self.0.edge;
        let http = async {
            if let Some(listener) = listeners.http {
                edge.serve_http(listener, stop.clone()).await;
            }
        };
        let https = async {
            if let Some(listener) = listeners.https {
                edge.serve_https(listener, stop.clone()).await;
            }
        };
        tokio::join!(http, https);
    }

    pub fn metrics(&self) -> Vec<Family> {
        self.0.edge.metrics()
    }
}

impl ClusterHook for EdgeRoom {
    fn loaded<'a>(&'a self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (follower, watch) = Follower::open(self.0.clone(), cluster)?;
            tokio::spawn(follower.run(watch));
            if let Some(rules) = &self.0.balanced {
                let (balancers, watch) = Balancers::open(self.0.clone(), rules.clone(), cluster)?;
                tokio::spawn(balancers.run(watch));
            }
            Ok(())
        })
    }

    /// The end of its watches ends a follower.
    fn unloading(&self, _: &ClusterId) {}
}
