//! The rows behind accounts. Only SQL lives here; each function is one statement, or one transaction where it must be.

use super::identity::Role;
use longshore_api::ids::{ClusterId, NodeId, OrganizationId, UserId};
use sqlx::PgPool;

pub type Result<T> = std::result::Result<T, sqlx::Error>;

/// A person, as far as one request needs to know.
#[derive(Clone, Debug)]
pub struct PersonRow {
    pub user: UserId,
    pub email: String,
    pub name: String,
}

/// A person who showed a good credential for a cluster; no role: no member of its organization.
#[derive(Clone, Debug)]
pub struct CallerRow {
    pub person: PersonRow,
    pub role: Option<Role>,
    /// Of the session; none for an API token.
    pub csrf: Option<String>,
}

#[derive(Clone, Debug)]
pub struct MembershipRow {
    pub organization: OrganizationId,
    pub name: String,
    pub role: Role,
}

#[derive(Clone, Debug)]
pub struct ClusterRow {
    pub id: ClusterId,
    pub organization: OrganizationId,
    pub name: String,
}

#[derive(Clone)]
pub struct KeyRow {
    pub certificate: String,
    pub sealed_key: Vec<u8>,
}

fn role(word: Option<String>) -> Option<Role> {
    word.as_deref().and_then(Role::parse)
}

/// The owner of an unexpired API token, and their role in the organization of `cluster`.
pub async fn caller_by_api_token(pool: &PgPool, digest: &[u8], cluster: &ClusterId) -> Result<Option<CallerRow>> {
    let row = sqlx::query!(
        r#"SELECT u.id, u.email, u.name, m.role AS "role?"
           FROM api_tokens t JOIN users u ON u.id = t.member
           LEFT JOIN clusters c ON c.id = $2
           LEFT JOIN memberships m ON m.organization = c.organization AND m.member = u.id
           WHERE t.digest = $1 AND (t.expires_at IS NULL OR t.expires_at > now())"#,
        digest,
        cluster.as_str()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| CallerRow {
        person: PersonRow { user: UserId::new(r.id), email: r.email, name: r.name },
        role: role(r.role),
        csrf: None,
    }))
}

/// The same for a session.
pub async fn caller_by_session(pool: &PgPool, digest: &[u8], cluster: &ClusterId) -> Result<Option<CallerRow>> {
    let row = sqlx::query!(
        r#"SELECT u.id, u.email, u.name, s.csrf, m.role AS "role?"
           FROM sessions s JOIN users u ON u.id = s.member
           LEFT JOIN clusters c ON c.id = $2
           LEFT JOIN memberships m ON m.organization = c.organization AND m.member = u.id
           WHERE s.digest = $1 AND s.expires_at > now()"#,
        digest,
        cluster.as_str()
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|r| CallerRow {
        person: PersonRow { user: UserId::new(r.id), email: r.email, name: r.name },
        role: role(r.role),
        csrf: Some(r.csrf),
    }))
}

/// For signing in: the person and their password's hash.
pub async fn person_by_email(pool: &PgPool, email: &str) -> Result<Option<(PersonRow, Option<String>)>> {
    let row = sqlx::query!(r#"SELECT id, email, name, password FROM users WHERE email = lower($1)"#, email)
        .fetch_optional(pool)
        .await?;
    Ok(row.map(|r| (PersonRow { user: UserId::new(r.id), email: r.email, name: r.name }, r.password)))
}

pub async fn memberships(pool: &PgPool, user: &UserId) -> Result<Vec<MembershipRow>> {
    let rows = sqlx::query!(
        "SELECT o.id, o.name, m.role FROM memberships m JOIN organizations o ON o.id = m.organization
         WHERE m.member = $1 ORDER BY o.name, o.id",
        user.as_str()
    )
    .fetch_all(pool)
    .await?;
    let known = rows.into_iter().filter_map(|r| {
        let role = Role::parse(&r.role)?;
        Some(MembershipRow { organization: OrganizationId::new(r.id), name: r.name, role })
    });
    Ok(known.collect())
}

/// The clusters of the organizations that `user` belongs to.
pub async fn clusters_of(pool: &PgPool, user: &UserId) -> Result<Vec<ClusterRow>> {
    let rows = sqlx::query!(
        "SELECT c.id, c.organization, c.name FROM clusters c JOIN memberships m ON m.organization = c.organization
         WHERE m.member = $1 ORDER BY c.name, c.id",
        user.as_str()
    )
    .fetch_all(pool)
    .await?;
    let row = |r: (String, String, String)| ClusterRow {
        id: ClusterId::new(r.0),
        organization: OrganizationId::new(r.1),
        name: r.2,
    };
    Ok(rows.into_iter().map(|r| row((r.id, r.organization, r.name))).collect())
}

/// Which organization a cluster belongs to.
pub async fn organization_of(pool: &PgPool, cluster: &ClusterId) -> Result<Option<OrganizationId>> {
    let row = sqlx::query_scalar!("SELECT organization FROM clusters WHERE id = $1", cluster.as_str());
    Ok(row.fetch_optional(pool).await?.map(OrganizationId::new))
}

/// Keeps a session for `hours`, and forgets this person's expired ones.
pub async fn insert_session(pool: &PgPool, user: &UserId, digest: &[u8], csrf: &str, hours: i32) -> Result<()> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("DELETE FROM sessions WHERE member = $1 AND expires_at <= now()", user.as_str())
        .execute(&mut *transaction)
        .await?;
    sqlx::query!(
        "INSERT INTO sessions (member, digest, csrf, expires_at) VALUES ($1, $2, $3, now() + make_interval(hours => $4))",
        user.as_str(),
        digest,
        csrf,
        hours
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

pub async fn delete_session(pool: &PgPool, digest: &[u8]) -> Result<()> {
    sqlx::query!("DELETE FROM sessions WHERE digest = $1", digest).execute(pool).await?;
    Ok(())
}

/// Keeps an API token; one of the same id is replaced.
pub async fn put_api_token(
    pool: &PgPool,
    user: &UserId,
    id: &str,
    name: &str,
    digest: &[u8],
    days: Option<i32>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO api_tokens (member, id, name, digest, expires_at) VALUES ($1, $2, $3, $4, now() + make_interval(days => $5))
         ON CONFLICT (member, id) DO UPDATE SET name = excluded.name, digest = excluded.digest, expires_at = excluded.expires_at",
        user.as_str(),
        id,
        name,
        digest,
        days
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Keeps a join token of a cluster; no hours: it does not expire.
pub async fn insert_join_token(
    pool: &PgPool,
    cluster: &ClusterRow,
    digest: &[u8],
    created_by: &str,
    hours: Option<i32>,
) -> Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"INSERT INTO join_tokens (organization, cluster, digest, created_by, expires_at)
           VALUES ($1, $2, $3, $4, now() + make_interval(hours => $5))
           ON CONFLICT (cluster, digest) DO UPDATE SET expires_at = excluded.expires_at
           RETURNING extract(epoch FROM expires_at)::bigint AS "expires?""#,
        cluster.organization.as_str(),
        cluster.id.as_str(),
        digest,
        created_by,
        hours
    )
    .fetch_one(pool)
    .await
}

pub async fn join_token_is_good(pool: &PgPool, cluster: &ClusterId, digest: &[u8]) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT 1 AS "one!" FROM join_tokens
           WHERE cluster = $1 AND digest = $2 AND (expires_at IS NULL OR expires_at > now())"#,
        cluster.as_str(),
        digest
    );
    Ok(found.fetch_optional(pool).await?.is_some())
}

/// Registers a machine under its key. Answers the id it has: its old one when the same key joins again under its name.
/// None when another machine holds the name.
pub async fn register_node(
    pool: &PgPool,
    cluster: &ClusterId,
    id: &NodeId,
    name: &str,
    public_key: &str,
) -> Result<Option<NodeId>> {
    let row = sqlx::query_scalar!(
        "INSERT INTO node_identities (organization, cluster, id, name, public_key)
         SELECT c.organization, c.id, $2, $3, $4 FROM clusters c WHERE c.id = $1
         ON CONFLICT (cluster, name) WHERE revoked_at IS NULL
         DO UPDATE SET joined_at = node_identities.joined_at WHERE node_identities.public_key = excluded.public_key
         RETURNING id",
        cluster.as_str(),
        id.as_str(),
        name,
        public_key
    );
    Ok(row.fetch_optional(pool).await?.map(NodeId::new))
}

/// Whether a machine with this key was a node of the cluster and was taken out.
pub async fn key_was_revoked(pool: &PgPool, cluster: &ClusterId, public_key: &str) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT 1 AS "one!" FROM node_identities
           WHERE cluster = $1 AND public_key = $2 AND revoked_at IS NOT NULL LIMIT 1"#,
        cluster.as_str(),
        public_key
    );
    Ok(found.fetch_optional(pool).await?.is_some())
}

/// Whether this identity may still connect.
pub async fn node_is_good(pool: &PgPool, cluster: &ClusterId, id: &NodeId) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT 1 AS "one!" FROM node_identities WHERE cluster = $1 AND id = $2 AND revoked_at IS NULL"#,
        cluster.as_str(),
        id.as_str()
    );
    Ok(found.fetch_optional(pool).await?.is_some())
}

pub async fn revoke_node(pool: &PgPool, cluster: &ClusterId, id: &NodeId) -> Result<()> {
    sqlx::query!(
        "UPDATE node_identities SET revoked_at = now() WHERE cluster = $1 AND id = $2 AND revoked_at IS NULL",
        cluster.as_str(),
        id.as_str()
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn installation_key(pool: &PgPool, name: &str) -> Result<Option<KeyRow>> {
    sqlx::query_as!(KeyRow, "SELECT certificate, sealed_key FROM installation_keys WHERE name = $1", name)
        .fetch_optional(pool)
        .await
}

/// Keeps a key unless another replica was first: the caller reads again what is kept.
pub async fn offer_installation_key(pool: &PgPool, name: &str, key: &KeyRow) -> Result<()> {
    sqlx::query!(
        "INSERT INTO installation_keys (name, certificate, sealed_key) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        name,
        key.certificate,
        key.sealed_key
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn cluster_key(pool: &PgPool, cluster: &ClusterId, purpose: &str) -> Result<Option<KeyRow>> {
    sqlx::query_as!(
        KeyRow,
        "SELECT certificate, sealed_key FROM cluster_keys WHERE cluster = $1 AND purpose = $2",
        cluster.as_str(),
        purpose
    )
    .fetch_optional(pool)
    .await
}

pub async fn offer_cluster_key(pool: &PgPool, cluster: &ClusterId, purpose: &str, key: &KeyRow) -> Result<()> {
    sqlx::query!(
        "INSERT INTO cluster_keys (organization, cluster, purpose, certificate, sealed_key)
         SELECT c.organization, c.id, $2, $3, $4 FROM clusters c WHERE c.id = $1 ON CONFLICT DO NOTHING",
        cluster.as_str(),
        purpose,
        key.certificate,
        key.sealed_key
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Sets a person's password; their sessions end.
pub async fn set_password(pool: &PgPool, user: &UserId, hash: &str) -> Result<()> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("UPDATE users SET password = $2 WHERE id = $1", user.as_str(), hash)
        .execute(&mut *transaction)
        .await?;
    sqlx::query!("DELETE FROM sessions WHERE member = $1", user.as_str()).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Makes an organization with its first owner, unless one of that name is there. Answers the organization's id.
pub async fn found_organization(
    pool: &PgPool,
    organization: &OrganizationId,
    name: &str,
    owner: &UserId,
    email: &str,
    password_hash: &str,
) -> Result<OrganizationId> {
    let mut transaction = pool.begin().await?;
    sqlx::query!(
        "INSERT INTO organizations (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        organization.as_str(),
        name
    )
    .execute(&mut *transaction)
    .await?;
    let id =
        sqlx::query_scalar!("SELECT id FROM organizations WHERE name = $1", name).fetch_one(&mut *transaction).await?;
    sqlx::query!(
        "INSERT INTO users (id, email, name, password) VALUES ($1, lower($2), 'Owner', $3) ON CONFLICT DO NOTHING",
        owner.as_str(),
        email,
        password_hash
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "INSERT INTO memberships (organization, member, role) SELECT $1, id, 'owner' FROM users WHERE email = lower($2)
         ON CONFLICT DO NOTHING",
        id,
        email
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(OrganizationId::new(id))
}

/// The cluster of that name in an organization.
pub async fn cluster_by_name(pool: &PgPool, organization: &OrganizationId, name: &str) -> Result<Option<ClusterId>> {
    let row = sqlx::query_scalar!(
        "SELECT id FROM clusters WHERE organization = $1 AND name = $2",
        organization.as_str(),
        name
    );
    Ok(row.fetch_optional(pool).await?.map(ClusterId::new))
}
