//! Tokens of the command line that are kept in files.

use std::path::Path;

use anyhow::{Context, bail};
use secrecy::SecretString;

/// The token in a file; of several, for rotation, the first, which is the newest.
pub fn read(path: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read the token in {}", path.display()))?;
    match newest(&text) {
        Some(token) => Ok(token),
        None => bail!("there is no token in {}", path.display()),
    }
}

/// The first of the tokens in a text as a pod takes it.
pub fn newest(text: &str) -> Option<SecretString> {
    crate::pod::config::split_tokens(text).next().map(SecretString::from)
}

/// Whether others than its owner can read a file.
pub fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|file| others_may(file.permissions().mode()))
}

/// Whether a file of this mode is not its owner's alone.
pub fn others_may(mode: u32) -> bool {
    mode & 0o077 != 0
}
