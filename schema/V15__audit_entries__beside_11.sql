-- Who changed what, from where: changes by administrators, sign-ins at the page, and what was refused.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- One row. Whoever appends an entry holds its lock until the commit, so positions are given out in commit order and without a
-- gap, and a reader that has read up to n misses nothing at or below n. Of all locks of a transaction it is the last: behind
-- satellites, the log, the numbers of changes and tokens. Pods may only read it. Entries up to `dropped` are gone.
create table audit_head (
    is_only     boolean     not null default true,
    position    bigint      not null,
    recorded_at timestamptz not null,
    dropped     bigint      not null,
    constraint there_is_one_head primary key (is_only),
    constraint it_is_the_only_one check (is_only),
    constraint dropped_is_behind_the_head check (dropped between 0 and position)
);

insert into audit_head (position, recorded_at, dropped) values (0, 'epoch', 0);

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

create trigger entries_are_never_changed before update or truncate on audit_entries
    for each statement execute function reject_change();

-- Only what retention has declared to be dropped is deleted.
create function check_that_an_audit_entry_is_dropped() returns trigger
    language plpgsql set search_path from current as $$
begin
    if old.position > (select h.dropped from audit_head h) then
        raise exception '% is append-only: % is refused', tg_table_name, tg_op
            using errcode = 'restrict_violation';
    end if;
    return old;
end
$$;

create trigger only_retention_deletes before delete on audit_entries
    for each row execute function check_that_an_audit_entry_is_dropped();

-- The seals of the entries, as those of the registry's history: each over up to a thousand, with a digest of each entry
-- (`src/log/seal/audit.rs`). They stay when their entries are dropped.
create table audit_seals (
    number        bigint      not null,
    entries       bigint[]    not null,
    digests       bytea       not null,
    previous_hash bytea       not null,
    hash          bytea       not null,
    sealed_at     timestamptz not null,
    constraint audit_seals_are_numbered primary key (number),
    constraint an_audit_seal_follows_once unique (previous_hash),
    constraint number_is_positive check (number > 0),
    constraint an_audit_seal_covers_something check (cardinality(entries) > 0),
    constraint each_entry_has_a_digest_of_32_bytes check (octet_length(digests) = 32 * cardinality(entries)),
    constraint hashes_are_sha_256 check (octet_length(previous_hash) = 32 and octet_length(hash) = 32)
);

-- Append-only: no UPDATE, DELETE or TRUNCATE is granted.
grant select, insert on audit_seals to groundstation_service;

create trigger seals_are_never_changed before update or delete or truncate on audit_seals
    for each statement execute function reject_change();

create function check_that_an_audit_seal_follows() returns trigger
    language plpgsql set search_path from current as $$
declare
    before record;
begin
    select s.number, s.hash, s.entries[cardinality(s.entries)] as last into before
      from audit_seals s order by s.number desc limit 1;
    if new.number <> coalesce(before.number, 0) + 1
       or new.previous_hash is distinct from coalesce(before.hash, new.previous_hash)
       or new.entries[1] <= coalesce(before.last, 0)
       or cardinality(new.entries) > 1000
       or exists (select from unnest(new.entries) sealed (position)
                   where not exists (select from audit_entries e where e.position = sealed.position))
       or not is_readable(new.sealed_at) then
        raise exception 'a seal follows on the newest one and covers what is in the audit'
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger a_seal_follows before insert on audit_seals
    for each row execute function check_that_an_audit_seal_follows();

-- Deletes the oldest entries that are older than the span and sealed, and returns how many. It runs as the owner and trusts
-- its caller with nothing: who has a pod's password must not wipe out its tracks. So it keeps a month whatever it is told,
-- and the retention floor where that is longer.
create function drop_audit_entries(older_than interval, at_most bigint) returns bigint
    language plpgsql security definer set search_path from current as $$
declare
    kept_from timestamptz;
    through   bigint;
    number    bigint;
begin
    if older_than is null or older_than < interval '30 days' then
        raise exception 'retention must keep 30 days of the audit at least'
            using errcode = 'invalid_parameter_value';
    end if;
    if at_most is null or at_most not between 1 and 10000 then
        raise exception 'at most 10000 entries are dropped at once'
            using errcode = 'invalid_parameter_value';
    end if;
    select clock_timestamp() - greatest(older_than, f.keep) into kept_from from retention_floor f;
    -- Not "younger than": a value that cannot be compared stays.
    select max(old.position) into through
      from (select e.position from audit_entries e
             where e.recorded_at < kept_from
               and e.position <= (select s.entries[cardinality(s.entries)]
                                    from audit_seals s order by s.number desc limit 1)
             order by e.position limit at_most) old;
    if through is null then
        return 0;
    end if;
    update audit_head h set dropped = through where h.dropped < through;
    delete from audit_entries e where e.position <= through;
    get diagnostics number = row_count;
    return number;
end
$$;

revoke all on function drop_audit_entries(interval, bigint) from public;
grant execute on function drop_audit_entries(interval, bigint) to groundstation_service;
