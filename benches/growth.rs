//! How costs grow with the fleet, from ten thousand satellites to a million.
//!
//! A sweep has a section of its own. Memory grows with sockets and not with the fleet. Replay and
//! rebuild grow with the log.

use std::time::Instant;

use groundstation::domain::lifecycle::SatelliteId;
use groundstation::domain::liveness::DEFAULT_OFFLINE_THRESHOLD;
use groundstation::domain::selection::{Order, Place};
use groundstation::registry::satellites::{self, ListFilter, states};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::Scale;
use crate::edges;
use crate::stores::Stores;
use crate::table;

/// Satellites whose edges are measured, whatever the size of the fleet.
const ACTIVE: usize = 10_000;

pub fn measure(scale: Scale) {
    let fleets: &[usize] = scale.choose(&[10_000, 100_000, 1_000_000], &[200, 400]);
    let mut figures: Vec<[String; 4]> = Vec::new();
    for fleet in fleets {
        let stores = Stores::start();
        stores.begin_log();
        let ids = stores.register(*fleet);
        stores.sql().batch_execute(EVERYBODY_CONNECTED_ONCE).expect("a past");
        stores.sql().batch_execute("vacuum analyze").expect("vacuum");
        // Ids are random, so the first ones are spread over the whole fleet.
        let active = &ids[..ACTIVE.min(ids.len())];
        let runtime = Runtime::new().expect("runtime");
        let took = runtime.block_on(edges::run(&stores, active, 1));
        let (page, states) = runtime.block_on(reads(&stores, active));
        figures.push([
            table::rate(active.len() * edges::ROUNDS, took.appended),
            table::rate(active.len() * edges::ROUNDS, took.streamed),
            table::millis(page),
            table::millis(states),
        ]);
    }
    println!("\nHow it grows with the fleet");
    print!("{:<58}", "satellites");
    fleets.iter().for_each(|fleet| print!(" {fleet:>14}"));
    let names = [
        "edges into the log",
        "edges to the stream's acknowledgement",
        "a page of 1,000 satellites with their status",
        "states of 1,000 satellites",
    ];
    for (n, name) in names.iter().enumerate() {
        print!("\n{name:<58}");
        figures.iter().for_each(|column| print!(" {:>14}", column[n]));
    }
    println!();
}

/// Seconds of a page and of a batched read, the best of several runs.
async fn reads(stores: &Stores, ids: &[Uuid]) -> (f64, f64) {
    let database = stores.pool("reads");
    let client = database.get().await.expect("a connection");
    let asked: Vec<SatelliteId> = ids.iter().take(1_000).map(|id| SatelliteId(*id)).collect();
    let (mut page, mut states) = (f64::MAX, f64::MAX);
    for id in &ids[..20] {
        // Names have a common prefix and end in the id: this one is somewhere in the middle.
        let after = Place { key: None, name: format!("bench-{id}"), id: *id };
        let (filter, order) = (ListFilter::default(), Order::default());
        let began = Instant::now();
        let default = DEFAULT_OFFLINE_THRESHOLD;
        let listed =
            satellites::list(&client, &filter, order, Some(&after), 0, 1_000, default).await;
        listed.expect("a page");
        page = page.min(began.elapsed().as_secs_f64());
        let began = Instant::now();
        states::states(&client, &asked, DEFAULT_OFFLINE_THRESHOLD).await.expect("states");
        states = states.min(began.elapsed().as_secs_f64());
    }
    (page, states)
}

const EVERYBODY_CONNECTED_ONCE: &str = "
    insert into satellite_connections
           (satellite_id, session, revision, last_event, last_heartbeat_at)
    select id, 1, 1, 'disconnected', null from satellites";
