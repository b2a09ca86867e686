//! The bytes of a migration on their way: a few archives, one after the
//! other, in chunks. Archives check themselves (see
//! [`container_checkpoint::files`]); here it is only counted whether all bytes
//! came.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use dray_proto::v1::migrate_request::Message;
use dray_proto::v1::{MigrateChunk, MigrateEnd, MigrateRequest};
use std::io::{Error, Read, Write};
use tokio::sync::mpsc;

/// Bytes in one message.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Sends archives. Used from one blocking thread.
pub(crate) struct Sender {
    messages: mpsc::Sender<MigrateRequest>,
    bytes: u64,
}

impl Sender {
    pub(crate) fn new(messages: mpsc::Sender<MigrateRequest>) -> Sender {
        Sender { messages, bytes: 0 }
    }

    /// Begins an archive; what is written goes into it.
    pub(crate) fn archive<'a>(&'a mut self, name: &'a str) -> ArchiveWriter<'a> {
        ArchiveWriter { sender: self, name, buffer: Vec::with_capacity(CHUNK_BYTES) }
    }

    /// Ends the transfer; says how many bytes it had.
    pub(crate) fn finish(self) -> Result<u64> {
        let message = MigrateRequest { message: Some(Message::End(MigrateEnd { bytes: self.bytes })) };
        self.messages.blocking_send(message).ok().context("the target closed the stream")?;
        Ok(self.bytes)
    }

    fn send(&mut self, archive: &str, data: Vec<u8>) -> std::io::Result<()> {
        self.bytes += data.len() as u64;
        let chunk = MigrateChunk { archive: archive.into(), data: data.into() };
        let message = MigrateRequest { message: Some(Message::Chunk(chunk)) };
        self.messages.blocking_send(message).map_err(|_| Error::other("the target closed the stream"))
    }
}

/// Writes one archive. Call `flush` at its end.
pub(crate) struct ArchiveWriter<'a> {
    sender: &'a mut Sender,
    name: &'a str,
    buffer: Vec<u8>,
}

impl Write for ArchiveWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = CHUNK_BYTES - self.buffer.len();
        let part = &bytes[..bytes.len().min(room)];
        self.buffer.extend_from_slice(part);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sender.send(self.name, data)
    }
}

/// Reads one archive as its chunks arrive. It ends only when [`Part::Done`]
/// was sent, so that a broken stream is an error and never a short archive.
pub(crate) struct Reader {
    chunks: mpsc::Receiver<Part>,
    current: Bytes,
    done: bool,
}

/// A part of an archive.
pub(crate) enum Part {
    /// More bytes.
    Data(Bytes),
    /// There are no more.
    Done,
}

impl Reader {
    pub(crate) fn new(chunks: mpsc::Receiver<Part>) -> Reader {
        Reader { chunks, current: Bytes::new(), done: false }
    }
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.done {
            match self.chunks.blocking_recv() {
                Some(Part::Data(data)) => self.current = data,
                Some(Part::Done) => self.done = true,
                None => return Err(Error::other("the stream ended too early")),
            }
        }
        let count = to.len().min(self.current.len());
        to[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_cut_into_chunks_and_counted() {
        let (to, mut from) = mpsc::channel(64);
        let mut sender = Sender::new(to);
        for (name, count) in [("a", CHUNK_BYTES + 5), ("b", 3), ("c", 0)] {
            let mut archive = sender.archive(name);
            archive.write_all(&vec![7; count]).unwrap();
            archive.flush().unwrap();
        }
        assert_eq!(sender.finish().unwrap(), CHUNK_BYTES as u64 + 8);
        let messages = std::iter::from_fn(|| from.blocking_recv()).filter_map(|request| request.message);
        let sizes: Vec<_> = messages
            .filter_map(|message| match message {
                Message::Chunk(chunk) => Some((chunk.archive, chunk.data.len())),
                Message::Start(_) | Message::End(_) | Message::Failure(_) => None,
            })
            .collect();
        assert_eq!(sizes, [("a".into(), CHUNK_BYTES), ("a".into(), 5), ("b".into(), 3)]);
    }

    #[test]
    fn a_broken_stream_is_not_a_short_archive() {
        let (to, from) = mpsc::channel(4);
        to.blocking_send(Part::Data(Bytes::from_static(b"abc"))).ok().unwrap();
        drop(to);
        assert!(Reader::new(from).read_to_end(&mut Vec::new()).is_err());
        let (to, from) = mpsc::channel(4);
        to.blocking_send(Part::Done).ok().unwrap();
        assert_eq!(Reader::new(from).read_to_end(&mut Vec::new()).unwrap(), 0);
    }
}
