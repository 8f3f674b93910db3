//! What a script can tell from how a command ended.
//!
//! 0 done, 1 failed, 2 wrong usage or a wrong setting, 3 not there, 4 refused, 5 conflict, 6 unreachable.

use std::fmt;
use std::process::ExitCode;

use crate::clients::client;
use crate::forward::run::Gone;
use crate::platform::database;
use crate::platform::unreachable::Unreachable;

const FAILED: u8 = 1;
/// Also that of clap.
const WRONG_USAGE: u8 = 2;
const NOT_THERE: u8 = 3;
const REFUSED: u8 = 4;
const CONFLICT: u8 = 5;
const UNREACHABLE: u8 = 6;

/// The command itself is wrong, or a setting: nothing was tried.
#[derive(Debug)]
struct WrongUsage(anyhow::Error);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// What was named is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotThere(pub String);

/// Marks an error as one of the arguments or the settings; its words stay.
pub(super) fn wrong_usage(error: anyhow::Error) -> anyhow::Error {
    WrongUsage(error).into()
}

/// The exit status for an error.
pub(super) fn status(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(error.chain().find_map(of_cause).unwrap_or(FAILED))
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<WrongUsage>() {
        return Some(WRONG_USAGE);
    }
    if let Some(refused) = cause.downcast_ref::<client::Refused>() {
        return Some(of_answer(refused.status));
    }
    if let Some(unnamed) = cause.downcast_ref::<super::named::Unnamed>() {
        return Some(match unnamed {
            super::named::Unnamed::NotThere(_) => NOT_THERE,
            super::named::Unnamed::Ambiguous { .. } => WRONG_USAGE,
        });
    }
    if cause.is::<super::named::NoToken>() || cause.is::<NotThere>() || cause.is::<Gone>() {
        return Some(NOT_THERE);
    }
    let no_connection = |failed: &database::Failed| {
        matches!(failed, database::Failed::NoConnection(_) | database::Failed::NoAnswer(_))
    };
    let is_unreachable = cause.is::<client::Unreachable>()
        || cause.is::<Unreachable>()
        || cause.downcast_ref().is_some_and(no_connection);
    is_unreachable.then_some(UNREACHABLE)
}

/// For a pod's answer with this HTTP status.
fn of_answer(status: u16) -> u8 {
    match status {
        // What was written on the command line went into the request as it was.
        400 | 413 | 415 | 422 => WRONG_USAGE,
        401 | 403 => REFUSED,
        404 | 410 => NOT_THERE,
        409 | 412 => CONFLICT,
        _ => FAILED,
    }
}
