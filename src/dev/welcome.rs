//! How to go on, in lines that work as they stand in any folder of this machine: the page with a link that signs in
//! once, and commands. No line holds a token: they read it from a file that only its owner can read.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};

use crate::console::files::Files;

/// What the lines name, but for the pod's address.
pub struct Welcome {
    token_file: PathBuf,
    nats_url: String,
    program: PathBuf,
    code: SecretString,
}

impl Welcome {
    /// Writes the token's file.
    pub fn new(
        folder: &Path,
        nats_url: String,
        token: &str,
        code: SecretString,
    ) -> anyhow::Result<Welcome> {
        let token_file = folder.join("token");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&token_file).context("the token's file")?;
        // It may have been there before, with other rights.
        file.set_permissions(Permissions::from_mode(0o600)).context("the token's file")?;
        file.write_all(token.as_bytes()).context("the token's file")?;
        let program = std::env::current_exe().context("cannot tell this program's file")?;
        Ok(Welcome { token_file, nats_url, program: by_name(program), code })
    }

    /// The lines for a pod at this address.
    pub fn lines(&self, address: SocketAddr) -> Vec<String> {
        let url = format!("http://{address}");
        let token = format!("\"$(cat {})\"", quoted(&self.token_file));
        let bearer = token.replacen('"', "\"Authorization: Bearer ", 1);
        let page = if Files::embedded().is_built() {
            let code = self.code.expose_secret();
            format!("{url}/console/sign-in#{code}  (signs in once, within 15 minutes)")
        } else {
            format!("{url}/console/ says how to get the page: this program was built without it")
        };
        vec![
            format!("page:     {page}"),
            format!("fleet:    curl -H {bearer} {url}/v1/fleet"),
            format!("edges:    nats -s {} sub 'satellite.>'", self.nats_url),
            format!(
                "commands: {} satellite list --url {url} --token {token}",
                quoted(&self.program)
            ),
        ]
    }
}

/// The program's name alone, where the shell finds it by that.
fn by_name(program: PathBuf) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let name = Path::new(env!("CARGO_PKG_NAME"));
    let first =
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|it| it.is_file());
    let is_it = first.and_then(|it| it.canonicalize().ok()).is_some_and(|it| it == program);
    if is_it { name.to_owned() } else { program }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(
            quoted(Path::new("/home/a/.groundstation/token")),
            "/home/a/.groundstation/token"
        );
        assert_eq!(quoted(Path::new("/home/a b/$(x)")), "'/home/a b/$(x)'");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }
}
