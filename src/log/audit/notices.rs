//! Sign-ins and refusals on their way into the audit.
//!
//! They change nothing, so there is no transaction to carry their entries: they wait here, and a task writes them, once a
//! second at most. Whoever knocks from outside can neither fill the table nor slow a pod: equal notices that wait are one
//! with a count, only so many different ones wait, and only so many entries are written a minute. What finds no place is
//! counted, in a metric and in an entry that says how many were left out. Strangers have a queue of their own, so that they
//! hide nobody who is known.
//!
//! What waits is in memory alone: a pod that is killed loses it. A pod that drains writes it first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::Object;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Author, Entry, append, target};
use crate::contract::audit::AuditAction;
use crate::contract::wire::{Actor, ActorKind};
use crate::platform::bucket::{Bucket, Rate};
use crate::platform::database::{Database, Failed};
use crate::platform::metrics::Metrics;

/// How often what waits is written.
const INTERVAL: Duration = Duration::from_secs(1);

/// Entries about strangers that a pod writes: a permanent flood makes some 14,000 a day.
const STRANGERS: Rate = Rate { burst: 60.0, per_second: 10.0 / 60.0 };

/// Entries about those who are known; a program that is refused again and again makes them too.
const KNOWN: Rate = Rate { burst: 200.0, per_second: 20.0 / 60.0 };

/// Different notices of either that wait.
const QUEUE: usize = 100;

/// For how long a person whom a proxy names has signed in once: it is named with each request.
const PROXIED: Duration = Duration::from_secs(60 * 60);

/// People of proxies that are remembered for so long.
const MAX_PROXIED: usize = 1_000;

/// Characters of a route: a method may be any word.
const MAX_ROUTE: usize = 200;

/// How long a pod that drains takes to write what waits.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// What waits to be written.
pub struct Notices {
    queues: Mutex<Queues>,
    proxied: Mutex<HashMap<(String, IpAddr), Instant>>,
    database: Database,
    metrics: Metrics,
}

struct Queues {
    strangers: Queue,
    known: Queue,
}

impl Notices {
    /// An empty queue.
    pub fn new(database: Database, metrics: Metrics) -> Notices {
        let now = Instant::now();
        let queues = Queues {
            strangers: Queue::new("strangers", STRANGERS, now),
            known: Queue::new("known", KNOWN, now),
        };
        Notices { queues: Mutex::new(queues), proxied: Mutex::default(), database, metrics }
    }

    /// Somebody has signed in at the page by this route; `with` tells how.
    pub fn signed_in(&self, author: Author, route: &str, with: Value) {
        self.add(author, AuditAction::PageSignedIn, route, with);
    }

    /// The same for a person whom a proxy names, and who counts as signed in for an hour.
    pub fn named_by_proxy(&self, author: Author, route: &str, with: Value) {
        let Some(address) = author.address else { return };
        let (who, now) = ((author.actor.id.clone(), address), Instant::now());
        let is_new = {
            let mut proxied = self.proxied.lock().unwrap_or_else(PoisonError::into_inner);
            let is_over = |since: &Instant| now.duration_since(*since) >= PROXIED;
            if proxied.len() >= MAX_PROXIED {
                proxied.retain(|_, since| !is_over(since));
            }
            let is_new = proxied.get(&who).is_none_or(is_over);
            if is_new && (proxied.len() < MAX_PROXIED || proxied.contains_key(&who)) {
                proxied.insert(who, now);
            }
            is_new
        };
        if is_new {
            self.signed_in(author, route, with);
        }
    }

    /// Somebody was refused at this route; `with` tells why, and has nothing of a token.
    pub fn refused(&self, author: Author, action: AuditAction, route: &str, with: Value) {
        self.add(author, action, route, with);
    }

    fn add(&self, author: Author, action: AuditAction, route: &str, after: Value) {
        let is_stranger = author.actor.kind == ActorKind::Unknown;
        let target = target("route", route.chars().take(MAX_ROUTE).collect());
        let entry = Entry { author, action, target, before: None, after: Some(after) };
        let mut queues = self.queues();
        let queue = if is_stranger { &mut queues.strangers } else { &mut queues.known };
        if !queue.add(entry) {
            self.metrics.audit_left_out.inc();
        }
    }

    /// Writes what comes until told to stop, and then what is left.
    pub async fn run(&self, stop: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut is_failing) = (Batch::default(), false);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            batch = if batch.is_empty() { self.take(Instant::now()) } else { batch };
            match self.write(&batch).await {
                Ok(()) => (batch, is_failing) = (Batch::default(), false),
                Err(error) => {
                    self.metrics.audit_failures.inc();
                    if !is_failing {
                        warn!(%error, "cannot write sign-ins and refusals into the audit");
                    }
                    is_failing = true;
                    // Nothing makes these good, and others wait behind them.
                    if is_for_good(&error) {
                        self.give_up(std::mem::take(&mut batch));
                    }
                }
            }
        }
        for batch in [batch, self.take_last(Instant::now())] {
            if !matches!(timeout(LAST_WRITE, self.write(&batch)).await, Ok(Ok(()))) {
                warn!("the last sign-ins and refusals are not in the audit");
            }
        }
    }

    fn take(&self, now: Instant) -> Batch {
        let mut queues = self.queues();
        Batch { strangers: queues.strangers.take(now), known: queues.known.take(now) }
    }

    /// The same for the last time.
    fn take_last(&self, now: Instant) -> Batch {
        let mut queues = self.queues();
        Batch { strangers: queues.strangers.take_last(now), known: queues.known.take_last(now) }
    }

    async fn write(&self, batch: &Batch) -> Result<(), Failed> {
        if batch.is_empty() {
            return Ok(());
        }
        let entries: Vec<Entry> =
            batch.known.iter().chain(&batch.strangers).map(Notice::entry).collect();
        self.database.run(async |client: &mut Object| append(client, &entries).await).await
    }

    fn give_up(&self, batch: Batch) {
        let mut queues = self.queues();
        let Queues { strangers, known } = &mut *queues;
        for (queue, notices) in [(strangers, batch.strangers), (known, batch.known)] {
            let times: u64 = notices.iter().map(|notice| notice.times).sum();
            queue.left_out += times;
            self.metrics.audit_left_out.inc_by(times);
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the database refuses the values themselves.
fn is_for_good(failed: &Failed) -> bool {
    let Failed::Server(error) = failed else { return false };
    error.code().is_some_and(|code| code.code().starts_with("22") || code.code().starts_with("23"))
}

/// What is being written.
#[derive(Default)]
struct Batch {
    strangers: Vec<Notice>,
    known: Vec<Notice>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.strangers.is_empty() && self.known.is_empty()
    }
}

/// An entry, and how often it came.
#[derive(Debug, PartialEq)]
struct Notice {
    entry: Entry,
    times: u64,
}

impl Notice {
    fn entry(&self) -> Entry {
        let mut entry = self.entry.clone();
        if self.times > 1
            && let Some(Value::Object(after)) = &mut entry.after
        {
            after.insert("times".to_owned(), self.times.into());
        }
        entry
    }
}

/// Notices of one kind of people.
struct Queue {
    of: &'static str,
    rate: Rate,
    bucket: Bucket,
    waiting: Vec<Notice>,
    /// How many found no place since an entry said so.
    left_out: u64,
}

impl Queue {
    fn new(of: &'static str, rate: Rate, now: Instant) -> Queue {
        Queue { of, rate, bucket: Bucket::full(rate, now), waiting: Vec::new(), left_out: 0 }
    }

    /// False where there is no place.
    fn add(&mut self, entry: Entry) -> bool {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.entry == entry) {
            waiting.times += 1;
            return true;
        }
        let has_place = self.waiting.len() < QUEUE;
        match has_place {
            true => self.waiting.push(Notice { entry, times: 1 }),
            false => self.left_out += 1,
        }
        has_place
    }

    /// What may be written now, the oldest first.
    fn take(&mut self, now: Instant) -> Vec<Notice> {
        let may_tell = self.left_out > 0 && self.bucket.take(self.rate, now);
        let mut taken: Vec<Notice> = may_tell.then(|| self.tell_left_out()).into_iter().collect();
        let may = self.waiting.iter().take_while(|_| self.bucket.take(self.rate, now)).count();
        taken.extend(self.waiting.drain(..may));
        taken
    }

    /// The same where nothing may wait any longer: what may not be written is told as a number.
    fn take_last(&mut self, now: Instant) -> Vec<Notice> {
        let mut taken = self.take(now);
        self.left_out += self.waiting.drain(..).map(|notice| notice.times).sum::<u64>();
        if self.left_out > 0 {
            taken.push(self.tell_left_out());
        }
        taken
    }

    fn tell_left_out(&mut self) -> Notice {
        let left_out = std::mem::take(&mut self.left_out);
        let entry = Entry {
            author: Actor::system().into(),
            action: AuditAction::LeftOut,
            target: target("audit", self.of.to_owned()),
            before: None,
            after: Some(json!({"leftOut": left_out})),
        };
        Notice { entry, times: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const RATE: Rate = Rate { burst: 3.0, per_second: 1.0 };

    fn refusal(from: u32) -> Entry {
        Entry {
            author: Author::unknown_at(Ipv4Addr::from(from).into()),
            action: AuditAction::ApiRefused,
            target: target("route", "GET /v1/audit".to_owned()),
            before: None,
            after: Some(json!({"status": 401})),
        }
    }

    fn told(notices: &[Notice]) -> Vec<Value> {
        notices.iter().filter_map(|notice| notice.entry().after).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn equal_ones_are_one_with_a_count_and_the_rate_holds() {
        let mut queue = Queue::new("strangers", RATE, Instant::now());
        for from in [1, 2, 1, 1] {
            assert!(queue.add(refusal(from)));
        }
        let taken = queue.take(Instant::now());
        assert_eq!(told(&taken), [json!({"status": 401, "times": 3}), json!({"status": 401})]);
        for from in [1, 2, 1] {
            assert!(queue.add(refusal(from)));
        }
        assert_eq!(told(&queue.take(Instant::now())), [json!({"status": 401, "times": 2})]);
        assert_eq!(queue.take(Instant::now()), []);
        // It waits for its turn, and others like it come to it.
        assert!(queue.add(refusal(2)));
        tokio::time::advance(Duration::from_millis(1_100)).await;
        assert_eq!(told(&queue.take(Instant::now())), [json!({"status": 401, "times": 2})]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_place_is_told_as_a_number() {
        let mut queue = Queue::new("strangers", RATE, Instant::now());
        let placed = (0..10_000).filter(|from| queue.add(refusal(*from))).count();
        assert_eq!(placed, QUEUE);
        let taken = queue.take(Instant::now());
        assert_eq!(taken.len(), 3);
        assert_eq!(taken[0].entry.action, AuditAction::LeftOut);
        assert_eq!(told(&taken)[0], json!({"leftOut": 10_000 - QUEUE}));
        tokio::time::advance(Duration::from_millis(1_100)).await;
        assert_eq!(queue.take(Instant::now()).len(), 1);
        let last = queue.take_last(Instant::now());
        assert_eq!(told(&last), [json!({"leftOut": QUEUE - 3})]);
    }
}
