//! The cookie of the page's sessions: a role and an end, signed by a key that follows from the token that opened it.
//!
//! Nothing is stored. Any pod with that token verifies it, and a token that is taken away takes its cookies along. It
//! never holds the token.

use std::str::FromStr;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::{Duration, OffsetDateTime};

use super::access::{Access, Role};
use crate::platform::token::Digest;

/// How long a session lasts: a working day.
const LIFETIME: Duration = Duration::hours(12);

/// The cookie's name. Over TLS the prefix makes browsers refuse one that another host, or a page without TLS, has set.
const NAME: &str = "groundstation_session";
const NAME_OVER_TLS: &str = "__Host-groundstation_session";

/// The form of the value. Another form would get another word.
const FORM: &str = "v1";

fn name(is_https: bool) -> &'static str {
    if is_https { NAME_OVER_TLS } else { NAME }
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
    set(&format!("{content}.{signature}"), LIFETIME, is_https)
}

/// Takes the cookie away.
pub fn clear(is_https: bool) -> String {
    set("", Duration::ZERO, is_https)
}

fn set(value: &str, age: Duration, is_https: bool) -> String {
    let (name, age) = (name(is_https), age.whole_seconds());
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
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(given, _)| given.trim() == name(is_https))?;
    verify(value.trim(), access, now)
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
