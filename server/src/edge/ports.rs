//! Which cluster has which port of the edge's address: whoever asked first, for as long as a Service asks for it. A number is one
//! cluster's for all protocols: DNS is one service at two of them.

use longshore_api::ids::ClusterId;
use longshore_api::network::Protocol;
use sqlx::PgPool;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Of the edge's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgePort {
    pub number: u16,
    pub protocol: Protocol,
}

impl EdgePort {
    pub fn tcp(number: u16) -> Self {
        Self { number, protocol: Protocol::Tcp }
    }
}

impl fmt::Display for EdgePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

/// What Services of type LoadBalancer may have.
#[derive(Clone, Debug)]
pub struct PortRules {
    /// Where ports are opened.
    pub ip: IpAddr,
    pub range: RangeInclusive<u16>,
    /// Used already: the server's own, the edge's.
    pub reserved: Vec<u16>,
}

impl PortRules {
    pub fn allow(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.contains(&port)
    }
}

/// Makes `wanted` the ports that the cluster asks for: those of them that it has now; it lets go of all others.
pub async fn settle(pool: &PgPool, cluster: &ClusterId, wanted: &BTreeSet<u16>) -> Result<BTreeSet<u16>, sqlx::Error> {
    let wanted: Vec<i32> = wanted.iter().map(|port| i32::from(*port)).collect();
    let mut transaction = pool.begin().await?;
    sqlx::query!("DELETE FROM edge_ports WHERE cluster = $1 AND port <> ALL ($2)", cluster.as_str(), &wanted)
        .execute(&mut *transaction)
        .await?;
    // In one order, so that two clusters that ask for the same ports don't wait for each other.
    sqlx::query!(
        "INSERT INTO edge_ports (port, cluster) SELECT port, $1 FROM UNNEST($2::integer[]) AS wanted (port) ORDER BY port
         ON CONFLICT (port) DO NOTHING",
        cluster.as_str(),
        &wanted
    )
    .execute(&mut *transaction)
    .await?;
    let held = sqlx::query_scalar!("SELECT port FROM edge_ports WHERE cluster = $1", cluster.as_str())
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(held.into_iter().filter_map(|port| u16::try_from(port).ok()).collect())
}
