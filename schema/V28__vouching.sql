-- Pods vouch. A row for every heartbeat costs with the number of satellites and says almost nothing: "as
-- before". A pod's `seen_at` says it for all of its sessions at once: every connected row of this pod that is
-- vouched for was heard within the pod's window before that moment. A session that misses its heartbeat gets its exact
-- time and is vouched for no more, before the pod's `seen_at` moves on.
alter table pods
    -- How long before `seen_at` a session that is vouched for may have been heard last; null: this pod
    -- vouches for none, and writes every heartbeat.
    add column vouch_window interval,
    add constraint a_vouch_window_has_a_length check (vouch_window > interval '0');

alter table satellite_connections
    add column vouched boolean not null default false,
    add constraint only_connected_sessions_are_vouched_for check (not vouched or last_event = 'connected');

-- Up to when a session counts as heard: one that is vouched for by whatever its pod says. A pod that has
-- fallen silent heard it then or shortly before, so a loss is found by its window later, and never too soon.
create function heard_at(last_heartbeat_at timestamptz, vouched boolean, pod_seen_at timestamptz)
    returns timestamptz language sql stable as $$
    select case when vouched then greatest(last_heartbeat_at, pod_seen_at) else last_heartbeat_at end
$$;

-- When a session was heard last, as far as that is proven.
create function proven_heard_at(
    last_heartbeat_at timestamptz, vouched boolean, pod_seen_at timestamptz, pod_vouch_window interval
) returns timestamptz language sql stable as $$
    select case when vouched then greatest(last_heartbeat_at, pod_seen_at - pod_vouch_window) else last_heartbeat_at end
$$;

create or replace view satellites_now with (security_invoker = true) as
    select s.id, s.name, s.region, s.tags, s.capabilities, s.version, s.offline_threshold_ms, s.created_at,
           c.last_event,
           proven_heard_at(c.last_heartbeat_at, c.vouched, p.seen_at, p.vouch_window) as last_heartbeat_at,
           coalesce(c.flapping_until > sight.observed_at, false) as flapping,
           i.last_event as imported_event, i.last_heartbeat_at as imported_heartbeat, i.imported_at,
           judged_until(sight.observed_at, p.seen_at) as observed_at, sight.judged_at, sight.resumed_at,
           heard_at(c.last_heartbeat_at, c.vouched, p.seen_at) as heard_at
      from sight cross join satellites s
      left join satellite_connections c on c.satellite_id = s.id
      left join pods p on p.number = c.pod
      left join satellite_imports i on i.satellite_id = s.id;
