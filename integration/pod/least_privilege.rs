//! A pod needs only the rights that `deploy/nats` and `deploy/postgres` give it: with exactly those all its functions
//! work, and everything else is refused.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::harness::backup::StreamBackup;
use crate::harness::hooks::Hooks;
use crate::harness::relaying::STREAM;
use crate::harness::running::Running;
use crate::harness::satellite::Satellite;
use crate::harness::stores::{Rights, random};
use crate::harness::wait::{PATIENCE, blocking, eventually};
use crate::harness::{CALM, Fleet, Pod, program};

fn deployed(file: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    std::fs::read_to_string(file).expect("a file of deploy/")
}

/// A fleet whose pods have only the deployed rights, with access as every user.
async fn restricted() -> (Fleet, Rights) {
    let password = random();
    // The server would read these from its environment.
    let variables = ["GROUNDSTATION", "AUTOMATION", "FORWARDER", "BACKEND", "OPERATOR"]
        .map(|user| format!("{user}_NATS_PASSWORD: {password}\n"))
        .concat();
    let nats = format!("{variables}{}", deployed("nats/groundstation.conf"));
    Fleet::with_rights(CALM, nats, deployed("postgres/roles.sql"), password).await
}

/// A NATS client as one of the users, and what the server refuses it.
async fn client(rights: &Rights, user: &str, inbox: &str) -> (Client, mpsc::Receiver<String>) {
    let (told, refused) = mpsc::channel(100);
    let options = ConnectOptions::with_user_and_password(user.to_owned(), rights.password.clone())
        .custom_inbox_prefix(inbox)
        .event_callback(move |event| {
            let told = told.clone();
            async move {
                if let async_nats::Event::ServerError(error) = event {
                    told.send(error.to_string()).await.ok();
                }
            }
        });
    (options.connect(&rights.nats_address).await.expect("a connection"), refused)
}

/// A responder on a subject, as the backend is.
async fn respond(backend: &Client, subject: &'static str, answer: serde_json::Value) {
    let mut questions = backend.subscribe(subject).await.expect("a subscription");
    backend.flush().await.expect("NATS answers");
    let backend = backend.clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let reply = question.reply.expect("somebody who waits");
            backend.publish(reply, answer.to_string().into()).await.expect("published");
        }
    });
}

const ASSIGNMENT: &str = r#"{"configId": "c", "systemId": "s", "strategyId": "http", "config": {},
    "intervalSeconds": 60, "collectors": [{"id": "k", "collectorId": "k",
    "config": {"secretEnv": {"TOKEN": "${{ secrets.NAME }}"}}}]}"#;

#[tokio::test]
async fn with_the_deployed_rights_pods_do_everything_they_are_for() {
    let (fleet, rights) = restricted().await;
    let (backend, _) = client(&rights, "backend", "_INBOX_backend").await;
    respond(&backend, "script-packages.manifest", json!({"entries": []})).await;
    respond(&backend, "script-packages.blob", json!({"data": "AA=="})).await;
    respond(&backend, "script-packages.lockfile-hash", json!({"lockfileHash": "h1"})).await;
    respond(&backend, "secrets.resolve", json!({"secrets": {"NAME": "v"}})).await;
    let mut strategies = backend.subscribe("satellite.strategy_error").await.expect("heard");
    backend.flush().await.expect("NATS answers");
    let (mut a, mut b) = (fleet.pod("a").await, fleet.pod("b").await);
    for pod in [&a, &b] {
        pod.expect_nats().await;
    }

    let credentials = a.register("edge", "eu").await;
    let list: serde_json::Value = serde_json::from_str(ASSIGNMENT).expect("JSON");
    a.assign(credentials.id, &json!([list])).await;
    let (mut satellite, welcome) = Satellite::welcomed(a.address, &credentials).await;
    assert_eq!(welcome["scriptPackagesLockfileHash"], "h1", "asked by request");
    satellite.send(&json!({"type": "request_script_package_manifest", "lockfileHash": "h1"}));
    satellite.expect("script_package_manifest").await;
    satellite.send(&json!({"type": "request_script_package_blob", "integrity": "i"}));
    assert_eq!(satellite.expect("script_package_blob").await["data"], "AA==");
    satellite.send(&json!({"type": "request_run_secrets", "requestId": "r", "configId": "c",
        "collectorId": "k", "runId": "1"}));
    assert_eq!(satellite.expect("run_secrets").await["env"]["TOKEN"], "v");
    satellite.send(&json!({"type": "strategy_error", "strategyId": "http", "message": "m"}));
    timeout(PATIENCE, strategies.next()).await.expect("in time").expect("passed on");
    backend
        .publish("script-packages.changed", r#"{"lockfileHash":"h2"}"#.into())
        .await
        .expect("sent");
    assert_eq!(satellite.expect("refresh_script_packages").await["lockfileHash"], "h2");
    satellite
        .send(&json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy",
        "executedAt": "2026-03-01T12:00:00Z"}));
    a.expect_metric("groundstation_results_total{outcome=\"delivered\"}", 1.0).await;

    // The other pod takes over: the first hears of it.
    let (newer, _) = Satellite::welcomed(b.address, &credentials).await;
    satellite.expect("shutdown").await;
    newer.close().await;
    // A third pod starts with an existing stream, and reads its tail.
    for pod in [&mut a, &mut b] {
        pod.terminate();
        assert!(pod.exit().await.success());
    }
    let c = fleet.pod("c").await;
    assert_eq!(c.remove(credentials.id).await.status, 204);
    c.expect_metric("groundstation_relay_published_messages_total", 1.0).await;
    fleet.check().await;
    for pod in [&a, &b, &c] {
        let log = pod.log();
        assert!(!log.contains("ermissions") && !log.contains("permission denied"), "{log}");
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_operator_backs_the_stream_up_and_restores_it_and_a_pod_can_do_neither() {
    let (fleet, rights) = restricted().await;
    let mut pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    pod.expect_metric("groundstation_relay_published_messages_total", 2.0).await;
    let (nats, mut refused) = client(&rights, "operator", "_INBOX_operator").await;
    let backup = StreamBackup::take(&nats).await;
    assert_eq!(backup.last_sequence(), 2);
    pod.terminate();
    assert!(pod.exit().await.success());
    jetstream::new(nats.clone()).delete_stream(STREAM).await.expect("the stream is lost");
    backup.restore(&nats).await;
    fleet.check().await;
    refused.try_recv().expect_err("nothing was forbidden");

    let (nats, mut refused) = client(&rights, "groundstation", "_INBOX").await;
    for subject in [
        format!("$JS.API.STREAM.SNAPSHOT.{STREAM}"),
        format!("$JS.API.STREAM.RESTORE.{STREAM}"),
        format!("$JS.API.STREAM.PURGE.{STREAM}"),
        format!("$JS.API.STREAM.DELETE.{STREAM}"),
    ] {
        nats.publish(subject.clone(), "{}".into()).await.expect("sent");
        let said = timeout(PATIENCE, refused.recv()).await.expect("in time").expect("a word");
        assert!(said.contains("ermissions") && said.contains(&subject), "{said}");
    }
}

#[tokio::test]
async fn the_automation_engine_reads_with_its_own_rights() {
    let (fleet, rights) = restricted().await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    pod.expect_metric("groundstation_relay_published_messages_total", 1.0).await;
    // The operator makes the consumer.
    let (operator, _) = client(&rights, "operator", "_INBOX_operator").await;
    let durable =
        pull::Config { durable_name: Some("automation".to_owned()), ..Default::default() };
    let made = jetstream::new(operator).create_consumer_on_stream(durable, STREAM).await;
    made.expect("a consumer");
    let (nats, mut refused) = client(&rights, "automation", "_INBOX_automation").await;
    let stream = jetstream::new(nats.clone()).get_stream(STREAM).await.expect("the stream");
    let consumer = stream.get_consumer::<pull::Config>("automation").await;
    let mut messages = consumer.expect("a consumer").messages().await.expect("messages");
    let message =
        timeout(PATIENCE, messages.next()).await.expect("in time").expect("one").expect("ok");
    assert_eq!(message.subject.as_str(), "satellite.connected");
    message.double_ack().await.expect("acknowledged");
    assert!(refused.try_recv().is_err());
    // The engine's user may publish nothing in the pods' name.
    nats.publish("satellite.connected", "forged".into()).await.expect("sent");
    expect_refusal(&mut refused, "satellite.connected").await;
    let answers = nats.subscribe("_INBOX.>").await.expect("sent");
    expect_refusal(&mut refused, "_INBOX.>").await;
    drop(answers);
    // A consumer that pushes would publish on the engine's behalf, on any subject.
    let push = json!({"stream_name": STREAM, "config": {"name": "automation", "ack_policy": "none",
        "deliver_policy": "all", "deliver_subject": "satellite.result"}});
    for subject in [
        format!("$JS.API.CONSUMER.CREATE.{STREAM}.automation"),
        format!("$JS.API.CONSUMER.CREATE.{STREAM}.automation.satellite.connected"),
        format!("$JS.API.CONSUMER.CREATE.{STREAM}"),
        format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.automation"),
    ] {
        nats.publish(subject.clone(), push.to_string().into()).await.expect("sent");
        expect_refusal(&mut refused, &subject).await;
    }
}

/// Secrets pass through the pods' inboxes.
#[tokio::test]
async fn nobody_hears_the_pods_inboxes() {
    let (_fleet, rights) = restricted().await;
    for user in ["automation", "forwarder", "backend", "operator"] {
        let (nats, mut refused) = client(&rights, user, &format!("_INBOX_{user}")).await;
        for subject in ["_INBOX.>", "_INBOX.*.*", ">", "*.>"] {
            let answers = nats.subscribe(subject).await.expect("sent");
            expect_refusal(&mut refused, subject).await;
            drop(answers);
        }
    }
}

#[tokio::test]
async fn the_forwarder_forwards_with_its_own_rights() {
    let (fleet, rights) = restricted().await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    // The operator makes the consumer.
    let (operator, _) = client(&rights, "operator", "_INBOX_operator").await;
    let durable = pull::Config {
        durable_name: Some("forward-webhooks".to_owned()),
        ack_wait: Duration::from_secs(15),
        max_ack_pending: 1_000,
        ..Default::default()
    };
    let operator = jetstream::new(operator);
    let made = eventually("the stream", async || {
        operator.create_consumer_on_stream(durable.clone(), STREAM).await.map_err(|e| e.to_string())
    });
    made.await;
    let hooks = Hooks::new().await;
    hooks.say_always(400);
    let to = format!("http://{}/", hooks.address);
    let url = |user: &str| {
        rights.nats_address.replacen("//", &format!("//{user}:{}@", rights.password), 1)
    };
    let settings = |user: &str| {
        [
            ("NATS_URL", url(user).as_str()),
            ("NATS_INBOX_PREFIX", &format!("_INBOX_{user}")),
            ("GROUNDSTATION_FORWARD_TO", &to),
            ("GROUNDSTATION_FORWARD_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("GROUNDSTATION_FORWARD_ALLOW_NETWORKS", "127.0.0.0/8"),
            ("GROUNDSTATION_FORWARD_GIVE_UP_AFTER", "1s"),
            ("GROUNDSTATION_FORWARD_FIRST_PAUSE", "10ms"),
            ("GROUNDSTATION_FORWARD_LONGEST_PAUSE", "50ms"),
            ("NO_COLOR", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let forwarder = Running::start(&["forward"], &settings("forwarder"), folder);
    forwarder.says("forwarding").await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    forwarder.says("it is a dead letter now").await;
    assert!(!forwarder.everything().contains("beginning anew"), "{}", forwarder.everything());
    let of_operator = settings("operator");
    let (is_ok, out, err) =
        program::ran(&["forward", "dead-letters", "list", "-o", "name"], &of_operator).await;
    assert!(is_ok && out.starts_with('1'), "{out}{err}");
    let (is_ok, _, err) =
        program::ran(&["forward", "dead-letters", "drop", "1"], &of_operator).await;
    assert!(is_ok, "{err}");
    // It may publish nothing in the pods' name, and make no consumer.
    let (nats, mut refused) = client(&rights, "forwarder", "_INBOX_forwarder").await;
    let create = format!("$JS.API.CONSUMER.CREATE.{STREAM}.forward-webhooks");
    for subject in ["satellite.connected", create.as_str()] {
        nats.publish(subject.to_owned(), "{}".into()).await.expect("sent");
        expect_refusal(&mut refused, subject).await;
    }
}

async fn expect_refusal(refused: &mut mpsc::Receiver<String>, subject: &str) {
    let said = timeout(PATIENCE, refused.recv()).await.expect("a refusal in time").expect("open");
    let said = said.to_lowercase();
    assert!(
        said.contains("permissions violation") && said.contains(&subject.to_lowercase()),
        "{said}"
    );
}

#[tokio::test]
async fn nats_refuses_a_pod_what_it_has_no_business_with() {
    let (fleet, rights) = restricted().await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    pod.expect_metric("groundstation_relay_published_messages_total", 1.0).await;
    let (nats, mut refused) = client(&rights, "groundstation", "_INBOX").await;
    // What the relay does at its start: it finds the stream and reads a message of its tail.
    let stream = jetstream::new(nats.clone()).get_stream("SATELLITE_TRANSITIONS").await;
    stream.expect("the stream").get_raw_message(1).await.expect("a message");
    for subject in [
        "$JS.API.STREAM.DELETE.SATELLITE_TRANSITIONS",
        "$JS.API.STREAM.PURGE.SATELLITE_TRANSITIONS",
        "$JS.API.STREAM.UPDATE.SATELLITE_TRANSITIONS",
        "$JS.API.STREAM.MSG.DELETE.SATELLITE_TRANSITIONS",
        "$JS.API.STREAM.CREATE.OTHER",
        "$JS.API.CONSUMER.DELETE.SATELLITE_TRANSITIONS.automation",
        "satellite.invented",
        "script-packages.changed",
        "orders.created",
    ] {
        nats.publish(subject, "{}".into()).await.expect("sent");
        expect_refusal(&mut refused, subject).await;
    }
    for subject in ["secrets.resolve", "satellite.>", "script-packages.blob", ">"] {
        let subscription = nats.subscribe(subject).await.expect("sent");
        expect_refusal(&mut refused, subject).await;
        drop(subscription);
    }
    // The pod answers any caller, although it may not publish there by itself.
    let (automation, _) = client(&rights, "automation", "_INBOX_automation").await;
    let asked = automation.request("groundstation.v1.satellites.list", "{}".into());
    let answer = timeout(PATIENCE, asked).await.expect("in time").expect("an answer");
    let page: serde_json::Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(page["satellites"][0]["name"], "edge", "{page}");
    fleet.check().await;
}

/// Secrets and packages come from it, and nothing that the automation engine believes.
#[tokio::test]
async fn nats_refuses_the_backend_whatever_is_said_in_the_pods_name() {
    let (_fleet, rights) = restricted().await;
    let (backend, mut refused) = client(&rights, "backend", "_INBOX_backend").await;
    for subject in [
        "satellite.connected",
        "satellite.removed",
        "satellite.result",
        "secrets.resolve",
        "groundstation.pods.changed",
        "groundstation.v1.satellites.list",
        "$JS.API.STREAM.PURGE.SATELLITE_TRANSITIONS",
        "$JS.API.CONSUMER.CREATE.SATELLITE_TRANSITIONS.mine",
        "_INBOX_automation.forged",
    ] {
        backend.publish(subject, "{}".into()).await.expect("sent");
        expect_refusal(&mut refused, subject).await;
    }
    for subject in ["satellite.connected", "satellite.result", "groundstation.>", ">"] {
        let subscription = backend.subscribe(subject).await.expect("sent");
        expect_refusal(&mut refused, subject).await;
        drop(subscription);
    }
}

/// A pod's answer goes where the question says, with the pod's rights: on the wrong subject it would be an order.
#[tokio::test]
async fn nobody_gives_orders_to_jetstream_by_asking_a_pod() {
    let (fleet, rights) = restricted().await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    pod.expect_metric("groundstation_relay_published_messages_total", 1.0).await;
    let (automation, _) = client(&rights, "automation", "_INBOX_automation").await;
    let orders = [
        format!("$JS.API.STREAM.PURGE.{STREAM}"),
        format!("$JS.API.STREAM.DELETE.{STREAM}"),
        "satellite.connected".to_owned(),
    ];
    for order in &orders {
        for question in ["groundstation.v1.satellites.get", "$SRV.PING", "$SRV.INFO"] {
            let asked = automation.publish_with_reply(question, order.clone(), "".into());
            asked.await.expect("sent");
        }
    }
    // Whatever came of these has come before.
    for _ in 0..3 {
        let asked = automation.request("groundstation.v1.satellites.list", "{}".into());
        timeout(PATIENCE, asked).await.expect("in time").expect("an answer");
    }
    let (operator, mut refused) = client(&rights, "operator", "_INBOX_operator").await;
    let stream = jetstream::new(operator.clone()).get_stream(STREAM).await.expect("the stream");
    let (info, state) = (stream.cached_info(), &stream.cached_info().state);
    assert_eq!((state.first_sequence, state.last_sequence), (1, 1), "{info:?}");
    // A person asks too.
    let asked = operator.request("groundstation.v1.satellites.list", "{}".into());
    timeout(PATIENCE, asked).await.expect("in time").expect("an answer");
    refused.try_recv().expect_err("nothing was forbidden");
    let log = pod.log();
    assert!(!log.contains("ermissions"), "the pod did not even try: {log}");
    fleet.check().await;
}

#[tokio::test]
async fn postgres_refuses_a_pods_role_what_it_has_no_business_with() {
    let (fleet, rights) = restricted().await;
    let pod: Pod = fleet.pod("a").await;
    pod.register("edge", "eu").await;
    let url = rights.pod_database_url.clone();
    let (sql, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("a connection as the pod");
    tokio::spawn(connection);
    // Without taking the role, the login may not even read.
    let denied = async |statement: &str| {
        let error = sql.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error}");
    };
    denied("select 1 from satellites").await;
    denied("set role groundstation_migrator").await;
    sql.batch_execute("set role groundstation_service").await.expect("its role");
    sql.batch_execute("select 1 from satellites").await.expect("its table");
    for statement in [
        "update entity_transitions set reason = 'shutdown'",
        "delete from entity_transitions",
        "truncate entity_transitions",
        "drop table satellites",
        "create table mine (x int)",
        "create temporary table mine (x int)",
        "create role mine",
        "alter role groundstation_service superuser",
        "select 1 from pg_authid",
        "copy satellites to program 'true'",
        "select pg_read_file('PG_VERSION')",
        "delete from registry_changes",
        "delete from refinery_schema_history",
        "update tokens set role = 'admin'",
        "update tokens set token_digest = token_digest",
        "update token_changes set actor_id = 'nobody'",
        "delete from token_changes",
        "update registry_changes set actor_id = 'nobody'",
    ] {
        denied(statement).await;
    }
    // The service's role cannot log in either.
    let own = blocking(move || {
        let url = url.replace("groundstation_pod", "groundstation_service");
        postgres::Client::connect(&url, postgres::NoTls).err().expect("refused")
    });
    let refused = own.await.to_string();
    assert!(!refused.is_empty());
    eventually("the pod to stay ready", async || {
        let answer = pod.get("/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
}
