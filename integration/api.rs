//! What is asked over HTTP and NATS.

mod administrators_tokens;
mod conditions;
mod cursors;
mod http_api;
mod http_manners;
mod live_stream;
mod micro;
mod openapi;
