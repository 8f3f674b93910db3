//! The commands.

mod asking_commands;
mod commands;
mod fleet_commands;
