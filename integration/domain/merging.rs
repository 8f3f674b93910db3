//! Lists are merged in SQL, in one place: here by the rule as the guide says it, for sets and lists of all kinds.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use crate::harness::{CALM, Fleet};

const CASES: u32 = 200;

type Tags = BTreeMap<String, String>;
/// A config and a system.
type Pair = (u8, u8);

#[derive(Debug, Clone)]
struct Set {
    name: &'static str,
    region: Option<&'static str>,
    tags: Tags,
    priority: i32,
    pairs: Vec<Pair>,
}

#[derive(Debug, Clone)]
struct Case {
    region: &'static str,
    tags: Tags,
    own: Vec<Pair>,
    sets: Vec<Set>,
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let all: Vec<Pair> =
        (0..3).flat_map(|config| (0..2).map(move |system| (config, system))).collect();
    prop::sample::subsequence(all, 0..=5).prop_shuffle()
}

fn tags() -> impl Strategy<Value = Tags> {
    let some = [("tier", "gold"), ("tier", "iron"), ("rack", "7")];
    prop::sample::subsequence(some.to_vec(), 0..=2)
        .prop_map(|tags| tags.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
}

fn set(name: &'static str) -> impl Strategy<Value = Set> {
    let region = prop_oneof![2 => Just(None), 2 => Just(Some("eu")), 1 => Just(Some("us"))];
    (region, tags(), -1..=1_i32, pairs()).prop_map(move |(region, tags, priority, pairs)| Set {
        name,
        region,
        tags,
        priority,
        pairs,
    })
}

fn case() -> impl Strategy<Value = Case> {
    // In another order by most locales than by their bytes.
    let names = ["a.b", "a_b", "ab", "a-c"];
    let sets = prop::sample::subsequence(names.to_vec(), 0..=4)
        .prop_flat_map(|names| names.into_iter().map(set).collect::<Vec<_>>());
    (prop_oneof![Just("eu"), Just("us")], tags(), pairs(), sets)
        .prop_map(|(region, tags, own, sets)| Case { region, tags, own, sets })
}

fn list(from: &str, pairs: &[Pair]) -> Vec<Value> {
    let of = |(config, system): &Pair| {
        json!({"configId": format!("c{config}"), "systemId": format!("s{system}"), "strategyId": "http",
               "config": {"from": from}, "intervalSeconds": 60})
    };
    pairs.iter().map(of).collect()
}

/// The rule: its own list, then the sets that are for it, the greatest priority and then the first name first; of each
/// pair the first counts.
fn expected(case: &Case) -> Vec<(Option<String>, Value)> {
    let is_for = |set: &&Set| {
        set.region.is_none_or(|region| region == case.region)
            && set.tags.iter().all(|(name, value)| case.tags.get(name) == Some(value))
    };
    let mut sets: Vec<&Set> = case.sets.iter().filter(is_for).collect();
    sets.sort_by_key(|set| (-set.priority, set.name));
    let own = list("own", &case.own).into_iter().map(|each| (None, each));
    let of_sets = sets.iter().flat_map(|set| {
        list(set.name, &set.pairs).into_iter().map(|each| (Some(set.name.to_owned()), each))
    });
    let mut merged: Vec<(Option<String>, Value)> = Vec::new();
    for (set, each) in own.chain(of_sets) {
        let pair = |each: &Value| (each["configId"].clone(), each["systemId"].clone());
        if merged.iter().all(|(_, other)| pair(other) != pair(&each)) {
            merged.push((set, each));
        }
    }
    merged
}

async fn merged(sql: &mut Client, case: &Case) -> Vec<(Option<String>, Value)> {
    let transaction = sql.transaction().await.expect("a transaction");
    for set in &case.sets {
        let list = Json(list(set.name, &set.pairs));
        let insert = "
            insert into assignment_sets (name, region, tags, priority, assignments, count, bytes, version)
            values ($1, $2, $3, $4, $5, 1, 1, 1)";
        let inserted = transaction
            .execute(insert, &[&set.name, &set.region, &Json(&set.tags), &set.priority, &list])
            .await;
        inserted.expect("a set");
    }
    let select = "select set_name, assignment from merged_assignments($1, $2, $3) order by place";
    let own = Json(list("own", &case.own));
    let rows = transaction.query(select, &[&case.region, &Json(&case.tags), &own]).await;
    let rows = rows.expect("the function");
    transaction.rollback().await.expect("undone");
    let assignment = |row: &tokio_postgres::Row| {
        let Json(assignment) = row.get(1);
        (row.get(0), assignment)
    };
    rows.iter().map(assignment).collect()
}

#[test]
fn its_own_list_comes_first_then_the_greatest_priority_and_of_each_pair_the_first_counts() {
    let runtime = Runtime::new().expect("a runtime");
    let fleet = runtime.block_on(Fleet::new(CALM));
    let sql = RefCell::new(runtime.block_on(fleet.sql()));
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let checked = TestRunner::new(config).run(&case(), |case| {
        let found = runtime.block_on(merged(&mut sql.borrow_mut(), &case));
        prop_assert_eq!(&found, &expected(&case));
        Ok(())
    });
    checked.expect("the rule");
    runtime.block_on(async { drop(fleet) });
}
