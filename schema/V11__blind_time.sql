-- Time in which nobody could hear a satellite must not count against it. Each life of a pod has its
-- row, which says up to when that pod has written everything it heard; where all of them fall
-- behind, nobody observed: a blind span.
alter table pods drop constraint pods_are_identified_by_name;
alter table pods alter column seen_at drop not null;
alter table pods
    add column number   integer generated always as identity,
    add column probed_at timestamptz,
    add column left_at  timestamptz,
    add column sessions bigint not null default 0,
    add column late     bigint not null default 0,
    add constraint each_life_of_a_pod_has_a_number primary key (number);
grant usage on sequence pods_number_seq to groundstation_service;

-- Which pod holds a session: bookkeeping like the heartbeat, not folded from the log. Changes only
-- with a transition, so its index leaves heartbeats HOT.
alter table satellite_connections add column pod integer;
create index connected_sessions_by_pod on satellite_connections (pod) where last_event = 'connected';

-- Append-only. A satellite that was online at `judged_at` counts as heard at `to_at`: everybody gets
-- a threshold to come back. `judged_at` is `from_at`, unless the span before had ended so short a
-- while ago that nobody had had that threshold yet.
create table blind_spans (
    from_at   timestamptz not null,
    to_at     timestamptz not null,
    judged_at timestamptz not null,
    constraint blind_spans_end_once primary key (to_at),
    constraint a_blind_span_has_a_length check (from_at < to_at),
    constraint judged_no_later_than_it_began check (judged_at <= from_at)
);

create function reject_change_of_blind_spans() returns trigger language plpgsql as $$
begin
    raise exception 'blind_spans is append-only: % is refused', tg_op
        using errcode = 'restrict_violation';
end
$$;

create trigger spans_are_never_changed before update or delete or truncate on blind_spans
    for each statement execute function reject_change_of_blind_spans();

grant select, insert on blind_spans to groundstation_service;

-- Up to when satellites were observed, and the newest blind span: what a status is judged by.
create view sight with (security_invoker = true) as
    select least(clock_timestamp(), observed.last_at) as observed_at, span.judged_at, span.resumed_at
      from (select max(seen_at) as last_at from pods) observed
      left join lateral (
          select judged_at, to_at as resumed_at from blind_spans order by to_at desc limit 1
      ) span on true;

grant select on sight to groundstation_service;

-- Up to when a session is judged: like everybody, but for half a second where its pod has said nothing
-- for two: that pod may have heard it and not written it yet (it writes every quarter of a second).
create function judged_until(observed_at timestamptz, pod_seen_at timestamptz)
    returns timestamptz language sql immutable as $$
    select case when pod_seen_at < observed_at - interval '2 seconds'
                then observed_at - interval '500 milliseconds' else observed_at end
$$;

-- A satellite's threshold: its own, or the default where it has none.
create function threshold_of(own_threshold_ms bigint, default_threshold_ms bigint)
    returns interval language sql immutable as $$
    select interval '1 millisecond' * (case when own_threshold_ms > 0 then own_threshold_ms else default_threshold_ms end)
$$;

-- The rule of `liveness.rs`: until when a heartbeat keeps its satellite online.
create function online_until(
    last_heartbeat_at timestamptz, own_threshold_ms bigint, default_threshold_ms bigint,
    judged_at timestamptz, resumed_at timestamptz
) returns timestamptz language sql immutable as $$
    select case
        when last_heartbeat_at < resumed_at
             and last_heartbeat_at + threshold_of(own_threshold_ms, default_threshold_ms) >= judged_at
        then greatest(last_heartbeat_at + threshold_of(own_threshold_ms, default_threshold_ms),
                      resumed_at + threshold_of(greatest(own_threshold_ms, default_threshold_ms), default_threshold_ms))
        else last_heartbeat_at + threshold_of(own_threshold_ms, default_threshold_ms)
    end
$$;

drop function heartbeat_is_fresh;

-- Says that the pod has written everything it had heard `age` seconds ago. If nobody had said so for
-- longer than `blind_after`, that was blind time: returns its seconds, else null.
create function observe(pod integer, age double precision, blind_after interval, grace interval)
    returns double precision language plpgsql set search_path from current as $$
declare
    seen  timestamptz := date_trunc('milliseconds', clock_timestamp() - make_interval(secs => age));
    last  timestamptz;
    prior blind_spans;
    blind double precision;
begin
    select max(p.seen_at) into last from pods p;
    if seen - last > blind_after then
        -- One of the pods that come back tells; the others look again and find it told.
        perform pg_advisory_xact_lock(hashtextextended('groundstation: blind spans', 0));
        select max(p.seen_at) into last from pods p;
        if seen - last > blind_after then
            select * into prior from blind_spans s order by s.to_at desc limit 1;
            insert into blind_spans (from_at, to_at, judged_at)
            values (last, seen, case when prior.to_at + grace >= last then prior.judged_at else last end);
            blind := extract(epoch from seen - last);
        end if;
    end if;
    update pods p set seen_at = greatest(p.seen_at, seen) where p.number = pod;
    return blind;
end
$$;

revoke all on function observe(integer, double precision, interval, interval) from public;
grant execute on function observe(integer, double precision, interval, interval) to groundstation_service;
