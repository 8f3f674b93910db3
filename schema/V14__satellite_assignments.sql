-- What a satellite is to check: the whole list, replaced at once. Its version is the number of the
-- change that made it, so it only grows, even for an id that is registered again.
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
