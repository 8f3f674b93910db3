//! Puts the built page, `console/dist`, into the program: a table of paths and bytes for `src/console/files.rs`.
//!
//! `make console` builds it. Without it the table is empty, and the program says how to get the page.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    // A new migration is compiled in (`src/platform/migrations.rs`).
    println!("cargo::rerun-if-changed=schema");
    let console = Path::new("console");
    let dist = console.join("dist");
    // Cargo takes a missing path for one that changed. Where there is no page yet, the folder that will hold it is
    // watched.
    let watched = if dist.is_dir() { &dist } else { console };
    println!("cargo::rerun-if-changed={}", watched.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let mut table = String::new();
    // A page without its first file is half built: there is none.
    if dist.join("index.html").is_file() {
        for (n, path) in files(&dist)?.iter().enumerate() {
            // A copy, so that what is embedded is what was read here.
            let copy = out.join(format!("console-{n}"));
            fs::copy(path, &copy)?;
            let name = path.strip_prefix(&dist).unwrap_or(path);
            // Writing into a String cannot fail.
            writeln!(table, "    ({:?}, include_bytes!({:?})),", name, copy).ok();
        }
    }
    fs::write(out.join("console.rs"), format!("&[\n{table}]\n"))
}

/// All files below a folder, in the order of their names.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
