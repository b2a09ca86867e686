//! What Raft must not forget: entries, the hard state and a snapshot.
//!
//! ```text
//! DIR/lock             held while the directory is open
//! DIR/raft.log         a WAL; its first record says which snapshot it follows
//! DIR/snapshot-<i>     the state at index i: magic, crc32, zstd of the snapshot
//! ```
//!
//! Order of compaction: the new snapshot is on the disk, then a new `raft.log`
//! that follows it takes the old one's place, then the old snapshot goes. A
//! crash in between leaves a file too many, which the next opening removes.
//!
//! Owns the directory; knows nothing of what the entries mean.

use super::snapshot_file::{self, SnapshotError};
use super::wal::{Opened, Wal, WalError, io_error};
use prost_raft::Message;
use raft::eraftpb::{Entry, HardState, Snapshot};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// An open directory.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    wal: Wal,
    hard_state: HardState,
    /// Held, not read.
    _lock: File,
}

/// What the directory held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// The latest hard state.
    pub hard_state: HardState,
    /// The snapshot that the entries follow; empty before the first.
    pub snapshot: Snapshot,
    /// All entries after the snapshot.
    pub entries: Vec<Entry>,
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

/// One durable write. Raft's own messages are in their own encoding.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    /// First record only: the snapshot that the file follows.
    #[prost(uint64, tag = "1")]
    snapshot_index: u64,
    #[prost(bytes = "vec", optional, tag = "2")]
    hard_state: Option<Vec<u8>>,
    /// Replace those of the same and higher indices.
    #[prost(bytes = "vec", repeated, tag = "3")]
    entries: Vec<Vec<u8>>,
}

/// The bytes of one record.
fn encode(snapshot_index: u64, hard_state: Option<&HardState>, entries: &[Entry]) -> Vec<u8> {
    let hard_state = hard_state.map(Message::encode_to_vec);
    let entries = entries.iter().map(Message::encode_to_vec).collect();
    prost::Message::encode_to_vec(&Record { snapshot_index, hard_state, entries })
}

impl Log {
    /// Opens the log of a directory, or begins one that follows `initial`.
    ///
    /// # Errors
    /// The directory is in use, or holds something that can't be trusted.
    pub fn open(directory: &Path, initial: &Snapshot) -> Result<(Log, Recovered), LogError> {
        let lock = lock(directory)?;
        let path = directory.join("raft.log");
        if !path.exists() {
            return Log::begin(directory, lock, initial);
        }
        let Opened { wal, payloads, torn } = Wal::open(&path)?;
        if torn {
            tracing::warn!(path = %path.display(), "cut off an interrupted write at the end of the log");
        }
        let recovered = recover(directory, &path, &payloads)?;
        snapshot_file::remove_others(directory, recovered.snapshot.get_metadata().index)?;
        let hard_state = recovered.hard_state.clone();
        Ok((Log { directory: directory.into(), wal, hard_state, _lock: lock }, recovered))
    }

    fn begin(directory: &Path, lock: File, initial: &Snapshot) -> Result<(Log, Recovered), LogError> {
        let metadata = initial.get_metadata();
        let hard_state =
            HardState { term: metadata.term, commit: metadata.index, ..HardState::default() };
        snapshot_file::write(directory, initial)?;
        let wal = create(directory, metadata.index, &hard_state, &[])?;
        let recovered =
            Recovered { hard_state: hard_state.clone(), snapshot: initial.clone(), entries: Vec::new() };
        Ok((Log { directory: directory.into(), wal, hard_state, _lock: lock }, recovered))
    }

    /// Appends entries and the hard state; both are on the disk when this
    /// returns.
    ///
    /// # Errors
    /// Nothing is known of what was to be written.
    pub fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), LogError> {
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        Ok(self.wal.append(&encode(0, hard_state, entries))?)
    }

    /// Makes `snapshot` what the log follows, with only `entries` after it.
    ///
    /// # Errors
    /// Nothing is known of what was to be written.
    pub fn compact(&mut self, snapshot: &Snapshot, entries: &[Entry]) -> Result<(), LogError> {
        let index = snapshot.get_metadata().index;
        snapshot_file::write(&self.directory, snapshot)?;
        self.hard_state.commit = self.hard_state.commit.max(index);
        self.hard_state.term = self.hard_state.term.max(snapshot.get_metadata().term);
        self.wal = create(&self.directory, index, &self.hard_state, entries)?;
        Ok(snapshot_file::remove_others(&self.directory, index)?)
    }

    /// How many bytes the log takes, without the snapshot.
    pub fn len_bytes(&self) -> u64 {
        self.wal.len_bytes()
    }
}

fn create(
    directory: &Path,
    snapshot_index: u64,
    hard_state: &HardState,
    entries: &[Entry],
) -> Result<Wal, WalError> {
    let first = encode(snapshot_index, Some(hard_state), entries);
    Wal::create(&directory.join("raft.log"), &first)
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

fn recover(directory: &Path, path: &Path, payloads: &[Vec<u8>]) -> Result<Recovered, LogError> {
    let bad = |record, problem: String| LogError::Record { path: path.into(), record, problem };
    let mut recovered = Recovered::default();
    for (number, payload) in payloads.iter().enumerate() {
        let record: Record =
            prost::Message::decode(payload.as_slice()).map_err(|e| bad(number, e.to_string()))?;
        if number == 0 {
            recovered.snapshot = snapshot_file::read(directory, record.snapshot_index)?;
        }
        replay(&mut recovered, &record).map_err(|problem| bad(number, problem))?;
    }
    if payloads.is_empty() {
        return Err(bad(0, "is missing".into()));
    }
    Ok(recovered)
}

fn replay(recovered: &mut Recovered, record: &Record) -> Result<(), String> {
    if let Some(hard_state) = &record.hard_state {
        recovered.hard_state = HardState::decode(hard_state.as_slice()).map_err(|e| e.to_string())?;
    }
    let entries = record.entries.iter().map(|bytes| Entry::decode(bytes.as_slice()));
    let entries = entries.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    extend(&mut recovered.entries, recovered.snapshot.get_metadata().index + 1, entries)
}

/// Replaces what `log`, whose first entry has the index `first`, holds from
/// the first new entry on.
fn extend(log: &mut Vec<Entry>, first: u64, entries: Vec<Entry>) -> Result<(), String> {
    let Some(begin) = entries.first().map(|entry| entry.index) else { return Ok(()) };
    let kept = begin.checked_sub(first).and_then(|kept| usize::try_from(kept).ok());
    match kept {
        Some(kept) if kept <= log.len() => {
            log.truncate(kept);
            log.extend(entries);
            Ok(())
        }
        Some(_) | None => {
            Err(format!("has entry {begin}, but the log holds {} entries from {first} on", log.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![7; 50], ..Entry::default() }
    }

    fn snapshot(index: u64) -> Snapshot {
        let mut snapshot = Snapshot { data: vec![b's'; 5_000], ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = 1;
        metadata.mut_conf_state().voters = vec![1, 2, 3];
        snapshot
    }

    #[test]
    fn everything_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, first) = Log::open(directory.path(), &snapshot(1)).unwrap();
        assert_eq!((first.hard_state.commit, first.snapshot), (1, snapshot(1)));
        log.append(&[entry(2, 1), entry(3, 1), entry(4, 1)], None).unwrap();
        let vote = HardState { term: 2, vote: 3, commit: 2 };
        log.append(&[entry(3, 2)], Some(&vote)).unwrap();
        drop(log);
        let (_log, again) = Log::open(directory.path(), &snapshot(1)).unwrap();
        assert_eq!(again.entries, [entry(2, 1), entry(3, 2)]);
        assert_eq!(again.hard_state, vote);
    }

    #[test]
    fn compaction_keeps_the_vote_and_the_tail() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path(), &snapshot(1)).unwrap();
        let vote = HardState { term: 4, vote: 2, commit: 3 };
        log.append(&[entry(2, 1), entry(3, 1), entry(4, 4)], Some(&vote)).unwrap();
        log.compact(&snapshot(3), &[entry(4, 4)]).unwrap();
        drop(log);
        std::fs::write(directory.path().join("snapshot-1"), "left by a crash").unwrap();
        let (_log, again) = Log::open(directory.path(), &snapshot(1)).unwrap();
        assert_eq!((again.snapshot, again.hard_state), (snapshot(3), vote));
        assert_eq!(again.entries, [entry(4, 4)]);
        assert!(!directory.path().join("snapshot-1").exists());
    }

    #[test]
    fn one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let _log = Log::open(directory.path(), &snapshot(1)).unwrap();
        let second = Log::open(directory.path(), &snapshot(1));
        assert!(matches!(second, Err(LogError::InUse { .. })));
    }

    #[test]
    fn a_damaged_snapshot_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        drop(Log::open(directory.path(), &snapshot(1)).unwrap());
        let path = directory.path().join("snapshot-1");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = Log::open(directory.path(), &snapshot(1)).unwrap_err().to_string();
        assert!(error.contains("snapshot-1 is damaged"), "{error}");
    }

    #[test]
    fn a_gap_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(directory.path(), &snapshot(1)).unwrap();
        log.append(&[entry(5, 1)], None).unwrap();
        drop(log);
        let error = Log::open(directory.path(), &snapshot(1)).unwrap_err().to_string();
        assert!(error.contains("record 1"), "{error}");
    }
}
