//! A private Postgres and nats-server for one section, and satellites in them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use groundstation::dev::stores::{self, Nats, Postgres};
use groundstation::dev::tools::Tools;
use groundstation::platform::database::{Address, Database};
use groundstation::platform::migrations;
use uuid::Uuid;

use crate::cpu;

/// Every satellite's token.
pub const TOKEN: &str = "csat_bench_0123456789abcdefghijklmnop";

/// Postgres with fsync on and a cache that holds the fleet, nats-server with its defaults. Both are
/// removed when dropped.
pub struct Stores {
    postgres: Postgres,
    nats: Nats,
    pub tools: Tools,
    pub folder: PathBuf,
}

impl Stores {
    /// Starts them and makes the schema.
    pub fn start() -> Stores {
        Stores::start_with(&[])
    }

    /// The same, with more settings of Postgres.
    pub fn start_with(more: &[(&str, &str)]) -> Stores {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let here = std::env::current_dir().expect("a folder");
        let tools = Tools::find(&here).expect("run `make tools`");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("groundstation-bench-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = [&[("shared_buffers", "1GB"), ("max_wal_size", "8GB")], more].concat();
        let postgres =
            Postgres::start(&tools, &folder.join("postgres"), &settings).expect("Postgres");
        let nats = Nats::start(&tools, &folder.join("nats"), "").expect("nats-server");
        let stores = Stores { postgres, nats, tools, folder };
        migrations::migrate(&stores.address(), None).expect("schema");
        stores
    }

    /// The database's URL.
    pub fn url(&self) -> String {
        self.postgres.url("postgres")
    }

    /// The server's URL.
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// A connection to the stream's server.
    pub async fn nats(&self) -> async_nats::Client {
        async_nats::connect(self.nats_url()).await.expect("NATS")
    }

    /// Seconds of CPU that Postgres has used so far, all its processes together.
    pub fn postgres_cpu(&self) -> f64 {
        cpu::seconds_of(self.postgres.pid())
    }

    /// What Postgres has written so far.
    pub fn written(&self) -> Written {
        let row = self.sql().query_one(WRITTEN, &[]).expect("statistics");
        Written { rows: row.get("rows"), wal: row.get("wal") }
    }

    fn address(&self) -> Address {
        Address::parse("bench", &self.url()).expect("address")
    }

    /// A pod's connections.
    pub fn pool(&self, pod: &str) -> Database {
        self.address().pool(pod).expect("pool")
    }

    /// A connection as the owner.
    pub fn sql(&self) -> postgres::Client {
        postgres::Client::connect(&self.url(), postgres::NoTls).expect("a connection")
    }

    /// Writes the first transition, for satellites whose rows say that they have connected: no
    /// satellite has more revisions than there are positions.
    pub fn begin_log(&self) {
        let first = r#"
            insert into entity_transitions
            values (1, 1, gen_random_uuid(), 'satellite-connection', gen_random_uuid(), 'connected', 'connect',
                    1, null,
                    '{"status": "online", "name": "bench", "region": "eu", "lastSeenAt": null, "lastEvent": "connected"}',
                    'system', 'system', null, 1, now(), now())"#;
        self.sql().execute(first, &[]).expect("the first transition");
    }

    /// Registers satellites.
    pub fn register(&self, count: usize) -> Vec<Uuid> {
        let digest = groundstation::platform::token::Digest::of(TOKEN).to_stored();
        let insert = "insert into satellites (id, name, region, token_hash)
                      select id, 'bench-' || id, 'eu', $2 from unnest($1::uuid[]) as i (id)";
        let ids: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
        let mut sql = self.sql();
        for ids in ids.chunks(100_000) {
            sql.execute(insert, &[&ids, &digest]).expect("satellites");
        }
        sql.batch_execute("vacuum analyze satellites").expect("vacuum");
        ids
    }
}

/// What Postgres has written.
#[derive(Clone, Copy)]
pub struct Written {
    /// Updates of rows of satellites' connections and of pods.
    pub rows: f64,
    /// Bytes of write-ahead log.
    pub wal: f64,
}

impl Written {
    /// Since then.
    pub fn since(self, before: Written) -> Written {
        Written { rows: self.rows - before.rows, wal: self.wal - before.wal }
    }
}

const WRITTEN: &str = "
    select sum(n_tup_upd)::float8 as rows, (pg_current_wal_lsn() - '0/0')::float8 as wal
      from pg_stat_user_tables where relname in ('satellite_connections', 'pods')";

impl Drop for Stores {
    fn drop(&mut self) {
        self.nats.stop();
        self.postgres.stop();
        stores::remove_all(&self.folder).expect("removed");
    }
}
