//! Where an import's blobs wait until the whole import is known to be good.
//!
//! Staged blobs live in a directory under `tmp/` that goes when the import ends, well or badly. [`Staging::commit`]
//! moves the wanted ones among the store's blobs; until an image is named, garbage collection may take them again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};

use tempfile::{NamedTempFile, TempDir};

use crate::digest::Digest;
use crate::durable::{self, Lock};
use crate::image::Blob;
use crate::store::ImageStore;
use crate::stream::{Hashing, Limited};

/// The blobs of one import in progress.
pub(crate) struct Staging<'s> {
    store: &'s ImageStore,
    sizes: BTreeMap<Digest, u64>,
    bytes_left: u64,
    dir: TempDir,
    // Dropped after `dir`: whoever then gets the lock finds no work of ours.
    _lock: Lock,
}

impl<'s> Staging<'s> {
    /// Starts an import that may stage up to `max_bytes`.
    pub(crate) fn begin(store: &'s ImageStore, max_bytes: u64) -> io::Result<Self> {
        let lock = store.share()?;
        let dir = TempDir::with_prefix_in("import-", store.tmp_dir())?;
        Ok(Self { store, sizes: BTreeMap::new(), bytes_left: max_bytes, dir, _lock: lock })
    }

    /// Stages what the reader gives, to its end.
    pub(crate) fn add(&mut self, reader: impl Read) -> io::Result<Blob> {
        let mut file = NamedTempFile::new_in(self.dir.path())?;
        let mut reader = Hashing::new(Limited::new(reader, self.bytes_left));
        io::copy(&mut reader, &mut file)?;
        let (digest, size) = reader.finish();
        self.bytes_left -= size;
        file.persist(self.dir.path().join(digest.hex())).map_err(|error| error.error)?;
        self.sizes.insert(digest.clone(), size);
        Ok(Blob { digest, size })
    }

    /// The blob of this digest, staged or already in the store.
    pub(crate) fn find(&self, digest: &Digest) -> io::Result<Option<Blob>> {
        let size = match self.sizes.get(digest) {
            Some(size) => *size,
            None => match fs::metadata(self.store.blob_path(digest)) {
                Ok(metadata) => metadata.len(),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(cause) => return Err(cause),
            },
        };
        Ok(Some(Blob { digest: digest.clone(), size }))
    }

    /// Opens a blob that [`find`](Self::find) knows.
    pub(crate) fn open(&self, digest: &Digest) -> io::Result<File> {
        if self.sizes.contains_key(digest) {
            File::open(self.dir.path().join(digest.hex()))
        } else {
            File::open(self.store.blob_path(digest))
        }
    }

    /// Makes these blobs part of the store, durably.
    pub(crate) fn commit<'d>(&mut self, digests: impl IntoIterator<Item = &'d Digest>) -> io::Result<()> {
        for digest in digests {
            if self.sizes.remove(digest).is_none() {
                continue;
            }
            let staged = self.dir.path().join(digest.hex());
            // The bytes first, then the name that vouches for them.
            File::open(&staged)?.sync_all()?;
            fs::rename(&staged, self.store.blob_path(digest))?;
        }
        durable::sync_directory(&self.store.blobs_dir())
    }
}
