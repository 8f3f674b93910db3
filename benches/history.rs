//! A million transitions: replayed to JSON lines against a bare COPY of the same rows, and rebuilt.
//! And a hundred thousand satellites, read with their status against the bare query.

use std::io::Read;
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::Scale;
use crate::fleet;
use crate::stores::Stores;
use crate::table::{self, compared, figure, seconds};
use crate::timing::best;

/// Satellites with a history; the rest of the fleet has never connected.
const WITH_HISTORY: usize = 10_000;

pub fn measure(scale: Scale) {
    let (transitions, satellites) = scale.choose((1_000_000, 100_000), (5_000, 500));
    let stores = Stores::start();
    let ids = stores.register(satellites);
    write(&stores, &ids[..WITH_HISTORY.min(satellites)], transitions, 1.0);

    table::section(&format!("The past: {transitions} transitions"));
    let mut sql = stores.sql();
    let copy = "copy (select * from entity_transitions order by position) to stdout";
    let bare = best(3, || {
        let mut reader = sql.copy_out(copy).expect("copy");
        std::io::copy(&mut reader, &mut std::io::sink()).expect("rows");
    });
    let replay = replayed(&stores, transitions);
    let what = "replay to JSON lines; bare: COPY of the same rows";
    compared(what, seconds(replay), seconds(bare), bare / replay, "0.3 of its speed");
    figure("rebuild of the projection", seconds(timed(&stores, &["rebuild"], 2)), "10 s");
    figure("rebuild --check", seconds(timed(&stores, &["rebuild", "--check"], 2)), "");

    table::section(&format!("The fleet: {satellites} satellites"));
    fleet::compare(&stores, &ids, "0.5");
}

/// The seconds that a replay of this many transitions to JSON lines takes.
pub fn replayed(stores: &Stores, transitions: usize) -> f64 {
    best(2, || {
        let command =
            program(stores, &["replay"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = command.expect("replay");
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
        assert_eq!(lines, transitions);
    })
}

/// The seconds that a command takes, the best of so many times.
pub fn timed(stores: &Stores, arguments: &[&str], times: usize) -> f64 {
    best(times, || {
        let output = program(stores, arguments).output().expect("a command");
        assert!(output.status.success(), "{output:?}");
    })
}

fn program(stores: &Stores, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundstation"));
    command.args(arguments).env_clear();
    command.env("DATABASE_URL", stores.url()).env("NATS_URL", stores.nats_url());
    command
}

/// Writes a log of this many transitions of these satellites, so many seconds from one to the next up to now, and
/// its projection.
pub fn write(stores: &Stores, ids: &[Uuid], transitions: usize, step: f64) {
    let mut sql = stores.sql();
    let room = transitions.max(1_000_000) + 1;
    sql.batch_execute(&format!("select extend_transition_log(1000000, {room})")).expect("room");
    let (count, satellites) = (transitions as i64, ids.len() as i64);
    let wrote = sql.execute(WRITE, &[&ids, &count, &satellites, &step]).expect("the log");
    assert_eq!(wrote as usize, transitions);
    sql.batch_execute(PROJECT).expect("the projection");
    sql.batch_execute("vacuum analyze").expect("vacuum");
}

/// Satellites take turns; each connects and leaves.
const WRITE: &str = r#"
    with place as (
        select p, (p - 1) / $3 + 1 as r, ($1::uuid[])[(p - 1) % $3 + 1] as id,
               now() - ($2 - p + 1) * $4::float8 * interval '1 second' as at
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
           (satellite_id, session, revision, last_event, last_heartbeat_at)
    select distinct on (entity_id) entity_id, session, revision, event,
           case event when 'connected' then occurred_at end
      from entity_transitions order by entity_id, position desc";
