//! The demonstration.

mod dev_command;
