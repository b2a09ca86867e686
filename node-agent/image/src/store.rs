//! The store: a directory of verified blobs, unpacked layers, and names for images.
//!
//! ```text
//! references.json      reference -> manifest digest
//! blobs/sha256/<hex>   manifests, configurations, layers as they came; complete and verified if present
//! layers/<hex>/        a layer unpacked with plain ids, by diff id; complete if present
//! tmp/                 work in progress; whatever lies here without a lock is garbage
//! lock                 shared by importers and unpackers, exclusive for garbage collection
//! references.lock      exclusive while references.json is replaced
//! ```
//!
//! Nothing under `blobs/` and `layers/` is ever changed in place: things appear by rename, after an fsync, and go
//! only by garbage collection. Any number of processes and threads may use one store.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::durable::{self, Lock, Sharing};
use crate::reference::Reference;

/// An image store in a directory.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
}

/// Why the store could not be read or its names not be changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store is not accessible.
    #[error("image store: {action} {path}")]
    Io {
        /// What we were doing.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The table of names is damaged.
    #[error("image store: {path} is damaged")]
    References {
        /// The table's path.
        path: PathBuf,
        /// Where it is damaged.
        #[source]
        cause: serde_json::Error,
    },
}

/// The content of `references.json`.
#[derive(Default, Serialize, Deserialize)]
struct References {
    references: BTreeMap<Reference, Digest>,
}

impl ImageStore {
    /// Opens the store, creating its directories where they are missing, and clears what a crash left behind.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for dir in [store.blobs_dir(), store.layers_dir(), store.tmp_dir()] {
            // Private, because layers hold set-user-id programs that are nobody's on this host.
            let created = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            created.map_err(|cause| io_error("create", &dir, cause))?;
        }
        // Someone else is at work: then what lies in tmp/ may be theirs.
        let path = store.lock_path();
        if let Some(_lock) = Lock::try_exclusive(&path).map_err(|cause| io_error("lock", &path, cause))? {
            store.clear_tmp()?;
        }
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All names with the digests of their manifests, in order.
    pub fn list(&self) -> Result<BTreeMap<Reference, Digest>, StoreError> {
        Ok(self.read_references()?.references)
    }

    /// The manifest a reference means, or `None` when no such image is here. A digest in the reference decides
    /// alone; its tag is then only a comment.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Digest>, StoreError> {
        let references = self.list()?;
        Ok(match reference.digest() {
            Some(digest) => references.values().find(|known| *known == digest).cloned(),
            None => references.get(reference).cloned(),
        })
    }

    /// Forgets a name; its content stays until [`collect_garbage`](Self::collect_garbage). True if it was known.
    pub fn remove(&self, reference: &Reference) -> Result<bool, StoreError> {
        self.change_references(|references| references.remove(&reference.filed()).is_some())
    }

    /// Gives names to manifests that are already in the store.
    pub(crate) fn name_images(&self, named: &[(Reference, Digest)]) -> Result<(), StoreError> {
        self.change_references(|references| {
            references.extend(named.iter().map(|(reference, digest)| (reference.filed(), digest.clone())));
        })
    }

    fn change_references<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<Reference, Digest>) -> T,
    ) -> Result<T, StoreError> {
        let lock = self.root.join("references.lock");
        let _lock = Lock::wait(&lock, Sharing::Exclusive).map_err(|cause| io_error("lock", &lock, cause))?;
        let mut references = self.read_references()?;
        let result = change(&mut references.references);
        let path = self.references_path();
        serde_json::to_vec_pretty(&references)
            .map_err(io::Error::from)
            .and_then(|content| durable::replace_file(&path, &self.tmp_dir(), &content))
            .map_err(|cause| io_error("replace", &path, cause))?;
        Ok(result)
    }

    fn read_references(&self) -> Result<References, StoreError> {
        let path = self.references_path();
        match fs::read(&path) {
            Ok(content) => {
                serde_json::from_slice(&content).map_err(|cause| StoreError::References { path, cause })
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(References::default()),
            Err(cause) => Err(io_error("read", &path, cause)),
        }
    }

    /// Removes all work in progress. The caller holds the lock exclusively.
    pub(crate) fn clear_tmp(&self) -> Result<(), StoreError> {
        let dir = self.tmp_dir();
        let entries = fs::read_dir(&dir).map_err(|cause| io_error("list", &dir, cause))?;
        for entry in entries {
            let path = entry.map_err(|cause| io_error("list", &dir, cause))?.path();
            let removed = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(|cause| io_error("remove", &path, cause))?;
        }
        Ok(())
    }

    /// Keeps garbage collection out while something is added.
    pub(crate) fn share(&self) -> io::Result<Lock> {
        Lock::wait(&self.lock_path(), Sharing::Shared)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir().join(digest.hex())
    }

    /// Where a layer is, or will be once it is unpacked.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers_dir().join(diff_id.hex())
    }

    pub(crate) fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.root.join("lock")
    }

    fn references_path(&self) -> PathBuf {
        self.root.join("references.json")
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, cause: io::Error) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().expect("directory");
        let store = ImageStore::open(dir.path()).expect("open");
        (dir, store)
    }

    fn reference(text: &str) -> Reference {
        text.parse().expect("reference")
    }

    #[test]
    fn names_are_kept_resolved_and_removed() {
        let (dir, store) = store();
        let digest = Digest::of(b"manifest");
        store.name_images(&[(reference("a:1"), digest.clone())]).expect("name");
        let again = ImageStore::open(dir.path()).expect("open");
        assert_eq!(again.resolve(&reference("a:1")).expect("read"), Some(digest.clone()));
        assert_eq!(again.resolve(&reference("a")).expect("read"), None);
        assert_eq!(again.resolve(&reference(&format!("b@{digest}"))).expect("read"), Some(digest));
        assert!(again.remove(&reference("a:1")).expect("remove"));
        assert!(!again.remove(&reference("a:1")).expect("remove"));
    }

    #[test]
    fn nobody_else_can_reach_the_layers() {
        let (dir, _) = store();
        let mode = |path| fs::metadata(dir.path().join(path)).expect("metadata").permissions().mode() & 0o777;
        assert_eq!((mode("layers"), mode("blobs"), mode("tmp")), (0o700, 0o700, 0o700));
    }

    #[test]
    fn a_damaged_table_is_an_error_not_an_empty_store() {
        let (dir, store) = store();
        fs::write(dir.path().join("references.json"), "{\"references\": {").expect("write");
        assert!(matches!(store.list(), Err(StoreError::References { .. })));
    }

    #[test]
    fn writers_of_names_do_not_lose_each_others() {
        let (_dir, store) = store();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..10 {
                        let name = reference(&format!("t{thread}:{n}"));
                        store.name_images(&[(name, Digest::of(b"x"))]).expect("name");
                    }
                });
            }
        });
        assert_eq!(store.list().expect("list").len(), 40);
    }

    #[test]
    fn opening_clears_what_a_crash_left_unless_someone_works() {
        let (dir, store) = store();
        let left = dir.path().join("tmp/left");
        fs::create_dir(&left).expect("create");
        let working = store.share().expect("lock");
        ImageStore::open(dir.path()).expect("open");
        assert!(left.exists());
        drop(working);
        ImageStore::open(dir.path()).expect("open");
        assert!(!left.exists());
    }
}
