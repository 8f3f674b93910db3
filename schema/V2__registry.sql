-- The registry: which satellites may connect, what each is to check, and who changed what.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Administrators write it; a pod stores version and capabilities. `token_version` counts a satellite's tokens:
-- a session that authenticated with an earlier one is over. The same token in another form is not a new token.
create table satellites (
    id                   uuid        not null,
    name                 text        not null,
    region               text        not null,
    tags                 jsonb       not null default '{}',
    token_hash           text        not null,
    capabilities         text[]      not null default '{}',
    version              text,
    offline_threshold_ms bigint,
    created_at           timestamptz not null default date_trunc('milliseconds', clock_timestamp()),
    token_version        bigint      not null default 1,
    constraint satellites_are_identified_by_id primary key (id),
    constraint name_has_1_to_200_characters check (char_length(name) between 1 and 200),
    constraint region_has_1_to_200_characters check (char_length(region) between 1 and 200),
    constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
    constraint offline_threshold_is_positive check (offline_threshold_ms > 0),
    constraint created_at_is_readable check (is_readable(created_at)),
    constraint token_version_is_positive check (token_version > 0)
);

-- The order of the listing.
create index satellites_by_name on satellites (name, id);

grant select, insert, update, delete on satellites to groundstation_service;

-- The newest change by an administrator, one number a satellite. Pods ask for numbers above the last they saw
-- and read again the satellites they hold. Numbers grow in commit order (the lock is held past the commit), so
-- a pod that has read up to n misses nothing at or below n. Rows survive a removal: that is a change too.
create table satellite_changes (
    satellite_id uuid   not null,
    change       bigint not null,
    constraint one_newest_change_a_satellite primary key (satellite_id),
    constraint changes_are_numbered_once unique (change),
    constraint change_is_positive check (change > 0)
);

create sequence satellite_change_numbers;

create function note_satellite_change(changed uuid) returns bigint
    language plpgsql set search_path from current as $$
declare
    number bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('groundstation: satellite_changes', 0));
    number := nextval('satellite_change_numbers');
    insert into satellite_changes (satellite_id, change) values (changed, number)
        on conflict (satellite_id) do update set change = excluded.change;
    return number;
end
$$;

grant select, insert, update on satellite_changes to groundstation_service;
grant usage on sequence satellite_change_numbers to groundstation_service;

create function note_change_of_satellite() returns trigger
    language plpgsql set search_path from current as $$
begin
    perform note_satellite_change(old.id);
    return null;
end
$$;

-- After a change of one of these, the pods that hold the satellite read it again. They tell the satellite, and
-- hold its sessions to the new threshold.
create trigger pods_hear_of_a_change
    after update of name, region, token_version, offline_threshold_ms on satellites
    for each row execute function note_change_of_satellite();
create trigger pods_hear_of_a_removal after delete on satellites
    for each row execute function note_change_of_satellite();

-- A satellite's assignments: the whole list, replaced at once. Its version is the number of the change that
-- made it, so it only grows, even for an id that is registered again.
create table satellite_assignments (
    satellite_id uuid        not null,
    version      bigint      not null,
    assignments  jsonb       not null,
    changed_at   timestamptz not null default date_trunc('milliseconds', clock_timestamp()),
    constraint one_list_a_satellite primary key (satellite_id),
    constraint only_of_registered_satellites foreign key (satellite_id) references satellites (id) on delete cascade,
    constraint assignments_are_a_list check (jsonb_typeof(assignments) = 'array'),
    constraint version_is_positive check (version > 0)
);

grant select, insert, update on satellite_assignments to groundstation_service;

-- What another system knew of a satellite that was copied from it: facts about that system's past. They are no
-- edges of this log, and the projection does not follow from them. `token_hash` is the copied one: while the
-- satellite still has it, the other system may change its token. `assignments_version` is that of the copied
-- list: while it is in force, the other system may change the satellite's assignments.
create table satellite_imports (
    satellite_id        uuid        not null,
    source              text        not null,
    token_hash          text        not null,
    last_event          text,
    last_heartbeat_at   timestamptz,
    imported_at         timestamptz not null,
    assignments_version bigint,
    constraint one_import_a_satellite primary key (satellite_id),
    constraint imports_end_with_their_satellite foreign key (satellite_id) references satellites (id) on delete cascade,
    constraint source_is_known check (source in ('checkstack')),
    constraint token_hash_is_bcrypt check (token_hash ~ '^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$'),
    constraint last_event_is_known check (last_event in ('connected', 'disconnected', 'heartbeat_lost')),
    constraint moments_are_readable check (is_readable(last_heartbeat_at) and is_readable(imported_at)),
    constraint imported_version_is_positive check (assignments_version > 0)
);

grant select, insert, update on satellite_imports to groundstation_service;

-- Registrations with a key: a client that lost the answer asks again with the same key and gets the same
-- satellite. They are kept for a day. No token is stored here: it is shown once, in the first answer.
create table idempotency_keys (
    key            text        not null,
    request_digest text        not null,
    satellite_id   uuid        not null,
    used_at        timestamptz not null default clock_timestamp(),
    constraint a_key_is_used_once primary key (key),
    constraint key_has_1_to_200_characters check (char_length(key) between 1 and 200)
);

-- The oldest are deleted first.
create index idempotency_keys_by_age on idempotency_keys (used_at);

-- Rows are never changed, but locking a row needs the right to change it.
grant select, insert, delete, update (used_at) on idempotency_keys to groundstation_service;

-- The history of the registry: who, what, when, before and after. A change is appended under the log's lock. So
-- `position` (the log's head then) and `changed_at` order it among the transitions, and an as-of read knows the
-- names, tags and thresholds in force then.
--
-- Of a token it holds only the number. Of a list it holds the list itself, and the version that it replaced:
-- that list is in an earlier row with that version. Neither describes the satellite, so as-of reads skip them.
create table registry_changes (
    change       bigint      generated always as identity,
    position     bigint      not null,
    changed_at   timestamptz not null,
    satellite_id uuid        not null,
    action       text        not null,
    actor_type   text        not null,
    actor_id     text        not null,
    before       jsonb,
    after        jsonb,
    constraint registry_changes_are_numbered primary key (change),
    constraint position_is_not_negative check (position >= 0),
    constraint changed_at_is_readable check (is_readable(changed_at)),
    constraint action_is_known check (action in ('created', 'updated', 'removed', 'token_rotated', 'assigned')),
    constraint words_are_short check (octet_length(actor_type) <= 100 and octet_length(actor_id) <= 1000),
    constraint only_a_creation_has_no_before check ((before is null) = (action = 'created')),
    constraint only_a_removal_has_no_after check ((after is null) = (action = 'removed'))
);

create index registry_changes_by_satellite on registry_changes (satellite_id, change);

create trigger rows_are_never_changed before update or delete or truncate on registry_changes
    for each statement execute function reject_change();

-- A pod chooses everything about a change but its number.
grant select, insert (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
    on registry_changes to groundstation_service;
