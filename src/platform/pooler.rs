//! Whether each connection has a session of Postgres to itself, from its first statement to its end.
//!
//! A pooler on the way may run each transaction of a connection in any session that is free. What a connection sets
//! then holds for statements of others, and its own run without it. Nothing says so: neither the protocol nor the
//! pooler. So it is tried, with a lock that belongs to a session. It must be held, by another session than that of a
//! second connection, until the connection that took it has ended, and then it must be gone.
//!
//! A pooler that mixes sessions fails this whatever else is on its mind, with one server connection or many: the
//! session that took the lock is neither closed nor cleaned when a connection ends. One that cleans after every
//! transaction has let go of the lock too early.
//!
//! This proves it for one moment, at a start. While a pod runs, [`Note`] finds that it is so no longer: what a
//! connection has written down for its session must be there in its next statement, and in none of another
//! connection. It is never wrong when it finds something, and finds it at once where nobody else uses the pooler.
//!
//! Knows nothing of pools. Statements are sent as simple queries, because a prepared one may be prepared in one session
//! and used in another.

use std::ops::Deref;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Error, SimpleQueryMessage};
use uuid::Uuid;

/// How long the session of a connection that has ended may live on. Milliseconds are normal.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses between two looks whether it has ended, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(100)];

/// Whose a session's lock is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// The session that is asked.
    Itself,
    Another,
}

/// Whether connections have sessions to themselves. Ends the first of these two connections.
pub async fn sessions_are_own(
    first: impl Deref<Target = Client>,
    second: &Client,
) -> Result<bool, Error> {
    let lock = Lock::new();
    first.simple_query(&lock.take()).await?;
    if lock.holder(second).await? != Holder::Another {
        return Ok(false);
    }
    drop(first);
    let by = Instant::now() + END_TIMEOUT;
    let [mut pause, longest] = PAUSES;
    while lock.holder(second).await? != Holder::Nobody {
        if Instant::now() > by {
            return Ok(false);
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
    Ok(true)
}

/// Something a connection writes down for its session. Its text is new each time.
pub struct Note(String);

impl Note {
    /// Writes a new note into a connection's session.
    pub async fn leave(session: &Client) -> Result<Note, Error> {
        let note = Note(Uuid::new_v4().to_string());
        session.simple_query(&format!("set groundstation.note = '{}'", note.0)).await?;
        Ok(note)
    }

    /// Whether it is there where this connection's next statement runs.
    pub async fn is_in(&self, session: &Client) -> Result<bool, Error> {
        let asked = session.simple_query("select current_setting('groundstation.note', true)");
        for message in asked.await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            return Ok(row.try_get(0)? == Some(&self.0));
        }
        Ok(false)
    }
}

/// An advisory lock that no other program has.
struct Lock {
    key: i64,
}

impl Lock {
    fn new() -> Lock {
        let (random, _) = Uuid::new_v4().as_u64_pair();
        Lock { key: (random >> 1) as i64 }
    }

    fn take(&self) -> String {
        format!("select pg_advisory_lock({})", self.key)
    }

    async fn holder(&self, session: &Client) -> Result<Holder, Error> {
        let question = format!(
            "select pid = pg_backend_pid()
               from pg_locks
              where locktype = 'advisory' and objsubid = 1
                and (classid::bigint << 32 | objid::bigint) = {}",
            self.key
        );
        for message in session.simple_query(&question).await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let is_itself = row.try_get(0)? == Some("t");
            return Ok(if is_itself { Holder::Itself } else { Holder::Another });
        }
        Ok(Holder::Nobody)
    }
}
