//! The lines that a process has written to a pipe.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Reads a pipe beside the test, until the process has closed it.
pub struct Lines {
    read: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Lines {
    pub fn of(pipe: impl Read + Send + 'static) -> Lines {
        let read = Arc::new(Mutex::new(Vec::new()));
        let lines = read.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.lock().expect("lines").push(line);
            }
        });
        Lines { read, reader }
    }

    /// All so far.
    pub fn all(&self) -> Vec<String> {
        self.read.lock().expect("lines").clone()
    }

    /// The first that contains this.
    pub fn find(&self, text: &str) -> Option<String> {
        self.read.lock().expect("lines").iter().find(|line| line.contains(text)).cloned()
    }

    /// The last thirty.
    pub fn tail(&self) -> String {
        let lines = self.all();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Whether nothing more will come. The last lines of a process are read a moment after its end.
    pub fn are_complete(&self) -> bool {
        self.reader.is_finished()
    }
}
