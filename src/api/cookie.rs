//! The cookie of the page's sessions: a role and an end, signed by a key that follows from the token that opened it.
//!
//! Nothing is stored. Any pod with that token verifies it, and a token that is taken away takes its cookies along. It
//! never holds the token.
//!
//! Browsers send a cookie to every port of its host. So its name has a mark of its token: services on one host, each
//! with tokens of its own, leave each other's sessions alone, and what else comes under such a name changes nothing.

use std::str::FromStr;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::{Duration, OffsetDateTime};

use super::access::{Access, Role};
use crate::platform::token::Digest;

/// How long a session lasts: a working day.
const LIFETIME: Duration = Duration::hours(12);

/// How a cookie's name begins. Over TLS the prefix makes browsers refuse one that another host, or a page without TLS, has set.
const NAME: &str = "groundstation_session_";
const NAME_OVER_TLS: &str = "__Host-groundstation_session_";

/// The form of the value. Another form would get another word.
const FORM: &str = "v1";

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

/// The key's purpose: a key for one role signs nothing of the other.
fn purpose(role: Role) -> &'static str {
    match role {
        Role::Admin => "groundstation page session of an admin token",
        Role::Read => "groundstation page session of a read token",
    }
}

/// A new session's cookie, for `Set-Cookie`.
pub fn issue(role: Role, token: &Digest, now: OffsetDateTime, is_https: bool) -> String {
    let ends_at = (now + LIFETIME).unix_timestamp();
    let content = format!("{FORM}.{}.{ends_at}", role.as_str());
    let signature = URL_SAFE_NO_PAD.encode(token.sign(purpose(role), &content));
    let mark = URL_SAFE_NO_PAD.encode(&token.sign(purpose(role), "name")[..MARK_BYTES]);
    let name = format!("{}{mark}", name(is_https));
    set(&name, &format!("{content}.{signature}"), LIFETIME, is_https)
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

/// The role of the session whose cookie came with a request; none if there is none that is valid now.
pub fn role(
    headers: &HeaderMap,
    access: &Access,
    now: OffsetDateTime,
    is_https: bool,
) -> Option<Role> {
    valid(headers, access, now, is_https).next().map(|(_, role)| role)
}

/// The name and the role of each cookie of a request that opens something here now.
fn valid<'a>(
    headers: &'a HeaderMap,
    access: &'a Access,
    now: OffsetDateTime,
    is_https: bool,
) -> impl Iterator<Item = (&'a str, Role)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let named = pairs.map(|(name, value)| (name.trim(), value.trim()));
    named
        .filter(move |(name, _)| is_name(name, is_https))
        .filter_map(move |(name, value)| Some((name, verify(value, access, now)?)))
}

fn verify(value: &str, access: &Access, now: OffsetDateTime) -> Option<Role> {
    let (content, signature) = value.rsplit_once('.')?;
    let mut parts = content.split('.');
    let (FORM, role, ends_at, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    let role = Role::from_str(role).ok()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let is_signed = access.digests(role).signed(purpose(role), content, &signature);
    let is_valid = is_signed && now.unix_timestamp() < ends_at.parse::<i64>().ok()?;
    is_valid.then_some(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::token::Digests;
    use axum::http::HeaderValue;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    fn access(admin: &[&str], read: &[&str]) -> Access {
        let digests =
            |tokens: &[&str]| Digests::new(tokens.iter().map(|t| Digest::of(t)).collect());
        Access { admin: digests(admin), read: digests(read) }
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
        assert_eq!(role(&headers, &here, NOW, false), Some(Role::Read));
        assert_eq!(role(&headers, &there, NOW, false), Some(Role::Admin));
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
            assert_eq!(role(&headers, &here, NOW, asked_over_tls), expected);
        }
    }
}
