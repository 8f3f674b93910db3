//! The commands.

mod asking_commands;
mod assignment_set_commands;
mod audit_list;
mod commands;
mod contexts;
mod ending_commands;
mod enrolling_agent;
mod exit_statuses;
mod fleet_commands;
mod printing;
mod token_commands;
