//! An ID token: whether the provider signed it, for this program and this sign-in, and whom it names.

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::signatures::{ALGORITHMS, use_ring};

/// By how many seconds the provider's clock and this one may differ.
const LEEWAY: u64 = 60;

/// The longest token.
const MAX_TOKEN_BYTES: usize = 128 * 1024;

/// What a token must say.
pub(super) struct Expected<'a> {
    pub issuer: &'a str,
    pub client: &'a str,
    pub nonce: &'a str,
}

/// Why a token is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It was signed by a key that is not known: the provider may have a new one.
    Key,
    /// Anything else, in words.
    Token(String),
}

fn wrong(words: impl Into<String>) -> Wrong {
    Wrong::Token(words.into())
}

/// The claims of a token that one of these keys has signed.
pub(super) fn verify(
    token: &str,
    keys: &[Jwk],
    expected: &Expected<'_>,
) -> Result<Map<String, Value>, Wrong> {
    use_ring();
    if token.len() > MAX_TOKEN_BYTES {
        return Err(wrong(format!("the ID token has more than {MAX_TOKEN_BYTES} bytes")));
    }
    // `none` is no algorithm there, so it is not read at all.
    let header = decode_header(token)
        .map_err(|_| wrong("the ID token has no header with an algorithm that is known here"))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(wrong(format!(
            "the ID token is signed by {:?}, which does not count",
            header.alg
        )));
    }
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.client]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let mut refused = Wrong::Key;
    for key in keys.iter().filter(|key| may_sign(key, &header)) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        match decode::<Map<String, Value>>(token, &key, &validation) {
            Ok(decoded) => return check(decoded.claims, expected),
            Err(error) => refused = wrong(format!("the ID token does not count: {error}")),
        }
    }
    Err(refused)
}

fn may_sign(key: &Jwk, header: &Header) -> bool {
    let common = &key.common;
    let is_of_algorithm =
        common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(header.alg));
    let is_for_signing =
        common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let is_named = header.kid.is_none() || header.kid == common.key_id;
    is_of_algorithm && is_for_signing && is_named
}

/// What the library does not look at.
fn check(claims: Map<String, Value>, expected: &Expected<'_>) -> Result<Map<String, Value>, Wrong> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(wrong("the ID token is of another issuer"));
    }
    let is_for_several = claims.get("aud").and_then(Value::as_array).is_some_and(|to| to.len() > 1);
    match text("azp") {
        Some(party) if party != expected.client => {
            return Err(wrong("the ID token is for another party (azp)"));
        }
        None if is_for_several => {
            return Err(wrong("the ID token is for several and names no party (azp)"));
        }
        _ => {}
    }
    if !claims.get("iat").is_some_and(Value::is_number) {
        return Err(wrong("the ID token does not say when it was made (iat)"));
    }
    let nonce = text("nonce").unwrap_or_default();
    if !bool::from(nonce.as_bytes().ct_eq(expected.nonce.as_bytes())) {
        return Err(wrong("the ID token is not of this sign-in (nonce)"));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::get_current_timestamp;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    const EXPECTED: Expected<'_> = Expected { issuer: "https://id", client: "page", nonce: "n" };

    struct Signer(EcdsaKeyPair, SystemRandom);

    impl Signer {
        fn new() -> Signer {
            let random = SystemRandom::new();
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            let made = made.expect("a key");
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random);
            Signer(pair.expect("a pair"), random)
        }

        fn key(&self, more: Value) -> Jwk {
            let point = &self.0.public_key().as_ref()[1..];
            let (x, y) = point.split_at(32);
            let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
            let mut key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "1"});
            let key = key.as_object_mut().expect("an object");
            for (name, value) in more.as_object().expect("an object") {
                key.insert(name.clone(), value.clone());
            }
            serde_json::from_value(Value::Object(key.clone())).expect("a key")
        }

        fn token(&self, header: Value, claims: &Value) -> String {
            let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
            let message = format!("{}.{}", part(&header), part(claims));
            let signed = self.0.sign(&self.1, message.as_bytes()).expect("a signature");
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))
        }
    }

    fn claims(more: Value) -> Value {
        let now = get_current_timestamp();
        let mut claims = json!({
            "iss": "https://id", "aud": "page", "sub": "7", "nonce": "n", "iat": now, "exp": now + 60
        });
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    }

    fn es256() -> Value {
        json!({"alg": "ES256", "kid": "1"})
    }

    #[test]
    fn a_token_that_the_provider_signed_for_this_sign_in_counts() {
        let signer = Signer::new();
        let now = get_current_timestamp();
        let good = [
            json!({}),
            json!({"aud": ["page"]}),
            json!({"aud": ["page", "other"], "azp": "page"}),
            json!({"exp": now - 50}),
            json!({"nbf": now + 50}),
        ];
        for more in good {
            let token = signer.token(es256(), &claims(more.clone()));
            let keys = [Signer::new().key(json!({"kid": "2"})), signer.key(json!({"use": "sig"}))];
            let found = verify(&token, &keys, &EXPECTED);
            assert_eq!(found.expect("claims")["sub"], "7", "{more}");
        }
        // Without a key's name all are tried.
        let token = signer.token(json!({"alg": "ES256"}), &claims(json!({})));
        let keys = [Signer::new().key(json!({})), signer.key(json!({"alg": "ES256"}))];
        assert!(verify(&token, &keys, &EXPECTED).is_ok());
    }

    #[test]
    fn any_other_token_is_refused() {
        let signer = Signer::new();
        let now = get_current_timestamp();
        let keys = [signer.key(json!({}))];
        for more in [
            json!({"iss": "https://other"}),
            json!({"iss": ["https://id", "https://other"]}),
            json!({"iss": null}),
            json!({"aud": "other"}),
            json!({"aud": []}),
            json!({"aud": null}),
            json!({"aud": ["page", "other"]}),
            json!({"azp": "other"}),
            json!({"nonce": "m"}),
            json!({"nonce": null}),
            json!({"nonce": ["n"]}),
            json!({"sub": null}),
            json!({"iat": null}),
            json!({"exp": null}),
            json!({"exp": "tomorrow"}),
            json!({"exp": now - 70}),
            json!({"nbf": now + 70}),
        ] {
            let token = signer.token(es256(), &claims(more.clone()));
            let refused = verify(&token, &keys, &EXPECTED);
            assert!(matches!(refused, Err(Wrong::Token(_))), "{more}: {refused:?}");
        }
    }

    #[test]
    fn what_another_key_signed_or_none_did_is_refused() {
        let (signer, other) = (Signer::new(), Signer::new());
        let keys = [signer.key(json!({}))];
        let good = signer.token(es256(), &claims(json!({})));
        let (message, signature) = good.rsplit_once('.').expect("parts");
        let forged = other.token(es256(), &claims(json!({})));
        let unsigned = |header: Value| signer.token(header, &claims(json!({})));
        for token in [
            forged,
            format!("{message}."),
            message.to_owned(),
            format!("{good}.{signature}"),
            unsigned(json!({"alg": "none"})),
            unsigned(json!({"alg": "None"})),
            unsigned(json!({"alg": "HS256", "kid": "1"})),
            unsigned(json!({"kid": "1"})),
            unsigned(json!({"alg": "ES256", "kid": "1", "crit": ["b64"], "b64": false})),
            String::new(),
            "x".repeat(MAX_TOKEN_BYTES + 1),
        ] {
            let refused = verify(&token, &keys, &EXPECTED);
            assert!(matches!(refused, Err(Wrong::Token(_))), "{token:.60}: {refused:?}");
        }
        // The header has no key of its own that counts.
        let jwk = serde_json::to_value(other.key(json!({}))).expect("JSON");
        let own = other.token(json!({"alg": "ES256", "jwk": jwk}), &claims(json!({})));
        assert!(matches!(verify(&own, &keys, &EXPECTED), Err(Wrong::Token(_))));
        for none in [
            signer.key(json!({"kid": "2"})),
            signer.key(json!({"use": "enc"})),
            signer.key(json!({"alg": "RS256"})),
        ] {
            assert_eq!(verify(&good, &[none], &EXPECTED), Err(Wrong::Key));
        }
        assert_eq!(verify(&good, &[], &EXPECTED), Err(Wrong::Key));
        // A curve's key is no secret for a MAC, nor a key of RSA.
        let rs256 = unsigned(json!({"alg": "RS256", "kid": "1"}));
        assert!(verify(&rs256, &keys, &EXPECTED).is_err());
    }
}
