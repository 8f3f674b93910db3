//! The rules, as SQL and Rust both have them.

mod flapping;
mod merging;
mod sql_agrees_with_rust;
