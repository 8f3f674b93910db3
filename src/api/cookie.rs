//! The cookie of the page's sessions: which token opened it and its end, signed by a key that follows from that token.
//! Or the session of a person whom an identity provider has named, sealed ([`super::person`]).
//!
//! Nothing is stored. Any pod with that token verifies it, and a token that is taken away, revoked or over takes its
//! cookies along. The digest of a named token is in the database, so its key takes an admin token of the settings too. A
//! cookie never holds its token. What it allows is not in it: that is asked of the token each time.
//!
//! Browsers send a cookie to every port of its host. So its name has a mark of its token: services on one host, each
//! with tokens of its own, leave each other's sessions alone, and what else comes under such a name changes nothing.

use std::str::FromStr;

use anyhow::Context;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::access::{Access, Shut};
use super::caller::{Caller, Credential};
use crate::domain::access::Role;
use crate::platform::token::Digest;

/// How long a session lasts: a working day.
const LIFETIME: Duration = Duration::hours(12);

/// How a cookie's name begins. Over TLS the prefix makes browsers refuse one that another host, or a page without TLS, has set.
const NAME: &str = "groundstation_session_";
const NAME_OVER_TLS: &str = "__Host-groundstation_session_";

/// The form of the value: of a token of the settings, with its role, of a named one, with its id, and of a person, sealed.
/// Another form would get another word.
const FORM: &str = "v1";
const FORM_OF_NAMED: &str = "v2";
const FORM_OF_PERSON: &str = "v3.";

/// How a name goes on: with a mark of this many bytes.
const MARK_BYTES: usize = 6;
const MARK_LENGTH: usize = MARK_BYTES / 3 * 4;

fn name(is_https: bool) -> &'static str {
    if is_https { NAME_OVER_TLS } else { NAME }
}

fn is_name(given: &str, is_https: bool) -> bool {
    given.strip_prefix(name(is_https)).is_some_and(|mark| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        mark.len() == MARK_LENGTH && mark.bytes().all(fits)
    })
}

/// The key's purpose: a key for one role of the settings signs nothing of the other.
fn purpose(role: Role) -> &'static str {
    match role {
        Role::Read => "groundstation page session of a read token",
        Role::Admin | Role::Operator | Role::Enrol => {
            "groundstation page session of an admin token"
        }
    }
}

const PURPOSE_OF_NAMED: &str = "groundstation page session of a named token";

/// A new session's cookie, for `Set-Cookie`. Fails for a named token where the settings have no admin token.
pub fn issue(
    caller: &Caller,
    access: &Access,
    now: OffsetDateTime,
    is_https: bool,
) -> anyhow::Result<String> {
    let ends_at = (now + LIFETIME).unix_timestamp();
    let (content, signature, purpose, token): (_, _, _, &Digest) = match caller.credential() {
        Credential::Setting(role, token) => {
            let content = format!("{FORM}.{}.{ends_at}", role.as_str());
            let signature = token.sign(purpose(*role), &content);
            (content, signature, purpose(*role), token)
        }
        Credential::Named(token) => {
            let content = format!("{FORM_OF_NAMED}.{}.{ends_at}", token.id);
            let signature = access.settings().sign(&token.digest, PURPOSE_OF_NAMED, &content);
            let signature = signature.context("no admin token signs sessions of named ones")?;
            (content, signature, PURPOSE_OF_NAMED, &token.digest)
        }
        Credential::Person(person) => {
            let session = person.session.as_ref();
            let session = session.context("whoever comes by a proxy has no session")?;
            let (sealed, mark) = access.people().seal(session)?;
            let age = Duration::seconds(session.seconds_left(access.now()));
            let value = format!("{FORM_OF_PERSON}{sealed}");
            return Ok(set(&marked(mark, is_https), &value, age, is_https));
        }
    };
    let signature = URL_SAFE_NO_PAD.encode(signature);
    let name = marked(&token.sign(purpose, "name"), is_https);
    Ok(set(&name, &format!("{content}.{signature}"), LIFETIME, is_https))
}

/// A cookie's name, with the mark of what signs it.
fn marked(mark: &[u8; 32], is_https: bool) -> String {
    format!("{}{}", name(is_https), URL_SAFE_NO_PAD.encode(&mark[..MARK_BYTES]))
}

/// Takes the cookies of a request away that open anything here; those of other services on this host stay.
pub fn clear(
    headers: &HeaderMap,
    access: &Access,
    now: OffsetDateTime,
    is_https: bool,
) -> Vec<String> {
    let here = valid(headers, access, now, is_https);
    here.map(|(name, _)| set(name, "", Duration::ZERO, is_https)).collect()
}

fn set(name: &str, value: &str, age: Duration, is_https: bool) -> String {
    let age = age.whole_seconds();
    let secure = if is_https { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
}

/// The caller whose session's cookie came with a request.
pub fn caller(
    headers: &HeaderMap,
    access: &Access,
    now: OffsetDateTime,
    is_https: bool,
) -> Result<Caller, Shut> {
    let mut found = Err(Shut::Unknown);
    for (_, caller) in valid(headers, access, now, is_https) {
        found = caller;
        if found.is_ok() {
            break;
        }
    }
    found
}

/// The name and the caller of each cookie of a request that opens something here now, or could if its token were known
/// to be valid still.
fn valid<'a>(
    headers: &'a HeaderMap,
    access: &'a Access,
    now: OffsetDateTime,
    is_https: bool,
) -> impl Iterator<Item = (&'a str, Result<Caller, Shut>)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let named = pairs.map(|(name, value)| (name.trim(), value.trim()));
    named
        .filter(move |(name, _)| is_name(name, is_https))
        .map(move |(name, value)| (name, verify(value, access, now)))
        .filter(|(_, caller)| !matches!(caller, Err(Shut::Unknown)))
}

fn verify(value: &str, access: &Access, now: OffsetDateTime) -> Result<Caller, Shut> {
    if let Some(sealed) = value.strip_prefix(FORM_OF_PERSON) {
        return access.person(sealed);
    }
    let Some((content, signature)) = value.rsplit_once('.') else { return Err(Shut::Unknown) };
    let mut parts = content.split('.');
    let parts = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(form), Some(whose), Some(ends_at), None) = parts else { return Err(Shut::Unknown) };
    let is_over = ends_at.parse().map_or(true, |ends_at: i64| ends_at <= now.unix_timestamp());
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return Err(Shut::Unknown) };
    match form {
        _ if is_over => Err(Shut::Unknown),
        FORM => of_setting(whose, content, &signature, access).ok_or(Shut::Unknown),
        FORM_OF_NAMED => {
            let id = Uuid::try_parse(whose).map_err(|_| Shut::Unknown)?;
            access.signer(id, PURPOSE_OF_NAMED, content, &signature)
        }
        _ => Err(Shut::Unknown),
    }
}

fn of_setting(role: &str, content: &str, signature: &[u8], access: &Access) -> Option<Caller> {
    let role = Role::from_str(role).ok()?;
    let settings = access.settings();
    let token = settings.digests(role)?.signer(purpose(role), content, signature)?;
    Some(Credential::Setting(role, token.clone()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::access::Settings;
    use crate::api::people::People;
    use crate::api::person::PersonSessions;
    use crate::contract::wire::Actor;
    use crate::domain::groups::Groups;
    use crate::platform::token::Digests;
    use crate::registry::tokens::Known;
    use axum::http::HeaderValue;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    fn access(admin: &[&str], read: &[&str]) -> Access {
        let digests =
            |tokens: &[&str]| Digests::new(tokens.iter().map(|t| Digest::of(t)).collect());
        Access::made_up(Settings { admin: digests(admin), read: digests(read) }, Vec::new())
    }

    /// A session of a token of the settings.
    fn issue(role: Role, token: &Digest, now: OffsetDateTime, is_https: bool) -> String {
        let caller = Credential::Setting(role, token.clone()).into();
        super::issue(&caller, &access(&[], &[]), now, is_https).expect("a cookie")
    }

    fn verify(value: &str, access: &Access, now: OffsetDateTime) -> Option<Role> {
        super::verify(value, access, now).ok().map(|caller| caller.role())
    }

    fn role(headers: &HeaderMap, access: &Access, is_https: bool) -> Option<Role> {
        caller(headers, access, NOW, is_https).ok().map(|caller| caller.role())
    }

    /// The value of a cookie that was just set.
    fn value(set_cookie: &str) -> &str {
        let (pair, _) = set_cookie.split_once(';').expect("attributes");
        pair.split_once('=').expect("a pair").1
    }

    #[test]
    fn a_cookie_says_its_role_until_it_ends_and_as_long_as_its_token_is_configured() {
        let cookie = issue(Role::Read, &Digest::of("reader"), NOW, false);
        let here = access(&["boss"], &["other", "reader"]);
        assert_eq!(verify(value(&cookie), &here, NOW), Some(Role::Read));
        let nearly = NOW + LIFETIME - Duration::SECOND;
        assert_eq!(verify(value(&cookie), &here, nearly), Some(Role::Read));
        assert_eq!(verify(value(&cookie), &here, NOW + LIFETIME), None);
        assert_eq!(verify(value(&cookie), &access(&["boss"], &["other"]), NOW), None);
        assert_eq!(verify(value(&cookie), &access(&["reader"], &[]), NOW), None);
        assert!(!cookie.contains("reader"));
    }

    #[test]
    fn nothing_of_a_cookie_can_be_changed() {
        let here = access(&["boss", "reader"], &["reader"]);
        let cookie = issue(Role::Read, &Digest::of("reader"), NOW, false);
        let value = value(&cookie);
        let later = (NOW + Duration::DAY).unix_timestamp().to_string();
        let ends_at = value.split('.').nth(2).expect("an end");
        let changed = [
            value.replace("read", "admin"),
            value.replace(ends_at, &later),
            value.replace("v1", "v2"),
            value.replacen('.', "..", 1),
            format!("{value}A"),
            value[..value.len() - 4].to_owned(),
            String::new(),
            "v1.admin.99999999999.".to_owned(),
            format!("v1.admin.99999999999.{}", URL_SAFE_NO_PAD.encode([0; 32])),
        ];
        for changed in changed {
            assert_eq!(verify(&changed, &here, NOW), None, "{changed}");
        }
    }

    #[test]
    fn a_cookie_of_a_named_token_is_of_that_token_and_says_nothing_of_what_it_allows() {
        let known = |id: u128, role, token: &str| Known {
            id: Uuid::from_u128(id),
            name: "deploy".to_owned(),
            role,
            selector: Default::default(),
            digest: Digest::of(token),
            expires_at: None,
        };
        let own = |own: &[&str]| Digests::new(own.iter().map(|own| Digest::of(own)).collect());
        let with = |admin: &[&str], tokens| {
            Access::made_up(Settings { admin: own(admin), ..Settings::default() }, tokens)
        };
        let there = |tokens| with(&["boss"], tokens);
        let here = there(vec![known(1, Role::Operator, "one"), known(2, Role::Admin, "two")]);
        let caller = Caller::from(Credential::Named(known(1, Role::Operator, "one").into()));
        let cookie = super::issue(&caller, &here, NOW, false).expect("a cookie");
        let value = value(&cookie);
        assert!(!["operator", "deploy", "one"].iter().any(|word| value.contains(word)), "{value}");
        assert_eq!(verify(value, &here, NOW), Some(Role::Operator));
        assert_eq!(verify(value, &here, NOW + LIFETIME), None);
        // Of a token that has another role now, that one counts.
        assert_eq!(verify(value, &there(vec![known(1, Role::Read, "one")]), NOW), Some(Role::Read));
        let gone = there(vec![known(2, Role::Operator, "one"), known(1, Role::Operator, "two")]);
        assert_eq!(verify(value, &gone, NOW), None);
        let other = value.replace(&Uuid::from_u128(1).to_string(), &Uuid::from_u128(2).to_string());
        assert_ne!(other, value);
        assert_eq!(verify(&other, &here, NOW), None);
        assert_eq!(verify(&value.replace("v2", "v1"), &here, NOW), None);
        // While the settings' token is replaced both count, and after that the session is over.
        let one = || vec![known(1, Role::Operator, "one")];
        assert_eq!(verify(value, &with(&["new", "boss"], one()), NOW), Some(Role::Operator));
        for others in [&["new"][..], &[]] {
            assert_eq!(verify(value, &with(others, one()), NOW), None);
        }
        assert!(super::issue(&caller, &with(&[], one()), NOW, false).is_err());
        let content = value.rsplit_once('.').expect("a signature").0;
        let by_digest = Digest::of("one").sign(PURPOSE_OF_NAMED, content);
        let forged = format!("{content}.{}", URL_SAFE_NO_PAD.encode(by_digest));
        assert_eq!(verify(&forged, &here, NOW), None, "the digest is in every backup");
    }

    #[test]
    fn a_cookie_of_a_person_is_sealed_and_says_nothing_that_can_be_read_or_changed() {
        let people = |key: &str| People {
            groups: Groups { operator: ["ops".to_owned()].into(), ..Groups::default() },
            sessions: PersonSessions::new(
                "https://id",
                "page",
                std::time::Duration::from_secs(3_600),
                &Digests::new(vec![Digest::of(key)]),
            )
            .ok(),
            headers: None,
        };
        let there = |key: &str| Access::made_up_with(Settings::default(), Vec::new(), people(key));
        let here = there("key");
        let groups = ["ops".to_owned()];
        let ada = here.people().begin("7", "ada", &groups, here.now()).expect("somebody");
        let caller: Caller = Credential::Person(ada.into()).into();
        let cookie = super::issue(&caller, &here, NOW, true).expect("a cookie");
        assert!(
            cookie.starts_with("__Host-groundstation_session_")
                && is_name(cookie.split('=').next().expect("a name"), true)
        );
        assert!(cookie.contains("; Max-Age=3600; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
        let value = value(&cookie);
        assert!(!["ada", "ops", "7."].iter().any(|word| value.contains(word)), "{value}");
        let found = super::verify(value, &here, NOW).unwrap_or_else(|shut| panic!("{shut:?}"));
        assert_eq!((found.role(), found.name()), (Role::Operator, Some("ada")));
        assert_eq!(found.actor(), Actor::person("ada"));
        assert_eq!(verify(value, &there("other"), NOW), None);
        assert_eq!(verify(&value.replacen("v3", "v2", 1), &here, NOW), None);
        assert_eq!(verify(&format!("{value}A"), &here, NOW), None);
    }

    #[test]
    fn services_on_one_host_leave_each_others_sessions_alone() {
        let (here, there) = (access(&["boss"], &["reader"]), access(&["chief"], &[]));
        let cookie = |role, token| issue(role, &Digest::of(token), NOW, false);
        let pair = |cookie: &str| cookie.split(';').next().expect("a pair").to_owned();
        let (ours, theirs) = (cookie(Role::Read, "reader"), cookie(Role::Admin, "chief"));
        let (name, _) = ours.split_once('=').expect("a pair");
        // A path of its own puts a cookie before others of its name.
        let line = format!("{name}=nonsense; {}; {}", pair(&theirs), pair(&ours));
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&line).expect("a value"));
        assert_eq!(role(&headers, &here, false), Some(Role::Read));
        assert_eq!(role(&headers, &there, false), Some(Role::Admin));
        let gone = format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
        assert_eq!(clear(&headers, &here, NOW, false), [gone]);
        assert!(!theirs.starts_with(&format!("{name}=")));
    }

    #[test]
    fn what_is_not_named_as_a_session_is_none() {
        for (given, expected) in [
            ("groundstation_session_AZaz09-_", true),
            ("groundstation_session", false),
            ("groundstation_session_", false),
            ("groundstation_session_AZaz09-", false),
            ("groundstation_session_AZaz 9-_", false),
            ("groundstation_session_AZaz09-_A", false),
            ("__Host-groundstation_session_AZaz09-_", false),
        ] {
            assert_eq!(is_name(given, false), expected, "{given}");
        }
    }

    #[test]
    fn over_tls_only_a_cookie_that_was_set_over_tls_counts() {
        let here = access(&["boss"], &[]);
        for (set_over_tls, asked_over_tls) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let cookie = issue(Role::Admin, &Digest::of("boss"), NOW, set_over_tls);
            assert_eq!(cookie.ends_with("; Secure"), set_over_tls);
            assert_eq!(cookie.starts_with("__Host-"), set_over_tls);
            assert!(
                cookie.contains("; Path=/; ") && cookie.contains("; HttpOnly; SameSite=Strict")
            );
            let pair = format!("theme=dark; {}", cookie.split(';').next().expect("a pair"));
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(&pair).expect("a value"));
            let expected = (set_over_tls == asked_over_tls).then_some(Role::Admin);
            assert_eq!(role(&headers, &here, asked_over_tls), expected);
        }
    }
}
