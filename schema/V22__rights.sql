-- What a pod's role can do to history, were somebody else to use it.
--
-- 1. Positions follow on the head, and time does not go back along them: the database says so, not only
--    the appender. Runs once a statement and reads the new rows back from the table, which costs a fifth of
--    what a transition table of the rows does. The head before the statement is the newest row that is not
--    this transaction's. A row of a subtransaction has another number than its transaction: it would
--    count as a head, so nothing is left to check, and that is refused.
--
--    Time may be that of the head before (the clock may have been set back since), or the clock's; a
--    minute is for a clock that is set back within the statement.
--
-- Names are written with their schema, and every function looks in it first and among temporary objects
-- last: left out of the path, those would come first, and with them whatever a caller made in its session.
do $migration$
begin
    execute replace($body$

create function @schema@.check_that_positions_follow() returns trigger
    language plpgsql set search_path = @schema@, pg_temp as $$
declare
    head record;
    rows record;
begin
    select t.position, t.recorded_at into head
      from @schema@.entity_transitions t
     where t.xmin <> pg_current_xact_id()::xid
     order by t.position desc limit 1;
    select count(*) as number, max(t.position) as newest,
           min(t.recorded_at) as earliest, max(t.recorded_at) as latest into rows
      from @schema@.entity_transitions t
     where t.position > coalesce(head.position, 0);
    if rows.number = 0 or rows.newest - coalesce(head.position, 0) <> rows.number then
        raise exception 'positions follow on the head of the log, which is at %, without a gap',
                        coalesce(head.position, 0)
            using errcode = 'restrict_violation';
    end if;
    if rows.earliest < head.recorded_at
       or (rows.earliest <> rows.latest and exists (
               select from (select t.recorded_at < lag(t.recorded_at) over (order by t.position) as goes_back
                              from @schema@.entity_transitions t
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

create trigger positions_follow_on_the_head after insert on @schema@.entity_transitions
    for each statement execute function @schema@.check_that_positions_follow();

-- 2. Retention keeps what is younger than this, whatever it is told. The owner's alone.
create table @schema@.retention_floor (
    only_row boolean  not null default true,
    keep     interval not null default interval '1 day',
    constraint there_is_one_floor primary key (only_row),
    constraint the_one_floor_is_true check (only_row),
    constraint keeps_1_hour_at_least check (keep >= interval '1 hour')
);

insert into @schema@.retention_floor default values;

grant select on @schema@.retention_floor to groundstation_service;

create or replace function @schema@.kept_transition_partitions(older_than interval)
    returns table (first_position bigint, last_position bigint, last_recorded_at timestamptz, obstacle text)
    language sql stable set search_path = @schema@, pg_temp as $$
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
      from @schema@.relay relay, @schema@.retention_floor floor,
           (select coalesce(max(t.position), 0) as position from @schema@.entity_transitions t) head,
           @schema@.transition_partitions p
      left join @schema@.entity_transitions youngest on youngest.position = p.past_position - 1
     where p.dropped_at is null
     order by p.first_position
$$;

-- As before, and: every row of the partition is looked at. What pods write themselves (the relay's
-- position, rows of their own) lets nothing go that is young or was never whole.
create or replace function @schema@.drop_transition_partition(first bigint, older_than interval) returns void
    language plpgsql security definer set search_path = @schema@, pg_temp set lock_timeout = '300ms' as $$
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
    select k.* into oldest from @schema@.kept_transition_partitions(older_than) k
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
           clock_timestamp() - greatest(older_than, (select f.keep from @schema@.retention_floor f)) as kept_from
      into whole
      from @schema@.entity_transitions t
     where t.position between first and oldest.last_position;
    if whole.number <> oldest.last_position - first + 1 then
        raise exception 'positions % to % are kept: only % of % transitions are there', first,
                        oldest.last_position, whole.number, oldest.last_position - first + 1
            using errcode = 'restrict_violation';
    end if;
    -- Not "younger than": whatever cannot be compared stays.
    if not coalesce(whole.latest < whole.kept_from, false) then
        raise exception 'positions % to % are kept: a transition in it is not old enough', first,
                        oldest.last_position
            using errcode = 'restrict_violation';
    end if;

    insert into @schema@.transitions_at_horizon
    select distinct on (t.entity_id) t.*
      from @schema@.entity_transitions t
     where t.position between first and oldest.last_position
     order by t.entity_id, t.position desc
    on conflict (entity_id) do update
       set position = excluded.position, revision = excluded.revision, change_id = excluded.change_id,
           kind = excluded.kind, event = excluded.event, reason = excluded.reason,
           session = excluded.session, prev = excluded.prev, next = excluded.next,
           actor_type = excluded.actor_type, actor_id = excluded.actor_id,
           traceparent = excluded.traceparent, schema_version = excluded.schema_version,
           occurred_at = excluded.occurred_at, recorded_at = excluded.recorded_at;
    update @schema@.transition_partitions p
       set dropped_at = clock_timestamp(), last_recorded_at = whole.latest
     where p.first_position = first
    returning p.relation into part;

    lock table only @schema@.entity_transitions in access exclusive mode;
    execute format('drop table %I.%I', current_schema(), part);
end
$$;

create or replace function @schema@.extend_transition_log(width bigint, ahead bigint) returns integer
    language plpgsql security definer set search_path = @schema@, pg_temp as $$
declare
    head  bigint;
    bound bigint;
    part  text;
    here  constant name := current_schema();
    made  integer := 0;
begin
    if width < 1000 or width > 100000000 or ahead < 0 or ahead > 20 * width then
        raise exception 'width must be 1000 to 100000000 positions, ahead 0 to 20 widths';
    end if;
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
                       here, part, bound, bound + width);
        insert into @schema@.transition_partitions values (bound, bound + width, part);
        bound := bound + width;
        made := made + 1;
    end loop;
    return made;
end
$$;

    $body$, '@schema@', quote_ident(current_schema()));
end
$migration$;

create or replace function reject_change_of_seals() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: % is refused', tg_table_name, tg_op
        using errcode = 'restrict_violation';
end
$$;

-- What is left looks names up in the same way. Not those of an extension, nor of anybody else.
do $migration$
declare
    made regprocedure;
begin
    for made in
        select p.oid::regprocedure
          from pg_proc p
          join pg_namespace n on n.oid = p.pronamespace and n.nspname = current_schema()
          join pg_language l on l.oid = p.prolang
         where p.proowner = current_user::regrole
           and (l.lanname = 'plpgsql' or p.proconfig::text like '%search_path=%')
           and not exists (select from pg_depend d
                            where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
    loop
        execute format('alter function %s set search_path = %I, pg_temp', made, current_schema());
    end loop;
end
$migration$;

-- 3. What was done to the registry comes under seals of its own, each over up to a thousand changes, in the
-- order of their numbers, which are given out under the log's lock. A seal holds the digest of each
-- (`src/seal/registry.rs`), so that the one that was changed, dropped or added later is found, and not only
-- that one was. Numbers have gaps: a change that failed has used one.
create table registry_seals (
    number        bigint      not null,
    changes       bigint[]    not null,
    digests       bytea       not null,
    previous_hash bytea       not null,
    hash          bytea       not null,
    sealed_at     timestamptz not null,
    constraint registry_seals_are_numbered primary key (number),
    constraint a_registry_seal_follows_once unique (previous_hash),
    constraint number_is_positive check (number > 0),
    constraint a_registry_seal_covers_something check (cardinality(changes) > 0),
    constraint each_change_has_a_digest_of_32_bytes check (octet_length(digests) = 32 * cardinality(changes)),
    constraint hashes_are_sha_256 check (octet_length(previous_hash) = 32 and octet_length(hash) = 32)
);

create trigger seals_are_never_changed before update or delete or truncate on registry_seals
    for each statement execute function reject_change_of_seals();

-- Append-only: no UPDATE, DELETE or TRUNCATE is granted.
grant select, insert on registry_seals to groundstation_service;

-- Whoever appends a change chooses everything but its number.
revoke insert on registry_changes from groundstation_service;
grant insert (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
    on registry_changes to groundstation_service;
