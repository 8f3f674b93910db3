//! The page: its files, its sessions, and what a person does with it.

mod files;
mod page;
mod session;
mod single_sign_on;
