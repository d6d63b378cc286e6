//! Reading the log back, and its partitions: made ahead of time, dropped whole.
//!
//! Partitions cover an hour each. Before one is dropped, the clusters' rows say what is compacted with it: whoever reads
//! the log asks for that *after* its rows, and so never takes a hole for the whole.

use super::Names;
use super::PostgresLog;
use crate::store::log::{Compacted, EVENTS, PARTITION_MILLIS, Replay, Replayed, Row, Text};
use crate::store::object::{ChangeKind, Revision};
use sqlx::AssertSqlSafe;

/// Hours that lie ready: a server that is busy or a Postgres that is locked for a while doesn't run out.
const AHEAD: i64 = 3;

/// How long the log is kept: changes for a day (history for people), Events for their hour, the time that their expiry
/// may take, and the ten minutes in which watches may resume.
const CHANGES_LIVE: i64 = 24 * 60 * 60 * 1000;
const EVENTS_LIVE: i64 = 75 * 60 * 1000;

/// A row of `changes` or `events` with the text of its previous state.
struct LogRow {
    revision: i64,
    at: i64,
    kind: i16,
    resource: String,
    namespace: String,
    name: String,
    sealed: bool,
    json: Vec<u8>,
    previous_revision: Option<i64>,
    previous: Option<Vec<u8>>,
    previous_sealed: bool,
}

impl PostgresLog {
    pub(super) async fn read_log(&self, replay: &Replay) -> Result<Replayed, sqlx::Error> {
        let mut rows = Vec::new();
        let mut cut = i64::MAX;
        let (cluster, after, until) = (replay.cluster.as_str(), replay.after.0, replay.until.0);
        let (resource, namespace) = (replay.resource.as_deref(), replay.namespace.as_deref());
        if resource != Some(EVENTS) {
            // The previous row lies in the same partition, or its text is repeated: no other partition is looked into.
            let changes = sqlx::query_as!(
                LogRow,
                r#"SELECT c.revision, c.at, c.kind, c.resource, c.namespace, c.name, c.sealed, c.json,
                          c.previous_revision, COALESCE(c.previous, p.json) AS previous,
                          COALESCE(p.sealed, c.sealed) AS "previous_sealed!"
                   FROM changes c
                   LEFT JOIN changes p ON p.cluster = c.cluster AND p.revision = c.previous_revision
                        AND c.previous IS NULL AND p.at <= c.at AND p.at >= c.at - c.at % 3600000
                   WHERE c.cluster = $1 AND c.revision > $2 AND c.revision <= $3
                     AND ($4::text IS NULL OR c.resource = $4) AND ($5::text IS NULL OR c.namespace = $5)
                   ORDER BY c.revision LIMIT $6"#,
                cluster,
                after,
                until,
                resource,
                namespace,
                replay.limit
            );
            rows.extend(page(changes.fetch_all(&self.pool).await?, replay.limit, &mut cut));
        }
        if resource.is_none_or(|r| r == EVENTS) {
            let events = sqlx::query_as!(
                LogRow,
                r#"SELECT c.revision, c.at, c.kind, c.resource, c.namespace, c.name, c.sealed, c.json,
                          c.previous_revision, COALESCE(c.previous, p.json) AS previous,
                          COALESCE(p.sealed, c.sealed) AS "previous_sealed!"
                   FROM events c
                   LEFT JOIN events p ON p.cluster = c.cluster AND p.revision = c.previous_revision
                        AND c.previous IS NULL AND p.at <= c.at AND p.at >= c.at - c.at % 3600000
                   WHERE c.cluster = $1 AND c.revision > $2 AND c.revision <= $3
                     AND ($4::text IS NULL OR c.namespace = $4)
                   ORDER BY c.revision LIMIT $5"#,
                cluster,
                after,
                until,
                namespace,
                replay.limit
            );
            rows.extend(page(events.fetch_all(&self.pool).await?, replay.limit, &mut cut));
        }
        rows.retain(|row| row.revision.0 <= cut);
        rows.sort_by_key(|row| row.revision);
        let bounds = sqlx::query!("SELECT compacted, events_compacted FROM clusters WHERE id = $1", cluster);
        let bounds = bounds.fetch_one(&self.pool).await?;
        let compacted = Compacted { changes: Revision(bounds.compacted), events: Revision(bounds.events_compacted) };
        Ok(Replayed { compacted, rows })
    }

    pub(super) async fn keep_partitions(&self, now: i64) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let connection = &mut *connection;
        // A lock that can't be had soon is tried again in a minute: flushes would queue up behind it.
        sqlx::query("SET lock_timeout = '2s'").execute(&mut *connection).await?;
        let this_hour = now.div_euclid(PARTITION_MILLIS);
        for (table, life) in [("changes", CHANGES_LIVE), ("events", EVENTS_LIVE)] {
            let existing = partitions(connection, table).await?;
            for hour in (this_hour..this_hour + AHEAD).filter(|hour| !existing.contains(hour)) {
                let (from, to) = (hour * PARTITION_MILLIS, (hour + 1) * PARTITION_MILLIS);
                let sql = format!(
                    "CREATE TABLE IF NOT EXISTS {table}_{hour} PARTITION OF {table} FOR VALUES FROM ({from}) TO ({to})"
                );
                // Refused where the default partition has rows of that hour: they go on into it, which is slower to
                // clean up and otherwise as good.
                if let Err(error) = sqlx::query(AssertSqlSafe(sql)).execute(&mut *connection).await {
                    tracing::warn!(%error, "partition {hour} of {table} could not be made: {error}");
                }
            }
            let over = |hour: &i64| (hour + 1) * PARTITION_MILLIS < now - life;
            for hour in existing.into_iter().filter(over) {
                compact(connection, table, &format!("{table}_{hour}"), i64::MAX).await?;
                let sql = format!("DROP TABLE IF EXISTS {table}_{hour}");
                sqlx::query(AssertSqlSafe(sql)).execute(&mut *connection).await?;
                tracing::info!(table, hour, "partition {hour} of {table} is past retention and dropped");
            }
            let default = format!("{table}_default");
            compact(connection, table, &default, now - life).await?;
            let sql = format!("DELETE FROM {default} WHERE at < $1");
            sqlx::query(AssertSqlSafe(sql)).bind(now - life).execute(&mut *connection).await?;
        }
        sqlx::query("RESET lock_timeout").execute(&mut *connection).await?;
        // Replicas that died and whose clusters nobody has wanted since.
        sqlx::query!("DELETE FROM replicas WHERE lease_until < $1", now - 60 * 60 * 1000)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }
}

/// Notes in the clusters' rows up to where a partition's rows, those before `before`, reached.
async fn compact(
    connection: &mut sqlx::PgConnection,
    table: &str,
    partition: &str,
    before: i64,
) -> Result<(), sqlx::Error> {
    let column = if table == "events" { "events_compacted" } else { "compacted" };
    let sql = format!(
        "UPDATE clusters c SET {column} = gone.revision
         FROM (SELECT cluster, max(revision) AS revision FROM {partition} WHERE at < $1 GROUP BY cluster) AS gone
         WHERE c.id = gone.cluster AND c.{column} < gone.revision"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(before).execute(connection).await?;
    Ok(())
}

/// The hours that have partitions.
async fn partitions(connection: &mut sqlx::PgConnection, table: &str) -> Result<Vec<i64>, sqlx::Error> {
    let names = sqlx::query_scalar!(
        r#"SELECT child.relname::text AS "name!" FROM pg_inherits i
           JOIN pg_class child ON child.oid = i.inhrelid JOIN pg_class parent ON parent.oid = i.inhparent
           WHERE parent.relname::text = $1"#,
        table
    );
    let names = names.fetch_all(connection).await?;
    Ok(names.iter().filter_map(|name| name.rsplit_once('_')?.1.parse().ok()).collect())
}

/// A page of one table. A full one says that what lies behind its last row must wait for the next page.
fn page(rows: Vec<LogRow>, limit: i64, cut: &mut i64) -> Vec<Row> {
    if i64::try_from(rows.len()).is_ok_and(|n| n >= limit) {
        *cut = rows.last().map_or(*cut, |row| row.revision.min(*cut));
    }
    let mut names = Names::default();
    rows.into_iter().map(|row| read(row, &mut names)).collect()
}

fn read(row: LogRow, names: &mut Names) -> Row {
    Row {
        kind: match row.kind {
            1 => ChangeKind::Created,
            2 => ChangeKind::Updated,
            _ => ChangeKind::Deleted,
        },
        key: names.key(&row.resource, &row.namespace, &row.name),
        revision: Revision(row.revision),
        at: row.at,
        text: Text { sealed: row.sealed, bytes: row.json.into() },
        previous: row.previous_revision.map(Revision),
        previous_text: row.previous.map(|bytes| Text { sealed: row.previous_sealed, bytes: bytes.into() }),
    }
}
