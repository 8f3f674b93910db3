//! A pooler may stand before Postgres if it leaves each connection its session. PgBouncer in session mode does, as it
//! comes. In every other mode a pod refuses it, whatever else is set; where the mode changes under a pod, it ends.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::Client;

use crate::harness::raw::Raw;
use crate::harness::reader::Reader;
use crate::harness::wait::blocking;
use crate::harness::{
    BRISK, CALM, Fleet, Onlooker, PgBouncer, Pod, Satellite, eventually, program, stores,
};

/// The exit status of everything that is refused, and of what cannot be reached.
const FAILED: i32 = 1;
const UNREACHABLE: i32 = 6;

const REFUSED: [&str; 4] = ["pooler", "pool_mode = session", "DATABASE_URL", "share sessions"];

/// What a command says that must fail with one line.
async fn refusal(status: i32, command: &'static str, environment: Vec<(String, String)>) -> String {
    let output = blocking(move || program::run(&[command], &environment)).await;
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(status), "{command}: {said}");
    assert_eq!(said.lines().count(), 1, "{command}: {said}");
    said
}

async fn expect_refusal(fleet: &Fleet, url: &str, command: &'static str) {
    let plan = fleet.plan("a").with("DATABASE_URL", url).without("GROUNDSTATION_LOG_FORMAT");
    let said = refusal(FAILED, command, plan.environment()).await;
    for word in REFUSED {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// Sessions of this database's pods.
async fn sessions(sql: &Client) -> i64 {
    const SESSIONS: &str = "
        select count(*) from pg_stat_activity
         where datname = current_database() and application_name like 'groundstation %'";
    sql.query_one(SESSIONS, &[]).await.expect("the activity").get(0)
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_behind_pgbouncer_in_session_mode_does_everything_it_is_for_and_outlives_its_restart()
{
    let fleet = Fleet::new(BRISK).await;
    let Some((mut pooler, url)) = PgBouncer::before(&fleet.database_url, &[]).await else { return };
    let start = async |name| fleet.plan(name).with("DATABASE_URL", &url).start().await;
    let mut a: Pod = start("a").await;
    let all = fleet.register(&a, "edge", 3).await;
    let [beating, silent, leaving] = &all[..] else { panic!("three satellites") };
    let mut reader = Reader::open(a.address, &fleet.read_token, "", None).await;
    let mut held = fleet.beating(&a, beating).await;
    Satellite::connect(a.address, leaving).await.close().await;
    fleet.expect_history(leaving.id, &["1 connected connect", "1 disconnected client_close"]).await;
    let lost = fleet.beating(&a, silent).await;
    lost.fall_silent();
    let onlooker = Onlooker::at(&fleet, &[a.address]);
    let expected = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(silent.id, &expected).await;

    // Reads of all kinds: a list now and then, one satellite's past, the live stream.
    let list = a.get("/v1/satellites?position=1").await.json();
    assert_eq!(list["satellites"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(a.show(silent.id).await["status"], "offline");
    let past = a.get(&format!("/v1/satellites/{}/transitions", leaving.id)).await.json();
    assert_eq!(past["transitions"].as_array().map(Vec::len), Some(2), "{past}");
    for _ in 0..5 {
        assert!(reader.next().await.is_some(), "an event of the live stream");
    }

    pooler.restart().await;
    let again = Satellite::connect(a.address, leaving).await;
    a.expect_ready().await;
    assert_eq!(onlooker.saw_offline("edge-0").await, [""; 0]);

    // Another pod takes over at the end.
    let b = start("b").await;
    a.terminate();
    assert_eq!(held.hear().await, crate::harness::Heard::Closed(1012));
    held = Satellite::connect(b.address, beating).await;
    held.beat_every(fleet.timing.heartbeat);
    let status = a.exit().await;
    assert!(status.success(), "{}", a.log());
    fleet.expect_history(beating.id, &["1 connected connect", "2 connected takeover"]).await;
    assert!(sessions(&fleet.sql().await).await > 0, "it goes through the pooler");
    fleet.check().await;
    drop((held, again));
}

#[tokio::test]
async fn transaction_and_statement_mode_are_refused_with_what_to_change() {
    let fleet = Fleet::new(CALM).await;
    for mode in ["transaction", "statement"] {
        let settings = [("pool_mode", mode)];
        let pooler = PgBouncer::before(&fleet.database_url, &settings).await;
        let Some((_pooler, url)) = pooler else { return };
        for command in ["serve", "migrate", "rebuild"] {
            expect_refusal(&fleet, &url, command).await;
        }
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn transaction_mode_is_refused_however_many_connections_the_pooler_has_and_however_it_chooses()
 {
    let fleet = Fleet::new(CALM).await;
    let one = [("default_pool_size", "1"), ("max_db_connections", "1")];
    let in_turn = [("server_round_robin", "1"), ("min_pool_size", "3")];
    let two_in_turn =
        [("server_round_robin", "1"), ("default_pool_size", "2"), ("min_pool_size", "2")];
    let cleaned = [("server_reset_query_always", "1"), ("min_pool_size", "3")];
    let ignored = [("ignore_startup_parameters", "options,extra_float_digits")];
    for mode in ["transaction", "statement"] {
        for more in [&one[..], &in_turn, &two_in_turn, &cleaned, &ignored] {
            let settings = [&[("pool_mode", mode)], more].concat();
            let pooler = PgBouncer::before(&fleet.database_url, &settings).await;
            let Some((pooler, url)) = pooler else { return };
            // Its connections are there before the pod is.
            let least: usize = more
                .iter()
                .find(|(name, _)| *name == "min_pool_size")
                .map_or(0, |(_, least)| least.parse().expect("a number"));
            if least > 0 {
                let (client, connection) =
                    tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("it pools");
                tokio::spawn(connection);
                client.simple_query("select 1").await.expect("an answer");
                eventually("its connections to be idle", async || {
                    let idle = pooler.servers("idle").await;
                    if idle >= least { Ok(()) } else { Err(idle.to_string()) }
                })
                .await;
            }
            let began = Instant::now();
            expect_refusal(&fleet, &url, "serve").await;
            println!("{mode}, {more:?}: refused after {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn transaction_mode_is_refused_beside_other_clients_that_use_the_same_pool() {
    let fleet = Fleet::new(CALM).await;
    let settings = [("pool_mode", "transaction"), ("default_pool_size", "4")];
    let Some((_pooler, url)) = PgBouncer::before(&fleet.database_url, &settings).await else {
        return;
    };
    let mut others = Vec::new();
    for _ in 0..12 {
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("it pools");
        tokio::spawn(connection);
        others.push(tokio::spawn(async move {
            loop {
                client.simple_query("select pg_sleep(0.001)").await.expect("an answer");
            }
        }));
    }
    for _ in 0..5 {
        expect_refusal(&fleet, &url, "serve").await;
    }
    for other in others {
        assert!(!other.is_finished(), "the others were disturbed");
        other.abort();
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn sessions_that_are_not_cleaned_after_their_connection_are_refused() {
    let fleet = Fleet::new(CALM).await;
    let settings = [("server_reset_query", "")];
    let Some((_pooler, url)) = PgBouncer::before(&fleet.database_url, &settings).await else {
        return;
    };
    expect_refusal(&fleet, &url, "serve").await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pooler_with_one_connection_in_session_mode_is_named_as_too_small() {
    let fleet = Fleet::new(CALM).await;
    let settings = [("default_pool_size", "1")];
    let Some((_pooler, url)) = PgBouncer::before(&fleet.database_url, &settings).await else {
        return;
    };
    let environment = fleet.plan("a").with("DATABASE_URL", &url).environment();
    let said = refusal(UNREACHABLE, "serve", environment).await;
    assert!(said.contains("pool is too small"), "{said}");
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_ends_when_its_pooler_begins_to_mix_sessions_and_does_not_start_again() {
    let fleet = Fleet::new(CALM).await;
    let Some((mut pooler, url)) = PgBouncer::before(&fleet.database_url, &[]).await else { return };
    let mut pods = Vec::new();
    for name in ["a", "b"] {
        pods.push(fleet.plan(name).with("DATABASE_URL", &url).start().await);
    }
    pooler.change(&[("pool_mode", "transaction")]).await;
    let began = Instant::now();
    for pod in &mut pods {
        let status = pod.exit().await;
        println!("{} ended after {:?}", pod.name, began.elapsed());
        assert_eq!(status.code(), Some(FAILED), "{}", pod.log());
        let said = pod.logged("share sessions with others").expect("its reason");
        assert!(said["shared"].as_str().is_some_and(|said| said.contains("pool_mode")), "{said}");
    }
    expect_refusal(&fleet, &url, "serve").await;
}

/// The login of `deploy/postgres` can do nothing without the role: where a pooler begins to mix sessions, what runs
/// before the pod has noticed is refused.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_with_the_deployed_rights_works_in_session_mode_and_without_the_role_it_may_nothing()
{
    let deployed = |file: &str| {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
        std::fs::read_to_string(file).expect("a file of deploy/")
    };
    let password = stores::random();
    let variables = ["GROUNDSTATION", "AUTOMATION", "BACKEND", "OPERATOR"]
        .map(|user| format!("{user}_NATS_PASSWORD: {password}\n"))
        .concat();
    let nats = format!("{variables}{}", deployed("nats/groundstation.conf"));
    let roles = deployed("postgres/roles.sql");
    let (fleet, rights) = Fleet::with_rights(CALM, nats, roles, password).await;
    let pooler = PgBouncer::before(&rights.pod_database_url, &[]).await;
    let Some((mut pooler, url)) = pooler else { return };
    let mut pod = fleet.plan("a").with("DATABASE_URL", &url).start().await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    fleet.expect_log_length(2).await;
    fleet.check().await;
    assert!(pod.logged("more rights than a pod needs").is_none(), "{}", pod.log());

    pooler.change(&[("pool_mode", "transaction")]).await;
    assert_eq!(pod.exit().await.code(), Some(FAILED), "{}", pod.log());
    // Its sessions have gone; a new one is nobody's.
    pooler.restart().await;
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("it pools");
    tokio::spawn(connection);
    let refused = client.simple_query("select 1 from satellites").await.expect_err("no right");
    assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE));
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn what_readers_gave_up_is_cancelled_through_the_pooler() {
    let fleet = Fleet::new(CALM).await;
    let Some((_pooler, url)) = PgBouncer::before(&fleet.database_url, &[]).await else { return };
    let pod = fleet.plan("a").with("DATABASE_URL", &url).start().await;
    let mut sql = fleet.sql().await;
    let held = sql.transaction().await.expect("a transaction");
    held.batch_execute("lock table satellites in access exclusive mode").await.expect("a lock");
    let mut reader = Raw::connect(pod.address).await;
    let token = &fleet.read_token;
    reader
        .send(format!(
            "GET /v1/satellites HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    const WAITING: &str = "
        select count(*) from pg_stat_activity
         where datname = current_database() and application_name like '% reads'
           and wait_event_type = 'Lock'";
    let waiting = async |expected: i64| {
        eventually(&format!("{expected} reads to wait"), async || {
            let waiting: i64 = held.query_one(WAITING, &[]).await.expect("activity").get(0);
            if waiting == expected { Ok(()) } else { Err(waiting.to_string()) }
        })
        .await;
    };
    waiting(1).await;
    drop(reader);
    // Its own time-out would come much later.
    let began = Instant::now();
    waiting(0).await;
    println!("cancelled after {:?}", began.elapsed());
    pod.expect_metric("groundstation_database_cancellations_total", 1.0).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn migrations_rebuilds_and_locks_of_sessions_work_through_the_pooler() {
    let share = blocking(stores::share_without_schema).await;
    let Some((_pooler, url)) = PgBouncer::before(&share.database_url, &[]).await else { return };
    // Several at once wait for each other, and leave no lock behind.
    for _ in 0..2 {
        let mut migrations = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let url = url.clone();
            migrations.spawn(blocking(move || program::migrate(&url)));
        }
        while let Some(migrated) = migrations.join_next().await {
            let migrated = migrated.expect("a migration");
            assert!(migrated.status.success(), "{migrated:?}");
        }
    }
    let environment = [("DATABASE_URL".to_owned(), url.clone())];
    let (ok, _, err) = program::ran(&["rebuild"], &environment).await;
    assert!(ok, "{err}");
    let (ok, _, err) = program::ran(&["retention", "--older-than", "90d"], &environment).await;
    assert!(ok, "{err}");
}

/// A pod that stands still in a transaction: Postgres ends its session, PgBouncer its connection.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_that_stands_still_holds_no_lock_through_the_pooler_and_goes_on_afterwards() {
    let fleet = Fleet::new(CALM).await;
    let Some((_pooler, url)) = PgBouncer::before(&fleet.database_url, &[]).await else { return };
    let pods =
        [fleet.plan("a").with("DATABASE_URL", &url).start().await, fleet.pod("direct").await];
    let credentials = fleet.register(&pods[0], "edge", 20).await;
    let mut agents = Vec::new();
    for one in &credentials[..10] {
        agents.push(Satellite::connect(pods[0].address, one).await);
    }
    pods[0].suspend();
    tokio::time::sleep(Duration::from_secs(6)).await;
    for one in &credentials[10..] {
        agents.push(Satellite::connect(pods[1].address, one).await);
    }
    pods[0].wake();
    pods[0].expect_ready().await;
    let more = pods[0].register("more", "eu").await;
    Satellite::connect(pods[0].address, &more).await.close().await;
    fleet.check().await;
    let answer = pods[0].post("/v1/satellites", &json!({"name": "last", "region": "eu"})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}
