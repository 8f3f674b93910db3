use proptest::prelude::*;
use serde_json::json;

use super::*;

fn assignment() -> Value {
    json!({"configId": "c1", "systemId": "s1", "strategyId": "http", "config": {"url": "x"},
           "intervalSeconds": 60, "configName": "Home", "systemName": "Web",
           "collectors": [{"id": "k1", "collectorId": "script", "assertions": [],
                           "config": {"secretEnv": {"TOKEN": "${{ secrets.A }}"}}}]})
}

/// The assignment with one field replaced, or left out where `value` is null.
fn with(pointer: &str, value: Value) -> Value {
    let mut assignment = assignment();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = assignment.pointer_mut(parent).expect("there").as_object_mut().expect("object");
    if value.is_null() {
        parent.remove(name).expect("there");
    } else {
        parent.insert(name.to_owned(), value);
    }
    assignment
}

fn refused(sent: Value) -> Option<String> {
    check(sent).err().map(|invalid| invalid.field)
}

#[test]
fn a_list_is_taken_alone_or_as_a_field() {
    let list = json!([assignment(), with("/configId", json!("c2"))]);
    assert_eq!(check(list.clone()), Ok(list.clone()));
    assert_eq!(check(json!({"assignments": list.clone(), "version": 3})), Ok(list));
    assert_eq!(check(json!([])), Ok(json!([])));
    let unknown = with("/somethingNew", json!({"a": 1}));
    assert_eq!(check(json!([unknown.clone()])), Ok(json!([unknown])));
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    let long = "x".repeat(MAX_CHARACTERS + 1);
    let cases = [
        ("/configId", Value::Null, "configId"),
        ("/configId", json!(7), "configId"),
        ("/systemId", json!(""), "systemId"),
        ("/strategyId", json!(long), "strategyId"),
        ("/config", Value::Null, "config"),
        ("/config", json!([]), "config"),
        ("/intervalSeconds", Value::Null, "intervalSeconds"),
        ("/intervalSeconds", json!(0), "intervalSeconds"),
        ("/intervalSeconds", json!(-5), "intervalSeconds"),
        ("/intervalSeconds", json!(1.5), "intervalSeconds"),
        ("/intervalSeconds", json!("60"), "intervalSeconds"),
        ("/intervalSeconds", json!(MAX_INTERVAL_SECONDS + 1), "intervalSeconds"),
        ("/configName", json!(3), "configName"),
        ("/config/url", json!("a\0b"), "config.url"),
        ("/collectors", json!({}), "collectors"),
        ("/collectors", json!(vec![1; MAX_COLLECTORS + 1]), "collectors"),
        ("/collectors/0/id", Value::Null, "collectors[0].id"),
        ("/collectors/0/collectorId", json!(1), "collectors[0].collectorId"),
        ("/collectors/0/config", Value::Null, "collectors[0].config"),
        ("/collectors/0/assertions", json!("x"), "collectors[0].assertions"),
        ("/collectors/0/config/secretEnv", json!([]), "collectors[0].config.secretEnv"),
        ("/collectors/0/config/secretEnv/TOKEN", json!(1), "collectors[0].config.secretEnv.TOKEN"),
    ];
    for (pointer, value, field) in cases {
        let other = with("/configId", json!("another"));
        let found = refused(json!([other, with(pointer, value.clone())]));
        assert_eq!(found, Some(format!("assignments[1].{field}")), "{pointer} {value}");
    }
    assert_eq!(refused(json!({})).as_deref(), Some("assignments"));
    assert_eq!(refused(json!("x")).as_deref(), Some("assignments"));
    assert_eq!(refused(json!([7])).as_deref(), Some("assignments[0]"));
}

#[test]
fn a_pair_or_a_collector_named_twice_is_refused_where_it_comes_again() {
    let elsewhere = with("/systemId", json!("another"));
    let both = json!([assignment(), elsewhere]);
    assert_eq!(check(both.clone()), Ok(both));
    let again = with("/intervalSeconds", json!(7));
    let found = refused(json!([assignment(), again]));
    assert_eq!(found.as_deref(), Some("assignments[1].configId"));
    let collector = json!({"id": "k", "collectorId": "a", "config": {}});
    let twice = with("/collectors", json!([collector, collector]));
    assert_eq!(refused(json!([twice])).as_deref(), Some("assignments[0].collectors[1].id"));
}

#[test]
fn size_and_number_are_bounded() {
    let many: Vec<Value> =
        (0..=MAX_ASSIGNMENTS).map(|n| with("/configId", json!(n.to_string()))).collect();
    assert_eq!(check(json!(many[1..])).map(drop), Ok(()));
    assert_eq!(refused(json!(many)).as_deref(), Some("assignments"));
    let big = with("/config/url", json!("x".repeat(MAX_BYTES)));
    assert_eq!(refused(json!([big])).as_deref(), Some("assignments"));
}

#[test]
fn only_the_assigned_pair_is_allowed() {
    let list = to_raw_value(&json!([assignment()])).expect("json");
    let assigned = Assigned::new(3, list).expect("a list");
    assert!(assigned.allows("c1", "s1"));
    assert!(!assigned.allows("c1", "s2"));
    assert!(!assigned.allows("s1", "c1"));
    assert!(!Assigned::nothing().expect("a list").allows("c1", "s1"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("configId".to_owned()),
        Just("collectors".to_owned()),
        Just("config".to_owned()),
        Just("secretEnv".to_owned()),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name.clone(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_taken_can_be_read_again(spoilt in any_json(), at in 0..3usize) {
        let mut list = vec![assignment(), with("/configId", json!("c2"))];
        list.insert(at.min(2), spoilt);
        if let Ok(list) = check(Value::from(list)) {
            let raw = to_raw_value(&list).expect("json");
            prop_assert!(Assigned::new(1, raw).is_ok());
        }
    }
}
