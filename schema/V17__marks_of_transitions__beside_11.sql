-- A transition may belong to an outage and to a maintenance window, and an agent may have said why it goes.
--
-- The tables come in the order in which pods lock them. No row has a mark yet, so no check is to be proved.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What an agent says before it goes, as every program can read it.
create function is_goodbye(goodbye jsonb) returns boolean
    language sql immutable parallel safe
    return jsonb_typeof(goodbye) = 'object'
       and pg_column_size(goodbye) <= 4096
       and coalesce(jsonb_typeof(goodbye->'reason') = 'string' and char_length(goodbye->>'reason') <= 200, false)
       and case when goodbye->'backWithinMs' is null then true
                else jsonb_typeof(goodbye->'backWithinMs') = 'number'
                     and goodbye->>'backWithinMs' ~ '^[1-9][0-9]{0,14}$' end;

alter table entity_transitions
    add column outage_id uuid,
    add column maintenance_id uuid,
    add column goodbye jsonb,
    add constraint goodbye_is_one check (goodbye is null or is_goodbye(goodbye)) not valid;

alter table transitions_at_horizon
    add column outage_id uuid,
    add column maintenance_id uuid,
    add column goodbye jsonb;

-- As before, with the marks.
create or replace view remembered_transitions with (security_invoker = true) as
    select * from entity_transitions
    union all
    select * from transitions_at_horizon;

-- As before, with the marks.
create or replace function drop_transition_partition(first bigint, older_than interval) returns void
    language plpgsql security definer set search_path from current set lock_timeout = '300ms' as $$
declare
    oldest record;
    whole  record;
    part   name;
begin
    if older_than is null or older_than < interval '1 hour' then
        raise exception 'retention must keep 1 hour at least'
            using errcode = 'invalid_parameter_value';
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('groundstation: drop of a transition partition', 0)) then
        raise exception 'another drop of a transition partition is under way'
            using errcode = 'lock_not_available';
    end if;
    select k.* into oldest from kept_transition_partitions(older_than) k
     order by k.first_position limit 1;
    if oldest.first_position is distinct from first then
        raise exception 'position % does not begin the oldest partition', first
            using errcode = 'restrict_violation';
    end if;
    if oldest.obstacle is not null then
        raise exception 'positions % to % are kept: %', first, oldest.last_position, oldest.obstacle
            using errcode = 'restrict_violation';
    end if;
    select count(*) as number, max(t.recorded_at) as latest,
           clock_timestamp() - greatest(older_than, (select f.keep from retention_floor f)) as kept_from
      into whole
      from entity_transitions t
     where t.position between first and oldest.last_position;
    if whole.number <> oldest.last_position - first + 1 then
        raise exception 'positions % to % are kept: only % of % transitions are there', first,
                        oldest.last_position, whole.number, oldest.last_position - first + 1
            using errcode = 'restrict_violation';
    end if;
    -- Not "younger than": a value that cannot be compared stays.
    if not coalesce(whole.latest < whole.kept_from, false) then
        raise exception 'positions % to % are kept: a transition in it is not old enough', first,
                        oldest.last_position
            using errcode = 'restrict_violation';
    end if;

    insert into transitions_at_horizon
    select distinct on (t.entity_id) t.*
      from entity_transitions t
     where t.position between first and oldest.last_position
     order by t.entity_id, t.position desc
    on conflict (entity_id) do update
       set position = excluded.position, revision = excluded.revision, change_id = excluded.change_id,
           kind = excluded.kind, event = excluded.event, reason = excluded.reason,
           session = excluded.session, prev = excluded.prev, next = excluded.next,
           actor_type = excluded.actor_type, actor_id = excluded.actor_id,
           traceparent = excluded.traceparent, schema_version = excluded.schema_version,
           occurred_at = excluded.occurred_at, recorded_at = excluded.recorded_at,
           outage_id = excluded.outage_id, maintenance_id = excluded.maintenance_id, goodbye = excluded.goodbye;
    update transition_partitions p
       set dropped_at = clock_timestamp(), last_recorded_at = whole.latest
     where p.first_position = first
    returning p.relation into part;

    lock table only entity_transitions in access exclusive mode;
    execute format('drop table %I', part);
end
$$;

-- A program that does not know the marks leaves them out of what it hashes, and every later check would take the rows for
-- changed. It says nothing here, so it seals no row that has one; a program that does seals it instead.
alter table log_seals add column covers_marks boolean;

create or replace function check_that_a_seal_follows() returns trigger
    language plpgsql set search_path from current as $$
declare
    before record;
begin
    select s.last_position, s.hash into before
      from log_seals s order by s.last_position desc limit 1;
    if new.first_position <= coalesce(before.last_position, 0)
       or new.previous_hash is distinct from coalesce(before.hash, new.previous_hash)
       or not exists (select from entity_transitions t where t.position = new.last_position)
       or not is_readable(new.sealed_at) then
        raise exception 'a seal follows on the newest one and covers what is in the log'
            using errcode = 'restrict_violation';
    end if;
    if new.covers_marks is not true and exists (
           select from entity_transitions t
            where t.position between new.first_position and new.last_position
              and num_nonnulls(t.outage_id, t.maintenance_id, t.goodbye) > 0) then
        raise exception 'a seal covers the marks of its transitions: a pod of a later version makes it'
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;
