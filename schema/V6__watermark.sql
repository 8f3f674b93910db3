-- Up to when satellites were observed, and what follows from it: which of them are online.
--
-- Time in which no pod could hear a satellite must not count against it. Each life of a pod has its row, which
-- says up to when that pod has written everything it heard. If all of them fall behind, no pod observed: a
-- blind span.
--
-- The database's clock can step: a person sets it, or a standby with another clock takes over. A step ahead
-- looks like time in which no pod observed, which counts against no satellite. A step back leaves stamps that
-- are later than now. They are brought back by as much as the clock went, so that the loss of a silent
-- satellite is found in time and not when the clock has come that far again.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The running pods; each refreshes its row several times a second. By writing it, a pod also learns that the
-- database can be written.
--
-- Pods vouch. A row for every heartbeat costs in proportion to the number of satellites and says almost
-- nothing: "as before". A pod's `seen_at` says it for all of its sessions at once: every connected session of
-- this pod that is vouched for was heard no longer than `vouch_window` before that moment. A session that
-- misses its heartbeat gets its exact time and is no longer vouched for, before `seen_at` moves on. A pod
-- without a window vouches for no session, and writes every heartbeat.
create table pods (
    name         text        not null,
    started_at   timestamptz not null,
    seen_at      timestamptz,
    number       integer     generated always as identity,
    probed_at    timestamptz,
    left_at      timestamptz,
    sessions     bigint      not null default 0,
    late         bigint      not null default 0,
    vouch_window interval,
    constraint each_life_of_a_pod_has_a_number primary key (number),
    constraint a_vouch_window_has_a_length check (vouch_window > interval '0'),
    constraint moments_are_readable check (
        is_readable(started_at) and is_readable(seen_at) and is_readable(probed_at) and is_readable(left_at))
);

grant select, insert, update, delete on pods to groundstation_service;
grant usage on sequence pods_number_seq to groundstation_service;

-- Append-only. A satellite that was online at `judged_at` counts as heard at `to_at`: each gets a threshold to
-- come back. `judged_at` is `from_at`, unless the span before ended so recently that no satellite has had its
-- whole threshold yet. `went_back` is by how much the clock had gone back when the span ended. After that a
-- later span may end earlier, so spans are told apart by their number.
create table blind_spans (
    from_at   timestamptz not null,
    to_at     timestamptz not null,
    judged_at timestamptz not null,
    number    bigint      generated always as identity,
    went_back interval,
    constraint each_blind_span_has_a_number primary key (number),
    constraint a_blind_span_has_a_length check (from_at < to_at),
    constraint judged_no_later_than_it_began check (judged_at <= from_at),
    constraint the_clock_went_back_by_something check (went_back > interval '0')
);

-- Only a few of all spans.
create index steps_back_of_the_clock on blind_spans (number) where went_back is not null;

grant select, insert on blind_spans to groundstation_service;

create trigger spans_are_never_changed before update or delete or truncate on blind_spans
    for each statement execute function reject_change();

-- No pod can have been blind in time that has not come. The minute is for a clock that is set back meanwhile.
create function check_that_blind_time_is_past() returns trigger
    language plpgsql set search_path from current as $$
begin
    if not coalesce(is_readable(new.judged_at) and is_readable(new.from_at)
                    and new.to_at <= greatest(statement_timestamp(), clock_timestamp()) + interval '1 minute',
                    false) then
        raise exception 'blind time has passed when it is told'
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger blind_time_is_past before insert on blind_spans
    for each row execute function check_that_blind_time_is_past();

-- The spans that count. When the clock goes back, spans that end after its new time are of a time that did not
-- come. They were recorded once more, at the times of the clock that went back.
create view blind_time with (security_invoker = true) as
    select s.number, s.from_at, s.to_at, s.judged_at
      from blind_spans s
     where not exists (select from blind_spans back
                        where back.went_back is not null and back.number > s.number and back.to_at < s.to_at);

grant select on blind_time to groundstation_service;

-- Up to when satellites were observed, and the newest blind span, which is the one recorded last: what a status
-- is judged by.
create view watermark with (security_invoker = true) as
    select least(clock_timestamp(), observed.last_at) as observed_at, span.judged_at, span.resumed_at
      from (select max(seen_at) as last_at from pods) observed
      left join lateral (
          select judged_at, to_at as resumed_at from blind_spans order by number desc limit 1
      ) span on true;

grant select on watermark to groundstation_service;

-- A moment later than now by more than any delay explains is from a clock that has gone back since by `by`.
create function brought_back(moment timestamptz, by interval, now timestamptz) returns timestamptz
    language sql stable as $$
    select case when moment > now + interval '1 second' then least(moment - by, now) else moment end
$$;

-- Records that the pod has written everything it had heard by `heard`, `since` seconds after its last record
-- (null: this is the first). If no pod had recorded anything for longer than `blind_after`, or the clock has
-- gone back, that was blind time: returns its seconds, else null.
create function observe(
    pod integer, heard timestamptz, since double precision, blind_after interval, grace interval
) returns double precision
    language plpgsql set search_path from current as $$
declare
    seen  timestamptz := date_trunc('milliseconds', least(heard, clock_timestamp()));
    slack constant interval := interval '1 second';
    last  timestamptz;
    back  interval;
    prior record;
begin
    select max(p.seen_at) into last from pods p;
    if seen - last > blind_after or last > clock_timestamp() + slack then
        -- One of the pods records the span; the others look again and find it.
        perform pg_advisory_xact_lock(hashtextextended('groundstation: blind spans', 0));
        select max(p.seen_at) into last from pods p;
        if last > clock_timestamp() + slack then
            -- Without the step, `seen` would be as long after this pod's last record as its own clock says,
            -- which did not step. A pod's first record does not know for how long no pod has recorded.
            select greatest(case when since is null then last + blind_after else last end,
                            max(p.seen_at) + make_interval(secs => since)) - seen
              into back from pods p where p.number = pod;
            back := date_trunc('milliseconds', back);
            insert into blind_spans (from_at, to_at, judged_at)
            select b.from_at, b.to_at, least(b.judged_at, b.from_at)
              from (select s.number, brought_back(s.from_at, back, seen) as from_at,
                           least(brought_back(s.to_at, back, seen), seen) as to_at,
                           brought_back(s.judged_at, back, seen) as judged_at
                      from blind_time s where s.to_at > seen) b
             where b.from_at < b.to_at
             order by b.number;
            update pods p
               set seen_at = brought_back(p.seen_at, back, seen),
                   started_at = brought_back(p.started_at, back, seen)
             where greatest(p.seen_at, p.started_at) > seen;
            last := least(last - back, seen - interval '1 millisecond');
        end if;
        if back is not null or seen - last > blind_after then
            select * into prior from blind_spans s order by s.number desc limit 1;
            insert into blind_spans (from_at, to_at, judged_at, went_back)
            values (last, seen,
                    case when prior.to_at + grace >= last then least(prior.judged_at, last) else last end,
                    back);
            update pods p set seen_at = greatest(p.seen_at, seen) where p.number = pod;
            return extract(epoch from seen - last);
        end if;
    end if;
    update pods p set seen_at = greatest(p.seen_at, seen) where p.number = pod;
    return null;
end
$$;

revoke all on function observe(integer, timestamptz, double precision, interval, interval) from public;
grant execute on function observe(integer, timestamptz, double precision, interval, interval)
    to groundstation_service;

-- The moment that long ago, for what is forgotten or dropped by its age. Blind time does not count for a day:
-- so a clock that steps ahead makes nothing old, unless it stays there.
create function long_ago(span interval) returns timestamptz
    language sql stable as $$
    select watermark.observed_at - span
           - coalesce((select sum(b.to_at - b.from_at) from blind_time b
                        where b.to_at > watermark.observed_at - interval '1 day'), interval '0')
      from watermark
$$;

-- The same as a span that ends now.
create function since_long_ago(span interval) returns interval
    language sql stable as $$
    select greatest(span, make_interval(secs => extract(epoch from clock_timestamp() - long_ago(span))::float8))
$$;

-- Adding an interval to a timestamptz is stable, not immutable. A function that claims more than its body can
-- keep is called row by row, which costs some microseconds each. These become part of their query.

-- Up to when a session is judged: like all others, but half a second less if its pod has recorded nothing for
-- two seconds. That pod may have heard the session and not written it yet (it writes every quarter of a
-- second).
create function status_as_of(observed_at timestamptz, pod_seen_at timestamptz) returns timestamptz
    language sql stable as $$
    select case when pod_seen_at < observed_at - interval '2 seconds'
                then observed_at - interval '500 milliseconds' else observed_at end
$$;

-- Up to when a session counts as heard. A vouched session counts as heard at its pod's `seen_at`. A pod that
-- has fallen silent heard the session then or shortly before, so a loss is found later by at most its window,
-- and never too soon.
create function heard_at(last_heartbeat_at timestamptz, vouched boolean, pod_seen_at timestamptz) returns timestamptz
    language sql stable as $$
    select case when vouched then greatest(last_heartbeat_at, pod_seen_at) else last_heartbeat_at end
$$;

-- When a session was last heard, as far as that is proven.
create function proven_heard_at(
    last_heartbeat_at timestamptz, vouched boolean, pod_seen_at timestamptz, pod_vouch_window interval
) returns timestamptz
    language sql stable as $$
    select case when vouched then greatest(last_heartbeat_at, pod_seen_at - pod_vouch_window) else last_heartbeat_at end
$$;

-- A satellite's threshold: its own, or the default if it has none.
create function threshold_of(own_threshold_ms bigint, default_threshold_ms bigint) returns interval
    language sql immutable as $$
    select interval '1 millisecond' * (case when own_threshold_ms > 0 then own_threshold_ms else default_threshold_ms end)
$$;

-- The rule of `liveness.rs`: until when a heartbeat keeps its satellite online.
create function online_until(
    last_heartbeat_at timestamptz, own_threshold_ms bigint, default_threshold_ms bigint,
    judged_at timestamptz, resumed_at timestamptz
) returns timestamptz
    language sql stable as $$
    select case
        when last_heartbeat_at < resumed_at
             and last_heartbeat_at + threshold_of(own_threshold_ms, default_threshold_ms) >= judged_at
        then greatest(last_heartbeat_at + threshold_of(own_threshold_ms, default_threshold_ms),
                      resumed_at + threshold_of(greatest(own_threshold_ms, default_threshold_ms), default_threshold_ms))
        else last_heartbeat_at + threshold_of(own_threshold_ms, default_threshold_ms)
    end
$$;

-- Each satellite's present state, and the moment at which its status is judged: the source of every read.
create view satellites_now with (security_invoker = true) as
    select s.id, s.name, s.region, s.tags, s.capabilities, s.version, s.offline_threshold_ms, s.created_at,
           c.last_event, heard_at(c.last_heartbeat_at, c.vouched, p.seen_at) as heard_at,
           proven_heard_at(c.last_heartbeat_at, c.vouched, p.seen_at, p.vouch_window) as last_heartbeat_at,
           coalesce(c.flapping_until > watermark.observed_at, false) as flapping,
           i.last_event as imported_event, i.last_heartbeat_at as imported_heartbeat, i.imported_at,
           status_as_of(watermark.observed_at, p.seen_at) as observed_at, watermark.judged_at, watermark.resumed_at
      from watermark cross join satellites s
      left join satellite_connections c on c.satellite_id = s.id
      left join pods p on p.number = c.pod
      left join satellite_imports i on i.satellite_id = s.id;

grant select on satellites_now to groundstation_service;
