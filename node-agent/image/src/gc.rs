//! Removes what nothing needs any more: blobs no named image has, and layers that besides no container uses.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::durable::Lock;
use crate::image::ImageError;
use crate::store::{ImageStore, StoreError, io_error};

/// What must stay although no name leads to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Manifests of images that containers run, or that are about to be used.
    pub images: BTreeSet<Digest>,
    /// Diff ids of layers that are mounted.
    pub layers: BTreeSet<Digest>,
}

/// What garbage collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: BTreeSet<Digest>,
    /// Unpacked layers removed.
    pub layers: BTreeSet<Digest>,
    /// Bytes of the removed blobs.
    pub blob_bytes: u64,
}

/// Why nothing, or not everything, was removed.
#[derive(Debug, thiserror::Error)]
pub enum GarbageError {
    /// An import, unpacking or export is going on; try again later.
    #[error("the image store is busy")]
    Busy,
    /// The store could not be read.
    #[error("collect garbage")]
    Store(#[from] StoreError),
    /// An image's documents could not be read, so what it needs is unknown. Nothing was removed.
    #[error("collect garbage: image {manifest}")]
    Image {
        /// The image's manifest.
        manifest: Digest,
        /// Why.
        #[source]
        cause: ImageError,
    },
    /// Some things could not be removed; everything else was.
    #[error("collect garbage: {} could not be removed, first {}", failures.len(), failures[0].0.display())]
    Remove {
        /// What, and why not; at least one.
        failures: Vec<(PathBuf, io::Error)>,
    },
}

/// Everything that must stay.
#[derive(Default)]
struct Needed {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
}

impl ImageStore {
    /// Removes blobs and layers that neither a named image nor `in_use` needs. Does not wait for others at work.
    pub fn collect_garbage(&self, in_use: &InUse) -> Result<Collected, GarbageError> {
        let path = self.lock_path();
        let lock = Lock::try_exclusive(&path).map_err(|cause| io_error("lock", &path, cause))?;
        let Some(_alone) = lock else { return Err(GarbageError::Busy) };
        let needed = self.needed(in_use)?;
        self.clear_tmp()?;
        let mut sweep = Sweep { tmp: self.tmp_dir(), ..Sweep::default() };
        let blobs = sweep.remove_others(&self.blobs_dir(), &needed.blobs)?;
        let layers = sweep.remove_others(&self.layers_dir(), &needed.layers)?;
        if sweep.failures.is_empty() {
            Ok(Collected { blobs, layers, blob_bytes: sweep.blob_bytes })
        } else {
            Err(GarbageError::Remove { failures: sweep.failures })
        }
    }

    fn needed(&self, in_use: &InUse) -> Result<Needed, GarbageError> {
        let mut needed = Needed { layers: in_use.layers.clone(), ..Needed::default() };
        let named: BTreeSet<Digest> = self.list()?.into_values().collect();
        for manifest in named.union(&in_use.images) {
            let image = self
                .image(manifest)
                .map_err(|cause| GarbageError::Image { manifest: manifest.clone(), cause })?;
            needed.blobs.insert(manifest.clone());
            needed.blobs.extend(image.blobs().map(|blob| blob.digest.clone()));
            needed.layers.extend(image.layers.into_iter().map(|layer| layer.diff_id));
        }
        Ok(needed)
    }
}

/// Tries everything and remembers what failed.
#[derive(Default)]
struct Sweep {
    tmp: PathBuf,
    blob_bytes: u64,
    failures: Vec<(PathBuf, io::Error)>,
}

impl Sweep {
    fn remove_others(&mut self, dir: &Path, keep: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, StoreError> {
        let mut removed = BTreeSet::new();
        for entry in fs::read_dir(dir).map_err(|cause| io_error("list", dir, cause))? {
            let entry = entry.map_err(|cause| io_error("list", dir, cause))?;
            // What is not called by a digest is not ours.
            let Some(digest) = entry.file_name().to_str().and_then(Digest::from_hex) else { continue };
            if keep.contains(&digest) {
                continue;
            }
            match self.remove(&entry) {
                Ok(()) => drop(removed.insert(digest)),
                Err(cause) => self.failures.push((entry.path(), cause)),
            }
        }
        Ok(removed)
    }

    fn remove(&mut self, entry: &fs::DirEntry) -> io::Result<()> {
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            // Out of sight first: a crash must not leave half a layer under the name of a whole one.
            let gone = self.tmp.join(entry.file_name());
            fs::rename(entry.path(), &gone)?;
            return fs::remove_dir_all(gone);
        }
        fs::remove_file(entry.path())?;
        self.blob_bytes += metadata.len();
        Ok(())
    }
}
