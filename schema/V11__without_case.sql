-- Names are searched for whatever the case of any letter, whatever the database's locale: that of many is C, which knows
-- the letters A to Z only.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A text as it is compared where case does not count. Upper case, because the lower case of a letter may depend on
-- those around it. The collation is the best that this server has: those of PostgreSQL itself (from 17 on), of ICU, of
-- the operating system. The body is a text, so that a dump can be restored where there is no such collation.
do $$
declare
    best name;
begin
    select c.collname into best
      from pg_catalog.pg_collation c
      join unnest(array['pg_unicode_fast', 'pg_c_utf8', 'und-x-icu', 'C.utf8']) with ordinality known (name, place)
        on known.name = c.collname
     where c.collnamespace = 'pg_catalog'::regnamespace
       and c.collencoding in (-1, pg_catalog.pg_char_to_encoding(pg_catalog.getdatabaseencoding()))
     order by known.place limit 1;
    execute format('create function without_case(text) returns text language sql immutable parallel safe as %L',
                   'select upper($1' || coalesce(format(' collate pg_catalog.%I', best), '') || ')');
end
$$;
