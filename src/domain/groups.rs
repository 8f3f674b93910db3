//! Which role a person has, by the groups that an identity provider or a proxy names.

use std::collections::BTreeSet;

use super::access::Role;

/// The groups that let people in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// May do everything.
    pub admin: BTreeSet<String>,
    /// May change satellites.
    pub operator: BTreeSet<String>,
    /// May look.
    pub read: BTreeSet<String>,
}

impl Groups {
    /// Whether no group lets anybody in.
    pub fn is_empty(&self) -> bool {
        self.admin.is_empty() && self.operator.is_empty() && self.read.is_empty()
    }

    /// The highest role that somebody in these groups has, and by which of them. None has no role.
    pub fn role<'a>(
        &self,
        groups: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<(Role, &'a str)> {
        let roles = [
            (Role::Admin, &self.admin),
            (Role::Operator, &self.operator),
            (Role::Read, &self.read),
        ];
        roles.into_iter().find_map(|(role, named)| {
            groups.clone().find(|group| named.contains(*group)).map(|group| (role, group))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_counts_and_nobody_without_a_named_group_has_one() {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let groups = Groups {
            admin: named(&["root"]),
            operator: named(&["ops", "eu"]),
            read: named(&["all"]),
        };
        assert!(!groups.is_empty() && Groups::default().is_empty());
        let cases: [(&[&str], Option<(Role, &str)>); 7] = [
            (&["all", "ops", "root"], Some((Role::Admin, "root"))),
            (&["all", "eu"], Some((Role::Operator, "eu"))),
            (&["all"], Some((Role::Read, "all"))),
            (&["All"], None),
            (&["roots", " root", "root "], None),
            (&[""], None),
            (&[], None),
        ];
        for (of, role) in cases {
            assert_eq!(groups.role(of.iter().copied()), role, "{of:?}");
        }
        assert_eq!(Groups::default().role(["", "root"].into_iter()), None);
    }
}
