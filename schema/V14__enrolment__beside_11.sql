-- Satellites register themselves with a token for enrolment, which may be good for so many of them.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- How many satellites a token registers yet; none where nobody counts.
alter table tokens add column uses_left bigint,
    add constraint uses_left_is_not_negative check (uses_left >= 0) not valid;

create function only_fewer_uses() returns trigger
    language plpgsql set search_path from current as $$
begin
    raise exception 'the uses of a token only become fewer' using errcode = 'restrict_violation';
end
$$;

-- A pod counts uses down. With its password nobody gives a token more of them.
create trigger uses_only_become_fewer before update of uses_left on tokens
    for each row when (new.uses_left is distinct from old.uses_left
                       and not coalesce(new.uses_left < old.uses_left, false))
    execute function only_fewer_uses();

grant update (uses_left) on tokens to groundstation_service;

-- Enrolments with a key: an agent that lost the answer asks again with the same key, and gets the same satellite. They
-- are kept as long as it. The key is a secret, as the satellite's token follows from it: only a digest of it is here, by
-- a key that follows from the token it came with. The row is written before the satellite's, so that a repetition
-- waits here and for no lock of the log.
create table enrolments (
    key_digest     text not null,
    request_digest text not null,
    satellite_id   uuid not null,
    constraint an_enrolment_has_one_key primary key (key_digest),
    constraint a_satellite_enrols_once unique (satellite_id),
    constraint enrolments_end_with_their_satellite foreign key (satellite_id) references satellites (id)
        on delete cascade deferrable initially deferred,
    constraint key_digest_has_256_bits check (key_digest ~ '^[A-Za-z0-9_-]{43}$'),
    constraint request_digest_is_short check (octet_length(request_digest) <= 100)
);

grant select, insert on enrolments to groundstation_service;
