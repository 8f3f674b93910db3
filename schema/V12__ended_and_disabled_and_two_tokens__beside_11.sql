-- Administrators end sessions and disable satellites, and the token before a rotation may be valid for a while.
--
-- Tables come in the order in which pods lock them. The checks replace narrower ones, so no row breaks them; reading all
-- rows to prove it would hold up the pods, and is for a later migration.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A disabled satellite is refused until it is enabled. Sessions up to `ended_session` were ended by administrators.
alter table satellites add column disabled boolean, add column ended_session bigint;

-- The pod that holds the satellite reads it again, and ends its session.
create trigger pods_hear_of_an_ended_session
    after update of disabled, ended_session on satellites
    for each row execute function note_change_of_satellite();

-- The token before the present one, while a rotation lets it overlap. It counts only while its version is the one before
-- the satellite's: a program that does not know this table voids it by a rotation. When its time is over a pod deletes
-- it, and that is a change of the satellite.
create table previous_tokens (
    satellite_id  uuid        not null,
    token_hash    text        not null,
    token_version bigint      not null,
    ends_at       timestamptz not null,
    constraint one_previous_token_a_satellite primary key (satellite_id),
    constraint previous_tokens_end_with_their_satellite foreign key (satellite_id) references satellites (id) on delete cascade,
    constraint token_version_is_positive check (token_version > 0),
    constraint ends_at_is_readable check (is_readable(ends_at))
);

-- Pods ask twice a second whose time is over.
create index previous_tokens_by_end on previous_tokens (ends_at);

grant select, insert, update, delete on previous_tokens to groundstation_service;

-- As before, with the disabled ones.
create or replace view satellites_now with (security_invoker = true) as
    select s.id, s.name, s.region, s.tags, s.capabilities, s.version, s.offline_threshold_ms, s.created_at,
           c.last_event, heard_at(c.last_heartbeat_at, c.vouched, p.seen_at) as heard_at,
           proven_heard_at(c.last_heartbeat_at, c.vouched, p.seen_at, p.vouch_window) as last_heartbeat_at,
           is_flapping(c.flapping_until, watermark.observed_at) as flapping,
           i.last_event as imported_event, i.last_heartbeat_at as imported_heartbeat, i.imported_at,
           status_as_of(watermark.observed_at, p.seen_at) as observed_at, watermark.judged_at, watermark.resumed_at,
           coalesce(s.disabled, false) as disabled
      from watermark cross join satellites s
      left join satellite_connections c on c.satellite_id = s.id
      left join pods p on p.number = c.pod
      left join satellite_imports i on i.satellite_id = s.id;

alter table entity_transitions
    drop constraint reason_is_known,
    add constraint reason_is_known check (reason in (
        'connect', 'takeover', 'recovered', 'client_close', 'connection_dropped', 'heartbeat_timeout',
        'pod_lost', 'removed', 'token_rotated', 'shutdown', 'disabled', 'kicked')) not valid;

alter table registry_changes
    drop constraint action_is_known,
    add constraint action_is_known check (action in (
        'created', 'updated', 'removed', 'token_rotated', 'assigned', 'disabled', 'enabled')) not valid;
