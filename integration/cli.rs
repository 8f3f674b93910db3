//! The commands.

mod asking_commands;
mod commands;
mod exit_statuses;
mod fleet_commands;
mod token_commands;
