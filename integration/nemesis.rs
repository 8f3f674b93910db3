//! Many faults at once, for minutes, with a checker beside them: it finds failures that no one expected.
//!
//! A seed gives the plan (`plan`): which fault (`fault`) begins when and how long it lasts. `inject` injects
//! them into a `world` of three pods with stores of their own, while satellites (`cast`) live their lives
//! (`life`) there. The checker (`checker`) reads log, stream and pods (`tails`, `facts`) and holds what it
//! sees against what is promised. `verdict` decides what it may say, from the satellites' lives and the
//! `windows` of the faults. `docs/internals/nemesis.md` says how to read a failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::harness::faults;
use cast::{Member, Mood, Stage};
use checker::Run;
use fault::{MEMBERS, PODS};
use plan::{Planned, Topic};
use timeline::Timeline;
use verdicts::{Promise, Verdicts};
use world::World;

mod cast;
mod checker;
mod ending;
mod facts;
mod fault;
mod inject;
mod life;
mod plan;
mod tails;
mod timeline;
mod verdict;
mod verdicts;
mod windows;
mod world;

/// Satellites that come and go together.
const CROWD: usize = 60;

/// Pause before the first fault.
const WARM_UP: Duration = Duration::from_secs(4);

/// How long all satellites may take to connect when nothing is wrong.
const ARRIVAL: Duration = Duration::from_secs(60);

/// How long faults go on, unless `GROUNDSTATION_NEMESIS_SECONDS` says otherwise (`make nemesis`).
const SECONDS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_together_the_promises_are_kept() {
    let set = |name: &str| std::env::var(name).ok();
    let seconds = set("GROUNDSTATION_NEMESIS_SECONDS");
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("seconds"));
    let topics = set("GROUNDSTATION_NEMESIS_TOPICS").unwrap_or_default();
    let topics: Vec<Topic> = topics
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| Topic::parse(name).unwrap_or_else(|| panic!("{name} is no topic")))
        .collect();
    let stops_at_the_first = set("GROUNDSTATION_NEMESIS_GOES_ON").is_none();
    let (seed, length) = (faults::seed(), Duration::from_secs(seconds));
    play(seed, length, &plan::draw(seed, length, &topics), stops_at_the_first).await;
}

async fn play(seed: u64, length: Duration, plan: &[Planned], stops_at_the_first: bool) {
    let timeline = Arc::new(Timeline::begin(seed, length));
    let stop = CancellationToken::new();
    let first = stops_at_the_first.then(|| stop.clone());
    let verdicts = Arc::new(Verdicts::new(timeline.clone(), first));
    let world = World::make(seed).await;
    let cast: Vec<Arc<Member>> = (0..MEMBERS).map(|number| Arc::new(Member::new(number))).collect();
    let crowd = world.fleet.register_many("crowd", CROWD).await;
    let run = Arc::new(Run::new((seed, world, cast, crowd), timeline, verdicts, stop));
    for member in &run.cast {
        inject::register(&run, member).await;
    }

    let (mood, moods) = watch::channel(Mood::Lively);
    let mut tasks = JoinSet::new();
    tasks.spawn(tails::log(run.clone()));
    tasks.spawn(tails::stream(run.clone()));
    tasks.spawn(tails::live_stream(run.clone()));
    tasks.spawn(checker::pulse(run.clone()));
    tasks.spawn(checker::watch(run.clone()));
    tasks.spawn(checker::operator(run.clone()));
    for pod in 0..PODS {
        tasks.spawn(checker::onlooker(run.clone(), pod));
    }
    let stage = stage(&run, moods);
    for member in &run.cast {
        tasks.spawn(cast::live(member.clone(), stage.clone()));
    }
    ending::everybody_is_there(&run, ARRIVAL, false).await;
    sleep(WARM_UP).await;

    let begun = Instant::now();
    inject::all(&run, plan, length).await;
    mood.send_replace(Mood::Calm);
    ending::check(&run, &mut tasks).await;

    let (is_well, report) = run.verdicts.report();
    run.world.keep_logs(&run.timeline).await;
    let (edges, took) = (run.facts().head, begun.elapsed().as_secs());
    run.timeline.say(&format!("{edges} transitions in {took} s; what was judged:\n{report}"));
    let file = run.timeline.folder.join("timeline.txt");
    assert!(is_well, "a promise was broken with GROUNDSTATION_SEED={seed}: see {}", file.display());
}

fn stage(run: &Arc<Run>, mood: watch::Receiver<Mood>) -> Stage {
    let lines = std::array::from_fn(|pod| run.world.posts[pod].line.address);
    let (seed, run) = (run.seed, run.clone());
    let usurped = move |member: &Member| {
        if verdict::older_tries_are_known(&member.state().life, &run.windows, Instant::now()) {
            let how = format!("the newest connection of {} was taken over", member.name);
            run.verdicts.broken(Promise::NothingOlderTakesOver, &how);
        }
    };
    Stage { lines, mood, seed, usurped: Arc::new(usurped) }
}
