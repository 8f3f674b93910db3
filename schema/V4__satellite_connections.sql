-- The projection: what the log folds to, one narrow row a satellite that has ever connected.
-- Heartbeats update it several times a minute, so no index covers a column they touch and every
-- page keeps room for the new row version (HOT updates). Rows survive a removal as a tombstone:
-- sessions and revisions go on growing should an id come back.
create table satellite_connections (
    satellite_id      uuid        not null,
    session           bigint      not null,
    revision          bigint      not null,
    position          bigint      not null,
    last_event        text        not null,
    last_heartbeat_at timestamptz,
    constraint one_connection_a_satellite primary key (satellite_id),
    constraint session_is_not_negative check (session >= 0),
    constraint revision_is_positive check (revision > 0),
    constraint position_is_positive check (position > 0),
    constraint last_event_is_known check (last_event in ('connected', 'disconnected', 'heartbeat_lost', 'removed')),
    constraint a_clean_end_has_no_heartbeat check (last_event not in ('disconnected', 'removed') or last_heartbeat_at is null)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- The rule of `liveness.rs`, for filters and for the monitor's sweep.
create function heartbeat_is_fresh(
    last_heartbeat_at timestamptz, own_threshold_ms bigint, default_threshold_ms bigint, seen_at timestamptz
) returns boolean language sql immutable as $$
    select last_heartbeat_at is not null
       and seen_at - last_heartbeat_at
           <= make_interval(secs => (case when own_threshold_ms > 0 then own_threshold_ms else default_threshold_ms end) / 1000.0)
$$;

-- The live path never deletes a row: even a removal only changes one.
grant select, insert, update on satellite_connections to groundstation_service;
