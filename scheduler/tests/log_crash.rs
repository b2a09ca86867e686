//! `kill -9` of a process that writes the log, at random moments: nothing that
//! it acknowledged is lost, and the log can always be opened.
//!
//! The child is this same test binary, told by its environment to write.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use dray_scheduler::raft::log::Log;
use scheduler_core::replica::{LogEntry, Persist};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "DRAY_TEST_LOG_DIRECTORY";
const CRASHES: u64 = 40;
/// A snapshot is taken this often, so that some crashes hit a compaction.
const COMPACTION: u64 = 37;

/// What entry `index` holds; large enough to span pages.
fn content(index: u64) -> Vec<u8> {
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.resize(8 + usize::try_from(index * 97 % 9_000).unwrap(), 0xa5);
    bytes
}

fn first_index(held: &[Vec<u8>]) -> Option<u64> {
    held.first().map(|bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap()))
}

/// The next index that a log wants; checks all that it holds.
fn check(directory: &Path) -> (Log, u64) {
    let (log, held) = Log::open(directory).unwrap();
    let snapshot = held.snapshot.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let first = first_index(&held.entries).unwrap_or(snapshot + 1);
    assert!(first <= snapshot + 1, "entries {} to {first} are missing", snapshot + 1);
    for (index, bytes) in (first..).zip(&held.entries) {
        assert!(*bytes == content(index), "entry {index} differs");
    }
    let next = first + held.entries.len() as u64;
    assert!(held.hard_state.is_none_or(|commit| u64::from_le_bytes(commit.try_into().unwrap()) < next));
    (log, next)
}

/// Writes until it is killed, and says what is durable.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let (mut log, mut next) = check(&directory);
    let mut out = std::io::stdout();
    loop {
        let batch = 1 + next % 3;
        let entries = (next..next + batch).map(|index| LogEntry { index, bytes: content(index) }).collect();
        let hard_state = Some((next + batch - 1).to_le_bytes().to_vec());
        log.save(Persist { entries, hard_state, ..Persist::default() }).unwrap();
        writeln!(out, "durable {}", next + batch - 1).unwrap();
        next += batch;
        if next % COMPACTION < batch {
            let snapshot = Some((next - 1).to_le_bytes().to_vec());
            log.save(Persist { snapshot, first_kept: Some(next - 5), ..Persist::default() }).unwrap();
        }
    }
}

/// Lets a child write for a while and kills it; the last that it acknowledged.
fn crash(directory: &Path, after: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let reader = std::thread::spawn(move || {
        lines.filter_map(|line| line.strip_prefix("durable ")?.parse().ok()).last().unwrap_or(0)
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost() {
    if std::env::var_os(DIRECTORY).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let random = RandomState::new();
    let mut acknowledged = 0;
    for n in 0..CRASHES {
        let after = Duration::from_millis(10) + Duration::from_micros(random.hash_one(n) % 60_000);
        acknowledged = crash(directory.path(), after).max(acknowledged);
        let (_, next) = check(directory.path());
        assert!(next > acknowledged, "crash {n} after {after:?}: {acknowledged} was durable, {next} is next");
    }
    assert!(acknowledged > CRASHES, "the children got something done: {acknowledged}");
}
