-- What a pod's role may write into history and into the tables that others judge by. A program that has a
-- pod's password can add to the log; it must not be able to add what no program can read, or to make the
-- seals, blind time or retention stand still.
--
-- Not validated: rows that are there stay as they are, and nothing is scanned under the table's lock.
-- The functions have bodies that name what they call for good: a restore runs them with an empty path.

-- A moment that every program can read. Infinity is none.
create function is_readable(moment timestamptz) returns boolean language sql immutable parallel safe
    return moment >= '0001-01-01 00:00:00+00' and moment < '9999-01-01 00:00:00+00';

-- The state of a connection, as messages carry it: a few hundred bytes, 16 KiB at most. The cast refuses
-- a day that is none.
create function is_state(state jsonb) returns boolean language sql stable parallel safe
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

alter table entity_transitions
    add constraint prev_is_a_state check (prev is null or is_state(prev)) not valid,
    add constraint next_is_a_state check (next is null or is_state(next)) not valid,
    add constraint moments_are_readable check (is_readable(occurred_at) and is_readable(recorded_at)) not valid,
    add constraint revision_is_not_beyond_position check (revision <= position) not valid,
    add constraint session_is_one_that_was_given check (session < 1000000000000000) not valid,
    add constraint reason_is_known check (reason in (
        'connect', 'takeover', 'recovered', 'client_close', 'connection_dropped', 'heartbeat_timeout',
        'pod_lost', 'removed', 'token_rotated', 'shutdown')) not valid,
    add constraint words_are_short check (octet_length(kind) <= 100 and octet_length(actor_type) <= 100
        and octet_length(actor_id) <= 1000 and octet_length(traceparent) <= 100) not valid;

alter table registry_changes
    add constraint changed_at_is_readable check (is_readable(changed_at)) not valid,
    add constraint words_are_short check (octet_length(actor_type) <= 100 and octet_length(actor_id) <= 1000) not valid;

alter table satellite_connections
    add constraint moments_are_readable check (
        is_readable(last_heartbeat_at) and is_readable(flapping_until)) not valid,
    add constraint revision_is_not_beyond_position check (revision <= position) not valid,
    add constraint position_and_session_were_given check (
        position < 1000000000000000 and session < 1000000000000000) not valid;

alter table relay
    add constraint position_and_sequence_were_given check (
        position < 1000000000000000 and stream_sequence < 1000000000000000) not valid;

alter table satellites
    add constraint created_at_is_readable check (is_readable(created_at)) not valid;

alter table satellite_imports
    add constraint moments_are_readable check (
        is_readable(last_heartbeat_at) and is_readable(imported_at)) not valid;

alter table pods
    add constraint moments_are_readable check (
        is_readable(started_at) and is_readable(seen_at) and is_readable(probed_at) and is_readable(left_at)) not valid;

-- The widest partition there may be: the owner's alone, because a partition that is never full is never
-- dropped. Pods that ask for more get as much.
alter table retention_floor
    add column widest_partition bigint not null default 1000000,
    add constraint a_partition_has_1000_to_100000000_positions check (widest_partition between 1000 and 100000000);

update retention_floor
   set widest_partition = greatest(widest_partition,
           (select least(max(p.past_position - p.first_position), 100000000) from transition_partitions p));

do $migration$
begin
    execute replace($body$

-- A seal follows on the one before and covers what is there: one beyond the head would end all sealing.
create function @schema@.check_that_a_seal_follows() returns trigger
    language plpgsql set search_path = @schema@, pg_temp as $$
declare
    before record;
begin
    select s.last_position, s.hash into before
      from @schema@.log_seals s order by s.last_position desc limit 1;
    if new.first_position <= coalesce(before.last_position, 0)
       or new.previous_hash is distinct from coalesce(before.hash, new.previous_hash)
       or not exists (select from @schema@.entity_transitions t where t.position = new.last_position)
       or not @schema@.is_readable(new.sealed_at) then
        raise exception 'a seal follows on the newest one and covers what is in the log'
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger a_seal_follows before insert on @schema@.log_seals
    for each row execute function @schema@.check_that_a_seal_follows();

create function @schema@.check_that_a_registry_seal_follows() returns trigger
    language plpgsql set search_path = @schema@, pg_temp as $$
declare
    before record;
begin
    select s.number, s.hash, s.changes[cardinality(s.changes)] as last into before
      from @schema@.registry_seals s order by s.number desc limit 1;
    if new.number <> coalesce(before.number, 0) + 1
       or new.previous_hash is distinct from coalesce(before.hash, new.previous_hash)
       or new.changes[1] <= coalesce(before.last, 0)
       or cardinality(new.changes) > 1000
       or exists (select from unnest(new.changes) sealed (change)
                   where not exists (select from @schema@.registry_changes c where c.change = sealed.change))
       or not @schema@.is_readable(new.sealed_at) then
        raise exception 'a seal follows on the newest one and covers what is in the history'
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger a_seal_follows before insert on @schema@.registry_seals
    for each row execute function @schema@.check_that_a_registry_seal_follows();

-- Nobody can have been blind in time that has not come; a minute is for a clock that is set back meanwhile.
create function @schema@.check_that_blind_time_is_past() returns trigger
    language plpgsql set search_path = @schema@, pg_temp as $$
begin
    if not coalesce(@schema@.is_readable(new.judged_at) and @schema@.is_readable(new.from_at)
                    and new.to_at <= greatest(statement_timestamp(), clock_timestamp()) + interval '1 minute',
                    false) then
        raise exception 'blind time has passed when it is told'
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger blind_time_is_past before insert on @schema@.blind_spans
    for each row execute function @schema@.check_that_blind_time_is_past();

create or replace function @schema@.extend_transition_log(width bigint, ahead bigint) returns integer
    language plpgsql security definer set search_path = @schema@, pg_temp as $$
declare
    head   bigint;
    bound  bigint;
    part   text;
    widest bigint;
    here   constant name := current_schema();
    made   integer := 0;
begin
    if width < 1000 or width > 100000000 or ahead < 0 or ahead > 20 * width then
        raise exception 'width must be 1000 to 100000000 positions, ahead 0 to 20 widths';
    end if;
    select least(width, f.widest_partition) into widest from @schema@.retention_floor f;
    ahead := least(ahead, 20 * widest);
    select coalesce(max(p.past_position), 1) into bound from @schema@.transition_partitions p;
    select coalesce(max(t.position), 0) into head from @schema@.entity_transitions t;
    if bound > head + ahead then
        return 0;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('groundstation: transition partitions', 0));
    select coalesce(max(p.past_position), 1) into bound from @schema@.transition_partitions p;
    while bound <= head + ahead loop
        part := 'entity_transitions_from_' || bound::text;
        execute format('create table %1$I.%2$I
                            (like %1$I.entity_transitions including defaults including constraints)', here, part);
        execute format('create trigger the_log_is_never_truncated before truncate on %1$I.%2$I
                            for each statement execute function %1$I.reject_change_of_the_log()', here, part);
        execute format('alter table %1$I.entity_transitions
                            attach partition %1$I.%2$I for values from (%3$s) to (%4$s)',
                       here, part, bound, bound + widest);
        insert into @schema@.transition_partitions values (bound, bound + widest, part);
        bound := bound + widest;
        made := made + 1;
    end loop;
    return made;
end
$$;
    $body$, '@schema@', quote_ident(current_schema()));
end
$migration$;
