//! People, organizations, roles, sessions, tokens and the keys behind them.
//!
//! `http` parses and answers, `Accounts` decides, `records` holds the SQL. Keys: the master key wraps all others and
//! signs nothing; the installation's CA signs the server's certificate; each cluster has a CA and signing keys of its own.

pub mod authenticate;
pub mod authority;
pub mod cluster_keys;
mod clusters;
pub mod founding;
pub mod http;
pub mod identity;
mod nodes;
pub mod password;
mod records;
pub mod signing;
mod tickets;

pub use identity::{Authenticator, Identity, Role, Who};
pub use tickets::TicketHolder;

use crate::store::{MasterKey, Store};
use authority::{Authority, AuthorityRecord, TlsError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster_keys::ClusterKeys;
use longshore_api::Status;
use longshore_api::accounts as shapes;
use longshore_api::ids::{ClusterId, NodeId, UserId};
use longshore_api::join_token::JoinToken;
use parking_lot::Mutex;
use rcgen::{KeyPair, PublicKeyData};
use records::{ClusterRow, KeyRow};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use std::collections::HashMap;
use std::sync::Arc;
use tickets::Tickets;

/// A session ends this long after signing in.
const SESSION_HOURS: i32 = 24 * 14;
/// A join token lives for a day unless asked otherwise, at most for 30.
const JOIN_TOKEN_HOURS: u32 = 24;
const JOIN_TOKEN_HOURS_MOST: u32 = 24 * 30;

/// All that accounts rest on; built once.
pub struct Accounts {
    pool: PgPool,
    store: Store,
    master: Arc<MasterKey>,
    /// `https://host:port` under which clients reach this installation.
    base_url: String,
    authority: Authority,
    /// The key of the port's certificate: the same on every replica and over restarts, so that it can be pinned.
    server_key: KeyPair,
    clusters: Mutex<HashMap<ClusterId, Arc<ClusterKeys>>>,
    tickets: Tickets,
    callers: authenticate::Callers,
}

/// What a good join token grants: a machine may join this cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinGrant {
    pub cluster: ClusterId,
}

/// A session that has just begun.
pub struct SignedIn {
    /// For the cookie; nothing else is kept of it than its digest.
    pub secret: String,
    pub session: shapes::Session,
}

impl Accounts {
    /// Loads the installation's CA, or makes it at first. `base_url` is where clients reach us.
    pub async fn open(
        pool: PgPool,
        store: Store,
        master: Arc<MasterKey>,
        base_url: String,
    ) -> Result<Arc<Self>, OpenError> {
        let ca = || Authority::generate("longshore-ca").map(|made| (made.certificate_pem, made.key_pem));
        let (certificate_pem, key_pem) = load_or_make(&pool, &master, "ca", ca).await?;
        let authority = Authority::load(&AuthorityRecord { certificate_pem, key_pem })?;
        let key = || KeyPair::generate().map(|key| (String::new(), key.serialize_pem()));
        let server_key = KeyPair::from_pem(&load_or_make(&pool, &master, "server", key).await?.1)?;
        Ok(Arc::new(Self {
            pool,
            store,
            master,
            base_url,
            authority,
            server_key,
            clusters: Mutex::default(),
            tickets: Tickets::default(),
            callers: authenticate::Callers::default(),
        }))
    }

    /// The installation's certificate authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Checks a password; the same answer for an unknown address and a wrong password, in the same time.
    pub async fn sign_in(&self, email: &str, password: &str) -> Result<SignedIn, Status> {
        let found = records::person_by_email(&self.pool, email.trim()).await.map_err(unavailable)?;
        let (person, hash) = match found {
            Some((person, hash)) => (Some(person), hash),
            None => (None, None),
        };
        let given = password.to_string();
        let good = tokio::task::spawn_blocking(move || password::verify(&given, hash.as_deref()))
            .await
            .map_err(|_| Status::internal("the password could not be checked"))?;
        let Some(person) = person.filter(|_| good) else {
            return Err(Status::failure(401, "Unauthorized", "the email address or the password is wrong"));
        };
        let (secret, csrf) = (password::secret(), password::secret());
        records::insert_session(&self.pool, &person.user, &password::digest(&secret), &csrf, SESSION_HOURS)
            .await
            .map_err(unavailable)?;
        let session = self.session(person, csrf).await?;
        Ok(SignedIn { secret, session })
    }

    /// Ends the session whose cookie this is; no error when there is none.
    pub async fn sign_out(&self, secret: &str) -> Result<(), Status> {
        self.callers.forget();
        records::delete_session(&self.pool, &password::digest(secret)).await.map_err(unavailable)
    }

    async fn session(&self, person: records::PersonRow, csrf: String) -> Result<shapes::Session, Status> {
        let memberships = records::memberships(&self.pool, &person.user).await.map_err(unavailable)?;
        let clusters = records::clusters_of(&self.pool, &person.user).await.map_err(unavailable)?;
        let organizations = memberships.into_iter().map(|m| shapes::Organization {
            clusters: clusters
                .iter()
                .filter(|c| c.organization == m.organization)
                .map(|c| shapes::Cluster { id: c.id.clone(), name: c.name.clone() })
                .collect(),
            id: m.organization,
            name: m.name,
            role: m.role.as_str().into(),
        });
        let user = shapes::User { id: person.user, email: person.email, name: person.name };
        Ok(shapes::Session { user, csrf, organizations: organizations.collect() })
    }

    /// A new API token of `user`, shown once.
    pub async fn create_api_token(&self, user: &UserId, new: &shapes::NewApiToken) -> Result<shapes::ApiToken, Status> {
        let days = new.days.map(|d| d.clamp(1, 3660) as i32);
        let (id, token) =
            (password::random_id("t"), format!("{}{}", authenticate::API_TOKEN_PREFIX, password::secret()));
        let digest = password::digest(&token);
        records::put_api_token(&self.pool, user, &id, &new.name, &digest, days).await.map_err(unavailable)?;
        Ok(shapes::ApiToken { id, token })
    }

    /// A join token of a cluster, for whoever may administer it.
    pub async fn create_join_token(
        &self,
        identity: &Identity,
        cluster: &ClusterId,
        new: &shapes::NewJoinToken,
    ) -> Result<shapes::JoinToken, Status> {
        if !matches!(identity.who, Who::Person { role, .. } if role >= Role::Admin) {
            let resource = longshore_api::meta::GroupResource::new("", "join-tokens");
            return Err(Status::forbidden(&resource, "", "only owners and admins of the organization may add nodes"));
        }
        let hours = new.hours.unwrap_or(JOIN_TOKEN_HOURS).clamp(1, JOIN_TOKEN_HOURS_MOST);
        let row = self.cluster_row(cluster).await?;
        let secret = password::secret();
        let expires = records::insert_join_token(
            &self.pool,
            &row,
            &password::digest(&secret),
            &identity.username,
            Some(hours as i32),
        )
        .await
        .map_err(unavailable)?;
        let token = self.join_token(cluster, secret);
        let expires_at = expires.and_then(|s| jiff::Timestamp::from_second(s).ok()).map(|t| t.to_string());
        Ok(shapes::JoinToken { command: self.join_command(&token), token: token.to_string(), expires_at })
    }

    fn join_token(&self, cluster: &ClusterId, secret: String) -> JoinToken {
        JoinToken { cluster: cluster.clone(), secret, pin: self.authority.pin().into() }
    }

    /// The line to paste. `-k` is safe beside `--pinnedpubkey`: only who holds the server's key gets an answer through.
    /// The token goes by the environment: the process list shows everybody's arguments to everybody.
    pub fn join_command(&self, token: &JoinToken) -> String {
        let (pin, url) = (self.server_pin(), &self.base_url);
        format!("curl -ksSf --pinnedpubkey 'sha256//{pin}' {url}/join | LONGSHORE_JOIN_TOKEN={token} sh -s --")
    }

    /// What curl pins: base64 of the SHA-256 of the server's public key info.
    pub fn server_pin(&self) -> String {
        STANDARD.encode(Sha256::digest(self.server_key.subject_public_key_info()))
    }

    /// What the port presents: a certificate of the installation's CA for `names`.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        self.authority.server_config("longshore-server", names, &self.server_key)
    }

    /// What a join token grants; 401 for one that is unknown, expired or of another installation.
    pub async fn verify_join_token(&self, token: &str) -> Result<JoinGrant, Status> {
        let refused = || Status::failure(401, "Unauthorized", "the join token is not valid (any more): make a new one");
        let token: JoinToken = token.parse().map_err(|_| refused())?;
        let digest = password::digest(&token.secret);
        let good = records::join_token_is_good(&self.pool, &token.cluster, &digest).await.map_err(unavailable)?;
        if good { Ok(JoinGrant { cluster: token.cluster }) } else { Err(refused()) }
    }

    /// Registers a machine that joins; 409 when another machine of the cluster holds the name, 401 for one that was taken
    /// out: it does not come back by itself, however long its join token is good.
    pub async fn register_node(&self, cluster: &ClusterId, name: &str, public_key: &str) -> Result<NodeId, Status> {
        if records::key_was_revoked(&self.pool, cluster, public_key).await.map_err(unavailable)? {
            let why =
                "this machine was removed from the cluster; `longshore-agent leave` forgets that, and it can join anew";
            return Err(Status::failure(401, "Unauthorized", why));
        }
        let id = NodeId::new(password::random_id("n"));
        let registered =
            records::register_node(&self.pool, cluster, &id, name, public_key).await.map_err(unavailable)?;
        registered.ok_or_else(|| {
            let resource = longshore_api::meta::GroupResource::new("", "nodes");
            let why = "another machine has joined under this name; choose another --name, or delete that node first";
            Status::conflict(&resource, name, why)
        })
    }

    /// Whether a node's identity was not revoked.
    pub async fn node_is_good(&self, cluster: &ClusterId, node: &NodeId) -> Result<bool, Status> {
        records::node_is_good(&self.pool, cluster, node).await.map_err(unavailable)
    }

    /// The keys of a cluster, made on first use; 404 when there is no such cluster.
    pub async fn cluster_keys(&self, cluster: &ClusterId) -> Result<Arc<ClusterKeys>, Status> {
        if let Some(keys) = self.clusters.lock().get(cluster) {
            return Ok(keys.clone());
        }
        // Before any key is made: strangers may name what they like.
        self.cluster_row(cluster).await?;
        let keys = Arc::new(ClusterKeys::load(&self.pool, &self.master, cluster, &self.base_url).await?);
        Ok(self.clusters.lock().entry(cluster.clone()).or_insert(keys).clone())
    }

    async fn cluster_row(&self, cluster: &ClusterId) -> Result<ClusterRow, Status> {
        let organization = records::organization_of(&self.pool, cluster).await.map_err(unavailable)?;
        let organization = organization.ok_or_else(|| no_such_cluster(cluster))?;
        Ok(ClusterRow { id: cluster.clone(), organization, name: String::new() })
    }
}

/// The answer for a cluster that isn't there, or isn't the caller's.
pub fn no_such_cluster(cluster: &ClusterId) -> Status {
    let resource = longshore_api::meta::GroupResource::new("longshore.dev", "clusters");
    Status::not_found(&resource, cluster.as_str())
}

/// Postgres does not answer: logged here, told as 503.
fn unavailable(error: sqlx::Error) -> Status {
    tracing::warn!(%error, "the account database did not answer");
    Status::unavailable("the account database does not answer; try again")
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the installation's CA: {0}")]
    Authority(#[from] rcgen::Error),
    #[error("the installation's CA can't be unwrapped: is this the master key it was made with?")]
    MasterKey,
}

/// Two replicas may start at once: both offer a new key, and both take the one that was kept.
async fn load_or_make(
    pool: &PgPool,
    master: &MasterKey,
    name: &str,
    make: impl FnOnce() -> Result<(String, String), rcgen::Error>,
) -> Result<(String, String), OpenError> {
    let row = match records::installation_key(pool, name).await? {
        Some(row) => row,
        None => {
            let (certificate, key) = make()?;
            let sealed_key = master.seal(name, key.as_bytes()).map_err(|_| OpenError::MasterKey)?;
            records::offer_installation_key(pool, name, &KeyRow { certificate, sealed_key }).await?;
            records::installation_key(pool, name).await?.ok_or(sqlx::Error::RowNotFound)?
        }
    };
    let key = master.open(name, &row.sealed_key).ok().and_then(|key| String::from_utf8(key).ok());
    Ok((row.certificate, key.ok_or(OpenError::MasterKey)?))
}
