//! A receiver of webhooks, over real HTTP: it keeps what came, and answers as the test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::wait::eventually;

/// A message that came.
#[derive(Debug, Clone)]
pub struct Hook {
    pub headers: HashMap<String, String>,
    pub body: Bytes,
    pub at: Instant,
    /// What it was answered.
    pub answer: Answer,
}

/// What a receiver says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Status(u16),
    With(u16, &'static str, String),
    After(Duration, u16),
    /// Nothing, ever.
    Hangs,
}

/// How it answers: by the message, and by how often its id came before.
type Says = Box<dyn FnMut(&Hook, usize) -> Answer + Send>;

struct Kept {
    hooks: Vec<Hook>,
    says: Says,
}

pub struct Hooks {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    serving: JoinHandle<()>,
}

impl Hook {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn satellite(&self) -> &str {
        self.header("ce-subject")
    }

    pub fn position(&self) -> i64 {
        self.header("groundstation-position").parse().expect("a position")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Whether it was taken.
    pub fn is_taken(&self) -> bool {
        matches!(self.answer, Answer::Status(200..=299) | Answer::After(_, 200..=299))
    }
}

impl Hooks {
    /// Takes everything.
    pub async fn new() -> Hooks {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let says: Says = Box::new(|_, _| Answer::Status(204));
        let kept = Arc::new(Mutex::new(Kept { hooks: Vec::new(), says }));
        let routes = Router::new().fallback(receive).with_state(kept.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("it serves");
        });
        Hooks { address, kept, serving }
    }

    /// Answers so from now on.
    pub fn say(&self, says: impl FnMut(&Hook, usize) -> Answer + Send + 'static) {
        self.lock().says = Box::new(says);
    }

    /// Answers everything with this status from now on.
    pub fn say_always(&self, status: u16) {
        self.say(move |_, _| Answer::Status(status));
    }

    /// All that came.
    pub fn all(&self) -> Vec<Hook> {
        self.lock().hooks.clone()
    }

    /// The positions of what was taken, as it came.
    pub fn taken(&self) -> Vec<i64> {
        self.all().iter().filter(|hook| hook.is_taken()).map(Hook::position).collect()
    }

    /// Waits until so many different messages were taken.
    pub async fn expect_taken(&self, count: usize) -> Vec<Hook> {
        eventually(&format!("{count} webhooks"), async || {
            let all = self.all();
            let mut taken: Vec<i64> = self.taken();
            taken.sort_unstable();
            taken.dedup();
            if taken.len() >= count { Ok(all) } else { Err(format!("{taken:?} of {}", all.len())) }
        })
        .await
    }

    /// Waits until so many messages came, taken or not.
    pub async fn expect(&self, count: usize) -> Vec<Hook> {
        eventually(&format!("{count} attempts"), async || {
            let all = self.all();
            if all.len() >= count { Ok(all) } else { Err(all.len().to_string()) }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("not poisoned")
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(
    State(kept): State<Arc<Mutex<Kept>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().expect("text").to_owned()));
    let headers = headers.collect();
    let mut hook = Hook { headers, body, at: Instant::now(), answer: Answer::Hangs };
    let answer = {
        let mut kept = kept.lock().expect("not poisoned");
        let before = kept.hooks.iter().filter(|other| other.id() == hook.id()).count();
        hook.answer = (kept.says)(&hook, before);
        kept.hooks.push(hook.clone());
        hook.answer
    };
    let status = |status| StatusCode::from_u16(status).expect("a status");
    match answer {
        Answer::Status(code) => status(code).into_response(),
        Answer::With(code, name, value) => {
            (status(code), [(HeaderName::from_static(name), value)]).into_response()
        }
        Answer::After(pause, code) => {
            tokio::time::sleep(pause).await;
            status(code).into_response()
        }
        Answer::Hangs => std::future::pending().await,
    }
}
