-- Sets of assignments for a region or tags, beside each satellite's own list.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- `region` and `tags` select satellites: all that is named has to hold, and a set that names nothing is for all of them.
-- Versions are numbers of `satellite_changes`, so they grow in commit order among all that changes a satellite.
create table assignment_sets (
    name        text        not null,
    region      text,
    tags        jsonb       not null default '{}',
    priority    int         not null,
    assignments jsonb       not null,
    count       int         not null,
    bytes       int         not null,
    version     bigint      not null,
    changed_at  timestamptz not null default date_trunc('milliseconds', clock_timestamp()),
    constraint sets_are_identified_by_name primary key (name),
    constraint name_has_1_to_100_characters check (char_length(name) between 1 and 100),
    constraint region_has_1_to_200_characters check (char_length(region) between 1 and 200),
    constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
    constraint assignments_are_a_list check (jsonb_typeof(assignments) = 'array'),
    constraint version_is_positive check (version > 0)
);

grant select, insert, update, delete on assignment_sets to groundstation_service;

-- What sets selected before: a satellite that is no longer selected has another list since that change. Few rows: where
-- there are many, one that selects all stands for them.
create table left_selectors (
    region text,
    tags   jsonb  not null default '{}',
    change bigint not null,
    constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
    constraint change_is_positive check (change > 0)
);

grant select, insert, delete on left_selectors to groundstation_service;

-- Who stored and who deleted which set; the newest row before holds what it was.
create table assignment_set_changes (
    change     bigint      generated always as identity,
    changed_at timestamptz not null default date_trunc('milliseconds', clock_timestamp()),
    name       text        not null,
    action     text        not null,
    version    bigint      not null,
    actor_type text        not null,
    actor_id   text        not null,
    stored     jsonb,
    constraint set_changes_are_numbered primary key (change),
    constraint changed_at_is_readable check (is_readable(changed_at)),
    constraint action_is_known check (action in ('stored', 'deleted')),
    constraint only_a_deletion_stores_nothing check ((stored is null) = (action = 'deleted')),
    constraint words_are_short check (octet_length(actor_type) <= 100 and octet_length(actor_id) <= 1000)
);

create index assignment_set_changes_by_name on assignment_set_changes (name, change);

create trigger rows_are_never_changed before update or delete or truncate on assignment_set_changes
    for each statement execute function reject_change();

-- A pod chooses everything about a change but its number.
grant select, insert (name, action, version, actor_type, actor_id, stored) on assignment_set_changes
    to groundstation_service;

-- `sets_version` is the newest change of a satellite's own region or tags that changed which sets are for it.
-- `sent_version` is the greatest version of a list that it was sent. Both go with the satellite.
alter table satellites add column sets_version bigint, add column sent_version bigint;

create function is_selected(selector_region text, selector_tags jsonb, region text, tags jsonb) returns boolean
    language sql immutable parallel safe
    return (selector_region is null or selector_region = region) and tags @> selector_tags;

-- Under the lock that every change of a set holds to its commit too: neither misses the other.
create function note_selection_of_satellite() returns trigger
    language plpgsql set search_path from current as $$
declare
    number bigint := note_satellite_change(old.id);
begin
    if exists (
        select from (select s.region, s.tags from assignment_sets s union all
                     select l.region, l.tags from left_selectors l) selector
         where is_selected(selector.region, selector.tags, old.region, old.tags)
               <> is_selected(selector.region, selector.tags, new.region, new.tags)
    ) then
        new.sets_version := number;
    end if;
    return new;
end
$$;

create trigger sets_follow_region_and_tags before update of region, tags on satellites
    for each row when ((old.region, old.tags) is distinct from (new.region, new.tags))
    execute function note_selection_of_satellite();

-- The one place where lists are merged: what a satellite of this region with these tags and this list of its own is to
-- check, in the order of the list, each with the set that it comes from. Of a pair of config and system its own counts,
-- then that of the set with the greatest priority, then that of the first name.
create function merged_assignments(region text, tags jsonb, own jsonb)
    returns table (place bigint, assignment jsonb, set_name text)
    language sql stable parallel safe
begin atomic
    select row_number() over (order by m.is_own desc, m.priority desc, m.name collate "C", m.nth), m.assignment, m.name
      from (
        select true as is_own, 0 as priority, null::text as name, o.nth, o.assignment
          from jsonb_array_elements(own) with ordinality o (assignment, nth)
        union all
        select false, first.priority, first.name, first.nth, first.assignment
          from (
            select distinct on (e.assignment ->> 'configId', e.assignment ->> 'systemId')
                   s.priority, s.name, e.nth, e.assignment
              from assignment_sets s
             cross join jsonb_array_elements(s.assignments) with ordinality e (assignment, nth)
             where is_selected(s.region, s.tags, merged_assignments.region, merged_assignments.tags)
             order by e.assignment ->> 'configId', e.assignment ->> 'systemId',
                      s.priority desc, s.name collate "C"
          ) first
         where not exists (
            select from jsonb_array_elements(own) mine (assignment)
             where mine.assignment ->> 'configId' = first.assignment ->> 'configId'
               and mine.assignment ->> 'systemId' = first.assignment ->> 'systemId')
      ) m;
end;

-- The list in force of each satellite. Its version is the newest change of its own list, of a set that is for it or no
-- longer is, or of its region and tags where that changed which sets these are. It only grows.
create view effective_assignments with (security_invoker = true) as
    select s.id as satellite_id,
           greatest(coalesce(a.version, 0), s.sets_version, chosen.version, gone.change) as version,
           case when chosen.version is null then coalesce(a.assignments, '[]')
                else coalesce((select jsonb_agg(m.assignment order by m.place)
                                 from merged_assignments(s.region, s.tags, coalesce(a.assignments, '[]')) m), '[]')
           end as assignments
      from satellites s
      left join satellite_assignments a on a.satellite_id = s.id
     cross join lateral (
           select max(t.version) as version from assignment_sets t
            where is_selected(t.region, t.tags, s.region, s.tags)) chosen
     cross join lateral (
           select max(l.change) as change from left_selectors l
            where is_selected(l.region, l.tags, s.region, s.tags)) gone;

grant select on effective_assignments to groundstation_service;
