//! Cells: each publishes under its name on a stream of its own, and the stream that a hub makes of them has the whole
//! log of each, in its order, whatever came between them. The configurations are those of docs/scale.md.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, stream::Stream};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;

use crate::harness::cells::{Cell, Cells, Cut};
use crate::harness::cluster::{LONG, Version};
use crate::harness::log_and_stream::{CELL, StreamMessage, differences, read_log, read_stream};
use crate::harness::relaying::{STREAM, come_and_go, expect_relay};
use crate::harness::traffic::Traffic;
use crate::harness::wait::within;
use crate::harness::{CALM, Fleet, Satellite, eventually, program};
use crate::stream::audit::audit;

/// A second stream that the hub makes of the same cells.
const AGAIN: &str = "SATELLITE_TRANSITIONS_AGAIN";

/// So many satellites of each cell come and go, each once in this time: forty edges a second.
const SATELLITES: usize = 5;
const EVERY: Duration = Duration::from_millis(250);

/// How many transitions each cell goes on by before something is done to it.
const SOME: i64 = 40;

/// How far a consumer of a merged stream is: of each cell the epoch and the position. This is the rule of docs/scale.md.
#[derive(Debug, Clone, Default, PartialEq)]
struct Cursor(BTreeMap<String, (i64, i64)>);

impl Cursor {
    /// Whether this message is to be handled: it follows what was handled of its cell.
    fn takes(&mut self, headers: &async_nats::HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.as_str());
        let number = |name: &str| text(name).map(|text| text.parse::<i64>().expect("a number"));
        let position = number("Groundstation-Position").expect("a position");
        let epoch = number("Groundstation-Epoch").unwrap_or(1);
        let cell = text(CELL).unwrap_or_default().to_owned();
        let known = self.0.entry(cell).or_insert((1, 0));
        known.0 = known.0.max(epoch);
        if position <= known.1 {
            return false;
        }
        assert_eq!(position, known.1 + 1, "a position was missed: {headers:?}");
        known.1 = position;
        true
    }

    fn position(&self, cell: &str) -> i64 {
        self.0.get(cell).map_or(0, |(_, position)| *position)
    }
}

/// Reads a merged stream from its beginning on, until every cell is as far as this. Returns the changes that were
/// handled, by cell.
async fn consume(
    stream: &Stream,
    cursor: &mut Cursor,
    until: &[(&str, i64)],
) -> BTreeMap<String, Vec<String>> {
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages");
    let mut handled: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while until.iter().any(|(cell, position)| cursor.position(cell) < *position) {
        let message = timeout(LONG, messages.next()).await.expect("messages go on");
        let message = message.expect("the stream goes on").expect("a message");
        let headers = message.headers.as_ref().expect("headers");
        if cursor.takes(headers) {
            let text = |name: &str| headers.get(name).expect("the header").to_string();
            handled.entry(text(CELL)).or_default().push(text("Nats-Msg-Id"));
        }
    }
    handled
}

/// The messages of one cell on the merged stream, as they were on the cell's own.
async fn merged_of(cells: &Cells, cell: &Cell) -> Vec<StreamMessage> {
    let of_the_cell = |mut message: StreamMessage| {
        let source = message.headers.remove("Nats-Stream-Source");
        assert!(source.is_some(), "no source: {message:?}");
        (message.headers.get(CELL)? == cell.name).then_some(message)
    };
    read_stream(&cells.hub).await.into_iter().filter_map(of_the_cell).collect()
}

/// Waits until the merged stream has this cell's log, all of it and nothing else.
async fn expect_merged(cells: &Cells, cell: &Cell) {
    within(LONG, &format!("the log of {} on the merged stream", cell.name), async || {
        let log = read_log(&cell.fleet.sql().await).await;
        let merged = merged_of(cells, cell).await;
        let found = differences(&log, &merged);
        match found.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} differ, first: {first}", found.len())),
        }
    })
    .await;
}

/// Waits until this cell's log has so many transitions more.
async fn goes_on(cell: &Cell) {
    let before = cell.fleet.log_length().await;
    eventually(&format!("{} to go on", cell.name), async || {
        let length = cell.fleet.log_length().await;
        if length >= before + SOME { Ok(()) } else { Err(length.to_string()) }
    })
    .await;
}

/// Waits until so many messages of this cell are on the merged stream.
async fn expect_merged_at_least(cells: &Cells, cell: &Cell, least: i64) {
    within(LONG, &format!("{least} of {} on the merged stream", cell.name), async || {
        let there = merged_of(cells, cell).await.len();
        if there as i64 >= least { Ok(()) } else { Err(there.to_string()) }
    })
    .await;
}

async fn merged_stream(cells: &Cells, name: &str) -> Stream {
    let jetstream = jetstream::new(cells.hub.clone());
    jetstream.get_stream(name).await.expect("a merged stream")
}

async fn each_cell_is_merged(version: Version, cut: Cut) {
    let cells = Cells::start(version, CALM).await;
    let [north, south] = &cells.cells;
    let north_traffic = Traffic::begin(&north.fleet, &north.pod, SATELLITES, EVERY).await;
    let south_traffic = Traffic::begin(&south.fleet, &south.pod, SATELLITES, EVERY).await;
    goes_on(north).await;
    cells.merge(STREAM).await;
    let merged = merged_stream(&cells, STREAM).await;
    let mut cursor = Cursor::default();
    let first = consume(&merged, &mut cursor, &[("north", SOME), ("south", SOME)]).await;

    north.cut_off(cut);
    goes_on(north).await;
    goes_on(south).await;
    expect_merged_at_least(&cells, south, south.fleet.log_length().await).await;
    let (there, appended) =
        (merged_of(&cells, north).await.len() as i64, north.fleet.log_length().await);
    assert!(there + SOME / 2 < appended, "{there} of {appended} came although north is cut off");
    north.join(cut);
    goes_on(north).await;
    north_traffic.end().await;
    south_traffic.end().await;
    for cell in &cells.cells {
        cell.fleet.check().await;
        expect_merged(&cells, cell).await;
        let ended = audit(&cell.fleet, &[]).await;
        assert!(ended.is_ok && ended.out.contains(&format!("cell    {}", cell.name)), "{ended:?}");
    }

    // The consumer starts again, at another stream of the same cells, which has them in another order.
    cells.merge(AGAIN).await;
    let again = merged_stream(&cells, AGAIN).await;
    let ends =
        [("north", north.fleet.log_length().await), ("south", south.fleet.log_length().await)];
    let second = consume(&again, &mut cursor, &ends).await;
    for cell in &cells.cells {
        let log = read_log(&cell.fleet.sql().await).await;
        let expected: Vec<String> = log.iter().map(|row| row.change_id.to_string()).collect();
        let handled = [&first, &second].map(|handled| handled.get(cell.name).cloned());
        assert_eq!(handled.into_iter().flatten().flatten().collect::<Vec<_>>(), expected);
    }
    a_repair_comes_over_under_its_epoch(&cells, north, &mut cursor).await;
    what_needs_a_cells_own_stream_refuses_the_merged_one(&cells, north).await;
}

/// The stream of a cell is built anew: the merged stream gets it once more, and the consumer handles none of it.
async fn a_repair_comes_over_under_its_epoch(cells: &Cells, cell: &Cell, cursor: &mut Cursor) {
    let before = cursor.clone();
    let repair = ["--repair", "--new-epoch", "--yes"];
    let nameless = audit(&cell.fleet, &repair).await;
    assert!(!nameless.is_ok && nameless.err.contains("set GROUNDSTATION_CELL"), "{nameless:?}");
    let repaired = audit(&cell.fleet, &[&repair[..], &["--cell", cell.name]].concat()).await;
    assert!(repaired.is_ok, "{repaired:?}");
    let length = cell.fleet.log_length().await;
    within(LONG, "the second epoch on the merged stream", async || {
        let merged = merged_of(cells, cell).await;
        let second = |message: &&StreamMessage| {
            message.headers.get("Groundstation-Epoch").is_some_and(|epoch| epoch == "2")
        };
        let positions: Vec<i64> =
            merged.iter().filter(second).filter_map(StreamMessage::position).collect();
        if positions.iter().copied().eq(1..=length) {
            Ok(())
        } else {
            Err(format!("{positions:?}"))
        }
    })
    .await;
    let merged = merged_stream(cells, STREAM).await;
    come_and_go(&cell.pod, &cell.pod.register("late", "eu").await).await;
    let handled = consume(&merged, cursor, &[(cell.name, length + 2)]).await;
    assert_eq!(handled.values().map(Vec::len).sum::<usize>(), 2, "{handled:?}");
    assert_eq!(cursor.0[cell.name], (2, length + 2));
    assert_eq!(before.0[cell.name], (1, length));
}

async fn what_needs_a_cells_own_stream_refuses_the_merged_one(cells: &Cells, cell: &Cell) {
    const MADE_OF_OTHERS: &str = "is made of other streams, as one that merges cells is";
    let (database_url, hub_url) = (cell.fleet.database_url.clone(), cells.hub_url.clone());
    let environment = [("DATABASE_URL", database_url), ("NATS_URL", hub_url.clone())];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    let (is_ok, _, said) = program::ran(&["audit"], &environment).await;
    assert!(!is_ok && said.contains(MADE_OF_OTHERS), "{said}");
    let stranger = Fleet::with_nats_at(CALM, hub_url).await;
    let pod = stranger.pod("stranger").await;
    let relay = expect_relay(&pod, "waiting").await;
    assert!(relay["reason"].as_str().is_some_and(|why| why.contains(MADE_OF_OTHERS)), "{relay}");
}

/// A hub whose question to the source was lost with the link may ask again only after half a minute.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_merged_stream_has_each_cells_log_once_and_in_order_though_a_cell_was_cut_off() {
    each_cell_is_merged(Version::Newest, Cut::Link).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_merged_stream_has_each_cells_log_once_and_in_order_though_a_cells_server_stood_still()
{
    each_cell_is_merged(Version::Newest, Cut::Server).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_merged_stream_has_each_cells_log_once_and_in_order_on_2_10() {
    each_cell_is_merged(Version::V2_10, Cut::Server).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_merged_stream_has_each_cells_log_once_and_in_order_on_2_11() {
    each_cell_is_merged(Version::V2_11, Cut::Server).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_merged_stream_has_each_cells_log_once_and_in_order_on_2_12() {
    each_cell_is_merged(Version::V2_12, Cut::Server).await;
}

/// The headers of the newest message of a stream.
async fn newest_headers(fleet: &Fleet, stream: &str) -> async_nats::HeaderMap {
    let jetstream = jetstream::new(fleet.nats().await);
    eventually(&format!("a message on {stream}"), async || {
        let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
        let last = stream.cached_info().state.last_sequence;
        let message = stream.get_raw_message(last).await.map_err(|error| error.to_string())?;
        Ok(message.headers)
    })
    .await
}

#[tokio::test]
async fn the_cell_is_named_on_transitions_results_and_replays_where_there_is_one_and_nowhere_else()
{
    for cell in [None, Some("north.1")] {
        let fleet = Fleet::new(CALM).await;
        let plan = fleet.plan("a");
        let plan = if let Some(cell) = cell { plan.with("GROUNDSTATION_CELL", cell) } else { plan };
        let pod = plan.start().await;
        let credentials = pod.register("edge", "eu").await;
        let assignment = json!({"configId": "c", "systemId": "s", "strategyId": "http",
                                "config": {}, "intervalSeconds": 60});
        pod.assign(credentials.id, &json!([assignment])).await;
        let (satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
        satellite.send(&json!({"type": "result", "configId": "c", "systemId": "s",
                               "status": "healthy", "executedAt": "2026-03-01T12:00:00Z"}));
        fleet.check().await;

        let mut replayed = fleet.nats().await.subscribe("again.>").await.expect("a subscription");
        let mut environment = vec![
            ("DATABASE_URL".to_owned(), fleet.database_url.clone()),
            ("NATS_URL".to_owned(), fleet.nats_url.clone()),
        ];
        environment.extend(cell.map(|cell| ("GROUNDSTATION_CELL".to_owned(), cell.to_owned())));
        let replay = ["replay", "--to", "nats", "--prefix", "again."];
        let (is_ok, _, said) = program::ran(&replay, &environment).await;
        assert!(is_ok, "{said}");
        let replayed = timeout(LONG, replayed.next()).await.expect("in time").expect("a message");

        let transition = newest_headers(&fleet, STREAM).await;
        let result = newest_headers(&fleet, "SATELLITE_RESULTS").await;
        let source =
            cell.map_or("/groundstation".to_owned(), |cell| format!("/groundstation/{cell}"));
        let text = |headers: &async_nats::HeaderMap, name: &str| {
            headers.get(name).map(|value| value.as_str().to_owned())
        };
        for headers in [&transition, replayed.headers.as_ref().expect("headers")] {
            assert_eq!(text(headers, "ce-source"), Some(source.clone()));
            assert_eq!(text(headers, CELL).as_deref(), cell);
        }
        assert_eq!(text(&result, CELL).as_deref(), cell);
    }
}

#[tokio::test]
async fn of_two_cells_on_one_stream_the_second_halts_and_says_whose_it_is() {
    let north = Fleet::new(CALM).await;
    let pod = north.plan("north").with("GROUNDSTATION_CELL", "north").start().await;
    expect_relay(&pod, "leading").await;
    come_and_go(&pod, &pod.register("edge", "eu").await).await;
    north.check().await;

    let south = Fleet::with_nats_at(CALM, north.nats_url.clone()).await;
    let stranger = south.plan("south").with("GROUNDSTATION_CELL", "south").start().await;
    let relay = expect_relay(&stranger, "halted").await;
    let reason = relay["reason"].as_str().expect("a reason");
    let expected = "the message is of cell north, and this pod of cell south";
    assert!(reason.contains(expected) && reason.contains("ahead of the log"), "{reason}");
    // As many of its own make it another contradiction.
    let credentials = stranger.register("edge", "eu").await;
    for _ in 0..2 {
        come_and_go(&stranger, &credentials).await;
    }
    eventually("the relay to see another change", async || {
        let relay = expect_relay(&stranger, "halted").await;
        let reason = relay["reason"].as_str().unwrap_or_default().to_owned();
        let is_seen = reason.contains("carries another change") && reason.contains(expected);
        if is_seen { Ok(()) } else { Err(reason) }
    })
    .await;
    let ended = audit(&south, &["--wait", "10ms"]).await;
    let of_north = |fault: &&str| fault.ends_with("(of cell north)");
    assert_eq!(ended.faults().into_iter().filter(of_north).count(), 2, "{ended:?}");

    // What the first one publishes meanwhile is its log, and nothing came between.
    come_and_go(&pod, &pod.register("other", "eu").await).await;
    north.check().await;
    assert_eq!(read_stream(&north.nats().await).await.len(), 4);
}
