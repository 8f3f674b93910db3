//! A request is let in by its head. What happens while its body is on the way counts all the same.

use serde_json::{Value, json};

use crate::harness::pod::NamedToken;
use crate::harness::raw::Raw;
use crate::harness::{CALM, Fleet, Pod, eventually};

/// A request that was let in, and of which no more than the head has come.
struct Held {
    connection: Raw,
    body: String,
}

impl Held {
    /// The pod asks for the body once it has let the request in.
    async fn begin(pod: &Pod, token: &str, method: &str, path: &str, body: &Value) -> Held {
        let (mut connection, body) = (Raw::connect(pod.address).await, body.to_string());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        );
        assert!(connection.send(head).await);
        let asked = connection.head().await;
        assert!(asked.starts_with("HTTP/1.1 100 "), "{asked}");
        Held { connection, body }
    }

    /// Sends the body; returns the status of the answer, and all of it.
    async fn finish(mut self) -> (u16, String) {
        self.connection.send(&self.body).await;
        let said = String::from_utf8_lossy(&self.connection.ended().await).into_owned();
        let status = said.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no status: {said}")), said)
    }
}

async fn token(pod: &Pod, name: &str, role: &str, selector: Option<&Value>) -> NamedToken {
    let mut described = json!({"name": name, "role": role});
    if let Some(selector) = selector {
        described["selector"] = selector.clone();
    }
    pod.make_token(&described).await
}

#[tokio::test]
async fn a_token_that_is_revoked_while_a_body_is_on_the_way_changes_nothing() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let leaked = token(&pod, "leaked", "admin", None).await;
    let rotate = format!("/v1/satellites/{}/token", edge.id);
    let assign = format!("/v1/satellites/{}/assignments", edge.id);
    let change = format!("/v1/satellites/{}", edge.id);
    let asked = [
        ("POST", "/v1/tokens", json!({"name": "another", "role": "admin"})),
        ("POST", "/v1/satellites", json!({"name": "new", "region": "eu"})),
        ("POST", &*rotate, json!({"overlap": "1h"})),
        ("PUT", &*assign, json!({"assignments": []})),
        ("PATCH", &*change, json!({"name": "renamed"})),
    ];
    let mut held = Vec::new();
    for (method, path, body) in &asked {
        held.push(Held::begin(&pod, &leaked.secret, method, path, body).await);
    }
    pod.revoke(&leaked).await;
    for (held, (method, path, _)) in held.into_iter().zip(&asked) {
        let (status, said) = held.finish().await;
        assert_eq!(status, 401, "{method} {path}: {said}");
        assert!(said.contains("urn:groundstation:problem:unauthorized"), "{said}");
        assert!(!said.contains("gst_") && !said.contains("csat_"), "{said}");
    }
    let tokens = pod.get("/v1/tokens").await.json();
    assert_eq!(tokens["tokens"].as_array().map(Vec::len), Some(0), "{tokens}");
    assert_eq!(pod.show(edge.id).await["name"], "edge");
}

#[tokio::test]
async fn a_satellite_that_moves_out_while_a_body_is_on_the_way_is_not_touched() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for (n, (selector, out)) in [
        (json!({"region": "eu"}), json!({"region": "us"})),
        (json!({"tags": {"tier": "gold"}}), json!({"tags": {"tier": "iron"}})),
    ]
    .into_iter()
    .enumerate()
    {
        let described =
            json!({"name": format!("edge {n}"), "region": "eu", "tags": {"tier": "gold"}});
        let edge = pod.register_with(described).await;
        let bounded = token(&pod, &format!("bounded {n}"), "operator", Some(&selector)).await;
        let path = format!("/v1/satellites/{}", edge.id);
        let (rotate, assign) = (format!("{path}/token"), format!("{path}/assignments"));
        let asked = [
            ("POST", &rotate, json!({"overlap": "1h"})),
            ("PUT", &assign, json!({"assignments": []})),
            ("PATCH", &path, json!({"name": "taken"})),
        ];
        let mut held = Vec::new();
        for (method, path, body) in &asked {
            held.push(Held::begin(&pod, &bounded.secret, method, path, body).await);
        }
        assert_eq!(pod.patch(&path, &out).await.status, 200);
        for (held, (method, path, _)) in held.into_iter().zip(&asked) {
            let (status, said) = held.finish().await;
            assert_eq!(status, 404, "{method} {path}: {said}");
            assert!(said.contains("unknown-satellite") && !said.contains("csat_"), "{said}");
        }
        assert_eq!(pod.show(edge.id).await["name"], format!("edge {n}"));
    }
}

#[tokio::test]
async fn of_a_satellite_that_goes_to_and_fro_a_bounded_operator_changes_what_is_inside_only() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let bounded = token(&pod, "bounded", "operator", Some(&json!({"region": "eu"}))).await;
    let path = format!("/v1/satellites/{}", edge.id);
    let moves = async {
        for n in 0..60 {
            let region = ["us", "eu"][n % 2];
            assert_eq!(pod.patch(&path, &json!({"region": region})).await.status, 200);
        }
    };
    let changes = async {
        for n in 0..120 {
            let body = json!({"name": format!("name {n}")});
            let patched =
                pod.call("PATCH", &path, Some(&bounded.secret), Some(body.to_string())).await;
            assert!([200, 404].contains(&patched.status), "{patched:?}");
            let ending = format!("{path}/{}", ["disable", "enable"][n % 2]);
            let said = pod.call("POST", &ending, Some(&bounded.secret), None).await;
            assert!([200, 404].contains(&said.status), "{said:?}");
        }
    };
    tokio::join!(moves, changes);
    // The history has the order of the changes: none of its own while the satellite was elsewhere.
    let sql = fleet.sql().await;
    let rows = sql
        .query(
            "select action, actor_id, after->>'region' from registry_changes where satellite_id = $1 order by change",
            &[&edge.id],
        )
        .await
        .expect("the history");
    let mut region = String::new();
    let mut own = 0;
    for row in &rows {
        let (actor, after): (String, Option<String>) = (row.get(1), row.get(2));
        if actor == "bounded" {
            own += 1;
            assert_eq!(region, "eu", "{:?} while it was elsewhere", row.get::<_, String>(0));
        }
        region = after.unwrap_or(region);
    }
    assert!(own > 0, "it changed something while it could");
    eventually("the last move", async || match pod.show(edge.id).await["region"].as_str() {
        Some("eu") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
