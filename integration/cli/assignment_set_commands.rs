//! Sets of assignments on the command line, as people and scripts use it.

use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::program::{command, ran};
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet};

/// A file with this in it, removed when dropped.
struct Written(std::path::PathBuf);

impl Written {
    fn new(json: &Value) -> Written {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("set-{}", Uuid::new_v4()));
        std::fs::write(&path, json.to_string()).expect("a file");
        Written(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path")
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("the file can be removed");
    }
}

fn assignment(config: &str) -> Value {
    json!({"configId": config, "systemId": "s", "strategyId": "http", "config": {}, "intervalSeconds": 60})
}

#[tokio::test]
async fn a_set_is_put_listed_shown_put_again_and_deleted() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let variables = pod.variables();
    let run = async |arguments: &[&str]| {
        let (done, said, error) = ran(arguments, &variables).await;
        assert!(done, "{arguments:?}: {said}{error}");
        said
    };
    let list = Written::new(&json!([assignment("c")]));
    let put = ["assignment-set", "put", "web", list.path(), "--region", "eu", "--tag", "tier:gold"];
    let said = run(&[&put[..], &["--priority", "-5"]].concat()).await;
    assert!(said.contains("1 assigned by web"), "{said}");
    let listed = run(&["assignment-set", "list"]).await;
    let line = listed.lines().find(|line| line.contains("web")).expect("a line");
    assert!(line.contains("region eu tier:gold") && line.contains("-5"), "{listed}");
    assert_eq!(run(&["assignment-set", "list", "-o", "name"]).await, "web\n");

    // What is shown can be put back.
    let shown = run(&["assignment-set", "show", "web"]).await;
    let mut set: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&set["priority"], &set["selector"]["region"]), (&json!(-5), &json!("eu")));
    let version = set["version"].to_string();
    set["assignments"] = json!([assignment("c"), assignment("d")]);
    let file = Written::new(&set);
    let put = ["assignment-set", "put", "web", file.path(), "--if-version", &version, "--json"];
    let replaced: Value = serde_json::from_str(&run(&put).await).expect("JSON");
    assert_eq!((&replaced["count"], &replaced["priority"]), (&json!(2), &json!(-5)));
    assert_eq!(replaced["selector"], set["selector"]);

    let gold = json!({"name": "edge", "region": "eu", "tags": {"tier": "gold"}});
    pod.register_with(gold).await;
    let effective = run(&["satellite", "assignments", "edge", "--effective"]).await;
    assert!(
        effective
            .starts_with(&format!("desired version {}, applied version -", replaced["version"]))
    );
    assert!(effective.contains("set web") && effective.lines().count() == 5, "{effective}");
    let own = run(&["satellite", "assignments", "edge"]).await;
    assert_eq!(serde_json::from_str::<Value>(&own).expect("JSON")["assignments"], json!([]));

    let everything = run(&["assignment-set", "put", "web", file.path(), "--all"]).await;
    assert!(everything.contains("2 assigned"), "{everything}");
    assert!(run(&["assignment-set", "list"]).await.contains("everything"));
    assert_eq!(run(&["assignment-set", "delete", "web", "--yes"]).await, "deleted web\n");
    assert_eq!(run(&["assignment-set", "list"]).await.lines().count(), 1);
}

#[tokio::test]
async fn what_fails_says_why_and_ends_with_the_status_for_it() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let variables = pod.variables();
    let list = Written::new(&json!([assignment("c")]));
    let twice = Written::new(&json!({"assignments": [assignment("c"), assignment("c")]}));
    let put = |file: &Written, more: &[&str]| {
        let words = ["assignment-set", "put", "web", file.path()];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert!(ran(&["assignment-set", "put", "web", list.path(), "--all"], &variables).await.0);
    for (arguments, status, words) in [
        (put(&list, &[]), 2, "say which satellites it is for: --region, --tag or --all"),
        (put(&list, &["--all", "--region", "eu"]), 2, "cannot be used with"),
        (put(&list, &["--tag", "gold"]), 2, "NAME:VALUE"),
        (put(&list, &["--all", "--priority", "1001"]), 2, "priority must be a whole number"),
        (put(&twice, &[]), 2, "assignments[1].configId"),
        (put(&list, &["--region", "eu", "--if-version", "0"]), 5, "changed since you read it"),
        (own(&["assignment-set", "show", "never"]), 3, "There is no set \"never\""),
        (own(&["assignment-set", "delete", "../satellites", "--yes"]), 3, "There is no set"),
        (own(&["assignment-set", "delete", "web", "--if-version", "1000"]), 5, "changed since"),
    ] {
        let (asked, variables) = (arguments.clone(), variables.clone());
        let output =
            blocking(move || command(&variables).args(asked).output().expect("the program starts"))
                .await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    let (done, help, _) = ran(&["assignment-set", "put", "--help"], &variables).await;
    assert!(done && help.contains("--priority") && help.contains("--if-version"), "{help}");
}
