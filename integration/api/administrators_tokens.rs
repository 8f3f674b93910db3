//! An administrator's token cannot be guessed: wrong tokens are counted, logged and slowed down.

use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::harness::asked::ask;
use crate::harness::reader::Reader;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Credentials, Fleet, Satellite, eventually, program, stores};

#[tokio::test]
async fn a_token_of_fewer_than_128_bits_is_refused_at_the_start_with_how_to_make_one() {
    let fleet = Fleet::new(CALM).await;
    for name in ["GROUNDSTATION_ADMIN_TOKEN", "GROUNDSTATION_READ_TOKEN"] {
        let plan = fleet.plan("a").with(name, "correct-horse-battery");
        let environment = plan.environment();
        let output = blocking(move || program::run(&["serve"], &environment)).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        for word in [name, "at least 128", "openssl rand -hex 32"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!said.contains("correct-horse-battery"), "{said}");
    }
}

#[tokio::test]
async fn wrong_tokens_are_counted_told_with_their_address_and_slowed_down() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.0/8");
    let pod = plan.start().await;
    let guess = async |from: &'static str, token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("x-forwarded-for", from), ("authorization", bearer.as_str())];
        let mut request = ureq::http::Request::builder()
            .uri(format!("http://{}/v1/triggers?guess=secret", pod.address));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("a request");
        let begun = Instant::now();
        let status = blocking(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false).build();
            ureq::Agent::new_with_config(config).run(request).expect("an answer").status().as_u16()
        })
        .await;
        (status, begun.elapsed())
    };
    let mut slow = 0;
    for n in 0..14 {
        let (status, took) = guess("198.51.100.1", &format!("wrong-{n}")).await;
        assert_eq!(status, 401);
        slow += u32::from(took >= Duration::from_secs(1));
    }
    assert!(slow >= 2, "{slow} of fourteen were slowed down");
    pod.expect_metric("groundstation_wrong_tokens_total", 14.0).await;
    let line = pod.expect_log("a token came that is not valid here").await;
    assert_eq!((&line["address"], &line["path"]), (&"198.51.100.1".into(), &"/v1/triggers".into()));
    assert!(!pod.log().contains("wrong-") && !pod.log().contains("guess=secret"));
    // They do not hold up a client with the right token.
    assert_eq!(guess("198.51.100.1", &fleet.admin_token).await.0, 400);
    for _ in 0..200 {
        pod.call("GET", "/v1/triggers", Some("wrong"), None).await;
        if pod.log().matches("a token came that is not valid here").count() > 18 {
            break;
        }
        if pod.metric("groundstation_wrong_tokens_total").await > 40.0 {
            break;
        }
    }
    assert!(pod.log().matches("a token came that is not valid here").count() <= 30);
}

/// Writes a file of tokens, as an editor or a mounted secret does: whole or not at all.
fn put(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(folder.join("next"), text).expect("a file");
    std::fs::rename(folder.join("next"), &path).expect("a file");
    path.display().to_string()
}

#[tokio::test]
async fn tokens_in_files_are_others_without_a_restart_and_what_is_no_token_changes_nothing() {
    let fleet = Fleet::new(CALM).await;
    let name = format!("tokens-{}", stores::random());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir(&folder).expect("a folder");
    let (old, new) = (fleet.admin_token.clone(), stores::random());
    let (reader, other_reader) = (fleet.read_token.clone(), stores::random());
    let plan =
        fleet.plan("a").without("GROUNDSTATION_ADMIN_TOKEN").without("GROUNDSTATION_READ_TOKEN");
    let plan = plan
        .with("GROUNDSTATION_ADMIN_TOKEN_FILE", &put(&folder, "admin", &format!("{old}\n")))
        .with("GROUNDSTATION_READ_TOKEN_FILE", &put(&folder, "read", &reader));
    let pod = plan.start().await;
    let status = async |token: &str| pod.status_with(token, "/v1/triggers").await;
    let until = async |token: &str, expected: u16| {
        eventually(&format!("the answer {expected}"), async || {
            let status = status(token).await;
            if status == expected { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    };
    let sign_in = serde_json::json!({"token": old}).to_string();
    let json = ("Content-Type", "application/json");
    let cookie = ask(&pod, "POST", "/console/session", &[json], &sign_in).await.cookie();
    let session =
        async || ask(&pod, "GET", "/v1/triggers", &[("Cookie", &cookie)], "").await.status;
    let mut stream = Reader::open(pod.address, &old, "", None).await;
    stream.begun().await;
    let mut read = Reader::open(pod.address, &reader, "", None).await;
    read.begun().await;
    assert_eq!(session().await, 200);
    // Beside the old one first, as for a rotation.
    put(&folder, "admin", &format!("{new},{old}"));
    until(&new, 200).await;
    assert_eq!((status(&old).await, session().await), (200, 200));
    put(&folder, "admin", &new);
    until(&old, 401).await;
    assert_eq!((status(&new).await, session().await), (200, 401));
    assert_eq!(stream.next().await, None, "what it had open ends");
    assert_eq!(status(&reader).await, 200);
    eventually("the changes to be told", async || {
        let told = pod.told("other tokens are valid from now on");
        if told == 2 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;

    // Neither of these is a token; each is told once.
    let mut told = 0;
    for bad in ["", " ,\n", "too-short"] {
        put(&folder, "read", bad);
        told += 1;
        eventually("the bad file to be told", async || {
            let now = pod.told("the tokens before stay valid");
            if now == told { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
    std::fs::remove_file(folder.join("read")).expect("removed");
    eventually("the missing file to be told", async || {
        let now = pod.told("the tokens before stay valid");
        if now == told + 1 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pod.told("the tokens before stay valid"), told + 1);
    assert_eq!((status(&reader).await, status(&new).await), (200, 200));
    put(&folder, "read", &other_reader);
    until(&other_reader, 200).await;
    assert_eq!(status(&reader).await, 401);
    assert_eq!(read.next().await, None);
    assert_eq!(pod.told("other tokens are valid from now on"), 3);
    let log = pod.log();
    for secret in [&old, &new, &reader, &other_reader] {
        assert!(!log.contains(secret.as_str()), "a token slipped out");
    }
    assert!(!log.contains("too-short"));
    std::fs::remove_dir_all(&folder).expect("the folder");
}

#[tokio::test]
async fn a_refused_satellite_is_told_with_its_id_and_its_address_and_no_more_often_than_can_be_read()
 {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS_PER_ADDRESS", "1000");
    let pod = plan.start().await;
    let nobody = Credentials { id: Uuid::new_v4(), token: "csat_void".to_owned() };
    for _ in 0..60 {
        let mut satellite = Satellite::open(pod.address).await;
        satellite.authenticate(&nobody);
        satellite.expect("auth_failed").await;
    }
    let line = pod.expect_log("a satellite was refused").await;
    assert_eq!(line["satellite"], nobody.id.to_string());
    assert_eq!(line["address"], "127.0.0.1");
    assert_eq!(line["level"], "INFO");
    let told = pod.log().matches("a satellite was refused").count();
    assert!((1..40).contains(&told), "{told} lines");
    assert!(!pod.log().contains("csat_void"));
}
