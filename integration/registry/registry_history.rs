//! Every change by an administrator is kept with its author and the values before and after; tokens and digests are
//! not kept.

use serde_json::{Value, json};

use crate::harness::{CALM, Fleet};

#[tokio::test]
async fn each_change_of_a_satellite_is_in_the_registrys_history_with_its_actor() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let (id, path) = (credentials.id, format!("/v1/satellites/{}", credentials.id));
    let list = json!([{"configId": "c", "systemId": "s", "strategyId": "http", "config": {},
                       "intervalSeconds": 60}]);
    let first = pod.assign(id, &list).await;
    assert_eq!(pod.patch(&path, &json!({"name": "other"})).await.status, 200);
    let rotated = pod.post(&format!("{path}/token"), &json!({})).await.json();
    let second = pod.assign(id, &json!([])).await;
    assert_eq!(pod.remove(id).await.status, 204);

    const HISTORY: &str = "
        select action, actor_type || ' ' || actor_id, coalesce(before, 'null'), coalesce(after, 'null')
          from registry_changes where satellite_id = $1 order by change";
    let sql = fleet.sql().await;
    let rows = sql.query(HISTORY, &[&id]).await.expect("the history");
    let history: Vec<(String, Value, Value)> =
        rows.iter().map(|row| (row.get(0), row.get(2), row.get(3))).collect();
    let described =
        |name: &str| json!({"name": name, "region": "eu", "tags": {}, "offlineThresholdMs": null});
    let expected = [
        ("created", json!(null), described("edge")),
        ("assigned", json!({"version": 0}), json!({"version": first, "assignments": list})),
        ("updated", described("edge"), described("other")),
        ("token_rotated", json!({"tokenVersion": 1}), json!({"tokenVersion": 2})),
        ("assigned", json!({"version": first}), json!({"version": second, "assignments": []})),
        ("removed", described("other"), json!(null)),
    ];
    let expected = expected.map(|(action, before, after)| (action.to_owned(), before, after));
    assert_eq!(history, expected);
    for row in &rows {
        assert_eq!(row.get::<_, String>(1), "token admin");
    }
    let whole = format!("{history:?}");
    for secret in [&credentials.token, rotated["token"].as_str().expect("a token"), "sha256:"] {
        assert!(!whole.contains(secret));
    }
}

#[tokio::test]
async fn what_is_assigned_and_which_token_counts_changes_no_description_of_the_past() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let described = json!({"name": "edge", "region": "eu", "tags": {"rack": "7"}, "offlineThresholdMs": 90_000});
    let credentials = pod.register_with(described).await;
    let satellite = crate::harness::Satellite::connect(pod.address, &credentials).await;
    pod.assign(credentials.id, &json!([])).await;
    pod.post(&format!("/v1/satellites/{}/token", credentials.id), &json!({})).await;
    drop(satellite);
    fleet.expect_log_length(2).await;
    let then = pod.get("/v1/satellites?position=2").await.json();
    let then = &then["satellites"][0];
    assert_eq!((&then["name"], &then["tags"]), (&json!("edge"), &json!({"rack": "7"})), "{then}");
    assert_eq!(then["offlineThresholdMs"], 90_000);
}

#[tokio::test]
async fn several_tokens_open_at_once_and_each_only_what_it_is_for() {
    let fleet = Fleet::new(CALM).await;
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("tokens-{}", uuid::Uuid::new_v4()));
    let long = |word: &str| format!("{word}-0123456789abcdefghijklmnop");
    let (read_new, read_old, admin_old) = (long("read-new"), long("read-old"), long("admin-old"));
    std::fs::write(&file, format!("{read_new}\n{read_old}\n")).expect("a file");
    let admin = format!("{}, {admin_old}", fleet.admin_token);
    let both = format!("{read_new}\t{read_old}");
    let pod = fleet
        .plan("a")
        .with("GROUNDSTATION_ADMIN_TOKEN", &admin)
        .without("GROUNDSTATION_READ_TOKEN")
        .with("GROUNDSTATION_READ_TOKEN_FILE", &file.display().to_string())
        .start()
        .await;
    std::fs::remove_file(&file).expect("the file");
    let new = json!({"name": "edge", "region": "eu"}).to_string();
    let cases = [
        (fleet.admin_token.as_str(), 200, 201),
        (admin_old.as_str(), 200, 201),
        (read_new.as_str(), 200, 403),
        (read_old.as_str(), 200, 403),
        (admin.as_str(), 401, 401),
        (both.as_str(), 401, 401),
        (fleet.read_token.as_str(), 401, 401),
    ];
    for (token, reads, writes) in cases {
        let read = pod.call("GET", "/v1/satellites", Some(token), None).await;
        assert_eq!(read.status, reads, "{token}: {read:?}");
        let write = pod.call("POST", "/v1/satellites", Some(token), Some(new.clone())).await;
        assert_eq!(write.status, writes, "{token}: {write:?}");
    }
    assert!(!pod.log().contains("admin-old") && !pod.log().contains("read-old"));
}
