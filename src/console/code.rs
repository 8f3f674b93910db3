//! A code that signs in once, instead of a token: `groundstation dev` makes one for the link that it prints.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::platform::token::Digest;

/// How long a code that nobody uses is valid.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// A code, as the pod knows it.
#[derive(Clone)]
pub struct Code {
    digest: Digest,
    until: Instant,
}

impl Code {
    /// A new code of 128 random bits. Fails only if the operating system has no randomness.
    pub fn make() -> anyhow::Result<(Code, SecretString)> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let code = Code { digest: Digest::of(&text), until: Instant::now() + LIFETIME };
        Ok((code, text.into()))
    }
}

/// The code that is still to be used, if there is one.
pub(super) struct OneTime(Mutex<Option<Code>>);

impl OneTime {
    pub(super) fn new(code: Option<Code>) -> OneTime {
        OneTime(Mutex::new(code))
    }

    /// Whether this is the code. It is used up then; another one changes nothing.
    pub(super) fn take(&self, text: &str) -> bool {
        let mut code = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        code.take_if(|code| code.digest.matches(text))
            .is_some_and(|code| Instant::now() < code.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[tokio::test(start_paused = true)]
    async fn a_code_signs_in_once_and_only_in_time() {
        let (code, text) = Code::make().expect("a code");
        let text = text.expose_secret();
        assert_eq!(text.len(), 22);
        let once = OneTime::new(Some(code.clone()));
        assert!(!once.take("wrong"));
        assert!(once.take(text));
        assert!(!once.take(text));
        let late = OneTime::new(Some(code));
        tokio::time::advance(LIFETIME).await;
        assert!(!late.take(text));
        assert!(!OneTime::new(None).take(""));
    }
}
