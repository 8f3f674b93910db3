//! A wall clock that a test moves. It stands between a process and the system's clock.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::stores;

/// Adds the seconds in a file, or returns the microsecond behind `=` in it. Allocates nothing, because
/// Postgres asks for the time in signal handlers.
const SHIFTED_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void shift(struct timespec *now) {
    char text[32] = {0};
    const char *path = getenv("CLOCK_SHIFT_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return;
    if (text[0] == '=') {
        long long moment = atoll(text + 1);
        now->tv_sec = moment / 1000000;
        now->tv_nsec = moment % 1000000 * 1000;
    } else {
        now->tv_sec += atol(text);
    }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) shift(now);
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

/// A clock that a test moves. After it is dropped its processes have the right time.
pub struct Clock {
    folder: PathBuf,
}

impl Clock {
    /// A clock that shows the right time.
    pub fn new() -> Clock {
        // In a folder that the account running Postgres can read.
        let folder = std::env::temp_dir().join(format!("groundstation-clock-{}", stores::random()));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("clock.c"), SHIFTED_CLOCK).expect("the source");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"])
            .current_dir(&folder)
            .status();
        assert!(compiled.expect("cc").success(), "the clock can be compiled");
        let clock = Clock { folder };
        clock.shift(0);
        clock
    }

    /// The environment that gives a process this clock.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = |name| self.folder.join(name).to_str().expect("a path").to_owned();
        [("LD_PRELOAD", path("clock.so")), ("CLOCK_SHIFT_FILE", path("shift"))]
    }

    /// Makes the clock this many seconds fast.
    pub fn shift(&self, seconds: i64) {
        self.set(&seconds.to_string());
    }

    /// Stops the clock at a moment, in microseconds since 1970.
    pub fn stop_at(&self, microseconds: i64) {
        self.set(&format!("={microseconds}"));
    }

    /// Writes the file whole or not at all.
    fn set(&self, text: &str) {
        fs::write(self.folder.join("next"), text).expect("the shift");
        fs::rename(self.folder.join("next"), self.folder.join("shift")).expect("the shift");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}
