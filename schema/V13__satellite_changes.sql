-- What administrators changed of a satellite, as one number a satellite: pods ask for those above the
-- last they saw and look again at the satellites they hold. Numbers grow in commit order (the lock is
-- held past the commit), so whoever has read up to n misses nothing at or below n. Rows survive a
-- removal: that is a change too.
create sequence satellite_change_numbers;

create table satellite_changes (
    satellite_id uuid   not null,
    change       bigint not null,
    constraint one_newest_change_a_satellite primary key (satellite_id),
    constraint changes_are_numbered_once unique (change),
    constraint change_is_positive check (change > 0)
);

create function note_satellite_change(changed uuid) returns bigint language plpgsql as $$
declare
    number bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('groundstation: satellite_changes', 0));
    number := nextval('satellite_change_numbers');
    insert into satellite_changes (satellite_id, change) values (changed, number)
        on conflict (satellite_id) do update set change = excluded.change;
    return number;
end
$$;

grant usage on sequence satellite_change_numbers to groundstation_service;
grant select, insert, update on satellite_changes to groundstation_service;
