-- The audit's entries under seals, and their retention.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Up to here retention has dropped the entries. One row, which only `drop_audit_entries` moves.
create table audit_horizon (
    is_only  boolean not null default true,
    position bigint  not null,
    constraint there_is_one_audit_horizon primary key (is_only),
    constraint it_is_the_only_one check (is_only),
    constraint position_is_not_negative check (position >= 0)
);

insert into audit_horizon (position) values (0);

grant select on audit_horizon to groundstation_service;

-- The page asks for the newest of one kind, again and again.
create index audit_entries_by_action on audit_entries (action, position);

-- The seals of the entries, as those of the registry's history: each over up to a thousand, in the order of their positions,
-- with a digest of each entry (`src/log/seal/audit.rs`). They stay when their entries are dropped: so the chain is whole from
-- its first seal on.
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

-- What retention has dropped is deleted, and nothing else.
create function check_that_an_audit_entry_is_dropped() returns trigger
    language plpgsql set search_path from current as $$
begin
    if old.position > (select h.position from audit_horizon h) then
        raise exception '% is append-only: % is refused', tg_table_name, tg_op
            using errcode = 'restrict_violation';
    end if;
    return old;
end
$$;

drop trigger entries_are_never_changed on audit_entries;

create trigger entries_are_never_changed before update or truncate on audit_entries
    for each statement execute function reject_change();

create trigger only_retention_deletes before delete on audit_entries
    for each row execute function check_that_an_audit_entry_is_dropped();

-- Deletes the oldest entries, at most so many, that are older than the span and sealed; returns how many. It runs as the
-- owner, because pods may delete nothing, and trusts its caller with nothing: whoever has a pod's password must not wipe
-- its tracks. So it keeps 30 days whatever it is told, and as long as the log's retention floor where that is longer. What
-- is not sealed has no witness and stays.
create function drop_audit_entries(older_than interval, at_most bigint) returns bigint
    language plpgsql security definer set search_path from current as $$
declare
    kept_from timestamptz;
    sealed    bigint;
    through   bigint;
    number    bigint;
begin
    if older_than is null or older_than < interval '30 days' then
        raise exception 'retention must keep 30 days of the audit at least'
            using errcode = 'invalid_parameter_value';
    end if;
    if at_most is null or at_most not between 1 and 10000 then
        raise exception 'from 1 to 10000 entries are dropped at once'
            using errcode = 'invalid_parameter_value';
    end if;
    -- One at a time: whoever comes second finds what the first has left.
    perform from audit_horizon for update;
    select clock_timestamp() - greatest(older_than, f.keep) into kept_from from retention_floor f;
    select s.entries[cardinality(s.entries)] into sealed from audit_seals s order by s.number desc limit 1;
    -- `recorded_at` never goes back along positions. Not "younger than": a value that cannot be compared stays.
    select max(oldest.position) into through
      from (select e.position, e.recorded_at from audit_entries e
             where e.position <= sealed
             order by e.position limit at_most) oldest
     where oldest.recorded_at < kept_from;
    if through is null then
        return 0;
    end if;
    update audit_horizon set position = through;
    delete from audit_entries e where e.position <= through;
    get diagnostics number = row_count;
    return number;
end
$$;

revoke all on function drop_audit_entries(interval, bigint) from public;
grant execute on function drop_audit_entries(interval, bigint) to groundstation_service;
