//! A receiver of Groundstation's webhooks. It is the same as receive.py, whose first lines say what it does and why.
//!
//! Needs axum, base64, hmac, sha2, serde_json and tokio. Settings: WEBHOOK_SECRET (whsec_…; while it is rotated several,
//! with spaces), PORT.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

const TOLERANCE: u64 = 5 * 60;
const REMEMBERED: usize = 10_000;

struct Receiver {
    keys: Vec<Vec<u8>>,
    /// In a service of yours this is a table, written in the transaction of `handle`.
    handled: Mutex<HashSet<String>>,
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether one of these keys signed this, lately.
fn is_genuine(keys: &[Vec<u8>], headers: &HeaderMap, body: &[u8], now: u64) -> bool {
    let (id, at) = (text(headers, "webhook-id"), text(headers, "webhook-timestamp"));
    if id.is_empty() || !at.parse().is_ok_and(|at: u64| now.abs_diff(at) <= TOLERANCE) {
        return false;
    }
    let theirs = text(headers, "webhook-signature").split(' ');
    let theirs = theirs.filter_map(|word| STANDARD.decode(word.strip_prefix("v1,")?).ok());
    let theirs: Vec<Vec<u8>> = theirs.collect();
    keys.iter().any(|key| {
        let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
        hmac.update(format!("{id}.{at}.").as_bytes());
        hmac.update(body);
        // It compares in constant time.
        theirs.iter().any(|one| hmac.clone().verify_slice(one).is_ok())
    })
}

/// The work itself. Webhooks of one satellite come one after the other, in order.
fn handle(headers: &HeaderMap, body: &Value) {
    let position: i64 = text(headers, "ce-sequence").parse().unwrap_or_default();
    println!(
        "{}",
        json!({"type": text(headers, "ce-type"), "position": position, "satelliteId": body["satelliteId"]})
    );
}

/// Only what was done is answered 204.
async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if !is_genuine(&receiver.keys, &headers, &body, now) {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(event) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    let mut handled = receiver.handled.lock().unwrap_or_else(PoisonError::into_inner);
    if handled.len() >= REMEMBERED {
        handled.clear();
    }
    if handled.insert(text(&headers, "webhook-id").to_owned()) {
        handle(&headers, &event);
    }
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secrets = std::env::var("WEBHOOK_SECRET")?;
    let keys =
        secrets.split_whitespace().map(|word| STANDARD.decode(word.trim_start_matches("whsec_")));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let receiver = Arc::new(Receiver { keys, handled: Mutex::default() });
    let routes = Router::new().route("/", post(receive)).with_state(receiver);
    let port: u16 = std::env::var("PORT").map_or(Ok(8000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, routes).await?;
    Ok(())
}
