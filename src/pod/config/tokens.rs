//! The tokens of the HTTP API that the settings give, directly or by files.

use std::path::PathBuf;

use anyhow::bail;
use secrecy::{ExposeSecret, SecretString};

use super::read_secret;
use crate::domain::access::Role;
use crate::platform::token::{self, Digest, Digests};

/// The most tokens of one right: two are enough for rotation.
const MAX_TOKENS: usize = 16;

/// Tokens with commas or line breaks between them; empty ones count as none.
pub fn split_tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim).filter(|token| !token.is_empty())
}

/// A file that holds the tokens of a role.
#[derive(Debug, Clone)]
pub struct TokenFile {
    /// Of which role.
    pub role: Role,
    /// The setting that names the file.
    pub setting: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

/// The digests of a role's tokens, given directly or by file, and that file.
pub(super) fn of(
    role: Role,
    value: Option<SecretString>,
    path: Option<PathBuf>,
) -> anyhow::Result<(Digests, Option<TokenFile>)> {
    let (name, setting) = match role {
        Role::Read => ("GROUNDSTATION_READ_TOKEN", "GROUNDSTATION_READ_TOKEN_FILE"),
        _ => ("GROUNDSTATION_ADMIN_TOKEN", "GROUNDSTATION_ADMIN_TOKEN_FILE"),
    };
    match (value, path.filter(|path| !path.as_os_str().is_empty())) {
        (Some(_), Some(_)) => bail!("{name} and {setting} are both set: set one of them"),
        (Some(value), None) => Ok((digests(name, value.expose_secret())?, None)),
        (None, Some(path)) => {
            let text = read_secret(setting, &path)?;
            let digests = digests(setting, text.expose_secret())?;
            Ok((digests, Some(TokenFile { role, setting, path })))
        }
        (None, None) => Ok((Digests::default(), None)),
    }
}

/// The digests of the tokens in a text, for the named setting.
pub fn digests(name: &str, text: &str) -> anyhow::Result<Digests> {
    let tokens: Vec<&str> = split_tokens(text).collect();
    if tokens.len() > MAX_TOKENS {
        bail!("{name} has {} tokens, it must be at most {MAX_TOKENS}", tokens.len());
    }
    for (n, token) in tokens.iter().enumerate() {
        let bits = token::bits_at_most(token);
        if bits < token::LEAST_BITS {
            let which =
                if tokens.len() > 1 { format!(" (number {})", n + 1) } else { String::new() };
            bail!(
                "{name} has a token{which} of {bits} bits, judged by its length and its kinds of characters: \
                 it must have at least {}; make one with `openssl rand -hex 32`",
                token::LEAST_BITS
            );
        }
    }
    Ok(Digests::new(tokens.into_iter().map(Digest::of).collect()))
}
