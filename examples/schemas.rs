//! Writes the schemas of the stream's bodies into `schema/events/`, those of the satellites' messages into
//! `schema/agents/`, and what the routes take and answer into `schema/openapi.json` (`make schemas`).

use std::path::Path;

use anyhow::Context;
use groundstation::api::openapi;
use groundstation::contract::event_schemas;
use groundstation::gateway::message_schemas;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let events = event_schemas::files().map(|(name, text)| (Path::new("events").join(name), text));
    let messages = message_schemas::files();
    let messages = messages.map(|(name, text)| (Path::new("agents").join(name), text));
    let (name, text) = openapi::file();
    for (name, text) in events.chain(messages).chain([(name.into(), text)]) {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
