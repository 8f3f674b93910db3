//! The satellites whose lives are judged. They are of several kinds, drawn from the seed, and each notes
//! what it really does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::fault::{MEMBERS, PODS};
use super::life::{End, Life};
use super::world::TIMING;
use crate::harness::{Credentials, Heard, Satellite};

/// How long opening a connection, and the answer to `authenticate`, may take, as with real agents.
const CONNECT: Duration = Duration::from_secs(10);

/// The pauses before it reconnects, doubled from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));

/// The reason a pod gives an older connection when a newer one replaces it.
pub const REPLACED: &str = "took over";

/// What a satellite does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Beats for ever.
    Steady,
    /// Beats for a while, then says nothing more or breaks the connection, and is away.
    Mortal,
    /// Comes, beats, says goodbye.
    Polite,
    /// Opens a connection to another pod beside the one it has.
    Wanderer,
    /// Has a long threshold of its own and says nothing for most of it.
    Patient,
    /// Has a short threshold of its own.
    Brisk,
}

impl Kind {
    fn of(number: usize) -> Kind {
        match number * 20 / MEMBERS {
            0..=6 => Kind::Steady,
            7..=9 => Kind::Mortal,
            10..=13 => Kind::Polite,
            14..=15 => Kind::Wanderer,
            16..=17 => Kind::Patient,
            _ => Kind::Brisk,
        }
    }

    pub fn threshold(self) -> Option<Duration> {
        match self {
            Kind::Patient => Some(TIMING.threshold * 5),
            Kind::Brisk => Some(TIMING.threshold * 2 / 3),
            _ => None,
        }
    }
}

pub struct Member {
    pub number: usize,
    pub kind: Kind,
    pub name: String,
    state: Mutex<State>,
}

pub struct State {
    /// `None` while it is not registered.
    pub credentials: Option<Credentials>,
    pub life: Life,
    /// The list that was assigned last.
    pub assigned: Option<Value>,
}

impl Member {
    pub fn new(number: usize) -> Member {
        let kind = Kind::of(number);
        let name = format!("{number}-{kind:?}").to_lowercase();
        let life = Life::new(kind.threshold());
        let state = Mutex::new(State { credentials: None, life, assigned: None });
        Member { number, kind, name, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a member")
    }

    pub fn id(&self) -> Option<Uuid> {
        self.state().credentials.as_ref().map(|credentials| credentials.id)
    }

    /// The member is another satellite from now on.
    pub fn becomes(&self, credentials: Option<Credentials>) {
        let life = Life::new(self.kind.threshold());
        *self.state() = State { credentials, life, assigned: None };
    }
}

/// What the run tells the satellites to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Each satellite acts according to its kind.
    Lively,
    /// All of them are steady.
    Calm,
}

/// Where the satellites find the pods, and what is expected of them.
#[derive(Clone)]
pub struct Stage {
    pub lines: [SocketAddr; PODS],
    pub mood: watch::Receiver<Mood>,
    pub seed: u64,
    /// Gets a verdict when a live connection was replaced though there was nothing newer.
    pub usurped: Arc<dyn Fn(&Member) + Send + Sync>,
}

/// How a satellite ends its own connection.
#[derive(Clone, Copy)]
enum Ending {
    Goodbye,
    Vanish,
    /// Says nothing for this long on an open connection.
    Silence(Duration),
    /// Connects to another pod.
    Wander,
}

/// What became of a connection.
enum Left {
    ComeBack,
    /// It stays away for this long.
    Away(Duration),
    /// There is a newer connection.
    Wandered(Connection),
}

/// A connection that was let in.
struct Connection {
    satellite: Satellite,
    credentials: Credentials,
    /// Its number in the satellite's life.
    attempt: usize,
}

/// Lives until it is cancelled.
pub async fn live(member: Arc<Member>, mut stage: Stage) {
    let mut rng = Rng::with_seed(stage.seed.wrapping_add(member.number as u64));
    let mut home = member.number % PODS;
    let mut pause = PAUSES.0;
    loop {
        match connect(&member, &stage, home).await {
            Some(mut connection) => {
                pause = PAUSES.0;
                let away = loop {
                    match stay(&member, &mut stage, &mut rng, &mut home, connection).await {
                        Left::Wandered(newer) => connection = newer,
                        Left::ComeBack => break pause,
                        Left::Away(away) => break away,
                    }
                };
                sleep(away).await;
            }
            None => {
                // As behind a load balancer, it reaches another pod sooner or later.
                home = rng.usize(..PODS);
                sleep(pause.mul_f64(0.75 + rng.f64() / 2.0)).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

/// Tries to connect once.
async fn connect(member: &Member, stage: &Stage, pod: usize) -> Option<Connection> {
    let (credentials, attempt) = {
        let mut state = member.state();
        (state.credentials.clone()?, state.life.tries(pod))
    };
    let over = |end| note_end(member, &credentials, attempt, end);
    let opened = match timeout(CONNECT, Satellite::try_open(stage.lines[pod])).await {
        Ok(Ok(satellite)) => Ok(satellite),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no upgrade in time".to_owned()),
    };
    let mut satellite = match opened {
        Ok(satellite) => satellite,
        Err(error) => {
            over(End::Unanswered(error));
            return None;
        }
    };
    satellite.authenticate(&credentials);
    let heard = timeout(CONNECT, satellite.hear()).await;
    match heard {
        Ok(Heard::Message(message)) if message["type"] == "authenticated" => {
            let mut state = member.state();
            if !is(&state, &credentials) {
                return None;
            }
            state.life.attempts[attempt].welcomed = Some(Instant::now());
            state.life.told = Some(message["assignments"].clone());
            drop(state);
            return Some(Connection { satellite, credentials, attempt });
        }
        Ok(Heard::Message(message)) if message["type"] == "auth_failed" => over(End::Refused),
        Ok(Heard::Message(message)) if message["type"] == "shutdown" => {
            over(End::Shutdown(reason(&message)));
        }
        Ok(Heard::Message(other)) => over(End::Unanswered(other.to_string())),
        Ok(Heard::Closed(code)) => over(End::Closed(code)),
        Ok(Heard::Dropped) => over(End::Dropped),
        Err(_) => over(End::Unanswered("not authenticated in time".to_owned())),
    }
    None
}

fn reason(message: &Value) -> String {
    message["reason"].as_str().unwrap_or_default().to_owned()
}

/// Whether the member is still the satellite it was.
fn is(state: &State, credentials: &Credentials) -> bool {
    state.credentials.as_ref().is_some_and(|current| current.id == credentials.id)
}

fn note_end(member: &Member, credentials: &Credentials, attempt: usize, end: End) {
    let mut state = member.state();
    if is(&state, credentials) {
        state.life.attempts[attempt].over.get_or_insert((Instant::now(), end));
    }
}

fn after(time: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + time
}

/// What the satellite does next on a connection, and when; `None` if it stays steady for ever.
fn draw(rng: &mut Rng, kind: Kind, mood: Mood) -> (tokio::time::Instant, Option<Ending>) {
    let mut seconds = |from: f64, to: f64| Duration::from_secs_f64(from + (to - from) * rng.f64());
    let stay = match kind {
        Kind::Mortal | Kind::Brisk => seconds(4.0, 20.0),
        Kind::Polite => seconds(0.3, 4.0),
        Kind::Wanderer => seconds(2.0, 10.0),
        Kind::Patient => seconds(1.0, 5.0),
        Kind::Steady => Duration::MAX,
    };
    if mood == Mood::Calm || kind == Kind::Steady {
        return (after(Duration::from_secs(86_400)), None);
    }
    let long = TIMING.threshold * 5;
    let ending = match kind {
        Kind::Polite => Ending::Goodbye,
        Kind::Wanderer => Ending::Wander,
        Kind::Patient => Ending::Silence(long.mul_f64(0.5 + 0.4 * rng.f64())),
        _ => match rng.u8(..3) {
            0 => Ending::Vanish,
            1 => Ending::Goodbye,
            _ => Ending::Silence(Duration::from_millis(rng.u64(14_000..24_000))),
        },
    };
    (after(stay), Some(ending))
}

/// Holds a connection until it ends, one way or another.
async fn stay(
    member: &Member,
    stage: &mut Stage,
    rng: &mut Rng,
    home: &mut usize,
    connection: Connection,
) -> Left {
    let Connection { mut satellite, credentials, attempt } = connection;
    let over = |end| note_end(member, &credentials, attempt, end);
    let mut beats = interval(TIMING.heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mood = *stage.mood.borrow_and_update();
    let (mut until, mut ending) = draw(rng, member.kind, mood);
    let mut silent = false;
    loop {
        tokio::select! {
            _ = beats.tick() => {
                let mut state = member.state();
                if !is(&state, &credentials) {
                    return Left::ComeBack;
                }
                if !silent {
                    state.life.attempts[attempt].beats.push(Instant::now());
                    satellite.beat();
                }
            }
            Ok(()) = stage.mood.changed() => {
                if *stage.mood.borrow_and_update() == Mood::Calm {
                    ((until, ending), silent) = (draw(rng, member.kind, Mood::Calm), false);
                }
            }
            () = sleep_until(until) => match ending.take() {
                Some(Ending::Goodbye) => {
                    satellite.send_frame(tokio_tungstenite::tungstenite::Message::Close(None));
                    over(End::Goodbye);
                    timeout(Duration::from_secs(2), satellite.hear()).await.ok();
                    return Left::Away(pause(rng));
                }
                Some(Ending::Vanish) => {
                    over(End::Vanished);
                    satellite.vanish();
                    return Left::Away(Duration::from_secs(rng.u64(8..24)));
                }
                Some(Ending::Silence(length)) => {
                    silent = true;
                    until = after(length);
                }
                Some(Ending::Wander) => {
                    let to = (*home + 1 + rng.usize(..PODS - 1)) % PODS;
                    if let Some(newer) = connect(member, stage, to).await {
                        *home = to;
                        over(End::Vanished);
                        return Left::Wandered(newer);
                    }
                    (until, ending) = draw(rng, member.kind, mood);
                }
                // The silence is over.
                None => ((until, ending), silent) = (draw(rng, member.kind, mood), false),
            },
            heard = satellite.hear() => match heard {
                Heard::Message(message) => match message["type"].as_str() {
                    Some("config_updated") => {
                        member.state().life.told = Some(message["assignments"].clone());
                    }
                    Some("shutdown") => {
                        let why = reason(&message);
                        let is_newest = {
                            let state = member.state();
                            is(&state, &credentials) && state.life.attempts.len() == attempt + 1
                        };
                        if is_newest && why.contains(REPLACED) {
                            (stage.usurped)(member);
                        }
                        over(End::Shutdown(why));
                        return Left::ComeBack;
                    }
                    _ => {}
                },
                Heard::Closed(code) => {
                    over(End::Closed(code));
                    return Left::ComeBack;
                }
                Heard::Dropped => {
                    over(End::Dropped);
                    return Left::ComeBack;
                }
            },
        }
    }
}

fn pause(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(200..2_500))
}
