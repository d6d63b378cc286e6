//! For tests of every room: stores and clusters ready to use, and databases of their own.

use super::{Cluster, Kinds, NewCluster, Store};
use longshore_api::ids::OrganizationId;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

/// The few things the store must know of kinds, for tests that don't want the registry of resources.
#[derive(Debug)]
pub struct PlainKinds;

impl Kinds for PlainKinds {
    fn fields(&self, resource: &str, tree: &Value) -> BTreeMap<&'static str, String> {
        let text = |pointer: &str| tree.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
        match resource {
            "pods" => BTreeMap::from([("spec.nodeName", text("/spec/nodeName"))]),
            "events" => BTreeMap::from([("involvedObject.name", text("/involvedObject/name"))]),
            _ => BTreeMap::new(),
        }
    }

    fn sealed(&self, resource: &str) -> bool {
        resource == "secrets"
    }
}

/// A new, empty cluster in a store that lives in memory only.
pub async fn cluster() -> Arc<Cluster> {
    let store = Store::in_memory();
    let id = store.create_cluster(NewCluster::new(OrganizationId::new("o-test"), "test")).await;
    let cluster = store.cluster(&id.expect("a cluster in memory is made")).await.expect("and is there");
    // The store's tasks live as long as the store: as long as the test, then.
    std::mem::forget(store);
    cluster
}

/// A database of a test's own, migrated, dropped when this is.
pub struct Database {
    pub pool: PgPool,
    pub options: PgConnectOptions,
    admin: PgConnectOptions,
    name: String,
}

/// A fresh database on the server that `LONGSHORE_TEST_DATABASE_URL` names (`scripts/test-postgres start` prints one).
/// It is a copy of a template that is migrated once for each state of `migrations/`.
pub async fn database() -> Database {
    let url = std::env::var("LONGSHORE_TEST_DATABASE_URL")
        .expect("LONGSHORE_TEST_DATABASE_URL names a running server: see scripts/test-postgres");
    let admin = PgConnectOptions::from_str(&url).expect("LONGSHORE_TEST_DATABASE_URL is a Postgres URL");
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect_with(&admin).await.expect("the test server answers");
    let template = template(&mut connection, &admin).await.expect("the migrations apply");
    // Refused while another test copies or makes the template: rare and short.
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
    let mut attempts = 0;
    while let Err(error) = sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut connection).await {
        attempts += 1;
        assert!(attempts < 100, "no test database: {error}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let options = admin.clone().database(&name);
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options.clone()).await;
    Database { pool: pool.expect("the new database answers"), options, admin, name }
}

/// The name of the migrated template, made when it is missing.
async fn template(connection: &mut PgConnection, admin: &PgConnectOptions) -> Result<String, sqlx::Error> {
    let mut migrator = sqlx::migrate!("../migrations");
    migrator.set_locking(false);
    let state = migrator.iter().flat_map(|m| m.checksum.iter().copied());
    let hash = state.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let template = format!("template_{hash:016x}");
    let exists = "SELECT count(*) FROM pg_database WHERE datname = $1";
    if sqlx::query_scalar::<_, i64>(exists).bind(&template).fetch_one(&mut *connection).await? > 0 {
        return Ok(template);
    }
    // Made under a name of its own and renamed when it is whole: tests start side by side.
    let draft = format!("draft_{}", uuid::Uuid::new_v4().simple());
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {draft}"))).execute(&mut *connection).await?;
    let pool = PgPoolOptions::new().max_connections(1).connect_with(admin.clone().database(&draft)).await?;
    let migrated = migrator.run(&pool).await;
    pool.close().await;
    migrated.map_err(|e| sqlx::Error::Configuration(e.into()))?;
    let rename = sqlx::query(AssertSqlSafe(format!("ALTER DATABASE {draft} RENAME TO {template}")));
    if rename.execute(&mut *connection).await.is_err() {
        // Another test was first.
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {draft}"))).execute(&mut *connection).await?;
    }
    Ok(template)
}

impl Database {
    /// An organization to make clusters in.
    pub async fn organization(&self) -> OrganizationId {
        let id = OrganizationId::new(format!("o-{}", uuid::Uuid::new_v4().simple()));
        let insert = sqlx::query!("INSERT INTO organizations (id, name) VALUES ($1, $1)", id.as_str());
        insert.execute(&self.pool).await.expect("an organization is written");
        id
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), std::mem::take(&mut self.name));
        // A thread with a runtime of its own: a destructor can't await, and the test's runtime may be at its end.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect_with(&admin).await.ok()?;
                let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.ok()
            })
        });
        let _ = dropped.join();
    }
}
