//! A token is shown once, and its digest never.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::log_and_stream::read_stream;
use crate::harness::{CALM, Credentials, Fleet, Satellite};

/// The finest log of all, and of each module that prints what passes through it.
const FINEST: &str = "trace,tungstenite::protocol=trace,tokio_tungstenite::compat=trace,\
    tokio_postgres::query=trace,tokio_postgres::prepare=trace,async_nats::connection=trace,\
    tungstenite::protocol::frame=trace,ureq::run=trace";

/// Every form in which a token or its digest might leak.
fn forms(token: &str) -> Vec<String> {
    let digest = Sha256::digest(token.as_bytes());
    let bits = token.split_once('_').expect("the prefix").1.to_owned();
    let hexadecimal: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let encoded = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    let encoded = encoded.map(|engine| engine.encode(digest));
    [bits, hexadecimal.to_uppercase(), hexadecimal].into_iter().chain(encoded).collect()
}

#[tokio::test]
async fn a_token_and_its_digest_are_in_no_answer_no_log_line_and_no_message() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("RUST_LOG", FINEST).start().await;
    let mut heard = Vec::new();
    let credentials = pod.register("edge", "eu").await;
    let Credentials { id, token } = &credentials;

    let mut satellite = Satellite::open(pod.address).await;
    satellite.authenticate(&credentials);
    heard.push(format!("{:?}", satellite.hear().await));
    satellite.authenticate(&credentials);
    satellite.send_frame(Message::text(format!("{{\"type\": \"{token}\"}}")));
    satellite.send_frame(Message::text(format!("{{{token}")));
    pod.expect_metric("groundstation_dropped_messages_total{reason=\"invalid_json\"}", 1.0).await;
    let mut refused = Satellite::open(pod.address).await;
    refused.send_frame(Message::text(format!("{{\"token\": \"{token}\"}}")));
    heard.push(format!("{:?}", refused.hear().await));

    for path in [
        "/v1/satellites",
        &format!("/v1/satellites/{id}"),
        &format!("/v1/satellites/{id}/transitions"),
        "/v1/transitions",
        &format!("/v1/satellites/{token}"),
        "/metrics",
        "/readyz",
    ] {
        let answer = pod.get(path).await;
        // An answer may repeat what was sent with the request.
        let text = if path.contains(token) { String::new() } else { answer.text };
        heard.push(format!("{:?} {text}", answer.headers));
    }
    satellite.close().await;
    assert_eq!(pod.remove(*id).await.status, 204);
    fleet.check().await;
    heard.push(format!("{:?}", read_stream(&fleet.nats().await).await));
    let rows = fleet.sql().await.query("select t::text from entity_transitions t", &[]).await;
    heard.extend(rows.expect("the log").iter().map(|row| row.get(0)));
    let log = pod.log();
    assert!(log.contains("TRACE"), "the finest log was wanted");
    heard.push(log);

    for text in heard {
        for form in forms(token) {
            if let Some(at) = text.find(&form) {
                let from = text.floor_char_boundary(at.saturating_sub(300));
                let to = text.floor_char_boundary(at + 300);
                panic!("a secret slipped out: {}", &text[from..to]);
            }
        }
    }
}

/// A named token and its digest; the digest is nowhere but in its row.
#[tokio::test]
async fn a_named_token_and_its_digest_are_in_no_answer_but_the_first_no_log_line_and_no_history() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("RUST_LOG", FINEST).with("GROUNDSTATION_ACCESS_LOG", "on");
    let pod = plan.start().await;
    let described = serde_json::json!({"name": "deploy", "role": "admin"});
    let token = pod.make_token(&described).await;
    let mut heard = Vec::new();
    for path in
        ["/v1/tokens", "/v1/fleet", "/v1/satellites", "/v1/transitions", "/metrics", "/readyz"]
    {
        let answer = pod.call("GET", path, Some(&token.secret), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        heard.push(format!("{:?} {}", answer.headers, answer.text));
    }
    let again =
        pod.call("POST", "/v1/tokens", Some(&token.secret), Some(described.to_string())).await;
    assert_eq!(again.status, 409, "{again:?}");
    heard.push(format!("{again:?}"));
    let edge = serde_json::json!({"name": "edge", "region": "eu"}).to_string();
    let made = pod.call("POST", "/v1/satellites", Some(&token.secret), Some(edge)).await;
    assert_eq!(made.status, 201);
    heard.push(format!("{made:?}"));
    let sql = fleet.sql().await;
    let stored: String =
        sql.query_one("select token_digest from tokens", &[]).await.expect("the token").get(0);
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(token.secret.as_bytes()));
    assert_eq!(stored, format!("sha256:{digest}"));
    pod.revoke(&token).await;
    let refused = pod.call("GET", "/v1/fleet", Some(&token.secret), None).await;
    assert_eq!(refused.status, 401);
    heard.push(format!("{refused:?}"));
    for table in ["tokens", "token_changes", "registry_changes", "entity_transitions"] {
        let rows = sql.query(&format!("select t::text from {table} t"), &[]).await;
        heard.extend(rows.expect("a table").iter().map(|row| row.get(0)));
    }
    let log = pod.log();
    assert!(log.contains("TRACE"), "the finest log was wanted");
    heard.push(log);
    let bits = token.secret.strip_prefix("gst_").expect("the prefix").to_owned();
    for text in heard {
        for form in forms(&token.secret).iter().chain([&bits]) {
            assert!(!text.contains(form.as_str()), "a secret slipped out: {form} in {text:.2000}");
        }
    }
}

/// An enrolment's token, its key, and the token of the satellite, which is in the answers to that key alone.
#[tokio::test]
async fn what_an_enrolment_is_made_with_and_what_it_gives_is_in_no_log_line_and_no_table() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("RUST_LOG", "trace").with("GROUNDSTATION_ACCESS_LOG", "on");
    let pod = plan.start().await;
    let described = serde_json::json!({"name": "enrol", "role": "enrol", "uses": 2});
    let token = pod.make_token(&described).await;
    let key = format!("key_{}", URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4()));
    let edge = serde_json::json!({"name": "edge", "region": "eu"});
    let made = pod.enrol(&token.secret, Some(&key), &edge).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let secret = made["token"].as_str().expect("a token").to_owned();
    let id = made["satellite"]["id"].as_str().expect("an id").parse().expect("a UUID");
    assert_eq!(pod.enrol(&token.secret, Some(&key), &edge).await.json()["token"], secret);
    let credentials = Credentials { id, token: secret.clone() };
    Satellite::connect(pod.address, &credentials).await.close().await;
    let mut heard = Vec::new();
    // From now on no answer has it, whatever is asked.
    for (key, body) in [
        (key.as_str(), edge.clone()),
        (key.as_str(), serde_json::json!({"name": "other", "region": "eu"})),
        ("order 1", edge.clone()),
    ] {
        let refused = pod.enrol(&token.secret, Some(key), &body).await;
        assert!([409, 422].contains(&refused.status), "{refused:?}");
        heard.push(format!("{refused:?}"));
    }
    for path in ["/v1/tokens", "/v1/satellites", "/v1/transitions", "/metrics", "/readyz"] {
        heard.push(format!("{:?}", pod.get(path).await));
    }
    let sql = fleet.sql().await;
    for table in ["enrolments", "token_changes", "registry_changes", "entity_transitions"] {
        let rows = sql.query(&format!("select t::text from {table} t"), &[]).await;
        heard.extend(rows.expect("a table").iter().map(|row| row.get(0)));
    }
    let log = pod.log();
    assert!(log.contains("TRACE"), "the finest log was wanted");
    heard.push(log);
    for text in heard {
        let secrets = [&token.secret, &secret, &key];
        for form in secrets.iter().flat_map(|secret| forms(secret)) {
            assert!(!text.contains(&form), "a secret slipped out: {form} in {text:.2000}");
        }
    }
}

#[tokio::test]
async fn what_is_stored_of_a_token_is_its_digest() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let Credentials { id, token } = pod.register("edge", "eu").await;
    const STORED: &str = "select s::text, token_hash from satellites s where id = $1";
    let sql = fleet.sql().await;
    let row = sql.query_one(STORED, &[&id]).await.expect("the satellite");
    let (whole, stored): (String, String) = (row.get(0), row.get(1));
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()));
    assert_eq!(stored, format!("sha256:{digest}"));
    assert!(!whole.contains(token.strip_prefix("csat_").expect("the prefix")));
}
