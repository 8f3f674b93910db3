//! Which satellites there are, what they are to do, and who may be one.

pub mod assignments;
pub mod credentials;
pub mod desired;
pub mod import;
pub mod precondition;
pub mod satellites;
