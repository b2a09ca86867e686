//! The bytes of a migration on their way: a few archives, one after the
//! other, in chunks that are checked one by one, and all of them at the end.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use dray_proto::v1::migrate_request::Message;
use dray_proto::v1::{MigrateChunk, MigrateEnd, MigrateRequest};
use sha2::{Digest as _, Sha256};
use std::io::{Error, Read, Write};
use tokio::sync::mpsc;

/// Bytes in one message.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Sends archives. Used from one blocking thread.
pub(crate) struct Sender {
    messages: mpsc::Sender<MigrateRequest>,
    sha256: Sha256,
    bytes: u64,
}

impl Sender {
    pub(crate) fn new(messages: mpsc::Sender<MigrateRequest>) -> Sender {
        Sender { messages, sha256: Sha256::new(), bytes: 0 }
    }

    /// Begins an archive; what is written goes into it.
    pub(crate) fn archive(&mut self, name: &'static str) -> ArchiveWriter<'_> {
        ArchiveWriter { sender: self, name, buffer: Vec::with_capacity(CHUNK_BYTES) }
    }

    /// Ends the transfer; says how many bytes it had.
    pub(crate) fn finish(self) -> Result<u64> {
        let end = MigrateEnd { sha256: self.sha256.finalize().to_vec().into(), bytes: self.bytes };
        let message = MigrateRequest { message: Some(Message::End(end)) };
        self.messages.blocking_send(message).ok().context("the target closed the stream")?;
        Ok(self.bytes)
    }

    fn send(&mut self, name: &str, data: Vec<u8>) -> std::io::Result<()> {
        self.sha256.update(&data);
        self.bytes += data.len() as u64;
        let chunk = MigrateChunk { archive: name.into(), crc32: crc32fast::hash(&data), data: data.into() };
        let message = MigrateRequest { message: Some(Message::Chunk(chunk)) };
        self.messages.blocking_send(message).map_err(|_| Error::other("the target closed the stream"))
    }
}

/// Writes one archive. Call `flush` at its end.
pub(crate) struct ArchiveWriter<'a> {
    sender: &'a mut Sender,
    name: &'static str,
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

/// Checks what arrives.
#[derive(Default)]
pub(crate) struct Checker {
    sha256: Sha256,
    bytes: u64,
}

impl Checker {
    /// One chunk's data, if it is whole.
    pub(crate) fn chunk(&mut self, chunk: &MigrateChunk) -> Result<Bytes> {
        ensure!(chunk.data.len() <= CHUNK_BYTES, "a chunk of {} bytes is too large", chunk.data.len());
        let crc32 = crc32fast::hash(&chunk.data);
        ensure!(crc32 == chunk.crc32, "a chunk was damaged on its way");
        self.sha256.update(&chunk.data);
        self.bytes += chunk.data.len() as u64;
        Ok(chunk.data.clone())
    }

    /// Whether everything has arrived.
    pub(crate) fn end(self, end: &MigrateEnd) -> Result<()> {
        if self.bytes != end.bytes {
            bail!("{} bytes arrived, but {} were sent", self.bytes, end.bytes);
        }
        ensure!(self.sha256.finalize()[..] == end.sha256[..], "what arrived is not what was sent");
        Ok(())
    }
}

/// Reads one archive as its chunks arrive. It ends when the channel is closed
/// after [`Reader::done`] was sent, so that a broken stream is an error and
/// never a short archive.
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

    /// Sends two archives and gives the messages to `tamper`.
    fn transfer(tamper: impl FnOnce(&mut Vec<Message>)) -> Result<Vec<u8>> {
        let (to, mut from) = mpsc::channel(64);
        let mut sender = Sender::new(to);
        for (name, count) in [("a", CHUNK_BYTES + 5), ("b", 3)] {
            let mut archive = sender.archive(name);
            let bytes: Vec<u8> = (0..=250).cycle().take(count).collect();
            archive.write_all(&bytes)?;
            archive.flush()?;
        }
        sender.finish()?;
        let mut messages: Vec<Message> =
            std::iter::from_fn(|| from.blocking_recv()).filter_map(|request| request.message).collect();
        tamper(&mut messages);
        let mut checker = Checker::default();
        let mut arrived = Vec::new();
        for message in messages {
            match message {
                Message::Chunk(chunk) => arrived.extend_from_slice(&checker.chunk(&chunk)?),
                Message::End(end) => return checker.end(&end).map(|()| arrived),
                Message::Start(_) => bail!("a second start"),
            }
        }
        bail!("no end")
    }

    #[test]
    fn what_is_sent_arrives() {
        let arrived = transfer(|_| ()).unwrap();
        assert_eq!(arrived.len(), CHUNK_BYTES + 8);
        assert_eq!(arrived[CHUNK_BYTES + 5..], [0, 1, 2]);
    }

    #[test]
    fn damage_and_loss_are_found() {
        let flip = |messages: &mut Vec<Message>| {
            let Message::Chunk(chunk) = &mut messages[1] else { panic!() };
            chunk.data = vec![9; chunk.data.len()].into();
        };
        assert!(transfer(flip).is_err());
        assert!(transfer(|messages| drop(messages.remove(1))).is_err());
        assert!(transfer(|messages| messages.swap(0, 1)).is_err());
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
