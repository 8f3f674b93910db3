//! Which secrets a run may have: those that one collector of one assignment declares, and no others.
//!
//! Pure: takes the declaration and the values, and returns an environment or a clear error. Either all
//! variables are filled, or none is returned.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::gateway::backends::secrets::{Unresolved, Values};

/// The most variables one collector may declare.
const MAX_VARIABLES: usize = 64;

/// The most bytes of a filled environment, which is sent in one message.
const MAX_BYTES: usize = 512 * 1024;

/// How a reference begins and ends, and what precedes the name in it.
const OPEN: &str = "${{";
const CLOSE: &str = "}}";
const NAMESPACE: &str = "secrets.";

/// Variables and their values.
pub type Environment = BTreeMap<String, SecretString>;

/// Why a run gets no secrets; the satellite is sent this text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// The config is not assigned, or no longer.
    #[error("No such assignment: {0}")]
    NoAssignment(String),
    /// The assignment has no such collector.
    #[error("No such collector in assignment {config_id}: {collector_id}")]
    NoCollector {
        /// The assignment.
        config_id: String,
        /// The collector that was asked for.
        collector_id: String,
    },
    /// The collector declares no secrets.
    #[error("Collector {0} declares no secretEnv")]
    NothingDeclared(String),
    /// The declaration is malformed.
    #[error("secretEnv.{variable} {rule}")]
    Malformed {
        /// The variable.
        variable: String,
        /// What is wrong, as the end of a sentence.
        rule: &'static str,
    },
    /// A secret is missing.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// The environment is too large.
    #[error("The secrets of this collector are larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The satellite, or all satellites together, ask too much at once.
    #[error("Too many requests at once, try again")]
    Busy,
    /// The request was not answered in time.
    #[error("The secrets could not be had in time, try again")]
    Late,
    /// The assignments cannot be read now.
    #[error("Assignments cannot be read now, try again")]
    Unavailable,
}

/// A collector's declaration: variables, each with a text that may refer to secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared(BTreeMap<String, Vec<Part>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(String),
}

/// Finds the declaration of the named collector. An agent names a collector by its `id`. Its `collectorId`,
/// the kind of collector, is enough if only one is of that kind. The agent does not name the system: among
/// several assignments of one config, the first with such a collector counts.
pub fn declared(
    assignments: &Value,
    config_id: &str,
    collector_id: &str,
) -> Result<Declared, Denied> {
    let of_config = || items(assignments).iter().filter(|item| item["configId"] == config_id);
    if of_config().next().is_none() {
        return Err(Denied::NoAssignment(config_id.to_owned()));
    }
    let collector = of_config().find_map(|assignment| collector(assignment, collector_id));
    let collector = collector.ok_or_else(|| Denied::NoCollector {
        config_id: config_id.to_owned(),
        collector_id: collector_id.to_owned(),
    })?;
    match collector["config"]["secretEnv"].as_object() {
        Some(variables) if !variables.is_empty() => Declared::parse(variables),
        _ => Err(Denied::NothingDeclared(collector_id.to_owned())),
    }
}

fn collector<'a>(assignment: &'a Value, named: &str) -> Option<&'a Value> {
    let collectors = items(&assignment["collectors"]);
    let by_id = collectors.iter().find(|collector| collector["id"] == named);
    let mut by_kind = collectors.iter().filter(|c| c["collectorId"] == named);
    by_id.or_else(|| by_kind.next().filter(|_| by_kind.next().is_none()))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Declared {
    fn parse(variables: &Map<String, Value>) -> Result<Declared, Denied> {
        let malformed = |variable: &str, rule| {
            Err(Denied::Malformed { variable: variable.chars().take(200).collect(), rule })
        };
        let mut declared = BTreeMap::new();
        for (variable, text) in variables {
            if !is_variable(variable) {
                return malformed(variable, "is not a name of a variable");
            }
            if declared.len() == MAX_VARIABLES {
                return malformed(variable, "is one variable too many: 64 are allowed");
            }
            let Some(parts) = text.as_str().and_then(parts) else {
                return malformed(variable, "must be a text with ${{ secrets.NAME }} in it");
            };
            declared.insert(variable.clone(), parts);
        }
        Ok(Declared(declared))
    }

    /// The names of all secrets that it refers to.
    pub fn names(&self) -> BTreeSet<String> {
        let parts = self.0.values().flatten();
        let names = parts.filter_map(|part| match part {
            Part::Secret(name) => Some(name.clone()),
            Part::Text(_) => None,
        });
        names.collect()
    }

    /// The environment filled with these values.
    pub fn fill(&self, values: &Values) -> Result<Environment, Denied> {
        let mut environment = Environment::new();
        let mut bytes = 0;
        for (variable, parts) in &self.0 {
            let mut filled = String::new();
            for part in parts {
                match part {
                    Part::Text(text) => filled.push_str(text),
                    Part::Secret(name) => {
                        let value = values.get(name);
                        let value = value.ok_or_else(|| Unresolved::NotFound(name.clone()))?;
                        filled.push_str(value.expose_secret());
                    }
                }
                if bytes + filled.len() > MAX_BYTES {
                    return Err(Denied::TooLarge);
                }
            }
            bytes += filled.len();
            environment.insert(variable.clone(), filled.into());
        }
        Ok(environment)
    }
}

fn is_variable(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.len() <= 200
        && name.starts_with(first)
        && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Splits a text at its references; `None` if a reference is malformed or there is none.
fn parts(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (inside, behind) = after.split_once(CLOSE)?;
        let name = inside.trim().strip_prefix(NAMESPACE)?;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(Part::Secret(name.to_owned()));
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    parts.iter().any(|part| matches!(part, Part::Secret(_))).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn assignments() -> Value {
        let collector = |id: &str, kind: &str, config: Value| json!({"id": id, "collectorId": kind, "config": config});
        let token = json!({"secretEnv": {"TOKEN": "Bearer ${{ secrets.API }}"}});
        json!([
            {"configId": "other"},
            {"configId": "c", "collectors": [
                collector("k1", "script", token.clone()),
                collector("k2", "shell", json!({})),
                collector("k3", "twice", token.clone()),
                collector("k4", "twice", token),
                collector("k5", "empty", json!({"secretEnv": {}})),
            ]},
        ])
    }

    fn denied(config: &str, collector: &str) -> String {
        declared(&assignments(), config, collector).expect_err("denied").to_string()
    }

    #[test]
    fn each_denial_says_which() {
        assert_eq!(denied("x", "k1"), "No such assignment: x");
        assert_eq!(denied("other", "k1"), "No such collector in assignment other: k1");
        assert_eq!(denied("c", "k9"), "No such collector in assignment c: k9");
        assert_eq!(denied("c", "k2"), "Collector k2 declares no secretEnv");
        assert_eq!(denied("c", "k5"), "Collector k5 declares no secretEnv");
        assert_eq!(denied("c", "twice"), "No such collector in assignment c: twice");
        assert_eq!(declared(&json!(null), "c", "k1"), Err(Denied::NoAssignment("c".to_owned())));
        let missing = declared(&assignments(), "c", "k1").expect("declared").fill(&Values::new());
        assert_eq!(missing.expect_err("missing").to_string(), "Secret not found: API");
    }

    #[test]
    fn a_collector_is_found_by_its_id_or_by_a_kind_that_is_its_alone() {
        let by_id = declared(&assignments(), "c", "k1").expect("declared");
        assert_eq!(declared(&assignments(), "c", "script"), Ok(by_id.clone()));
        assert_eq!(by_id.names(), BTreeSet::from(["API".to_owned()]));
        let values = Values::from([("API".to_owned(), "${{ secrets.X }}".into())]);
        let filled = by_id.fill(&values).expect("filled");
        // Values are not expanded, whatever they contain.
        assert_eq!(filled["TOKEN"].expose_secret(), "Bearer ${{ secrets.X }}");
        assert!(!format!("{filled:?}").contains("Bearer"));
    }

    #[test]
    fn texts_are_understood_or_refused_and_never_guessed() {
        let secret = |name: &str| Part::Secret(name.to_owned());
        let text = |text: &str| Part::Text(text.to_owned());
        let cases = [
            ("${{ secrets.A }}", Some(vec![secret("A")])),
            ("${{secrets.A}}", Some(vec![secret("A")])),
            (
                "x${{ secrets.A }}-${{ secrets.B }}y",
                Some(vec![text("x"), secret("A"), text("-"), secret("B"), text("y")]),
            ),
            ("plain", None),
            ("", None),
            ("${{ secrets.A", None),
            ("${{ env.A }}", None),
            ("${{ }}", None),
            ("$ {{ secrets.A }}", None),
        ];
        for (given, expected) in cases {
            assert_eq!(parts(given), expected, "{given}");
        }
        let odd = json!([{"configId": "c", "collectors": [
            {"id": "k", "collectorId": "s", "config": {"secretEnv": {"A=B": "${{ secrets.A }}"}}}]}]);
        let error = declared(&odd, "c", "k").expect_err("no variable").to_string();
        assert_eq!(error, "secretEnv.A=B is not a name of a variable");
    }

    #[test]
    fn what_is_too_large_is_not_sent() {
        let declared = declared(&assignments(), "c", "k1").expect("declared");
        let values = Values::from([("API".to_owned(), "x".repeat(MAX_BYTES).into())]);
        assert_eq!(declared.fill(&values).expect_err("too large"), Denied::TooLarge);
    }

    proptest! {
        #[test]
        fn a_text_is_what_its_parts_say(texts in prop::collection::vec("[a-z ${}]{0,5}", 1..5)) {
            let whole = texts.join("${{ secrets.NAME }}");
            if let Some(parts) = parts(&whole) {
                let again: String = parts.iter().map(|part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Secret(name) => format!("${{{{ secrets.{name} }}}}"),
                }).collect();
                let squeeze = |text: &str| text.replace(' ', "");
                prop_assert_eq!(squeeze(&again), squeeze(&whole));
            }
        }
    }
}
