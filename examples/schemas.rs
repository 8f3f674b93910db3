//! Writes the schemas of the stream's bodies into `schema/events/` and those of the satellites' messages
//! into `schema/agents/` (`make schemas`).

use std::path::Path;

use anyhow::Context;
use groundstation::contract::event_schemas;
use groundstation::gateway::message_schemas;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let events = event_schemas::files().map(|(name, text)| (Path::new("events").join(name), text));
    let messages = message_schemas::files();
    let messages = messages.map(|(name, text)| (Path::new("agents").join(name), text));
    for (name, text) in events.chain(messages) {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
