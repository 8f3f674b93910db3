-- Retention: whole partitions are dropped, oldest first, and what they folded to stays.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What the log at and below the horizon folded to: the newest dropped transition of each satellite, unchanged.
-- With it, the state at any position from the horizon on is exact.
create table transitions_at_horizon (
    like entity_transitions,
    constraint one_transition_a_satellite_at_the_horizon primary key (entity_id)
);

grant select on transitions_at_horizon to groundstation_service;

-- The log and the transitions at the horizon. They answer which transition of a satellite was the newest at any
-- position from the horizon on.
create view remembered_transitions with (security_invoker = true) as
    select * from entity_transitions
    union all
    select * from transitions_at_horizon;

grant select on remembered_transitions to groundstation_service;

-- All partitions, oldest first, and what keeps each one (null: nothing does). Positions have no gap, so a
-- partition with a position after it is full. `recorded_at` never goes back along positions, so its last row is
-- its youngest.
create function kept_transition_partitions(older_than interval)
    returns table (first_position bigint, last_position bigint, last_recorded_at timestamptz, obstacle text)
    language sql stable set search_path from current as $$
    select p.first_position, p.past_position - 1, youngest.recorded_at,
           case
               when youngest.recorded_at is null or p.past_position > head.position
                   then 'it takes, or will take, the newest transitions'
               when relay.position < p.past_position - 1
                   then 'the relay has published only up to position ' || relay.position
               when youngest.recorded_at >= clock_timestamp() - older_than
                   then 'its newest transition is not old enough'
               when youngest.recorded_at >= clock_timestamp() - floor.keep
                   then 'its newest transition is not old enough: the least that is kept is ' || floor.keep
           end
      from relay, retention_floor floor,
           (select coalesce(max(t.position), 0) as position from entity_transitions t) head,
           transition_partitions p
      left join entity_transitions youngest on youngest.position = p.past_position - 1
     where p.dropped_at is null
     order by p.first_position
$$;

revoke all on function kept_transition_partitions(interval) from public;
grant execute on function kept_transition_partitions(interval) to groundstation_service;

-- Drops the partition that starts at `first`, if it is the oldest one and nothing keeps it. It runs as the
-- owner, because the service owns nothing. So it trusts its caller with nothing and checks again, at every row:
-- data that pods write themselves (the relay's position, rows of their own) lets no row go that is young, and
-- no partition that was never whole. The span has a floor: a pod that lost the answer to an append looks its
-- change up in the log, and must find it.
--
-- The last step takes the only lock that stops appends and reads. It waits for the lock no longer than
-- `lock_timeout`, since all later ones wait behind it. The slow part, reading the partition once, comes before.
-- A detach that stops no one (CONCURRENTLY) is not possible in a function, only over an owner's own connection,
-- which pods must not have.
create function drop_transition_partition(first bigint, older_than interval) returns void
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
           occurred_at = excluded.occurred_at, recorded_at = excluded.recorded_at;
    update transition_partitions p
       set dropped_at = clock_timestamp(), last_recorded_at = whole.latest
     where p.first_position = first
    returning p.relation into part;

    lock table only entity_transitions in access exclusive mode;
    execute format('drop table %I', part);
end
$$;

revoke all on function drop_transition_partition(bigint, interval) from public;
grant execute on function drop_transition_partition(bigint, interval) to groundstation_service;
