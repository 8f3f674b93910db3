//! The schemas that are checked in are those of the types that are sent.

use std::collections::BTreeMap;
use std::path::Path;

use groundstation::contract::event_schemas;

use crate::harness::{CALM, Fleet};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schema")
}

#[test]
fn the_files_of_schema_events_are_those_of_the_types() {
    let found: BTreeMap<String, String> = std::fs::read_dir(folder().join("events"))
        .expect("schema/events")
        .map(|entry| entry.expect("a file").path())
        .map(|file| {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&file).expect("text"))
        })
        .collect();
    let generated: BTreeMap<String, String> = event_schemas::files().collect();
    assert_eq!(generated.len(), 4);
    assert!(found == generated, "schema/events/ is stale: run `make schemas` and commit it");
}

#[tokio::test]
async fn files_beside_the_migrations_are_none() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    let applied = sql.query_one("select count(*) from refinery_schema_history", &[]).await;
    let migrations = std::fs::read_dir(folder()).expect("schema").filter(|entry| {
        let name = entry.as_ref().expect("a file").file_name();
        name.to_string_lossy().ends_with(".sql")
    });
    assert_eq!(applied.expect("the history").get::<_, i64>(0), migrations.count() as i64);
}
