-- Tokens of the administration API that have a name, beside those of the settings.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A token as it was made: only its last use changes. One that is revoked has no row, so its name is free again. `region`
-- and `tags` bound what it reaches; none of both bounds nothing.
create table tokens (
    id              uuid        not null,
    name            text        not null,
    role            text        not null,
    region          text,
    tags            jsonb       not null default '{}',
    token_digest    text        not null,
    created_at      timestamptz not null,
    created_by_type text        not null,
    created_by_id   text        not null,
    expires_at      timestamptz,
    last_used_at    timestamptz,
    constraint tokens_are_identified_by_id primary key (id),
    constraint a_name_is_of_one_token unique (name),
    constraint a_digest_is_of_one_token unique (token_digest),
    constraint name_has_1_to_200_characters check (char_length(name) between 1 and 200),
    constraint role_is_known check (role in ('admin', 'operator', 'read', 'enrol')),
    constraint region_has_1_to_200_characters check (char_length(region) between 1 and 200),
    constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
    constraint token_digest_is_sha256 check (token_digest ~ '^sha256:[A-Za-z0-9_-]{43}$'),
    constraint words_are_short check (octet_length(created_by_type) <= 100 and octet_length(created_by_id) <= 1000),
    constraint moments_are_readable
        check (is_readable(created_at) and is_readable(expires_at) and is_readable(last_used_at))
);

-- A pod keeps no right to make another token of one that is there.
grant select, insert, delete, update (last_used_at) on tokens to groundstation_service;

-- Who made and who revoked which token; nothing of the token itself. Numbers grow in commit order (a lock is held past the
-- commit), and pods read the tokens again when the newest one changes.
create table token_changes (
    change     bigint      generated always as identity,
    changed_at timestamptz not null,
    token_id   uuid        not null,
    action     text        not null,
    actor_type text        not null,
    actor_id   text        not null,
    token      jsonb       not null,
    constraint token_changes_are_numbered primary key (change),
    constraint changed_at_is_readable check (is_readable(changed_at)),
    constraint action_is_known check (action in ('created', 'revoked')),
    constraint token_is_an_object check (jsonb_typeof(token) = 'object'),
    constraint words_are_short check (octet_length(actor_type) <= 100 and octet_length(actor_id) <= 1000)
);

create trigger rows_are_never_changed before update or delete or truncate on token_changes
    for each statement execute function reject_change();

-- A pod chooses everything about a change but its number.
grant select, insert (changed_at, token_id, action, actor_type, actor_id, token) on token_changes
    to groundstation_service;
