//! What a checkpoint says about itself beside CRIU's images, so that a restore can tell whether it fits.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The file's name within the image directory. CRIU takes no notice of it.
const NAME: &str = "dray.json";

/// The format this version writes and reads.
const FORMAT: u32 = 1;

/// The inodes of the pipes behind standard input, output and error; none where there is no pipe.
pub type StdioPipes = [Option<u64>; 3];

/// A checkpoint's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The container's standard pipes.
    pub stdio: StdioPipes,
    /// Mount points, as the container sees them, that the restore must provide.
    pub mounts: BTreeSet<PathBuf>,
}

/// A description can't be written, read or used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file can't be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file can't be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It isn't a description.
    #[error("{path} does not describe a checkpoint")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// Another version of Dray wrote it.
    #[error("{path} has format {found}, this version reads {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: u32,
    },
    /// The restore offers other mounts.
    #[error("the checkpoint needs a mount at {path}, which the restore doesn't provide")]
    MountMissing {
        /// As the container sees it.
        path: PathBuf,
    },
}

impl Manifest {
    /// Describes a checkpoint.
    #[must_use]
    pub fn new(stdio: StdioPipes, mounts: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { format: FORMAT, stdio, mounts: mounts.into_iter().collect() }
    }

    /// Writes it beside the images.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, images: &Path) -> Result<(), ManifestError> {
        let path = images.join(NAME);
        let failed = |cause: io::Error| ManifestError::Write { path: path.clone(), cause };
        let text = serde_json::to_vec(self).map_err(|cause| failed(cause.into()))?;
        fs::write(&path, text).map_err(failed)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it isn't there, or this version can't use it.
    pub fn read(images: &Path) -> Result<Self, ManifestError> {
        let path = images.join(NAME);
        let text = fs::read(&path).map_err(|cause| ManifestError::Read { path: path.clone(), cause })?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|cause| ManifestError::Parse { path: path.clone(), cause })?;
        if manifest.format != FORMAT {
            return Err(ManifestError::Format { path, found: manifest.format });
        }
        Ok(manifest)
    }

    /// Checks that all mounts are among `provided`.
    ///
    /// # Errors
    /// Names the first one that isn't.
    pub fn check_mounts<'a>(
        &self,
        provided: impl IntoIterator<Item = &'a Path>,
    ) -> Result<(), ManifestError> {
        let provided: BTreeSet<&Path> = provided.into_iter().collect();
        match self.mounts.iter().find(|path| !provided.contains(path.as_path())) {
            None => Ok(()),
            Some(path) => Err(ManifestError::MountMissing { path: path.clone() }),
        }
    }
}

/// The pipes that are standard input, output and error of `pid` at this moment. The shim, which made them, knows
/// better: a program may have closed or replaced its own.
///
/// # Errors
/// When the process can't be looked at.
pub fn stdio_pipes(pid: i32) -> io::Result<StdioPipes> {
    let mut pipes = StdioPipes::default();
    for (fd, pipe) in pipes.iter_mut().enumerate() {
        let link = match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
            Ok(link) => link,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(cause),
        };
        let inode = link.to_str().and_then(|link| link.strip_prefix("pipe:[")?.strip_suffix(']'));
        *pipe = inode.and_then(|inode| inode.parse::<u64>().ok());
    }
    Ok(pipes)
}

/// What CRIU calls a mount between dump and restore: the path, without characters that mean something to CRIU.
pub(crate) fn mount_key(path: &Path) -> String {
    let mut key = String::from("mount");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' => key.push('-'),
            b if b.is_ascii_alphanumeric() => key.push(char::from(*b)),
            other => key.push_str(&format!("_{other:02x}")),
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_key(path: &str, key: &str) {
        assert_eq!(mount_key(Path::new(path)), key);
    }

    #[test]
    fn mount_keys_are_plain_and_distinct() {
        check_key("/dev/shm", "mount-dev-shm");
        check_key("/a]:b", "mount-a_5d_3ab");
        check_key("/a-b", "mount-a_2db");
    }

    #[test]
    fn a_missing_mount_is_named() {
        let manifest = Manifest::new([None; 3], [PathBuf::from("/dev"), PathBuf::from("/data")]);
        let provided = [Path::new("/dev"), Path::new("/more")];
        let error = manifest.check_mounts(provided).unwrap_err().to_string();
        assert!(error.contains("/data"), "{error}");
    }
}
