//! Writing: one statement a flush, and what to do when its answer does not come.
//!
//! The statement is its own transaction: one round trip from the first fence to the commit. `held` locks the clusters'
//! rows in id order and keeps those whose fence holds; everything else is joined to them, so a cluster whose fence fails
//! writes nothing while the others go on.

use super::{ANSWER_WITHIN, PostgresLog};
use crate::store::log::{Fence, Flight, FlushError, Row, Settled};
use crate::store::object::{ChangeKind, Revision};
use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::collections::HashMap;

impl PostgresLog {
    pub(super) async fn fly(&self, flights: &[Flight]) -> Result<Vec<bool>, FlushError> {
        let mut kept = self.flushing.lock().await;
        // Taken out while it is used: after any error but a plain refusal it is not used again.
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect().await.map_err(FlushError::Away)?,
        };
        let landed = match tokio::time::timeout(ANSWER_WITHIN, write(&mut connection, flights)).await {
            Ok(landed) => landed.map_err(|error| judge(&error)),
            Err(_) => Err(FlushError::Unknown("no answer in time".into())),
        };
        if !matches!(landed, Err(FlushError::Unknown(_) | FlushError::Away(_))) {
            *kept = Some(connection);
        }
        landed
    }

    /// Takes the rows under a new epoch: whatever was sent before and has not been run yet now fails its fence, so what
    /// is read here stays true. Only rows that this replica still owns.
    pub(super) async fn find_out(&self, fences: &[Fence]) -> Result<Vec<Settled>, String> {
        let mut connection = self.connect().await?;
        let ids: Vec<String> = fences.iter().map(|f| f.cluster.to_string()).collect();
        let me = self.me();
        let settle = sqlx::query!(
            "WITH mine AS (
                 SELECT id FROM clusters WHERE id = ANY($1) AND owner = $2 ORDER BY id FOR UPDATE
             )
             UPDATE clusters c SET epoch = c.epoch + 1 FROM mine WHERE c.id = mine.id
             RETURNING c.id, c.epoch, c.revision",
            &ids,
            me.as_str()
        );
        let rows = match tokio::time::timeout(ANSWER_WITHIN, settle.fetch_all(&mut connection)).await {
            Ok(rows) => rows.map_err(|e| e.to_string())?,
            Err(_) => return Err("no answer in time".into()),
        };
        let found: HashMap<&str, _> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
        let settled = fences.iter().map(|fence| match found.get(fence.cluster.as_str()) {
            Some(row) => Settled::Ours { epoch: row.epoch, revision: Revision(row.revision) },
            None => Settled::Lost,
        });
        Ok(settled.collect())
    }
}

/// The rows of a flush as columns, for UNNEST.
#[derive(Default)]
struct Columns<'a> {
    flight: Vec<i64>,
    kind: Vec<i16>,
    resource: Vec<&'a str>,
    namespace: Vec<&'a str>,
    name: Vec<&'a str>,
    revision: Vec<i64>,
    at: Vec<i64>,
    sealed: Vec<bool>,
    json: Vec<&'a [u8]>,
    previous_revision: Vec<Option<i64>>,
    previous: Vec<Option<&'a [u8]>>,
    /// Whether it is the flight's last change of its object: what `objects` holds afterwards.
    last: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(flights: &'a [Flight]) -> Self {
        let mut columns = Self::default();
        for (number, flight) in (1..).zip(flights) {
            let mut newest: HashMap<_, Revision> = HashMap::with_capacity(flight.rows.len());
            newest.extend(flight.rows.iter().map(|row| (&row.key, row.revision)));
            for row in &flight.rows {
                columns.push(number, row, newest.get(&row.key) == Some(&row.revision));
            }
        }
        columns
    }

    fn push(&mut self, flight: i64, row: &'a Row, last: bool) {
        self.flight.push(flight);
        self.kind.push(number(row.kind));
        self.resource.push(&row.key.resource);
        self.namespace.push(&row.key.namespace);
        self.name.push(&row.key.name);
        self.revision.push(row.revision.0);
        self.at.push(row.at);
        self.sealed.push(row.text.sealed);
        self.json.push(&row.text.bytes);
        self.previous_revision.push(row.previous.map(|r| r.0));
        self.previous.push(row.previous_text.as_ref().map(|t| &*t.bytes));
        self.last.push(last);
    }
}

pub(super) fn number(kind: ChangeKind) -> i16 {
    match kind {
        ChangeKind::Created => 1,
        ChangeKind::Updated => 2,
        ChangeKind::Deleted => 3,
    }
}

async fn write(connection: &mut PgConnection, flights: &[Flight]) -> Result<Vec<bool>, sqlx::Error> {
    let ids: Vec<&str> = flights.iter().map(|f| f.fence.cluster.as_str()).collect();
    let epochs: Vec<i64> = flights.iter().map(|f| f.fence.epoch).collect();
    let expected: Vec<i64> = flights.iter().map(|f| f.fence.expected.0).collect();
    let new: Vec<i64> = flights.iter().map(|f| f.fence.new.0).collect();
    let columns = Columns::of(flights);
    let held = sqlx::query_scalar!(
        r#"
        WITH fence AS (
            SELECT * FROM unnest($1::text[], $2::int8[], $3::int8[], $4::int8[])
                WITH ORDINALITY AS f (id, epoch, expected, new, flight)
        ), held AS MATERIALIZED (
            SELECT c.id, fence.new, fence.flight
            FROM clusters c
            JOIN fence ON c.id = fence.id AND c.epoch = fence.epoch AND c.revision = fence.expected
            ORDER BY c.id FOR UPDATE OF c
        ), moved AS (
            UPDATE clusters c SET revision = held.new FROM held WHERE c.id = held.id RETURNING c.id, held.flight
        ), new AS MATERIALIZED (
            SELECT moved.id AS cluster, r.*
            FROM unnest($5::int8[], $6::int2[], $7::text[], $8::text[], $9::text[], $10::int8[], $11::int8[],
                        $12::bool[], $13::bytea[], $14::int8[], $15::bytea[], $16::bool[])
                AS r (flight, kind, resource, namespace, name, revision, at,
                      sealed, json, previous_revision, previous, last)
            JOIN moved ON moved.flight = r.flight
        ), logged AS (
            INSERT INTO changes (cluster, revision, at, kind, resource, namespace, name, sealed, json,
                                 previous_revision, previous)
            SELECT cluster, revision, at, kind, resource, namespace, name, sealed, json, previous_revision, previous
            FROM new WHERE resource <> 'events'
        ), told AS (
            INSERT INTO events (cluster, revision, at, kind, resource, namespace, name, sealed, json,
                                previous_revision, previous)
            SELECT cluster, revision, at, kind, resource, namespace, name, sealed, json, previous_revision, previous
            FROM new WHERE resource = 'events'
        ), kept AS (
            INSERT INTO objects AS o (cluster, resource, namespace, name, revision, sealed, json)
            SELECT cluster, resource, namespace, name, revision, sealed, json
            FROM new WHERE last AND kind <> 3 AND resource <> 'events'
            ON CONFLICT (cluster, resource, namespace, name)
            DO UPDATE SET revision = excluded.revision, sealed = excluded.sealed, json = excluded.json
        ), gone AS (
            DELETE FROM objects o USING new
            WHERE new.last AND new.kind = 3 AND o.cluster = new.cluster AND o.resource = new.resource
              AND o.namespace = new.namespace AND o.name = new.name
        )
        SELECT flight AS "flight!" FROM moved
        "#,
        &ids as _,
        &epochs,
        &expected,
        &new,
        &columns.flight,
        &columns.kind,
        &columns.resource as _,
        &columns.namespace as _,
        &columns.name as _,
        &columns.revision,
        &columns.at,
        &columns.sealed,
        &columns.json as _,
        &columns.previous_revision as _,
        &columns.previous as _,
        &columns.last,
    )
    .fetch_all(connection)
    .await?;
    Ok((1..).zip(flights).map(|(flight, _)| held.contains(&flight)).collect())
}

/// What a failed statement leaves certain.
///
/// An error of the statement itself comes instead of its commit: nothing was applied. A fatal one (the server shuts down)
/// can come after the commit, in place of the confirmation; and a broken connection says nothing at all.
fn judge(error: &sqlx::Error) -> FlushError {
    let Some(refusal) = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>()) else {
        return FlushError::Unknown(error.to_string());
    };
    let why = format!("{}: {}", refusal.code(), refusal.message());
    match refusal.severity() {
        PgSeverity::Fatal | PgSeverity::Panic => FlushError::Unknown(why),
        // What is wrong is wrong with the data or the statement: class 22 (data), 23 (constraints), 42 (access, syntax),
        // 54 (limits). All else passes by itself: resources, locks, a standby not yet promoted.
        _ => match refusal.code() {
            // disk_full, and what a quota of the file system is reported as.
            "53100" => FlushError::Full(why),
            code => match &code[..2] {
                "22" | "23" | "42" | "54" => FlushError::Rejected(why),
                _ => FlushError::Away(why),
            },
        },
    }
}
