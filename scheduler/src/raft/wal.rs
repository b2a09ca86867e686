//! A file of checksummed frames, each of them durable before the next.
//!
//! ```text
//! file  = magic (8) frame* zeros
//! frame = sequence (8) length (4) crc32 (4) payload     integers are little endian
//! ```
//!
//! Exactly one frame is in flight at a time: [`Wal::append`] returns once it is
//! on the disk. So an interrupted write can only damage the last frame, and a
//! damaged frame with an intact later one after it was damaged by the disk:
//! then something acknowledged is gone and [`Wal::open`] refuses.
//!
//! Space is filled with zeros ahead of the frames, so that a sync needn't
//! write the file system's metadata, too.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"DRAYWAL1";
const HEADER: usize = 16;
/// How much is filled with zeros at a time. Little in tests, which make many
/// files.
const RESERVE: usize = if cfg!(test) { 4 << 10 } else { 4 << 20 };

/// An open file of frames.
#[derive(Debug)]
pub struct Wal {
    file: File,
    path: PathBuf,
    /// Where the next frame goes.
    end: u64,
    /// Up to where the file is filled.
    filled: u64,
    sequence: u64,
    buffer: Vec<u8>,
}

/// A log file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system refused.
    #[error("{doing} {path}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It is another kind of file.
    #[error("{path} is not a log of this scheduler: it doesn't begin with {MAGIC:?}")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Something acknowledged is gone.
    #[error(
        "{path} is damaged at byte {offset}: frame {sequence} fails its checksum although later ones are \
         intact, so acknowledged writes are gone. Bring the file back from a copy, or replace this scheduler"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged frame begins.
        offset: u64,
        /// Its number.
        sequence: u64,
    },
    /// A frame is larger than the format allows.
    #[error("a record of {bytes} bytes is too large for {path}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The record's size.
        bytes: usize,
    },
}

/// What was read from a file of frames.
pub struct Opened {
    /// The file, ready for the next frame.
    pub wal: Wal,
    /// Every intact frame's payload, in order.
    pub payloads: Vec<Vec<u8>>,
    /// Whether an interrupted write was cut off.
    pub torn: bool,
}

impl Wal {
    /// Makes a new file at `path` that holds one frame. The file appears
    /// whole or not at all, in place of what was there before.
    ///
    /// # Errors
    /// Names the file.
    pub fn create(path: &Path, first: &[u8]) -> Result<Wal, WalError> {
        let new = path.with_extension("new");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new);
        let file = open.map_err(|cause| io_error("create", &new, cause))?;
        let mut wal = Wal { file, path: new.clone(), end: 0, filled: 0, sequence: 0, buffer: Vec::new() };
        wal.write(&MAGIC)?;
        wal.append(first)?;
        std::fs::rename(&new, path).map_err(|cause| io_error("rename to", path, cause))?;
        sync_directory_of(path)?;
        wal.path = path.into();
        Ok(wal)
    }

    /// Reads every frame and cuts an interrupted write off.
    ///
    /// # Errors
    /// The file can't be read, is another kind of file, or is damaged.
    pub fn open(path: &Path) -> Result<Opened, WalError> {
        let bytes = std::fs::read(path).map_err(|cause| io_error("read", path, cause))?;
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(WalError::Foreign { path: path.into() });
        }
        let scan = scan(&bytes);
        if let Scan { broken: Some(offset), sequence, .. } = scan
            && has_later_frame(&bytes[offset..], sequence)
        {
            return Err(WalError::Damaged { path: path.into(), offset: offset as u64, sequence });
        }
        let open = OpenOptions::new().read(true).write(true).open(path);
        let file = open.map_err(|cause| io_error("open", path, cause))?;
        let wal = Wal {
            file,
            path: path.into(),
            end: scan.end as u64,
            filled: bytes.len() as u64,
            sequence: scan.sequence,
            buffer: Vec::new(),
        };
        let torn = scan.broken.is_some();
        let wal = if torn { wal.cut()? } else { wal };
        Ok(Opened { wal, payloads: scan.payloads, torn })
    }

    /// Appends one frame; it is on the disk when this returns.
    ///
    /// # Errors
    /// Nothing is known of the frame then: the caller must stop, because a
    /// failed sync is not to be repeated (the kernel may have dropped pages).
    pub fn append(&mut self, payload: &[u8]) -> Result<(), WalError> {
        let mut frame = std::mem::take(&mut self.buffer);
        frame.clear();
        let header = header(self.sequence, payload)
            .ok_or_else(|| WalError::TooLarge { path: self.path.clone(), bytes: payload.len() })?;
        frame.extend_from_slice(&header);
        frame.extend_from_slice(payload);
        self.write(&frame)?;
        self.sync()?;
        self.sequence += 1;
        self.buffer = frame;
        Ok(())
    }

    /// How many bytes the frames take.
    pub fn len_bytes(&self) -> u64 {
        self.end
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let end = self.end + bytes.len() as u64;
        if end > self.filled {
            self.fill(bytes.len() + RESERVE)?;
        }
        let written = self.file.write_all_at(bytes, self.end);
        written.map_err(|cause| io_error("write", &self.path, cause))?;
        self.end = end;
        Ok(())
    }

    fn fill(&mut self, length: usize) -> Result<(), WalError> {
        let filled = self.file.write_all_at(&vec![0; length], self.filled);
        filled.and_then(|()| self.file.sync_all()).map_err(|cause| io_error("extend", &self.path, cause))?;
        self.filled += length as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), WalError> {
        self.file.sync_data().map_err(|cause| io_error("sync", &self.path, cause))
    }

    fn cut(mut self) -> Result<Wal, WalError> {
        let cut = self.file.set_len(self.end).and_then(|()| self.file.sync_all());
        cut.map_err(|cause| io_error("truncate", &self.path, cause))?;
        self.filled = self.end;
        Ok(self)
    }
}

/// Makes a file's name durable, which is its directory's business.
///
/// # Errors
/// Names the directory.
pub fn sync_directory_of(path: &Path) -> Result<(), WalError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(directory).and_then(|file| file.sync_all());
    synced.map_err(|cause| io_error("sync", directory, cause))
}

pub(super) fn io_error(doing: &'static str, path: &Path, cause: io::Error) -> WalError {
    WalError::Io { doing, path: path.into(), cause }
}

struct Scan {
    payloads: Vec<Vec<u8>>,
    /// Where the intact frames end.
    end: usize,
    /// The number of the next frame.
    sequence: u64,
    /// Where something other than zeros follows the intact frames.
    broken: Option<usize>,
}

fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan { payloads: Vec::new(), end: MAGIC.len(), sequence: 0, broken: None };
    while let Some((sequence, payload)) = frame(&bytes[scan.end..])
        && sequence == scan.sequence
    {
        scan.payloads.push(payload.into());
        scan.end += HEADER + payload.len();
        scan.sequence += 1;
    }
    scan.broken = bytes[scan.end..].iter().any(|byte| *byte != 0).then_some(scan.end);
    scan
}

/// Whether an intact frame with a number above `sequence` begins anywhere.
fn has_later_frame(bytes: &[u8], sequence: u64) -> bool {
    // No frame begins in the zeros at the end.
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    (1..=last).any(|offset| matches!(frame(&bytes[offset..]), Some((later, _)) if later > sequence))
}

fn header(sequence: u64, payload: &[u8]) -> Option<[u8; HEADER]> {
    let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
    let sequence = sequence.to_le_bytes();
    let crc = checksum(&sequence, &length, payload).to_le_bytes();
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&sequence);
    header[8..12].copy_from_slice(&length);
    header[12..].copy_from_slice(&crc);
    Some(header)
}

/// The frame at the beginning of `bytes`, if it is intact. Empty ones don't
/// exist: zeros are never a frame.
fn frame(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (sequence, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let intact = !payload.is_empty() && checksum(sequence, length, payload) == u32::from_le_bytes(*crc);
    intact.then(|| (u64::from_le_bytes(*sequence), payload))
}

fn checksum(sequence: &[u8], length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(sequence);
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, count: u8) -> PathBuf {
        let path = directory.join("log");
        let mut wal = Wal::create(&path, &[0; 100]).unwrap();
        for n in 1..count {
            wal.append(&[n; 100]).unwrap();
        }
        path
    }

    fn change(path: &Path, offset: usize, with: impl Fn(&mut [u8])) {
        let mut bytes = std::fs::read(path).unwrap();
        with(&mut bytes[offset..]);
        std::fs::write(path, bytes).unwrap();
    }

    const FRAME: usize = HEADER + 100;

    #[test]
    fn frames_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), 5);
        let mut opened = Wal::open(&path).unwrap();
        assert_eq!((opened.payloads.len(), opened.torn), (5, false));
        opened.wal.append(b"more").unwrap();
        assert_eq!(Wal::open(&path).unwrap().payloads[5], b"more");
    }

    #[test]
    fn a_torn_last_frame_is_cut_off_wherever_it_was_torn() {
        let directory = tempfile::tempdir().unwrap();
        let last = MAGIC.len() + 4 * FRAME;
        for kept in 1..FRAME {
            let path = written(directory.path(), 5);
            change(&path, last + kept, |rest| rest.fill(0));
            let mut opened = Wal::open(&path).unwrap();
            assert_eq!(opened.payloads.len(), 4, "{kept} bytes were kept");
            opened.wal.append(b"next").unwrap();
            assert_eq!(Wal::open(&path).unwrap().payloads[4], b"next");
        }
    }

    #[test]
    fn a_short_file_is_a_torn_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), 3);
        let cut = MAGIC.len() + 2 * FRAME + 7;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
        assert_eq!(Wal::open(&path).unwrap().payloads.len(), 2);
    }

    #[test]
    fn damage_before_intact_frames_is_an_error_that_says_where() {
        let directory = tempfile::tempdir().unwrap();
        for byte in [0, 8, 12, HEADER, FRAME - 1] {
            let path = written(directory.path(), 5);
            change(&path, MAGIC.len() + FRAME + byte, |rest| rest[0] ^= 0x40);
            let error = Wal::open(&path).err().expect("damage is found").to_string();
            assert!(error.contains("damaged at byte 124: frame 1"), "{error}");
        }
    }

    #[test]
    fn another_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "hello, world").unwrap();
        assert!(matches!(Wal::open(&path), Err(WalError::Foreign { .. })));
    }
}
