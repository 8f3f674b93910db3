-- Counts a satellite's tokens: a session that was let in with an earlier one is over. Storing the same
-- token in another form is no new token.
alter table satellites
    add column token_version bigint not null default 1,
    add constraint token_version_is_positive check (token_version > 0);

-- Whoever changes one of these, the pods that hold the satellite hear of it.
create function note_change_of_satellite() returns trigger language plpgsql as $$
begin
    perform note_satellite_change(old.id);
    return null;
end
$$;

create trigger pods_hear_of_a_change after update of name, region, token_version on satellites
    for each row execute function note_change_of_satellite();

create trigger pods_hear_of_a_removal after delete on satellites
    for each row execute function note_change_of_satellite();
