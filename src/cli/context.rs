//! Contexts: addresses of pods with their tokens, by names of the user's own.
//!
//! They are in `groundstation/config.toml` in the user's configuration folder (`XDG_CONFIG_HOME`, or else `~/.config`):
//!
//! ```toml
//! context = "production"
//!
//! [contexts.production]
//! url = "https://groundstation.example"
//! token-file = "production.token"
//! ```
//!
//! `context` counts where neither the command nor its environment names a pod. A `token-file` is looked for beside the
//! file itself. Instead of it there may be a `token`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use secrecy::SecretString;
use serde::Deserialize;

use super::token_file;

/// One pod, or the address before several.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its address.
    pub url: String,
    /// The token for it.
    pub token: Option<SecretString>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    context: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    url: String,
    token: Option<SecretString>,
    token_file: Option<PathBuf>,
}

/// The context of this name.
pub fn named(name: &str) -> anyhow::Result<Context> {
    let path = path().context("--context: there is no home folder to have contexts in")?;
    of(&path, read(&path)?.unwrap_or_default(), name)
}

/// The context that the file says counts, if it says so.
pub fn default() -> anyhow::Result<Option<Context>> {
    let Some(path) = path() else { return Ok(None) };
    let Some(mut file) = read(&path)? else { return Ok(None) };
    file.context.take().map(|name| of(&path, file, &name)).transpose()
}

/// The file; none where the user has no home.
fn path() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    // A relative one is to be ignored, says the XDG Base Directory Specification.
    let configuration = folder("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let configuration = configuration.or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(configuration.join("groundstation").join("config.toml"))
}

fn read(path: &Path) -> anyhow::Result<Option<File>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let begin = error.span().map_or(0, |span| span.start);
        let line = text.get(..begin).unwrap_or_default().matches('\n').count() + 1;
        // Its other words would show the line itself, which may hold a token.
        anyhow!("{}, line {line}: {}", path.display(), error.message())
    })?;
    if file.contexts.values().any(|entry| entry.token.is_some())
        && token_file::others_may_read(path)
    {
        eprintln!(
            "groundstation: {} holds a token and others can read it: chmod 600",
            path.display()
        );
    }
    Ok(Some(file))
}

fn of(path: &Path, mut file: File, name: &str) -> anyhow::Result<Context> {
    let shown = path.display();
    let Some(Entry { url, token, token_file }) = file.contexts.remove(name) else {
        let known: Vec<&str> = file.contexts.keys().map(String::as_str).collect();
        match known.is_empty() {
            true => bail!("there is no context {name:?}: {shown} has none"),
            false => bail!("there is no context {name:?}: {shown} has {}", known.join(", ")),
        }
    };
    let token = match (token, token_file) {
        (Some(_), Some(_)) => bail!("{shown}: the context {name:?} has both token and token-file"),
        (token, None) => token,
        (None, Some(file)) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            Some(token_file::read(&folder.join(file))?)
        }
    };
    Ok(Context { url, token })
}
