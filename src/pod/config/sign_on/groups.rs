//! The groups that let people in, and as what.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Map, Value};

use super::{text, words};
use crate::domain::access::Selector;
use crate::domain::groups::Groups;
use crate::pod::config::given;
use crate::registry::satellites::Invalid;
use crate::registry::selector;

/// The most groups of one role.
const MAX_GROUPS: usize = 200;

/// The arguments of the groups.
#[derive(Args, Clone)]
#[command(next_help_heading = "Single sign-on")]
pub(super) struct GroupArgs {
    /// The groups whose people may do everything; with commas, or with semicolons where a name has a comma
    #[arg(long, env = "GROUNDSTATION_OIDC_ADMIN_GROUPS", value_name = "GROUPS")]
    oidc_admin_groups: Option<String>,

    /// The groups whose people may change satellites
    #[arg(long, env = "GROUNDSTATION_OIDC_OPERATOR_GROUPS", value_name = "GROUPS")]
    oidc_operator_groups: Option<String>,

    /// The groups whose people may look
    #[arg(long, env = "GROUNDSTATION_OIDC_READ_GROUPS", value_name = "GROUPS")]
    oidc_read_groups: Option<String>,

    /// The part of the fleet that the people of a group reach, as JSON by group:
    /// {"ops-eu": {"region": "eu", "tags": {"tier": "gold"}}} [default: none, all reach the whole fleet]
    #[arg(long, env = "GROUNDSTATION_OIDC_GROUP_SELECTORS", value_name = "JSON")]
    oidc_group_selectors: Option<String>,
}

impl GroupArgs {
    /// The groups of each role; each group with a selector has a role.
    pub(super) fn check(&self) -> anyhow::Result<Groups> {
        let groups = Groups {
            admin: groups("GROUNDSTATION_OIDC_ADMIN_GROUPS", given(&self.oidc_admin_groups))?,
            operator: groups(
                "GROUNDSTATION_OIDC_OPERATOR_GROUPS",
                given(&self.oidc_operator_groups),
            )?,
            read: groups("GROUNDSTATION_OIDC_READ_GROUPS", given(&self.oidc_read_groups))?,
            selectors: selectors(given(&self.oidc_group_selectors))?,
        };
        if let Some(other) =
            groups.selectors.keys().find(|group| !groups.named().any(|named| named == *group))
        {
            bail!(
                "GROUNDSTATION_OIDC_GROUP_SELECTORS names the group {other:?}, which none of \
                 GROUNDSTATION_OIDC_ADMIN_GROUPS, GROUNDSTATION_OIDC_OPERATOR_GROUPS and \
                 GROUNDSTATION_OIDC_READ_GROUPS lets in"
            );
        }
        Ok(groups)
    }
}

fn groups(name: &str, list: Option<&str>) -> anyhow::Result<BTreeSet<String>> {
    let groups: BTreeSet<String> = words(list.unwrap_or_default())
        .map(|group| text(name, group))
        .collect::<anyhow::Result<_>>()?;
    ensure!(
        groups.len() <= MAX_GROUPS,
        "{name} has {} groups, it must be at most {MAX_GROUPS}",
        groups.len()
    );
    Ok(groups)
}

fn selectors(json: Option<&str>) -> anyhow::Result<BTreeMap<String, Selector>> {
    let name = "GROUNDSTATION_OIDC_GROUP_SELECTORS";
    let Some(json) = json else { return Ok(BTreeMap::new()) };
    let named: BTreeMap<String, Map<String, Value>> =
        serde_json::from_str(json).with_context(|| {
            format!("{name} must be JSON, such as {{\"ops-eu\": {{\"region\": \"eu\"}}}}")
        })?;
    let checked = named.into_iter().map(|(group, named)| {
        let selector = selector::check(Some(named));
        let selector = selector.map_err(|Invalid { field, rule }| {
            anyhow::anyhow!("{name}: of the group {group:?} the {field} {rule}")
        })?;
        Ok((group, selector))
    });
    checked.collect()
}
