//! A million transitions: replayed to JSON lines against a bare COPY of the same rows, and rebuilt;
//! and a hundred thousand satellites, listed with their status against the bare query.
//!
//! `GROUNDSTATION_BENCH=smoke` takes a hundredth of it, to show that it works.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

mod common;

use common::Stores;

/// Satellites with a history; the rest of the fleet has never connected.
const WITH_HISTORY: i64 = 10_000;

fn main() {
    let smoke = std::env::var("GROUNDSTATION_BENCH").is_ok_and(|scale| scale == "smoke");
    let (transitions, satellites): (i64, usize) =
        if smoke { (10_000, 1_000) } else { (1_000_000, 100_000) };
    let stores = Stores::start("history");
    let ids = stores.register(satellites);
    let mut sql = stores.sql();
    let with_history = WITH_HISTORY.min(satellites as i64);
    sql.batch_execute("select extend_transition_log(1000000, 1000001)").expect("room");
    let wrote = sql
        .execute(WRITE, &[&&ids[..with_history as usize], &transitions, &with_history])
        .expect("the log");
    assert_eq!(wrote as i64, transitions);
    sql.batch_execute(PROJECT).expect("the projection");
    sql.batch_execute("vacuum analyze").expect("vacuum");
    println!("\nPostgres {}, {transitions} transitions, {satellites} satellites\n", stores.version);

    let copy = "copy (select * from entity_transitions order by position) to stdout";
    let bare = best(3, || {
        let mut reader = sql.copy_out(copy).expect("copy");
        std::io::copy(&mut reader, &mut std::io::sink()).expect("rows");
    });
    let replay = best(2, || {
        let mut child =
            program(&stores, &["replay"]).stdout(Stdio::piped()).spawn().expect("replay");
        let mut out = child.stdout.take().expect("piped");
        let (mut buffer, mut lines) = (vec![0; 1 << 20], 0);
        loop {
            let read = out.read(&mut buffer).expect("lines");
            if read == 0 {
                break;
            }
            lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        }
        assert!(child.wait().expect("replay").success());
        assert_eq!(lines as i64, transitions);
    });
    println!("bare COPY                    {bare:>8.2} s");
    println!("replay to JSON lines         {replay:>8.2} s   ratio {:.2}", bare / replay);
    let rebuild = best(2, || {
        let output = program(&stores, &["rebuild"]).output().expect("rebuild");
        assert!(output.status.success(), "{output:?}");
    });
    println!("rebuild                      {rebuild:>8.2} s");
    let chain = best(1, || {
        let output = program(&stores, &["rebuild", "--check"]).output().expect("check");
        assert!(output.status.success(), "{output:?}");
    });
    println!("rebuild --check              {chain:>8.2} s");

    let (pod, _) = stores.pod("bench");
    let listed = best(2, || {
        let (mut seen, mut cursor) = (0, String::new());
        loop {
            let page = pod.get(&format!("/v1/satellites?limit=1000{cursor}")).expect("a page");
            let page: Value = serde_json::from_str(&page).expect("JSON");
            seen += page["satellites"].as_array().expect("satellites").len();
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, satellites);
    });
    let bare = best(3, || {
        let mut after = (String::new(), uuid::Uuid::nil());
        let mut seen = 0;
        loop {
            let rows = sql.query(PAGE, &[&after.0, &after.1]).expect("a page");
            seen += rows.len();
            let Some(last) = rows.last() else { break };
            after = (last.get("name"), last.get("id"));
        }
        assert_eq!(seen, satellites);
    });
    println!(
        "\nfleet read over HTTP         {listed:>8.2} s   {:>8.0} satellites/s",
        satellites as f64 / listed
    );
    println!("the bare query, paged too    {bare:>8.2} s   ratio {:.2}", bare / listed);
}

fn best(times: usize, mut run: impl FnMut()) -> f64 {
    (0..times).fold(f64::MAX, |best, _| {
        let began = Instant::now();
        run();
        best.min(began.elapsed().as_secs_f64())
    })
}

fn program(stores: &Stores, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundstation"));
    command.args(arguments).env_clear().env("DATABASE_URL", stores.url());
    command
}

const PAGE: &str = "
    select s.id, s.name, s.region, s.tags, s.capabilities, s.version, s.offline_threshold_ms,
           s.created_at, c.last_event, c.last_heartbeat_at
      from satellites s left join satellite_connections c on c.satellite_id = s.id
     where (s.name, s.id) > ($1, $2) order by s.name, s.id limit 1000";

/// Satellites take turns; each comes and goes.
const WRITE: &str = r#"
    with place as (
        select p, (p - 1) / $3 + 1 as r, ($1::uuid[])[(p - 1) % $3 + 1] as id,
               timestamptz '2026-01-01T00:00:00Z' + p * interval '1 second' as at
          from generate_series(1, $2::bigint) p
    ), state as (
        select place.*,
               jsonb_build_object('status', 'online', 'name', 'bench-' || id, 'region', 'eu', 'lastSeenAt',
                   to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'lastEvent', 'connected') as here,
               jsonb_build_object('status', 'offline', 'name', 'bench-' || id, 'region', 'eu', 'lastSeenAt',
                   null, 'lastEvent', 'disconnected') as gone
          from place
    )
    insert into entity_transitions
           (position, revision, change_id, kind, entity_id, event, reason, session, prev, next,
            actor_type, actor_id, schema_version, occurred_at, recorded_at)
    select p, r, md5('change ' || p)::uuid, 'satellite-connection', id,
           case r % 2 when 1 then 'connected' else 'disconnected' end,
           case r % 2 when 1 then 'connect' else 'client_close' end, (r + 1) / 2,
           case when r = 1 then null when r % 2 = 1 then gone else here end,
           case r % 2 when 1 then here else gone end, 'system', 'system', 1, at, at
      from state order by p"#;

const PROJECT: &str = "
    insert into satellite_connections
           (satellite_id, session, revision, position, last_event, last_heartbeat_at)
    select distinct on (entity_id) entity_id, session, revision, position, event,
           case event when 'connected' then occurred_at end
      from entity_transitions order by entity_id, position desc";
