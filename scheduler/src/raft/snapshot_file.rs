//! One snapshot in one file, which appears whole or not at all.

use super::wal::{WalError, io_error, sync_directory_of};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"DRAYSNP1";
const PREFIX: &str = "snapshot-";

/// A snapshot that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] WalError),
    /// It isn't what was written.
    #[error("{path} is damaged: {problem}. Bring the file back from a copy, or replace this scheduler")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How we know.
        problem: String,
    },
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number}"))
}

/// Writes a snapshot; it is on the disk when this returns.
///
/// # Errors
/// Names the file.
pub fn write(directory: &Path, number: u64, snapshot: &[u8]) -> Result<(), SnapshotError> {
    let path = path_of(directory, number);
    let new = path.with_extension("new");
    let packed = zstd::encode_all(snapshot, 1).map_err(|cause| io_error("compress", &path, cause))?;
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&MAGIC)?;
        file.write_all(&crc32fast::hash(&packed).to_le_bytes())?;
        file.write_all(&packed)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    write().map_err(|cause| io_error("write", &path, cause))?;
    Ok(sync_directory_of(&path)?)
}

/// Reads the snapshot with a number.
///
/// # Errors
/// Names the file, and what is wrong with it.
pub fn read(directory: &Path, number: u64) -> Result<Vec<u8>, SnapshotError> {
    let path = path_of(directory, number);
    let bytes = std::fs::read(&path).map_err(|cause| io_error("read", &path, cause))?;
    unpack(&bytes).map_err(|problem| SnapshotError::Damaged { path, problem })
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or("it doesn't begin like a snapshot")?;
    let (crc, packed) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
    if crc32fast::hash(packed) != u32::from_le_bytes(*crc) {
        return Err("its checksum is wrong".into());
    }
    zstd::decode_all(packed).map_err(|e| e.to_string())
}

/// Removes every snapshot but the one with a number.
///
/// # Errors
/// Names the file or directory.
pub fn remove_others(directory: &Path, number: u64) -> Result<(), SnapshotError> {
    let kept = path_of(directory, number);
    let list = std::fs::read_dir(directory).map_err(|cause| io_error("list", directory, cause))?;
    for item in list {
        let path = item.map_err(|cause| io_error("list", directory, cause))?.path();
        let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if ours && path != kept {
            std::fs::remove_file(&path).map_err(|cause| io_error("remove", &path, cause))?;
        }
    }
    Ok(())
}
