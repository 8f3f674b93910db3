-- Pods hold their sessions to the thresholds they are told of, and are told of a changed one like of any
-- other change, also where nothing else of the satellite changes.
drop trigger pods_hear_of_a_change on satellites;

create trigger pods_hear_of_a_change
    after update of name, region, token_version, offline_threshold_ms on satellites
    for each row execute function note_change_of_satellite();
