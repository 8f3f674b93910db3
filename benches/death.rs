//! What a pod that dies costs the others, until its sessions are lost: the sweeps of one other pod, where the dead one
//! had vouched for its sessions and where it had written their heartbeats.
//!
//! The worst there is: no satellite comes back meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groundstation::log::watermark;
use groundstation::log::watermark::PodNumber;
use groundstation::sessions::table::SessionTable;
use tokio_util::sync::CancellationToken;

use crate::Scale;
use crate::engine::Engine;
use crate::stores::Stores;
use crate::sweep;
use crate::table::{self, compared, figure, note};

const WINDOW: Duration = Duration::from_secs(20);

/// What a pod's sweeps took of a second, in milliseconds, and Postgres' cores meanwhile.
struct Cost {
    sweeps: f64,
    cores: f64,
}

pub fn measure(scale: Scale) {
    let sessions = scale.choose(50_000, 500);
    let stores = Stores::start();
    stores.begin_log();
    let ids = stores.register(sessions);
    stores.sql().execute(CONNECTED, &[&ids]).expect("sessions");
    stores.sql().batch_execute("vacuum analyze satellite_connections").expect("vacuum");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let [nobody, written, vouched] = runtime.block_on(deaths(scale, &stores));

    table::section(&format!(
        "A pod of {sessions} sessions dies; bare: it had written every heartbeat"
    ));
    let ms = |cost: &Cost| format!("{:.2} ms/s", cost.sweeps);
    figure("sweeps of another pod while all live", ms(&nobody), "");
    let ratio = vouched.sweeps / written.sweeps;
    compared("its sweeps until they are lost", ms(&vouched), ms(&written), ratio, "20 ms/s");
    note(&format!(
        "cores of Postgres: {:.3} while all live, {:.3}, and {:.3} where every heartbeat was written",
        nobody.cores, vouched.cores, written.cores
    ));
}

async fn deaths(scale: Scale, stores: &Stores) -> [Cost; 3] {
    let database = stores.pool("bench");
    let client = database.get().await.expect("connection");
    let own = watermark::sign_on(&client, "own", None).await.expect("a pod");
    let engine = Engine::start(&database, &stores.nats().await, "own", own);
    let stop = CancellationToken::new();
    let observers = tokio::spawn(sweep::observers(database.clone(), vec![own], stop.clone()));
    let sessions = SessionTable::new(Arc::default(), engine.metrics.clone());
    let interval = scale.choose(Duration::from_secs(1), Duration::from_millis(200));
    let monitor = sweep::monitor(&engine, own, &database, &sessions, interval);
    let monitor = tokio::spawn(monitor.run(stop.clone()));

    let short = Duration::from_secs(1);
    let nobody = cost(stores, &engine, scale.choose(Duration::from_secs(10), short)).await;
    // Less than it takes until the first of them is lost: those that are written were heard up to 15 s before.
    let dead = let_die(&client, None).await;
    let written = cost(stores, &engine, scale.choose(Duration::from_secs(25), short)).await;
    client.execute(FORGET, &[&dead]).await.expect("a revival");
    let_die(&client, Some(WINDOW)).await;
    let vouched = cost(stores, &engine, scale.choose(Duration::from_secs(40), short)).await;

    stop.cancel();
    monitor.await.expect("the monitor");
    observers.await.expect("the observers");
    engine.end().await;
    [nobody, written, vouched]
}

/// A pod of this window has all the sessions, and has just fallen silent.
async fn let_die(client: &deadpool_postgres::Object, window: Option<Duration>) -> PodNumber {
    let dead = watermark::sign_on(client, "dead", window).await.expect("a pod");
    client.execute(TAKE, &[&dead, &window.is_some()]).await.expect("sessions");
    client.execute(FALL_SILENT, &[&dead]).await.expect("a death");
    dead
}

async fn cost(stores: &Stores, engine: &Engine, how_long: Duration) -> Cost {
    let seconds = || sweep::observed(&engine.metrics, "sweep_seconds").1;
    let (before, began) = ((seconds(), stores.postgres_cpu()), Instant::now());
    tokio::time::sleep(how_long).await;
    let took = began.elapsed().as_secs_f64();
    Cost {
        sweeps: (seconds() - before.0) / took * 1e3,
        cores: (stores.postgres_cpu() - before.1) / took,
    }
}

const CONNECTED: &str = "
    insert into satellite_connections (satellite_id, session, revision, last_event, last_heartbeat_at)
    select id, 1, 1, 'connected', now() + interval '1 hour' from unnest($1::uuid[]) as i (id)";

const TAKE: &str = "
    update satellite_connections
       set pod = $1, vouched = $2, last_heartbeat_at = now() - random() * interval '15 seconds'";

/// A little more than the two seconds after which others think it dead.
const FALL_SILENT: &str =
    "update pods set seen_at = now() - interval '2100 milliseconds' where number = $1";

const FORGET: &str = "
    with taken as (update satellite_connections set pod = null where pod = $1)
    delete from pods where number = $1";
