//! The edge's certificates: brought along in Secrets, got from an authority by ACME, or signed by the installation's own.
//!
//! Account, certificates and open challenges lie in the database, so that every replica answers for what one of them
//! ordered; keys are sealed by the master key.

use super::part::SECRETS;
use crate::accounts::Accounts;
use crate::store::{Cluster, Key, MasterKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use longshore_api::ids::ClusterId;
use longshore_api::network::Name;
use longshore_edge::Edge;
use longshore_edge::acme::{Authority, Challenge, Issued, Issuer, Pace, Proof, Store, StoreError, Storing, keep};
use longshore_edge::challenge::{Answering, Challenges};
use longshore_edge::model::CertificateSource;
use longshore_edge::tls::{Certificate, CertificateError};
use parking_lot::Mutex;
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, watch};

/// The name under which the account with the authority is kept.
const ACCOUNT: &str = "acme-account";
/// How long a certificate of the installation's own is shown to who asks for it first; it is good for a year.
const SHOWN: Duration = Duration::from_secs(30 * 86_400);
/// Before an authority that could not be reached is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Certificates(Arc<Kept>);

struct Kept {
    pool: PgPool,
    master: Arc<MasterKey>,
    accounts: Arc<Accounts>,
    authority: Option<Authority>,
    contact: Option<String>,
    proof: Proof,
    issuer: OnceCell<Issuer>,
    /// How many certificates the authority has given to this replica.
    given: watch::Sender<u64>,
    /// What the installation's own authority has signed, by host, and when.
    signed: Mutex<HashMap<String, (Instant, Issued)>>,
}

/// A challenge as it is kept.
#[derive(Serialize, Deserialize)]
enum Open {
    Http { token: String, text: String },
    Tls { chain: String, key: String },
}

impl Certificates {
    pub fn new(
        pool: PgPool,
        master: Arc<MasterKey>,
        accounts: Arc<Accounts>,
        authority: Option<Authority>,
        contact: Option<String>,
        proof: Proof,
    ) -> Self {
        Self(Arc::new(Kept {
            pool,
            master,
            accounts,
            authority,
            contact,
            proof,
            issuer: OnceCell::new(),
            given: watch::Sender::new(0),
            signed: Mutex::default(),
        }))
    }

    pub fn has_authority(&self) -> bool {
        self.0.authority.is_some()
    }

    /// Whether a certificate for this host can be got.
    pub fn proves(&self, host: &str) -> bool {
        !self.has_authority() || self.0.proof.proves(host)
    }

    /// Why there will be no certificate of this source, for the Ingress.
    pub fn refuses(&self, source: &CertificateSource) -> Option<String> {
        match source {
            CertificateSource::Automatic(host) if !self.proves(host) => {
                Some(format!("TLS host {host} needs a Secret: the authority proves such a host by DNS only"))
            }
            _ => None,
        }
    }

    /// Gives the edge what a source has now; what an authority is asked for comes by [`keep`](Self::keep). Err says what is
    /// wrong with it, for the Ingress.
    pub fn set(&self, edge: &Edge, cluster: &Cluster, source: &CertificateSource) -> Result<(), String> {
        let found = match source {
            CertificateSource::Secret(name) => secret(cluster, name)
                .and_then(|issued| usable(&issued).map_err(|error| format!("secret {:?}: {error}", name.name))),
            CertificateSource::Automatic(_) if self.has_authority() => return Ok(()),
            CertificateSource::Automatic(host) => {
                let own = self.own(host).map_err(|error| error.to_string());
                own.and_then(|issued| usable(&issued).map_err(|error| error.to_string()))
            }
        };
        let (certificate, why) = match found {
            Ok(certificate) => (Some(certificate), Ok(())),
            Err(why) => (None, Err(why)),
        };
        edge.set_certificate(cluster.id(), source.clone(), certificate);
        why
    }

    /// What a node is given that serves a source's hosts itself; None while there is none.
    pub async fn pem(&self, cluster: &Cluster, source: &CertificateSource) -> Option<Issued> {
        match source {
            CertificateSource::Secret(name) => secret(cluster, name).ok(),
            CertificateSource::Automatic(host) if self.has_authority() => self.0.certificate(host).await,
            CertificateSource::Automatic(host) => self.own(host).ok(),
        }
    }

    /// What the authority is to be shown for a host, in PEM.
    pub async fn tls_challenge(&self, host: &str) -> Option<Issued> {
        // An installation without an authority has none open, and asks nobody.
        self.0.authority.as_ref()?;
        match self.0.open_challenge(host).await? {
            Open::Tls { chain, key } => Some(Issued { chain, key }),
            Open::Http { .. } => None,
        }
    }

    /// Changes when the authority has given one.
    pub fn issued(&self) -> watch::Receiver<u64> {
        self.0.given.subscribe()
    }

    /// Signed by the installation's own authority, which `ca.crt` is: the same for everybody who shows it.
    fn own(&self, host: &str) -> Result<Issued, rcgen::Error> {
        let mut signed = self.0.signed.lock();
        signed.retain(|_, (since, _)| since.elapsed() < SHOWN);
        if let Some((_, issued)) = signed.get(host) {
            return Ok(issued.clone());
        }
        let key = KeyPair::generate()?;
        let made = self.0.accounts.authority().issue_server(host, &[host.to_owned()], &key)?;
        let issued = Issued { chain: made.chain_pem, key: key.serialize_pem() };
        signed.insert(host.to_owned(), (Instant::now(), issued.clone()));
        Ok(issued)
    }

    /// Keeps these hosts in certificates of the authority until `hosts` is closed.
    pub async fn keep(&self, edge: &Edge, cluster: &ClusterId, mut hosts: watch::Receiver<BTreeSet<String>>) {
        let Some(authority) = &self.0.authority else { return };
        loop {
            let contact: Vec<&str> = self.0.contact.iter().map(String::as_str).collect();
            let start = || Issuer::start(authority, &contact, self.0.clone(), self.0.proof.clone());
            match self.0.issuer.get_or_try_init(start).await {
                Ok(issuer) => return keep(issuer, edge, cluster, hosts, Pace::default()).await,
                Err(error) => tracing::warn!(%error, "the authority {} can't be asked", authority.directory),
            }
            let closed = async { while hosts.changed().await.is_ok() {} };
            if tokio::time::timeout(AGAIN, closed).await.is_ok() {
                return;
            }
        }
    }
}

fn usable(issued: &Issued) -> Result<Certificate, CertificateError> {
    Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes())
}

/// Of a Secret of type `kubernetes.io/tls`.
fn secret(cluster: &Cluster, name: &Name) -> Result<Issued, String> {
    let key =
        Key { resource: SECRETS.into(), namespace: name.namespace.as_str().into(), name: name.name.as_str().into() };
    let found = cluster.get(&key).map_err(|error| error.to_string())?;
    let tree = found.ok_or_else(|| format!("secret {:?} not found", name.name))?.tree();
    let part = |part: &str| {
        let text = tree["data"][part].as_str().ok_or_else(|| format!("secret {:?}: it has no {part}", name.name))?;
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        bytes.ok_or_else(|| format!("secret {:?}: its {part} is no text in base64", name.name))
    };
    Ok(Issued { chain: part("tls.crt")?, key: part("tls.key")? })
}

impl Kept {
    fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.master.seal(purpose, plain).map_err(|error| StoreError(error.to_string()))
    }

    fn unseal(&self, purpose: &str, sealed: &[u8]) -> Option<String> {
        let opened = self.master.open(purpose, sealed);
        let opened = opened.inspect_err(|error| tracing::error!(%error, "what was kept as {purpose} can't be read"));
        String::from_utf8(opened.ok()?).ok()
    }

    async fn open_challenge(&self, host: &str) -> Option<Open> {
        let found = sqlx::query_scalar!("SELECT sealed FROM edge_challenges WHERE host = $1", host);
        let sealed = read(found.fetch_optional(&self.pool).await)?;
        serde_json::from_str(&self.unseal(&challenge_of(host), &sealed)?).ok()
    }
}

/// What was found; a database that is away is none, and said.
fn read<T>(found: Result<Option<T>, sqlx::Error>) -> Option<T> {
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "the edge can't read what it keeps");
        None
    })
}

fn written<T>(done: Result<T, sqlx::Error>) -> Result<(), StoreError> {
    done.map(|_| ()).map_err(|error| StoreError(error.to_string()))
}

fn challenge_of(host: &str) -> String {
    format!("edge challenge {host}")
}

fn key_of(host: &str) -> String {
    format!("edge certificate {host}")
}

impl Store for Kept {
    fn account(&self) -> Answering<'_, String> {
        Box::pin(async {
            let found = sqlx::query_scalar!("SELECT sealed_key FROM installation_keys WHERE name = $1", ACCOUNT);
            self.unseal(ACCOUNT, &read(found.fetch_optional(&self.pool).await)?)
        })
    }

    fn save_account<'a>(&'a self, credentials: &'a str) -> Storing<'a> {
        Box::pin(async move {
            let sealed = self.seal(ACCOUNT, credentials.as_bytes())?;
            let query = sqlx::query!(
                "INSERT INTO installation_keys (name, certificate, sealed_key) VALUES ($1, '', $2)
                 ON CONFLICT (name) DO UPDATE SET sealed_key = EXCLUDED.sealed_key",
                ACCOUNT,
                sealed
            );
            written(query.execute(&self.pool).await)
        })
    }

    fn certificate<'a>(&'a self, host: &'a str) -> Answering<'a, Issued> {
        Box::pin(async move {
            let found = sqlx::query!("SELECT chain, sealed_key FROM edge_certificates WHERE host = $1", host);
            let row = read(found.fetch_optional(&self.pool).await)?;
            Some(Issued { key: self.unseal(&key_of(host), &row.sealed_key)?, chain: row.chain })
        })
    }

    fn save_certificate<'a>(&'a self, host: &'a str, issued: &'a Issued) -> Storing<'a> {
        Box::pin(async move {
            let sealed = self.seal(&key_of(host), issued.key.as_bytes())?;
            let query = sqlx::query!(
                "INSERT INTO edge_certificates (host, chain, sealed_key) VALUES ($1, $2, $3) ON CONFLICT (host)
                 DO UPDATE SET chain = EXCLUDED.chain, sealed_key = EXCLUDED.sealed_key, issued_at = now()",
                host,
                issued.chain,
                sealed
            );
            written(query.execute(&self.pool).await)?;
            self.given.send_modify(|count| *count += 1);
            Ok(())
        })
    }

    fn open<'a>(&'a self, host: &'a str, challenge: &'a Challenge) -> Storing<'a> {
        Box::pin(async move {
            let open = match challenge.clone() {
                Challenge::Http { token, text } => Open::Http { token, text },
                Challenge::Tls(Issued { chain, key }) => Open::Tls { chain, key },
            };
            let text = serde_json::to_string(&open).map_err(|error| StoreError(error.to_string()))?;
            let sealed = self.seal(&challenge_of(host), text.as_bytes())?;
            let query = sqlx::query!(
                "INSERT INTO edge_challenges (host, sealed) VALUES ($1, $2)
                 ON CONFLICT (host) DO UPDATE SET sealed = EXCLUDED.sealed, opened_at = now()",
                host,
                sealed
            );
            written(query.execute(&self.pool).await)
        })
    }

    fn close<'a>(&'a self, host: &'a str) -> Storing<'a> {
        Box::pin(async move {
            let query = sqlx::query!("DELETE FROM edge_challenges WHERE host = $1", host);
            written(query.execute(&self.pool).await)
        })
    }
}

impl Challenges for Certificates {
    fn http<'a>(&'a self, host: &'a str, wanted: &'a str) -> Answering<'a, String> {
        Box::pin(async move {
            // An installation without an authority has none open, and asks nobody.
            self.0.authority.as_ref()?;
            match self.0.open_challenge(host).await? {
                Open::Http { token, text } if token == wanted => Some(text),
                _ => None,
            }
        })
    }

    fn tls<'a>(&'a self, host: &'a str) -> Answering<'a, Certificate> {
        Box::pin(async move {
            let Issued { chain, key } = self.tls_challenge(host).await?;
            Certificate::of_challenge(chain.as_bytes(), key.as_bytes()).ok()
        })
    }
}
