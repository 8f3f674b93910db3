-- The projection: what the log folds to, one narrow row for each satellite that has ever connected. Written
-- heartbeats update it several times a minute, so no index covers a column that they touch, and every page
-- keeps room for the new row version (HOT updates). A removed satellite leaves its row as a tombstone: sessions
-- and revisions go on growing if its id comes back.
--
-- A row says which revision of its satellite it holds, and not at which position: an append writes the row
-- before it takes the log's lock, and so before it knows the position.
--
-- Five columns are bookkeeping like the heartbeat, not folded from the log. `vouched` says that the pod's own
-- row tells when the session was heard, see V6. `flushed` is the number of the pod's newest flush that wrote
-- the row since its last edge: a flush whose statement arrives late changes nothing. `pod` holds the session.
-- Ended sessions get pod 0 (unowned): a search for the sessions that a pod has left behind then does not read
-- those that had ended before. The monitor sets it for pods that are silent. `recent_edges` and
-- `flapping_until` mark a flapping satellite, and never silence it: the moments of its newest edges, as many as
-- the mark needs, and until when it stays marked. What a transition said of the mark is in the log.
-- in the log.
create table satellite_connections (
    satellite_id      uuid          not null,
    session           bigint        not null,
    revision          bigint        not null,
    last_event        text          not null,
    last_heartbeat_at timestamptz,
    pod               integer,
    vouched           boolean       not null default false,
    flushed           bigint        not null default 0,
    recent_edges      timestamptz[] not null default '{}',
    flapping_until    timestamptz,
    constraint one_connection_a_satellite primary key (satellite_id),
    constraint session_is_not_negative check (session >= 0),
    constraint revision_is_positive check (revision > 0),
    constraint revision_and_session_were_given check (revision < 1000000000000000 and session < 1000000000000000),
    constraint last_event_is_known check (last_event in ('connected', 'disconnected', 'heartbeat_lost', 'removed')),
    constraint a_clean_end_has_no_heartbeat check (last_event not in ('disconnected', 'removed') or last_heartbeat_at is null),
    constraint a_connected_session_is_not_nobodys check (pod <> 0 or last_event <> 'connected'),
    constraint only_connected_sessions_are_vouched_for check (not vouched or last_event = 'connected'),
    constraint moments_are_readable check (is_readable(last_heartbeat_at) and is_readable(flapping_until))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- With only the pod in this index, an edge touches no index while a satellite stays with its pod. With
-- `last_event` in a condition every edge would: no HOT update, a new entry in both indexes, more pages in the
-- write-ahead log.
create index sessions_by_pod on satellite_connections (pod);

-- The live path never deletes a row: even a removal only changes one. A rebuild deletes rows that do not follow
-- from the log.
grant select, insert, update, delete on satellite_connections to groundstation_service;
