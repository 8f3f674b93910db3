//! No pod's wall clock decides anything: one that is five minutes off, or jumps, changes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use groundstation::wire::Timestamp;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::harness::fleet::Plan;
use crate::harness::{Agents, Fleet, Onlooker, Pod, Satellite, steady, within};

/// Stands between a process and its wall clock, and adds the seconds that are in a file.
const SHIFTED_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) {
    const char *path = getenv("CLOCK_SHIFT_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec time;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}
"#;

/// A folder with the shifted clock in it.
pub fn shifted_clock(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{name}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("clock.c"), SHIFTED_CLOCK).expect("the source");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"])
        .current_dir(&folder)
        .status();
    assert!(compiled.expect("cc").success(), "the clock can be compiled");
    folder
}

fn with_clock<'a>(plan: Plan<'a>, folder: &Path, seconds: i64) -> Plan<'a> {
    set(folder, seconds);
    plan.with("LD_PRELOAD", folder.join("clock.so").to_str().expect("a path"))
        .with("CLOCK_SHIFT_FILE", folder.join("shift").to_str().expect("a path"))
}

/// Shifts the clock of whoever has this folder's; whole or not at all.
pub fn set(folder: &Path, seconds: i64) {
    std::fs::write(folder.join("next"), seconds.to_string()).expect("the shift");
    std::fs::rename(folder.join("next"), folder.join("shift")).expect("the shift");
}

/// How far the clock of a pod is off, by what it logged when it began to listen.
async fn shift_of(pod: &Pod) -> f64 {
    let line = pod.expect_log("listening").await;
    let logged: Timestamp = line["timestamp"].as_str().expect("a time").parse().expect("a time");
    (logged.moment() - OffsetDateTime::now_utc()).as_seconds_f64()
}

#[tokio::test]
async fn pods_whose_clocks_are_five_minutes_off_or_jump_lose_nobody_and_tell_the_right_time() {
    let fleet = Fleet::new(steady()).await;
    let (fast, jumping) = (shifted_clock("fast"), shifted_clock("jumping"));
    let a = with_clock(fleet.plan("fast"), &fast, 300).start().await;
    let b = with_clock(fleet.plan("jumping"), &jumping, -300).start().await;
    assert!((shift_of(&a).await - 300.0).abs() < 60.0 && (shift_of(&b).await + 300.0).abs() < 60.0);
    let mut beating = fleet.register(&a, "beating", 12).await;
    let half = beating.split_off(6);
    let (on_a, on_b) =
        (Agents::start(&fleet, a.address, beating), Agents::start(&fleet, b.address, half));
    on_a.expect_all().await;
    on_b.expect_all().await;
    let silent = fleet.register(&a, "silent", 2).await;
    let _on_a = Satellite::connect(a.address, &silent[0]).await;
    let _on_b = Satellite::connect(b.address, &silent[1]).await;
    let connected = OffsetDateTime::now_utc();
    let onlooker = Onlooker::at(&fleet, &[a.address, b.address]);

    let jumps = tokio::spawn(async move {
        for seconds in [300, -300, 0, 86_400].into_iter().cycle() {
            set(&jumping, seconds);
            sleep(Duration::from_millis(700)).await;
        }
    });
    for satellite in &silent {
        let patience = fleet.timing.threshold * 2 + Duration::from_secs(30);
        within(patience, "the silent ones to be lost", async || {
            let history = fleet.history(satellite.id).await;
            if history.len() == 2 { Ok(()) } else { Err(format!("{history:?}")) }
        })
        .await;
        let page = b.get(&format!("/v1/satellites/{}/transitions", satellite.id)).await.json();
        let lost = &page["transitions"][1];
        assert_eq!(lost["event"], "heartbeat_lost");
        let at: Timestamp = lost["occurredAt"].as_str().expect("a time").parse().expect("a time");
        let off = (at.moment() - connected - fleet.timing.threshold).as_seconds_f64();
        assert!(off.abs() < 10.0, "{off} s off: {lost}");
    }
    jumps.abort();
    assert_eq!(onlooker.saw_offline("beating").await, [""; 0]);
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
    assert_eq!(on_a.authenticated() + on_b.authenticated(), 12);
    fleet.check().await;
}
