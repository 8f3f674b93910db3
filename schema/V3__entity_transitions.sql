-- The log: every transition once, in commit order, positions 1, 2, 3 … without a gap.
-- It is also the outbox: the relay reads it from the position it has published up to.
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
    constraint session_is_not_negative check (session >= 0),
    constraint event_is_known check (event in ('connected', 'disconnected', 'heartbeat_lost', 'removed')),
    constraint only_a_removal_has_no_next check ((next is null) = (event = 'removed'))
) partition by range (position);

-- One satellite's history, in order.
create index entity_transitions_by_entity on entity_transitions (entity_id, position);
-- A retry asks whether its change is already there. Unique by construction: a change id is made
-- once and looked up under the satellite's row lock (a unique index would need the partition key).
create index entity_transitions_by_change on entity_transitions (change_id);
-- Time never goes back along positions, so a block range index answers "since" and "until".
create index entity_transitions_by_time on entity_transitions using brin (recorded_at);

create function reject_change_of_the_log() returns trigger language plpgsql as $$
begin
    raise exception 'entity_transitions is append-only: % is refused', tg_op
        using errcode = 'restrict_violation';
end
$$;

create trigger rows_are_never_changed before update or delete on entity_transitions
    for each row execute function reject_change_of_the_log();
create trigger the_log_is_never_truncated before truncate on entity_transitions
    for each statement execute function reject_change_of_the_log();

-- Which ranges of positions have a partition.
create table transition_partitions (
    first_position bigint not null,
    past_position  bigint not null,
    relation       name   not null,
    constraint partitions_start_once primary key (first_position),
    constraint a_partition_holds_something check (past_position > first_position)
);

-- Makes partitions of `width` positions until there is room for `ahead` more transitions; returns
-- how many it made. Attaching takes a lock that lets reads and appends go on. Runs as the owner,
-- because the service owns nothing. Safe to call from several pods at once.
create function extend_transition_log(width bigint, ahead bigint) returns integer
    language plpgsql security definer set search_path from current as $$
declare
    head  bigint;
    bound bigint;
    part  name;
    made  integer := 0;
begin
    if width < 1000 or width > 100000000 or ahead < 0 or ahead > 20 * width then
        raise exception 'width must be 1000 to 100000000 positions, ahead 0 to 20 widths';
    end if;
    select coalesce(max(past_position), 1) into bound from transition_partitions;
    select coalesce(max(position), 0) into head from entity_transitions;
    if bound > head + ahead then
        return 0;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('groundstation: transition partitions', 0));
    select coalesce(max(past_position), 1) into bound from transition_partitions;
    while bound <= head + ahead loop
        part := 'entity_transitions_from_' || bound;
        execute format('create table %I (like entity_transitions including defaults including constraints)', part);
        execute format('create trigger the_log_is_never_truncated before truncate on %I
            for each statement execute function reject_change_of_the_log()', part);
        execute format('alter table entity_transitions attach partition %I for values from (%s) to (%s)',
            part, bound, bound + width);
        insert into transition_partitions values (bound, bound + width, part);
        bound := bound + width;
        made := made + 1;
    end loop;
    return made;
end
$$;

select extend_transition_log(1000000, 1000000);

revoke all on function extend_transition_log(bigint, bigint) from public;
grant execute on function extend_transition_log(bigint, bigint) to groundstation_service;
-- Append-only: no UPDATE, DELETE or TRUNCATE is granted.
grant select, insert on entity_transitions to groundstation_service;
grant select on transition_partitions to groundstation_service;
