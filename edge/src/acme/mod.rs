//! Certificates from an authority, by ACME (RFC 8555): proven by HTTP-01 or TLS-ALPN-01, which every edge answers, or by
//! DNS-01, whose records the operator's program makes ([`webhook`]).
//!
//! `instant-acme` speaks the protocol. What is kept (the account, certificates, open challenges) is kept by the caller's
//! [`Store`], so that replicas share it; which replica orders for a host is the caller's to say, by whom it gives the host to
//! ([`keep`]).

mod keeper;
pub mod webhook;

pub use keeper::{Pace, keep};

use crate::challenge::Answering;
use crate::tls::{Certificate, CertificateError};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, OrderStatus,
    RetryPolicy,
};
use jiff::Timestamp;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use webhook::{Record, Webhook, WebhookError};

/// Nothing was saved, in the words of who keeps it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

pub type Storing<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// Where an authority's account, its certificates and open challenges are kept. Keys among them are secrets: to be sealed.
pub trait Store: Send + Sync + 'static {
    /// The account's credentials, as JSON.
    fn account(&self) -> Answering<'_, String>;
    fn save_account<'a>(&'a self, credentials: &'a str) -> Storing<'a>;
    fn certificate<'a>(&'a self, host: &'a str) -> Answering<'a, Issued>;
    fn save_certificate<'a>(&'a self, host: &'a str, issued: &'a Issued) -> Storing<'a>;
    /// From when this returns, every edge answers the challenge ([`crate::challenge::Challenges`]).
    fn open<'a>(&'a self, host: &'a str, challenge: &'a Challenge) -> Storing<'a>;
    fn close<'a>(&'a self, host: &'a str) -> Storing<'a>;
}

/// What an authority will look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// HTTP-01: at this token, this text.
    Http { token: String, text: String },
    /// TLS-ALPN-01: a certificate and its key, in PEM.
    Tls(Issued),
}

/// How hosts are proven to an authority.
#[derive(Clone, Default)]
pub enum Proof {
    #[default]
    Http,
    TlsAlpn,
    /// The only one that proves wildcards.
    Dns(Arc<Webhook>),
}

impl Proof {
    /// Whether a certificate for this host can be had by it.
    pub fn proves(&self, host: &str) -> bool {
        matches!(self, Self::Dns(_)) || !host.starts_with("*.")
    }
}

/// A chain and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    pub chain: String,
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("chain", &self.chain).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    #[error("the authority offers no challenge of the kind that this edge answers")]
    NoChallenge,
    #[error("the authority could not verify {host}: {why}")]
    Refused { host: String, why: String },
    #[error("a certificate can't be made: {0}")]
    Making(#[from] rcgen::Error),
    #[error("what the authority gave can't be used: {0}")]
    Unusable(#[from] CertificateError),
    #[error("the account that was kept can't be read")]
    Account(#[from] serde_json::Error),
    #[error("nothing can be kept: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

/// Who issues certificates.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The address of its directory.
    pub directory: String,
    /// Certificates in PEM that vouch for it; none: those that the machine trusts.
    pub roots: Option<PathBuf>,
}

/// An account with an authority.
pub struct Issuer {
    account: Account,
    store: Arc<dyn Store>,
    proof: Proof,
    retries: RetryPolicy,
}

impl Issuer {
    /// With the account that is kept, or a new one. `contact`: `mailto:…`, or none.
    pub async fn start(
        authority: &Authority,
        contact: &[&str],
        store: Arc<dyn Store>,
        proof: Proof,
    ) -> Result<Self, Error> {
        let builder = match &authority.roots {
            Some(file) => Account::builder_with_root(file)?,
            None => Account::builder()?,
        };
        let account = match store.account().await {
            Some(kept) => {
                let credentials: AccountCredentials = serde_json::from_str(&kept)?;
                builder.from_credentials(credentials).await?
            }
            None => {
                let wanted = NewAccount { contact, terms_of_service_agreed: true, only_return_existing: false };
                let (account, credentials) = builder.create(&wanted, authority.directory.clone(), None).await?;
                store.save_account(&serde_json::to_string(&credentials)?).await?;
                account
            }
        };
        let retries = RetryPolicy::new().timeout(Duration::from_secs(90));
        Ok(Self { account, store, proof, retries })
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// A new certificate for a host, kept before it is returned.
    pub async fn issue(&self, host: &str) -> Result<Issued, Error> {
        let mut shown = Vec::new();
        let result = self.order(host, &mut shown).await;
        // Taken back in any case: an answer to a challenge that isn't open is nobody's business.
        for shown in shown {
            self.take_back(host, shown).await?;
        }
        let issued = result?;
        Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes())?;
        self.store.save_certificate(host, &issued).await?;
        Ok(issued)
    }

    async fn take_back(&self, host: &str, shown: Shown) -> Result<(), Error> {
        match (shown, &self.proof) {
            (Shown::Record(record), Proof::Dns(webhook)) => {
                if let Err(error) = webhook.clean_up(&record).await {
                    tracing::warn!(%error, "a record of a proof is left");
                }
            }
            _ => self.store.close(host).await?,
        }
        Ok(())
    }

    /// `shown`: what was shown to the authority.
    async fn order(&self, host: &str, shown: &mut Vec<Shown>) -> Result<Issued, Error> {
        let identifiers = [Identifier::Dns(host.to_string())];
        let mut order = self.account.new_order(&NewOrder::new(&identifiers)).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let kind = match self.proof {
                Proof::Http => ChallengeType::Http01,
                Proof::TlsAlpn => ChallengeType::TlsAlpn01,
                Proof::Dns(_) => ChallengeType::Dns01,
            };
            let mut challenge = authorization.challenge(kind).ok_or(Error::NoChallenge)?;
            let answer = challenge.key_authorization();
            let open = match &self.proof {
                Proof::Dns(webhook) => {
                    let record = Record::of(host, answer.dns_value());
                    shown.push(Shown::Record(record.clone()));
                    webhook.present(&record).await?;
                    None
                }
                Proof::Http => {
                    Some(Challenge::Http { token: challenge.token.clone(), text: answer.as_str().to_string() })
                }
                Proof::TlsAlpn => Some(Challenge::Tls(challenge_certificate(host, answer.digest().as_ref())?)),
            };
            if let Some(open) = open {
                shown.push(Shown::Challenge);
                self.store.open(host, &open).await?;
            }
            challenge.set_ready().await?;
        }
        match order.poll_ready(&self.retries).await {
            Ok(OrderStatus::Ready) => {}
            // It says of the order what it found wrong with a challenge.
            Err(instant_acme::Error::Api(problem)) => {
                return Err(Error::Refused { host: host.to_string(), why: problem.to_string() });
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(refused(host, &mut order).await),
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&self.retries).await?;
        Ok(Issued { chain, key })
    }
}

enum Shown {
    /// By every edge.
    Challenge,
    Record(Record),
}

/// Why an order became invalid: the problem that the authority has with a challenge.
async fn refused(host: &str, order: &mut instant_acme::Order) -> Error {
    let mut why = "it doesn't say why".to_string();
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            why = problem.to_string();
        }
    }
    Error::Refused { host: host.to_string(), why }
}

/// RFC 8737: self-signed, for this one name, with the digest in an extension.
fn challenge_certificate(host: &str, digest: &[u8]) -> Result<Issued, rcgen::Error> {
    let mut params = CertificateParams::new(vec![host.to_string()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued { chain: certificate.pem(), key: key.serialize_pem() })
}

impl Issued {
    /// When its first certificate began and ends; None for what is none.
    pub fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        let der = CertificateDer::from_pem_slice(self.chain.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = certificate.validity();
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Some((at(validity.not_before)?, at(validity.not_after)?))
    }
}
