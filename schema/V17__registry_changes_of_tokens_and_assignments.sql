-- The registry's history also says who replaced a token and who assigned what. Of a token it holds the
-- number and nothing else; of a list what it is, and the version it replaced: that list is the one an
-- earlier row has under its version. Neither is a description: as-of reads look past them.
alter table registry_changes
    drop constraint action_is_known,
    add constraint action_is_known
        check (action in ('created', 'updated', 'removed', 'token_rotated', 'assigned'));

-- Lists that were assigned before this was kept: known as they are now.
insert into registry_changes (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
select 0, changed_at, satellite_id, 'assigned', 'system', 'system', jsonb_build_object('version', 0),
       jsonb_build_object('version', version, 'assignments', assignments)
  from satellite_assignments;
