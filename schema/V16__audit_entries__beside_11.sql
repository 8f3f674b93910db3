-- Who changed what, from where.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- One row. Whoever appends an entry holds its lock until the commit, so positions are given out in commit order and without a
-- gap, and a reader that has read up to n misses nothing at or below n. Of all locks of a transaction it is the last: behind
-- satellites, the log, the numbers of changes and tokens. Pods may only read it.
create table audit_head (
    is_only     boolean     not null default true,
    position    bigint      not null,
    recorded_at timestamptz not null,
    constraint there_is_one_head primary key (is_only),
    constraint it_is_the_only_one check (is_only)
);

insert into audit_head (position, recorded_at) values (0, 'epoch');

grant select on audit_head to groundstation_service;

-- Nothing of a token but its name is in here, and of a list of assignments only what it was about.
create table audit_entries (
    position    bigint      not null,
    recorded_at timestamptz not null,
    actor_type  text        not null,
    actor_id    text        not null,
    address     text,
    action      text        not null,
    target_kind text        not null,
    target_id   text        not null,
    before      jsonb,
    after       jsonb,
    constraint audit_entries_are_numbered primary key (position),
    constraint position_is_positive check (position > 0),
    constraint recorded_at_is_readable check (is_readable(recorded_at)),
    constraint words_are_short check (
        octet_length(actor_type) <= 100 and octet_length(actor_id) <= 1000 and octet_length(address) <= 100
        and octet_length(action) <= 100 and octet_length(target_kind) <= 100 and octet_length(target_id) <= 1000),
    constraint values_are_objects check (jsonb_typeof(before) = 'object' and jsonb_typeof(after) = 'object'),
    constraint values_are_bounded check (octet_length(before::text) <= 65536 and octet_length(after::text) <= 65536)
);

create index audit_entries_by_target on audit_entries (target_id, position);
create index audit_entries_by_actor on audit_entries (actor_id, position);
create index audit_entries_by_time on audit_entries (recorded_at);

-- A pod chooses neither the place nor the time of an entry.
grant select, insert (actor_type, actor_id, address, action, target_kind, target_id, before, after)
    on audit_entries to groundstation_service;

-- It runs as the owner, because nobody else may move the head. The time never goes back along positions.
create function place_audit_entry() returns trigger
    language plpgsql security definer set search_path from current as $$
begin
    update audit_head h
       set position = h.position + 1,
           recorded_at = greatest(h.recorded_at, date_trunc('milliseconds', clock_timestamp()))
    returning h.position, h.recorded_at into new.position, new.recorded_at;
    return new;
end
$$;

revoke all on function place_audit_entry() from public;

create trigger an_entry_gets_its_place before insert on audit_entries
    for each row execute function place_audit_entry();

create trigger entries_are_never_changed before update or delete or truncate on audit_entries
    for each statement execute function reject_change();
