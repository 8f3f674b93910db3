//! Packages on their way from the backend to satellites.
//!
//! A package is fetched in parts, once for all sessions that ask for it meanwhile, directly into the text of
//! the message. The sessions share that text; it is freed when the last of them has sent it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many packages of the largest size a pod holds at once, or more smaller ones. Requests for further ones
/// wait.
const LARGEST_AT_ONCE: usize = 4;

/// The unit in which memory is counted: a semaphore counts to half a billion on the smallest machines.
const UNIT: usize = 1024;

/// The backend's answer about a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blob {
    /// The backend has no such package.
    Missing,
    /// The message that contains it.
    Message(Bytes),
}

/// A package being fetched; none if the backend does not answer.
pub type Fetching = Pin<Box<dyn Future<Output = Option<Blob>> + Send>>;

/// A part of a package in base64, as the backend answers it.
#[derive(Debug, Deserialize)]
pub struct Part {
    /// None if there is no such package. An answer without this field is not valid.
    #[serde(deserialize_with = "Option::deserialize")]
    pub data: Option<String>,
    /// The length of the whole package, if this is only a part.
    pub total: Option<usize>,
}

/// The packages of one pod that are on their way.
pub struct Blobs {
    largest: usize,
    room: Arc<Semaphore>,
    under_way: Mutex<HashMap<String, WeakShared<Fetching>>>,
}

impl Blobs {
    /// Packages of at most `largest` bytes each.
    pub fn new(largest: usize) -> Blobs {
        let room = Arc::new(Semaphore::new(units(largest) * LARGEST_AT_ONCE));
        Blobs { largest, room, under_way: Mutex::default() }
    }

    /// The fetch of this package that is under way, or else a new one by `fetch`.
    pub fn share(&self, integrity: &str, fetch: impl FnOnce() -> Fetching) -> Shared<Fetching> {
        // Valid after a panic elsewhere: every change to it is one call.
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = under_way.get(integrity).and_then(WeakShared::upgrade) {
            return shared;
        }
        under_way.retain(|_, fetching| fetching.upgrade().is_some());
        let shared = fetch().shared();
        // None only for a fetch that has ended.
        if let Some(weak) = shared.downgrade() {
            under_way.insert(integrity.to_owned(), weak);
        }
        shared
    }

    /// Begins a message for a package of `total` characters, once there is room. None if the package is too
    /// large.
    pub async fn begin(&self, integrity: &str, total: usize) -> Option<Message> {
        if total > self.largest {
            return None;
        }
        // The semaphore is never closed. Only a setting could make the largest exceed a `u32`.
        let units = u32::try_from(units(total)).ok()?;
        let room = self.room.clone().acquire_many_owned(units).await.ok()?;
        let integrity = serde_json::Value::from(integrity);
        let mut text = String::with_capacity(total + UNIT);
        text.push_str(r#"{"type":"script_package_blob","integrity":"#);
        text.push_str(&integrity.to_string());
        text.push_str(r#","data":""#);
        Some(Message { text, total, length: 0, _room: room })
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

/// A message being built.
pub struct Message {
    text: String,
    total: usize,
    length: usize,
    _room: OwnedSemaphorePermit,
}

/// The parts from the backend do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mismatch;

impl Message {
    /// Takes the next part.
    pub fn add(&mut self, data: &str) -> Result<(), Mismatch> {
        self.length += data.len();
        if self.length > self.total || (data.is_empty() && self.total > 0) {
            return Err(Mismatch);
        }
        // JSON text: base64 stays as it is, and anything else is escaped.
        let quoted = serde_json::Value::from(data).to_string();
        let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        self.text.push_str(inside.ok_or(Mismatch)?);
        Ok(())
    }

    /// The offset of the next part; none if the package is complete.
    pub fn offset(&self) -> Option<usize> {
        (self.length < self.total).then_some(self.length)
    }

    /// The finished message. Its room is freed when the last copy is dropped.
    pub fn end(mut self) -> Bytes {
        self.text.push_str("\"}");
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::protocol::ToSatellite;

    #[tokio::test]
    async fn parts_become_the_message_that_one_would_be() {
        let blobs = Blobs::new(1024);
        let mut message = blobs.begin("sha512-\"x\"", 12).await.expect("room");
        assert_eq!(message.offset(), Some(0));
        for part in ["aGVs", "bG8h", "\\\u{e9}\""] {
            message.add(part).expect("fits");
        }
        assert_eq!(message.offset(), None);
        let expected = ToSatellite::ScriptPackageBlob {
            integrity: "sha512-\"x\"".to_owned(),
            data: Some("aGVsbG8h\\\u{e9}\"".to_owned()),
        };
        assert_eq!(message.end(), expected.to_text().expect("JSON").into_bytes());
    }

    #[tokio::test]
    async fn what_does_not_go_together_is_refused() {
        let blobs = Blobs::new(1024);
        assert!(blobs.begin("i", 1025).await.is_none());
        let mut message = blobs.begin("i", 4).await.expect("room");
        assert_eq!(message.add(""), Err(Mismatch), "it would be asked for for ever");
        assert_eq!(message.add("abcde"), Err(Mismatch));
        let mut empty = blobs.begin("i", 0).await.expect("room");
        assert_eq!((empty.add(""), empty.offset()), (Ok(()), None));
    }

    #[tokio::test]
    async fn room_is_taken_until_the_last_copy_is_gone() {
        let blobs = Blobs::new(UNIT);
        let mut held = Vec::new();
        for _ in 0..LARGEST_AT_ONCE {
            held.push(blobs.begin("i", UNIT).await.expect("room").end());
        }
        assert!(blobs.begin("i", 1).now_or_never().is_none(), "it waits");
        let copy = held[0].clone();
        held.clear();
        assert_eq!(blobs.room.available_permits(), LARGEST_AT_ONCE - 1);
        drop(copy);
        assert_eq!(blobs.room.available_permits(), LARGEST_AT_ONCE);
    }

    #[tokio::test]
    async fn whoever_asks_meanwhile_gets_the_same_one_and_whoever_comes_later_asks_anew() {
        let blobs = Blobs::new(UNIT);
        let never = || -> Fetching { Box::pin(std::future::pending()) };
        let missing = || -> Fetching { Box::pin(std::future::ready(Some(Blob::Missing))) };
        let first = blobs.share("i", never);
        assert!(blobs.share("i", missing).now_or_never().is_none(), "the first goes on");
        assert_eq!(blobs.share("j", missing).await, Some(Blob::Missing));
        drop(first);
        assert_eq!(blobs.share("i", missing).await, Some(Blob::Missing));
        drop(blobs.share("k", missing));
        assert_eq!(blobs.under_way.lock().expect("unharmed").len(), 1);
    }
}
