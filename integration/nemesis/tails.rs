//! Reads the log, the stream and a live stream as they grow, past all proxies; the live stream as any
//! reader has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::LastRawMessageErrorKind};
use tokio::time::{sleep, timeout};

use super::checker::Run;
use super::facts::Row;
use super::verdicts::Promise;
use super::windows::Hampered;
use crate::harness::reader::{Opened, Reader};
use crate::harness::relaying::STREAM;

/// How long a look at a server may take.
const LOOK: Duration = Duration::from_secs(4);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A look that takes longer while the server is there means that this machine is busy.
const SLOW: Duration = Duration::from_secs(1);

/// The header that marks a foreign message of the nemesis itself, which carries a position like the service's.
pub const FOREIGN: &str = "Nemesis";

const LOG: &str = "
    select position, entity_id, revision, event, reason from entity_transitions
     where position > $1 order by position limit 2000";

/// Reads the log until the run ends.
pub async fn log(run: Arc<Run>) {
    let mut before = Instant::now();
    let mut client = None;
    loop {
        sleep(PAUSE).await;
        if client.is_none() {
            client = run.world.sql().await;
        }
        let Some(sql) = &client else { continue };
        let (began, head) = (Instant::now(), run.facts().head);
        let rows = timeout(LOOK, sql.query(LOG, &[&head])).await;
        let Some(rows) = rows.ok().and_then(Result::ok) else {
            client = None;
            continue;
        };
        let seen = Instant::now();
        if seen - began > SLOW {
            run.windows.note(Hampered::Machine, began, seen + LOOK);
        }
        for row in rows {
            let row = Row {
                position: row.get("position"),
                satellite: row.get("entity_id"),
                revision: row.get("revision"),
                event: row.get("event"),
                reason: row.get("reason"),
            };
            run.row(&row, before, seen);
        }
        run.polled(began);
        before = began;
    }
}

/// Reads the stream until the run ends.
pub async fn stream(run: Arc<Run>) {
    let mut client = None;
    loop {
        sleep(PAUSE).await;
        if client.is_none() {
            client = run.world.nats().await;
        }
        let Some(nats) = &client else { continue };
        let jetstream = jetstream::new(nats.clone());
        if timeout(LOOK, read_on(&run, &jetstream)).await.is_err() {
            client = None;
        }
    }
}

async fn read_on(run: &Run, jetstream: &jetstream::Context) {
    let Ok(stream) = jetstream.get_stream(STREAM).await else { return };
    let state = stream.cached_info().state.clone();
    let mut known = run.facts().sequence;
    for sequence in state.first_sequence.max(known + 1)..=state.last_sequence {
        let position = match stream.get_raw_message(sequence).await {
            Ok(message) if message.headers.get(FOREIGN).is_some() => None,
            Ok(message) => {
                let position = message.headers.get("Groundstation-Position");
                position.map(|p| p.as_str().parse::<i64>().expect("a position"))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
            Err(_) => return,
        };
        let mut facts = run.facts();
        // A fault took messages back meanwhile, and says from where to read.
        if facts.is_paused || facts.sequence != known {
            return;
        }
        known = sequence;
        facts.sequence = sequence;
        let Some(position) = position else { continue };
        let (missing, fault) = facts.message(sequence, position);
        drop(facts);
        run.verdicts.judge(Promise::StreamSkipsNothing, fault);
        if let Some(missing) = missing {
            run.verdicts.kept(missing.promise());
        }
    }
}

/// Follows the log as server-sent events until the run ends, on any pod.
pub async fn live_stream(run: Arc<Run>) {
    let mut rng = fastrand::Rng::with_seed(run.seed);
    let mut last = 0;
    loop {
        sleep(PAUSE).await;
        let post = &run.world.posts[rng.usize(..run.world.posts.len())];
        let (id, token) = (last.to_string(), &run.world.fleet.read_token);
        let open = Reader::try_open(post.address(), token, "", Some(&id));
        let Ok(Ok(Opened::Stream(mut reader))) = timeout(LOOK, open).await else { continue };
        // A stream that says nothing may be stuck with its pod.
        while let Ok(Some(event)) = timeout(2 * LOOK, reader.next()).await {
            let position = event["position"].as_i64().expect("a position");
            let fault =
                (position != last + 1).then(|| format!("after position {last} came {position}"));
            run.verdicts.judge(Promise::LiveStreamSkipsNothing, fault);
            last = position;
            run.follows(last);
        }
    }
}
