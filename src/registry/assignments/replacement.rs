//! PURE: what a replacement of a list comes to, for the audit: counts, and which pairs are new, gone or changed. What the
//! assignments themselves say stays out of it: it may hold secrets of whoever wrote them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Before and after of a replacement, each list with its version.
pub fn told(
    (version, list): (i64, &Value),
    (new_version, new_list): (i64, &Value),
) -> (Value, Value) {
    let (was, is) = (by_pair(list), by_pair(new_list));
    let pair = |(config, system): &(&str, &str)| json!({"configId": config, "systemId": system});
    let added: Vec<Value> = is.keys().filter(|key| !was.contains_key(*key)).map(pair).collect();
    let removed: Vec<Value> = was.keys().filter(|key| !is.contains_key(*key)).map(pair).collect();
    let is_changed =
        |(key, now): &(&(&str, &str), &&Value)| was.get(*key).is_some_and(|before| before != *now);
    let changed: Vec<Value> = is.iter().filter(is_changed).map(|(key, _)| pair(key)).collect();
    let before = json!({"version": version, "count": was.len()});
    let after = json!({
        "version": new_version, "count": is.len(),
        "added": added, "removed": removed, "changed": changed,
    });
    (before, after)
}

fn by_pair(list: &Value) -> BTreeMap<(&str, &str), &Value> {
    let mut pairs = BTreeMap::new();
    for assignment in list.as_array().into_iter().flatten() {
        if let (Some(config), Some(system)) =
            (assignment["configId"].as_str(), assignment["systemId"].as_str())
        {
            pairs.insert((config, system), assignment);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_and_what_they_are_checked_with_is_not() {
        let of = |config: &str, url: &str| json!({"configId": config, "systemId": "s", "config": {"url": url}});
        let before = json!([of("stays", "a"), of("changes", "secret"), of("goes", "a")]);
        let after = json!([of("comes", "a"), of("changes", "other secret"), of("stays", "a")]);
        let (was, is) = told((3, &before), (4, &after));
        assert_eq!(was, json!({"version": 3, "count": 3}));
        let pair = |config: &str| json!([{"configId": config, "systemId": "s"}]);
        assert_eq!(
            is,
            json!({"version": 4, "count": 3, "added": pair("comes"), "removed": pair("goes"),
                   "changed": pair("changes")})
        );
        assert!(!is.to_string().contains("secret"));
    }
}
