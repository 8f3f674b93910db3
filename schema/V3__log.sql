-- The log: every transition once, in commit order, positions 1, 2, 3 … without a gap. It is also the outbox:
-- the relay reads it from the position it has published up to.
--
-- A program that has a pod's password can append to it; it must not be able to append what other programs
-- cannot read.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The state of a connection, as messages carry it: a few hundred bytes, 16 KiB at most. The cast refuses a date
-- that does not exist.
create function is_state(state jsonb) returns boolean
    language sql stable parallel safe
    return jsonb_typeof(state) = 'object'
       and pg_column_size(state) <= 16384
       and coalesce(state->>'status' in ('online', 'offline'), false)
       and coalesce(jsonb_typeof(state->'name') = 'string' and jsonb_typeof(state->'region') = 'string', false)
       and jsonb_typeof(coalesce(state->'lastEvent', 'null')) in ('string', 'null')
       and jsonb_typeof(coalesce(state->'flapping', 'true')) = 'boolean'
       and case when jsonb_typeof(coalesce(state->'lastSeenAt', 'null')) = 'null' then true
                when state->>'lastSeenAt' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?Z$'
                then is_readable((state->>'lastSeenAt')::timestamptz) and substr(state->>'lastSeenAt', 12, 2) < '24'
                else false end;

create table entity_transitions (
    position       bigint      not null,
    revision       bigint      not null,
    change_id      uuid        not null,
    kind           text        not null,
    entity_id      uuid        not null,
    event          text        not null,
    reason         text        not null,
    session        bigint      not null,
    prev           jsonb,
    next           jsonb,
    actor_type     text        not null,
    actor_id       text        not null,
    traceparent    text,
    schema_version smallint    not null,
    occurred_at    timestamptz not null,
    recorded_at    timestamptz not null,
    constraint positions_are_unique primary key (position),
    constraint position_is_positive check (position > 0),
    constraint revision_is_positive check (revision > 0),
    constraint revision_is_not_beyond_position check (revision <= position),
    constraint event_is_known check (event in ('connected', 'disconnected', 'heartbeat_lost', 'removed')),
    constraint reason_is_known check (reason in (
        'connect', 'takeover', 'recovered', 'client_close', 'connection_dropped', 'heartbeat_timeout',
        'pod_lost', 'removed', 'token_rotated', 'shutdown')),
    constraint session_is_not_negative check (session >= 0),
    constraint session_is_one_that_was_given check (session < 1000000000000000),
    constraint prev_is_a_state check (prev is null or is_state(prev)),
    constraint next_is_a_state check (next is null or is_state(next)),
    constraint only_a_removal_has_no_next check ((next is null) = (event = 'removed')),
    constraint words_are_short check (octet_length(kind) <= 100 and octet_length(actor_type) <= 100
        and octet_length(actor_id) <= 1000 and octet_length(traceparent) <= 100),
    constraint moments_are_readable check (is_readable(occurred_at) and is_readable(recorded_at))
) partition by range (position);

-- One satellite's history, in order.
create index entity_transitions_by_entity on entity_transitions (entity_id, position);
-- A retry asks whether its change is already there. Unique by construction: a change id is made
-- once and looked up under the satellite's row lock (a unique index would need the partition key).
create index entity_transitions_by_change on entity_transitions (change_id);
-- Time never goes back along positions, so a block range index answers "since" and "until".
create index entity_transitions_by_time on entity_transitions using brin (recorded_at);

-- Append-only: no UPDATE, DELETE or TRUNCATE is granted.
grant select, insert on entity_transitions to groundstation_service;

-- Once a row, because a direct change of a partition does not run the table's statement triggers.
create trigger rows_are_never_changed before update or delete on entity_transitions
    for each row execute function reject_change();
create trigger the_log_is_never_truncated before truncate on entity_transitions
    for each statement execute function reject_change();

-- Positions follow on the head, and time does not go back along them: the database checks it, not only the
-- appender. The check runs once a statement and reads the new rows back from the table, which costs a fifth of
-- what a transition table of the rows does. The head before the statement is the newest row that is not this
-- transaction's. A row of a subtransaction has another number than its transaction. It would count as a head,
-- so no new row would be left to check; that is refused.
--
-- The time may be that of the head before (the clock may have been set back since), or the clock's. The minute
-- is for a clock that is set back within the statement.
--
-- The new rows are found by their position. A plan for any position, on a partition without statistics, would
-- read the whole partition instead, at each append and under the log's lock, until autovacuum has counted it:
-- hence the two settings.
create function check_that_positions_follow() returns trigger
    language plpgsql set search_path from current set enable_seqscan = off set max_parallel_workers_per_gather = 0 as $$
declare
    head record;
    rows record;
begin
    select t.position, t.recorded_at into head
      from entity_transitions t
     where t.xmin <> pg_current_xact_id()::xid
     order by t.position desc limit 1;
    select count(*) as number, max(t.position) as newest,
           min(t.recorded_at) as earliest, max(t.recorded_at) as latest into rows
      from entity_transitions t
     where t.position > coalesce(head.position, 0);
    if rows.number = 0 or rows.newest - coalesce(head.position, 0) <> rows.number then
        raise exception 'positions follow on the head of the log, which is at %, without a gap',
                        coalesce(head.position, 0)
            using errcode = 'restrict_violation';
    end if;
    if rows.earliest < head.recorded_at
       or (rows.earliest <> rows.latest and exists (
               select from (select t.recorded_at < lag(t.recorded_at) over (order by t.position) as goes_back
                              from entity_transitions t
                             where t.position > coalesce(head.position, 0)) step
                where step.goes_back)) then
        raise exception 'recorded_at never goes back along positions'
            using errcode = 'restrict_violation';
    end if;
    if rows.latest > greatest(head.recorded_at,
                              greatest(statement_timestamp(), clock_timestamp()) + interval '1 minute') then
        raise exception 'recorded_at is not in the future'
            using errcode = 'restrict_violation';
    end if;
    return null;
end
$$;

create trigger positions_follow_on_the_head after insert on entity_transitions
    for each statement execute function check_that_positions_follow();

-- The log's lock, for an append. It waits for all appends before it, and each of these for its commit. With
-- many pods that takes longer than any other lock may take, and an append that gives up only queues again. It
-- is less than a statement may take, so that a failed append names the lock as its reason.
create function lock_log() returns void
    language plpgsql set search_path from current set lock_timeout = '12s' as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('groundstation: entity_transitions', 0));
end
$$;

revoke all on function lock_log() from public;
grant execute on function lock_log() to groundstation_service;

-- The ranges of positions that have a partition. A partition that retention dropped keeps its row here: its
-- positions stay used up, and the newest of them is the horizon, at and below which the log itself has no
-- answer.
create table transition_partitions (
    first_position   bigint not null,
    past_position    bigint not null,
    relation         name   not null,
    dropped_at       timestamptz,
    last_recorded_at timestamptz,
    constraint partitions_start_once primary key (first_position),
    constraint a_partition_holds_something check (past_position > first_position),
    constraint a_dropped_partition_tells_when_it_ended check ((dropped_at is null) = (last_recorded_at is null))
);

grant select on transition_partitions to groundstation_service;

-- The bounds of what pods may do with partitions. Only the owner changes them. Retention keeps what is younger
-- than `keep`, whatever its setting. A partition that is never full is never dropped, so a pod that asks for a
-- wider one than `widest_partition` gets that width.
create table retention_floor (
    only_row         boolean  not null default true,
    keep             interval not null default interval '1 day',
    widest_partition bigint   not null default 1000000,
    constraint there_is_one_floor primary key (only_row),
    constraint the_one_floor_is_true check (only_row),
    constraint keeps_1_hour_at_least check (keep >= interval '1 hour'),
    constraint a_partition_has_1000_to_100000000_positions check (widest_partition between 1000 and 100000000)
);

insert into retention_floor default values;

grant select on retention_floor to groundstation_service;

-- Makes partitions of `width` positions until there is room for `ahead` more transitions; returns how many it
-- made. Attaching takes a lock that lets reads and appends go on. It runs as the owner, because the service
-- owns nothing. Several pods may call it at once.
create function extend_transition_log(width bigint, ahead bigint) returns integer
    language plpgsql security definer set search_path from current as $$
declare
    head   bigint;
    bound  bigint;
    part   text;
    widest bigint;
    made   integer := 0;
begin
    if width < 1000 or width > 100000000 or ahead < 0 or ahead > 20 * width then
        raise exception 'width must be 1000 to 100000000 positions, ahead 0 to 20 widths';
    end if;
    select least(width, f.widest_partition) into widest from retention_floor f;
    ahead := least(ahead, 20 * widest);
    select coalesce(max(p.past_position), 1) into bound from transition_partitions p;
    select coalesce(max(t.position), 0) into head from entity_transitions t;
    if bound > head + ahead then
        return 0;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('groundstation: transition partitions', 0));
    select coalesce(max(p.past_position), 1) into bound from transition_partitions p;
    while bound <= head + ahead loop
        part := 'entity_transitions_from_' || bound::text;
        execute format('create table %I (like entity_transitions including defaults including constraints)', part);
        execute format('create trigger the_log_is_never_truncated before truncate on %I
                            for each statement execute function reject_change()', part);
        execute format('alter table entity_transitions attach partition %I for values from (%s) to (%s)',
                       part, bound, bound + widest);
        insert into transition_partitions values (bound, bound + widest, part);
        bound := bound + widest;
        made := made + 1;
    end loop;
    return made;
end
$$;

revoke all on function extend_transition_log(bigint, bigint) from public;
grant execute on function extend_transition_log(bigint, bigint) to groundstation_service;

select extend_transition_log(1000000, 1000000);
