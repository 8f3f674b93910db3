//! One test's world: a database, a NATS account, tokens, and the settings its pods share.

use std::sync::Arc;
use std::time::Duration;

use groundstation::dev::stores::{Nats, Postgres};
use groundstation::dev::tools::Tools;
use groundstation::platform::nats::Address;
use tokio::sync::Mutex;
use tokio_postgres::Client;
use uuid::Uuid;

use super::clock::Clock;
use super::faults;
use super::pod::Pod;
use super::program;
use super::satellite::Credentials;
use super::stores::{self, Rights, Share};
use super::subscriber::Subscriber;
use super::wait::{blocking, eventually, within};
use super::written;

/// The inbox prefix of `deploy/nats`' operator, which is the account of tests.
const OPERATORS_INBOX: &str = "_INBOX_operator";

/// How often satellites beat, and when a silent one is lost.
#[derive(Clone, Copy)]
pub struct Timing {
    pub heartbeat: Duration,
    pub threshold: Duration,
    pub sweep: Duration,
}

impl Timing {
    /// For how long pods of tests vouch: longer than by default, so that a heartbeat that a busy machine
    /// holds up is no exception, and short enough that the threshold is.
    pub fn window(self) -> Duration {
        let window = (self.threshold / 4).min(Duration::from_millis(1_500));
        window.max(self.heartbeat * 4 / 3)
    }
}

/// No satellite is lost unless the test takes a minute. Pods sweep twice a second: that is what an idle one costs most.
pub const CALM: Timing = Timing {
    heartbeat: Duration::from_secs(1),
    threshold: Duration::from_secs(60),
    sweep: Duration::from_millis(500),
};

/// The same for tests of what a sweep finds.
pub const SWEPT_OFTEN: Timing = Timing { sweep: Duration::from_millis(100), ..CALM };

/// A silent satellite is lost soon; one that beats every 200 ms is not, even on a busy machine.
pub const BRISK: Timing = Timing {
    heartbeat: Duration::from_millis(200),
    threshold: Duration::from_secs(3),
    sweep: Duration::from_millis(100),
};

/// For faults that last longer than a threshold: the field's times in a full run, else much shorter ones.
pub fn steady() -> Timing {
    let timing = |heartbeat, threshold, sweep| Timing {
        heartbeat: Duration::from_millis(heartbeat),
        threshold: Duration::from_millis(threshold),
        sweep: Duration::from_millis(sweep),
    };
    if faults::full() { timing(15_000, 45_000, 1_000) } else { timing(300, 6_000, 200) }
}

pub struct Fleet {
    pub timing: Timing,
    pub database_url: String,
    pub nats_url: String,
    pub admin_token: String,
    pub read_token: String,
    /// Its pods write every heartbeat.
    writes_heartbeats: bool,
    /// Only where the test wants to kill it.
    nats: Option<Nats>,
    postgres: Option<Postgres>,
    /// The addresses that pods use for database and NATS, where the test uses others.
    pods_stores: Option<(String, String)>,
    reader: Mutex<Option<Arc<Client>>>,
}

/// A pod to be started.
pub struct Plan<'a> {
    fleet: &'a Fleet,
    name: String,
    environment: Vec<(String, String)>,
}

impl Fleet {
    /// A fleet on the shared servers.
    pub async fn new(timing: Timing) -> Fleet {
        Fleet::of(timing, blocking(stores::share).await, None)
    }

    /// A fleet with a nats-server of its own.
    pub async fn with_own_nats(timing: Timing) -> Fleet {
        let (mut share, nats) = blocking(|| (stores::share(), stores::own_nats())).await;
        share.nats_url = nats.url();
        Fleet::of(timing, share, Some(nats))
    }

    /// A fleet on this NATS.
    pub async fn with_nats_at(timing: Timing, nats_url: String) -> Fleet {
        let share = blocking(stores::share).await;
        Fleet::of(timing, Share { nats_url, ..share }, None)
    }

    /// A fleet with a Postgres of its own.
    pub async fn with_own_postgres(timing: Timing) -> Fleet {
        let (mut share, own) = blocking(|| (stores::share(), stores::own_postgres())).await;
        share.database_url = own.1;
        Fleet { postgres: Some(own.0), ..Fleet::of(timing, share, None) }
    }

    /// A fleet on a Postgres of this version.
    pub async fn with_postgres_of(timing: Timing, tools: Tools) -> Fleet {
        let own = move || (stores::share(), stores::postgres_of_version(&tools));
        let (mut share, own) = blocking(own).await;
        share.database_url = own.1;
        Fleet { postgres: Some(own.0), ..Fleet::of(timing, share, None) }
    }

    /// A fleet whose Postgres has a clock that the test moves.
    pub async fn with_clock(timing: Timing) -> (Fleet, Clock) {
        let clock = Clock::new();
        let environment = clock.environment();
        let own = move || (stores::share(), stores::own_postgres_in(&environment));
        let (mut share, own) = blocking(own).await;
        share.database_url = own.1;
        (Fleet { postgres: Some(own.0), ..Fleet::of(timing, share, None) }, clock)
    }

    /// A fleet with stores of its own, which the test may lose.
    pub async fn with_own_stores(timing: Timing) -> Fleet {
        let own = blocking(|| (stores::own_postgres(), stores::own_nats())).await;
        let ((postgres, database_url), nats) = own;
        let share = Share { database_url, nats_url: nats.url() };
        Fleet { postgres: Some(postgres), ..Fleet::of(timing, share, Some(nats)) }
    }

    /// Promotes the standby of [`Fleet::with_standby`], so that it takes writes.
    pub async fn promote(&self, standby: Postgres) -> Postgres {
        let url = self.database_url.clone();
        blocking(move || {
            stores::promote(&standby, &url);
            standby
        })
        .await
    }

    /// Ends the Postgres of [`Fleet::with_own_stores`] for good.
    pub fn lose_postgres(&mut self) {
        self.own_postgres_mut().kill();
        self.postgres = None;
    }

    /// Ends the nats-server of [`Fleet::with_own_stores`] for good.
    pub fn lose_nats(&mut self) {
        self.own_nats().kill();
        self.nats = None;
    }

    /// Puts another Postgres in its place.
    pub fn has_postgres(&mut self, (postgres, url): (Postgres, String)) {
        (self.postgres, self.database_url) = (Some(postgres), url);
    }

    /// Puts another nats-server in its place, with nothing in it.
    pub async fn has_new_nats(&mut self) {
        let nats = blocking(stores::own_nats).await;
        (self.nats_url, self.nats) = (nats.url(), Some(nats));
    }

    /// The stores of [`Fleet::with_own_stores`], for a task that stops and starts them beside other work.
    pub fn take_stores(&mut self) -> (Postgres, Nats) {
        let stores = self.postgres.take().zip(self.nats.take());
        stores.expect("Fleet::with_own_stores")
    }

    /// A fleet whose pods have only the rights of these files. The test acts as the superuser and the
    /// operator.
    pub async fn with_rights(
        timing: Timing,
        nats: String,
        roles: String,
        password: String,
    ) -> (Fleet, Rights) {
        let (nats, rights) = blocking(move || stores::with_rights(&nats, &roles, password)).await;
        let as_user = |user: &str| {
            let account = format!("//{user}:{}@", rights.password);
            rights.nats_address.replacen("//", &account, 1)
        };
        let share =
            Share { database_url: rights.superuser_url.clone(), nats_url: as_user("operator") };
        let mut fleet = Fleet::of(timing, share, Some(nats));
        fleet.pods_stores = Some((rights.pod_database_url.clone(), as_user("groundstation")));
        (fleet, rights)
    }

    /// A fleet whose database has a standby. The test can kill the primary and promote the standby.
    pub async fn with_standby(
        timing: Timing,
        synchronous: &'static str,
    ) -> (Fleet, Postgres, Postgres) {
        let (mut share, (primary, standby, url)) =
            blocking(move || (stores::share(), stores::replicated_postgres(synchronous))).await;
        share.database_url = url;
        (Fleet::of(timing, share, None), primary, standby)
    }

    fn of(timing: Timing, share: Share, nats: Option<Nats>) -> Fleet {
        let Share { database_url, nats_url } = share;
        let (admin_token, read_token) = (stores::random(), stores::random());
        Fleet {
            timing,
            database_url,
            nats_url,
            admin_token,
            read_token,
            writes_heartbeats: written::are_written(),
            nats,
            postgres: None,
            pods_stores: None,
            reader: Mutex::default(),
        }
    }

    /// Whether its pods vouch for satellites that beat.
    pub fn is_vouching(&self) -> bool {
        !self.writes_heartbeats
    }

    /// Starts a pod with the fleet's settings.
    pub async fn pod(&self, name: &str) -> Pod {
        self.plan(name).start().await
    }

    /// A pod with settings of its own.
    pub fn plan(&self, name: &str) -> Plan<'_> {
        let ms = |duration: Duration| format!("{}ms", duration.as_millis());
        let window = if self.is_vouching() { self.timing.window() } else { Duration::ZERO };
        let own = || (self.database_url.clone(), self.nats_url.clone());
        let (database_url, nats_url) = self.pods_stores.clone().unwrap_or_else(own);
        let environment = [
            ("GROUNDSTATION_POD", name.to_owned()),
            ("GROUNDSTATION_LISTEN", "127.0.0.1:0".to_owned()),
            ("GROUNDSTATION_LOG_FORMAT", "json".to_owned()),
            ("GROUNDSTATION_ADMIN_TOKEN", self.admin_token.clone()),
            ("GROUNDSTATION_READ_TOKEN", self.read_token.clone()),
            ("GROUNDSTATION_HEARTBEAT_INTERVAL", ms(self.timing.heartbeat)),
            ("GROUNDSTATION_OFFLINE_THRESHOLD", ms(self.timing.threshold)),
            ("GROUNDSTATION_SWEEP_INTERVAL", ms(self.timing.sweep)),
            ("GROUNDSTATION_VOUCH_WINDOW", ms(window)),
            ("GROUNDSTATION_DRAIN_DELAY", "0s".to_owned()),
            ("GROUNDSTATION_DRAIN_SPREAD", "2s".to_owned()),
            // Satellites of tests connect more often than those in the field; tests of the door leave this out.
            ("GROUNDSTATION_CONNECT_BURST", "1000000".to_owned()),
            ("DATABASE_URL", database_url),
            ("NATS_URL", nats_url),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Plan { fleet: self, name: name.to_owned(), environment }
    }

    /// What `groundstation audit` says of log and stream.
    pub async fn audit(&self) -> std::process::Output {
        let environment = [
            ("DATABASE_URL".to_owned(), self.database_url.clone()),
            ("NATS_URL".to_owned(), self.nats_url.clone()),
            ("NATS_INBOX_PREFIX".to_owned(), OPERATORS_INBOX.to_owned()),
        ];
        blocking(move || program::run(&["audit"], &environment)).await
    }

    /// A connection to the database, as its owner.
    pub async fn sql(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.database_url, tokio_postgres::NoTls)
                .await
                .expect("a connection to the test's database");
        tokio::spawn(connection);
        client
    }

    /// A connection for looking only, made anew where the server has been restarted.
    pub(super) async fn reader(&self) -> Arc<Client> {
        let mut reader = self.reader.lock().await;
        match reader.as_ref().filter(|client| !client.is_closed()) {
            Some(client) => client.clone(),
            None => reader.insert(Arc::new(self.sql().await)).clone(),
        }
    }

    /// What the log holds of a satellite: session, event and reason of each transition.
    pub async fn history(&self, satellite: Uuid) -> Vec<String> {
        const HISTORY: &str = "
            select session || ' ' || event || ' ' || reason
              from entity_transitions where entity_id = $1 order by position";
        let sql = self.reader().await;
        let rows = sql.query(HISTORY, &[&satellite]).await.expect("the log can be read");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Waits until the log holds exactly these transitions of a satellite.
    pub async fn expect_history(&self, satellite: Uuid, expected: &[&str]) {
        eventually(&format!("the history of {satellite} to be {expected:?}"), async || {
            let history = self.history(satellite).await;
            if history == expected { Ok(()) } else { Err(format!("{history:?}")) }
        })
        .await;
    }

    /// How many transitions the log holds.
    pub async fn log_length(&self) -> i64 {
        let sql = self.reader().await;
        let row = sql.query_one("select count(*) from entity_transitions", &[]).await;
        row.expect("the log can be read").get(0)
    }

    /// Waits until the log holds this many transitions.
    pub async fn expect_log_length(&self, expected: i64) {
        eventually(&format!("{expected} transitions"), async || {
            let length = self.log_length().await;
            if length == expected { Ok(()) } else { Err(length.to_string()) }
        })
        .await;
    }

    /// A NATS client in the test's account.
    pub async fn nats(&self) -> async_nats::Client {
        let mut address = Address::parse(&self.nats_url).expect("an address");
        address.answers_at(OPERATORS_INBOX).expect("a subject");
        address.connect("test").await.expect("a connection to NATS")
    }

    /// Subscribes to everything that is published from now on.
    pub async fn subscribe(&self) -> Subscriber {
        Subscriber::new(&self.nats().await).await
    }

    /// The nats-server of [`Fleet::with_own_nats`].
    pub fn own_nats(&mut self) -> &mut Nats {
        self.nats.as_mut().expect("Fleet::with_own_nats")
    }

    /// The Postgres of [`Fleet::with_own_postgres`].
    pub fn own_postgres(&self) -> &Postgres {
        self.postgres.as_ref().expect("Fleet::with_own_postgres")
    }

    /// The same Postgres, for stopping and starting it again.
    pub fn own_postgres_mut(&mut self) -> &mut Postgres {
        self.postgres.as_mut().expect("Fleet::with_own_postgres")
    }

    /// Registers satellites on a pod, whose names have this prefix.
    pub async fn register(&self, pod: &Pod, prefix: &str, count: usize) -> Vec<Credentials> {
        let mut credentials = Vec::with_capacity(count);
        for n in 0..count {
            credentials.push(pod.register(&format!("{prefix}-{n}"), "eu").await);
        }
        credentials
    }

    /// Registers many satellites in one statement; they share a token.
    pub async fn register_many(&self, prefix: &str, count: usize) -> Vec<Credentials> {
        const REGISTER: &str = "
            insert into satellites (id, name, region, token_hash)
            select gen_random_uuid(), $1 || '-' || n, 'eu', $2 from generate_series(1, $3::bigint) n
            returning id";
        let token = stores::random();
        let digest = groundstation::platform::token::Digest::of(&token).to_stored();
        let sql = self.reader().await;
        let rows = sql.query(REGISTER, &[&prefix, &digest, &(count as i64)]).await;
        let rows = rows.expect("satellites");
        rows.iter().map(|row| Credentials { id: row.get(0), token: token.clone() }).collect()
    }

    /// Waits until the log holds this many transitions with this event of satellites whose names have this
    /// prefix.
    pub async fn expect_edges(&self, prefix: &str, event: &str, expected: usize) {
        within(Duration::from_secs(240), &format!("{expected} {event}"), async || {
            let edges = self.edges(prefix, event).await;
            if edges == expected as i64 { Ok(()) } else { Err(edges.to_string()) }
        })
        .await;
    }

    /// Waits until the log holds at least this many transitions with this event of satellites whose names have this
    /// prefix.
    pub async fn expect_some_edges(&self, prefix: &str, event: &str, expected: i64) {
        eventually(&format!("{expected} {event}"), async || {
            let edges = self.edges(prefix, event).await;
            if edges >= expected { Ok(()) } else { Err(edges.to_string()) }
        })
        .await;
    }

    /// How many transitions with this event the log holds of satellites whose names have this prefix.
    pub async fn edges(&self, prefix: &str, event: &str) -> i64 {
        const EDGES: &str = "
            select count(*) from entity_transitions
             where next ->> 'name' like $1 || '%' and event = $2";
        let sql = self.reader().await;
        sql.query_one(EDGES, &[&prefix, &event]).await.expect("the log can be read").get(0)
    }
}

impl Plan<'_> {
    /// Sets a variable of the pod's environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a variable out.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// The pod's environment, for tests that expect it not to start.
    pub fn environment(self) -> Vec<(String, String)> {
        self.environment
    }

    #[cfg(feature = "failpoints")]
    /// Starts the pod and does not wait: it may die at once.
    pub fn launch(self) -> Pod {
        Pod::launch(&self.name, &self.environment, &self.fleet.admin_token)
    }

    /// Starts the pod and waits until it is ready.
    pub async fn start(self) -> Pod {
        Pod::start(&self.name, &self.environment, &self.fleet.admin_token).await
    }
}
