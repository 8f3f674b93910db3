//! Webhooks: `groundstation forward` delivers what is on the stream to a receiver over HTTP.
//!
//! It owns a durable consumer, the order in which its messages are sent, the requests, and what is left of those that were
//! given up. It promises three things. Each message is delivered at least once, or kept as a dead letter: it is
//! acknowledged after that and not before. Of one satellite they are sent in the order of the log, one at a time,
//! whatever is killed. What is in hand is bounded, and the rest waits on the stream.
//!
//! It runs beside the pods: it reads only the stream, and it knows no database.

pub(crate) mod consumer;
pub(crate) mod dead_letters;
mod event;
pub(crate) mod forwarder;
mod lease;
pub(crate) mod name;
pub(crate) mod networks;
pub(crate) mod numbers;
pub(crate) mod ops;
mod queues;
pub(crate) mod receiver;
mod recent;
pub(crate) mod retry;
pub(crate) mod run;
mod session;
pub(crate) mod signature;
pub(crate) mod signing;
mod streams;
