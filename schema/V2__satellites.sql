-- The registry: who may connect. Administrators write it; a pod keeps version and capabilities.
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
    constraint satellites_are_identified_by_id primary key (id),
    constraint name_has_1_to_200_characters check (char_length(name) between 1 and 200),
    constraint region_has_1_to_200_characters check (char_length(region) between 1 and 200),
    constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
    constraint offline_threshold_is_positive check (offline_threshold_ms > 0)
);

-- The listing's order.
create index satellites_by_name on satellites (name, id);

grant select, insert, update, delete on satellites to groundstation_service;
