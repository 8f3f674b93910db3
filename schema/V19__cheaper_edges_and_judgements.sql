-- An index with `last_event` in its condition is touched by every edge, which then is no HOT update: a
-- new entry in both indexes, and more pages in the write-ahead log. With the pod alone an edge touches
-- none while a satellite stays with its pod.
drop index connected_sessions_by_pod;
create index sessions_by_pod on satellite_connections (pod);

-- Whose session is over is nobody's: 0, so that looking for the sessions that a pod has left behind does
-- not pass over those that had ended before. The monitor sees to it for pods that are silent.
alter table satellite_connections
    add constraint a_connected_session_is_not_nobodys check (pod <> 0 or last_event <> 'connected');

-- Adding an interval to a timestamptz is stable, not immutable. A function that claims more than its body
-- can keep is called row by row, which costs some microseconds each; these are part of their query now.
alter function judged_until(timestamptz, timestamptz) stable;
alter function online_until(timestamptz, bigint, bigint, timestamptz, timestamptz) stable;
