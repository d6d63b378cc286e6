//! The log in Postgres: ownership, loading, replay. (`postgres/flush.rs` writes, `postgres/partitions.rs` keeps house.)
//!
//! Plain SQL only: no LISTEN/NOTIFY (it takes an instance-wide lock at commit), no advisory locks. Ownership is decided
//! under row locks, taken in one order: clusters by id, then replicas.

mod flush;
mod partitions;

use super::cluster::ClusterInfo;
use super::error::StoreError;
use super::lease::{MARGIN, Renewal};
use super::log::{
    Compacted, EVENTS, Fence, Flight, FlushError, Founding, Loaded, Log, Replay, Replayed, Row, Settled, Text,
};
use super::object::{ChangeKind, Key, Revision};
use super::replica::StoreOptions;
use futures::future::BoxFuture;
use longshore_api::ids::{ClusterId, OrganizationId, ReplicaId};
use parking_lot::RwLock;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Reaching Postgres takes milliseconds; a host that drops packets must not hold up the flusher for minutes.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Statements of a flush or a settlement are ended by Postgres after so long, and given up here a little later.
const STATEMENT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(12);

pub(super) struct PostgresLog {
    pool: PgPool,
    options: PgConnectOptions,
    advertise: String,
    lease: Duration,
    me: RwLock<ReplicaId>,
    /// The flusher's own connection; none after an error.
    flushing: Mutex<Option<PgConnection>>,
    /// The lease's own.
    renewing: Mutex<Option<PgConnection>>,
}

impl PostgresLog {
    pub async fn open(pool: PgPool, options: &StoreOptions) -> Result<Self, StoreError> {
        let within = format!("{}ms", STATEMENT_WITHIN.as_millis());
        let connect = (*pool.connect_options()).clone().options([("statement_timeout", within)]);
        let log = Self {
            pool,
            options: connect,
            advertise: options.advertise.clone(),
            lease: options.lease,
            me: RwLock::new(random_replica_id()),
            flushing: Mutex::new(None),
            renewing: Mutex::new(None),
        };
        if options.alone {
            sqlx::query!("DELETE FROM replicas").execute(&log.pool).await.map_err(unavailable)?;
        }
        log.register().await?;
        Ok(log)
    }

    fn me(&self) -> ReplicaId {
        self.me.read().clone()
    }

    /// Writes this replica's row, with a lease.
    async fn register(&self) -> Result<(), StoreError> {
        let me = self.me();
        sqlx::query!(
            "INSERT INTO replicas (id, advertise, lease_until)
             VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::int8 + $3)",
            me.as_str(),
            self.advertise,
            millis(self.lease),
        )
        .execute(&self.pool)
        .await
        .map_err(unavailable)?;
        Ok(())
    }

    async fn connect(&self) -> Result<PgConnection, String> {
        match tokio::time::timeout(CONNECT_WITHIN, PgConnection::connect_with(&self.options)).await {
            Ok(connection) => connection.map_err(|e| e.to_string()),
            Err(_) => Err("connecting took too long".into()),
        }
    }

    async fn renew_row(&self) -> Result<Renewal, String> {
        let mut kept = self.renewing.lock().await;
        // Taken out while it is used: an attempt that is given up halfway leaves no connection behind.
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let me = self.me();
        let renewed = sqlx::query_scalar!(
            r#"UPDATE replicas SET lease_until = (extract(epoch FROM clock_timestamp()) * 1000)::int8 + $2
               WHERE id = $1 RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS "now!""#,
            me.as_str(),
            millis(self.lease),
        )
        .fetch_optional(&mut connection)
        .await
        .map_err(|e| e.to_string())?;
        *kept = Some(connection);
        match renewed {
            Some(now) => Ok(Renewal::Renewed { now }),
            None => {
                *self.me.write() = random_replica_id();
                self.register().await.map_err(|e| e.to_string())?;
                Ok(Renewal::Lost)
            }
        }
    }

    /// One attempt at taking a cluster. `Err(Held)`: someone else's lease on it is still good.
    async fn try_take(&self, cluster: &ClusterId) -> Result<Loaded, Refusal> {
        let me = self.me();
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query!(
            "SELECT organization, name, epoch, revision, compacted, events_compacted, owner, data_key, service_range,
                    pod_range, service_range_v6, pod_range_v6
             FROM clusters WHERE id = $1 FOR UPDATE",
            cluster.as_str()
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Refusal::Error(StoreError::NotFound))?;
        if let Some(owner) = row.owner.filter(|owner| owner != me.as_str()) {
            let lease = sqlx::query!(
                r#"SELECT advertise, lease_until - (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS "left!"
                   FROM replicas WHERE id = $1 FOR UPDATE"#,
                owner
            )
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(lease) = lease {
                let left = lease.left + millis(MARGIN);
                if left > 0 {
                    return Err(Refusal::Held { advertise: lease.advertise, left: from_millis(left) });
                }
                // From here on it can't renew: it will find out that it owns nothing any more.
                sqlx::query!("DELETE FROM replicas WHERE id = $1", owner).execute(&mut *tx).await?;
            }
        }
        // The row stays locked until this transaction ends: nobody writes to the cluster while it is read.
        sqlx::query!("UPDATE clusters SET owner = $2, epoch = epoch + 1 WHERE id = $1", cluster.as_str(), me.as_str())
            .execute(&mut *tx)
            .await?;
        let mut rows = read_objects(&mut tx, cluster).await?;
        rows.extend(read_events(&mut tx, cluster).await?);
        tx.commit().await?;
        Ok(Loaded {
            info: ClusterInfo {
                id: cluster.clone(),
                organization: OrganizationId::new(row.organization),
                name: row.name,
                service_range: row.service_range,
                pod_range: row.pod_range,
                service_range_v6: row.service_range_v6,
                pod_range_v6: row.pod_range_v6,
            },
            epoch: row.epoch + 1,
            revision: Revision(row.revision),
            compacted: Compacted { changes: Revision(row.compacted), events: Revision(row.events_compacted) },
            data_key: row.data_key,
            rows,
        })
    }

    /// Waits for the lease of a predecessor that died; one that renews is alive, and the cluster its.
    async fn take_in_turn(&self, cluster: &ClusterId) -> Result<Loaded, StoreError> {
        let mut patience: Option<Instant> = None;
        loop {
            match self.try_take(cluster).await {
                Ok(loaded) => return Ok(loaded),
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::Held { advertise, left }) => {
                    let until = *patience.get_or_insert_with(|| Instant::now() + left);
                    if Instant::now() > until {
                        return Err(StoreError::NotOwner { advertise });
                    }
                    tokio::time::sleep(left.min(Duration::from_millis(100))).await;
                }
            }
        }
    }
}

enum Refusal {
    Held { advertise: String, left: Duration },
    Error(StoreError),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Error(unavailable(error))
    }
}

async fn read_objects(tx: &mut PgConnection, cluster: &ClusterId) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT resource, namespace, name, revision, sealed, json FROM objects WHERE cluster = $1",
        cluster.as_str()
    );
    let mut names = Names::default();
    let rows = rows.fetch_all(tx).await?.into_iter().map(|row| Row {
        kind: ChangeKind::Created,
        key: names.key(&row.resource, &row.namespace, &row.name),
        revision: Revision(row.revision),
        at: 0,
        text: Text { sealed: row.sealed, bytes: row.json.into() },
        previous: None,
        previous_text: None,
    });
    Ok(rows.collect())
}

/// An Event's current state is its last row, unless that is its deletion.
async fn read_events(tx: &mut PgConnection, cluster: &ClusterId) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT namespace AS "namespace!", name AS "name!", revision AS "revision!", at AS "at!",
                  sealed AS "sealed!", json AS "json!"
           FROM (SELECT DISTINCT ON (namespace, name) * FROM events WHERE cluster = $1
                 ORDER BY namespace, name, revision DESC) AS newest
           WHERE kind <> 3"#,
        cluster.as_str()
    );
    let mut names = Names::default();
    let rows = rows.fetch_all(tx).await?.into_iter().map(|row| Row {
        kind: ChangeKind::Created,
        key: names.key(EVENTS, &row.namespace, &row.name),
        revision: Revision(row.revision),
        at: row.at,
        text: Text { sealed: row.sealed, bytes: row.json.into() },
        previous: None,
        previous_text: None,
    });
    Ok(rows.collect())
}

/// Shares the strings that thousands of keys have in common.
#[derive(Default)]
struct Names(std::collections::HashSet<std::sync::Arc<str>>);

impl Names {
    fn key(&mut self, resource: &str, namespace: &str, name: &str) -> Key {
        Key { resource: self.shared(resource), namespace: self.shared(namespace), name: name.into() }
    }

    fn shared(&mut self, text: &str) -> std::sync::Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new = std::sync::Arc::<str>::from(text);
        self.0.insert(new.clone());
        new
    }
}

impl Log for PostgresLog {
    fn found(&self, founding: Founding) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let Founding { info, data_key } = founding;
            sqlx::query!(
                "INSERT INTO clusters (id, organization, name, data_key, service_range, pod_range, service_range_v6,
                                       pod_range_v6)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                info.id.as_str(),
                info.organization.as_str(),
                info.name,
                data_key,
                info.service_range,
                info.pod_range,
                info.service_range_v6,
                info.pod_range_v6,
            )
            .execute(&self.pool)
            .await
            .map_err(|error| match error.as_database_error().map(|e| e.kind()) {
                Some(sqlx::error::ErrorKind::UniqueViolation) => StoreError::AlreadyExists,
                Some(sqlx::error::ErrorKind::ForeignKeyViolation) => StoreError::NotFound,
                _ => unavailable(error),
            })?;
            Ok(())
        })
    }

    fn take<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(self.take_in_turn(cluster))
    }

    fn renew(&self) -> BoxFuture<'_, Result<Renewal, String>> {
        Box::pin(self.renew_row())
    }

    fn flush<'a>(&'a self, flights: &'a [Flight]) -> BoxFuture<'a, Result<Vec<bool>, FlushError>> {
        Box::pin(self.fly(flights))
    }

    fn settle<'a>(&'a self, fences: &'a [Fence]) -> BoxFuture<'a, Result<Vec<Settled>, String>> {
        Box::pin(self.find_out(fences))
    }

    fn revisions<'a>(
        &'a self,
        clusters: &'a [ClusterId],
    ) -> BoxFuture<'a, Result<Vec<(ClusterId, Revision)>, StoreError>> {
        Box::pin(async move {
            let ids: Vec<&str> = clusters.iter().map(ClusterId::as_str).collect();
            let rows = sqlx::query!("SELECT id, revision FROM clusters WHERE id = ANY($1)", &ids as _);
            let rows = rows.fetch_all(&self.pool).await.map_err(unavailable)?;
            Ok(rows.into_iter().map(|row| (ClusterId::new(row.id), Revision(row.revision))).collect())
        })
    }

    fn leap<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let leapt = sqlx::query!(
                "UPDATE clusters SET revision = $4, compacted = $4, events_compacted = $4
                 WHERE id = $1 AND epoch = $2 AND revision = $3",
                fence.cluster.as_str(),
                fence.epoch,
                fence.expected.0,
                fence.new.0
            );
            let leapt = leapt.execute(&self.pool).await.map_err(unavailable)?;
            Ok(leapt.rows_affected() == 1)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            let mut connection = self.connect().await?;
            connection.ping().await.map_err(|e| e.to_string())
        })
    }

    fn replay<'a>(&'a self, replay: &'a Replay) -> BoxFuture<'a, Result<Replayed, StoreError>> {
        Box::pin(async move { self.read_log(replay).await.map_err(unavailable) })
    }

    fn set_wake_at<'a>(
        &'a self,
        cluster: &'a ClusterId,
        wake_at: Option<i64>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let set = sqlx::query!("UPDATE clusters SET wake_at = $2 WHERE id = $1", cluster.as_str(), wake_at);
            set.execute(&self.pool).await.map_err(unavailable)?;
            Ok(())
        })
    }

    fn due(&self, now: i64) -> BoxFuture<'_, Result<Vec<ClusterId>, StoreError>> {
        Box::pin(async move {
            let me = self.me();
            let due = sqlx::query_scalar!(
                "SELECT c.id FROM clusters c LEFT JOIN replicas r ON r.id = c.owner
                 WHERE c.wake_at <= $1 AND (c.owner = $2 OR r.id IS NULL OR r.lease_until < $1)
                 ORDER BY c.wake_at LIMIT 100",
                now,
                me.as_str()
            );
            let due = due.fetch_all(&self.pool).await.map_err(unavailable)?;
            Ok(due.into_iter().map(ClusterId::new).collect())
        })
    }

    fn maintain(&self, now: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.keep_partitions(now).await.map_err(unavailable) })
    }

    fn release(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let me = self.me();
            let mut tx = self.pool.begin().await.map_err(unavailable)?;
            sqlx::query!("UPDATE clusters SET owner = NULL WHERE owner = $1", me.as_str())
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            sqlx::query!("DELETE FROM replicas WHERE id = $1", me.as_str())
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            tx.commit().await.map_err(unavailable)
        })
    }
}

/// What Postgres said goes to the log; the client learns only that it should try again.
fn unavailable(error: sqlx::Error) -> StoreError {
    tracing::warn!(%error, "Postgres failed: {error}");
    StoreError::Unavailable(super::AWAY.into())
}

fn millis(time: Duration) -> i64 {
    super::clock::millis(time)
}

fn from_millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn random_replica_id() -> ReplicaId {
    ReplicaId::new(format!("r-{}", uuid::Uuid::new_v4().simple()))
}
