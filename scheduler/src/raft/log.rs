//! What a replica must not forget: entries, the hard state and a snapshot, all
//! of them opaque here.
//!
//! ```text
//! DIR/lock             held while the directory is open
//! DIR/raft.log         a WAL; its first record names the snapshot that belongs to it
//! DIR/snapshot-<n>     magic, crc32, zstd of the snapshot
//! ```
//!
//! Order of compaction: the new snapshot is on the disk, then a new `raft.log`
//! that names it takes the old one's place, then the old snapshot goes. A
//! crash in between leaves a file too many, which the next opening removes.

use super::snapshot_file::{self, SnapshotError};
use super::wal::{Opened, Wal, WalError, io_error};
use prost::Message;
use scheduler_core::replica::{LogEntry, Persist, Recovered};
use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// An open directory.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    wal: Wal,
    kept: Kept,
    /// Held, not read.
    _lock: File,
}

/// What the files hold, for the next compaction.
#[derive(Debug, Default)]
struct Kept {
    /// The number of the snapshot's file; zero before the first.
    snapshot: u64,
    hard_state: Option<Vec<u8>>,
    entries: VecDeque<LogEntry>,
}

/// Why the log can't be opened or written. The process has to end then: what
/// it told others may not be on its disk.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file of entries.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Two schedulers with one directory.
    #[error("{path} is in use by another process")]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// An intact record that makes no sense; a defect, or another version.
    #[error("record {record} of {path} {problem}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Its number.
        record: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// One durable write.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    /// First record only: the number of the snapshot's file, or zero.
    #[prost(uint64, tag = "1")]
    snapshot: u64,
    #[prost(bytes = "vec", optional, tag = "2")]
    hard_state: Option<Vec<u8>>,
    /// Replace those of the same and higher indices.
    #[prost(message, repeated, tag = "3")]
    entries: Vec<EntryRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EntryRecord {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(bytes = "vec", tag = "2")]
    bytes: Vec<u8>,
}

impl Log {
    /// Opens a directory, which exists, and reads what it holds; nothing at
    /// first.
    ///
    /// # Errors
    /// The directory is in use, or holds something that can't be trusted.
    pub fn open(directory: &Path) -> Result<(Log, Recovered), LogError> {
        let lock = lock(directory)?;
        let path = directory.join("raft.log");
        let (wal, kept) = if path.exists() {
            let Opened { wal, payloads, torn } = Wal::open(&path)?;
            if torn {
                tracing::warn!(path = %path.display(), "cut off an interrupted write at the end of the log");
            }
            (wal, replay(&path, &payloads)?)
        } else {
            (Wal::create(&path, &encode(0, None, &[]))?, Kept::default())
        };
        snapshot_file::remove_others(directory, kept.snapshot)?;
        let snapshot = (kept.snapshot > 0).then(|| snapshot_file::read(directory, kept.snapshot));
        let recovered = Recovered {
            snapshot: snapshot.transpose()?,
            entries: kept.entries.iter().map(|entry| entry.bytes.clone()).collect(),
            hard_state: kept.hard_state.clone(),
        };
        Ok((Log { directory: directory.into(), wal, kept, _lock: lock }, recovered))
    }

    /// Stores; all of it is on the disk when this returns, or after a crash
    /// all of it or none.
    ///
    /// # Errors
    /// Nothing is known of what was to be written.
    pub fn save(&mut self, persist: Persist) -> Result<(), LogError> {
        if persist.clear_entries {
            self.kept.entries.clear();
        }
        if let Some(first) = persist.first_kept {
            let older = self.kept.entries.iter().take_while(|entry| entry.index < first).count();
            self.kept.entries.drain(..older);
        }
        let hard_state = persist.hard_state;
        if hard_state.is_some() {
            self.kept.hard_state.clone_from(&hard_state);
        }
        let rewrite = persist.clear_entries || persist.first_kept.is_some() || persist.snapshot.is_some();
        if rewrite {
            self.kept.extend(persist.entries);
            self.rewrite(persist.snapshot)
        } else {
            self.wal.append(&encode(0, hard_state, &persist.entries))?;
            self.kept.extend(persist.entries);
            Ok(())
        }
    }

    fn rewrite(&mut self, snapshot: Option<Vec<u8>>) -> Result<(), LogError> {
        if let Some(snapshot) = snapshot {
            self.kept.snapshot += 1;
            snapshot_file::write(&self.directory, self.kept.snapshot, &snapshot)?;
        }
        let kept = &mut self.kept;
        let first = encode(kept.snapshot, kept.hard_state.clone(), kept.entries.make_contiguous());
        self.wal = Wal::create(&self.directory.join("raft.log"), &first)?;
        Ok(snapshot_file::remove_others(&self.directory, self.kept.snapshot)?)
    }
}

impl Kept {
    /// Adds entries in place of those of the same and higher indices.
    fn extend(&mut self, entries: Vec<LogEntry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        let kept = self.entries.partition_point(|entry| entry.index < first);
        self.entries.truncate(kept);
        self.entries.extend(entries);
    }
}

fn encode(snapshot: u64, hard_state: Option<Vec<u8>>, entries: &[LogEntry]) -> Vec<u8> {
    let entries = entries.iter();
    let entries = entries.map(|e| EntryRecord { index: e.index, bytes: e.bytes.clone() }).collect();
    let mut bytes = Record { snapshot, hard_state, entries }.encode_to_vec();
    if bytes.is_empty() {
        // A frame is never empty: field 1 with its default value, spelt out.
        bytes.extend([0x08, 0x00]);
    }
    bytes
}

fn lock(directory: &Path) -> Result<File, LogError> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(|cause| io_error("create", &path, cause))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::InUse { path }),
        Err(TryLockError::Error(cause)) => Err(io_error("lock", &path, cause).into()),
    }
}

fn replay(path: &Path, payloads: &[Vec<u8>]) -> Result<Kept, LogError> {
    let bad = |record, problem: String| LogError::Record { path: path.into(), record, problem };
    let mut kept = Kept::default();
    for (number, payload) in payloads.iter().enumerate() {
        let record = Record::decode(payload.as_slice()).map_err(|e| bad(number, e.to_string()))?;
        if number == 0 {
            kept.snapshot = record.snapshot;
        }
        if record.hard_state.is_some() {
            kept.hard_state = record.hard_state;
        }
        let entries = record.entries.into_iter();
        kept.extend(entries.map(|e| LogEntry { index: e.index, bytes: e.bytes }).collect());
        if let Some((before, after)) = gap(&kept.entries) {
            return Err(bad(number, format!("has entry {after}, but the one before it is {before}")));
        }
    }
    if payloads.is_empty() {
        return Err(bad(0, "is missing".into()));
    }
    Ok(kept)
}

fn gap(entries: &VecDeque<LogEntry>) -> Option<(u64, u64)> {
    let pairs = entries.iter().zip(entries.iter().skip(1));
    pairs.map(|(a, b)| (a.index, b.index)).find(|(before, after)| before + 1 != *after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(indices: impl IntoIterator<Item = u64>, mark: u8) -> Vec<LogEntry> {
        indices.into_iter().map(|index| LogEntry { index, bytes: vec![mark; 50] }).collect()
    }

    fn append(entries: Vec<LogEntry>, hard_state: Option<&[u8]>) -> Persist {
        Persist { entries, hard_state: hard_state.map(<[u8]>::to_vec), ..Persist::default() }
    }

    fn reopened(log: Log, directory: &Path) -> (Log, Recovered) {
        drop(log);
        Log::open(directory).unwrap()
    }

    #[test]
    fn everything_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let (log, nothing) = Log::open(directory.path()).unwrap();
        assert!(nothing.snapshot.is_none() && nothing.entries.is_empty() && nothing.hard_state.is_none());
        let (mut log, _) = reopened(log, directory.path());
        log.save(append(entries(2..=4, 1), None)).unwrap();
        log.save(append(entries([3], 2), Some(b"vote"))).unwrap();
        let (_, found) = reopened(log, directory.path());
        assert_eq!(found.entries, [vec![1; 50], vec![2; 50]]);
        assert_eq!(found.hard_state.as_deref(), Some(b"vote".as_slice()));
    }

    #[test]
    fn compaction_keeps_the_vote_and_the_tail() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path()).unwrap();
        log.save(append(entries(2..=9, 1), Some(b"vote"))).unwrap();
        let snapshot = Some(b"state".to_vec());
        log.save(Persist { snapshot, first_kept: Some(8), ..Persist::default() }).unwrap();
        log.save(append(entries([10], 2), None)).unwrap();
        std::fs::write(directory.path().join("snapshot-7"), "left by a crash").unwrap();
        let (mut log, found) = reopened(log, directory.path());
        assert_eq!(found.snapshot.as_deref(), Some(b"state".as_slice()));
        assert_eq!(found.entries, [vec![1; 50], vec![1; 50], vec![2; 50]]);
        assert_eq!(found.hard_state.as_deref(), Some(b"vote".as_slice()));
        assert!(!directory.path().join("snapshot-7").exists());
        log.save(Persist { clear_entries: true, ..Persist::default() }).unwrap();
        assert!(reopened(log, directory.path()).1.entries.is_empty());
    }

    #[test]
    fn one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let _log = Log::open(directory.path()).unwrap();
        assert!(matches!(Log::open(directory.path()), Err(LogError::InUse { .. })));
    }

    #[test]
    fn a_damaged_snapshot_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path()).unwrap();
        log.save(Persist { snapshot: Some(vec![1; 5000]), ..Persist::default() }).unwrap();
        drop(log);
        let path = directory.path().join("snapshot-1");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = Log::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("snapshot-1 is damaged"), "{error}");
    }

    #[test]
    fn a_gap_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path()).unwrap();
        log.save(append(entries([2, 5], 1), None)).unwrap();
        drop(log);
        let error = Log::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("record 1"), "{error}");
    }
}
