//! A run gets the secrets that its collector declares, all of them or none, and they appear nowhere else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::StreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::log_and_stream::read_stream;
use crate::harness::subscriber::body;
use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Proxy, Satellite, eventually};

/// A folder as Kubernetes mounts a secret: links to links. Removed when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn with(secrets: &[(&str, &str)]) -> Mounted {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{}", Uuid::new_v4()));
        let version = folder.join("secrets/..2026_03_01");
        fs::create_dir_all(&version).expect("a folder");
        symlink("..2026_03_01", folder.join("secrets/..data")).expect("a link");
        for (name, value) in secrets {
            fs::write(version.join(name), value).expect("a file");
            let link = folder.join("secrets").join(name);
            symlink(Path::new("..data").join(name), link).expect("a link");
        }
        fs::write(folder.join("outside"), "outside").expect("a file");
        symlink("../outside", folder.join("secrets/OUTSIDE")).expect("a link");
        Mounted(folder)
    }

    fn path(&self) -> String {
        self.0.join("secrets").display().to_string()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the folder can be removed");
    }
}

/// One assignment with a collector for each of these environments.
fn assignments(environments: &[(&str, Value)]) -> Value {
    let mut collectors: Vec<Value> = environments
        .iter()
        .map(|(id, declared)| {
            json!({"id": id, "collectorId": "script", "config": {"secretEnv": declared}})
        })
        .collect();
    collectors.push(json!({"id": "bare", "collectorId": "ping", "config": {}}));
    json!([{"configId": "c", "systemId": "s", "strategyId": "script", "config": {},
            "intervalSeconds": 60, "collectors": collectors}])
}

fn request(config: &str, collector: &str) -> Value {
    json!({"type": "request_run_secrets", "requestId": format!("{config}/{collector}"),
           "configId": config, "collectorId": collector, "runId": "run"})
}

/// The satellite's answer without the fields that every answer has.
async fn asks(satellite: &mut Satellite, config: &str, collector: &str) -> Value {
    satellite.send(&request(config, collector));
    let mut answer = satellite.expect("run_secrets").await;
    assert_eq!(answer["requestId"], format!("{config}/{collector}"));
    let fields = answer.as_object_mut().expect("an object");
    fields.remove("requestId");
    fields.remove("type");
    answer
}

async fn assigned(pod: &Pod, list: &Value) -> (Credentials, Satellite) {
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, list).await;
    let (satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    (credentials, satellite)
}

#[tokio::test]
async fn a_run_gets_what_its_collector_declares_from_a_folder_or_a_clear_error() {
    let mounted = Mounted::with(&[("API_KEY", "key-1\n"), ("db-password", "pass-2")]);
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_SECRETS_DIR", &mounted.path()).start().await;
    let list = assignments(&[
        (
            "both",
            json!({"AUTH": "Bearer ${{ secrets.API_KEY }}", "DB": "${{secrets.db-password}}"}),
        ),
        ("half", json!({"A": "${{ secrets.API_KEY }}", "B": "${{ secrets.MISSING }}"})),
        ("path", json!({"A": "${{ secrets.../outside }}"})),
        ("link", json!({"A": "${{ secrets.OUTSIDE }}"})),
        ("data", json!({"A": "${{ secrets...data/API_KEY }}"})),
        ("odd", json!({"A": "${{ env.HOME }}"})),
    ]);
    let (_, mut satellite) = assigned(&pod, &list).await;
    let error = |words: &str| json!({"error": words});
    let answer = asks(&mut satellite, "c", "both").await;
    assert_eq!(answer, json!({"env": {"AUTH": "Bearer key-1", "DB": "pass-2"}}));
    for (config, collector, expected) in [
        ("x", "both", error("No such assignment: x")),
        ("c", "x", error("No such collector in assignment c: x")),
        ("c", "bare", error("Collector bare declares no secretEnv")),
        ("c", "half", error("Secret not found: MISSING")),
        ("c", "path", error("Secret not found: ../outside")),
        ("c", "data", error("Secret not found: ..data/API_KEY")),
        ("c", "link", error("Secret cannot be read: OUTSIDE")),
        ("c", "odd", error("secretEnv.A must be a text with ${{ secrets.NAME }} in it")),
    ] {
        assert_eq!(asks(&mut satellite, config, collector).await, expected, "{collector}");
    }
    fleet.check().await;
}

#[tokio::test]
async fn secrets_that_cannot_be_read_are_told_of_a_few_times_and_why() {
    let mounted = Mounted::with(&[]);
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_SECRETS_DIR", &mounted.path()).start().await;
    let list = assignments(&[("link", json!({"A": "${{ secrets.OUTSIDE }}"}))]);
    let (credentials, mut satellite) = assigned(&pod, &list).await;
    let unreadable = json!({"error": "Secret cannot be read: OUTSIDE"});
    for _ in 0..200 {
        assert_eq!(asks(&mut satellite, "c", "link").await, unreadable);
    }
    let line = pod.expect_log("no secrets for a run").await;
    assert_eq!(line["satellite"], json!(credentials.id));
    assert_eq!(line["error"], unreadable["error"]);
    assert_eq!(line["why"], "its link leads out of the folder");
    let told = pod.told("no secrets for a run");
    // A burst of fifty, and one each second.
    assert!((50..100).contains(&told), "{told} lines");
    fleet.check().await;
}

#[tokio::test]
async fn of_a_config_on_several_systems_the_first_with_the_collector_is_meant() {
    let mounted = Mounted::with(&[("A", "a"), ("B", "b")]);
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_SECRETS_DIR", &mounted.path()).start().await;
    let first = assignments(&[("k1", json!({"X": "${{ secrets.A }}"}))])[0].clone();
    let environments =
        [("k1", json!({"X": "${{ secrets.B }}"})), ("k2", json!({"X": "${{ secrets.B }}"}))];
    let mut second = assignments(&environments)[0].clone();
    second["systemId"] = json!("another");
    let (_, mut satellite) = assigned(&pod, &json!([first, second])).await;
    assert_eq!(asks(&mut satellite, "c", "k1").await, json!({"env": {"X": "a"}}));
    assert_eq!(asks(&mut satellite, "c", "k2").await, json!({"env": {"X": "b"}}));
    let nobody = json!({"error": "No such collector in assignment c: k3"});
    assert_eq!(asks(&mut satellite, "c", "k3").await, nobody);
    fleet.check().await;
}

#[tokio::test]
async fn only_what_is_stored_for_this_satellite_counts_at_the_moment_it_asks() {
    let mounted = Mounted::with(&[("A", "a")]);
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_SECRETS_DIR", &mounted.path()).start().await;
    let other = fleet.pod("b").await;
    let list = assignments(&[("k", json!({"A": "${{ secrets.A }}"}))]);
    let (credentials, mut satellite) = assigned(&pod, &list).await;
    let neighbour = pod.register("neighbour", "eu").await;
    let mut neighbouring = Satellite::connect(pod.address, &neighbour).await;
    assert_eq!(asks(&mut satellite, "c", "k").await, json!({"env": {"A": "a"}}));
    let nothing = json!({"error": "No such assignment: c"});
    assert_eq!(asks(&mut neighbouring, "c", "k").await, nothing);
    // Sent to another pod: this one need not have heard of it.
    other.assign(credentials.id, &json!([])).await;
    satellite.send(&request("c", "k"));
    loop {
        let Heard::Message(heard) = satellite.hear().await else { panic!("closed") };
        if heard["type"] == "run_secrets" {
            assert_eq!(heard["error"], nothing["error"]);
            break;
        }
    }
    fleet.check().await;
}

#[tokio::test]
async fn a_session_that_was_taken_over_gets_none_even_before_its_pod_knows() {
    let mounted = Mounted::with(&[("A", "a")]);
    let fleet = Fleet::new(CALM).await;
    // It hears nothing from the other pod, and the satellite sends no heartbeat that would show it.
    let (nats, nats_url) = Proxy::before(&fleet.nats_url).await;
    let deaf = fleet.plan("deaf").with("NATS_URL", &nats_url);
    let deaf = deaf.with("GROUNDSTATION_SECRETS_DIR", &mounted.path()).start().await;
    let other = fleet.pod("b").await;
    let list = assignments(&[("k", json!({"A": "${{ secrets.A }}"}))]);
    let (credentials, mut older) = assigned(&deaf, &list).await;
    assert_eq!(asks(&mut older, "c", "k").await, json!({"env": {"A": "a"}}));
    nats.stall();
    let (_newer, _) = Satellite::welcomed(other.address, &credentials).await;
    let nothing = json!({"error": "No such assignment: c"});
    assert_eq!(asks(&mut older, "c", "k").await, nothing);
    nats.resume();
    fleet.check().await;
}

#[tokio::test]
async fn secrets_can_be_kept_by_a_responder_on_nats() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let list = assignments(&[
        ("one", json!({"A": "${{ secrets.ONE }}"})),
        ("two", json!({"A": "${{ secrets.ONE }}", "B": "${{ secrets.TWO }}"})),
    ]);
    let (_, mut satellite) = assigned(&pod, &list).await;
    let nobody = json!({"error": "No secrets provider is configured"});
    assert_eq!(asks(&mut satellite, "c", "one").await, nobody);

    let mut asked = nats.subscribe("secrets.resolve").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let questions = Arc::new(Mutex::new(Vec::new()));
    let noted = questions.clone();
    let answering = nats.clone();
    tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            noted.lock().expect("questions").push(body(&question));
            let answer = json!({"secrets": {"ONE": "1", "TWO": null, "OTHER": "3"}});
            let reply = question.reply.expect("a request");
            answering.publish(reply, answer.to_string().into()).await.expect("published");
        }
    });
    // The server may hear of the responder a moment after this process has announced it.
    eventually("the responder to be asked", async || {
        let answer = asks(&mut satellite, "c", "one").await;
        if answer == nobody {
            return Err(answer.to_string());
        }
        assert_eq!(answer, json!({"env": {"A": "1"}}));
        Ok(())
    })
    .await;
    let missing = json!({"error": "Secret not found: TWO"});
    assert_eq!(asks(&mut satellite, "c", "two").await, missing);
    let expected = [json!({"names": ["ONE"]}), json!({"names": ["ONE", "TWO"]})];
    assert_eq!(*questions.lock().expect("questions"), expected);
    fleet.check().await;
}

/// Every form in which a value might leak.
fn forms(value: &str) -> Vec<String> {
    let hexadecimal: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let bytes = format!("{:?}", value.as_bytes());
    vec![
        value.to_owned(),
        hexadecimal.to_uppercase(),
        hexadecimal,
        STANDARD.encode(value),
        URL_SAFE_NO_PAD.encode(value),
        bytes.trim_matches(['[', ']']).to_owned(),
    ]
}

/// Every row of every table, as text.
async fn whole_database(fleet: &Fleet) -> String {
    let sql = fleet.sql().await;
    const TABLES: &str = "
        select quote_ident(relname) from pg_class
         where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')";
    let mut all = String::new();
    for table in sql.query(TABLES, &[]).await.expect("the tables") {
        let table: &str = table.get(0);
        let rows = sql.query(&format!("select t::text from {table} t"), &[]).await;
        for row in rows.expect(table) {
            all.push_str(row.get(0));
            all.push('\n');
        }
    }
    all
}

#[tokio::test]
async fn a_value_is_in_no_log_metric_error_database_or_message_at_any_level() {
    // Long enough that no other text contains it by chance.
    let values = [format!("file-{}", Uuid::new_v4()), format!("nats-{}", Uuid::new_v4())];
    let mounted = Mounted::with(&[("FILE", &values[0]), ("BAD", "x")]);
    fs::write(mounted.0.join("secrets/LARGE"), values[0].repeat(2_000)).expect("a file");
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let mut everything = nats.subscribe(">").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let mut asked = nats.subscribe("secrets.resolve").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let (value, answering) = (values[1].clone(), nats.clone());
    let keeper = tokio::spawn(async move {
        let mut replies = Vec::new();
        while let Some(question) = asked.next().await {
            let names = body(&question)["names"].to_string();
            let answer = match names.contains("BROKEN") {
                // Looks like an answer at its beginning.
                true => format!("{{\"secrets\": {{\"BROKEN\": \"{value}\", \"x\": 7}}}}"),
                false => json!({"secrets": {"NATS": value, "error": value}}).to_string(),
            };
            let reply = question.reply.expect("a request");
            replies.push(reply.to_string());
            answering.publish(reply, answer.into()).await.expect("published");
            if replies.len() == 3 {
                break;
            }
        }
        replies
    });

    let list = assignments(&[
        ("file", json!({"A": "${{ secrets.FILE }}"})),
        ("file_and_missing", json!({"A": "${{ secrets.FILE }}", "B": "${{ secrets.NO }}"})),
        ("large", json!({"A": "${{ secrets.LARGE }}"})),
        ("nats", json!({"A": "x${{ secrets.NATS }}"})),
        ("nats_and_missing", json!({"A": "${{ secrets.NATS }}", "B": "${{ secrets.NO }}"})),
        ("broken", json!({"A": "${{ secrets.BROKEN }}"})),
    ]);
    let mut heard = Vec::new();
    let with_folder = fleet.plan("a").with("RUST_LOG", "trace");
    let a = with_folder.with("GROUNDSTATION_SECRETS_DIR", &mounted.path()).start().await;
    let b = fleet.plan("b").with("RUST_LOG", "trace").start().await;
    b.expect_nats().await;
    let (credentials, mut satellite) = assigned(&a, &list).await;
    assert_eq!(asks(&mut satellite, "c", "file").await, json!({"env": {"A": values[0]}}));
    for collector in ["file_and_missing", "large"] {
        heard.push(asks(&mut satellite, "c", collector).await.to_string());
    }
    satellite.close().await;
    let (mut satellite, _) = Satellite::welcomed(b.address, &credentials).await;
    let filled = format!("x{}", values[1]);
    assert_eq!(asks(&mut satellite, "c", "nats").await, json!({"env": {"A": filled}}));
    for collector in ["nats_and_missing", "broken"] {
        heard.push(asks(&mut satellite, "c", collector).await.to_string());
    }
    assert!(heard.iter().all(|answer| answer.contains("error")), "{heard:?}");
    satellite.close().await;
    fleet.check().await;

    let replies = keeper.await.expect("the keeper");
    // The pods log all the time: read up to here.
    nats.publish("test.over", "".into()).await.expect("published");
    nats.flush().await.expect("NATS answers");
    while let Some(message) = everything.next().await {
        if message.subject.as_str() == "test.over" {
            break;
        }
        if !replies.contains(&message.subject.to_string()) {
            heard.push(format!(
                "{} {:?} {}",
                message.subject,
                message.headers,
                String::from_utf8_lossy(&message.payload)
            ));
        }
    }
    heard.push(format!("{:?}", read_stream(&nats).await));
    heard.push(whole_database(&fleet).await);
    for pod in [&a, &b] {
        for path in ["/metrics", "/readyz", "/v1/satellites", "/v1/transitions"] {
            heard.push(pod.get(path).await.text);
        }
        heard.push(pod.get(&format!("/v1/satellites/{}/assignments", credentials.id)).await.text);
        let log = pod.log();
        assert!(log.contains("TRACE"), "the finest log was wanted");
        heard.push(log);
    }
    for text in heard {
        for form in values.iter().flat_map(|value| forms(value)) {
            if let Some(at) = text.find(&form) {
                let from = text.floor_char_boundary(at.saturating_sub(300));
                let to = text.floor_char_boundary((at + 300).min(text.len()));
                panic!("a secret slipped out: {}", &text[from..to]);
            }
        }
    }
}
