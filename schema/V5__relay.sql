-- The relay's checkpoint and lease: one row. The lease only saves work. The stream's expected sequence is what
-- keeps two relays from doubling anything.
--
-- `epoch` says how often the stream was rebuilt from the log (`groundstation audit --repair`), counted from 1.
-- Messages of an earlier epoch do not count.
create table relay (
    only_row         boolean     not null default true,
    holder           text,
    lease_expires_at timestamptz not null default '-infinity',
    position         bigint      not null default 0,
    stream_sequence  bigint      not null default 0,
    epoch            bigint      not null default 1,
    constraint there_is_one_relay primary key (only_row),
    constraint the_one_row_is_true check (only_row),
    constraint position_is_not_negative check (position >= 0),
    constraint stream_sequence_is_not_negative check (stream_sequence >= 0),
    constraint position_and_sequence_were_given check (
        position < 1000000000000000 and stream_sequence < 1000000000000000),
    constraint epoch_is_positive check (epoch > 0)
);

insert into relay default values;

grant select, update on relay to groundstation_service;
