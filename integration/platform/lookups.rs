//! Reads that many ask for at once: each gets its own answer, and few statements give them.

use std::sync::atomic::{AtomicUsize, Ordering};

use deadpool_postgres::Object;
use futures_util::future::join_all;
use groundstation::domain::lifecycle::SatelliteId;
use groundstation::platform::batch_loader::{BatchLoader, Read};
use groundstation::platform::database::Address;
use uuid::Uuid;

use crate::harness::{CALM, Fleet};

static STATEMENTS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Clone, PartialEq)]
struct Name(String);

impl Read for Name {
    async fn read(
        client: &Object,
        satellites: &[SatelliteId],
    ) -> anyhow::Result<Vec<(SatelliteId, Name)>> {
        STATEMENTS.fetch_add(1, Ordering::Relaxed);
        let ids: Vec<Uuid> = satellites.iter().map(|id| id.0).collect();
        let query = "select id, name from satellites where id = any($1)";
        let rows = client.query(query, &[&ids]).await?;
        Ok(rows.iter().map(|row| (SatelliteId(row.get(0)), Name(row.get(1)))).collect())
    }
}

#[tokio::test]
async fn a_thousand_who_ask_at_once_get_their_own_answers_from_a_few_statements() {
    let fleet = Fleet::new(CALM).await;
    let ids: Vec<Uuid> = (0..900).map(|_| Uuid::new_v4()).collect();
    let names: Vec<String> = (0..900).map(|n| format!("edge-{n}")).collect();
    let insert = "insert into satellites (id, name, region, token_hash)
                  select id, name, 'eu', '' from unnest($1::uuid[], $2::text[]) as n (id, name)";
    fleet.sql().await.execute(insert, &[&ids, &names]).await.expect("satellites");
    let database = Address::parse("DATABASE_URL", &fleet.database_url).expect("an address");
    let lookup: BatchLoader<Name> = BatchLoader::new(&database.pool("lookup").expect("a pool"));

    let known = ids.iter().zip(&names).map(|(id, name)| (*id, Some(Name(name.clone()))));
    let unknown = (0..100).map(|_| (Uuid::new_v4(), None));
    let asked: Vec<(Uuid, Option<Name>)> = known.chain(unknown).collect();
    let answers = join_all(asked.iter().map(|(id, _)| lookup.of(SatelliteId(*id)))).await;
    for ((id, expected), answer) in asked.iter().zip(answers) {
        assert_eq!(answer.as_ref(), Ok(expected), "{id}");
    }
    let statements = STATEMENTS.load(Ordering::Relaxed);
    assert!(statements <= 20, "{statements} statements for {} questions", asked.len());
}
