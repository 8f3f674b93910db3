//! A pod as a whole.

mod least_privilege;
mod secrets_stay_inside;
mod starting;
