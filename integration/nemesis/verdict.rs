//! The verdicts on a satellite, given what it did and what was hampered when. Pure.
//!
//! Each verdict is sound rather than complete: where a fault, or what the world needs to settle after
//! one, leaves a doubt, there is no verdict.

use std::time::{Duration, Instant};

use super::fault::PODS;
use super::life::{Attempt, End, Life};
use super::windows::{Hampered, Windows};
use super::world::{HOLD, TIMING};

/// Time between a heartbeat and the database: the pod writes four times a second.
const SLACK: Duration = Duration::from_secs(2);

/// How long the world takes after a fault until everything is in time again: the longest pause
/// between two tries, a lock's time-out, a lease.
const SETTLE: Duration = Duration::from_secs(12);

/// How long an edge may wait when nothing is in its way.
pub const EDGE: Duration = Duration::from_secs(8);

/// How long a transition may wait for the stream when nothing is in its way.
pub const FEED: Duration = Duration::from_secs(20);

/// How long the stream may lack what was taken from it.
pub const TAKEN: Duration = Duration::from_secs(35);

/// How long after a fault pods may take until they observe again.
const RESUMING: Duration = Duration::from_secs(5);

/// What is promised of a loss beside threshold and hold, a sweep and a second; and a busy machine.
const FINDING: Duration = TIMING.sweep.saturating_add(Duration::from_secs(1)).saturating_add(SLACK);

/// Whether the satellite was heard so lately, all the time between, that no pod may take it for offline.
/// (Time in which Postgres was away is blind time and no excuse.)
pub fn was_heard(
    number: usize,
    life: &Life,
    windows: &Windows,
    from: Instant,
    to: Instant,
) -> bool {
    let Some(attempt) = life.held(from, to) else { return false };
    let welcomed = attempt.welcomed.unwrap_or(attempt.began);
    let (least, _) = life.thresholds(from, TIMING.threshold);
    // A satellite that was silent before may have been lost rightly, and its recovery is an edge.
    let settled = from.checked_sub(EDGE).unwrap_or(from).max(welcomed);
    if attempt.longest_silence(settled, to) + SLACK >= least {
        return false;
    }
    let began = windows.back(Hampered::Postgres, from, least + SLACK).max(welcomed);
    let pod = attempt.pod;
    let in_doubt = |what| match what {
        Hampered::Pod(p) | Hampered::Database(p) | Hampered::Line(p) => p == pod,
        Hampered::Satellite(n) => n == number,
        Hampered::Machine => true,
        // A lapse of less than two seconds is no blind time, yet too much of a short threshold.
        Hampered::Postgres => least < TIMING.threshold,
        _ => false,
    };
    windows.clear(in_doubt, began, to)
}

/// When the satellite, which counts as connected since `since`, must have been offline at the latest; `None`
/// where that cannot be told.
fn due_at(
    number: usize,
    life: &Life,
    windows: &Windows,
    since: Instant,
    now: Instant,
) -> Option<Instant> {
    let (sign, attempt) = (life.last_sign()?, life.attempts.last()?);
    let (_, greatest) = life.thresholds(sign, TIMING.threshold);
    let stops = |what| {
        matches!(what, Hampered::Postgres | Hampered::Machine | Hampered::Line(_))
            || what == Hampered::Satellite(number)
    };
    let own = |what| is_mute(what, attempt.pod);
    let others = |what| (0..PODS).any(|pod| pod != attempt.pod && is_mute(what, pod));
    let start = sign.max(since);
    let before = start.checked_sub(SETTLE).unwrap_or(start);
    let heard = if windows.clear(|what| stops(what) || others(what), before, now) {
        // Its pod may have heard what it heard last when it could again. If it died or was cut off after
        // that, the satellite counts as heard up to then, but for no more than a window: by then its exact
        // time was written.
        match windows.last_end(own, start, now) {
            (could, None) => could,
            (could, Some(died)) => could.max(died).min(could + TIMING.window()),
        }
    } else {
        let start = windows.clear_since(stops, start)?;
        let begun = windows.unchanged_since(|what| own(what) || others(what), start);
        let works =
            |pod| windows.clear(|what| is_mute(what, pod), begun + Duration::from_millis(1), now);
        (0..PODS).any(works).then_some(begun + RESUMING)?
    };
    Some(heard + greatest.max(TIMING.threshold))
}

/// Whether a satellite that counts as connected since `since` must have been found dead by now.
pub fn is_overdue(
    number: usize,
    life: &Life,
    windows: &Windows,
    since: Instant,
    now: Instant,
) -> bool {
    due_at(number, life, windows, since, now).is_some_and(|due| now > due + HOLD + FINDING)
}

/// Whether a pod that is asked now may show it online no more: that is computed when it is read, and held up
/// by nobody.
pub fn must_be_offline(
    number: usize,
    life: &Life,
    windows: &Windows,
    since: Instant,
    asked: Instant,
) -> bool {
    due_at(number, life, windows, since, asked).is_some_and(|due| asked > due + SLACK)
}

fn is_mute(what: Hampered, pod: usize) -> bool {
    what == Hampered::Pod(pod) || what == Hampered::Database(pod)
}

/// What stands in the way of an edge of this satellite on this pod.
fn in_the_way(what: Hampered, number: usize, pod: usize) -> bool {
    is_mute(what, pod)
        || what == Hampered::Line(pod)
        || what == Hampered::Satellite(number)
        || matches!(what, Hampered::Postgres | Hampered::Machine)
}

/// What is wrong with the answer to a try to connect, or with its absence by now.
pub fn fault_of_attempt(
    number: usize,
    attempt: &Attempt,
    windows: &Windows,
    now: Instant,
) -> Option<String> {
    let over = attempt.over.as_ref().map(|(at, _)| *at);
    let answered = attempt.welcomed.or(over).unwrap_or(now);
    let waited = answered.duration_since(attempt.began);
    let failed = match (&attempt.welcomed, &attempt.over) {
        (None, Some((_, End::Goodbye | End::Vanished | End::Shutdown(_)))) => None,
        (None, Some((_, end))) => Some(format!("{end:?}")),
        _ => None,
    };
    if waited <= EDGE && failed.is_none() {
        return None;
    }
    let before = attempt.began.checked_sub(SETTLE).unwrap_or(attempt.began);
    let is_clear = windows.clear(|what| in_the_way(what, number, attempt.pod), before, answered);
    let how = failed.unwrap_or_else(|| "no answer".to_owned());
    is_clear.then(|| format!("{how} after {:.1} s", waited.as_secs_f64()))
}

/// What is wrong with how a pod ended a connection. It closes no connection that is within its threshold
/// without saying why.
pub fn fault_of_end(
    number: usize,
    life: &Life,
    attempt: &Attempt,
    windows: &Windows,
) -> Option<String> {
    let (at, end) = attempt.over.as_ref()?;
    let (welcomed, End::Dropped | End::Closed(_)) = (attempt.welcomed?, end) else { return None };
    let began = at.checked_sub(SETTLE).unwrap_or(*at).max(welcomed);
    let (least, _) = life.thresholds(began, TIMING.threshold);
    // A beat that comes while the pod declares the loss is not heard in time.
    let silence = attempt.longest_silence(at.checked_sub(SLACK).unwrap_or(*at), *at);
    let is_clear = windows.clear(|what| in_the_way(what, number, attempt.pod), began, *at + SLACK);
    let seconds = silence.as_secs_f64();
    (silence + SLACK < least && is_clear).then(|| format!("{end:?}, silent for {seconds:.1} s"))
}

/// Whether every pod that was tried lately can know what became of that try. A pod whose line was
/// hampered may take an ended connection for a newer one.
pub fn older_tries_are_known(life: &Life, windows: &Windows, now: Instant) -> bool {
    let since = now.checked_sub(SETTLE * 2).unwrap_or(now);
    let lately = life.attempts.iter().rev().take_while(|attempt| {
        attempt.began >= since || attempt.over.as_ref().is_none_or(|(at, _)| *at >= since)
    });
    let pods: Vec<usize> = lately.map(|attempt| attempt.pod).collect();
    let may_hide_it = |what| match what {
        Hampered::Line(pod) | Hampered::Pod(pod) => pods.contains(&pod),
        what => what == Hampered::Machine,
    };
    windows.clear(may_hide_it, since, now)
}

/// Whether an end that the satellite chose must be in the log by now.
pub fn end_is_overdue(number: usize, attempt: &Attempt, windows: &Windows, now: Instant) -> bool {
    let Some((at, End::Goodbye | End::Vanished)) = attempt.over else { return false };
    if attempt.welcomed.is_none() || now.saturating_duration_since(at) <= EDGE {
        return false;
    }
    let before = at.checked_sub(SETTLE).unwrap_or(at);
    windows.clear(|what| in_the_way(what, number, attempt.pod), before, now)
}

/// Whether a heartbeat must have been too old by `from` to bring its satellite back.
pub fn is_too_old_to_recover(
    life: &Life,
    windows: &Windows,
    from: Instant,
    to: Instant,
) -> Option<Duration> {
    let sign = life.last_sign()?;
    let attempt = life.attempts.last()?;
    let (_, greatest) = life.thresholds(sign, TIMING.threshold);
    let age = from.saturating_duration_since(sign);
    let may_be_late = |what| match what {
        // A heartbeat that a stopped pod finds in its sockets looks new to it.
        Hampered::Pod(p) | Hampered::Line(p) => p == attempt.pod,
        Hampered::Postgres | Hampered::Machine => true,
        _ => false,
    };
    (age > greatest + SLACK && windows.clear(may_be_late, sign, to)).then_some(age)
}

/// Since when nothing stands in the way of the feed; `None` while something does.
pub fn feed_is_free_since(windows: &Windows, start: Instant) -> Option<Instant> {
    let in_the_way = |what| !matches!(what, Hampered::Line(_) | Hampered::Satellite(_));
    windows.clear_since(in_the_way, start)
}

mod tests {
    use super::*;

    fn at(base: Instant, seconds: u64) -> Instant {
        base + Duration::from_secs(seconds)
    }

    /// A life that beats every second on pod 0 from second 2 to `until`.
    fn beating(base: Instant, until: u64) -> Life {
        let mut life = Life::new(None);
        life.attempts.push(Attempt {
            pod: 0,
            began: at(base, 1),
            welcomed: Some(at(base, 2)),
            beats: (2..=until).map(|second| at(base, second)).collect(),
            over: None,
        });
        life
    }

    #[test]
    fn who_beats_on_a_pod_that_hears_was_heard_also_through_blind_time() {
        let base = Instant::now();
        let (life, windows) = (beating(base, 60), Windows::default());
        assert!(was_heard(0, &life, &windows, at(base, 30), at(base, 31)));
        windows.note(Hampered::Postgres, at(base, 25), at(base, 29));
        windows.note(Hampered::NatsServer, at(base, 25), at(base, 29));
        windows.note(Hampered::Pod(1), at(base, 25), at(base, 29));
        assert!(was_heard(0, &life, &windows, at(base, 30), at(base, 31)));
        windows.note(Hampered::Database(0), at(base, 17), at(base, 20));
        assert!(!was_heard(0, &life, &windows, at(base, 30), at(base, 31)), "muted before");
        assert!(was_heard(0, &life, &windows, at(base, 40), at(base, 41)));
        assert!(!was_heard(0, &life, &windows, at(base, 64), at(base, 65)), "it fell silent");
    }

    #[test]
    fn a_connection_is_closed_only_where_the_silence_was_too_long() {
        let base = Instant::now();
        let fault = |until, over, windows: &Windows| {
            let mut life = beating(base, until);
            life.attempts[0].over = Some((at(base, over), End::Dropped));
            fault_of_end(0, &life, &life.attempts[0], windows).is_some()
        };
        let windows = Windows::default();
        assert!(fault(20, 22, &windows) && !fault(20, 26, &windows));
        windows.note(Hampered::Line(0), at(base, 22), at(base, 23));
        assert!(!fault(20, 22, &windows));
        // One beat, at the moment of the loss.
        let mut life = beating(base, 20);
        life.attempts[0].beats.push(at(base, 44));
        life.attempts[0].over = Some((at(base, 44), End::Dropped));
        assert_eq!(fault_of_end(0, &life, &life.attempts[0], &Windows::default()), None);
    }

    #[test]
    fn an_older_try_may_be_taken_for_a_newer_one_only_where_its_end_does_not_reach_the_pod() {
        let base = Instant::now();
        let mut life = beating(base, 20);
        life.attempts[0].over = Some((at(base, 21), End::Goodbye));
        life.tries(1);
        life.attempts[1].began = at(base, 22);
        let windows = Windows::default();
        windows.note(Hampered::Line(2), at(base, 20), at(base, 40));
        assert!(older_tries_are_known(&life, &windows, at(base, 24)));
        windows.note(Hampered::Line(0), at(base, 20), at(base, 24));
        assert!(!older_tries_are_known(&life, &windows, at(base, 24)));
        assert!(older_tries_are_known(&life, &windows, at(base, 24) + SETTLE * 2 + SLACK));
    }

    #[test]
    fn nobody_dead_stays_longer_than_threshold_and_hold_where_somebody_can_find_it() {
        let base = Instant::now();
        let (life, windows) = (beating(base, 10), Windows::default());
        let overdue = |windows: &Windows, now| is_overdue(0, &life, windows, base, at(base, now));
        let due = 10 + (TIMING.threshold + HOLD + FINDING).as_secs();
        assert!(!overdue(&windows, due) && overdue(&windows, due + 1));
        windows.note(Hampered::Postgres, at(base, 15), at(base, 20));
        let resumed = due + 10 + RESUMING.as_secs();
        assert!(!overdue(&windows, resumed) && overdue(&windows, resumed + 1));
    }

    #[test]
    fn nobody_dead_is_shown_online_a_window_longer_than_it_would_be_and_only_where_its_pod_died() {
        let base = Instant::now();
        let life = beating(base, 10);
        let shown = |windows: &Windows, after: Duration| {
            let asked = at(base, 10) + TIMING.threshold + SLACK + after;
            must_be_offline(0, &life, windows, base, asked)
        };
        let (moment, window) = (Duration::from_millis(10), TIMING.window());
        assert!(!shown(&Windows::default(), Duration::ZERO));
        assert!(shown(&Windows::default(), moment));
        // A second after its last sign; and until long after anybody asks.
        let dead = Windows::default();
        dead.note(Hampered::Pod(0), at(base, 11), at(base, 60));
        let second = Duration::from_secs(1);
        assert!(!shown(&dead, second) && shown(&dead, second + moment));
        let later = Windows::default();
        later.note(Hampered::Pod(0), at(base, 14), at(base, 60));
        assert!(!shown(&later, window) && shown(&later, window + moment));
        let woken = Windows::default();
        woken.note(Hampered::Pod(0), at(base, 11), at(base, 14));
        assert!(!shown(&woken, 4 * second), "it may have heard it then");
        assert!(shown(&woken, 4 * second + moment));
        let unseen = Windows::default();
        unseen.note(Hampered::Database(1), at(base, 8), at(base, 9));
        assert!(!shown(&unseen, window + moment), "perhaps nobody could see it for a while");
    }

    #[test]
    fn an_edge_waits_for_nobody_else() {
        let base = Instant::now();
        let windows = Windows::default();
        let attempt = |answered| Attempt {
            pod: 0,
            began: at(base, 20),
            welcomed: Some(at(base, answered)),
            beats: Vec::new(),
            over: None,
        };
        let fault = |attempt: &Attempt, windows: &Windows| {
            fault_of_attempt(0, attempt, windows, at(base, 50)).is_some()
        };
        assert!(!fault(&attempt(21), &windows) && fault(&attempt(40), &windows));
        windows.note(Hampered::Satellite(1), at(base, 10), at(base, 40));
        assert!(fault(&attempt(40), &windows), "another's lock is no excuse");
        windows.note(Hampered::Satellite(0), at(base, 10), at(base, 11));
        assert!(!fault(&attempt(40), &windows), "its own is");
    }
}
