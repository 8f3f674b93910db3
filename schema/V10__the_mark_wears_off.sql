-- The mark of flapping wears off in the past as in the present: a transition tells until when its satellite is marked.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A moment as states tell it. The cast refuses a date that does not exist.
create function is_told_moment(moment jsonb) returns boolean
    language sql stable parallel safe
    return case when jsonb_typeof(coalesce(moment, 'null')) = 'null' then true
                when moment #>> '{}' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,9})?Z$'
                then is_readable((moment #>> '{}')::timestamptz) and substr(moment #>> '{}', 12, 2) < '24'
                else false end;

-- As before, with the end of the mark.
create or replace function is_state(state jsonb) returns boolean
    language sql stable parallel safe
    return jsonb_typeof(state) = 'object'
       and pg_column_size(state) <= 16384
       and coalesce(state->>'status' in ('online', 'offline'), false)
       and coalesce(jsonb_typeof(state->'name') = 'string' and jsonb_typeof(state->'region') = 'string', false)
       and jsonb_typeof(coalesce(state->'lastEvent', 'null')) in ('string', 'null')
       and jsonb_typeof(coalesce(state->'flapping', 'true')) = 'boolean'
       and is_told_moment(state->'flappingUntil')
       and is_told_moment(state->'lastSeenAt');

-- The rule of `flapping.rs`: whether a satellite that is marked until then, if no edge comes, is marked at a moment.
create function is_flapping(marked_until timestamptz, moment timestamptz) returns boolean
    language sql immutable parallel safe
    return coalesce(moment < marked_until, false);

-- As before, by that rule.
create or replace view satellites_now with (security_invoker = true) as
    select s.id, s.name, s.region, s.tags, s.capabilities, s.version, s.offline_threshold_ms, s.created_at,
           c.last_event, heard_at(c.last_heartbeat_at, c.vouched, p.seen_at) as heard_at,
           proven_heard_at(c.last_heartbeat_at, c.vouched, p.seen_at, p.vouch_window) as last_heartbeat_at,
           is_flapping(c.flapping_until, watermark.observed_at) as flapping,
           i.last_event as imported_event, i.last_heartbeat_at as imported_heartbeat, i.imported_at,
           status_as_of(watermark.observed_at, p.seen_at) as observed_at, watermark.judged_at, watermark.resumed_at
      from watermark cross join satellites s
      left join satellite_connections c on c.satellite_id = s.id
      left join pods p on p.number = c.pod
      left join satellite_imports i on i.satellite_id = s.id;
