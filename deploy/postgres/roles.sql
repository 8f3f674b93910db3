-- The roles of the database and their rights, least first. Run it once in the new database, before the
-- first `groundstation migrate`; it can be run again. Who runs it is a superuser, or, where there is none
-- (managed Postgres), a role with CREATEROLE and CREATEDB that owns the database.
--
-- Passwords are not here:
--   alter role groundstation_migrator password '…';   -- DATABASE_URL of the migration Job
--   alter role groundstation_pod      password '…';   -- DATABASE_URL of the pods

-- What a pod may do: the migrations grant every right, table by table. No login uses this role itself.
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

-- The pods log in as this role. A pod has at most 14 connections unless it is set otherwise, so 200 are
-- enough for 14 pods. The role inherits nothing: each session takes the service's role, and without
-- that it can read no table.
do $$
begin
    create role groundstation_pod login noinherit connection limit 200;
exception
    when duplicate_object then null;
end
$$;
grant groundstation_service to groundstation_pod;

-- The database belongs to these roles alone. Its owner may make tables in the schema public. Other roles may
-- not, not even temporary ones: with those a session can put its own names before the schema's.
do $$
begin
    -- Without being a superuser one gives a database only to a role that one can become.
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant groundstation_migrator to %I', current_user);
    end if;
    execute format('alter database %I owner to groundstation_migrator', current_database());
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to groundstation_pod', current_database());
end
$$;
