//! What is asked over HTTP and NATS.

mod administrators_tokens;
mod audit;
mod audit_of_refusals;
mod audit_stream;
mod bounded_tokens;
mod conditions;
mod cursors;
mod discovery;
mod fleet_filters;
mod fleet_timeline;
mod http_api;
mod http_manners;
mod late_bodies;
mod live_stream;
mod maintenance;
mod micro;
mod named_tokens;
mod newest_first;
mod openapi;
mod openapi_stays;
mod trusted_headers;
mod what_if;
