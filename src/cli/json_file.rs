//! JSON that a command takes from a file, or from standard input.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;

/// The most bytes read of a file: more than any list that is taken.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What is in it; `-` is standard input.
pub fn read(file: &Path) -> anyhow::Result<serde_json::Value> {
    let shown = file.display();
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    } else {
        let opened = File::open(file).with_context(|| format!("cannot read {shown}"))?;
        let read = opened.take(MAX_FILE_BYTES).read_to_string(&mut text);
        read.with_context(|| format!("cannot read {shown}"))?;
    }
    serde_json::from_str(&text).with_context(|| format!("{shown} is not JSON"))
}
