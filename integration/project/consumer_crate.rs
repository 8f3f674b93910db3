//! The crate `groundstation-consumer`, against real servers: first the fleet, then what comes after it; and what is
//! missing on the stream, or in the log too.

use async_nats::jetstream;
use groundstation_consumer::{Consumer, Error, Event, Place, Status, Step, Taken};
use tokio::time::timeout;
use uuid::Uuid;

use crate::harness::relaying::{STREAM, come_and_go};
use crate::harness::wait::{PATIENCE, blocking};
use crate::harness::{CALM, Fleet, Satellite, eventually, program, written_log};

async fn open(fleet: &Fleet, place: Option<Place>) -> Consumer {
    let client = fleet.nats().await;
    // The stream is made by the first pod that relays.
    eventually("the stream", async || {
        Consumer::open(client.clone(), "automation", place).await.map_err(|error| error.to_string())
    })
    .await
}

async fn next(consumer: &mut Consumer) -> Taken {
    timeout(PATIENCE, consumer.next()).await.expect("a step in time").expect("a step")
}

fn position(taken: &Taken) -> i64 {
    match &taken.step {
        Step::Transition(transition) => transition.position,
        Step::Fleet(fleet) => panic!("{fleet:?}"),
    }
}

#[tokio::test]
async fn who_has_no_place_is_given_the_fleet_and_then_what_comes_after_it() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let satellites = fleet.register(&pod, "edge", 3).await;
    come_and_go(&pod, &satellites[0]).await;
    let here = Satellite::connect(pod.address, &satellites[1]).await;
    fleet.expect_log_length(3).await;
    fleet.check().await;
    let mut consumer = open(&fleet, None).await;
    let first = next(&mut consumer).await;
    let Step::Fleet(seen) = &first.step else { panic!("{first:?}") };
    assert_eq!((seen.position, seen.after_a_gap), (3, false));
    let mut known: Vec<_> = seen.satellites.iter().map(|s| (s.name.as_str(), s.status)).collect();
    known.sort_by_key(|(name, _)| *name);
    assert_eq!(known, [("edge-0", Status::Offline), ("edge-1", Status::Online)]);
    here.close().await;
    let second = next(&mut consumer).await;
    let Step::Transition(left) = &second.step else { panic!("{second:?}") };
    assert_eq!(
        (left.position, left.satellite, &left.event),
        (4, satellites[1].id, &Event::Disconnected)
    );
    let state = left.state.as_ref().expect("a state");
    assert_eq!(
        (state.name.as_str(), state.status, state.last_seen_at),
        ("edge-1", Status::Offline, None)
    );
    assert_eq!(second.place.change, Some(left.change));
    assert_eq!(pod.remove(satellites[1].id).await.status, 204);
    let third = next(&mut consumer).await;
    let Step::Transition(removed) = &third.step else { panic!("{third:?}") };
    assert_eq!((removed.position, &removed.event, &removed.state), (5, &Event::Removed, &None));
}

#[tokio::test]
async fn what_was_not_stored_comes_again_and_what_the_stream_lacks_comes_from_the_log() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    for satellite in &fleet.register(&pod, "edge", 4).await {
        come_and_go(&pod, satellite).await;
    }
    fleet.expect_log_length(8).await;
    fleet.check().await;
    let mut consumer = open(&fleet, Some(Place::BEGINNING)).await;
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    assert_eq!([position(&first), position(&second)], [1, 2]);
    // It ends here: the second step was given out, and its place was not stored.
    drop(consumer);
    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await.expect("the stream");
    for gone in [2, 4, 5] {
        assert!(stream.delete_message(gone).await.expect("NATS answers"));
    }
    let mut consumer = open(&fleet, Some(first.place)).await;
    let mut there = Vec::new();
    for _ in 2..=8 {
        there.push(position(&next(&mut consumer).await));
    }
    assert_eq!(there, [2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn who_waits_for_the_next_step_may_be_interrupted_and_loses_nothing() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let satellites = fleet.register(&pod, "edge", 30).await;
    let mut consumer = open(&fleet, Some(Place::BEGINNING)).await;
    let going = async {
        for satellite in &satellites {
            come_and_go(&pod, satellite).await;
        }
    };
    let taking = async {
        let mut taken = Vec::new();
        while taken.len() < 60 {
            let impatient = std::time::Duration::from_millis(1 + taken.len() as u64 % 5);
            if let Ok(step) = timeout(impatient, consumer.next()).await {
                taken.push(position(&step.expect("a step")));
            }
        }
        taken
    };
    let ((), taken) = tokio::join!(going, timeout(PATIENCE, taking));
    assert_eq!(taken.expect("all steps in time"), (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_log_has_dropped_too_is_replaced_by_the_fleet() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    written_log::write(&sql, 1, 2_000).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_PARTITION_WIDTH", "1000").start().await;
    fleet.check().await;
    // What is not known to be published is not dropped.
    eventually("the relay's checkpoint", async || {
        let row = sql.query_one("select position from relay", &[]).await.expect("the relay's row");
        let known: i64 = row.get(0);
        if known == 2_000 { Ok(()) } else { Err(known.to_string()) }
    })
    .await;
    let environment = [("DATABASE_URL".to_owned(), fleet.database_url.clone())];
    let dropped =
        blocking(move || program::run(&["retention", "--older-than", "90d"], &environment));
    let said = String::from_utf8(dropped.await.stdout).expect("text");
    assert!(said.contains("positions 1 to 1000"), "{said}");
    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await.expect("the stream");
    stream.purge().sequence(1_001).await.expect("NATS answers");
    come_and_go(&pod, &pod.register("edge", "eu").await).await;
    let mut consumer = open(&fleet, Some(Place { position: 5, change: None, epoch: 1 })).await;
    let first = next(&mut consumer).await;
    let Step::Fleet(seen) = &first.step else { panic!("{first:?}") };
    assert!(seen.after_a_gap && seen.position >= 2_000, "{seen:?}");
    come_and_go(&pod, &pod.register("other", "eu").await).await;
    assert_eq!(position(&next(&mut consumer).await), seen.position + 1);
}

#[tokio::test]
async fn another_change_at_the_same_position_is_told_and_nothing_is_skipped() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    come_and_go(&pod, &pod.register("edge", "eu").await).await;
    fleet.expect_log_length(2).await;
    let elsewhere = Place { position: 1, change: Some(Uuid::new_v4()), epoch: 1 };
    let mut consumer = open(&fleet, Some(elsewhere)).await;
    for _ in 0..2 {
        let told = timeout(PATIENCE, consumer.next()).await.expect("an answer");
        assert!(matches!(told, Err(Error::AnotherPast { position: 1 })), "{told:?}");
    }
}
