//! Which cluster serves which host: whoever asked first has it, for as long as an Ingress names it.
//!
//! Where an installation serves parties who don't trust each other, a name that isn't below its own domain must be proven
//! first, by a TXT record that names the cluster: pointing a name here proves nothing, for others' names point here as well.

use super::proof;
use longshore_api::ids::ClusterId;
use longshore_edge::host::{Host, parent};
use sqlx::PgPool;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Before this label a proof's record stands.
const PROOF_LABEL: &str = "_longshore";

/// Who may have which host.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// All parties trust each other: any host, for whoever asks first.
    pub open: bool,
    /// Names one label below it are given to whoever asks first.
    pub domain: Option<String>,
    /// Nobody's: the dashboard's own. A page there would be sent the dashboard's cookies, whatever the port.
    pub reserved: Vec<Host>,
    /// The name server that is asked for proofs; none: those of this machine.
    pub resolver: Option<SocketAddr>,
}

/// Why a cluster does not have a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Reserved,
    Taken,
    /// `*`, and what lies too deep below the installation's domain.
    NotForOne,
    Unproven {
        record: String,
        value: String,
    },
}

impl Refusal {
    /// As an event has it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Reserved | Self::NotForOne => "HostNotAllowed",
            Self::Taken => "HostTaken",
            Self::Unproven { .. } => "HostUnproven",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved => f.write_str("it is the dashboard's own name"),
            Self::Taken => f.write_str("another cluster serves it"),
            Self::NotForOne => f.write_str("name one host: it would be for names of others as well"),
            Self::Unproven { record, value } => {
                write!(f, "it is not proven to be yours: add the DNS record {record} TXT \"{value}\"")
            }
        }
    }
}

/// What is to be done about a host that a cluster asks for.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Free,
    Refused(Refusal),
    Prove { record: String, value: String },
}

impl Rules {
    fn judge(&self, cluster: &ClusterId, host: &Host) -> Judgement {
        if self.reserved.contains(host) {
            return Judgement::Refused(Refusal::Reserved);
        }
        if self.open {
            return Judgement::Free;
        }
        let (name, below) = match host {
            Host::Any => return Judgement::Refused(Refusal::NotForOne),
            Host::Exact(name) => (name, false),
            Host::Wildcard(name) => (name, true),
        };
        if let Some(domain) = &self.domain
            && (name == domain || name.ends_with(&format!(".{domain}")))
        {
            let one_label = !below && parent(name) == Some(domain);
            return if one_label { Judgement::Free } else { Judgement::Refused(Refusal::NotForOne) };
        }
        Judgement::Prove { record: format!("{PROOF_LABEL}.{name}"), value: format!("cluster={cluster}") }
    }
}

/// What a cluster asked for, and got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub granted: BTreeSet<Host>,
    pub refused: BTreeMap<Host, Refusal>,
}

impl Settled {
    /// Whether asking again later may change it: somebody lets a host go, or a record appears.
    pub fn may_change(&self) -> bool {
        self.refused.values().any(|why| matches!(why, Refusal::Taken | Refusal::Unproven { .. }))
    }
}

/// All hosts of the installation. Cheap to clone.
#[derive(Clone)]
pub struct Hosts {
    pool: PgPool,
    rules: Rules,
    freed: Arc<watch::Sender<()>>,
}

impl Hosts {
    pub fn new(pool: PgPool, rules: Rules) -> Self {
        Self { pool, rules, freed: Arc::new(watch::Sender::new(())) }
    }

    /// Changes when a cluster of this replica lets a host go.
    pub fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// Makes `wanted` the hosts that the cluster asks for: it keeps and gets what it may have, and lets go of all others.
    pub async fn settle(&self, cluster: &ClusterId, wanted: &BTreeSet<Host>) -> Result<Settled, sqlx::Error> {
        let mut settled = Settled::default();
        let mut asked = Vec::new();
        let mut proofs = Vec::new();
        for host in wanted {
            match self.rules.judge(cluster, host) {
                Judgement::Free => asked.push(host.to_string()),
                Judgement::Refused(why) => {
                    settled.refused.insert(host.clone(), why);
                }
                Judgement::Prove { record, value } => proofs.push((host, record, value)),
            }
        }
        let kept = if proofs.is_empty() { BTreeSet::new() } else { self.held(cluster).await? };
        for (host, record, value) in proofs {
            // What was proven once stays until it is let go.
            if kept.contains(&host.to_string()) || proof::holds(self.rules.resolver, &record, &value).await {
                asked.push(host.to_string());
            } else {
                settled.refused.insert(host.clone(), Refusal::Unproven { record, value });
            }
        }
        let held = self.claim(cluster, &asked).await?;
        for host in wanted.iter().filter(|host| asked.contains(&host.to_string())) {
            if held.contains(&host.to_string()) {
                settled.granted.insert(host.clone());
            } else {
                settled.refused.insert(host.clone(), Refusal::Taken);
            }
        }
        Ok(settled)
    }

    async fn held(&self, cluster: &ClusterId) -> Result<BTreeSet<String>, sqlx::Error> {
        let rows = sqlx::query_scalar!("SELECT host FROM edge_hosts WHERE cluster = $1", cluster.as_str());
        Ok(rows.fetch_all(&self.pool).await?.into_iter().collect())
    }

    async fn claim(&self, cluster: &ClusterId, hosts: &[String]) -> Result<BTreeSet<String>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let gone =
            sqlx::query!("DELETE FROM edge_hosts WHERE cluster = $1 AND host <> ALL ($2)", cluster.as_str(), hosts)
                .execute(&mut *transaction)
                .await?;
        // In one order, so that two clusters that ask for the same hosts don't wait for each other.
        sqlx::query!(
            "INSERT INTO edge_hosts (host, cluster) SELECT host, $1 FROM UNNEST($2::text[]) AS wanted (host) ORDER BY host
             ON CONFLICT (host) DO NOTHING",
            cluster.as_str(),
            hosts
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if gone.rows_affected() > 0 {
            self.freed.send_replace(());
        }
        self.held(cluster).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn names_of_the_installation_are_free_and_others_are_proven() {
        let reserved = vec![host("longshore.example")];
        let rules = Rules { open: false, domain: Some("apps.example".into()), reserved, resolver: None };
        let judge = |text: &str| rules.judge(&ClusterId::new("c-1"), &host(text));
        assert_eq!(judge("web.apps.example"), Judgement::Free);
        for not_for_one in ["", "apps.example", "a.b.apps.example", "*.apps.example", "*.b.apps.example"] {
            assert_eq!(judge(not_for_one), Judgement::Refused(Refusal::NotForOne), "{not_for_one}");
        }
        assert_eq!(judge("longshore.example"), Judgement::Refused(Refusal::Reserved));
        for (text, record) in [
            ("shop.com", "_longshore.shop.com"),
            ("*.shop.com", "_longshore.shop.com"),
            ("xapps.example", "_longshore.xapps.example"),
        ] {
            assert_eq!(judge(text), Judgement::Prove { record: record.into(), value: "cluster=c-1".into() });
        }
    }

    #[test]
    fn among_friends_every_host_but_the_dashboards_is_free() {
        let rules = Rules { open: true, reserved: vec![host("127.0.0.1")], ..Rules::default() };
        for free in ["", "shop.com", "*.shop.com"] {
            assert_eq!(rules.judge(&ClusterId::new("c-1"), &host(free)), Judgement::Free);
        }
        assert_eq!(rules.judge(&ClusterId::new("c-1"), &host("127.0.0.1")), Judgement::Refused(Refusal::Reserved));
    }
}
