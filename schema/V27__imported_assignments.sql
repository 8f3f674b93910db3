-- Which of a satellite's lists came with its import: while it is the one in force, its assignments are the
-- other system's to change.
alter table satellite_imports
    add column assignments_version bigint,
    add constraint imported_version_is_positive check (assignments_version > 0);
