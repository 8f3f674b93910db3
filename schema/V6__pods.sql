-- The pods that run, each refreshing its row every few seconds. Writing it is also how a pod
-- knows that the database can be written.
create table pods (
    name       text        not null,
    started_at timestamptz not null,
    seen_at    timestamptz not null,
    constraint pods_are_identified_by_name primary key (name)
);

grant select, insert, update, delete on pods to groundstation_service;
