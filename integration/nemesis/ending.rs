//! The end of a run: when all faults are over, checks that everything is as if nothing had been wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cast::Member;
use super::checker::Run;
use super::fault::{PODS, pod_name};
use super::tails::FOREIGN;
use super::verdicts::Promise;
use super::world::{HOLD, TIMING};
use crate::harness::log_and_stream::{StreamMessage, differences_but, read_log, read_stream};
use crate::harness::program;

/// How long pods and satellites may take to be back, on a busy machine.
const BACK: Duration = Duration::from_secs(60);

/// How long the stream may take to be the log again once nothing happens any more.
const FEED: Duration = Duration::from_secs(45);

/// How many lines of a difference are shown.
const LONGEST: usize = 300;

/// Once the log has been quiet for this long, a fault has no more effect.
fn quiet() -> Duration {
    TIMING.threshold + HOLD
}

/// Waits until all satellites are connected. Reports those that are not, if that counts.
pub async fn everybody_is_there(run: &Run, patience: Duration, counts: bool) {
    let until = Instant::now() + patience;
    let is_away = |member: &&Arc<Member>| !member.state().life.is_connected();
    loop {
        let away: Vec<&str> =
            run.cast.iter().filter(is_away).map(|member| member.name.as_str()).collect();
        // While each acts according to its kind, some are always away.
        if away.is_empty() || (!counts && away.len() < run.cast.len() / 3) {
            return run.verdicts.kept(Promise::EverybodyComesBack);
        }
        if Instant::now() > until {
            let how = format!("not connected after {patience:?}: {away:?}");
            return run.verdicts.broken(Promise::EverybodyComesBack, &how);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Checks what can only be checked when the world is quiet. Ends the other tasks on the way.
pub async fn check(run: &Arc<Run>, tasks: &mut JoinSet<()>) {
    if let Err(why) = run.world.expect_ready(BACK).await {
        run.verdicts.broken(Promise::EverybodyComesBack, &why);
    }
    everybody_is_there(run, BACK, true).await;
    wait_until_quiet(run).await;
    wait_for_the_feed(run).await;
    let fault = statuses(run).await;
    run.verdicts.judge(Promise::NobodyHeardIsShownOffline, fault);
    let fault = assignments(run);
    run.verdicts.judge(Promise::AssignmentsAreTold, fault);
    let (head, followed) = (run.facts().head, run.followed());
    let fault = (followed < head).then(|| format!("followed to {followed}, the log has {head}"));
    run.verdicts.judge(Promise::LiveStreamSkipsNothing, fault);
    let fault = log_and_stream(run).await;
    run.verdicts.judge(Promise::StreamIsTheLog, fault);
    let fault = rows(run).await;
    run.verdicts.judge(Promise::RowsAreTheFold, fault);
    let (hold, said) = audit_chain(run).await;
    run.verdicts.judge(Promise::SealsHold, (!hold).then_some(said));
    tasks.abort_all();
    while let Some(ended) = tasks.join_next().await {
        // The tasks of the checker and of the satellites go on for ever.
        let panicked = ended.is_err_and(|error| error.is_panic());
        assert!(!panicked, "a task of the nemesis itself panicked");
    }
}

async fn wait_until_quiet(run: &Run) {
    let (mut head, mut since) = (run.facts().head, Instant::now());
    let until = Instant::now() + BACK;
    while since.elapsed() < quiet() && Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
        let now = run.facts().head;
        if now != head {
            (head, since) = (now, Instant::now());
        }
    }
}

async fn wait_for_the_feed(run: &Run) {
    let until = Instant::now() + FEED;
    while !run.facts().missing.is_empty() && Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Checks that every satellite that beats is online on every pod.
async fn statuses(run: &Run) -> Option<String> {
    for pod in 0..PODS {
        let page = run.world.posts[pod].call("GET", "/v1/satellites?limit=1000", None).await;
        let page = match page {
            Ok(page) if page.status == 200 => page.json(),
            other => return Some(format!("pod {}: {other:?}", pod_name(pod))),
        };
        let all = page["satellites"].as_array().expect("a page");
        for member in &run.cast {
            let id = member.id().expect("registered").to_string();
            let shown = all.iter().find(|satellite| satellite["id"] == id.as_str());
            if shown.is_none_or(|satellite| satellite["status"] != "online") {
                return Some(format!("{} on pod {}: {shown:?}", member.name, pod_name(pod)));
            }
        }
    }
    None
}

fn assignments(run: &Run) -> Option<String> {
    let ids = |list: &Option<Value>| -> BTreeSet<String> {
        let each = list.iter().flat_map(|list| list.as_array().into_iter().flatten());
        each.map(|assignment| assignment["configId"].to_string()).collect()
    };
    run.cast.iter().find_map(|member| {
        let state = member.state();
        let (told, assigned) = (ids(&state.life.told), ids(&state.assigned));
        (told != assigned).then(|| format!("{}: told {told:?}, has {assigned:?}", member.name))
    })
}

async fn log_and_stream(run: &Run) -> Option<String> {
    let (log, mut stream) = (
        read_log(&run.world.fleet.sql().await).await,
        read_stream(&run.world.fleet.nats().await).await,
    );
    let is_ours = |message: &StreamMessage| {
        message.position().is_some() && !message.headers.contains_key(FOREIGN)
    };
    stream.retain(is_ours);
    let (given_up, is_rebuilt) = {
        let facts = run.facts();
        (facts.given_up.clone(), facts.is_rebuilt)
    };
    if is_rebuilt {
        for message in &mut stream {
            message.headers.remove("Groundstation-Epoch");
        }
    }
    let found = differences_but(&log, &stream, &given_up);
    let there: BTreeSet<i64> = stream.iter().filter_map(StreamMessage::position).collect();
    let positions = log.iter().map(|row| row.position);
    let missing: Vec<i64> =
        positions.filter(|p| !there.contains(p) && !given_up.contains(p)).collect();
    let twice = stream.len() - there.len();
    let first: String = found.first()?.chars().take(LONGEST).collect();
    Some(format!(
        "missing on the stream: {missing:?}; twice: {twice}; the first difference: {first}"
    ))
}

/// Checks the rows by the harness' own fold and by the program's.
async fn rows(run: &Arc<Run>) -> Option<String> {
    let folding = {
        let run = run.clone();
        tokio::spawn(async move {
            let mut sql = run.world.fleet.sql().await;
            run.world.fleet.check_rows(&mut sql).await;
        })
    };
    if let Err(panicked) = folding.await {
        return Some(panicked.to_string());
    }
    let environment = [("DATABASE_URL".to_owned(), run.world.fleet.database_url.clone())];
    let (agrees, out, said) = program::ran(&["rebuild", "--check"], &environment).await;
    (!agrees).then(|| format!("rebuild --check: {out} {said}"))
}

async fn audit_chain(run: &Run) -> (bool, String) {
    let environment = [("DATABASE_URL".to_owned(), run.world.fleet.database_url.clone())];
    let (hold, out, said) = program::ran(&["audit", "--chain"], &environment).await;
    (hold, format!("audit --chain: {out} {said}"))
}
