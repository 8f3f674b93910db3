//! Each change by an administrator has an entry in the audit, which names who made it and never has a token.

use serde_json::json;

use crate::harness::{CALM, Fleet};

#[tokio::test]
async fn a_change_is_in_the_audit_with_its_author_and_without_any_token() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").start().await;
    let token = pod.make_token(&json!({"name": "deploy", "role": "admin"})).await;
    let body = json!({"name": "one", "region": "eu"}).to_string();
    let made = pod.call("POST", "/v1/satellites", Some(&token.secret), Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["satellite"]["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/satellites/{id}");
    assert_eq!(pod.call("DELETE", &path, Some(&token.secret), None).await.status, 204);

    let page = pod.get(&format!("/v1/audit?target={id}")).await.json();
    let entries = page["entries"].as_array().expect("entries");
    let actions: Vec<_> = entries.iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["satellite.created", "satellite.removed"]);
    for entry in entries {
        assert_eq!(entry["actor"], json!({"type": "token", "id": "deploy"}));
        assert_eq!(entry["address"], "127.0.0.1");
    }
    assert_eq!(entries[0]["after"]["name"], "one");
    assert_eq!(entries[1]["before"]["name"], "one");
    let all = pod.get("/v1/audit").await.json().to_string();
    assert!(
        !all.contains(&token.secret) && !all.contains("gst_") && !all.contains("csat_"),
        "{all}"
    );
    assert_eq!(pod.status_with(&fleet.read_token, "/v1/audit").await, 403);
}

#[tokio::test]
async fn an_action_that_is_none_is_refused_with_those_there_are() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for route in ["/v1/audit", "/v1/audit/stream"] {
        let refused = pod.get(&format!("{route}?action=satellite.renamed")).await;
        assert_eq!(refused.status, 422, "{route}: {refused:?}");
        for word in ["satellite.updated", "page.signed_in", "api.refused", "audit.left_out"] {
            assert!(refused.text.contains(word), "{route}: {refused:?}");
        }
    }
}
