-- Times that administrators planned, in which a part of the fleet may come and go: its edges are marked, and its time is
-- counted apart.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Whether a satellite is among those that are selected: all that is named has to hold.
create function is_selected(ids uuid[], region text, tags jsonb, satellite uuid, its_region text, its_tags jsonb)
    returns boolean
    language sql immutable parallel safe
    return coalesce((ids is null or satellite = any (ids)) and (region is null or its_region = region)
                    and its_tags @> tags, false);

-- A window begins with its planning at the earliest, and ends as planned or when it is ended: so what was in maintenance at
-- a moment that is past stays so, and the table tells the past too. No window is ever deleted.
create table maintenance_windows (
    id              uuid        not null,
    ids             uuid[],
    region          text,
    tags            jsonb       not null default '{}',
    begins_at       timestamptz not null,
    planned_end     timestamptz not null,
    ended_at        timestamptz,
    ends_at         timestamptz not null generated always as (coalesce(ended_at, planned_end)) stored,
    reason          text        not null,
    created_at      timestamptz not null default date_trunc('milliseconds', clock_timestamp()),
    created_by_type text        not null,
    created_by_id   text        not null,
    constraint windows_are_identified_by_id primary key (id),
    constraint a_window_has_a_length check (planned_end > begins_at),
    constraint a_window_begins_with_its_planning_at_the_earliest check (begins_at >= created_at - interval '1 minute'),
    constraint it_is_ended_before_its_end check (ended_at <= planned_end),
    constraint ids_are_1_to_1000 check (cardinality(ids) between 1 and 1000),
    constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
    constraint region_has_1_to_200_characters check (char_length(region) between 1 and 200),
    constraint reason_has_1_to_200_characters check (char_length(reason) between 1 and 200),
    constraint words_are_short check (octet_length(created_by_type) <= 100 and octet_length(created_by_id) <= 1000),
    constraint moments_are_readable
        check (is_readable(begins_at) and is_readable(planned_end) and is_readable(ended_at) and is_readable(created_at))
);

-- Every batch of edges asks which have not ended.
create index maintenance_windows_by_end on maintenance_windows (ends_at);
create index maintenance_windows_by_begin on maintenance_windows (begins_at, id);

-- A pod chooses neither when one was planned nor when one was ended.
grant select, update (ended_at),
      insert (id, ids, region, tags, begins_at, planned_end, reason, created_by_type, created_by_id)
    on maintenance_windows to groundstation_service;

create function end_window_now() returns trigger
    language plpgsql set search_path from current as $$
begin
    if tg_op = 'DELETE' or old.ends_at <= clock_timestamp() then
        raise exception 'a maintenance window that is over stays as it is, and none is deleted'
            using errcode = 'restrict_violation';
    end if;
    old.ended_at := date_trunc('milliseconds', clock_timestamp());
    return old;
end
$$;

create trigger a_window_ends_when_it_is_ended before update or delete on maintenance_windows
    for each row execute function end_window_now();

create trigger windows_are_never_truncated before truncate on maintenance_windows
    for each statement execute function reject_change();
