//! Streams that a correct sender never makes. Nothing outside the directory may be touched, and nothing may panic.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::frame::FrameWriter;
use super::record::{Attribute, Block, Entry, FORMAT, Kind, Record, Start};
use super::{UnpackError, unpack};

fn entry(kind: Kind, path: &str) -> Entry {
    Entry { path: path.into(), kind: kind as i32, mode: 0o755, ..Entry::default() }
}

fn link_to(kind: Kind, path: &str, target: &str) -> Entry {
    Entry { target: target.into(), ..entry(kind, path) }
}

fn stream(records: Vec<Record<'_>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FrameWriter::new(&mut out);
    for record in records {
        let (head, data) = record.encode();
        writer.write(&head, data).unwrap();
    }
    writer.finish().unwrap();
    out
}

fn start() -> Record<'static> {
    Record::Start(Start { format: FORMAT })
}

/// A stream that begins well and goes on with `entries`.
fn after_root(entries: Vec<Entry>) -> Vec<u8> {
    let root = Record::Entry(entry(Kind::Directory, ""));
    stream([start(), root].into_iter().chain(entries.into_iter().map(Record::Entry)).collect())
}

/// Unpacks beside a directory that must stay as it is.
fn refused(stream: &[u8]) -> UnpackError {
    let home = TempDir::new().unwrap();
    let (inside, outside) = (home.path().join("inside"), home.path().join("outside"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), b"untouched").unwrap();
    let error = unpack(stream, &inside).unwrap_err();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    error
}

#[track_caller]
fn check_entries(entries: Vec<Entry>, says: &str) {
    let error = refused(&after_root(entries));
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(format!("{error} {cause}").contains(says), "{error} {cause}");
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../outside/file", "/etc/passwd", "a/../../outside/x", "..", ".", "a//b"] {
        check_entries(vec![entry(Kind::Directory, "a"), entry(Kind::File, path)], "path");
    }
}

#[test]
fn nothing_goes_through_a_symlink() {
    let out = || link_to(Kind::Symlink, "out", "../outside");
    check_entries(vec![out(), entry(Kind::File, "out/new")], "enter out");
    check_entries(vec![out(), entry(Kind::File, "out")], "create out");
    check_entries(vec![out(), entry(Kind::Directory, "out")], "make out");
    let file = || link_to(Kind::Symlink, "file", "../outside/file");
    check_entries(vec![file(), entry(Kind::File, "file")], "create file");
    check_entries(vec![out(), link_to(Kind::HardLink, "mine", "out/file")], "enter out");
    // A symlink within the tree is no way either: it could be made to point elsewhere later.
    let within = vec![entry(Kind::Directory, "dir"), link_to(Kind::Symlink, "way", "dir")];
    check_entries([within, vec![entry(Kind::File, "way/file")]].concat(), "enter way");
}

#[test]
fn hard_links_stay_inside() {
    check_entries(vec![link_to(Kind::HardLink, "mine", "../outside/file")], "path");
    check_entries(vec![link_to(Kind::HardLink, "mine", "nothing")], "link mine");
    check_entries(vec![link_to(Kind::HardLink, "mine", "")], "path");
}

#[test]
fn a_link_to_a_symlink_is_not_followed() {
    let home = TempDir::new().unwrap();
    let entries = vec![link_to(Kind::Symlink, "out", "/etc/passwd"), link_to(Kind::HardLink, "mine", "out")];
    unpack(after_root(entries).as_slice(), home.path()).unwrap();
    assert!(fs::symlink_metadata(home.path().join("mine")).unwrap().is_symlink());
}

#[test]
fn entries_out_of_order_are_refused() {
    check_entries(vec![entry(Kind::File, "missing/file")], "enter missing");
    check_entries(vec![entry(Kind::File, "twice"), entry(Kind::File, "twice")], "create twice");
    check_entries(vec![entry(Kind::Unknown, "what")], "unknown kind");
    check_entries(vec![Entry { uid: u32::MAX, ..entry(Kind::File, "a") }], "owner");
    check_entries(vec![Entry { mode: 0o100_644, ..entry(Kind::File, "a") }], "mode");
    let twice = Attribute { name: b"user.a".to_vec(), value: vec![] };
    check_entries(vec![Entry { attributes: vec![twice.clone(), twice], ..entry(Kind::File, "a") }], "twice");
}

#[track_caller]
fn check_records(records: Vec<Record<'_>>, says: &str) {
    let error = refused(&stream(records)).to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn records_out_of_order_are_refused() {
    let root = || Record::Entry(entry(Kind::Directory, ""));
    let file = || Record::Entry(Entry { size: 10, ..entry(Kind::File, "file") });
    let block = |offset, length| Record::Block(Block { offset, data: &[1; 9][..length] });
    check_records(vec![], "empty");
    check_records(vec![root()], "does not begin");
    check_records(vec![Record::Start(Start { format: 99 })], "format 99");
    check_records(vec![start()], "no root");
    check_records(vec![start(), file()], "first entry is not the root");
    check_records(vec![start(), root(), start()], "second beginning");
    check_records(vec![start(), root(), block(0, 1)], "without a file");
    check_records(vec![start(), root(), file(), block(8, 3)], "beyond");
    check_records(vec![start(), root(), file(), block(u64::MAX, 3)], "beyond");
    check_records(vec![start(), root(), file(), block(4, 2), block(5, 1)], "out of order");
    check_records(vec![start(), root(), file(), block(4, 0)], "out of order");
}

#[test]
fn a_directory_that_is_used_already_is_refused() {
    let home = TempDir::new().unwrap();
    symlink("/etc", home.path().join("way")).unwrap();
    let error = unpack(after_root(vec![]).as_slice(), home.path()).unwrap_err();
    assert!(matches!(error, UnpackError::NotEmpty { .. }));
    assert_eq!(fs::read_link(home.path().join("way")).unwrap(), Path::new("/etc"));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let path = prop::sample::select(vec!["a", "b", "a/b", "b/a", "a/b/c", "../outside/file", "/", "a/.."]);
    (path.clone(), path, 0..9_i32, any::<u32>(), any::<u64>(), any::<i64>()).prop_map(
        |(path, target, kind, number, size, time)| Entry {
            path: path.into(),
            target: target.into(),
            kind,
            mode: number & 0o7777,
            uid: number,
            mtime_seconds: time,
            size: size >> (number % 64),
            major: number >> 16,
            minor: number,
            ..Entry::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_entries_touch_nothing_outside(entries in prop::collection::vec(any_entry(), 1..12)) {
        let out = entry(Kind::Unknown, "end");
        refused(&after_root([entries, vec![out]].concat()));
    }

    #[test]
    fn random_bytes_in_good_frames_do_not_panic(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..8)) {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        payloads.iter().for_each(|payload| writer.write(payload, &[]).unwrap());
        writer.finish().unwrap();
        refused(&bytes);
    }
}
