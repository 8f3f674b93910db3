-- The role the pods run as. It owns nothing; every right it has is granted below, table by table.
-- Roles belong to the whole server, so another database's migration may be creating it right now.
do $$
begin
    create role groundstation_service nologin;
exception
    when duplicate_object or unique_violation then null;
end
$$;

-- Whoever migrates may also run as the service (one DATABASE_URL is enough to get started).
do $$
begin
    if not pg_has_role(current_user, 'groundstation_service', 'member') then
        grant groundstation_service to current_user;
    end if;
end
$$;

-- A pod checks at start that the schema is the one it knows.
grant select on refinery_schema_history to groundstation_service;
