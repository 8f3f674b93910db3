//! Signatures as Standard Webhooks says: HMAC-SHA256 over id, time and body.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// The bytes of a secret.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The most secrets at a time: two are enough for rotation.
const MOST: usize = 8;

/// The secrets that sign; while they are rotated there are several, and each one signs.
#[derive(Clone)]
pub struct Secrets(Vec<SecretSlice<u8>>);

impl Secrets {
    /// Secrets with commas or line breaks between them. Errors name the setting and never repeat a secret.
    pub fn parse(setting: &str, text: &SecretString) -> anyhow::Result<Secrets> {
        let words = text.expose_secret().split([',', '\n', ' ']).map(str::trim);
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        if words.is_empty() || words.len() > MOST {
            bail!("{setting} has {} secrets, it must be from 1 to {MOST}", words.len());
        }
        let secrets = words.iter().enumerate().map(|(n, word)| {
            let bytes = word.strip_prefix(PREFIX).and_then(|word| STANDARD.decode(word).ok());
            let bytes = bytes.filter(|bytes| BYTES.contains(&bytes.len()));
            let bytes = bytes.with_context(|| {
                format!(
                    "{setting}: number {} is not {PREFIX} and {} to {} bytes in base64; make one with \
                     `echo {PREFIX}$(openssl rand -base64 32)`",
                    n + 1,
                    BYTES.start(),
                    BYTES.end()
                )
            })?;
            Ok(SecretSlice::from(bytes))
        });
        Ok(Secrets(secrets.collect::<anyhow::Result<_>>()?))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether they are the same.
    pub fn are(&self, others: &Secrets) -> bool {
        let bytes = |secrets: &Secrets| -> Vec<Vec<u8>> {
            secrets.0.iter().map(|secret| secret.expose_secret().to_vec()).collect()
        };
        bytes(self) == bytes(others)
    }

    /// The header `webhook-signature` of a message that is sent at this time, in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = self.0.iter().filter_map(|secret| {
            let mut hmac = Hmac::<Sha256>::new_from_slice(secret.expose_secret()).ok()?;
            hmac.update(format!("{id}.{timestamp}.").as_bytes());
            hmac.update(body);
            Some(format!("v1,{}", STANDARD.encode(hmac.finalize().into_bytes())))
        });
        signed.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

    fn secrets(text: &str) -> anyhow::Result<Secrets> {
        Secrets::parse("SECRET", &text.into())
    }

    #[test]
    fn the_published_test_vector_of_standard_webhooks_is_signed_alike() {
        let signature = secrets(PUBLISHED).expect("a secret").sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_secrets_are_rotated_each_signs() {
        let both = secrets(&format!("{OTHER}\n{PUBLISHED}\n")).expect("secrets");
        let alone = |text| secrets(text).expect("a secret").sign("id", 7, b"{}");
        assert_eq!(both.sign("id", 7, b"{}"), format!("{} {}", alone(OTHER), alone(PUBLISHED)));
        assert_eq!(both.count(), 2);
    }

    #[test]
    fn id_time_and_body_are_signed() {
        let secret = secrets(PUBLISHED).expect("a secret");
        let signature = secret.sign("id", 7, b"{}");
        for other in
            [secret.sign("ie", 7, b"{}"), secret.sign("id", 8, b"{}"), secret.sign("id", 7, b"[]")]
        {
            assert_ne!(other, signature);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        for wrong in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_?????????"] {
            let refused = secrets(wrong).err().expect("refused").to_string();
            assert!(refused.starts_with("SECRET"), "{refused}");
            assert!(wrong.is_empty() || !refused.contains(wrong), "{refused}");
        }
        assert!(secrets(&[PUBLISHED; 9].join(",")).is_err());
    }
}
