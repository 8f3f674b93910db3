//! The commands.

mod asking_commands;
mod commands;
