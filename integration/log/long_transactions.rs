//! A transaction that stays open for long, in this database or in another of the same server, delays nothing: no
//! edge, no publication, no new partition.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::harness::faults::repetitions;
use crate::harness::{CALM, Fleet, Satellite};

/// Many times what an edge takes. A wait for such a transaction would never end.
const PROMPTLY: Duration = Duration::from_secs(3);

/// Transactions as reports, dumps and forgotten sessions leave them: idle with an old snapshot, and
/// idle with a transaction id.
const OPENINGS: [&str; 2] = [
    "begin isolation level repeatable read; select count(*) from pg_class",
    "begin; create table left_open (); select pg_current_xact_id()",
];

async fn open(url: &str, opening: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client.batch_execute(opening).await.expect("a transaction");
    client
}

fn another_database(url: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    format!("{server}/postgres")
}

#[tokio::test]
async fn transactions_left_open_delay_no_edge_and_no_message() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let mut subscriber = fleet.subscribe().await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    let mut left_open = Vec::new();
    for url in [fleet.database_url.clone(), another_database(&fleet.database_url)] {
        for opening in OPENINGS {
            left_open.push(open(&url, opening).await);
        }
    }
    const READS_THE_LOG: &str = "
        begin isolation level repeatable read;
        select count(*) from entity_transitions; select count(*) from satellite_connections";
    left_open.push(open(&fleet.database_url, READS_THE_LOG).await);

    let mut worst = Duration::ZERO;
    for n in 0..repetitions(20, 500) {
        let begun = Instant::now();
        Satellite::connect(pod.address, &credentials).await.close().await;
        subscriber.expect("satellite.connected", credentials.id).await;
        subscriber.expect("satellite.disconnected", credentials.id).await;
        worst = worst.max(begun.elapsed());
        if n == 10 {
            make_room(&fleet).await;
        }
    }
    println!("the slowest took {worst:?}");
    assert!(worst < PROMPTLY, "{worst:?}");
    fleet.check().await;
    for transaction in left_open {
        transaction.batch_execute("select 1; rollback").await.expect("it was open all the time");
    }
}

/// As pods do ahead of time.
async fn make_room(fleet: &Fleet) {
    const EXTEND: &str = "select extend_transition_log(1000000, 2000000)";
    let begun = Instant::now();
    let made = fleet.sql().await.query_one(EXTEND, &[]).await.expect("room in the log");
    assert!(made.get::<_, i32>(0) > 0, "there was room already");
    assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
}
