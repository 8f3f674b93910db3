//! What a person may do, by the groups that an identity provider or a proxy names.

use std::collections::{BTreeMap, BTreeSet};

use super::access::{Role, Selector};

/// The groups that let people in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// May do everything.
    pub admin: BTreeSet<String>,
    /// May change satellites.
    pub operator: BTreeSet<String>,
    /// May look.
    pub read: BTreeSet<String>,
    /// Those of them that reach a part of the fleet.
    pub selectors: BTreeMap<String, Selector>,
}

/// What a group gives to its people.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The group.
    pub group: &'a str,
    /// What they may do.
    pub role: Role,
    /// Which part of the fleet they reach.
    pub selector: Selector,
}

impl Groups {
    /// Whether no group lets anybody in.
    pub fn is_empty(&self) -> bool {
        self.named().next().is_none()
    }

    /// All groups that let people in.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let all = self.admin.iter().chain(&self.operator).chain(&self.read);
        all.map(String::as_str)
    }

    /// What somebody in these groups may do. One group decides: of those with the highest role one that reaches the whole
    /// fleet, or else the first by its name. None of them, nothing.
    pub fn grant<'a>(&self, groups: impl Iterator<Item = &'a str> + Clone) -> Option<Grant<'a>> {
        let roles = [
            (Role::Admin, &self.admin),
            (Role::Operator, &self.operator),
            (Role::Read, &self.read),
        ];
        roles.into_iter().find_map(|(role, named)| {
            let of_role = groups.clone().filter(|group| named.contains(*group));
            let group =
                of_role.min_by_key(|group| (self.selectors.contains_key(*group), *group))?;
            let selector = self.selectors.get(group).cloned().unwrap_or_default();
            Some(Grant { group, role, selector })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_counts_then_the_widest_reach_and_nobody_without_a_named_group_gets_in() {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let region = |text: &str| Selector { region: Some(text.to_owned()), ..Selector::default() };
        let bound = |group: &str, text| (group.to_owned(), region(text));
        let groups = Groups {
            admin: named(&["root"]),
            operator: named(&["ops", "ops-eu", "ops-us"]),
            read: named(&["all"]),
            selectors: [bound("ops-eu", "eu"), bound("ops-us", "us")].into(),
        };
        assert!(!groups.is_empty() && Groups::default().is_empty());
        let grant = |group, role, selector| Some(Grant { group, role, selector });
        let everything = Selector::default;
        let cases: [(&[&str], Option<Grant<'_>>); 10] = [
            (&["all", "ops", "root"], grant("root", Role::Admin, everything())),
            (&["all", "ops"], grant("ops", Role::Operator, everything())),
            (&["ops-eu", "ops", "ops-us"], grant("ops", Role::Operator, everything())),
            (&["ops-us", "ops-eu"], grant("ops-eu", Role::Operator, region("eu"))),
            (&["all", "ops-us"], grant("ops-us", Role::Operator, region("us"))),
            (&["all"], grant("all", Role::Read, everything())),
            (&["All"], None),
            (&["roots", " root", "root "], None),
            (&[""], None),
            (&[], None),
        ];
        for (of, expected) in cases {
            assert_eq!(groups.grant(of.iter().copied()), expected, "{of:?}");
        }
        assert_eq!(Groups::default().grant(["", "root"].into_iter()), None);
    }
}
