//! Readers that watch what passes through them: hashing, limiting, and walking a tar without trusting it.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use crate::digest::{Digest, Hasher};

/// What one extended tar header (long names, PAX records) may take; the tar reader holds it in memory.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Hashes and counts everything that is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default(), bytes: 0 }
    }

    /// The digest and length of all that was read.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Fails, instead of ending, once more than its limit was read.
pub(crate) struct Limited<R> {
    inner: R,
    limit: u64,
    left: u64,
}

impl<R: Read> Limited<R> {
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, limit, left: limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| too_large(self.limit))?;
        Ok(count)
    }
}

fn too_large(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("more than the limit of {limit} bytes"))
}

/// Reads a small document whole; fails when it is larger than `limit` bytes.
pub(crate) fn read_document(reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut document = Vec::new();
    Limited::new(reader, limit).read_to_end(&mut document)?;
    Ok(document)
}

/// Lets pass what it is allowed to. The allowance is small while the tar reader looks for the next entry, because it
/// keeps extended headers in memory, and without bound while an entry's content is read.
pub(crate) struct Metered<R> {
    inner: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.allowance.get().checked_sub(count as u64);
        self.allowance.set(left.ok_or_else(|| io::Error::other("an entry's header is too large"))?);
        Ok(count)
    }
}

/// What stopped [`each_entry`].
pub(crate) enum WalkError<E> {
    /// The archive itself: unreadable, truncated, or with too many entries.
    Archive(io::Error),
    /// The visitor.
    Visit(E),
}

impl<E> WalkError<E> {
    /// Joins both kinds into the visitor's own error type.
    pub(crate) fn unify(self, archive: impl FnOnce(io::Error) -> E) -> E {
        match self {
            Self::Archive(cause) => archive(cause),
            Self::Visit(error) => error,
        }
    }
}

/// An entry as [`each_entry`] shows it.
pub(crate) type Entry<'a, R> = tar::Entry<'a, Metered<R>>;

/// Visits a tar's entries in order, then reads the archive to its very end so that a hash covers all of it.
pub(crate) fn each_entry<R: Read, E>(
    reader: R,
    max_entries: u64,
    mut visit: impl FnMut(&mut Entry<'_, R>) -> Result<(), E>,
) -> Result<(), WalkError<E>> {
    let allowance = Rc::new(Cell::new(MAX_HEADER_BYTES));
    let mut archive = tar::Archive::new(Metered { inner: reader, allowance: Rc::clone(&allowance) });
    let mut seen = 0_u64;
    for entry in archive.entries().map_err(WalkError::Archive)? {
        let mut entry = entry.map_err(WalkError::Archive)?;
        seen += 1;
        if seen > max_entries {
            return Err(WalkError::Archive(io::Error::other(format!("more than {max_entries} entries"))));
        }
        allowance.set(u64::MAX);
        visit(&mut entry).map_err(WalkError::Visit)?;
        io::copy(&mut entry, &mut io::sink()).map_err(WalkError::Archive)?;
        allowance.set(MAX_HEADER_BYTES);
    }
    io::copy(&mut archive.into_inner().inner, &mut io::sink()).map_err(WalkError::Archive)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limited_passes_up_to_the_limit_and_fails_beyond() {
        assert_eq!(read_document(&b"12345"[..], 5).expect("fits"), b"12345");
        assert_eq!(
            read_document(&b"123456"[..], 5).expect_err("too large").kind(),
            io::ErrorKind::FileTooLarge
        );
    }

    #[test]
    fn a_huge_extended_header_is_refused_before_it_fills_memory() {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        let endless = header.as_bytes().chain(io::repeat(b'x'));
        let result = each_entry::<_, ()>(endless, 10, |_| Ok(()));
        assert!(matches!(result, Err(WalkError::Archive(_))));
    }

    #[test]
    fn a_hash_covers_what_follows_the_end_of_the_archive() {
        let archive = [&[0_u8; 1024][..], b"trailing"].concat();
        let mut hashing = Hashing::new(&archive[..]);
        assert!(each_entry::<_, ()>(&mut hashing, 0, |_| Ok(())).is_ok());
        assert_eq!(hashing.finish(), (Digest::of(&archive), 1032));
    }
}
