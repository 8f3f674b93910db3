//! Consumes Groundstation's stream of transitions: each one once, in order, whatever happens to the consumer, the
//! stream or NATS.
//!
//! The caller keeps a [`Place`]: the last transition it has handled. It stores the place in one transaction with what
//! it does about a transition, so that each is handled exactly once. [`Consumer::next`] gives what comes after the
//! place, and the place to store with it:
//!
//! - What was handled before (a message that came again, a stream that was built anew) is skipped.
//! - What is missing on the stream is asked from the log.
//! - What the log has dropped too, and everything before a first start, is replaced by [`Step::Fleet`]: all
//!   satellites as of a position, from which the transitions go on.
//! - Where the log was restored to an earlier time and went another way, it ends with [`Error::AnotherPast`]: only a
//!   person can decide about the transitions that were handled.
//!
//! ```no_run
//! # async fn store(_: &groundstation_consumer::Taken) -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
//! # async fn example(place: Option<groundstation_consumer::Place>) -> Result<(), Box<dyn std::error::Error>> {
//! let client = groundstation_consumer::connect("nats://127.0.0.1:4222").await?;
//! let mut consumer = groundstation_consumer::Consumer::open(client, "automation", place).await?;
//! loop {
//!     let taken = consumer.next().await?;
//!     store(&taken).await?; // what follows from taken.step, and taken.place, in one transaction
//! }
//! # }
//! ```

mod connect;
mod consumer;
mod error;
mod fleet;
mod log;
mod message;
mod place;
mod transition;

pub use connect::connect;
pub use consumer::{Consumer, STREAM, Step, Taken};
pub use error::Error;
pub use fleet::{Fleet, Satellite};
pub use place::Place;
pub use transition::{Event, State, Status, Transition};
