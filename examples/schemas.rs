//! Writes the schemas of the stream's bodies into `schema/events/` (`make schemas`).

use std::path::Path;

use anyhow::Context;
use groundstation::event_schemas;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/events");
    for (name, text) in event_schemas::files() {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
