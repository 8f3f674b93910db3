//! Text that only holders of a key can read or make: what a browser keeps for this service.
//!
//! AES-256-GCM with a random nonce. So few texts are sealed with one key (one for each sign-in of a person) that no nonce
//! comes twice.

use anyhow::anyhow;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::token::{Digest, Digests};

/// What a key is derived for: the same digests sign and seal other things elsewhere.
const DERIVATION: &str = "groundstation envelope";

/// The longest sealed text that is opened: no cookie is longer.
const MAX_SEALED_BYTES: usize = 4_096;

/// Seals texts for one purpose.
pub struct Envelope(Vec<LessSafeKey>);

impl Envelope {
    /// Keys from these digests, for this purpose and no other. The first seals, all open.
    pub fn new(digests: &Digests, purpose: &str) -> anyhow::Result<Envelope> {
        let key = |digest: &Digest| {
            let key = UnboundKey::new(&AES_256_GCM, &digest.sign(DERIVATION, purpose));
            key.map(LessSafeKey::new).map_err(|_| anyhow!("a key cannot be made"))
        };
        Ok(Envelope(digests.iter().map(key).collect::<anyhow::Result<_>>()?))
    }

    /// Seals a text. Fails only if the operating system has no randomness.
    pub fn seal(&self, text: &str) -> anyhow::Result<String> {
        let key = self.0.first().ok_or_else(|| anyhow!("there is no key"))?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|error| anyhow!("no randomness: {error}"))?;
        let mut sealed = text.as_bytes().to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut sealed,
        )
        .map_err(|_| anyhow!("a text cannot be sealed"))?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce, sealed.as_slice()].concat()))
    }

    /// The text, if one of the keys has sealed it.
    pub fn open(&self, sealed: &str) -> Option<String> {
        if sealed.len() > MAX_SEALED_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let text = key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
            String::from_utf8(text.to_vec()).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(keys: &[&str], purpose: &str) -> Envelope {
        let digests = Digests::new(keys.iter().map(|key| Digest::of(key)).collect());
        Envelope::new(&digests, purpose).expect("an envelope")
    }

    #[test]
    fn only_a_key_for_the_same_purpose_opens_what_was_sealed() {
        let sealed = envelope(&["new", "old"], "session").seal("who").expect("sealed");
        assert!(!sealed.contains("who"));
        for (keys, purpose, opened) in [
            (vec!["new", "old"], "session", Some("who")),
            (vec!["newer", "new"], "session", Some("who")),
            (vec!["new"], "attempt", None),
            (vec!["old"], "session", None),
            (vec![], "session", None),
        ] {
            assert_eq!(envelope(&keys, purpose).open(&sealed).as_deref(), opened, "{keys:?}");
        }
        assert!(envelope(&[], "session").seal("who").is_err());
    }

    #[test]
    fn nothing_of_it_can_be_changed_and_no_two_are_alike() {
        let here = envelope(&["key"], "session");
        let sealed = here.seal("{\"role\":\"read\"}").expect("sealed");
        assert_ne!(sealed, here.seal("{\"role\":\"read\"}").expect("sealed"));
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).expect("base64");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(here.open(&URL_SAFE_NO_PAD.encode(changed)), None, "byte {at}");
        }
        for broken in ["", "AAAA", "é", &sealed[1..], &format!("{sealed}A"), &"A".repeat(5_000)] {
            assert_eq!(here.open(broken), None, "{broken:.40}");
        }
    }
}
