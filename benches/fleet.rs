//! Reading the fleet over HTTP and over NATS, against the bare query of the same rows.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use serde_json::json;
use uuid::Uuid;

use crate::pod::Pod;
use crate::stores::Stores;
use crate::table::{compared, millis, seconds};
use crate::timing::best;

/// The subject of the batched read of states.
const SUBJECT: &str = "groundstation.v1.satellites.states";

/// Satellites in one batched read: the maximum.
const STATES: usize = 1_000;

/// Lists all satellites, and reads the states of a thousand.
pub fn compare(stores: &Stores, ids: &[Uuid], aim: &str) {
    let (pod, _) = Pod::start(stores, "bench");
    let mut sql = stores.sql();
    let listed = best(3, || assert_eq!(list(&pod), ids.len()));
    let bare = best(3, || assert_eq!(list_bare(&mut sql), ids.len()));
    let what = format!("{} listed with their status, 1,000 a page", ids.len());
    compared(&what, seconds(listed), seconds(bare), bare / listed, aim);

    let asked = &ids[..STATES.min(ids.len())];
    let known = connected(&mut sql, asked);
    let body = bytes::Bytes::from(json!({ "ids": asked }).to_string());
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let nats = runtime.block_on(stores.nats());
    let ask = || runtime.block_on(nats.request(SUBJECT, body.clone()));
    // A pod is ready without NATS, and may still be signing on there.
    while ask().is_err_and(|error| error.kind() == RequestErrorKind::NoResponders) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let states = best(20, || {
        let answer = ask().expect("an answer");
        let states = std::str::from_utf8(&answer.payload).expect("text");
        assert_eq!(states.matches("\"lastEvent\":").count(), known, "{states}");
    });
    let bare =
        best(20, || assert_eq!(sql.query(ROWS, &[&asked]).expect("rows").len(), asked.len()));
    let what = format!("states of {} at once, over NATS", asked.len());
    compared(&what, millis(states), millis(bare), bare / states, aim);
}

/// How many satellites the pod lists, page by page. Their JSON is not parsed: that would be this
/// program's cost and not the pod's.
fn list(pod: &Pod) -> usize {
    pages(pod, "", |page| page.matches("\"createdAt\":").count()).iter().sum()
}

/// How many of those that the pod lists with this filter it says are online, and how many it lists.
pub fn online(pod: &Pod, filter: &str) -> (usize, usize) {
    let of_page = |page: &str| {
        (page.matches("\"status\":\"online\"").count(), page.matches("\"createdAt\":").count())
    };
    let pages = pages(pod, filter, of_page);
    pages.into_iter().fold((0, 0), |sum, page| (sum.0 + page.0, sum.1 + page.1))
}

/// What is found on each page of a list.
fn pages<T>(pod: &Pod, filter: &str, find: impl Fn(&str) -> T) -> Vec<T> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = pod.get(&format!("/v1/satellites?limit=1000{filter}{cursor}")).expect("a page");
        found.push(find(&page));
        let Some((_, rest)) = page.rsplit_once("\"nextCursor\":\"") else { return found };
        cursor = format!("&cursor={}", rest.split('"').next().expect("a cursor"));
    }
}

fn list_bare(sql: &mut postgres::Client) -> usize {
    let statement = sql.prepare(PAGE).expect("a statement");
    let (mut after, mut seen) = ((String::new(), Uuid::nil()), 0);
    loop {
        let rows = sql.query(&statement, &[&after.0, &after.1]).expect("a page");
        seen += rows.len();
        let Some(last) = rows.last() else { return seen };
        after = (last.get("name"), last.get("id"));
    }
}

fn connected(sql: &mut postgres::Client, ids: &[Uuid]) -> usize {
    let query = "select count(*) from satellite_connections where satellite_id = any($1)";
    sql.query_one(query, &[&ids]).expect("a count").get::<_, i64>(0) as usize
}

const PAGE: &str = "
    select s.id, s.name, s.region, s.tags, s.capabilities, s.version, s.offline_threshold_ms,
           s.created_at, c.last_event, c.last_heartbeat_at
      from satellites s left join satellite_connections c on c.satellite_id = s.id
     where (s.name, s.id) > ($1, $2) order by s.name, s.id limit 1000";

const ROWS: &str = "
    select s.id, s.name, s.region, s.offline_threshold_ms, c.last_event, c.last_heartbeat_at
      from satellites s left join satellite_connections c on c.satellite_id = s.id
     where s.id = any($1)";
