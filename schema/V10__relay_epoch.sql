-- How often the stream was rebuilt from the log (`groundstation audit --repair`), counted from 1.
-- Messages of an earlier epoch are none of the relay's.
alter table relay
    add column epoch bigint not null default 1,
    add constraint epoch_is_positive check (epoch > 0);
