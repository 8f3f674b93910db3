//! `/asyncapi.json` is a document that the official parser takes, and of the stream as it is.

use serde_json::{Value, json};

use crate::harness::foreign;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet};

/// What the parser says: how it ended, and its lines.
async fn parsed(document: String) -> (bool, Vec<Value>) {
    let (mut command, folder) = foreign::node("tools/node/asyncapi.mjs");
    let file = folder.0.join("asyncapi.json");
    std::fs::write(&file, document).expect("a file");
    let output = blocking(move || command.arg(file).output().expect("Node.js runs")).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(errors.is_empty(), "{errors}");
    (output.status.success(), lines)
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_official_parser_takes_the_document_without_a_complaint() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let answer = pod.call("GET", "/asyncapi.json", None, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (taken, lines) = parsed(answer.text.clone()).await;
    assert!(taken, "{lines:?}");
    // Severity 0 is an error, 1 a warning; the rest is advice.
    let complaints = lines.iter().filter(|line| line["severity"].as_i64().is_some_and(|s| s <= 1));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&Value>::new());
    for word in ["connected", "disconnected", "heartbeat_lost", "removed"] {
        let subject = format!("satellite.{word}");
        let expected = json!({"address": subject, "message": subject});
        assert!(lines.contains(&expected), "{subject} is not among {lines:?}");
    }

    let mut spoilt = answer.json();
    spoilt["channels"]["connected"]["messages"]["connected"]["$ref"] = json!("#/nowhere");
    assert!(!parsed(spoilt.to_string()).await.0, "the parser takes anything");
}
