//! Selectors as they are sent: of tokens and of sets of assignments.

use serde_json::{Map, Value};

use super::satellites::{Invalid, NewSatellite};
use crate::contract::tokens::SelectorJson;
use crate::domain::access::Selector;

/// What a selector can name.
const SELECTORS: [&str; 2] = ["region", "tags"];

/// Checks every limit; the error names the field. None selects the whole fleet.
pub fn check(named: Option<Map<String, Value>>) -> Result<Selector, Invalid> {
    let selector = named.map(selector).transpose()?.unwrap_or_default();
    // What it names are words of satellites, so they have the limits of those.
    let alike = NewSatellite {
        name: "any".to_owned(),
        region: selector.region.clone().unwrap_or_else(|| "any".to_owned()),
        tags: selector.tags.clone(),
        offline_threshold_ms: None,
    };
    alike.check().map_err(|Invalid { field, rule }| invalid(&format!("selector.{field}"), rule))?;
    Ok(selector)
}

/// One that names nothing, or something that nobody knows, would select more than was meant.
fn selector(named: Map<String, Value>) -> Result<Selector, Invalid> {
    if let Some(unknown) = named.keys().find(|name| !SELECTORS.contains(&name.as_str())) {
        let shown: String = unknown.chars().take(64).collect();
        let rule = format!("must be {}: nothing else can be named", SELECTORS.join(" or "));
        return Err(invalid(&format!("selector.{shown}"), rule));
    }
    let selector: SelectorJson = serde_json::from_value(Value::Object(named))
        .map_err(|_| invalid("selector", "must be {\"region\": text, \"tags\": {name: text}}"))?;
    let selector = Selector::from(selector);
    match selector.is_bounded() {
        true => Ok(selector),
        false => {
            Err(invalid("selector", "must name a region or tags; leave it out for the whole fleet"))
        }
    }
}

fn invalid(field: &str, rule: impl Into<String>) -> Invalid {
    Invalid { field: field.to_owned(), rule: rule.into() }
}
