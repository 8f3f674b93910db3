-- What another system knew of a satellite that was copied from it. Facts about that system's past:
-- no edge of ours, so not in the log, and nothing the projection follows from. `token_hash` is the
-- one that was copied: while the satellite still has it, its token is the other system's to change.
create table satellite_imports (
    satellite_id      uuid        not null,
    source            text        not null,
    token_hash        text        not null,
    last_event        text,
    last_heartbeat_at timestamptz,
    imported_at       timestamptz not null,
    constraint one_import_a_satellite primary key (satellite_id),
    constraint imports_end_with_their_satellite foreign key (satellite_id) references satellites (id) on delete cascade,
    constraint source_is_known check (source in ('checkstack')),
    constraint token_hash_is_bcrypt check (token_hash ~ '^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$'),
    constraint last_event_is_known check (last_event in ('connected', 'disconnected', 'heartbeat_lost'))
);

grant select, insert, update on satellite_imports to groundstation_service;
