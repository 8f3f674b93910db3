//! The rules of `lifecycle.rs`, by table and by property.

use std::collections::BTreeMap;
use std::str::FromStr;

use proptest::prelude::*;
use strum::IntoEnumIterator;
use time::macros::datetime;

use super::*;
use crate::domain::liveness::{DEFAULT_OFFLINE_THRESHOLD, Resumption};

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);
const ID: SatelliteId = SatelliteId(Uuid::from_u128(7));

/// There was never a blind span.
const CLEAR: Watermark = Watermark {
    observed_at: datetime!(9999-01-01 00:00:00 UTC),
    resumption: None,
    grace: DEFAULT_OFFLINE_THRESHOLD,
};

fn profile() -> Profile {
    Profile {
        name: "edge-eu".to_owned(),
        region: "eu".to_owned(),
        threshold: DEFAULT_OFFLINE_THRESHOLD,
    }
}

fn row(last_event: Event, heartbeat: Option<OffsetDateTime>) -> Connection {
    Connection {
        session: Session(3),
        revision: Revision(5),
        last_event,
        last_heartbeat_at: heartbeat,
        vouched_until: None,
    }
}

fn decided(current: Option<&Connection>, signal: Signal) -> Transition {
    match next(ID, &profile(), current, signal, NOW, NOW, &CLEAR) {
        Ok(Decision::Append(transition)) => *transition,
        other => panic!("{signal:?} on {current:?} gave {other:?}"),
    }
}

fn state(last_event: Option<Event>) -> State {
    State {
        status: Status::Offline,
        name: "edge-eu".to_owned(),
        region: "eu".to_owned(),
        last_seen_at: None,
        last_event,
        flapping_until: None,
    }
}

#[test]
fn each_last_event_fires_its_one_trigger_and_everything_else_fires_none() {
    let cases = [
        (Some(state(Some(Event::Connected))), Some("satellite.connected")),
        (Some(state(Some(Event::Disconnected))), Some("satellite.disconnected")),
        (Some(state(Some(Event::HeartbeatLost))), Some("satellite.heartbeat_lost")),
        (Some(state(Some(Event::Removed))), None),
        (Some(state(Event::from_str("rebooted").ok())), None),
        (Some(state(None)), None),
        (None, None),
    ];
    for (next, expected) in cases {
        assert_eq!(trigger(next.as_ref()).map(Trigger::id), expected, "{next:?}");
    }
}

#[test]
fn a_first_connect_has_no_state_before_it() {
    let transition = decided(None, Signal::Connect);
    assert_eq!(transition.prev, None);
    assert_eq!(transition.revision, Revision(1));
    assert_eq!(transition.session, Session(1));
    assert_eq!(transition.reason, Reason::Connect);
}

#[test]
fn the_payload_of_a_connect_carries_the_heartbeat_of_now() {
    let transition = decided(None, Signal::Connect);
    let Some((subject, Payload::Edge { satellite, state })) = announcement(&transition) else {
        panic!("no edge payload: {transition:?}");
    };
    assert_eq!((subject, satellite), ("satellite.connected", ID));
    assert_eq!(state.status, Status::Online);
    assert_eq!(state.last_seen_at, Some(NOW));
}

#[test]
fn the_payload_of_a_clean_disconnect_has_no_last_seen_and_is_offline_at_once() {
    let live = row(Event::Connected, Some(NOW));
    let signal = Signal::Disconnect { session: Session(3), reason: Reason::ClientClose };
    let transition = decided(Some(&live), signal);
    let Some((subject, Payload::Edge { state, .. })) = announcement(&transition) else {
        panic!("no edge payload: {transition:?}");
    };
    assert_eq!(subject, "satellite.disconnected");
    assert_eq!(state.status, Status::Offline);
    assert_eq!(state.last_seen_at, None);
}

#[test]
fn the_payload_of_a_lost_heartbeat_keeps_the_aged_one() {
    let aged = NOW - Duration::from_secs(60);
    let silent = row(Event::Connected, Some(aged));
    let signal = Signal::Lost { session: Session(3), reason: Reason::HeartbeatTimeout };
    let transition = decided(Some(&silent), signal);
    let Some((subject, Payload::Edge { state, .. })) = announcement(&transition) else {
        panic!("no edge payload: {transition:?}");
    };
    assert_eq!(subject, "satellite.heartbeat_lost");
    assert_eq!(state.status, Status::Offline);
    assert_eq!(state.last_seen_at, Some(aged));
}

#[test]
fn a_removal_announces_only_the_cleanup_signal() {
    let transition = decided(Some(&row(Event::Connected, Some(NOW))), Signal::Remove);
    assert_eq!(transition.next, None);
    assert_eq!(trigger(transition.next.as_ref()), None);
    assert_eq!(
        announcement(&transition),
        Some((REMOVED_SUBJECT, Payload::Removed { satellite: ID }))
    );
}

#[test]
fn disconnected_and_heartbeat_lost_stay_distinct_at_equal_status() {
    let left = row(Event::Disconnected, None).state(&profile(), NOW, &CLEAR);
    let lost = row(Event::HeartbeatLost, Some(NOW - Duration::from_secs(60)));
    let lost = lost.state(&profile(), NOW, &CLEAR);
    let (left, lost) = (left.expect("a state"), lost.expect("a state"));
    assert_eq!(left.status, lost.status);
    assert_ne!(trigger(Some(&left)), trigger(Some(&lost)));
}

#[test]
fn the_table_of_rules_holds() {
    let session = Session(3);
    let disconnect = Signal::Disconnect { session, reason: Reason::ConnectionDropped };
    let lost = Signal::Lost { session, reason: Reason::HeartbeatTimeout };
    let recover = Signal::Recover { session };
    let aged = Some(NOW - Duration::from_secs(46));
    let appends = |event, reason| Ok::<_, Unchanged>((event, reason));

    let cases = [
        (Event::Connected, Signal::Connect, appends(Event::Connected, Reason::Takeover)),
        (Event::Disconnected, Signal::Connect, appends(Event::Connected, Reason::Connect)),
        (Event::HeartbeatLost, Signal::Connect, appends(Event::Connected, Reason::Connect)),
        (Event::Removed, Signal::Connect, appends(Event::Connected, Reason::Connect)),
        (Event::Connected, disconnect, appends(Event::Disconnected, Reason::ConnectionDropped)),
        (Event::Disconnected, disconnect, Err(Unchanged::AlreadyEnded)),
        (Event::HeartbeatLost, disconnect, Err(Unchanged::AlreadyEnded)),
        (Event::Removed, disconnect, Err(Unchanged::StaleSession)),
        (Event::Connected, lost, appends(Event::HeartbeatLost, Reason::HeartbeatTimeout)),
        (Event::Disconnected, lost, Err(Unchanged::AlreadyEnded)),
        (Event::HeartbeatLost, lost, Err(Unchanged::AlreadyEnded)),
        (Event::Removed, lost, Err(Unchanged::StaleSession)),
        (Event::Connected, recover, Err(Unchanged::NotLost)),
        (Event::Disconnected, recover, Err(Unchanged::AlreadyEnded)),
        (Event::HeartbeatLost, recover, appends(Event::Connected, Reason::Recovered)),
        (Event::Removed, recover, Err(Unchanged::StaleSession)),
        (Event::Connected, Signal::Remove, appends(Event::Removed, Reason::Removed)),
        (Event::Disconnected, Signal::Remove, appends(Event::Removed, Reason::Removed)),
    ];
    for (last_event, signal, expected) in cases {
        let current = row(last_event, aged);
        let found = match next(ID, &profile(), Some(&current), signal, NOW, NOW, &CLEAR) {
            Ok(Decision::Append(transition)) => Ok((transition.event, transition.reason)),
            Ok(Decision::Nothing(why)) => Err(why),
            Err(illegal) => panic!("{signal:?} after {last_event:?}: {illegal}"),
        };
        assert_eq!(found, expected, "{signal:?} after {last_event:?}");
    }
}

#[test]
fn a_satellite_heard_within_its_threshold_is_not_given_up() {
    let heard = row(Event::Connected, Some(NOW - DEFAULT_OFFLINE_THRESHOLD));
    let signal = Signal::Lost { session: Session(3), reason: Reason::HeartbeatTimeout };
    assert_eq!(
        next(ID, &profile(), Some(&heard), signal, NOW, NOW, &CLEAR),
        Ok(Decision::Nothing(Unchanged::StillHeard))
    );
}

#[test]
fn a_loss_happened_when_the_heartbeats_time_was_over() {
    let silent = row(Event::Connected, Some(NOW - Duration::from_secs(60)));
    let signal = Signal::Lost { session: Session(3), reason: Reason::PodLost };
    let transition = decided(Some(&silent), signal);
    assert_eq!(transition.occurred_at, NOW - Duration::from_secs(15));
    let status = |state: &Option<State>| state.as_ref().map(|state| state.status);
    assert_eq!(status(&transition.prev), Some(Status::Online));
    assert_eq!(status(&transition.next), Some(Status::Offline));
}

#[test]
fn a_heartbeat_brings_nobody_back_once_it_is_older_than_the_threshold() {
    let lost = row(Event::HeartbeatLost, Some(NOW - Duration::from_secs(600)));
    let signal = Signal::Recover { session: Session(3) };
    let blind = Watermark {
        observed_at: NOW - Duration::from_secs(300),
        resumption: Some(Resumption {
            judged_at: NOW - Duration::from_secs(400),
            resumed_at: NOW - Duration::from_secs(1),
        }),
        ..CLEAR
    };
    for watermark in [CLEAR, blind] {
        let decide = |seconds| {
            let heard = NOW - time::Duration::seconds_f64(seconds);
            next(ID, &profile(), Some(&lost), signal, heard, NOW, &watermark)
        };
        let Ok(Decision::Append(transition)) = decide(45.0) else { panic!("young enough") };
        let seen = transition.next.and_then(|state| state.last_seen_at);
        assert_eq!(seen, Some(NOW - Duration::from_secs(45)), "seen when it was heard");
        assert_eq!(decide(45.001), Ok(Decision::Nothing(Unchanged::HeardTooLongAgo)));
    }
}

#[test]
fn nobody_is_given_up_for_time_in_which_nobody_could_hear() {
    let silent = row(Event::Connected, Some(NOW - Duration::from_secs(360)));
    let signal = Signal::Lost { session: Session(3), reason: Reason::HeartbeatTimeout };
    let judged_at = NOW - Duration::from_secs(350);
    let resumed = |seconds| {
        let resumed_at = NOW - Duration::from_secs(seconds);
        Watermark { resumption: Some(Resumption { judged_at, resumed_at }), ..CLEAR }
    };
    let decide = |watermark| next(ID, &profile(), Some(&silent), signal, NOW, NOW, &watermark);
    let heard = Ok(Decision::Nothing(Unchanged::StillHeard));
    assert_eq!(decide(Watermark { observed_at: judged_at, ..CLEAR }), heard, "nobody observes yet");
    assert_eq!(decide(resumed(45)), heard, "there is time to come back");
    assert!(matches!(decide(resumed(46)), Ok(Decision::Append(_))), "the time is over");
}

#[test]
fn who_was_given_up_stays_offline_until_heard_even_with_a_longer_threshold() {
    let lost = row(Event::HeartbeatLost, Some(NOW - Duration::from_secs(60)));
    let patient = Profile { threshold: Duration::from_secs(3600), ..profile() };
    let state = lost.state(&patient, NOW, &CLEAR).expect("a state");
    assert_eq!(state.status, Status::Offline);
}

#[test]
fn a_session_that_was_never_given_out_is_illegal() {
    for current in [None, Some(row(Event::Connected, Some(NOW)))] {
        for signal in [
            Signal::Disconnect { session: Session(4), reason: Reason::ClientClose },
            Signal::Lost { session: Session(4), reason: Reason::HeartbeatTimeout },
            Signal::Recover { session: Session(4) },
        ] {
            let found = next(ID, &profile(), current.as_ref(), signal, NOW, NOW, &CLEAR);
            assert!(matches!(found, Err(Illegal::UnknownSession { .. })), "{signal:?}: {found:?}");
        }
    }
}

#[test]
fn a_transition_that_skips_a_revision_is_refused() {
    let current = row(Event::Connected, Some(NOW));
    let mut transition = decided(Some(&current), Signal::Remove);
    transition.revision = Revision(9);
    assert!(project(Some(&current), &transition).is_err());
    assert!(project(None, &transition).is_err());
}

#[test]
fn words_round_trip() {
    for event in Event::iter() {
        assert_eq!(Event::from_str(event.as_str()).ok(), Some(event));
    }
    for reason in Reason::iter() {
        assert_eq!(Reason::from_str(reason.as_str()).ok(), Some(reason));
    }
}

/// One step of a random life: a signal (which names the newest session, or one `lag` older), a
/// heartbeat, or only time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Connect,
    Disconnect { lag: i64 },
    Lost { lag: i64 },
    Recover { lag: i64 },
    Remove,
    Heartbeat,
}

fn steps() -> impl Strategy<Value = Vec<(u8, Step, u64)>> {
    let lag = 0..3i64;
    let step = prop_oneof![
        4 => Just(Step::Connect),
        2 => lag.clone().prop_map(|lag| Step::Disconnect { lag }),
        2 => lag.clone().prop_map(|lag| Step::Lost { lag }),
        2 => lag.prop_map(|lag| Step::Recover { lag }),
        1 => Just(Step::Remove),
        3 => Just(Step::Heartbeat),
    ];
    // which of three satellites, what happens, and how many seconds pass before it
    prop::collection::vec((0..3u8, step, 0..60u64), 0..80)
}

/// Runs a life through the live path: decide, project, and move heartbeats in between.
fn live(steps: &[(u8, Step, u64)]) -> (BTreeMap<u8, Connection>, Vec<(u8, Transition)>) {
    let (mut rows, mut log, mut now) = (BTreeMap::<u8, Connection>::new(), Vec::new(), NOW);
    for &(who, step, seconds) in steps {
        now += Duration::from_secs(seconds);
        let newest = rows.get(&who).map_or(0, |row| row.session.0);
        let named = |lag: i64| Session((newest - lag).max(0));
        let signal = match step {
            Step::Connect => Signal::Connect,
            Step::Disconnect { lag } => {
                Signal::Disconnect { session: named(lag), reason: Reason::ClientClose }
            }
            Step::Lost { lag } => {
                Signal::Lost { session: named(lag), reason: Reason::HeartbeatTimeout }
            }
            Step::Recover { lag } => Signal::Recover { session: named(lag) },
            Step::Remove => Signal::Remove,
            Step::Heartbeat => {
                if let Some(row) = rows.get_mut(&who)
                    && row.last_event == Event::Connected
                {
                    row.last_heartbeat_at = Some(now);
                }
                continue;
            }
        };
        let id = SatelliteId(Uuid::from_u128(who.into()));
        match next(id, &profile(), rows.get(&who), signal, now, now, &CLEAR).expect("a legal edge")
        {
            Decision::Append(transition) => {
                let row = project(rows.get(&who), &transition).expect("in order");
                rows.insert(who, row);
                log.push((who, *transition));
            }
            Decision::Nothing(_) => {}
        }
    }
    (rows, log)
}

proptest! {
    #[test]
    fn any_sequence_of_edges_folds_to_the_same_row_live_and_rebuilt(steps in steps()) {
        let (mut rows, log) = live(&steps);
        let mut rebuilt = BTreeMap::<u8, Connection>::new();
        for (who, transition) in &log {
            let row = project(rebuilt.get(who), transition).expect("in order");
            rebuilt.insert(*who, row);
        }
        // Heartbeats are bookkeeping beside the log. Only a connected row may differ by one, and a
        // rebuild carries the live value over.
        for (who, row) in &mut rows {
            if row.last_event == Event::Connected {
                row.last_heartbeat_at = rebuilt[who].last_heartbeat_at;
            }
        }
        prop_assert_eq!(rows, rebuilt);
    }

    #[test]
    fn revisions_are_dense_and_sessions_never_go_back(steps in steps()) {
        let (_, log) = live(&steps);
        let mut seen = BTreeMap::<u8, (i64, Session)>::new();
        for (who, transition) in &log {
            let (revision, session) = seen.get(who).copied().unwrap_or((0, Session(0)));
            prop_assert_eq!(transition.revision, Revision(revision + 1));
            prop_assert!(transition.session >= session);
            seen.insert(*who, (transition.revision.0, transition.session));
        }
    }

    #[test]
    fn an_edge_of_an_older_session_changes_nothing(steps in steps(), back in 1..5i64) {
        let (rows, _) = live(&steps);
        for (who, row) in &rows {
            let session = Session((row.session.0 - back).max(0));
            if session == row.session {
                continue;
            }
            let id = SatelliteId(Uuid::from_u128((*who).into()));
            for signal in [
                Signal::Disconnect { session, reason: Reason::ClientClose },
                Signal::Lost { session, reason: Reason::HeartbeatTimeout },
                Signal::Recover { session },
            ] {
                let later = NOW + Duration::from_secs(1_000_000);
                prop_assert_eq!(
                    next(id, &profile(), Some(row), signal, later, later, &CLEAR),
                    Ok(Decision::Nothing(Unchanged::StaleSession))
                );
            }
        }
    }

    #[test]
    fn each_state_after_is_the_state_before_the_next_but_for_time(steps in steps()) {
        let (_, log) = live(&steps);
        let mut before = BTreeMap::<u8, Option<Event>>::new();
        for (who, transition) in &log {
            let prev = transition.prev.as_ref().and_then(|state| state.last_event);
            prop_assert_eq!(prev, before.get(who).copied().flatten());
            let next = transition.next.as_ref().and_then(|state| state.last_event);
            before.insert(*who, next);
        }
    }

    #[test]
    fn an_online_state_always_ends_in_connected(steps in steps()) {
        let (_, log) = live(&steps);
        for (_, transition) in &log {
            if let Some(next) = &transition.next {
                prop_assert_eq!(
                    next.status == Status::Online,
                    next.last_event == Some(Event::Connected)
                );
            }
        }
    }
}
