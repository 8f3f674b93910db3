-- Registrations that named a key: whoever lost the answer asks again with the same key and gets the same
-- satellite. Kept for a day. No token is here: it is shown once, to whoever was answered first.
create table idempotency_keys (
    key            text        not null,
    request_digest text        not null,
    satellite_id   uuid        not null,
    used_at        timestamptz not null default clock_timestamp(),
    constraint a_key_is_used_once primary key (key),
    constraint key_has_1_to_200_characters check (char_length(key) between 1 and 200)
);

-- The oldest go first.
create index idempotency_keys_by_age on idempotency_keys (used_at);

-- Rows are never changed, but locking one takes the right to.
grant select, insert, delete, update (used_at) on idempotency_keys to groundstation_service;
