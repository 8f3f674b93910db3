//! The source of secrets: a folder of files, or a responder on NATS.
//!
//! From here to the frame that carries it, a value is held in types that cannot be printed; it is stored
//! nowhere. Names are checked before they become part of a path or a subject.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::RequestErrorKind;
use async_nats::connection::State;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

/// The subject of the responder.
const SUBJECT: &str = "secrets.resolve";

/// How long the responder may take; agents wait longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of one secret.
pub const MAX_BYTES: usize = 64 * 1024;

/// The most characters of a secret's name.
pub const MAX_NAME: usize = 200;

/// The values of secrets by their names.
pub type Values = BTreeMap<String, SecretString>;

/// Why one of the secrets is missing. Never holds a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unresolved {
    /// There is no secret of this name.
    #[error("Secret not found: {0}")]
    NotFound(String),
    /// It exists but cannot be used.
    #[error("Secret cannot be read: {name}")]
    Unreadable {
        /// Which.
        name: String,
        /// Why; for operators only.
        why: String,
    },
    /// There is neither a folder nor a responder.
    #[error("No secrets provider is configured")]
    NoProvider,
    /// The responder did not answer in time.
    #[error("The secrets provider does not answer")]
    NoAnswer,
    /// The answer is not valid: for a satellite that is the same as no answer.
    #[error("The secrets provider does not answer")]
    Malformed,
}

impl Unresolved {
    /// The details for operators, which satellites are not told; none if there is nothing to repair here.
    pub fn why(&self) -> Option<&str> {
        match self {
            Unresolved::Unreadable { why, .. } => Some(why),
            Unresolved::Malformed => Some("the answer on secrets.resolve is not valid"),
            Unresolved::NotFound(_) | Unresolved::NoProvider | Unresolved::NoAnswer => None,
        }
    }
}

/// Whether this is a valid name of a secret: never a path, never hidden.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// The source of secrets.
pub enum Provider {
    /// A folder with one file for each secret.
    Folder(PathBuf),
    /// A responder on `secrets.resolve`.
    Nats(async_nats::Client),
}

impl Provider {
    /// The folder if one is given, else NATS.
    pub fn new(folder: Option<PathBuf>, nats: async_nats::Client) -> Provider {
        folder.map_or(Provider::Nats(nats), Provider::Folder)
    }

    /// All of these secrets, or why one of them is missing.
    pub async fn resolve(&self, names: BTreeSet<String>) -> Result<Values, Unresolved> {
        if let Some(bad) = names.iter().find(|name| !is_name(name)) {
            return Err(Unresolved::NotFound(bad.chars().take(MAX_NAME).collect()));
        }
        match self {
            Provider::Folder(folder) => {
                let folder = folder.clone();
                let read = tokio::task::spawn_blocking(move || read_all(&folder, names));
                read.await.map_err(|_| Unresolved::NoAnswer)?
            }
            Provider::Nats(nats) => ask(nats, names).await,
        }
    }
}

/// Checks that the named setting is a readable folder.
pub fn check_folder(setting: &str, folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    let found = folder.metadata().with_context(|| format!("cannot read {setting} {shown}"))?;
    if !found.is_dir() {
        bail!("{setting} {shown} is not a folder");
    }
    folder.read_dir().with_context(|| format!("cannot read {setting} {shown}"))?;
    Ok(())
}

fn read_all(folder: &Path, names: BTreeSet<String>) -> Result<Values, Unresolved> {
    names
        .into_iter()
        .map(|name| {
            let value = read(folder, &name)?;
            Ok((name, value))
        })
        .collect()
}

/// Kubernetes mounts each secret as a link to a file below the folder, and replaces a link in between to
/// change all of them at once. So links are followed, and their targets must be inside the folder.
fn read(folder: &Path, name: &str) -> Result<SecretString, Unresolved> {
    let unreadable =
        |why: &str| Unresolved::Unreadable { name: name.to_owned(), why: why.to_owned() };
    let root = folder.canonicalize().map_err(|error| unreadable(&error.to_string()))?;
    let path = match root.join(name).canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Unresolved::NotFound(name.to_owned()));
        }
        Err(error) => return Err(unreadable(&error.to_string())),
    };
    if !path.starts_with(&root) {
        return Err(unreadable("its link leads out of the folder"));
    }
    // Checked before it is opened: opening a pipe would wait for its other end.
    if !path.metadata().is_ok_and(|found| found.is_file()) {
        return Err(unreadable("it is not a file"));
    }
    let mut text = String::new();
    let file = std::fs::File::open(&path).map_err(|error| unreadable(&error.to_string()))?;
    file.take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|_| unreadable("it is not text"))?;
    let mut value = SecretString::from(text);
    if value.expose_secret().len() > MAX_BYTES {
        return Err(unreadable("it is too large"));
    }
    // Editors and `echo` end a file with a line break that is not part of the value.
    let text = value.expose_secret();
    if let Some(socket) = text.strip_suffix('\n') {
        value = socket.strip_suffix('\r').unwrap_or(socket).to_owned().into();
    }
    Ok(value)
}

async fn ask(nats: &async_nats::Client, names: BTreeSet<String>) -> Result<Values, Unresolved> {
    #[derive(Deserialize)]
    struct Answer {
        secrets: HashMap<String, Option<SecretString>>,
    }
    if nats.connection_state() != State::Connected {
        return Err(Unresolved::NoAnswer);
    }
    let request = nats.request(SUBJECT, json!({"names": names}).to_string().into());
    let message = match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(message)) => message,
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
            return Err(Unresolved::NoProvider);
        }
        Ok(Err(_)) | Err(_) => return Err(Unresolved::NoAnswer),
    };
    // The parser's error would quote the answer.
    let Ok(mut answer) = serde_json::from_slice::<Answer>(&message.payload) else {
        return Err(Unresolved::Malformed);
    };
    names
        .into_iter()
        .map(|name| match answer.secrets.remove(&name).flatten() {
            Some(value) if value.expose_secret().len() > MAX_BYTES => {
                Err(Unresolved::Unreadable { name, why: "the responder's is too large".to_owned() })
            }
            Some(value) => Ok((name, value)),
            None => Err(Unresolved::NotFound(name)),
        })
        .collect()
}

#[cfg(test)]
mod tests;
