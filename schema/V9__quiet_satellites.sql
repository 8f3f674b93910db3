-- The past of a satellite that has been quiet for long is found by its id, whatever the log's statistics say.
--
-- A partition in which a few satellites come and go all the time makes Postgres believe that any satellite has many
-- transitions there. It then reads the partition from its newest end until it meets one, and for a satellite that has
-- none it reads all of it. Each satellite is said to be as good as alone in its partition: then its own index is the
-- cheapest way.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

do $$
declare
    part text;
begin
    for part in select p.relation from transition_partitions p where p.dropped_at is null loop
        execute format('alter table %I alter column entity_id set (n_distinct = -1)', part);
        execute format('analyze %I (entity_id)', part);
    end loop;
end
$$;

-- As before, with that for each new partition.
create or replace function extend_transition_log(width bigint, ahead bigint) returns integer
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
        execute format('alter table %I alter column entity_id set (n_distinct = -1)', part);
        insert into transition_partitions values (bound, bound + widest, part);
        bound := bound + widest;
        made := made + 1;
    end loop;
    return made;
end
$$;
