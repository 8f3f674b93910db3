-- Who may do what in the database, least first. Run it once in the new database, as a superuser,
-- before the first `groundstation migrate`; it can be run again.
--
-- Passwords are not here:
--   alter role groundstation_migrator password '…';   -- DATABASE_URL of the migration Job
--   alter role groundstation_pod      password '…';   -- DATABASE_URL of the pods

-- What a pod may do: every right is granted by the migrations, table by table. Nobody logs in as it.
do $$
begin
    create role groundstation_service nologin;
exception
    when duplicate_object then null;
end
$$;

-- Owns the schema. It needs no CREATEROLE: the role above is there.
do $$
begin
    create role groundstation_migrator login;
exception
    when duplicate_object then null;
end
$$;
grant groundstation_service to groundstation_migrator;

-- The pods log in as this one. Each has at most 14 connections unless it is set otherwise, so these are
-- enough for 14 of them. It inherits nothing: each session takes the service's role, and without
-- that it can read no table.
do $$
begin
    create role groundstation_pod login noinherit connection limit 200;
exception
    when duplicate_object then null;
end
$$;
grant groundstation_service to groundstation_pod;

-- The database is theirs alone. Its owner may make tables in the schema public; nobody else may, not even
-- temporary ones: with those a session can put names of its own before the schema's.
do $$
begin
    execute format('alter database %I owner to groundstation_migrator', current_database());
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to groundstation_pod', current_database());
end
$$;
