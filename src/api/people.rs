//! Who gets in without a token: people in groups that the settings name, with a session or by a proxy.

use time::OffsetDateTime;

use super::person::{Person, PersonSession, PersonSessions};
use super::trusted_headers::TrustedHeaders;
use crate::domain::groups::Groups;

/// Who gets in without a token, and how.
#[derive(Default)]
pub struct People {
    /// The groups that let people in.
    pub groups: Groups,
    /// Where an identity provider is configured.
    pub sessions: Option<PersonSessions>,
    /// Where a proxy names people.
    pub headers: Option<TrustedHeaders>,
}

impl People {
    /// Begins a session of a person in these groups; none where none of them lets anybody in.
    pub fn begin(
        &self,
        subject: &str,
        name: &str,
        groups: &[String],
        now: OffsetDateTime,
    ) -> Option<Person> {
        let grant = self.groups.grant(groups.iter().map(String::as_str))?;
        Some(self.sessions.as_ref()?.begin(subject, name, grant, now))
    }

    /// A session as its cookie keeps it, and a mark of the key.
    pub fn seal(&self, session: &PersonSession) -> anyhow::Result<(String, &[u8; 32])> {
        let sessions = self.sessions.as_ref().ok_or_else(|| anyhow::anyhow!("no provider"))?;
        sessions.seal(session)
    }

    /// The person whose session was sealed, as long as it lasts and its group lets people in.
    pub fn open(&self, sealed: &str, now: OffsetDateTime) -> Option<Person> {
        self.sessions.as_ref()?.open(sealed, &self.groups, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::token::{Digest, Digests};
    use std::time::Duration;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn people(key: &str, issuer: &str, admin: &str) -> People {
        let keys = Digests::new(vec![Digest::of(key)]);
        let groups = Groups { admin: [admin.to_owned()].into(), ..Groups::default() };
        let sessions = PersonSessions::new(issuer, "page", HOUR, &keys).expect("sessions");
        People { groups, sessions: Some(sessions), headers: None }
    }

    #[test]
    fn a_session_lasts_for_its_time_and_as_long_as_its_group_lets_people_in() {
        let here = people("key", "https://id", "root");
        let groups = ["all".to_owned(), "root".to_owned()];
        let person = here.begin("7", "ada", &groups, NOW).expect("somebody");
        let session = person.session.clone().expect("a session");
        let (sealed, _) = here.seal(&session).expect("sealed");
        assert!(!["ada", "root", "https"].iter().any(|word| sealed.contains(word)));
        assert_eq!(here.open(&sealed, NOW), Some(person.clone()));
        assert_eq!(here.open(&sealed, NOW + HOUR - Duration::from_secs(1)), Some(person));
        assert_eq!(here.open(&sealed, NOW + HOUR), None);
        for other in [
            people("other", "https://id", "root"),
            people("key", "https://other", "root"),
            people("key", "https://id", "admins"),
            People::default(),
        ] {
            assert_eq!(other.open(&sealed, NOW), None);
        }
        assert_eq!(here.begin("7", "ada", &groups[..1], NOW), None);
        assert_eq!(People::default().begin("7", "ada", &groups, NOW), None);
    }
}
