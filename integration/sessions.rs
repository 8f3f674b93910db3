//! Sessions: which one counts, and how pods hand them over.

mod connect_budget;
mod drain;
mod races;
mod rolling_restart;
mod storm;
mod takeover;
mod token_life;
mod token_overlap;
