//! What belongs to the project beside the program: documents, packages, examples.

mod consumer_crate;
mod deploy;
mod examples;
mod packaging;
mod rooms;
mod security_document;
mod settings_are_documented;
