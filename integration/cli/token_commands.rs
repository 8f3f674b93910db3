//! Named tokens on the command line, as people and scripts use it.

use serde_json::{Value, json};

use crate::harness::program::ran;
use crate::harness::{CALM, Fleet, Pod};

fn with_token(pod: &Pod, token: &str) -> Vec<(String, String)> {
    let url = format!("http://{}", pod.address);
    let variables = [("GROUNDSTATION_URL", url), ("GROUNDSTATION_ADMIN_TOKEN", token.to_owned())];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

#[tokio::test]
async fn a_token_is_made_used_listed_and_revoked_by_its_name_or_its_id() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let admin = with_token(&pod, &fleet.admin_token);
    let run = async |arguments: &[&str]| {
        let (done, said, error) = ran(arguments, &admin).await;
        assert!(done, "{arguments:?}: {said}{error}");
        said
    };
    let said = run(&[
        "token",
        "create",
        "--name",
        "deploy",
        "--role",
        "operator",
        "--region",
        "eu",
        "--tag",
        "tier:gold",
        "--expires-in",
        "90d",
    ])
    .await;
    let secret = said.split_whitespace().find(|word| word.starts_with("gst_")).expect("a token");
    assert!(said.contains("shown this once"), "{said}");
    let deploy = with_token(&pod, secret);
    let create = ["satellite", "create", "--name", "a", "--region", "eu"];
    let (done, _, error) = ran(&create, &deploy).await;
    assert!(!done && error.contains("tags.tier must be \"gold\""), "{error}");
    let (done, _, error) = ran(&[&create[..], &["--tag", "tier:gold"]].concat(), &deploy).await;
    assert!(done, "{error}");
    let (done, _, error) = ran(&["token", "list"], &deploy).await;
    assert!(
        !done && error.contains("403") && error.contains("\"deploy\" may not see tokens"),
        "{error}"
    );

    let made = run(&["token", "create", "--json", "--name", "board", "--role", "read"]).await;
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let board = with_token(&pod, made["secret"].as_str().expect("a secret"));
    assert!(ran(&["fleet"], &board).await.0);
    let listed = run(&["token", "list"]).await;
    let line = listed.lines().find(|line| line.contains("deploy")).expect("a line");
    assert!(line.contains("operator") && line.contains("region eu tier:gold"), "{listed}");
    assert!(!listed.contains("gst_"), "{listed}");
    let tokens: Value =
        serde_json::from_str(&run(&["token", "list", "--json"]).await).expect("JSON");
    assert_eq!(tokens.as_array().expect("a list").len(), 2);
    assert!(tokens[1]["expiresAt"].is_string() && tokens[0].get("expiresAt").is_none(), "{tokens}");

    assert!(run(&["token", "revoke", "deploy", "--yes"]).await.starts_with("revoked deploy"));
    // Nobody is asked where nobody can answer.
    let id = made["token"]["id"].as_str().expect("an id");
    run(&["token", "revoke", id]).await;
    for token in [&deploy, &board] {
        assert!(!ran(&["fleet"], token).await.0);
    }
    assert_eq!(run(&["token", "list"]).await.lines().count(), 1);
}

#[tokio::test]
async fn a_token_for_enrolment_is_made_for_so_many_satellites_and_the_list_says_how_many_are_left()
{
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let admin = with_token(&pod, &fleet.admin_token);
    let create = ["token", "create", "--name", "shop", "--json", "--region", "eu", "--uses", "3"];
    let (done, said, error) = ran(&[&create[..], &["--role", "enrol"]].concat(), &admin).await;
    assert!(done, "{error}");
    let made: Value = serde_json::from_str(&said).expect("JSON");
    let secret = made["secret"].as_str().expect("a secret");
    assert_eq!(pod.enrol(secret, None, &json!({"name": "edge"})).await.status, 201);
    let (_, listed, _) = ran(&["token", "list"], &admin).await;
    let line = listed.lines().find(|line| line.contains("shop")).expect("a line");
    assert!(listed.contains("USES LEFT") && line.trim_end().ends_with(" 2"), "{listed}");
    for (wrong, why) in
        [("0", "1..=1000000"), ("1000001", "1..=1000000"), ("many", "invalid digit")]
    {
        let uses = ["token", "create", "--name", "a", "--role", "enrol", "--uses", wrong];
        let (done, _, error) = ran(&uses, &admin).await;
        assert!(!done && error.contains(why), "{error}");
    }
    let (done, _, error) = ran(&[&create[..], &["--role", "read"]].concat(), &admin).await;
    assert!(!done && error.contains("uses is for the role enrol only"), "{error}");
}
