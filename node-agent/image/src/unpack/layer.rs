//! One layer's tar, entry by entry, into a tree: files, and marks for what lower layers lose.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::entry::{EntryError, Node, read_metadata, read_node, relative_path};
use super::tree::{Place, Tree};
use super::{LayerError, UnpackLimits};
use crate::stream::{Entry, Limited, each_entry};

const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// aufs' own bookkeeping, in archives of old Docker versions.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// Unpacks an uncompressed layer into the empty directory `root`, and reads the archive to its end.
pub(super) fn unpack(reader: impl Read, root: &Path, limits: &UnpackLimits) -> Result<(), LayerError> {
    let tree = Tree::new(root).map_err(LayerError::Begin)?;
    let mut unpacker = Unpacker { tree, bytes_left: limits.max_bytes };
    each_entry(reader, limits.max_entries, |entry| {
        unpacker.apply(entry).map_err(|cause| LayerError::Entry {
            entry: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            cause,
        })
    })
    .map_err(|error| error.unify(LayerError::Archive))?;
    unpacker.tree.finish().map_err(LayerError::Publish)
}

struct Unpacker {
    tree: Tree,
    /// Sparse files can be larger than their part of the archive, so files are counted besides it.
    bytes_left: u64,
}

impl Unpacker {
    fn apply<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), EntryError> {
        let path = relative_path(&entry.path_bytes())?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        if name == OPAQUE_MARK {
            let place = self.tree.place(&path).map_err(io_error("find the directory"))?;
            return self.tree.opaque_parent(&place).map_err(io_error("make the directory opaque"));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT_PREFIX) {
            Some(hidden) => self.hide(&path, hidden),
            None => self.create(&path, entry),
        }
    }

    fn hide(&mut self, mark: &Path, hidden: &[u8]) -> Result<(), EntryError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryError::Outside);
        }
        let path = mark.with_file_name(std::ffi::OsStr::from_bytes(hidden));
        let place = self.tree.place(&path).map_err(io_error("find the directory"))?;
        self.tree.whiteout(&place).map_err(io_error("create the whiteout"))
    }

    fn create<R: Read>(&mut self, path: &Path, entry: &mut Entry<'_, R>) -> Result<(), EntryError> {
        let node = read_node(entry)?;
        let metadata = read_metadata(entry)?;
        let place = self.tree.place(path).map_err(io_error("find the directory"))?;
        match &node {
            Node::Nothing => return Ok(()),
            Node::Directory => {
                self.tree.directory(&place).map_err(io_error("create the directory"))?;
                self.tree.time_directory(path, metadata.modified);
            }
            Node::File { size } => self.write_file(&place, *size, entry)?,
            Node::Symlink { target } => {
                self.tree.symlink(&place, target).map_err(io_error("create the symbolic link"))?;
            }
            Node::Special { kind, device } => {
                self.tree.special(&place, *kind, *device).map_err(io_error("create the device or FIFO"))?;
            }
            // Another name of a file that has its metadata already.
            Node::HardLink { target } => return self.link(&place, target),
        }
        let is_symlink = matches!(node, Node::Symlink { .. });
        place.set_metadata(&metadata, is_symlink).map_err(io_error("set owner, mode and attributes"))?;
        place.set_time(metadata.modified).map_err(io_error("set the time"))
    }

    fn write_file<R: Read>(
        &mut self,
        place: &Place,
        expected: u64,
        entry: &mut Entry<'_, R>,
    ) -> Result<(), EntryError> {
        let mut file = self.tree.file(place).map_err(io_error("create the file"))?;
        let mut content = Limited::new(entry, self.bytes_left);
        let actual = io::copy(&mut content, &mut file).map_err(io_error("write the file"))?;
        self.bytes_left -= actual;
        if actual == expected { Ok(()) } else { Err(EntryError::Truncated { expected, actual }) }
    }

    fn link(&mut self, place: &Place, target: &Path) -> Result<(), EntryError> {
        let target = self.tree.existing_place(target).map_err(io_error("find the link's target"))?;
        self.tree.hard_link(place, &target).map_err(io_error("create the hard link"))
    }
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> EntryError {
    move |cause| EntryError::Io { action, cause }
}
