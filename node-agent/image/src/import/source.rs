//! Where an import reads from: an archive, staged file by file as it streams past, or a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use super::{ImportError, Staging};
use crate::compression::Decompressed;
use crate::image::{Blob, MAX_DOCUMENT_BYTES};
use crate::stream::{Entry, each_entry, read_document};

/// Layout archives hold a handful of files per layer; this is far beyond any image.
const MAX_ARCHIVE_ENTRIES: u64 = 100_000;
/// Links within an archive lead to a file in one step; more is a loop.
const MAX_LINK_STEPS: usize = 4;

/// The files of the image archive or directory that is being imported.
pub(crate) enum Source {
    /// An archive's files, all staged, by path.
    Archive(BTreeMap<String, Item>),
    /// A directory; its files are staged when asked for.
    Directory(OwnedFd),
}

/// What an archive has at a path.
pub(crate) enum Item {
    File(Blob),
    Link(String),
}

impl Source {
    /// Reads an archive, compressed or not, to its end.
    pub(crate) fn read_archive(reader: impl Read, staging: &mut Staging<'_>) -> Result<Self, ImportError> {
        let reader = Decompressed::new(reader).map_err(ImportError::Archive)?;
        let mut items = BTreeMap::new();
        each_entry(reader, MAX_ARCHIVE_ENTRIES, |entry| {
            let path = clean_path(&String::from_utf8_lossy(&entry.path_bytes()));
            if let Some(item) = stage_entry(&path, entry, staging)? {
                items.insert(path, item);
            }
            Ok(())
        })
        .map_err(|error| error.unify(ImportError::Archive))?;
        Ok(Self::Archive(items))
    }

    /// Opens an unpacked layout.
    pub(crate) fn open_directory(path: &Path) -> Result<Self, ImportError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|cause| ImportError::Entry { entry: path.display().to_string(), cause: cause.into() })?;
        Ok(Self::Directory(dir))
    }

    /// The file at this path, staged; `None` when there is none.
    pub(crate) fn find(&self, path: &str, staging: &mut Staging<'_>) -> Result<Option<Blob>, ImportError> {
        match self {
            Self::Archive(items) => Ok(follow(items, path)),
            Self::Directory(dir) => {
                let entry_error = |cause| ImportError::Entry { entry: path.to_owned(), cause };
                match open_beneath(dir, path).map_err(entry_error)? {
                    Some(file) => staging.add(file).map(Some).map_err(entry_error),
                    None => Ok(None),
                }
            }
        }
    }

    /// The JSON document at this path; `None` when there is none.
    pub(crate) fn document<T: DeserializeOwned>(
        &self,
        path: &str,
        staging: &mut Staging<'_>,
    ) -> Result<Option<T>, ImportError> {
        let Some(blob) = self.find(path, staging)? else { return Ok(None) };
        parse_document(path, &blob, staging).map(Some)
    }
}

/// Parses a staged or stored blob as JSON.
pub(crate) fn parse_document<T: DeserializeOwned>(
    path: &str,
    blob: &Blob,
    staging: &Staging<'_>,
) -> Result<T, ImportError> {
    let bytes = staging
        .open(&blob.digest)
        .and_then(|file| read_document(file, MAX_DOCUMENT_BYTES))
        .map_err(|cause| ImportError::Entry { entry: path.to_owned(), cause })?;
    serde_json::from_slice(&bytes).map_err(|cause| ImportError::Document { path: path.to_owned(), cause })
}

fn stage_entry(
    path: &str,
    entry: &mut Entry<'_, impl Read>,
    staging: &mut Staging<'_>,
) -> Result<Option<Item>, ImportError> {
    let kind = entry.header().entry_type();
    if kind.is_file() || kind.is_contiguous() {
        let expected = entry.size();
        let entry_error = |cause| ImportError::Entry { entry: path.to_owned(), cause };
        let blob = staging.add(entry).map_err(entry_error)?;
        if blob.size != expected {
            return Err(entry_error(io::ErrorKind::UnexpectedEof.into()));
        }
        return Ok(Some(Item::File(blob)));
    }
    let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
    Ok(match target {
        Some(target) if kind.is_symlink() => Some(Item::Link(beside(path, &target))),
        Some(target) if kind.is_hard_link() => Some(Item::Link(clean_path(&target))),
        Some(_) | None => None,
    })
}

fn follow(items: &BTreeMap<String, Item>, path: &str) -> Option<Blob> {
    let mut path = clean_path(path);
    for _ in 0..MAX_LINK_STEPS {
        match items.get(&path)? {
            Item::File(blob) => return Some(blob.clone()),
            Item::Link(target) => path.clone_from(target),
        }
    }
    None
}

/// A symbolic link's target as a path of the archive. Only text is computed; no file system is asked.
fn beside(link: &str, target: &str) -> String {
    let parent = link.rsplit_once('/').map_or("", |(parent, _)| parent);
    if target.starts_with('/') { clean_path(target) } else { clean_path(&format!("{parent}/{target}")) }
}

/// Without empty, `.` and `..` components; `..` never leaves the root.
fn clean_path(path: &str) -> String {
    let mut clean: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean.join("/")
}

/// Opens a regular file whose path may come out of an untrusted document: it stays beneath the directory.
fn open_beneath(dir: &OwnedFd, path: &str) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(dir, PathBuf::from(path), flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(cause) => return Err(cause.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_without_leaving_the_root() {
        for (path, clean) in
            [("./a/b", "a/b"), ("/a//b/.", "a/b"), ("../../a", "a"), ("a/../../b", "b"), ("", "")]
        {
            assert_eq!(clean_path(path), clean);
        }
        assert_eq!(beside("1/layer.tar", "../2/layer.tar"), "2/layer.tar");
    }
}
