//! Satellites of a Checkstack database are copied with their credentials, any number of times, and their agents
//! notice nothing.

use std::process::Output;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::stores::share_without_schema;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, program};

/// The table of Checkstack's satellite plugin as its migrations leave it, by columns.
const FIRST_COLUMNS: &str = "
    id uuid primary key default gen_random_uuid() not null,
    name text not null, region text not null, tags jsonb default '{}' not null,
    token_hash text not null, last_heartbeat_at timestamp, version text,
    created_at timestamp default now() not null";
const LATER_COLUMNS: &str = "
    last_connection_event text, capabilities jsonb default '[]' not null, offline_threshold_ms integer";

/// The tables of checks, as the migrations of Checkstack's plugins for checks and for the catalogue leave them.
const CHECKS: &str = "
    create schema plugin_healthcheck;
    create table plugin_healthcheck.health_check_configurations (
        id uuid primary key default gen_random_uuid() not null, name text not null,
        strategy_id text not null, config jsonb not null, collectors jsonb,
        interval_seconds integer not null, is_template boolean default false,
        paused boolean default false not null, created_at timestamp default now() not null,
        updated_at timestamp default now() not null);
    create table plugin_healthcheck.system_health_checks (
        system_id text not null,
        configuration_id uuid not null references plugin_healthcheck.health_check_configurations (id),
        enabled boolean default true not null, state_thresholds jsonb, retention_config jsonb,
        satellite_ids jsonb, include_local boolean default true not null, notification_policy jsonb,
        created_at timestamp default now() not null, updated_at timestamp default now() not null,
        primary key (system_id, configuration_id));
    create schema plugin_catalog;
    create table plugin_catalog.systems (
        id text primary key not null, name text not null, description text, metadata json default '{}',
        created_at timestamp default now() not null, updated_at timestamp default now() not null)";

const HASH: &str = "$2b$10$C5yFDCdJ9bpPgF8MIqBKMO1IrYwobQF5oAiHKmrr8lmCV6bfNbgUW";
const OTHER_HASH: &str = "$2b$10$AbcdefghijklmnopqrstuuRstuvwxyzABCDEFGHIJKLMNOPQRSTUV";

/// A Checkstack database.
struct Checkstack {
    url: String,
    sql: Client,
}

impl Checkstack {
    async fn new() -> Checkstack {
        let url = blocking(share_without_schema).await.database_url;
        let (sql, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .expect("Checkstack's database");
        tokio::spawn(connection);
        Checkstack { url, sql }
    }

    async fn with_plugin() -> Checkstack {
        let checkstack = Checkstack::new().await;
        checkstack.table("plugin_satellite", &format!("{FIRST_COLUMNS},{LATER_COLUMNS}")).await;
        checkstack
    }

    async fn table(&self, schema: &str, columns: &str) {
        self.run(&format!("create schema {schema}; create table {schema}.satellites ({columns})"))
            .await;
    }

    async fn run(&self, statements: &str) {
        self.sql.batch_execute(statements).await.expect("a statement of the test");
    }

    async fn satellite(&self, name: &str) -> Uuid {
        let id = Uuid::new_v4();
        self.run(&format!(
            "insert into plugin_satellite.satellites (id, name, region, token_hash)
             values ('{id}', '{name}', 'eu', '{HASH}')"
        ))
        .await;
        id
    }

    /// A configuration, and the systems on which these satellites check it.
    async fn check(&self, name: &str, systems: &[&str], satellites: &[Uuid]) -> Uuid {
        let id = Uuid::new_v4();
        let collectors = json!([{"id": "k1", "collectorId": "script", "assertions": [],
                                 "config": {"secretEnv": {"TOKEN": "${{ secrets.A }}"}}}]);
        self.run(&format!(
            r#"insert into plugin_healthcheck.health_check_configurations
                      (id, name, strategy_id, config, collectors, interval_seconds)
               values ('{id}', '{name}', 'healthcheck-http.http', '{{"url": "https://{name}"}}',
                       '{collectors}', 60)"#
        ))
        .await;
        for system in systems {
            self.run(&format!(
                "insert into plugin_healthcheck.system_health_checks
                        (system_id, configuration_id, satellite_ids)
                 values ('{system}', '{id}', '{}')",
                json!(satellites)
            ))
            .await;
        }
        id
    }

    async fn import(&self, fleet: &Fleet, more: &[&str]) -> Output {
        let environment = [("DATABASE_URL".to_owned(), fleet.database_url.clone())];
        let mut arguments = vec!["import", "checkstack", "--from", &self.url];
        arguments.extend(more);
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            program::run(&arguments, &environment)
        })
        .await
    }

    /// Runs an import that must succeed. Returns its output.
    async fn imported(&self, fleet: &Fleet) -> String {
        let output = self.import(fleet, &[]).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

fn last_line(output: &str) -> &str {
    output.lines().last().unwrap_or_default()
}

async fn token_hash(fleet: &Fleet, id: Uuid) -> String {
    const STORED: &str = "select token_hash from satellites where id = $1";
    let sql = fleet.sql().await;
    sql.query_one(STORED, &[&id]).await.expect("the satellite").get(0)
}

/// Gives an imported satellite a new token in this system, as a rotation does.
async fn rotate(fleet: &Fleet, pod: &Pod, id: Uuid) -> Credentials {
    let donor = pod.register("donor", "eu").await;
    let sql = fleet.sql().await;
    const ROTATE: &str = "update satellites set token_hash = d.token_hash
                            from satellites d where satellites.id = $1 and d.id = $2";
    sql.execute(ROTATE, &[&id, &donor.id]).await.expect("a rotation");
    Credentials { id, token: donor.token }
}

#[tokio::test]
async fn satellites_are_copied_with_all_that_is_known_of_them_and_no_edge_is_made() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    let pod = fleet.pod("a").await;
    let (was_online, never_came) = (Uuid::new_v4(), Uuid::new_v4());
    checkstack
        .run(&format!(
            r#"insert into plugin_satellite.satellites values
               ('{was_online}', 'edge-eu', 'eu-west', '{{"rack": "7"}}', '{HASH}',
                timezone('UTC', now()) - interval '5 s', '0.5.2', '2026-01-02 03:04:05.678912',
                'connected', '["http","scrape"]', 120000),
               ('{never_came}', 'edge-us', 'us-east', '{{}}', '{HASH}', null, null,
                '2026-02-03 04:05:06', null, '[]', 0)"#
        ))
        .await;
    let output = checkstack.imported(&fleet).await;
    assert!(output.contains(&format!("created {was_online} edge-eu")), "{output}");
    let summary = "plugin_satellite: 2 created, 0 updated, 0 unchanged, 0 skipped, 0 refused";
    assert_eq!(last_line(&output), summary);
    assert!(!output.contains(HASH), "{output}");

    let shown = pod.show(was_online).await;
    let imported = &shown["imported"];
    assert_eq!(imported["lastEvent"], "connected");
    assert!(imported["lastHeartbeatAt"].is_string(), "{shown}");
    for (field, expected) in [
        ("name", json!("edge-eu")),
        ("region", json!("eu-west")),
        ("tags", json!({"rack": "7"})),
        ("capabilities", json!(["http", "scrape"])),
        ("version", json!("0.5.2")),
        ("offlineThresholdMs", json!(120_000)),
        ("createdAt", json!("2026-01-02T03:04:05.678Z")),
        // Another system heard the heartbeat, not this one.
        ("status", json!("offline")),
        ("lastSeenAt", json!(null)),
    ] {
        assert_eq!(shown[field], expected, "{field} of {shown}");
    }
    let shown = pod.show(never_came).await;
    assert_eq!(shown["offlineThresholdMs"], json!(null), "zero means the default there");
    assert_eq!(shown["imported"]["lastEvent"], json!(null));
    assert_eq!(token_hash(&fleet, was_online).await, HASH);

    let page = pod.get("/v1/audit?action=satellite.imported").await.json();
    let entries = page["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 2, "{page}");
    for entry in entries {
        // Who ran the command, as the operating system knows it.
        assert_eq!(entry["actor"]["type"], "command");
        let who = entry["actor"]["id"].as_str().and_then(|who| who.split_once('@'));
        let (user, host) = who.unwrap_or_else(|| panic!("no user at a host: {entry}"));
        assert!(!user.is_empty() && !host.is_empty(), "{entry}");
        assert!(!entry.to_string().contains(HASH), "{entry}");
    }

    pod.sweeps(3).await;
    assert_eq!(fleet.log_length().await, 0, "an import is no edge");
    let listed = pod.get("/v1/satellites?status=online").await.json();
    assert_eq!(listed["satellites"], json!([]));
    fleet.check().await;
}

#[tokio::test]
async fn a_second_import_changes_nothing_and_a_later_one_follows_what_changed_there() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    let (stays, changes) = (checkstack.satellite("stays").await, checkstack.satellite("old").await);
    checkstack.imported(&fleet).await;
    let again = checkstack.imported(&fleet).await;
    let summary = "plugin_satellite: 0 created, 0 updated, 2 unchanged, 0 skipped, 0 refused";
    assert_eq!(again.trim(), summary);
    checkstack
        .run(&format!(
            "update plugin_satellite.satellites set name = 'new', token_hash = '{OTHER_HASH}'
              where id = '{changes}'"
        ))
        .await;
    let third = checkstack.imported(&fleet).await;
    assert!(third.contains(&format!("updated {changes} new")), "{third}");
    assert!(last_line(&third).contains("0 created, 1 updated, 1 unchanged"), "{third}");
    assert_eq!(token_hash(&fleet, changes).await, OTHER_HASH);
    assert_eq!(token_hash(&fleet, stays).await, HASH);

    let changes_of =
        "select action || ' ' || coalesce(before->>'name', '-') || ' ' || (after->>'name')
                        from registry_changes where satellite_id = $1 order by change";
    let rows = fleet.sql().await.query(changes_of, &[&changes]).await.expect("the history");
    let history: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(history, ["created - old", "updated old new"]);
    fleet.check().await;
}

#[tokio::test]
async fn what_happened_here_since_is_not_undone_by_another_import() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    let pod = fleet.pod("a").await;
    let connected = checkstack.satellite("connected").await;
    let removed = checkstack.satellite("removed").await;
    let rotated = checkstack.satellite("rotated").await;
    checkstack.imported(&fleet).await;

    let credentials = rotate(&fleet, &pod, connected).await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    assert_eq!(pod.remove(removed).await.status, 204);
    rotate(&fleet, &pod, rotated).await;
    let ours = token_hash(&fleet, rotated).await;
    let here = pod.register("here", "eu").await;
    checkstack
        .run(&format!(
            "update plugin_satellite.satellites set name = 'other', token_hash = '{OTHER_HASH}';
             insert into plugin_satellite.satellites (id, name, region, token_hash)
             values ('{}', 'other', 'eu', '{HASH}')",
            here.id
        ))
        .await;

    let output = checkstack.imported(&fleet).await;
    assert!(
        output.contains(&format!("skipped {connected} other: it has connected here")),
        "{output}"
    );
    assert!(output.contains(&format!("skipped {removed} other: it was removed here")), "{output}");
    assert!(output.contains(&format!("skipped {} other: a satellite with", here.id)), "{output}");
    assert!(output.contains(&format!("updated {rotated} other")), "{output}");
    assert_eq!(pod.show(connected).await["name"], "connected");
    assert_eq!(pod.show(here.id).await["name"], "here");
    assert_eq!(pod.get(&format!("/v1/satellites/{removed}")).await.status, 404);
    assert_eq!(token_hash(&fleet, rotated).await, ours, "a void token came back");
    drop(satellite);
    fleet.check().await;
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused_by_field_and_the_others_come_all_the_same() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    let good = checkstack.satellite("good").await;
    checkstack
        .run(&format!(
            r#"insert into plugin_satellite.satellites (name, region, tags, token_hash) values
               ('', 'eu', '{{}}', '{HASH}'),
               ('numbers', 'eu', '{{"rack": 7}}', '{HASH}'),
               ('hash', 'eu', '{{}}', '$argon2id$v=19$secret'),
               ('dear', 'eu', '{{}}', '$2b$15${}')"#,
            &HASH[7..]
        ))
        .await;
    let output = checkstack.import(&fleet, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).expect("text");
    for expected in [
        &format!("created {good} good"),
        "\"\": name must have 1 to 200 characters",
        "\"numbers\": tags must be an object of texts",
        "\"hash\": token_hash must be a bcrypt hash ($2a$, $2b$ or $2y$, cost 04 to 14)",
        "\"dear\": token_hash must be a bcrypt hash ($2a$, $2b$ or $2y$, cost 04 to 14)",
        "1 created, 0 updated, 0 unchanged, 0 skipped, 4 refused",
    ] {
        assert!(printed.contains(expected), "{expected:?} in {printed}");
    }
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("4 satellites break a limit"), "{said}");
    assert!(!printed.contains("argon2") && !said.contains("argon2"));
    assert!(!printed.contains(&HASH[7..]) && !said.contains(&HASH[7..]));
}

#[tokio::test]
async fn a_name_that_is_not_what_it_seems_comes_as_it_is_and_is_told_of() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    let pod = fleet.pod("a").await;
    let (edge, plain) =
        (checkstack.satellite("ed\u{202e}ge").await, checkstack.satellite("plain").await);
    let tagged = format!(
        r#"update plugin_satellite.satellites set tags = '{{"rack": "\u200b7"}}' where id = '{plain}'"#
    );
    checkstack.run(&tagged).await;
    for counts in ["2 created, 0 updated, 0 unchanged", "0 created, 0 updated, 2 unchanged"] {
        let output = checkstack.import(&fleet, &[]).await;
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).expect("text");
        let summary = format!("plugin_satellite: {counts}, 0 skipped, 0 refused");
        assert_eq!(last_line(&printed), summary, "{printed}");
        assert!(!printed.contains('\u{202e}'), "{printed:?}");
        let said = String::from_utf8(output.stderr).expect("text");
        let told = format!("{edge} \"ed\\u{{202e}}ge\": name must not contain");
        assert!(said.contains(&told), "{said}");
        let told = format!("{plain} \"plain\": tags.rack must not contain");
        assert!(said.contains(&told), "{said}");
    }
    assert_eq!(pod.show(edge).await["name"], "ed\u{202e}ge");
    assert_eq!(pod.show(plain).await["tags"], json!({"rack": "\u{200b}7"}));
}

#[tokio::test]
async fn the_table_of_an_older_checkstack_is_found_wherever_it_is() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::new().await);
    let nothing = checkstack.import(&fleet, &[]).await;
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(said.contains("no table `satellites` that looks like Checkstack's"), "{said}");

    checkstack.table("elsewhere", FIRST_COLUMNS).await;
    let insert = format!(
        "insert into elsewhere.satellites (name, region, token_hash) values ('a', 'eu', '{HASH}')"
    );
    checkstack.run(&insert).await;
    let output = checkstack.imported(&fleet).await;
    assert!(last_line(&output).starts_with("elsewhere: 1 created"), "{output}");

    checkstack.table("\"odd \"\" name\"", FIRST_COLUMNS).await;
    let both = checkstack.import(&fleet, &[]).await;
    let said = String::from_utf8_lossy(&both.stderr).into_owned();
    assert!(said.contains("choose by --schema"), "{said}");
    let odd = checkstack.import(&fleet, &["--schema", "odd \" name"]).await;
    assert!(odd.status.success(), "{odd:?}");
}

#[tokio::test]
async fn an_imported_satellite_connects_with_the_credentials_it_has() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    let pod = fleet.pod("a").await;
    let id = checkstack.satellite("edge").await;
    let token = "csat_made_by_checkstack";
    let hash = bcrypt::hash(token, 6).expect("a hash");
    checkstack
        .run(&format!(
            "update plugin_satellite.satellites set token_hash = '{hash}' where id = '{id}'"
        ))
        .await;
    checkstack.imported(&fleet).await;
    let credentials = Credentials { id, token: token.to_owned() };
    let satellite = Satellite::connect(pod.address, &credentials).await;
    fleet.expect_history(id, &["1 connected connect"]).await;
    assert!(token_hash(&fleet, id).await.starts_with("sha256:"), "stored in the fast form");
    satellite.close().await;
    // From now on it connects with this system's token: another import leaves it alone.
    checkstack.imported(&fleet).await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    fleet.check().await;
}

/// An assignment as [`Checkstack::check`] makes it.
fn assignment(config: Uuid, name: &str, system: &str, system_name: &str) -> Value {
    json!({"configId": config, "configName": name, "systemId": system, "systemName": system_name,
           "strategyId": "healthcheck-http.http", "config": {"url": format!("https://{name}")},
           "intervalSeconds": 60, "collectors": [{"id": "k1", "collectorId": "script",
           "assertions": [], "config": {"secretEnv": {"TOKEN": "${{ secrets.A }}"}}}]})
}

async fn assigned(pod: &Pod, id: Uuid) -> Value {
    pod.get(&format!("/v1/satellites/{id}/assignments")).await.json()["assignments"].clone()
}

#[tokio::test]
async fn what_a_satellite_is_to_check_comes_with_it() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    checkstack.run(CHECKS).await;
    let pod = fleet.pod("a").await;
    let (edge, other, idle) = (
        checkstack.satellite("edge").await,
        checkstack.satellite("other").await,
        checkstack.satellite("idle").await,
    );
    checkstack.run("insert into plugin_catalog.systems (id, name) values ('s1', 'Web')").await;
    let web = checkstack.check("web", &["s1", "s2"], &[edge, other]).await;
    let off = checkstack.check("off", &["s1"], &[edge]).await;
    let paused = checkstack.check("paused", &["s1"], &[edge]).await;
    checkstack.check("local", &["s1"], &[]).await;
    checkstack
        .run(&format!(
            "update plugin_healthcheck.system_health_checks set enabled = false
              where configuration_id = '{off}';
             update plugin_healthcheck.health_check_configurations set paused = true
              where id = '{paused}';
             update plugin_healthcheck.system_health_checks set satellite_ids = null
              where satellite_ids = '[]'"
        ))
        .await;
    let output = checkstack.imported(&fleet).await;
    assert!(output.contains(&format!("created {edge} edge, assignments there: 2")), "{output}");
    let both = json!([assignment(web, "web", "s1", "Web"), assignment(web, "web", "s2", "s2")]);
    assert_eq!(assigned(&pod, edge).await, both);
    assert_eq!(assigned(&pod, other).await, both);
    assert_eq!(assigned(&pod, idle).await, json!([]));
    assert!(checkstack.imported(&fleet).await.contains("0 updated, 3 unchanged"));

    // It follows changes in Checkstack, and a satellite that was assigned something here keeps that.
    let ours = json!([{"configId": "c", "systemId": "s", "strategyId": "http", "config": {},
                       "intervalSeconds": 60}]);
    pod.assign(other, &ours).await;
    checkstack
        .run(
            "update plugin_healthcheck.system_health_checks set enabled = false
              where system_id = 's2'",
        )
        .await;
    let output = checkstack.imported(&fleet).await;
    assert!(output.contains("1 updated, 2 unchanged"), "{output}");
    assert_eq!(assigned(&pod, edge).await, json!([assignment(web, "web", "s1", "Web")]));
    assert_eq!(assigned(&pod, other).await, ours);
    let history = "select count(*) from registry_changes where satellite_id = $1
                      and action = 'assigned' and actor_id = 'import checkstack'";
    let sql = fleet.sql().await;
    for (id, count) in [(edge, 2_i64), (other, 1), (idle, 0)] {
        let found: i64 = sql.query_one(history, &[&id]).await.expect("the history").get(0);
        assert_eq!(found, count);
    }
    fleet.check().await;
}

#[tokio::test]
async fn assignments_that_break_a_limit_are_named_and_the_other_satellites_come_all_the_same() {
    let (fleet, checkstack) = (Fleet::new(CALM).await, Checkstack::with_plugin().await);
    checkstack.run(CHECKS).await;
    let (good, bad) = (checkstack.satellite("good").await, checkstack.satellite("bad").await);
    checkstack.check("web", &["s1"], &[good]).await;
    let never = checkstack.check("never", &["s1"], &[bad]).await;
    checkstack
        .run(&format!(
            "update plugin_healthcheck.health_check_configurations set interval_seconds = 0
              where id = '{never}'"
        ))
        .await;
    let output = checkstack.import(&fleet, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(printed.contains(&format!("created {good} good")), "{printed}");
    let why = "\"bad\": assignments[0].intervalSeconds must be a whole number of seconds";
    assert!(printed.contains(why), "{printed}");
}
