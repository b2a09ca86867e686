//! What a layer's archive says about one entry, checked.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dev, FileType, Timespec, makedev};
use tar::{EntryType, Header};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Why an entry cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// `..` in a path or hard link, or a whiteout of `.` or `..`.
    #[error("the path leads out of the layer")]
    Outside,
    /// A kind of entry a layer must not have.
    #[error("unsupported kind of entry `{}`", char::from(*.0))]
    Kind(u8),
    /// A number, time or name that cannot be.
    #[error("bad {field}")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// The header cannot be read.
    #[error("read the entry's header")]
    Header(#[source] io::Error),
    /// The content ends early.
    #[error("the content ends after {actual} of {expected} bytes")]
    Truncated {
        /// Bytes announced.
        expected: u64,
        /// Bytes there.
        actual: u64,
    },
    /// The file system refused.
    #[error("{action}")]
    Io {
        /// What we were doing.
        action: &'static str,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

/// What to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: OsString,
    },
    HardLink {
        target: PathBuf,
    },
    Special {
        kind: FileType,
        device: Dev,
    },
    /// Marks the archive, not a file.
    Nothing,
}

/// Owner, mode, time and extended attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) modified: Timespec,
    pub(super) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// A path of the archive relative to the layer's root; absolute ones mean the same.
pub(super) fn relative_path(bytes: &[u8]) -> Result<PathBuf, EntryError> {
    let mut path = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(EntryError::Outside),
        }
    }
    Ok(path)
}

/// What the entry asks to be created.
pub(super) fn read_node(entry: &tar::Entry<'_, impl Read>) -> Result<Node, EntryError> {
    let header = entry.header();
    let link =
        || entry.link_name_bytes().filter(|name| !name.is_empty()).ok_or(EntryError::Field { field: "link" });
    Ok(match header.entry_type() {
        EntryType::Directory => Node::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            Node::File { size: entry.size() }
        }
        EntryType::Symlink => Node::Symlink { target: std::ffi::OsStr::from_bytes(&link()?).to_owned() },
        EntryType::Link => Node::HardLink { target: relative_path(&link()?)? },
        EntryType::Char => special(FileType::CharacterDevice, header)?,
        EntryType::Block => special(FileType::BlockDevice, header)?,
        EntryType::Fifo => Node::Special { kind: FileType::Fifo, device: 0 },
        EntryType::XGlobalHeader => Node::Nothing,
        other => return Err(EntryError::Kind(other.as_byte())),
    })
}

fn special(kind: FileType, header: &Header) -> Result<Node, EntryError> {
    let major = header.device_major().map_err(EntryError::Header)?.unwrap_or(0);
    let minor = header.device_minor().map_err(EntryError::Header)?.unwrap_or(0);
    Ok(Node::Special { kind, device: makedev(major, minor) })
}

/// Reads what the header and its PAX records say; PAX wins.
pub(super) fn read_metadata(entry: &mut tar::Entry<'_, impl Read>) -> Result<Metadata, EntryError> {
    let mut modified = whole_seconds(entry.header())?;
    let mut xattrs = Vec::new();
    if let Some(records) = entry.pax_extensions().map_err(EntryError::Header)? {
        for record in records {
            let record = record.map_err(EntryError::Header)?;
            if record.key_bytes() == b"mtime" {
                modified =
                    record.value().ok().and_then(parse_time).ok_or(EntryError::Field { field: "mtime" })?;
            } else if let Some(name) = record.key_bytes().strip_prefix(XATTR_PREFIX) {
                xattrs.extend(accepted_xattr(name).then(|| {
                    (std::ffi::OsStr::from_bytes(name).to_owned(), record.value_bytes().to_owned())
                }));
            }
        }
    }
    let header = entry.header();
    Ok(Metadata {
        uid: id(header.uid(), "uid")?,
        gid: id(header.gid(), "gid")?,
        mode: header.mode().map_err(EntryError::Header)? & 0o7777,
        modified,
        xattrs,
    })
}

fn whole_seconds(header: &Header) -> Result<Timespec, EntryError> {
    let seconds = header.mtime().map_err(EntryError::Header)?;
    let tv_sec = i64::try_from(seconds).map_err(|_| EntryError::Field { field: "mtime" })?;
    Ok(Timespec { tv_sec, tv_nsec: 0 })
}

/// The largest id means "leave as it is" to chown(2), so it is none.
fn id(value: io::Result<u64>, field: &'static str) -> Result<u32, EntryError> {
    let value = value.map_err(EntryError::Header)?;
    u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or(EntryError::Field { field })
}

/// `trusted.overlay.*` would let an image redirect overlayfs to other paths; `security.selinux` and the like belong
/// to the host.
fn accepted_xattr(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

/// PAX times are decimal seconds, possibly negative and with a fraction.
fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = digits.parse().ok().filter(|nanos| *nanos >= 0)?;
    let (tv_sec, tv_nsec) = if text.starts_with('-') && nanos > 0 {
        (seconds.checked_sub(1)?, NANOS_PER_SECOND - nanos)
    } else {
        (seconds, nanos)
    };
    Some(Timespec { tv_sec, tv_nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (path, expected) in
            [("./a/b", "a/b"), ("/etc/x", "etc/x"), ("a//b/", "a/b"), ("./", ""), ("a/...", "a/...")]
        {
            assert_eq!(relative_path(path.as_bytes()).expect(path), Path::new(expected));
        }
        for path in ["..", "../a", "a/../../b", "a/..", "/.."] {
            assert!(matches!(relative_path(path.as_bytes()), Err(EntryError::Outside)), "{path}");
        }
    }

    #[test]
    fn times_are_decimal_seconds() {
        let table = [
            ("12", 12, 0),
            ("12.5", 12, 500_000_000),
            ("-1.25", -2, 750_000_000),
            ("1.1234567899", 1, 123_456_789),
        ];
        for (text, tv_sec, tv_nsec) in table {
            assert_eq!(parse_time(text), Some(Timespec { tv_sec, tv_nsec }), "{text}");
        }
        for text in ["", "x", "1.x", "1.-5"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn attributes_that_steer_the_host_are_left_out() {
        assert!(accepted_xattr(b"user.note") && accepted_xattr(b"security.capability"));
        assert!(!accepted_xattr(b"trusted.overlay.redirect") && !accepted_xattr(b"security.selinux"));
    }
}
