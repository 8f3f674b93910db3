//! A dropped partition as a file: gzip-compressed JSON lines, one transition a line.
//!
//! A line is a transition as the API shows it, with its `traceparent` if it has one. A file gets its final name only
//! when it is whole: it is written under another name, synced to disk, read back, and then renamed. Blocking code.
//! Knows neither the database nor what is dropped when.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::contract::wire::TransitionJson;
use crate::domain::lifecycle::Position;
use crate::log::Entry;

/// A longer line is not from an archive of ours.
const MAX_LINE: u64 = 1024 * 1024;

/// An archive that is being written.
pub struct Draft {
    folder: PathBuf,
    name: String,
    /// Removed on drop, unless it was renamed before.
    unfinished: PathBuf,
    encoder: GzEncoder<BufWriter<File>>,
    digest: Sha256,
    first: Position,
    last: Position,
    /// The position up to which it is written.
    through: Position,
}

/// What a file holds. Two files with the same digest hold the same lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The first position.
    pub first: Position,
    /// The last position. Between them every position is there once and in order.
    pub last: Position,
    digest: [u8; 32],
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    transition: TransitionJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

#[derive(Deserialize)]
struct Place {
    position: i64,
}

/// The name of the file that holds these positions. Names sort as positions do.
pub fn name(first: Position, last: Position) -> String {
    format!("transitions-{:020}-{:020}.jsonl.gz", first.0, last.0)
}

impl Draft {
    /// Begins the archive of these positions in `folder`, and makes the folder if needed. Removes what a crash left
    /// of an earlier try.
    pub fn begin(folder: &Path, first: Position, last: Position) -> anyhow::Result<Draft> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let name = name(first, last);
        let mark = format!(".{name}.");
        let entries = fs::read_dir(folder);
        for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&mark) {
                fs::remove_file(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        let unfinished = folder.join(format!("{mark}{}", uuid::Uuid::new_v4().simple()));
        let file = File::create_new(&unfinished)
            .with_context(|| format!("cannot write {}", unfinished.display()))?;
        Ok(Draft {
            folder: folder.to_owned(),
            name,
            unfinished,
            encoder: GzEncoder::new(BufWriter::new(file), Compression::default()),
            digest: Sha256::new(),
            first,
            last,
            through: Position(first.0 - 1),
        })
    }

    /// Adds the next transitions.
    pub fn add(&mut self, entries: &[Entry]) -> anyhow::Result<()> {
        for entry in entries {
            ensure!(
                entry.position.0 == self.through.0 + 1 && entry.position <= self.last,
                "position {} does not follow {} in {}",
                entry.position.0,
                self.through.0,
                self.name
            );
            let traceparent = entry.traceparent.as_deref();
            let mut line = serde_json::to_vec(&Line { transition: entry.to_json(), traceparent })?;
            line.push(b'\n');
            self.digest.update(&line);
            self.encoder
                .write_all(&line)
                .with_context(|| format!("cannot write {}", self.unfinished.display()))?;
            self.through = entry.position;
        }
        Ok(())
    }

    /// Makes the file durable, reads it back, and gives it its name.
    pub fn finish(mut self) -> anyhow::Result<PathBuf> {
        ensure!(
            self.through == self.last,
            "{} ends at position {} instead of {}",
            self.name,
            self.through.0,
            self.last.0
        );
        let written = self.close();
        written.with_context(|| format!("cannot write {}", self.unfinished.display()))?;
        let digest = std::mem::take(&mut self.digest).finalize().into();
        let expected = Contents { first: self.first, last: self.last, digest };
        let found = read_back(&self.unfinished)?;
        ensure!(found == expected, "{} reads back differently", self.unfinished.display());

        let file = self.folder.join(&self.name);
        // An earlier run may have stopped after this point. A file of another installation must not be overwritten.
        if file.exists() && read_back(&file).ok().as_ref() != Some(&expected) {
            bail!("{} is there and holds something else: use another folder", file.display());
        }
        fs::rename(&self.unfinished, &file)
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .with_context(|| format!("cannot name {}", file.display()))?;
        Ok(file)
    }

    fn close(&mut self) -> std::io::Result<()> {
        self.encoder.try_finish()?;
        let file = self.encoder.get_mut();
        file.flush()?;
        file.get_ref().sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Already gone if all went well. The next try removes what cannot be removed now.
        fs::remove_file(&self.unfinished).ok();
    }
}

/// Reads an archive to its end. Fails if it is damaged or its positions have a gap.
pub fn read_back(file: &Path) -> anyhow::Result<Contents> {
    let read = || {
        let mut lines = BufReader::new(MultiGzDecoder::new(File::open(file)?));
        let (mut first, mut last) = (None, Position::ZERO);
        let mut digest = Sha256::new();
        let mut line = Vec::new();
        while lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
            let place: Place = serde_json::from_slice(&line)?;
            let position = Position(place.position);
            if first.is_some() && position.0 != last.0 + 1 {
                bail!("position {} follows {}", position.0, last.0);
            }
            first = first.or(Some(position));
            last = position;
            digest.update(&line);
            line.clear();
        }
        let first = first.context("it is empty")?;
        Ok(Contents { first, last, digest: digest.finalize().into() })
    };
    read().with_context(|| format!("{} cannot be read back", file.display()))
}
