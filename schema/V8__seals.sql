-- Evidence against tampering: what was sealed stays as it was, or the change is found.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Each seal covers the next transitions in position order and holds a hash of the seal before it and of
-- their canonical form (`src/log/canonical.rs`), so that no row below the newest seal can be changed,
-- dropped or swapped without breaking the chain.
create table log_seals (
    first_position bigint      not null,
    last_position  bigint      not null,
    transitions    bigint      not null,
    previous_hash  bytea       not null,
    hash           bytea       not null,
    sealed_at      timestamptz not null,
    constraint seals_start_once primary key (first_position),
    constraint seals_end_once unique (last_position),
    constraint a_seal_follows_once unique (previous_hash),
    constraint first_position_is_positive check (first_position > 0),
    constraint a_seal_covers_every_position_between check (transitions = last_position - first_position + 1 and transitions > 0),
    constraint hashes_are_sha_256 check (octet_length(previous_hash) = 32 and octet_length(hash) = 32)
);

-- Append-only: no UPDATE, DELETE or TRUNCATE is granted.
grant select, insert on log_seals to groundstation_service;

create trigger seals_are_never_changed before update or delete on log_seals
    for each row execute function reject_change();
create trigger seals_are_never_truncated before truncate on log_seals
    for each statement execute function reject_change();

-- A seal follows on the one before and covers existing transitions: one beyond the head would end all sealing.
create function check_that_a_seal_follows() returns trigger
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
    return new;
end
$$;

create trigger a_seal_follows before insert on log_seals
    for each row execute function check_that_a_seal_follows();

-- The history of the registry has seals of its own, each over up to a thousand changes, in the order of their
-- numbers, which are given out under the log's lock. A seal holds the digest of each change
-- (`src/log/seal/registry.rs`), so that an audit names the very change that was altered, dropped or added
-- later. Numbers have gaps: a change that failed has used one.
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

-- Append-only: no UPDATE, DELETE or TRUNCATE is granted.
grant select, insert on registry_seals to groundstation_service;

create trigger seals_are_never_changed before update or delete or truncate on registry_seals
    for each statement execute function reject_change();

create function check_that_a_registry_seal_follows() returns trigger
    language plpgsql set search_path from current as $$
declare
    before record;
begin
    select s.number, s.hash, s.changes[cardinality(s.changes)] as last into before
      from registry_seals s order by s.number desc limit 1;
    if new.number <> coalesce(before.number, 0) + 1
       or new.previous_hash is distinct from coalesce(before.hash, new.previous_hash)
       or new.changes[1] <= coalesce(before.last, 0)
       or cardinality(new.changes) > 1000
       or exists (select from unnest(new.changes) sealed (change)
                   where not exists (select from registry_changes c where c.change = sealed.change))
       or not is_readable(new.sealed_at) then
        raise exception 'a seal follows on the newest one and covers what is in the history'
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger a_seal_follows before insert on registry_seals
    for each row execute function check_that_a_registry_seal_follows();
