//! Tokens: 256 random bits for satellites and for named tokens, their digests, and comparison in constant time.
//!
//! A fast hash is right here: a token is random, so it cannot be guessed. Only digests are stored,
//! and neither tokens nor digests can be printed from these types.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// An administrator's token has at least this many bits, because anybody anywhere can try to guess
/// it.
pub const LEAST_BITS: u32 = 128;

/// Text with fewer different characters than this is not random, whatever its length.
const FEWEST_DIFFERENT: usize = 8;

/// The prefix of every satellite's token, by which people and secret scanners recognise it.
const PREFIX: &str = "csat_";

/// The prefix of every named token.
const NAMED_PREFIX: &str = "gst_";

/// A named token ends with so many bytes of a digest of the rest, by which one that is mistyped, or cut off, is known as
/// such without asking anybody.
const CHECKSUM_BYTES: usize = 3;
const CHECKSUM_LENGTH: usize = CHECKSUM_BYTES / 3 * 4;

/// The prefix of a stored digest: other forms may stand beside it.
const STORED_PREFIX: &str = "sha256:";

/// Makes a satellite's token. Fails only if the operating system has no randomness.
pub fn generate() -> anyhow::Result<SecretString> {
    Ok(format!("{PREFIX}{}", random()?).into())
}

/// The satellite's token that has these 256 bits.
pub fn of_bits(bits: &[u8; 32]) -> SecretString {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits)).into()
}

/// Makes a named token. Fails only if the operating system has no randomness.
pub fn generate_named() -> anyhow::Result<SecretString> {
    let token = format!("{NAMED_PREFIX}{}", random()?);
    let checksum = checksum(&token);
    Ok((token + &checksum).into())
}

/// 256 random bits.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn checksum(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(text.as_bytes())[..CHECKSUM_BYTES])
}

/// Whether a text is meant to be a named token.
pub fn is_named(text: &str) -> bool {
    text.starts_with(NAMED_PREFIX)
}

/// Whether a text has the form of a named token, its checksum included.
pub fn is_whole(text: &str) -> bool {
    let end = text.len().checked_sub(CHECKSUM_LENGTH);
    let parts = end.and_then(|end| text.split_at_checked(end));
    is_named(text) && parts.is_some_and(|(rest, end)| checksum(rest) == end)
}

/// How many bits a token has if it is random: its number of characters times the bits of their
/// kind. Hexadecimal digits are a kind of their own, and separators between groups count nothing. A
/// text that repeats a few characters is judged by those. A word that a person thought of has fewer
/// bits; that cannot be seen.
pub fn bits_at_most(token: &str) -> u32 {
    let told: Vec<char> = token.chars().filter(|character| *character != '-').collect();
    let different = told.iter().collect::<std::collections::HashSet<_>>().len();
    let is_hexadecimal = |letter: fn(&char) -> bool| {
        told.iter().any(letter) && told.iter().all(|c| c.is_ascii_digit() || letter(c))
    };
    let alphabet = if different < FEWEST_DIFFERENT {
        different
    } else if is_hexadecimal(|c| ('a'..='f').contains(c))
        || is_hexadecimal(|c| ('A'..='F').contains(c))
    {
        16
    } else {
        let has = |kind: fn(&char) -> bool| told.iter().any(kind);
        let known = [
            (has(|c| c.is_ascii_digit()), 10),
            (has(|c| c.is_ascii_lowercase()), 26),
            (has(|c| c.is_ascii_uppercase()), 26),
            (has(|c| !c.is_ascii_alphanumeric()), 32),
        ];
        known.into_iter().filter(|(has, _)| *has).map(|(_, size)| size).sum()
    };
    (told.len() as f64 * (alphabet.max(1) as f64).log2()).floor() as u32
}

/// The SHA-256 of a token.
#[derive(Clone)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of this token.
    pub fn of(token: &str) -> Digest {
        Digest(Sha256::digest(token.as_bytes()).into())
    }

    /// The form in which it is stored.
    pub fn to_stored(&self) -> String {
        format!("{STORED_PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// Reads the stored form; `None` for any other.
    pub fn from_stored(text: &str) -> Option<Digest> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(STORED_PREFIX)?).ok()?;
        Some(Digest(bytes.try_into().ok()?))
    }

    /// Whether both are of the same token. The time it takes depends on neither.
    pub fn is(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Whether this is the digest of `token`. The time it takes depends on neither.
    pub fn matches(&self, token: &str) -> bool {
        self.is(&Digest::of(token))
    }

    /// Whether this token, or whoever has its digest, made a signature, see [`Digest::sign`].
    pub fn signed(&self, purpose: &str, text: &str, signature: &[u8]) -> bool {
        self.sign(purpose, text).ct_eq(signature).into()
    }

    /// Signs a text with a key for this purpose that only holders of the token, or of this digest, can derive.
    pub fn sign(&self, purpose: &str, text: &str) -> [u8; 32] {
        mac(&mac(&self.0, purpose), text)
    }
}

/// HMAC-SHA-256.
fn mac(key: &[u8; 32], text: &str) -> [u8; 32] {
    // A key is filled up with zeros to the hash's block (RFC 2104).
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The digests of several tokens that give the same access.
#[derive(Clone, Default)]
pub struct Digests(Vec<Digest>);

impl Digests {
    /// These digests.
    pub fn new(digests: Vec<Digest>) -> Digests {
        Digests(digests)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Digest> {
        self.0.iter()
    }

    /// The first of them.
    pub fn first(&self) -> Option<&Digest> {
        self.0.first()
    }

    /// Whether one of them is the digest of `token`.
    pub fn matches(&self, token: &str) -> bool {
        self.find(token).is_some()
    }

    /// The one that is the digest of `token`. All are compared, whichever matches, so that the time reveals nothing.
    pub fn find(&self, token: &str) -> Option<&Digest> {
        let digest = Digest::of(token);
        self.0.iter().fold(None, |found, known| if known.is(&digest) { Some(known) } else { found })
    }

    /// The one that made this signature, see [`Digest::sign`].
    pub fn signer(&self, purpose: &str, text: &str, signature: &[u8]) -> Option<&Digest> {
        self.0.iter().find(|known| known.signed(purpose, text, signature))
    }

    /// Whether this digest is one of them.
    pub fn has(&self, digest: &Digest) -> bool {
        self.0.iter().any(|known| known.is(digest))
    }

    /// Whether they are the same, in the same order.
    pub fn are(&self, others: &Digests) -> bool {
        self.0.len() == others.0.len() && self.0.iter().zip(&others.0).all(|(a, b)| a.is(b))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Which of the stored ones `token` is. Both are compared in any case, and a digest of nothing where none is stored: an
/// unknown id must not be distinguishable from a wrong token, nor a satellite with two tokens from one with one.
pub fn find(stored: [Option<&str>; 2], token: &str) -> Option<usize> {
    let given = Digest::of(token);
    let is_it = |stored: Option<&str>| {
        let digest = stored.and_then(Digest::from_stored);
        let known = digest.is_some();
        known & bool::from(digest.unwrap_or(Digest([0; 32])).0.ct_eq(&given.0))
    };
    stored.map(is_it).into_iter().position(|is_it| is_it)
}

/// The prefixes of the digests of imported satellites, all of them forms of the same function.
const BCRYPT_PREFIXES: [&str; 3] = ["$2a$", "$2b$", "$2y$"];

/// The highest cost that is verified: each step doubles the work, and this one takes about half a
/// second.
pub const MAX_BCRYPT_COST: u32 = 14;

/// Whether a stored digest is a bcrypt hash.
pub fn is_bcrypt(stored: &str) -> bool {
    BCRYPT_PREFIXES.iter().any(|prefix| stored.starts_with(prefix))
}

/// Whether `token` is the one stored by bcrypt. Takes tens of milliseconds of a core. A digest that
/// is broken, or costs too much, matches nothing.
pub fn verify_bcrypt(stored: &str, token: &str) -> bool {
    let cost = stored.get(4..6).and_then(|cost| cost.parse().ok());
    cost.is_some_and(|cost: u32| cost <= MAX_BCRYPT_COST)
        && bcrypt::verify(token, stored).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_token_has_256_bits_and_its_prefix_and_never_comes_twice() {
        let (a, b) = (generate().expect("token"), generate().expect("token"));
        let bits = a.expose_secret().strip_prefix("csat_").expect("prefix");
        assert_eq!(URL_SAFE_NO_PAD.decode(bits).expect("base64url").len(), 32);
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert!(!format!("{a:?}").contains(bits));
    }

    #[test]
    fn a_named_token_is_whole_or_known_to_be_mistyped() {
        let (a, b) = (generate_named().expect("token"), generate_named().expect("token"));
        let (a, b) = (a.expose_secret(), b.expose_secret());
        assert_ne!(a, b);
        assert!(is_whole(a) && is_named(a) && a.len() == 4 + 43 + CHECKSUM_LENGTH, "{}", a.len());
        let bits = &a[4..47];
        assert_eq!(URL_SAFE_NO_PAD.decode(bits).expect("base64url").len(), 32);
        let swapped: String = {
            let mut letters: Vec<char> = a.chars().collect();
            let (n, _) = letters
                .windows(2)
                .enumerate()
                .skip(4)
                .find(|(_, two)| two[0] != two[1])
                .expect("two");
            letters.swap(n, n + 1);
            letters.into_iter().collect()
        };
        for broken in [&a[..50], &a[1..], &swapped, &format!("{a}A"), "gst_", "gst_é", "", "csat_x"]
        {
            assert!(!is_whole(broken), "{broken}");
        }
    }

    #[test]
    fn a_token_is_judged_by_its_length_and_its_kinds_of_characters() {
        let cases = [
            ("", 0),
            ("secret", 13),
            ("0123456789", 33),
            ("8c6a1b0fd2e94c7fa35b6e1d09f7c284", 128),
            ("8C6A1B0FD2E94C7FA35B6E1D09F7C284", 128),
            ("8c6a1b0f-d2e9-4c7f-a35b-6e1d09f7c284", 128),
            ("8c6a1b0fd2e94c7fa35b6e1d09f7c28", 124),
            ("qzYkP3nVb8sTfW1mXc7Rdg", 130),
            ("abababababababababababababababababababababab", 44),
        ];
        for (token, bits) in cases {
            assert_eq!(bits_at_most(token), bits, "{token}");
        }
        let made = generate().expect("a token");
        assert!(bits_at_most(made.expose_secret()) >= 256);
    }

    #[test]
    fn only_the_stored_token_verifies() {
        let token = generate().expect("token");
        let token = token.expose_secret();
        let stored = Digest::of(token).to_stored();
        assert!(!stored.contains(token));
        let other = Digest::of("csat_other").to_stored();
        assert_eq!(find([Some(&stored), None], token), Some(0));
        assert_eq!(find([Some(&other), Some(&stored)], token), Some(1));
        assert_eq!(find([Some(&stored), Some(&other)], "csat_another"), None);
        assert_eq!(find([Some("sha256:short"), Some("")], token), None);
        assert_eq!(find([None, None], token), None);
    }

    #[test]
    fn a_signature_is_of_one_token_one_purpose_and_one_text() {
        let digests =
            |tokens: &[&str]| Digests::new(tokens.iter().map(|t| Digest::of(t)).collect());
        let signature = Digest::of("new").sign("purpose", "text");
        let signer = |tokens: &[&str], purpose, text, signature: &[u8]| {
            digests(tokens).signer(purpose, text, signature).map(Digest::to_stored)
        };
        let new = Some(Digest::of("new").to_stored());
        assert_eq!(signer(&["old", "new"], "purpose", "text", &signature), new);
        assert_eq!(signer(&["old"], "purpose", "text", &signature), None);
        assert_eq!(signer(&[], "purpose", "text", &signature), None);
        assert_eq!(signer(&["new"], "other", "text", &signature), None);
        assert_eq!(signer(&["new"], "purpose", "texts", &signature), None);
        for broken in [&signature[..31], &[0; 32], &[]] {
            assert_eq!(signer(&["new"], "purpose", "text", broken), None);
        }
    }

    #[test]
    fn digests_of_bcrypt_in_all_its_spellings_verify() {
        let made = bcrypt::hash("csat_imported", 4).expect("a digest");
        for prefix in BCRYPT_PREFIXES {
            let stored = format!("{prefix}{}", &made[4..]);
            assert!(is_bcrypt(&stored));
            assert!(verify_bcrypt(&stored, "csat_imported"));
            assert!(!verify_bcrypt(&stored, "csat_other"));
            assert_eq!(find([Some(&stored), None], "csat_imported"), None, "not by the fast way");
        }
        let dear = format!("$2b$31${}", &made[7..]);
        for broken in [dear.as_str(), "$2b$", "$2b$04$short", &made[..59]] {
            assert!(!verify_bcrypt(broken, "csat_imported"), "{broken}");
        }
        assert!(!is_bcrypt(&Digest::of("csat_imported").to_stored()));
    }
}
