//! The events of a run, line by line, on standard output and in a file, so that a failure can be
//! understood and repeated.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub struct Timeline {
    begun: Instant,
    file: Mutex<File>,
    pub folder: PathBuf,
}

impl Timeline {
    /// Starts a timeline, whose first line is the seed.
    pub fn begin(seed: u64, length: Duration) -> Timeline {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nemesis-{seed}"));
        std::fs::create_dir_all(&folder).expect("a folder for the timeline");
        let file = File::create(folder.join("timeline.txt")).expect("a file for the timeline");
        let timeline = Timeline { begun: Instant::now(), file: Mutex::new(file), folder };
        let file = timeline.folder.join("timeline.txt");
        timeline.say(&format!(
            "GROUNDSTATION_SEED={seed}, {} s; {}",
            length.as_secs(),
            file.display()
        ));
        timeline
    }

    pub fn say(&self, line: &str) {
        self.say_of(Instant::now(), line);
    }

    /// Notes an event of another moment.
    pub fn say_of(&self, moment: Instant, line: &str) {
        let at = moment.saturating_duration_since(self.begun).as_secs_f64();
        println!("{at:9.3} {line}");
        writeln!(self.file.lock().expect("the timeline"), "{at:9.3} {line}").expect("a line");
    }
}
