//! An identity provider of the tests.
//!
//! It speaks OpenID Connect over a socket: description, keys, authorization endpoint, token endpoint and userinfo. It
//! checks what it is asked as strictly as the standards let it (the client, the way back, PKCE, each code once), and signs
//! with keys of its own. Where a test tells it to, it lies.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::fleet::Plan;
use super::stores::random;
use super::wait::blocking;

/// As what it knows the pods of a test.
pub const CLIENT: &str = "groundstation of a test";

/// Where it sends people back to. Nobody is there: tests ask the pod that they mean.
pub const WAY_BACK: &str = "http://127.0.0.1:1/console/session/oidc/callback";

/// What of the truth it changes.
#[derive(Default)]
pub struct Lie {
    /// Instead of these claims of the ID token; null leaves one out.
    pub claims: Value,
    /// Instead of these words of its header.
    pub header: Value,
    /// The ID token is signed by a key that it does not show.
    pub is_forged: bool,
    /// The ID token has no signature.
    pub is_unsigned: bool,
    /// What comes to the pod instead of the answer of the authorization endpoint: these parameters.
    pub answer: Value,
}

/// A running provider. Dropping it ends it.
pub struct IdentityProvider {
    /// Who it is.
    pub issuer: String,
    address: SocketAddr,
    inner: Arc<Inner>,
    serving: Vec<JoinHandle<()>>,
}

struct Inner {
    issuer: String,
    secret: String,
    state: Mutex<Known>,
}

struct Known {
    /// The claims of whoever signs in.
    person: Value,
    /// What only userinfo says of it.
    more: Value,
    lie: Lie,
    /// The last one signs.
    keys: Vec<Key>,
    granted: HashMap<String, Granted>,
    times: HashMap<&'static str, u32>,
    /// All ID tokens that it has made.
    tokens: Vec<String>,
}

/// What a code stands for.
struct Granted {
    nonce: String,
    challenge: String,
    is_used: bool,
}

struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new() -> Key {
        let random_bytes = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(kind, &random_bytes).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random_bytes).expect("a pair");
        Key { id: random(), pair }
    }

    fn shown(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.id, "use": "sig", "alg": "ES256"})
    }

    fn sign(&self, text: &str) -> String {
        let signed = self.pair.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        URL_SAFE_NO_PAD.encode(signed)
    }
}

impl IdentityProvider {
    /// One without TLS, on this machine.
    pub async fn start() -> IdentityProvider {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        IdentityProvider::on(listener, format!("http://{address}")).await
    }

    /// One with TLS, by a certificate that this one vouches for (PEM).
    pub async fn start_over_tls() -> (IdentityProvider, String) {
        let names = ["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let outer = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let issuer =
            format!("https://localhost:{}", outer.local_addr().expect("an address").port());
        let inner = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut provider = IdentityProvider::on(inner, issuer).await;
        provider.serving.push(tokio::spawn(unwrap_tls(outer, acceptor, provider.address)));
        (provider, made.cert.pem())
    }

    async fn on(listener: TcpListener, issuer: String) -> IdentityProvider {
        let address = listener.local_addr().expect("an address");
        let state = Known {
            person: json!({}),
            more: json!({}),
            lie: Lie::default(),
            keys: vec![Key::new()],
            granted: HashMap::new(),
            times: HashMap::new(),
            tokens: Vec::new(),
        };
        let inner = Inner { issuer: issuer.clone(), secret: random(), state: Mutex::new(state) };
        let inner = Arc::new(inner);
        let serving = vec![serve(listener, inner.clone())];
        IdentityProvider { issuer, address, inner, serving }
    }

    /// A pod that knows it, and whose groups `root`, `ops`, `ops-eu` and `all` let people in.
    pub fn known_to<'a>(&self, plan: Plan<'a>) -> Plan<'a> {
        let settings = [
            ("GROUNDSTATION_OIDC_ISSUER", self.issuer.as_str()),
            ("GROUNDSTATION_OIDC_CLIENT_ID", CLIENT),
            ("GROUNDSTATION_OIDC_CLIENT_SECRET", &self.inner.secret),
            ("GROUNDSTATION_OIDC_REDIRECT_URL", WAY_BACK),
            ("GROUNDSTATION_OIDC_PROVIDER_NAME", "Example ID"),
            ("GROUNDSTATION_OIDC_ADMIN_GROUPS", "root"),
            ("GROUNDSTATION_OIDC_OPERATOR_GROUPS", "ops,ops-eu"),
            ("GROUNDSTATION_OIDC_READ_GROUPS", "all"),
            ("GROUNDSTATION_OIDC_GROUP_SELECTORS", r#"{"ops-eu": {"region": "eu"}}"#),
        ];
        settings.into_iter().fold(plan, |plan, (name, value)| plan.with(name, value))
    }

    /// The secret that it shares with its client.
    pub fn secret(&self) -> &str {
        &self.inner.secret
    }

    /// From now on this person signs in: `sub`, its name, and its groups.
    pub fn has(&self, subject: &str, name: &str, groups: &[&str]) {
        let person = json!({"sub": subject, "preferred_username": name, "groups": groups});
        self.inner.known().person = person;
    }

    /// From now on the person's groups are not in the ID token but where userinfo says them.
    pub fn tells_groups_to_who_asks(&self) {
        let mut known = self.inner.known();
        let groups = known.person["groups"].take();
        known.more = json!({"groups": groups, "sub": known.person["sub"]});
        known.person.as_object_mut().expect("claims").remove("groups");
    }

    /// Userinfo speaks of somebody else than the ID token.
    pub fn mistakes_somebody_for(&self, subject: &str) {
        self.inner.known().more["sub"] = json!(subject);
    }

    /// Until the next word it says this instead of the truth.
    pub fn lies(&self, lie: Lie) {
        self.inner.known().lie = lie;
    }

    /// It signs with another key, and shows only that one.
    pub fn changes_its_key(&self) {
        self.inner.known().keys = vec![Key::new()];
    }

    /// It is not there any more.
    pub fn goes_away(&mut self) {
        for serving in self.serving.drain(..) {
            serving.abort();
        }
    }

    /// It is there again.
    pub async fn comes_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its address");
        self.serving.push(serve(listener, self.inner.clone()));
    }

    /// How often it was asked for this.
    pub fn was_asked_for(&self, what: &'static str) -> u32 {
        self.inner.known().times.get(what).copied().unwrap_or_default()
    }

    /// All ID tokens that it has made.
    pub fn tokens_given(&self) -> Vec<String> {
        self.inner.known().tokens.clone()
    }

    /// What a person's browser does there: it asks for the address that it was led to, and is led to another one.
    pub async fn visit(&self, address: &str) -> String {
        let path = address.strip_prefix(&self.issuer).unwrap_or_else(|| panic!("{address}"));
        let here = format!("http://{}{path}", self.address);
        blocking(move || {
            let config = ureq::Agent::config_builder()
                .max_redirects(0)
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(15)));
            let agent = ureq::Agent::new_with_config(config.build());
            let mut answer = agent.get(&here).call().expect("an answer");
            let said = answer.body_mut().read_to_string().expect("text");
            assert_eq!(answer.status().as_u16(), 303, "{here}: {said}");
            answer.headers()["location"].to_str().expect("text").to_owned()
        })
        .await
    }
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        self.goes_away();
    }
}

fn serve(listener: TcpListener, inner: Arc<Inner>) -> JoinHandle<()> {
    let routes = Router::new()
        .route("/.well-known/openid-configuration", get(description))
        .route("/keys", get(keys))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        .route("/userinfo", get(userinfo))
        // Once it is away nobody may reach it by a connection from before.
        .layer(map_response(async |mut answer: Response| {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }))
        .with_state(inner);
    tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") })
}

async fn unwrap_tls(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust the certificate hangs up.
            let Ok(mut near) = acceptor.accept(socket).await else { return };
            let mut far = TcpStream::connect(to).await.expect("the provider");
            tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
        });
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().expect("nobody panicked")
    }

    fn asked_for(&self, what: &'static str) {
        *self.known().times.entry(what).or_default() += 1;
    }
}

async fn description(State(inner): State<Arc<Inner>>) -> Response {
    inner.asked_for("description");
    let issuer = &inner.issuer;
    axum::Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
    .into_response()
}

async fn keys(State(inner): State<Arc<Inner>>) -> Response {
    inner.asked_for("keys");
    let keys: Vec<Value> = inner.known().keys.iter().map(Key::shown).collect();
    axum::Json(json!({"keys": keys})).into_response()
}

fn fields(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

/// Puts these values in the place of others; null leaves one out.
fn change(what: &mut Value, by: &Value) {
    for (name, value) in by.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(what.as_object_mut().expect("an object").remove(name)),
            value => what[name] = value.clone(),
        }
    }
}

async fn authorize(State(inner): State<Arc<Inner>>, RawQuery(query): RawQuery) -> Response {
    let asked = fields(&query.unwrap_or_default());
    let asked = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    let challenge = asked("code_challenge");
    let is_right = asked("response_type") == "code"
        && asked("client_id") == CLIENT
        && asked("redirect_uri") == WAY_BACK
        && asked("scope").split(' ').any(|scope| scope == "openid")
        && asked("code_challenge_method") == "S256"
        && challenge.len() == 43
        && asked("state").len() >= 22
        && asked("nonce").len() >= 22;
    if !is_right {
        return (StatusCode::BAD_REQUEST, "no such question is answered").into_response();
    }
    let code = random();
    let (nonce, challenge) = (asked("nonce").to_owned(), challenge.to_owned());
    let mut known = inner.known();
    known.granted.insert(code.clone(), Granted { nonce, challenge, is_used: false });
    let mut answer = json!({"code": code, "state": asked("state"), "iss": inner.issuer});
    change(&mut answer, &known.lie.answer);
    let answer = answer.as_object().expect("an object").iter();
    let pairs = answer.map(|(name, value)| (name, value.as_str().expect("text")));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    (StatusCode::SEE_OTHER, [(header::LOCATION, format!("{WAY_BACK}?{query}"))]).into_response()
}

fn refused(status: StatusCode, error: &str) -> Response {
    (status, axum::Json(json!({"error": error, "error_description": "of a test"}))).into_response()
}

async fn token(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: String) -> Response {
    inner.asked_for("tokens");
    let encoded =
        |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let pair = format!("{}:{}", encoded(CLIENT), encoded(&inner.secret));
    let client = format!("Basic {}", STANDARD.encode(pair));
    if headers.get(header::AUTHORIZATION).is_none_or(|given| given != client.as_str()) {
        return refused(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let asked = fields(&body);
    let asked = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    let mut known = inner.known();
    let known = &mut *known;
    let verified = URL_SAFE_NO_PAD.encode(Sha256::digest(asked("code_verifier")));
    let granted = known.granted.get_mut(asked("code")).filter(|granted| {
        !granted.is_used && granted.challenge == verified && asked("redirect_uri") == WAY_BACK
    });
    let Some(granted) = granted.filter(|_| asked("grant_type") == "authorization_code") else {
        return refused(StatusCode::BAD_REQUEST, "invalid_grant");
    };
    granted.is_used = true;
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let mut claims = json!({
        "iss": inner.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": granted.nonce,
    });
    change(&mut claims, &known.person);
    change(&mut claims, &known.lie.claims);
    let key = known.keys.last().expect("a key");
    let mut header = json!({"alg": "ES256", "typ": "JWT", "kid": key.id});
    change(&mut header, &known.lie.header);
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = match &known.lie {
        Lie { is_unsigned: true, .. } => String::new(),
        Lie { is_forged: true, .. } => Key::new().sign(&message),
        _ => key.sign(&message),
    };
    let id_token = format!("{message}.{signature}");
    known.tokens.push(id_token.clone());
    axum::Json(json!({
        "id_token": id_token, "access_token": asked("code"),
        "token_type": "Bearer", "expires_in": 300,
    }))
    .into_response()
}

async fn userinfo(State(inner): State<Arc<Inner>>, headers: HeaderMap) -> Response {
    inner.asked_for("userinfo");
    let given = headers.get(header::AUTHORIZATION).and_then(|given| given.to_str().ok());
    let given = given.and_then(|given| given.strip_prefix("Bearer ")).unwrap_or_default();
    let known = inner.known();
    match known.granted.get(given).is_some_and(|granted| granted.is_used) {
        true => axum::Json(known.more.clone()).into_response(),
        false => refused(StatusCode::UNAUTHORIZED, "invalid_token"),
    }
}
