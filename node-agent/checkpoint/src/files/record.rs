//! Records: what one frame holds.
//!
//! ```text
//! Start, Entry (the root), { Entry, Block* }*
//! ```
//!
//! A directory's entry comes before those of its children. Blocks belong to the file whose entry came last, in
//! ascending order; what lies between them is holes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use prost::{Enumeration, Message};
use thiserror::Error;

/// The format this version writes and reads.
pub(super) const FORMAT: u32 = 1;

/// Content goes in blocks of at most this size.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// The longest path (`PATH_MAX` without its end mark), and the longest component (`NAME_MAX`).
const LONGEST_PATH: usize = 4095;
const LONGEST_NAME: usize = 255;

/// One frame's content: a byte that says which, then the message; for a block the offset and the bare data, which is
/// by far the most there is to send and is therefore never copied.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record<'a> {
    Start(Start),
    Entry(Entry),
    Block(Block<'a>),
}

/// A piece of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
}

const START: u8 = 1;
const ENTRY: u8 = 2;
const BLOCK: u8 = 3;

impl<'a> Record<'a> {
    /// What comes before the data, and the data.
    pub(super) fn encode(&self) -> (Vec<u8>, &'a [u8]) {
        match self {
            Self::Start(start) => (tagged(START, start), &[]),
            Self::Entry(entry) => (tagged(ENTRY, entry), &[]),
            Self::Block(block) => {
                let offset = block.offset.to_le_bytes();
                (std::iter::once(BLOCK).chain(offset).collect(), block.data)
            }
        }
    }

    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let (tag, rest) = payload.split_first().ok_or(DecodeError::Kind)?;
        match *tag {
            START => Ok(Self::Start(Start::decode(rest)?)),
            ENTRY => Ok(Self::Entry(Entry::decode(rest)?)),
            BLOCK => {
                let (offset, data) = rest.split_first_chunk().ok_or(DecodeError::Kind)?;
                Ok(Self::Block(Block { offset: u64::from_le_bytes(*offset), data }))
            }
            _ => Err(DecodeError::Kind),
        }
    }
}

fn tagged(tag: u8, message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(message.encode_to_vec());
    bytes
}

/// A record that makes no sense.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// It is of no known kind, or too short.
    #[error("no record begins like this")]
    Kind,
    /// Its message is damaged.
    #[error("its message can't be decoded")]
    Message(#[from] prost::DecodeError),
}

/// The first record.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Start {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Unknown = 0,
    Directory = 1,
    File = 2,
    Symlink = 3,
    /// Another name of a file that came before.
    HardLink = 4,
    CharacterDevice = 5,
    BlockDevice = 6,
    Fifo = 7,
    Socket = 8,
}

/// One name in the tree.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    /// Relative to the root; empty for the root itself.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) path: Vec<u8>,
    #[prost(enumeration = "Kind", tag = "2")]
    pub(super) kind: i32,
    /// Permission bits, with set-uid, set-gid and sticky.
    #[prost(uint32, tag = "3")]
    pub(super) mode: u32,
    #[prost(uint32, tag = "4")]
    pub(super) uid: u32,
    #[prost(uint32, tag = "5")]
    pub(super) gid: u32,
    #[prost(int64, tag = "6")]
    pub(super) mtime_seconds: i64,
    #[prost(uint32, tag = "7")]
    pub(super) mtime_nanoseconds: u32,
    /// Of a file, holes included.
    #[prost(uint64, tag = "8")]
    pub(super) size: u64,
    /// Of a symlink: its text. Of a hard link: the path of the other name.
    #[prost(bytes = "vec", tag = "9")]
    pub(super) target: Vec<u8>,
    #[prost(uint32, tag = "10")]
    pub(super) major: u32,
    #[prost(uint32, tag = "11")]
    pub(super) minor: u32,
    #[prost(message, repeated, tag = "12")]
    pub(super) attributes: Vec<Attribute>,
}

/// One extended attribute.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// A path that may not be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the path {path:?} {reason}")]
pub struct InvalidPath {
    /// The path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Takes a path apart into its directory and its name, if it is one that stays where it belongs.
pub(super) fn checked(path: &[u8]) -> Result<(&Path, &OsStr), InvalidPath> {
    let refuse = |reason| Err(InvalidPath { path: PathBuf::from(OsStr::from_bytes(path)), reason });
    if path.len() > LONGEST_PATH {
        return refuse("is too long");
    }
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" => return refuse("is absolute or has an empty component"),
            b"." | b".." => return refuse("has a component . or .."),
            name if name.len() > LONGEST_NAME => return refuse("has a component that is too long"),
            name if name.contains(&0) => return refuse("has a NUL byte"),
            _ => {}
        }
    }
    let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    Ok((Path::new(OsStr::from_bytes(directory)), OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, parts: Option<(&str, &str)>) {
        let found = checked(path.as_bytes()).ok();
        assert_eq!(
            found,
            parts.map(|(directory, name)| (Path::new(directory), OsStr::new(name))),
            "{path:?}"
        );
    }

    #[test]
    fn only_paths_that_stay_inside_are_taken() {
        check("a", Some(("", "a")));
        check("a/b/c", Some(("a/b", "c")));
        check("...", Some(("", "...")));
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b"] {
            check(bad, None);
        }
        check(&"a".repeat(255), Some(("", &"a".repeat(255))));
        check(&"a".repeat(256), None);
        check(&vec!["abc"; 1100].join("/"), None);
    }
}
