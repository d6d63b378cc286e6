//! Keeps hosts in certificates: orders what is missing, renews ahead of time, waits longer after each failure.

use super::{Issued, Issuer};
use crate::Edge;
use crate::model::CertificateSource;
use crate::tls::Certificate;
use jiff::{SignedDuration, Timestamp};
use longshore_api::ids::ClusterId;
use rand::Rng;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// How soon is tried again, and how much of a certificate's life may pass before it is renewed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After the first failure; doubled after each.
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Pace {
    /// Within what authorities allow: Let's Encrypt has five failures of a name an hour.
    fn default() -> Self {
        Self { first: Duration::from_secs(60), longest: Duration::from_secs(6 * 3600) }
    }
}

impl Pace {
    fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.longest)
    }
}

/// Two thirds of its life: what is left is time to repair what keeps a renewal from working.
pub(super) fn renewal(issued: &Issued) -> Option<Timestamp> {
    let (begin, end) = issued.validity()?;
    let life = end.duration_since(begin);
    Some(begin + life * 2 / 3)
}

struct Host {
    failures: u32,
    /// When it is looked at again.
    due: Timestamp,
}

/// Serves these hosts of a cluster with certificates, from the store or newly ordered, until `hosts` is closed.
pub async fn keep(
    issuer: &Issuer,
    edge: &Edge,
    cluster: &ClusterId,
    mut hosts: watch::Receiver<BTreeSet<String>>,
    pace: Pace,
) {
    let mut known: BTreeMap<String, Host> = BTreeMap::new();
    loop {
        let wanted = hosts.borrow_and_update().clone();
        for gone in known.keys().filter(|host| !wanted.contains(*host)) {
            edge.set_certificate(cluster, CertificateSource::Automatic(gone.clone()), None);
        }
        known.retain(|host, _| wanted.contains(host));
        for host in wanted {
            if let Entry::Vacant(new) = known.entry(host) {
                let due = load(issuer, edge, cluster, new.key()).await;
                new.insert(Host { failures: 0, due });
            }
        }
        let next = known.iter_mut().min_by_key(|(_, host)| host.due);
        let due = next.as_ref().map(|(_, host)| host.due);
        let wait = due.map_or(Duration::MAX, until);
        tokio::select! {
            changed = hosts.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {
                if let Some((name, host)) = next.filter(|(_, host)| host.due <= Timestamp::now()) {
                    attempt(issuer, edge, cluster, name, host, pace).await;
                }
            }
        }
    }
}

/// The clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default()
}

/// Serves what is kept; when to renew it, which is at once where there is nothing.
async fn load(issuer: &Issuer, edge: &Edge, cluster: &ClusterId, host: &str) -> Timestamp {
    match issuer.store().certificate(host).await {
        Some(kept) if serve(edge, cluster, host, &kept) => renewal(&kept).unwrap_or_default(),
        _ => Timestamp::UNIX_EPOCH,
    }
}

fn serve(edge: &Edge, cluster: &ClusterId, host: &str, issued: &Issued) -> bool {
    match Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()) {
        Ok(certificate) => {
            edge.set_certificate(cluster, CertificateSource::Automatic(host.to_string()), Some(certificate));
            true
        }
        Err(error) => {
            warn!(%error, host, "the certificate of {host} can't be used");
            false
        }
    }
}

async fn attempt(issuer: &Issuer, edge: &Edge, cluster: &ClusterId, name: &str, host: &mut Host, pace: Pace) {
    match issuer.issue(name).await {
        Ok(issued) => {
            serve(edge, cluster, name, &issued);
            let renewal = renewal(&issued).unwrap_or_default();
            // Never sooner than after a failure, whatever the certificate says of its life.
            host.due = renewal.max(later(pace.after(1)));
            host.failures = 0;
            info!(host = name, renewal = %host.due, "there is a certificate for {name}");
        }
        Err(error) => {
            host.failures += 1;
            let wait = pace.after(host.failures);
            // Many hosts that failed together are tried apart.
            let wait = wait.mul_f64(rand::rng().random_range(0.8..1.2));
            host.due = later(wait);
            warn!(%error, host = name, seconds = wait.as_secs(), "no certificate for {name}");
        }
    }
}

fn later(wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest() {
        let pace = Pace { first: Duration::from_secs(60), longest: Duration::from_secs(1000) };
        let waits: Vec<u64> = [1, 2, 3, 5, 6, 400].map(|failures| pace.after(failures).as_secs()).into();
        assert_eq!(waits, [60, 120, 240, 960, 1000, 1000]);
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let mut params = rcgen::CertificateParams::new(vec!["a.com".to_string()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let issued = Issued { chain: params.self_signed(&key).unwrap().pem(), key: String::new() };
        assert_eq!(renewal(&issued), Some("2026-03-02T00:00:00Z".parse().unwrap()));
        assert_eq!(renewal(&Issued { chain: "x".into(), key: String::new() }), None);
    }
}
