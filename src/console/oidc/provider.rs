//! The identity provider: its description and its keys, and the questions it is asked.
//!
//! It is asked for the first time when somebody signs in, so a pod starts without it. What it says of itself counts for an
//! hour. A token by a key that is not known makes this pod ask for the keys again, at a bounded rate.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;
use ureq::http::{Request, header};

use super::id_token::{self, Expected, Wrong};
use super::refused::{Refused, Word};
use super::settings::Settings;
use crate::platform::bucket::{Bucket, Rate};
use crate::platform::fetch::{Fetcher, is_trustworthy};

/// For how long what the provider says of itself counts.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// After a question without an answer others are told so at once, for this long: they do not wait one after another.
const PAUSE: Duration = Duration::from_secs(2);

/// How often keys are asked for because a token's is not known: whoever may sign in could cause it.
const KEYS_ASKED: Rate = Rate { burst: 5.0, per_second: 1.0 / 30.0 };

/// The most keys that are looked at.
const MAX_KEYS: usize = 64;

/// What the provider says of itself.
#[derive(Deserialize)]
struct Described {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Described {
    /// Where the provider does not say, it does (OpenID Connect Discovery, 3).
    fn takes_secret_in_header(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_ref();
        methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"))
    }
}

/// A question, unless it cannot be asked.
type Question = Result<Request<Vec<u8>>, ureq::http::Error>;

/// The provider, as it was found.
struct Found {
    described: Described,
    keys: Vec<Jwk>,
    found_at: Instant,
}

/// What is known of it now.
struct State {
    found: Option<Arc<Found>>,
    /// The last question without an answer.
    failed: Option<(Instant, String)>,
    keys_asked: Bucket,
}

/// The provider, to be asked.
pub(super) struct Provider {
    settings: Settings,
    fetcher: Fetcher,
    state: Mutex<State>,
}

/// Whom it names.
pub(super) struct Named {
    pub subject: String,
    pub claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

fn away(asked: &str, why: impl std::fmt::Display) -> Refused {
    Refused::new(Word::ProviderAway, format!("{asked} does not answer: {why}"))
}

impl Provider {
    pub fn new(settings: Settings) -> anyhow::Result<Provider> {
        let fetcher = Fetcher::new("GROUNDSTATION_OIDC_CA", settings.roots.as_deref())?;
        let keys_asked = Bucket::full(KEYS_ASKED, Instant::now());
        let state = Mutex::new(State { found: None, failed: None, keys_asked });
        Ok(Provider { settings, fetcher, state })
    }

    /// Where a person signs in, with these parameters added.
    pub async fn sign_in_url(&self, parameters: &[(&str, &str)]) -> Result<String, Refused> {
        let found = self.found().await?;
        let endpoint = &found.described.authorization_endpoint;
        let more =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{endpoint}{joint}{more}"))
    }

    /// Whether an answer that says it is of this issuer is the provider's (RFC 9207).
    pub async fn check_issuer(&self, said: Option<&str>) -> Result<(), Refused> {
        match said {
            Some(said) if said == self.settings.issuer => Ok(()),
            Some(_) => Err(Refused::wrong("the answer is of another issuer (iss)")),
            None => {
                match self.found().await?.described.authorization_response_iss_parameter_supported {
                    true => {
                        Err(Refused::wrong("the answer does not say of which issuer it is (iss)"))
                    }
                    false => Ok(()),
                }
            }
        }
    }

    /// Exchanges a code for whom it is about.
    pub async fn exchange(
        &self,
        code: &str,
        verifier: &str,
        nonce: &str,
    ) -> Result<Named, Refused> {
        let found = self.found().await?;
        let tokens = self.tokens(&found.described, code, verifier).await?;
        let settings = &self.settings;
        let expected = Expected { issuer: &settings.issuer, client: &settings.client, nonce };
        let mut verified = id_token::verify(&tokens.id_token, &found.keys, &expected);
        if verified == Err(Wrong::Key) {
            let found = self.with_new_keys(&found).await?;
            verified = id_token::verify(&tokens.id_token, &found.keys, &expected);
        }
        let mut claims = verified.map_err(|wrong| match wrong {
            Wrong::Key => {
                Refused::wrong("the ID token is signed by a key that the provider does not have")
            }
            Wrong::Token(why) => Refused::wrong(why),
        })?;
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        if claim(&claims, &settings.groups_claim).is_none()
            && let Some(endpoint) = &found.described.userinfo_endpoint
            && let Some(access_token) = &tokens.access_token
        {
            let mut more = self.user_info(endpoint, access_token, &subject).await?;
            more.append(&mut claims);
            claims = more;
        }
        Ok(Named { subject, claims })
    }

    async fn tokens(
        &self,
        described: &Described,
        code: &str,
        verifier: &str,
    ) -> Result<Tokens, Refused> {
        let asked = &described.token_endpoint;
        let (status, body) = self.ask(asked, self.question(described, code, verifier)).await?;
        if status != 200 {
            return Err(Refused::wrong(format!("{asked} answers {status}{}", error_in(&body))));
        }
        read(asked, &body)
    }

    /// What to ask for the tokens with.
    fn question(&self, described: &Described, code: &str, verifier: &str) -> Question {
        let Settings { client, secret, redirect_url, .. } = &self.settings;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_url),
            ("code_verifier", verifier),
        ]);
        let mut request = Request::post(&described.token_endpoint)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        match secret.as_ref().map(|secret| secret.expose_secret()) {
            Some(secret) if described.takes_secret_in_header() => {
                let encoded = |text: &str| -> String {
                    form_urlencoded::byte_serialize(text.as_bytes()).collect()
                };
                let pair = STANDARD.encode(format!("{}:{}", encoded(client), encoded(secret)));
                request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
            }
            Some(secret) => {
                form.extend_pairs([("client_id", client.as_str()), ("client_secret", secret)]);
            }
            None => {
                form.append_pair("client_id", client);
            }
        }
        request.body(form.finish().into_bytes())
    }

    /// What the provider says of a person beside the ID token.
    async fn user_info(
        &self,
        endpoint: &str,
        access_token: &str,
        subject: &str,
    ) -> Result<Map<String, Value>, Refused> {
        let request = Request::get(endpoint)
            .header(header::AUTHORIZATION, format!("Bearer {access_token}"))
            .header(header::ACCEPT, "application/json")
            .body(Vec::new());
        let (status, body) = self.ask(endpoint, request).await?;
        if status != 200 {
            return Err(Refused::wrong(format!("{endpoint} answers {status}{}", error_in(&body))));
        }
        let claims: Map<String, Value> = read(endpoint, &body)?;
        match claims.get("sub").and_then(Value::as_str) == Some(subject) {
            true => Ok(claims),
            false => Err(Refused::wrong(format!("{endpoint} answers for somebody else"))),
        }
    }

    /// The provider as it is now, or was within the hour.
    async fn found(&self) -> Result<Arc<Found>, Refused> {
        // One asks, the others wait for the answer.
        let mut state = self.state.lock().await;
        if let Some(found) = state.found.as_ref().filter(|found| found.found_at.elapsed() < MAX_AGE)
        {
            return Ok(found.clone());
        }
        if let Some((_, why)) = state.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return Err(Refused::new(Word::ProviderAway, why.clone()));
        }
        match self.find().await {
            Ok(found) => {
                let found = Arc::new(found);
                (state.found, state.failed) = (Some(found.clone()), None);
                Ok(found)
            }
            Err(refused) => {
                if refused.word == Word::ProviderAway {
                    state.failed = Some((Instant::now(), refused.why.clone()));
                }
                Err(refused)
            }
        }
    }

    async fn find(&self) -> Result<Found, Refused> {
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let described: Described = self.get(&url).await?;
        if described.issuer != *issuer {
            let said: String = described.issuer.chars().take(200).collect();
            return Err(Refused::wrong(format!(
                "{url} says that the issuer is {said:?}, and GROUNDSTATION_OIDC_ISSUER is {issuer:?}"
            )));
        }
        let endpoints = [
            Some(&described.authorization_endpoint),
            Some(&described.token_endpoint),
            Some(&described.jwks_uri),
            described.userinfo_endpoint.as_ref(),
        ];
        if !endpoints.into_iter().flatten().all(|endpoint| is_trustworthy(endpoint)) {
            return Err(Refused::wrong(format!("{url} names an address without TLS")));
        }
        let keys = self.keys(&described).await?;
        Ok(Found { described, keys, found_at: Instant::now() })
    }

    /// The provider with the keys that it has now, unless they were asked for too often.
    async fn with_new_keys(&self, before: &Arc<Found>) -> Result<Arc<Found>, Refused> {
        let mut state = self.state.lock().await;
        if let Some(found) = state.found.as_ref().filter(|found| !Arc::ptr_eq(found, before)) {
            return Ok(found.clone());
        }
        if !state.keys_asked.take(KEYS_ASKED, Instant::now()) {
            return Ok(before.clone());
        }
        let found = Arc::new(self.find().await?);
        state.found = Some(found.clone());
        Ok(found)
    }

    async fn keys(&self, described: &Described) -> Result<Vec<Jwk>, Refused> {
        let KeySet { keys } = self.get(&described.jwks_uri).await?;
        // One of a kind that is not known here is passed over.
        let known = keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(known.take(MAX_KEYS).collect())
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, Refused> {
        let request = Request::get(url).header(header::ACCEPT, "application/json").body(Vec::new());
        let (status, body) = self.ask(url, request).await?;
        if status != 200 {
            return Err(away(url, format!("status {status}")));
        }
        read(url, &body)
    }

    async fn ask(&self, asked: &str, request: Question) -> Result<(u16, Vec<u8>), Refused> {
        let request = request.map_err(|error| Refused::wrong(format!("{asked}: {error}")))?;
        let (status, body) =
            self.fetcher.ask(request).await.map_err(|error| away(asked, format!("{error:#}")))?;
        match status {
            500.. => Err(away(asked, format!("status {status}"))),
            _ => Ok((status, body)),
        }
    }
}

/// What stands in the body is not told: it may hold what is secret.
fn read<T: DeserializeOwned>(asked: &str, body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|_| Refused::wrong(format!("{asked} answers something else than it should")))
}

/// The word for an error that OAuth 2.0 has, if it is one.
fn error_in(body: &[u8]) -> String {
    let said: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let word = said.as_ref().and_then(|said| said.get("error")?.as_str());
    word.filter(|word| is_error(word)).map(|word| format!(" ({word})")).unwrap_or_default()
}

/// Whether a text is a word for an error, and nothing that somebody put in its place.
pub(super) fn is_error(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 64
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// A claim by its name, or by its way into others: `realm_access.roles`.
pub(super) fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let direct = claims.get(name);
    direct.or_else(|| {
        let (first, rest) = name.split_once('.')?;
        claim(claims.get(first)?.as_object()?, rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_is_found_by_its_name_and_by_its_way() {
        let claims = json!({"groups": ["a"], "realm_access": {"roles": ["b"]}, "x.y": 1, "z": "c"});
        let claims = claims.as_object().expect("an object");
        for (name, found) in [
            ("groups", Some(json!(["a"]))),
            ("realm_access.roles", Some(json!(["b"]))),
            ("x.y", Some(json!(1))),
            ("realm_access.groups", None),
            ("z.roles", None),
            ("", None),
        ] {
            assert_eq!(claim(claims, name), found.as_ref(), "{name}");
        }
    }

    #[test]
    fn of_an_error_only_its_word_is_told() {
        for (body, told) in [
            (r#"{"error":"invalid_grant","error_description":"code 4711"}"#, " (invalid_grant)"),
            (r#"{"error":"code 4711 is secret"}"#, ""),
            (r#"{"error":7}"#, ""),
            ("<html>", ""),
        ] {
            assert_eq!(error_in(body.as_bytes()), told, "{body}");
        }
        assert!(!is_error("") && !is_error(&"x".repeat(65)) && !is_error("a\nb"));
    }
}
