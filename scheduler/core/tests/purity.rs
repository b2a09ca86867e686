//! This crate can't do I/O: whatever it depends on is listed here.

/// Each with the reason why it may be here.
const ALLOWED: [&str; 7] = [
    "dray-model", // the words
    "serde",      // commands and state become bytes
    "serde_json", // which bytes
    "thiserror",  // errors
    "raft",       // the algorithm, without transport or storage
    "prost-raft", // raft's messages become bytes
    "slog",       // raft's logger is an argument
];

#[test]
fn nothing_that_does_io_is_a_dependency() {
    let manifest = include_str!("../Cargo.toml");
    let section = manifest.split("[dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let lines = section.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names = lines.map(|line| line.split(['.', ' ', '=']).next().unwrap());
    for name in names {
        assert!(ALLOWED.contains(&name), "{name} is not on the list");
    }
}

#[test]
fn the_crate_forbids_unsafe_code_and_guards_its_matches() {
    let root = include_str!("../src/lib.rs");
    assert!(root.contains("#![forbid(unsafe_code)]"));
    assert!(root.contains("clippy::wildcard_enum_match_arm"));
}
