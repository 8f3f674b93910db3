//! Selectors as they are sent: of tokens, of sets of assignments and of maintenance windows.

use serde_json::{Map, Value};

use super::satellites::{Invalid, NewSatellite, invalid};
use crate::contract::tokens::SelectorJson;
use crate::domain::access::Selector;

/// Checks every limit; the error names the field. None selects the whole fleet.
pub fn check(named: Option<Map<String, Value>>) -> Result<Selector, Invalid> {
    let selector = named.map(selector).transpose()?.unwrap_or_default();
    check_limits(&selector)?;
    Ok(selector)
}

/// What a selector names are words of satellites, so they have the limits of those.
pub(super) fn check_limits(selector: &Selector) -> Result<(), Invalid> {
    let alike = NewSatellite {
        name: "any".to_owned(),
        region: selector.region.clone().unwrap_or_else(|| "any".to_owned()),
        tags: selector.tags.clone(),
        offline_threshold_ms: None,
    };
    alike.check().map_err(|Invalid { field, rule }| invalid(format!("selector.{field}"), rule))
}

/// Refuses what is not one of `names`, of which the last is `last`: it would select more than was meant.
pub(super) fn check_names(
    named: &Map<String, Value>,
    names: &[&str],
    last: &str,
) -> Result<(), Invalid> {
    let is_known = |name: &str| name == last || names.contains(&name);
    let Some(unknown) = named.keys().find(|name| !is_known(name)) else { return Ok(()) };
    let shown: String = unknown.chars().filter(|c| !c.is_control()).take(64).collect();
    let rule = format!("must be {} or {last}: nothing else can be named", names.join(", "));
    Err(invalid(format!("selector.{shown}"), rule))
}

/// One that names nothing would select more than was meant.
fn selector(named: Map<String, Value>) -> Result<Selector, Invalid> {
    check_names(&named, &["region"], "tags")?;
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
