use serde_json::json;

use super::*;

fn assignment(config: &str) -> Value {
    json!({"configId": config, "systemId": "s", "strategyId": "http", "config": {}, "intervalSeconds": 60})
}

fn many(count: usize) -> Value {
    (0..count).map(|n| assignment(&n.to_string())).collect()
}

fn check(sent: Value) -> Result<NewSet, String> {
    NewSet::check("web", sent).map_err(|invalid| invalid.to_string())
}

#[test]
fn a_set_names_its_satellites_and_what_is_only_told_may_be_sent_back() {
    let set = check(json!({
        "name": "web", "version": 7, "changedAt": "x", "count": 1, "priority": -5,
        "selector": {"region": "eu", "tags": {"tier": "gold"}}, "assignments": [assignment("c")],
    }))
    .expect("a set");
    assert_eq!((set.priority, set.count()), (-5, 1));
    assert_eq!(set.selector().region.as_deref(), Some("eu"));
    let all = check(json!({"assignments": []})).expect("a set");
    assert!(!all.selector().is_bounded() && all.priority == 0);
}

#[test]
fn what_is_wrong_is_named() {
    for (sent, words) in [
        (json!([]), "body must be an object"),
        (json!({"assignments": [], "selectr": {"region": "eu"}}), "selectr must not be there"),
        (json!({"assignments": [], "selector": {}}), "selector must name a region or tags"),
        (json!({"assignments": [], "selector": null}), "selector must be an object"),
        (
            json!({"assignments": [], "selector": {"ids": []}}),
            "selector.ids must be region or tags",
        ),
        (
            json!({"assignments": [], "selector": {"region": ""}}),
            "selector.region must have 1 to 200",
        ),
        (json!({"assignments": [], "priority": 1001}), "priority must be a whole number"),
        (json!({"assignments": [], "priority": "1"}), "priority must be a whole number"),
        (json!({"assignments": [], "name": "other"}), "name must be the one in the path"),
        (json!({}), "assignments must be a list"),
        (json!({"assignments": many(501)}), "assignments must be at most 500"),
        (json!({"assignments": [assignment("c"), assignment("c")]}), "assignments[1].configId"),
    ] {
        let refused = check(sent.clone()).expect_err("refused");
        assert!(refused.starts_with(words), "{sent}: {refused}");
    }
    for name in ["", "Web", "-web", "we b", "w/b", "wéb", &"x".repeat(101)] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
    assert!(check_name("eu-web_1.2").is_ok());
}

#[test]
fn sets_that_can_be_for_one_satellite_have_a_limit_together_and_others_do_not() {
    let stored = |name: &str, region: &str, count: i32| Stored {
        name: name.to_owned(),
        selector: Selector { region: Some(region.to_owned()), ..Selector::default() },
        count,
        bytes: 2,
        version: 1,
        is_same: false,
    };
    let there = [stored("eu", "eu", 400), stored("us", "us", 300), stored("web", "eu", 500)];
    let all = |count| check(json!({"assignments": many(count)})).expect("a set");
    // The one that it replaces does not count.
    all(100).check_with(&there).expect("room");
    let refused = all(101).check_with(&there).expect_err("too many").to_string();
    assert!(refused.starts_with("assignments must have at most 500 assignments together"));
    assert!(refused.ends_with("satellite: eu"), "{refused}");
    let large =
        Stored { bytes: i32::try_from(MAX_BYTES).expect("an int"), ..stored("large", "ap", 1) };
    let refused = all(1).check_with(&[large]).expect_err("too large").to_string();
    assert!(refused.contains("524288 bytes"), "{refused}");
    let full: Vec<Stored> = (0..100).map(|n| stored(&n.to_string(), &n.to_string(), 1)).collect();
    let refused = all(1).check_with(&full).expect_err("too many").to_string();
    assert!(refused.starts_with("name must be that of a set"), "{refused}");
}
