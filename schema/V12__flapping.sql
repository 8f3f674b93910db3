-- A satellite that comes and goes too often is marked, never silenced: the moments of its newest
-- edges, as many as the mark needs, and until when it stays marked. Bookkeeping beside the
-- projection; what a transition said of it is in the log.
alter table satellite_connections
    add column recent_edges   timestamptz[] not null default '{}',
    add column flapping_until timestamptz;
