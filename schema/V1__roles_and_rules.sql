-- The base of all tables: the pods' role, the rule that history is not changed, and the range of moments.

-- The role the pods run as. It owns nothing; every right it has is granted table by table.
-- Roles belong to the whole server, so another database's migration may be creating it right now.
-- A login without CREATEROLE may not even try, so what is there is not made.
do $$
begin
    if not exists (select from pg_roles where rolname = 'groundstation_service') then
        create role groundstation_service nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
end
$$;

-- The login that migrates may also run as the service, if it can give itself that right: one DATABASE_URL is
-- enough to get started.
do $$
begin
    if not pg_has_role(current_user, 'groundstation_service', 'member') then
        grant groundstation_service to current_user;
    end if;
exception
    when insufficient_privilege then null;
end
$$;

-- A pod checks at start that the schema is the one it knows.
grant select on refinery_schema_history to groundstation_service;

-- Functions look names up in their own schema first and among temporary objects last. If temporary objects were
-- not in the path, they would come first, and with them everything that a caller made in its session. So each
-- file that makes functions sets this path, for itself alone, and its functions keep it (`from current`).
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The trigger of every append-only table. Pods have no right to change one; this also stops the owner's
-- accidents.
create function reject_change() returns trigger
    language plpgsql set search_path from current as $$
begin
    raise exception '% is append-only: % is refused', tg_table_name, tg_op
        using errcode = 'restrict_violation';
end
$$;

-- A moment that every program can read. Infinity is not readable. (If a constraint calls a function, the
-- function's body binds the names it calls when it is created: a restore runs it with an empty path.)
create function is_readable(moment timestamptz) returns boolean
    language sql immutable parallel safe
    return moment >= '0001-01-01 00:00:00+00' and moment < '9999-01-01 00:00:00+00';
