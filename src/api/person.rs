//! A person whom an identity provider or an authenticating proxy names, and the session that keeps it signed in.
//!
//! A session of an identity provider is a sealed cookie: nothing is stored, and every pod with the key opens it. It has
//! the group that let the person in, and not the role: what that group allows is asked of the settings each time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::access::{Role, Selector};
use crate::domain::groups::{Grant, Groups};
use crate::platform::envelope::Envelope;
use crate::platform::token::Digests;
use crate::registry::satellites::is_unseen;

/// The longest name of a person in the records.
const MAX_NAME: usize = 100;

/// The longest subject, as OpenID Connect has it.
const MAX_SUBJECT: usize = 255;

/// Somebody who is known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// What the records call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Which part of the fleet it reaches.
    pub selector: Selector,
    /// The session that it signed in to; none where a proxy names it with each request.
    pub session: Option<PersonSession>,
}

/// The session of a person, as the cookie has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonSession {
    /// By which it is ended.
    pub id: Uuid,
    /// Who vouched for the person.
    #[serde(rename = "iss")]
    issuer: String,
    /// What the issuer calls the person, for ever.
    #[serde(rename = "sub")]
    subject: String,
    name: String,
    group: String,
    /// Seconds since 1970.
    #[serde(rename = "exp")]
    ends_at: i64,
}

impl PersonSession {
    /// Whether it is over.
    pub fn is_over(&self, now: OffsetDateTime) -> bool {
        self.ends_at <= now.unix_timestamp()
    }

    /// For how many seconds it goes on.
    pub fn seconds_left(&self, now: OffsetDateTime) -> i64 {
        (self.ends_at - now.unix_timestamp()).max(0)
    }

    /// When it ends.
    pub fn end(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.ends_at).ok()
    }
}

/// The sessions of people who signed in with an identity provider.
pub struct PersonSessions {
    issuer: String,
    lifetime: Duration,
    envelope: Envelope,
    /// Part of the cookie's name: services on one host leave each other's alone.
    mark: [u8; 32],
}

impl PersonSessions {
    /// Sessions of this provider's people. The first key seals, all open.
    pub fn new(
        issuer: &str,
        client: &str,
        lifetime: Duration,
        keys: &Digests,
    ) -> anyhow::Result<PersonSessions> {
        let purpose = format!("groundstation page session of a person of {client} at {issuer}");
        let envelope = Envelope::new(keys, &purpose)?;
        let first = keys.first().ok_or_else(|| anyhow::anyhow!("there is no key"))?;
        let mark = first.sign(&purpose, "name");
        Ok(PersonSessions { issuer: issuer.to_owned(), lifetime, envelope, mark })
    }

    /// Begins one of a person whom a group lets in.
    pub fn begin(
        &self,
        subject: &str,
        name: &str,
        grant: Grant<'_>,
        now: OffsetDateTime,
    ) -> Person {
        let Grant { group, role, selector } = grant;
        let session = PersonSession {
            id: Uuid::new_v4(),
            issuer: self.issuer.clone(),
            subject: subject.to_owned(),
            name: name.to_owned(),
            group: group.to_owned(),
            ends_at: (now + self.lifetime).unix_timestamp(),
        };
        Person { name: name.to_owned(), role, selector, session: Some(session) }
    }

    /// A session as its cookie keeps it, and a mark of the key.
    pub fn seal(&self, session: &PersonSession) -> anyhow::Result<(String, &[u8; 32])> {
        Ok((self.envelope.seal(&serde_json::to_string(session)?)?, &self.mark))
    }

    /// The person whose session was sealed, as long as it lasts and its group lets people in.
    pub fn open(&self, sealed: &str, groups: &Groups, now: OffsetDateTime) -> Option<Person> {
        let session: PersonSession = serde_json::from_str(&self.envelope.open(sealed)?).ok()?;
        if session.is_over(now) || session.issuer != self.issuer {
            return None;
        }
        let grant = groups.grant(std::iter::once(session.group.as_str()))?;
        let Grant { role, selector, .. } = grant;
        Some(Person { name: session.name.clone(), role, selector, session: Some(session) })
    }
}

/// What the records call somebody of this name: without what is not seen, and not longer than they take. None where
/// nothing is left.
pub fn name_of(text: &str) -> Option<String> {
    let kept = text.chars().filter(|c| !c.is_control() && !is_unseen(*c));
    let name: String = kept.take(MAX_NAME).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Whether a subject is one.
pub fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_SUBJECT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_nothing_that_is_not_seen_and_is_not_too_long() {
        let long = "é".repeat(300);
        for (text, name) in [
            ("ada", Some("ada")),
            ("  Ada Lovelace ", Some("Ada Lovelace")),
            ("a\u{202e}d\u{0}a\r\n", Some("ada")),
            ("\u{200b}\u{7f}", None),
            ("   ", None),
            ("", None),
            (&long, Some(&long[..2 * MAX_NAME])),
        ] {
            assert_eq!(name_of(text).as_deref(), name, "{text:?}");
        }
        assert!(is_subject("7") && !is_subject("") && !is_subject(&"x".repeat(256)));
    }
}
