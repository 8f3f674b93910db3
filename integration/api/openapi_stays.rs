//! Whoever relies on the HTTP API can go on relying on it: what is checked in is what the routes do, and what would
//! break a caller is named.

use std::collections::BTreeSet;
use std::path::Path;

use groundstation::api::openapi;
use serde_json::{Map, Value, json};

/// Deeper than any schema is: those that hold themselves end here.
const DEEPEST: usize = 12;

/// Which way what a schema describes goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From callers: nothing may be asked for that was not, and what was taken is taken.
    In,
    /// To callers: what was there is there.
    Out,
}

/// An earlier document and a later one, and what of the later breaks callers of the earlier.
struct Comparison<'a> {
    before: &'a Value,
    after: &'a Value,
    breaks: Vec<String>,
}

fn breaks(before: &Value, after: &Value) -> Vec<String> {
    let mut comparison = Comparison { before, after, breaks: Vec::new() };
    for (path, methods) in object(&before["paths"]) {
        for (method, operation) in object(methods) {
            let what = format!("{} {path}", method.to_uppercase());
            match after["paths"][path].get(method) {
                Some(now) => comparison.operation(&what, operation, now),
                None => comparison.breaks.push(format!("{what} is gone")),
            }
        }
    }
    comparison.breaks
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> BTreeSet<String> {
    let word = |word: &Value| word.as_str().map_or_else(|| word.to_string(), str::to_owned);
    match value {
        Value::Null => BTreeSet::new(),
        Value::Array(all) => all.iter().map(word).collect(),
        one => [word(one)].into(),
    }
}

/// The words of `^(one|another)$`.
fn alternatives(pattern: &str) -> Option<BTreeSet<String>> {
    let inside = pattern.strip_prefix("^(")?.strip_suffix(")$")?;
    let words: BTreeSet<String> = inside.split('|').map(str::to_owned).collect();
    let is_word = |word: &String| word.chars().all(|c| c.is_alphanumeric() || c == '_');
    words.iter().all(is_word).then_some(words)
}

/// The schema itself, with what it is made of put together.
fn resolved(document: &Value, schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(name) = schema["$ref"].as_str() {
        schema = document.pointer(name.trim_start_matches('#')).cloned().unwrap_or_default();
    }
    if schema["allOf"].is_null() {
        return schema;
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in list(&schema["allOf"]) {
        let part = resolved(document, part);
        properties.extend(object(&part["properties"]).map(|(name, of)| (name.clone(), of.clone())));
        required.extend(list(&part["required"]).cloned());
    }
    json!({"type": "object", "properties": properties, "required": required})
}

impl Comparison<'_> {
    fn operation(&mut self, what: &str, before: &Value, after: &Value) {
        let key = |parameter: &Value| [parameter["in"].clone(), parameter["name"].clone()];
        let named = |operation: &Value, wanted: [Value; 2]| {
            list(&operation["parameters"]).find(|parameter| key(parameter) == wanted).cloned()
        };
        for parameter in list(&before["parameters"]) {
            let what =
                format!("{what}: parameter {}", parameter["name"].as_str().unwrap_or_default());
            match named(after, key(parameter)) {
                Some(now) => self.schema(&what, &parameter["schema"], &now["schema"], Way::In, 0),
                None => self.breaks.push(format!("{what} is gone")),
            }
        }
        for parameter in list(&after["parameters"]) {
            let earlier = named(before, key(parameter));
            if parameter["required"] == true
                && earlier.is_none_or(|earlier| earlier["required"] != true)
            {
                self.breaks
                    .push(format!("{what}: parameter {} is required now", parameter["name"]));
            }
        }
        let (body, now) = (&before["requestBody"], &after["requestBody"]);
        if now["required"] == true && body["required"] != true {
            self.breaks.push(format!("{what}: a body is required now"));
        }
        self.contents(&format!("{what}: body"), &body["content"], &now["content"], Way::In);
        for (status, response) in object(&before["responses"]) {
            let what = format!("{what}: {status}");
            match after["responses"].get(status) {
                Some(now) => self.contents(&what, &response["content"], &now["content"], Way::Out),
                None => self.breaks.push(format!("{what} is gone")),
            }
        }
    }

    fn contents(&mut self, what: &str, before: &Value, after: &Value, way: Way) {
        for (kind, content) in object(before) {
            match after.get(kind) {
                Some(now) => self.schema(what, &content["schema"], &now["schema"], way, 0),
                None => self.breaks.push(format!("{what} is no {kind} any more")),
            }
        }
    }

    fn schema(&mut self, what: &str, before: &Value, after: &Value, way: Way, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        let before = resolved(self.before, before);
        let after = resolved(self.after, after);
        let mut say = |why: String| self.breaks.push(format!("{what} {why}"));
        let (types, now) = (words(&before["type"]), words(&after["type"]));
        let (wider, narrower) = if way == Way::In { (&now, &types) } else { (&types, &now) };
        if !narrower.is_subset(wider) && !wider.is_empty() {
            say(format!("was {types:?} and is {now:?}"));
        }
        if !after["enum"].is_null() {
            match before["enum"].is_null() {
                true if way == Way::In => say("takes certain words only now".to_owned()),
                true => {}
                false => words(&before["enum"])
                    .difference(&words(&after["enum"]))
                    .for_each(|word| say(format!("has no word {word} any more"))),
            }
        }
        if way == Way::In {
            let narrower = [
                ("minimum", -1),
                ("minLength", -1),
                ("minItems", -1),
                ("maximum", 1),
                ("maxLength", 1),
                ("maxItems", 1),
            ];
            for (bound, sign) in narrower {
                let of =
                    |schema: &Value| schema[bound].as_f64().map(|bound| bound * f64::from(sign));
                let is_narrower = match (of(&before), of(&after)) {
                    (Some(before), Some(after)) => after < before,
                    (None, Some(_)) => true,
                    (_, None) => false,
                };
                if is_narrower {
                    say(format!("has a narrower {bound}: {} was {}", after[bound], before[bound]));
                }
            }
            if let Some(pattern) = after["pattern"].as_str()
                && after["pattern"] != before["pattern"]
            {
                let earlier = before["pattern"].as_str();
                match earlier.and_then(alternatives).zip(alternatives(pattern)) {
                    Some((before, after)) => before
                        .difference(&after)
                        .for_each(|word| say(format!("has no word {word} any more"))),
                    None => say(format!("takes {pattern} now and took {}", before["pattern"])),
                }
            }
        }
        let (required, now) = (words(&before["required"]), words(&after["required"]));
        if way == Way::In {
            now.difference(&required).for_each(|field| say(format!("requires {field} now")));
        } else {
            let still = |field: &&String| !after["properties"][field.as_str()].is_null();
            let fields = required.difference(&now).filter(still);
            fields.for_each(|field| say(format!("need not have {field} any more")));
        }
        for (name, field) in object(&before["properties"]) {
            let what = format!("{what}.{name}");
            match after["properties"].get(name) {
                Some(now) => self.schema(&what, field, now, way, depth + 1),
                None => self.breaks.push(format!("{what} is gone")),
            }
        }
        for part in ["items", "additionalProperties"] {
            if before[part].is_object() {
                self.schema(&format!("{what}[]"), &before[part], &after[part], way, depth + 1);
            }
        }
        for (n, one) in list(&before["oneOf"]).enumerate() {
            match after["oneOf"].get(n) {
                Some(now) => self.schema(what, one, now, way, depth + 1),
                None => self.breaks.push(format!("{what} has fewer forms")),
            }
        }
    }
}

fn checked_in() -> (String, Value) {
    let (name, _) = openapi::file();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
    let text = std::fs::read_to_string(&file).expect("the document that is checked in");
    let document = serde_json::from_str(&text).expect("JSON");
    (text, document)
}

#[test]
fn the_document_that_is_checked_in_is_what_the_routes_do_and_what_breaks_it_is_named() {
    let (text, document) = checked_in();
    let (_, now) = openapi::file();
    let found = breaks(&document, &serde_json::from_str(&now).expect("JSON"));
    assert!(found.is_empty(), "this breaks whoever relies on the API:\n{}", found.join("\n"));
    assert!(text == now, "schema/openapi.json is stale: run `make schemas` and commit it");
}

#[test]
fn each_kind_of_break_is_named_and_what_is_only_added_is_none() {
    let (_, document) = checked_in();
    let list = "/paths/~1v1~1satellites/get";
    let stats = "/paths/~1v1~1satellites~1{id}~1stats/get";
    let set = |path: &str, value: Value| {
        let mut changed = document.clone();
        *changed.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        changed
    };
    let without = |path: &str, name: &str| {
        let mut changed = document.clone();
        let object = changed.pointer_mut(path).and_then(Value::as_object_mut);
        assert!(object.unwrap_or_else(|| panic!("{path}")).remove(name).is_some(), "{name}");
        changed
    };
    let parameter = |operation: &str, name: &str| {
        let parameters =
            document.pointer(&format!("{operation}/parameters")).and_then(Value::as_array);
        let place = parameters.expect("parameters").iter().position(|p| p["name"] == name);
        format!("{operation}/parameters/{}", place.unwrap_or_else(|| panic!("{name}")))
    };
    let satellite = "/components/schemas/SatelliteJson";
    let created = "/components/schemas/NewSatellite";
    let status = parameter(list, "status");
    let limit = parameter(list, "limit");
    for (changed, expected) in [
        (without("/paths", "/v1/triggers"), "GET /v1/triggers is gone"),
        (without("/paths/~1v1~1satellites", "post"), "POST /v1/satellites is gone"),
        (
            set(&format!("{status}/name"), json!("state")),
            "GET /v1/satellites: parameter status is gone",
        ),
        (
            set(&format!("{}/required", parameter(stats, "window")), json!(true)),
            "parameter \"window\" is required now",
        ),
        (
            set(&format!("{status}/schema/pattern"), json!("^(online)$")),
            "parameter status has no word offline any more",
        ),
        (
            set(&format!("{limit}/schema/maximum"), json!(500)),
            "parameter limit has a narrower maximum: 500 was 1000",
        ),
        (set(&format!("{limit}/schema/type"), json!("string")), "parameter limit was"),
        (
            without(&format!("{satellite}/properties"), "region"),
            "GET /v1/satellites: 200.satellites[].region is gone",
        ),
        (
            set(&format!("{satellite}/properties/name/type"), json!("integer")),
            "GET /v1/satellites/{id}: 200.name was",
        ),
        (set(&format!("{satellite}/required"), json!(["id"])), "need not have name any more"),
        (
            set(&format!("{created}/required"), json!(["name", "region", "tags"])),
            "POST /v1/satellites: body requires tags now",
        ),
        (
            set("/components/schemas/IntervalState/enum", json!(["up", "unknown", "maintenance"])),
            "has no word down any more",
        ),
        (without(&format!("{list}/responses"), "410"), "GET /v1/satellites: 410 is gone"),
    ] {
        let found = breaks(&document, &changed);
        assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
    }
    let mut added = document.clone();
    for (path, value) in [
        ("/paths", json!({"/v1/new": {"get": {"responses": {}}}})),
        (&format!("{satellite}/properties"), json!({"colour": {"type": "string"}})),
        (&format!("{list}/responses"), json!({"429": {"description": "later"}})),
    ] {
        let object = added.pointer_mut(path).and_then(Value::as_object_mut).expect("an object");
        object.extend(value.as_object().expect("an object").clone());
    }
    let optional =
        json!({"name": "colour", "in": "query", "required": false, "schema": {"type": "string"}});
    let parameters = added.pointer_mut(&format!("{list}/parameters")).and_then(Value::as_array_mut);
    parameters.expect("parameters").push(optional);
    assert_eq!(breaks(&document, &added), [""; 0]);
}
