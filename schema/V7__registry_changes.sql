-- What was done to the registry: who, what, when, before and after; never a token. Appended under
-- the log's lock, so that `position` (the log's head then) and `changed_at` order it among the
-- transitions and an as-of read knows the names, tags and thresholds in force then.
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
    constraint action_is_known check (action in ('created', 'updated', 'removed')),
    constraint only_a_creation_has_no_before check ((before is null) = (action = 'created')),
    constraint only_a_removal_has_no_after check ((after is null) = (action = 'removed'))
);

create index registry_changes_by_satellite on registry_changes (satellite_id, change);

create function reject_change_of_the_registrys_history() returns trigger language plpgsql as $$
begin
    raise exception 'registry_changes is append-only: % is refused', tg_op
        using errcode = 'restrict_violation';
end
$$;

create trigger rows_are_never_changed before update or delete or truncate on registry_changes
    for each statement execute function reject_change_of_the_registrys_history();

-- Satellites registered before this table was: known as they are now.
insert into registry_changes (position, changed_at, satellite_id, action, actor_type, actor_id, after)
select 0, created_at, id, 'created', 'system', 'system',
       jsonb_build_object('name', name, 'region', region, 'tags', tags, 'offlineThresholdMs', offline_threshold_ms)
  from satellites;

grant select, insert on registry_changes to groundstation_service;
-- A rebuild replaces whatever does not follow from the log.
grant delete on satellite_connections to groundstation_service;
