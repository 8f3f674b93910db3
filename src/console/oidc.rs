//! Single sign-on by OpenID Connect: the authorization code flow with PKCE.
//!
//! A person leaves the page for the provider with a sealed cookie ([`attempt`]), comes back with a code, and the pod it
//! comes back to (any) exchanges it for an ID token ([`provider`], [`id_token`]). A group of the person that the settings
//! name lets it in; nobody else gets in. Whatever goes wrong leads back to the page's sign-in, which says what it was
//! ([`refused`]), and the other ways to sign in go on.

use std::sync::Arc;

use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Console, session};
use crate::api::caller::{Caller, Credential};
use crate::api::noted::somebody;
use crate::api::person::{is_subject, name_of};
use crate::api::problem::Problem;
use crate::api::{Api, authorization};
use crate::ingress::arrival::Arrival;
use crate::ingress::listener::REFUSALS_TOLD;
use crate::platform::envelope::Envelope;
use crate::platform::log_gate::LogGate;
use crate::platform::metrics::Metrics;

mod attempt;
mod id_token;
mod provider;
pub mod refused;
pub mod settings;
mod signatures;

use attempt::Attempt;
use provider::{Named, Provider, claim, is_error};
use refused::{Refused, Word};
use settings::Settings;

/// How sign-ons that nobody refused are counted.
const SIGNED_IN: &str = "signed-in";

/// The route by which people come back from the provider, for the audit.
const ROUTE: &str = "GET /console/session/oidc/callback";

/// What else names a person, where the configured claim does not.
const OTHER_NAMES: [&str; 2] = ["email", "sub"];

/// Sign-on by one provider.
pub(super) struct Oidc {
    settings: Settings,
    provider: Provider,
    attempts: Envelope,
    refusals: LogGate,
    metrics: Metrics,
}

impl Oidc {
    pub fn new(settings: Settings, metrics: Metrics) -> anyhow::Result<Oidc> {
        let purpose = format!("groundstation sign-on with {}", settings.issuer);
        Ok(Oidc {
            provider: Provider::new(settings.clone())?,
            attempts: Envelope::new(&settings.keys, &purpose)?,
            refusals: LogGate::new(REFUSALS_TOLD),
            settings,
            metrics,
        })
    }

    /// What the page calls the provider.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Leads to the provider.
    async fn leave(
        &self,
        to: Option<&str>,
        console: &Console,
        is_https: bool,
    ) -> Result<Response, Refused> {
        let attempt = Attempt::new(to, console.api.access.now()).map_err(broken)?;
        let (scopes, challenge) = (self.settings.scopes.join(" "), attempt.challenge());
        let parameters = [
            ("response_type", "code"),
            ("client_id", self.settings.client.as_str()),
            ("redirect_uri", self.settings.redirect_url.as_str()),
            ("scope", scopes.as_str()),
            ("state", attempt.state.as_str()),
            ("nonce", attempt.nonce.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        let url = self.provider.sign_in_url(&parameters).await?;
        let cookie = attempt.cookie(&self.attempts, is_https).map_err(broken)?;
        let url = HeaderValue::try_from(url)
            .map_err(|_| Refused::wrong("the provider's address is none"))?;
        Ok(see_other(url, vec![cookie]))
    }

    /// Whom the answer of the provider is about.
    async fn named(&self, answer: &Answer, attempt: &Attempt) -> Result<Named, Refused> {
        self.provider.check_issuer(answer.issuer.as_deref()).await?;
        if let Some(error) = &answer.error {
            let word = if is_error(error) { error } else { "a word of its own" };
            return Err(Refused::new(Word::Declined, format!("the provider says {word}")));
        }
        let code =
            answer.code.as_deref().ok_or_else(|| Refused::wrong("the answer has no code"))?;
        self.provider.exchange(code, &attempt.verifier, &attempt.nonce).await
    }

    /// What the records call a person.
    fn person_name(&self, named: &Named) -> Option<String> {
        let is_verified = named.claims.get("email_verified") != Some(&Value::Bool(false));
        let wanted = std::iter::once(self.settings.name_claim.as_str()).chain(OTHER_NAMES);
        wanted
            .filter(|name| *name != "email" || is_verified)
            .filter_map(|name| claim(&named.claims, name)?.as_str())
            .find_map(name_of)
    }

    fn groups(&self, named: &Named) -> Vec<String> {
        match claim(&named.claims, &self.settings.groups_claim) {
            Some(Value::String(group)) => vec![group.clone()],
            Some(Value::Array(groups)) => {
                groups.iter().filter_map(|group| group.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Leads back to the page's sign-in, which says why.
    fn refuse(
        &self,
        api: &Api,
        refused: &Refused,
        arrival: &Arrival,
        cookies: Vec<String>,
    ) -> Response {
        let Refused { word, why, who } = refused;
        let word: &'static str = word.into();
        self.metrics.sign_on(word);
        if let Some(left_out) = self.refusals.pass(Instant::now()) {
            warn!(address = %arrival.client, word, why, left_out, "a single sign-on was refused");
        }
        let author = somebody(who.as_deref(), arrival.client);
        api.sign_in_refused(author, ROUTE, json!({"by": "provider", "why": word}));
        match HeaderValue::try_from(format!("/console/sign-in?refused={word}")) {
            Ok(page) => see_other(page, cookies),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

fn broken(error: anyhow::Error) -> Refused {
    Refused::new(Word::ProviderAway, format!("this pod cannot: {error:#}"))
}

/// A browser goes there by GET, and what it asked for here is not in its history.
fn see_other(to: HeaderValue, cookies: Vec<String>) -> Response {
    let set = cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)], AppendHeaders(set)).into_response()
}

/// What the provider's page sends along.
#[derive(Default)]
struct Answer {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    issuer: Option<String>,
}

impl Answer {
    /// None where something comes twice: it would be open which of them counts.
    fn read(query: &str) -> Option<Answer> {
        let mut answer = Answer::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "state" => &mut answer.state,
                "code" => &mut answer.code,
                "error" => &mut answer.error,
                "iss" => &mut answer.issuer,
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(answer)
    }
}

/// GET `/console/session/oidc`: begins a sign-on; `to` is where the person goes then.
pub(super) async fn begin(
    State(console): State<Arc<Console>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let oidc = console.oidc.as_ref().ok_or_else(Problem::no_route)?;
    // Another page could otherwise put another session in the place of the person's.
    if authorization::check_page(&headers, &Method::GET, &arrival).is_err() {
        let refused = Refused::new(Word::ForeignPage, "the page of another origin began it");
        return Ok(oidc.refuse(&console.api, &refused, &arrival, Vec::new()));
    }
    let query = query.unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let to = pairs.find(|(name, _)| name == "to").map(|(_, to)| to.into_owned());
    let left = oidc.leave(to.as_deref(), &console, arrival.is_https).await;
    Ok(left.unwrap_or_else(|refused| oidc.refuse(&console.api, &refused, &arrival, Vec::new())))
}

/// GET `/console/session/oidc/callback`: the provider's answer.
pub(super) async fn finish(
    State(console): State<Arc<Console>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let oidc = console.oidc.as_ref().ok_or_else(Problem::no_route)?;
    let (access, is_https) = (&console.api.access, arrival.is_https);
    let answer = Answer::read(&query.unwrap_or_default()).unwrap_or_default();
    let state = answer.state.as_deref().unwrap_or_default();
    let attempt = Attempt::of(&headers, state, &oidc.attempts, access.now(), is_https);
    let Some(attempt) = attempt else {
        let refused = Refused::new(Word::NotBegunHere, "this browser has no attempt of that state");
        return Ok(oidc.refuse(&console.api, &refused, &arrival, Vec::new()));
    };
    // From here on the attempt is used up.
    let used_up = attempt::clear(is_https);
    let signed_in = oidc.sign_in(&console, &answer, &attempt, &arrival, &headers).await;
    Ok(match signed_in {
        Ok((to, mut cookies)) => {
            cookies.push(used_up);
            see_other(to, cookies)
        }
        Err(refused) => oidc.refuse(&console.api, &refused, &arrival, vec![used_up]),
    })
}

impl Oidc {
    /// Where the person goes, and its cookies.
    async fn sign_in(
        &self,
        console: &Console,
        answer: &Answer,
        attempt: &Attempt,
        arrival: &Arrival,
        headers: &HeaderMap,
    ) -> Result<(HeaderValue, Vec<String>), Refused> {
        let named = self.named(answer, attempt).await?;
        let subject = named.subject.as_str();
        let name = self.person_name(&named).filter(|_| is_subject(subject));
        let name = name.ok_or_else(|| Refused::wrong("the ID token names nobody"))?;
        let access = &console.api.access;
        let person = access.people().begin(subject, &name, &self.groups(&named), access.now());
        let person =
            person.ok_or_else(|| Refused::somebody(&name, "none of the groups lets anybody in"))?;
        let role = person.role.as_str();
        let caller = Caller::from(Credential::Person(person.into())).at(arrival.client);
        let cookies =
            session::cookies(access, &caller, headers, arrival.is_https).map_err(broken)?;
        self.metrics.sign_on(SIGNED_IN);
        info!(address = %arrival.client, role, name, subject, "somebody signed in at the page by single sign-on");
        let with = json!({"role": role, "by": "provider", "subject": subject});
        console.api.signed_in(&caller, ROUTE, with);
        let to = HeaderValue::try_from(attempt.to.as_str())
            .unwrap_or(HeaderValue::from_static(super::HOME));
        Ok((to, cookies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_something_twice_is_none() {
        let read = |query| Answer::read(query).map(|answer| (answer.state, answer.code));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("state=a&code=b%2Fc&x=1&x=2"), Some((some("a"), some("b/c"))));
        assert_eq!(read(""), Some((None, None)));
        assert_eq!(read("state=a&code=b&code=c"), None);
        assert_eq!(read("state=a&state=a"), None);
    }
}
