-- Evidence against tampering: each seal covers the next transitions in position order and holds a
-- hash of the seal before it and of their canonical form (`src/log/canonical.rs`), so that no row
-- below the newest seal can be changed, dropped or swapped without breaking the chain.
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

create function reject_change_of_seals() returns trigger language plpgsql as $$
begin
    raise exception 'log_seals is append-only: % is refused', tg_op
        using errcode = 'restrict_violation';
end
$$;

create trigger seals_are_never_changed before update or delete on log_seals
    for each row execute function reject_change_of_seals();
create trigger seals_are_never_truncated before truncate on log_seals
    for each statement execute function reject_change_of_seals();

-- Append-only: no UPDATE, DELETE or TRUNCATE is granted.
grant select, insert on log_seals to groundstation_service;
