use thiserror::Error;

/// Why there is no next step. After [`Error::Nats`] and [`Error::Log`] the caller may ask again, after a pause; it loses
/// nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// NATS does not answer, or refuses.
    #[error("NATS: {0}")]
    Nats(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Pods do not answer what is asked from the log, or refuse it.
    #[error("the log does not answer {subject}: {why}")]
    Log {
        /// The question's subject.
        subject: &'static str,
        /// What was answered.
        why: String,
    },
    /// Another change stands at the place's position: the log was restored to an earlier time and went another way.
    #[error("position {position} is another change now: the log was restored to an earlier time")]
    AnotherPast {
        /// The position.
        position: i64,
    },
    /// A message or an answer is not as this version knows it.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// The message or the answer.
        what: String,
        /// The obstacle.
        why: String,
    },
}

impl Error {
    pub(crate) fn nats(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Nats(error.into())
    }

    pub(crate) fn unreadable(what: impl Into<String>, why: impl ToString) -> Error {
        Error::Unreadable { what: what.into(), why: why.to_string() }
    }
}
