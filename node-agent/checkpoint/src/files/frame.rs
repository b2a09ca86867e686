//! Frames: `length: u32, crc32: u32, payload`, little-endian. The last has length 0 and carries a SHA-256 over the
//! eight header bytes of all frames before it.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// The longest payload. Blocks of content are far shorter; an entry with many extended attributes may need it.
pub(super) const LONGEST: usize = 4 << 20;

const HEADER_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;

/// A stream of frames is broken.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Nothing more can be read or written.
    #[error("the stream failed")]
    Stream(#[from] io::Error),
    /// It ended before its last frame.
    #[error("the stream ended early, after {bytes} bytes")]
    Truncated {
        /// How far it came.
        bytes: u64,
    },
    /// A frame is too long to be one.
    #[error("a frame of {bytes} bytes, the longest may have {LONGEST}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A frame was damaged.
    #[error("a frame's checksum does not match, after {bytes} bytes")]
    Checksum {
        /// Where it begins.
        bytes: u64,
    },
    /// Frames are missing, repeated or out of order.
    #[error("the stream's digest does not match")]
    Digest,
}

/// Writes frames.
pub(super) struct FrameWriter<W> {
    out: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, digest: Sha256::new(), bytes: 0 }
    }

    /// Writes one frame, whose payload is in two parts.
    pub(super) fn write(&mut self, head: &[u8], data: &[u8]) -> Result<(), FrameError> {
        let bytes = head.len() + data.len();
        let length = u32::try_from(bytes).ok().filter(|_| (1..=LONGEST).contains(&bytes));
        let mut crc = crc32fast::Hasher::new();
        crc.update(head);
        crc.update(data);
        let header = header(length.ok_or(FrameError::TooLong { bytes })?, crc.finalize());
        self.digest.update(header);
        self.put(&header)?;
        self.put(head)?;
        self.put(data)
    }

    /// Ends the stream and returns its length.
    pub(super) fn finish(mut self) -> Result<u64, FrameError> {
        self.put(&header(0, 0))?;
        let digest = self.digest.clone().finalize();
        self.put(&digest)?;
        self.out.flush()?;
        Ok(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.out.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Reads frames.
pub(super) struct FrameReader<R> {
    source: R,
    digest: Sha256,
    bytes: u64,
    payload: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, digest: Sha256::new(), bytes: 0, payload: Vec::new() }
    }

    /// The next payload; nothing after the last, when the digest has been found right.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length == 0 {
            self.check_digest()?;
            return Ok(None);
        }
        if length > LONGEST {
            return Err(FrameError::TooLong { bytes: length });
        }
        self.digest.update(header);
        let begin = self.bytes;
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        self.fill(&mut payload)?;
        self.payload = payload;
        if crc32fast::hash(&self.payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(FrameError::Checksum { bytes: begin });
        }
        Ok(Some(&self.payload))
    }

    /// How much has been read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn check_digest(&mut self) -> Result<(), FrameError> {
        let mut sent = [0; DIGEST_BYTES];
        self.fill(&mut sent)?;
        let found: [u8; DIGEST_BYTES] = self.digest.clone().finalize().into();
        if found == sent { Ok(()) } else { Err(FrameError::Digest) }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), FrameError> {
        match self.source.read_exact(buffer) {
            Ok(()) => {
                self.bytes += buffer.len() as u64;
                Ok(())
            }
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
                Err(FrameError::Truncated { bytes: self.bytes })
            }
            Err(cause) => Err(cause.into()),
        }
    }
}

fn header(length: u32, crc: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&crc.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = FrameWriter::new(&mut out);
        payloads.iter().for_each(|payload| writer.write(payload, &[]).unwrap());
        let length = writer.finish().unwrap();
        assert_eq!(length, out.len() as u64);
        out
    }

    fn read_all(stream: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut reader = FrameReader::new(stream);
        let mut payloads = Vec::new();
        while let Some(payload) = reader.next()? {
            payloads.push(payload.to_vec());
        }
        Ok(payloads)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payloads: Vec<Vec<u8>>) {
            let payloads: Vec<Vec<u8>> = payloads.into_iter().filter(|payload| !payload.is_empty()).collect();
            prop_assert_eq!(read_all(&stream(&payloads)).unwrap(), payloads);
        }

        #[test]
        fn every_changed_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 1..99), at: prop::sample::Index, bit in 0..8_u32) {
            let mut stream = stream(&[payload.clone(), payload]);
            let at = at.index(stream.len());
            stream[at] ^= 1_u8 << bit;
            // All but the last frame's checksum field, which means nothing.
            let unused = stream.len() - 36..stream.len() - 32;
            prop_assert!(unused.contains(&at) || read_all(&stream).is_err());
        }

        #[test]
        fn every_cut_is_noticed(payload in prop::collection::vec(any::<u8>(), 1..99), at: prop::sample::Index) {
            let stream = stream(&[payload]);
            let cut = &stream[..at.index(stream.len())];
            let truncated = matches!(read_all(cut), Err(FrameError::Truncated { .. }));
            prop_assert!(truncated);
        }
    }

    #[test]
    fn missing_repeated_and_reordered_frames_are_noticed() {
        let good = stream(&[b"one".to_vec(), b"two".to_vec()]);
        let (one, two, end) = (&good[..11], &good[11..22], &good[22..]);
        for bad in [[one, end, &[]], [two, one, end], [one, one, end]] {
            assert!(matches!(read_all(&bad.concat()), Err(FrameError::Digest)));
        }
    }

    #[test]
    fn a_giant_frame_is_refused_before_memory_is_taken() {
        assert!(matches!(read_all(&[0xff; 64]), Err(FrameError::TooLong { .. })));
    }
}
