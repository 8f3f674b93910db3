//! That a server cannot be reached, told apart from what it answers.

use thiserror::Error;

/// There was no connection to a server, in one line that names it.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Unreachable(pub String);
