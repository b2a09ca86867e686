//! Unpacks an image's layers into directories that overlayfs can stack.
//!
//! ```text
//! blob (gzip, zstd, plain) -> tmp/layer-*/root/ -> diff id checked -> syncfs -> rename to layers/<hex>/
//! ```
//!
//! A layer directory is complete if it is there. It holds plain ids (a container's id range is applied at mount), and
//! whiteouts in overlayfs' own form, so that only overlayfs as the host's root mounts it (`trusted.` attributes).
//! Layers are shared by all images that have the same diff id; directories a layer implies without listing them
//! therefore get 0755 and root, whatever lower layers say.

mod entry;
mod layer;
mod tree;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use rustix::fs::syncfs;
use tempfile::TempDir;

use crate::compression::Decompressed;
use crate::digest::Digest;
use crate::durable::{self, Lock, Sharing};
use crate::image::{Image, Layer};
use crate::store::ImageStore;
use crate::stream::{Hashing, Limited};

pub use self::entry::EntryError;

const READ_BUFFER: usize = 256 << 10;

/// How much one layer may unpack to. More is taken for an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of the uncompressed tar, and of the files written, each.
    pub max_bytes: u64,
    /// Entries of the tar.
    pub max_entries: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { max_bytes: 64 << 30, max_entries: 2_000_000 }
    }
}

/// Why an image could not be unpacked. Layers that were complete stay, half a layer never does.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The store could not be locked.
    #[error("unpack image {image}")]
    Lock {
        /// The image's manifest.
        image: Digest,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// One layer failed.
    #[error("unpack layer {layer} of image {image}")]
    Layer {
        /// The image's manifest.
        image: Digest,
        /// The layer's blob.
        layer: Digest,
        /// Why.
        #[source]
        cause: LayerError,
    },
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// No room or right for work in progress.
    #[error("prepare a directory")]
    Begin(#[source] io::Error),
    /// The blob is unreadable, truncated, damaged or larger than the limit.
    #[error("read the layer's archive")]
    Archive(#[source] io::Error),
    /// One entry cannot be unpacked.
    #[error("archive entry `{entry}`")]
    Entry {
        /// The entry's path, as the archive has it.
        entry: String,
        /// Why.
        #[source]
        cause: EntryError,
    },
    /// The uncompressed layer is not what the image's configuration says.
    #[error("the uncompressed layer has the digest {actual}, expected {expected}")]
    DiffId {
        /// The configuration's diff id.
        expected: Digest,
        /// The digest of what was unpacked.
        actual: Digest,
    },
    /// The finished directory could not be put in its place.
    #[error("store the unpacked layer")]
    Publish(#[source] io::Error),
}

impl ImageStore {
    /// Unpacks the layers that are not unpacked yet. Returns the directories of all, from the base up; overlayfs
    /// wants them in the opposite order.
    pub fn unpack(&self, image: &Image, limits: &UnpackLimits) -> Result<Vec<PathBuf>, UnpackError> {
        let lock_error = |cause| UnpackError::Lock { image: image.manifest.clone(), cause };
        let _shared = self.share().map_err(lock_error)?;
        let unpack = |layer: &Layer| {
            self.ensure_layer(layer, limits).map_err(|cause| UnpackError::Layer {
                image: image.manifest.clone(),
                layer: layer.blob.digest.clone(),
                cause,
            })
        };
        image.layers.iter().map(unpack).collect()
    }

    fn ensure_layer(&self, layer: &Layer, limits: &UnpackLimits) -> Result<PathBuf, LayerError> {
        let path = self.layer_path(&layer.diff_id);
        if path.is_dir() {
            return Ok(path);
        }
        // Many tasks of one image start at once; one of them unpacks, the others wait for it here.
        let lock = self.tmp_dir().join(format!("{}.lock", layer.diff_id.hex()));
        let _alone = Lock::wait(&lock, Sharing::Exclusive).map_err(LayerError::Begin)?;
        if !path.is_dir() {
            self.unpack_layer(layer, limits, &path)?;
        }
        Ok(path)
    }

    fn unpack_layer(&self, layer: &Layer, limits: &UnpackLimits, path: &Path) -> Result<(), LayerError> {
        let dir = TempDir::with_prefix_in("layer-", self.tmp_dir()).map_err(LayerError::Begin)?;
        let root = dir.path().join("root");
        std::fs::create_dir(&root).map_err(LayerError::Begin)?;
        let blob = File::open(self.blob_path(&layer.blob.digest)).map_err(LayerError::Archive)?;
        let plain =
            Decompressed::new(BufReader::with_capacity(READ_BUFFER, blob)).map_err(LayerError::Archive)?;
        let mut hashing = Hashing::new(Limited::new(plain, limits.max_bytes));
        layer::unpack(&mut hashing, &root, limits)?;
        let (actual, _) = hashing.finish();
        if actual != layer.diff_id {
            return Err(LayerError::DiffId { expected: layer.diff_id.clone(), actual });
        }
        publish(&root, path).map_err(LayerError::Publish)?;
        durable::sync_directory(&self.layers_dir()).map_err(LayerError::Publish)
    }
}

/// Everything of the layer must be on disk before the name that promises a complete one.
fn publish(root: &Path, path: &Path) -> io::Result<()> {
    syncfs(File::open(root)?)?;
    std::fs::rename(root, path)
}
