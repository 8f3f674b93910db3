//! An authenticating proxy names people in headers: they count from its address and from no other.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use crate::harness::asked::{Asked, ask_from, ask_on};
use crate::harness::fleet::Plan;
use crate::harness::raw::{Raw, introduction};
use crate::harness::{CALM, Fleet, Pod};

/// The proxy, and somebody else.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

type Line = (&'static str, &'static str);

const ADA: Line = ("X-Forwarded-User", "ada");
const ROOT: Line = ("X-Forwarded-Groups", "all,root");
const OPS: Line = ("X-Forwarded-Groups", "ops-eu");

fn behind_proxy(plan: Plan<'_>) -> Plan<'_> {
    plan.with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.2")
        .with("GROUNDSTATION_OIDC_ADMIN_GROUPS", "root")
        .with("GROUNDSTATION_OIDC_OPERATOR_GROUPS", "ops-eu")
        .with("GROUNDSTATION_OIDC_GROUP_SELECTORS", r#"{"ops-eu": {"region": "eu"}}"#)
}

fn trusting(plan: Plan<'_>) -> Plan<'_> {
    behind_proxy(plan).with("GROUNDSTATION_PROXY_USER_HEADER", "X-Forwarded-User")
}

async fn fleet_seen(pod: &Pod, from: IpAddr, headers: &[(&str, &str)]) -> Asked {
    ask_from(from, pod, "/v1/fleet", headers).await
}

#[tokio::test]
async fn whom_the_proxy_names_has_the_role_and_the_reach_of_its_groups_and_its_name_in_the_records()
{
    let fleet = Fleet::new(CALM).await;
    let pod = trusting(fleet.plan("a")).start().await;
    let satellite = pod.register("edge", "eu").await;
    pod.register("other", "us").await;
    for (groups, role, is_bounded, total) in [(ROOT, "admin", false, 2), (OPS, "operator", true, 1)]
    {
        let session = ask_from(PROXY, &pod, "/console/session", &[ADA, groups]).await;
        let mut shown = json!({"role": role, "name": "ada", "by": "proxy"});
        if is_bounded {
            shown["isBounded"] = json!(true);
        }
        assert_eq!((session.status, session.json()), (200, shown));
        assert_eq!(fleet_seen(&pod, PROXY, &[ADA, groups]).await.json()["total"], total);
    }
    let (path, own) =
        (format!("/v1/satellites/{}", satellite.id), format!("http://{}", pod.address));
    let kind = ("Content-Type", "application/json");
    // The proxy adds its headers to what any page asks for, so the page has to be the pod's own.
    for (origin, status) in [("http://evil.example", 403), (own.as_str(), 200)] {
        let raw = Raw::connect_from(pod.address, PROXY).await.expect("a connection");
        let headers = [ADA, OPS, kind, ("Origin", origin)];
        let answer = ask_on(raw, &pod, "PATCH", &path, &headers, r#"{"name":"renamed"}"#).await;
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
    }
    let who = "select actor_type || ' ' || actor_id from registry_changes where action = 'updated'";
    let who: String = fleet.sql().await.query_one(who, &[]).await.expect("one").get(0);
    assert_eq!(who, "person ada");
}

#[tokio::test]
async fn nobody_gets_in_by_headers_that_did_not_come_from_the_proxy_or_are_not_as_it_writes_them() {
    let fleet = Fleet::new(CALM).await;
    let pod = trusting(fleet.plan("a")).start().await;
    assert_eq!(fleet_seen(&pod, PROXY, &[ADA, ROOT]).await.status, 200);
    let cases: [(&str, IpAddr, &[Line], u16); 12] = [
        ("from elsewhere", OTHER, &[ADA, ROOT], 401),
        ("as if by the proxy", OTHER, &[ADA, ROOT, ("X-Forwarded-For", "127.0.0.2")], 401),
        ("as if by it otherwise", OTHER, &[ADA, ROOT, ("Forwarded", "for=127.0.0.2")], 401),
        ("as if by it too", OTHER, &[ADA, ROOT, ("X-Real-IP", "127.0.0.2")], 401),
        ("without a name", PROXY, &[ROOT], 401),
        ("with an empty name", PROXY, &[("X-Forwarded-User", " "), ROOT], 401),
        ("under another name", PROXY, &[("X_Forwarded_User", "ada"), ROOT], 401),
        ("under a second name", PROXY, &[("X-Remote-User", "ada"), ROOT], 401),
        ("without groups", PROXY, &[ADA], 403),
        ("with other groups", PROXY, &[ADA, ("X-Forwarded-Groups", "all,rooted")], 403),
        ("with two names", PROXY, &[ADA, ("X-Forwarded-User", "eve"), ROOT], 400),
        ("with a wrong token", PROXY, &[ADA, ROOT, ("Authorization", "Bearer wrong")], 401),
    ];
    for (case, from, headers, status) in cases {
        let answer = fleet_seen(&pod, from, headers).await;
        assert_eq!(answer.status, status, "{case}: {answer:?}");
    }
    // A token counts alone.
    let reader = format!("Bearer {}", fleet.read_token);
    let both = [ADA, ROOT, ("Authorization", reader.as_str())];
    assert_eq!(ask_from(PROXY, &pod, "/v1/tokens", &both).await.status, 403);
    assert_eq!(ask_from(PROXY, &pod, "/v1/tokens", &[ADA, ROOT]).await.status, 200);
}

#[tokio::test]
async fn behind_a_balancer_that_only_passes_bytes_on_clients_cannot_name_themselves() {
    let fleet = Fleet::new(CALM).await;
    let pod = trusting(fleet.plan("a")).with("GROUNDSTATION_PROXY_PROTOCOL", "v2").start().await;
    let mut raw = Raw::connect_from(pod.address, PROXY).await.expect("a connection");
    raw.send(introduction([203, 0, 113, 7])).await;
    let answer = ask_on(raw, &pod, "GET", "/v1/fleet", &[ADA, ROOT], "").await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[tokio::test]
async fn without_the_setting_no_header_signs_anybody_in() {
    let fleet = Fleet::new(CALM).await;
    let pod = behind_proxy(fleet.plan("a")).start().await;
    for from in [PROXY, OTHER] {
        assert_eq!(fleet_seen(&pod, from, &[ADA, ROOT]).await.status, 401, "{from}");
    }
}
