-- An append writes the projection before it takes the log's lock, and so before it knows positions. The row
-- says which revision of its satellite is in it, and that is the same: revisions are dense and in order of
-- position. Pods of the version before still write `position`, for themselves; nobody else reads it.
alter table satellite_connections
    alter column position drop not null,
    drop constraint revision_is_not_beyond_position,
    drop constraint position_and_session_were_given,
    add constraint revision_and_session_were_given check (
        revision < 1000000000000000 and session < 1000000000000000) not valid;

-- Whoever appends waits for all that are before it, and each of them for its commit: with many pods that is
-- longer than a lock is to be waited for otherwise, and giving up only to queue again helps nobody. It is less
-- than a statement may take, so that the one who gives up says why.
create function lock_log() returns void language plpgsql set lock_timeout = '12s' as $$
begin
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('groundstation: entity_transitions', 0));
end
$$;

revoke all on function lock_log() from public;
grant execute on function lock_log() to groundstation_service;

-- The new rows are found by their position. Planned once for any position, on a partition of which nothing is
-- known yet, Postgres would read the whole of it instead, at each append and under the log's lock, until
-- autovacuum has counted it.
alter function check_that_positions_follow() set enable_seqscan = off;
alter function check_that_positions_follow() set max_parallel_workers_per_gather = 0;
