//! The simulator says what it did and what it cost, so that neither is taken for a pod's.

use serde_json::Value;

use crate::harness::program::ran;
use crate::harness::{CALM, Fleet};

#[tokio::test]
async fn a_simulation_from_several_addresses_says_as_json_what_it_did_and_what_it_cost() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let environment = [
        ("GROUNDSTATION_URL".to_owned(), format!("http://{}", pod.address)),
        ("GROUNDSTATION_ADMIN_TOKEN".to_owned(), fleet.admin_token.clone()),
    ];
    let mut arguments = vec!["simulate", "--satellites", "12", "--at-once", "3", "--json"];
    arguments.extend(["--heartbeat-interval", "200ms", "--duration", "2s"]);
    let addresses: &[&str] =
        if cfg!(target_os = "linux") { &["127.0.0.1", "127.0.0.2"] } else { &["127.0.0.1"] };
    for address in addresses {
        arguments.extend(["--from", address]);
    }
    let (succeeded, summary, said) = ran(&arguments, &environment).await;
    assert!(succeeded, "{said}");
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["satellites"], 12, "{summary}");
    assert_eq!(summary["connects"], 12, "{summary}");
    assert!(summary["allOnlineAfterSeconds"].as_f64().is_some_and(|at| at < 2.0), "{summary}");
    assert!(summary["heartbeats"].as_u64().is_some_and(|sent| sent >= 12), "{summary}");
    assert!(summary["connecting"]["p99Ms"].as_f64().is_some_and(|wait| wait > 0.0), "{summary}");
    if cfg!(target_os = "linux") {
        assert!(summary["own"]["peakResidentBytes"].as_u64() > Some(1 << 20), "{summary}");
        assert!(summary["own"]["cpuSeconds"].as_f64().is_some_and(|cpu| cpu > 0.0), "{summary}");
    }
    fleet.check().await;
}
