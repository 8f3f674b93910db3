//! A log that no pod appended: the table's owner writes it, as old and as long as the test wants, and the
//! test knows every row of it.
//!
//! Ten satellites take turns: position p is of satellite (p - 1) % 10, each comes and goes, and p was
//! recorded p seconds after 2020-01-01T00:00:00Z.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// How many satellites take turns.
pub const SATELLITES: i64 = 10;

/// The n-th satellite, from 0.
pub fn satellite(n: i64) -> Uuid {
    Uuid::from_u128(n as u128 + 1)
}

/// The event at a position.
pub fn event(position: i64) -> &'static str {
    if (position - 1) / SATELLITES % 2 == 0 { "connected" } else { "disconnected" }
}

/// Gives an empty log partitions of this width instead of its own.
pub async fn narrow(sql: &Client, width: i64) {
    let narrow = format!(
        "begin;
         drop table entity_transitions_from_1;
         delete from transition_partitions;
         select extend_transition_log({width}, {width});
         commit"
    );
    sql.batch_execute(&narrow).await.expect("partitions of another width");
}

/// Writes these positions, both included, and the rows they fold to. Makes partitions for them.
pub async fn write(sql: &Client, first: i64, last: i64) {
    let begin = time::macros::datetime!(2020-01-01 00:00:00 UTC);
    let turns = Turns { satellites: SATELLITES, begin, step: Duration::from_secs(1) };
    write_turns(sql, &turns, first, last).await;
}

/// Which satellites take turns, and when.
pub struct Turns {
    /// How many they are.
    pub satellites: i64,
    /// One step before position 1.
    pub begin: OffsetDateTime,
    /// From each position to the next.
    pub step: Duration,
}

/// The same with other satellites at another time.
pub async fn write_turns(sql: &Client, turns: &Turns, first: i64, last: i64) {
    let room = "select extend_transition_log(min(past_position - first_position), greatest(0,
                   least($1 - (select coalesce(max(position), 0) from entity_transitions),
                         20 * min(past_position - first_position))))
                  from transition_partitions";
    sql.query(room, &[&last]).await.expect("room");
    // The rows may be older than those that are there, which the database would refuse.
    let role = async |role: &str| {
        let set = format!("set session_replication_role = {role}");
        sql.batch_execute(&set).await.expect("a superuser");
    };
    role("replica").await;
    let Turns { satellites, begin, step } = turns;
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&first, &last, satellites, begin, &step.as_secs_f64()];
    sql.execute(WRITE, &parameters).await.expect("the log can be written");
    role("origin").await;
    sql.batch_execute(PROJECT).await.expect("the projection can be written");
}

const WRITE: &str = r#"
    with place as (
        select p, (p - 1) / $3::bigint + 1 as r,
               lpad(to_hex((p - 1) % $3 + 1), 32, '0')::uuid as id,
               date_trunc('milliseconds', $4::timestamptz + p * make_interval(secs => $5)) as at,
               $3 * make_interval(secs => $5) as turn
          from generate_series($1::bigint, $2::bigint) p
    ), state as (
        select place.*,
               jsonb_build_object('status', 'online', 'name', 'edge-' || id, 'region', 'eu', 'lastSeenAt',
                   to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'lastEvent', 'connected') as here,
               jsonb_build_object('status', 'offline', 'name', 'edge-' || id, 'region', 'eu', 'lastSeenAt',
                   null, 'lastEvent', 'disconnected') as gone
          from place
    )
    insert into entity_transitions
           (position, revision, change_id, kind, entity_id, event, reason, session, prev, next,
            actor_type, actor_id, traceparent, schema_version, occurred_at, recorded_at)
    select p, r, md5('change ' || p)::uuid, 'satellite-connection', id,
           case r % 2 when 1 then 'connected' else 'disconnected' end,
           case r % 2 when 1 then 'connect' else 'client_close' end, (r + 1) / 2,
           case when r = 1 then null when r % 2 = 1 then gone
                else here || jsonb_build_object('lastSeenAt',
                     to_char((at - turn) at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) end,
           case r % 2 when 1 then here else gone end,
           'system', 'system',
           case when p % 100 = 0 then '00-' || md5('trace ' || p) || '-' || left(md5('span ' || p), 16) || '-01' end,
           1, at, at
      from state order by p"#;

const PROJECT: &str = "
    insert into satellite_connections
           (satellite_id, session, revision, last_event, last_heartbeat_at)
    select distinct on (entity_id) entity_id, session, revision, event,
           case event when 'connected' then occurred_at end
      from entity_transitions order by entity_id, position desc
    on conflict (satellite_id) do update
       set session = excluded.session, revision = excluded.revision,
           last_event = excluded.last_event, last_heartbeat_at = excluded.last_heartbeat_at,
           pod = nullif(satellite_connections.pod, 0)";
