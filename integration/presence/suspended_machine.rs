//! A suspended machine stops the clock by which programs measure ages. What its pod heard before counts with its true
//! age all the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::harness::{BRISK, Fleet, Proxy, Satellite, eventually, within};

const RECEIVED: &str = "groundstation_heartbeats_received_total";
const TOO_OLD: &str = "groundstation_unchanged_edges_total{reason=\"heard_too_long_ago\"}";

/// Intercepts a process' reads of its monotonic clock, and subtracts the milliseconds that are in a file.
const STOPPED_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result != 0 || clock != CLOCK_MONOTONIC) return result;
    FILE *file = fopen(getenv("CLOCK_SUSPENDED_FILE"), "r");
    long milliseconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &milliseconds) != 1) milliseconds = 0;
        fclose(file);
    }
    long nanoseconds = now->tv_nsec - (milliseconds % 1000) * 1000000;
    now->tv_sec -= milliseconds / 1000 + (nanoseconds < 0);
    now->tv_nsec = nanoseconds + (nanoseconds < 0 ? 1000000000 : 0);
    return 0;
}
"#;

/// A folder with the intercepted clock in it.
fn stopped_clock() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock-suspended");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("clock.c"), STOPPED_CLOCK).expect("the source");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"])
        .current_dir(&folder)
        .status();
    assert!(compiled.expect("cc").success(), "the clock can be compiled");
    std::fs::write(folder.join("suspended"), "0").expect("the time");
    folder
}

#[tokio::test]
async fn what_was_heard_before_a_machine_was_suspended_brings_no_dead_satellite_back() {
    let fleet = Fleet::new(BRISK).await;
    let folder = stopped_clock();
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let suspended = fleet
        .plan("suspended")
        .with("DATABASE_URL", &database_url)
        .with("LD_PRELOAD", folder.join("clock.so").to_str().expect("a path"))
        .with("CLOCK_SUSPENDED_FILE", folder.join("suspended").to_str().expect("a path"))
        .start()
        .await;
    let other = fleet.pod("other").await;
    let credentials = other.register("edge", "eu").await;
    let satellite = Satellite::connect(suspended.address, &credentials).await;
    database.stall();
    let received = suspended.metric(RECEIVED).await;
    satellite.beat();
    suspended.expect_metric(RECEIVED, received + 1.0).await;

    suspended.suspend();
    let since = Instant::now();
    let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
    fleet.expect_history(credentials.id, &lost).await;
    within(fleet.timing.threshold * 3, "the heartbeat to be old", async || {
        if since.elapsed() > fleet.timing.threshold * 3 / 2 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let stopped = since.elapsed().as_millis();
    std::fs::write(folder.join("suspended"), stopped.to_string()).expect("the time");
    suspended.wake();
    database.resume();
    eventually("the late heartbeat to be decided", async || {
        let history = fleet.history(credentials.id).await;
        let decided = history.len() > lost.len() || suspended.metric(TOO_OLD).await >= 1.0;
        if decided { Ok(()) } else { Err(format!("{history:?}")) }
    })
    .await;
    assert_eq!(fleet.history(credentials.id).await, lost);
    satellite.beat();
    fleet.expect_history(credentials.id, &[lost[0], lost[1], "1 connected recovered"]).await;
    fleet.check().await;
}
