//! A sign-on on its way: what a browser keeps, sealed, between its beginning and the provider's answer.
//!
//! `SameSite=Lax`, because the answer comes by a link of the provider's page. The state binds the answer to this
//! browser, the nonce the ID token to this attempt, and the verifier (PKCE) the code to this pod's question.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

use crate::platform::envelope::Envelope;

/// How long somebody may take to sign in at the provider.
const LIFETIME_SECONDS: i64 = 10 * 60;

const NAME: &str = "groundstation_sign_on";
const NAME_OVER_TLS: &str = "__Host-groundstation_sign_on";

/// The longest way back that is kept.
const MAX_WAY_BACK: usize = 1_024;

/// Where the page is.
const HOME: &str = "/console/";

/// One sign-on.
#[derive(Serialize, Deserialize)]
pub(super) struct Attempt {
    pub state: String,
    pub nonce: String,
    pub verifier: String,
    /// Where the person goes then.
    pub to: String,
    ends_at: i64,
}

impl Attempt {
    /// A new one. Fails only if the operating system has no randomness.
    pub fn new(to: Option<&str>, now: OffsetDateTime) -> anyhow::Result<Attempt> {
        Ok(Attempt {
            state: random()?,
            nonce: random()?,
            verifier: random()?,
            to: way_back(to),
            ends_at: now.unix_timestamp() + LIFETIME_SECONDS,
        })
    }

    /// What the provider is told of the verifier.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()))
    }

    /// Its cookie, for `Set-Cookie`.
    pub fn cookie(&self, envelope: &Envelope, is_https: bool) -> anyhow::Result<String> {
        let sealed = envelope.seal(&serde_json::to_string(self)?)?;
        Ok(set(&sealed, LIFETIME_SECONDS, is_https))
    }

    /// The attempt of this browser to which an answer with this state belongs.
    pub fn of(
        headers: &HeaderMap,
        state: &str,
        envelope: &Envelope,
        now: OffsetDateTime,
        is_https: bool,
    ) -> Option<Attempt> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
        let mut sealed = pairs.filter(|(given, _)| given.trim() == name(is_https));
        sealed.find_map(|(_, sealed)| {
            let attempt: Attempt = serde_json::from_str(&envelope.open(sealed.trim())?).ok()?;
            let is_its = bool::from(attempt.state.as_bytes().ct_eq(state.as_bytes()));
            (is_its && now.unix_timestamp() < attempt.ends_at).then_some(attempt)
        })
    }
}

fn name(is_https: bool) -> &'static str {
    if is_https { NAME_OVER_TLS } else { NAME }
}

/// Takes the cookie away.
pub(super) fn clear(is_https: bool) -> String {
    set("", 0, is_https)
}

fn set(value: &str, age: i64, is_https: bool) -> String {
    let (name, secure) = (name(is_https), if is_https { "; Secure" } else { "" });
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}")
}

/// 256 random bits: a verifier of 43 characters is the shortest there may be.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Only to a place of the page: anything else leads to its beginning.
fn way_back(to: Option<&str>) -> String {
    let is_place = |to: &&str| {
        to.starts_with(HOME)
            && to.len() <= MAX_WAY_BACK
            && to.bytes().all(|byte| byte.is_ascii_graphic())
            && !["//", "..", "\\", "/session"].iter().any(|part| to.contains(part))
    };
    to.filter(is_place).unwrap_or(HOME).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::token::{Digest, Digests};
    use axum::http::HeaderValue;
    use proptest::prelude::*;
    use time::Duration;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    fn envelope(key: &str) -> Envelope {
        Envelope::new(&Digests::new(vec![Digest::of(key)]), "attempts").expect("an envelope")
    }

    fn found(cookie: &str, state: &str, key: &str, now: OffsetDateTime, is_https: bool) -> bool {
        let pair = cookie.split(';').next().expect("a pair");
        let mut headers = HeaderMap::new();
        let line = format!("theme=dark; {pair}");
        headers.insert(header::COOKIE, HeaderValue::from_str(&line).expect("a value"));
        Attempt::of(&headers, state, &envelope(key), now, is_https).is_some()
    }

    #[test]
    fn an_attempt_is_found_by_its_state_in_its_browser_and_in_time() {
        let attempt = Attempt::new(None, NOW).expect("an attempt");
        let cookie = attempt.cookie(&envelope("key"), true).expect("a cookie");
        assert!(cookie.starts_with("__Host-groundstation_sign_on="), "{cookie}");
        assert!(cookie.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"));
        for secret in [&attempt.state, &attempt.nonce, &attempt.verifier] {
            assert!(secret.len() == 43 && !cookie.contains(secret.as_str()));
        }
        assert!(found(&cookie, &attempt.state, "key", NOW, true));
        assert!(!found(&cookie, "other", "key", NOW, true));
        assert!(!found(&cookie, "", "key", NOW, true));
        assert!(!found(&cookie, &attempt.state, "other", NOW, true));
        assert!(!found(&cookie, &attempt.state, "key", NOW, false));
        let late = NOW + Duration::seconds(LIFETIME_SECONDS);
        assert!(!found(&cookie, &attempt.state, "key", late, true));
        assert!(found(&cookie, &attempt.state, "key", late - Duration::SECOND, true));
    }

    #[test]
    fn two_attempts_share_nothing() {
        let [a, b] = [(); 2].map(|()| Attempt::new(None, NOW).expect("an attempt"));
        assert_ne!((&a.state, &a.nonce, &a.verifier), (&b.state, &b.nonce, &b.verifier));
        assert!(a.state != a.nonce && a.nonce != a.verifier);
    }

    #[test]
    fn the_way_back_leads_to_the_page_and_nowhere_else() {
        let long = format!("/console/{}", "x".repeat(1_024));
        for (to, kept) in [
            ("/console/", true),
            ("/console/log?event=connected&tag=tier:gold", true),
            ("/console/satellites/7?at=2026-03-01T12:00:00.000Z", true),
            ("/console", false),
            ("/v1/fleet", false),
            ("/console/../v1/fleet", false),
            ("//evil.example/console/", false),
            ("/console//evil.example", false),
            ("/console/\\evil.example", false),
            ("https://evil.example/console/", false),
            ("/console/session/oidc", false),
            ("/console/\r\nSet-Cookie: a=b", false),
            ("/console/é", false),
            (&long, false),
            ("", false),
        ] {
            assert_eq!(way_back(Some(to)), if kept { to } else { HOME }, "{to}");
        }
        assert_eq!(way_back(None), HOME);
    }

    proptest! {
        #[test]
        fn wherever_one_asks_to_go_it_is_below_the_page(to in "\\PC{0,60}") {
            for to in [to.clone(), format!("/console/{to}")] {
                let kept = way_back(Some(&to));
                prop_assert!(kept.starts_with(HOME) && !kept.contains("//") && !kept.contains('\\'));
            }
        }
    }
}
