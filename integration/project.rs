//! What belongs to the project beside the program: documents, packages, examples.

mod deploy;
mod consumer_crate;
mod examples;
mod packaging;
mod rooms;
mod settings_are_documented;
