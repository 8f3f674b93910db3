//! Signatures of tokens, verified by ring, the one library for cryptography here.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as ring_signature;
use ring_signature::{
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

/// The algorithms that count. None of them has a key that the provider and this program share.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

static RING: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    // Keys come as their components.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes tokens verified by ring, in this process.
pub(super) fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if RING.install_default().is_err() {
            tracing::debug!("tokens are verified by another library");
        }
    });
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let key = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let bare = |number: &[u8]| {
                let zeros = number.iter().take_while(|byte| **byte == 0).count();
                number[zeros..].to_vec()
            };
            Key::Rsa(rsa(*algorithm)?, RsaPublicKeyComponents { n: bare(n), e: bare(e) })
        }
        DecodingKeyKind::SecretOrDer(bytes) => {
            Key::Curve(UnparsedPublicKey::new(curve(*algorithm)?, bytes.clone()))
        }
    };
    Ok(Box::new(Ring { algorithm: *algorithm, key }))
}

fn rsa(algorithm: Algorithm) -> Result<&'static RsaParameters> {
    Ok(match algorithm {
        Algorithm::RS256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    })
}

fn curve(algorithm: Algorithm) -> Result<&'static dyn VerificationAlgorithm> {
    Ok(match algorithm {
        Algorithm::ES256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ring_signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ring_signature::ED25519,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    })
}

enum Key {
    Rsa(&'static RsaParameters, RsaPublicKeyComponents<Vec<u8>>),
    Curve(UnparsedPublicKey<Vec<u8>>),
}

struct Ring {
    algorithm: Algorithm,
    key: Key,
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let verified = match &self.key {
            Key::Rsa(parameters, key) => key.verify(parameters, message, signature),
            Key::Curve(key) => key.verify(message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::jwk::Jwk;
    use serde::Deserialize;

    const MESSAGE: &[u8] = b"what was signed";

    /// What OpenSSL has signed, each by a key that was thrown away.
    #[derive(Deserialize)]
    struct Signed {
        alg: Algorithm,
        key: Jwk,
        signature: String,
    }

    fn signed() -> Vec<Signed> {
        serde_json::from_str(include_str!("signatures/openssl.json")).expect("JSON")
    }

    fn is_by(algorithm: Algorithm, key: &Jwk, message: &[u8], signature: &[u8]) -> bool {
        let key = DecodingKey::from_jwk(key).expect("a key");
        verifier(&algorithm, &key)
            .is_ok_and(|verifier| verifier.verify(message, &signature.to_vec()).is_ok())
    }

    #[test]
    fn what_another_library_signed_is_verified_by_its_own_algorithm_and_no_other() {
        let signed = signed();
        let all: Vec<Algorithm> = signed.iter().map(|signed| signed.alg).collect();
        assert!(ALGORITHMS.iter().all(|algorithm| all.contains(algorithm)), "{all:?}");
        for Signed { alg, key, signature } in &signed {
            let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
            for other in ALGORITHMS {
                let expected = other == *alg;
                assert_eq!(is_by(other, key, MESSAGE, &signature), expected, "{alg:?} {other:?}");
            }
            assert!(!is_by(*alg, key, b"What was signed", &signature), "{alg:?}");
            let (mut changed, shorter) = (signature.clone(), &signature[1..]);
            changed[7] ^= 1;
            for other in [changed.as_slice(), shorter, &[], &vec![0; signature.len()]] {
                assert!(!is_by(*alg, key, MESSAGE, other), "{alg:?}");
            }
        }
    }
}
