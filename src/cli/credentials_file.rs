//! The file in which an agent keeps the credentials of its satellite.
//!
//! Only its owner may read it. It is written anew and put in the place of the one before, so a crash leaves one of both
//! whole. Before an enrolment it holds the key of that, so whoever begins again asks for the same satellite. Nothing that
//! it holds is ever said.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use uuid::Uuid;

use super::exit::wrong_usage;
use super::token_file::others_may;

/// The most bytes of a file: it has a few hundred.
const MAX_BYTES: u64 = 64 * 1024;

/// The random bits of a key.
const KEY_BYTES: usize = 32;

/// A file, and the service whose credentials it holds.
pub struct CredentialsFile {
    path: PathBuf,
    service: String,
}

/// What a file holds.
pub enum Kept {
    /// A satellite's id and token.
    Credentials(Uuid, SecretString),
    /// The key of an enrolment that was begun.
    Key(SecretString),
}

/// As it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    service: String,
    client_id: Option<Uuid>,
    token: Option<SecretString>,
    enrolment_key: Option<SecretString>,
}

impl CredentialsFile {
    /// This file, for the service at this address.
    pub fn new(path: PathBuf, service: &str) -> CredentialsFile {
        CredentialsFile { path, service: service.trim_end_matches('/').to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds; none where there is no such file.
    pub fn read(&self) -> anyhow::Result<Option<Kept>> {
        let shown = self.path.display();
        // Whoever opens a pipe waits for somebody who writes to it.
        if std::fs::metadata(&self.path).is_ok_and(|about| !about.is_file()) {
            return Err(wrong_usage(anyhow!("{shown} is no file")));
        }
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(wrong_usage(anyhow!(
                    "cannot read the credentials in {shown}: {error}"
                )));
            }
        };
        // Of what is open, not of what has the name by now.
        let about = file.metadata().with_context(|| format!("cannot look at {shown}"))?;
        if !about.is_file() {
            return Err(wrong_usage(anyhow!("{shown} is no file")));
        }
        let mode = about.permissions().mode();
        if others_may(mode) {
            return Err(wrong_usage(anyhow!(
                "others may read or change {shown}, which holds credentials (mode {:04o}): `chmod 600` it, and take \
                 another token if somebody may have read it",
                mode & 0o7777
            )));
        }
        let mut text = String::new();
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
        read.map_err(|error| wrong_usage(anyhow!("cannot read {shown}: {error}")))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(self.odd(&format!("it has more than {MAX_BYTES} bytes")));
        }
        // The parser's own words could repeat a secret.
        let written: Written = serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            self.odd(&format!("it is not as it was written, at line {line} column {column}"))
        })?;
        if written.service != self.service {
            return Err(wrong_usage(anyhow!(
                "the credentials in {shown} are for {}, not for {}: give another file (or, if it is the same service \
                 under another address, write that into the file)",
                written.service,
                self.service
            )));
        }
        let is_there = |secret: &SecretString| !secret.expose_secret().is_empty();
        match (written.client_id, written.token, written.enrolment_key) {
            (Some(id), Some(token), None) if is_there(&token) => {
                Ok(Some(Kept::Credentials(id, token)))
            }
            (None, None, Some(key)) if is_there(&key) => Ok(Some(Kept::Key(key))),
            _ => Err(self.odd("it needs clientId and token")),
        }
    }

    fn odd(&self, why: &str) -> anyhow::Error {
        let shown = self.path.display();
        wrong_usage(anyhow!("{shown} is no file of credentials: {why}; remove it to enrol anew"))
    }

    /// Begins an enrolment: keeps a new key. Where another agent has written the file meanwhile, it is what that has kept.
    pub fn begin(&self) -> anyhow::Result<Kept> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
        let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let content = json!({"service": self.service, "enrolmentKey": key});
        match self.write(&content)?.persist_noclobber(&self.path) {
            Ok(_) => {}
            Err(failed) if failed.error.kind() == ErrorKind::AlreadyExists => {
                let kept = self.read()?;
                return kept.with_context(|| format!("{} comes and goes", self.path.display()));
            }
            Err(failed) => return Err(self.not_kept(failed.error)),
        }
        self.settle()?;
        Ok(Kept::Key(key.into()))
    }

    /// Keeps the credentials.
    pub fn keep(&self, id: Uuid, token: &SecretString) -> anyhow::Result<()> {
        let token = token.expose_secret();
        let content = json!({"service": self.service, "clientId": id, "token": token});
        let written = self.write(&content)?;
        written.persist(&self.path).map_err(|failed| self.not_kept(failed.error))?;
        self.settle()
    }

    /// A new file beside it, which only its owner may read, and which is on the disk.
    fn write(&self, content: &Value) -> anyhow::Result<NamedTempFile> {
        let write = || {
            let mut file = NamedTempFile::new_in(self.folder())?;
            writeln!(file, "{content:#}")?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        write().map_err(|error| self.not_kept(error))
    }

    /// Waits until the folder is on the disk too: without that the name may lead to the file before.
    fn settle(&self) -> anyhow::Result<()> {
        let synced = File::open(self.folder()).and_then(|folder| folder.sync_all());
        synced.map_err(|error| self.not_kept(error))
    }

    fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }

    fn not_kept(&self, error: std::io::Error) -> anyhow::Error {
        anyhow!("cannot keep credentials in {}: {error}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "https://groundstation.example";

    fn file(folder: &tempfile::TempDir) -> CredentialsFile {
        CredentialsFile::new(folder.path().join("satellite.json"), SERVICE)
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn written(file: &CredentialsFile, text: &str, mode: u32) {
        std::fs::write(file.path(), text).expect("written");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file.path(), permissions).expect("a mode");
    }

    fn refusal(file: &CredentialsFile) -> String {
        file.read().err().expect("refused").to_string()
    }

    #[test]
    fn a_pipe_is_no_file_and_nobody_waits_for_it() {
        let folder = folder();
        let file = file(&folder);
        let made = std::process::Command::new("mkfifo").arg(file.path()).status();
        assert!(made.expect("mkfifo").success());
        assert!(refusal(&file).ends_with("is no file"));
    }

    #[test]
    fn a_key_is_kept_first_then_the_credentials_and_only_their_owner_may_read_either() {
        let folder = folder();
        let file = file(&folder);
        assert!(file.read().expect("no file").is_none());
        let mode = || std::fs::metadata(file.path()).expect("a file").permissions().mode() & 0o777;
        let Kept::Key(key) = file.begin().expect("begun") else { panic!("a key") };
        assert_eq!((key.expose_secret().len(), mode()), (64, 0o600));
        // Whoever begins at the same time goes on with the same key.
        for kept in [file.begin().expect("begun"), file.read().expect("read").expect("a file")] {
            let Kept::Key(same) = kept else { panic!("a key") };
            assert_eq!(same.expose_secret(), key.expose_secret());
        }
        let (id, token) = (Uuid::new_v4(), SecretString::from("csat_x"));
        file.keep(id, &token).expect("kept");
        assert_eq!(mode(), 0o600);
        match file.read().expect("read") {
            Some(Kept::Credentials(kept, token)) => {
                assert_eq!((kept, token.expose_secret()), (id, "csat_x"));
            }
            _ => panic!("credentials"),
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_file_that_others_may_read_or_of_another_service_is_refused_and_nothing_of_it_said() {
        let folder = folder();
        let file = file(&folder);
        let whole = format!(
            r#"{{"service": "{SERVICE}", "clientId": "{}", "token": "csat_secret"}}"#,
            Uuid::nil()
        );
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602] {
            written(&file, &whole, mode);
            let said = refusal(&file);
            assert!(said.contains("chmod 600") && said.contains(&format!("{mode:04o}")), "{said}");
        }
        for mode in [0o600, 0o400] {
            written(&file, &whole, mode);
            assert!(file.read().is_ok());
        }
        written(&file, &whole.replace("groundstation.example", "other.example"), 0o600);
        let said = refusal(&file);
        assert!(said.contains("are for https://other.example, not for https://groundstation"));
    }

    #[test]
    fn a_file_that_was_tampered_with_is_refused_and_nothing_of_it_said() {
        let folder = folder();
        let file = file(&folder);
        let id = Uuid::nil();
        for broken in [
            String::new(),
            "csat_secret".to_owned(),
            "\"csat_secret\"".to_owned(),
            format!(r#"{{"service": "{SERVICE}"}}"#),
            format!(r#"{{"service": "{SERVICE}", "token": "csat_secret"}}"#),
            format!(r#"{{"service": "{SERVICE}", "clientId": "{id}", "token": ""}}"#),
            format!(r#"{{"service": "{SERVICE}", "clientId": "csat_secret", "token": "x"}}"#),
            format!(r#"{{"service": "{SERVICE}", "clientId": "{id}", "token": ["csat_secret"]}}"#),
            format!(
                r#"{{"service": "{SERVICE}", "clientId": "{id}", "token": "csat_secret", "enrolmentKey": "k"}}"#
            ),
            format!(
                r#"{{"service": "{SERVICE}", "clientId": "{id}", "token": "csat_secret"}}{}"#,
                " ".repeat(70_000)
            ),
        ] {
            written(&file, &broken, 0o600);
            let said = refusal(&file);
            assert!(said.contains("is no file of credentials"), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
