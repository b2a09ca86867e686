//! A container's standard output and error: from its pipes into its log, line by line.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, fchmod, fchown};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid};

use super::log::Log;

/// A line longer than this is split.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The container's ends of its pipes.
#[derive(Debug)]
pub(super) struct ContainerEnds {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Our ends, and the log they go to.
#[derive(Debug)]
pub(super) struct Output {
    streams: Vec<Stream>,
    log: Log,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    name: &'static str,
    pipe: File,
    /// The line that isn't finished.
    partial: Vec<u8>,
    open: bool,
}

impl Output {
    /// Makes two pipes. The container's ends belong to `owner`, and any of the container's users may open them again
    /// (`/dev/stdout` does that).
    pub(super) fn new(log: Log, owner: u32) -> io::Result<(Self, ContainerEnds)> {
        let (stdout_pipe, stdout) = pipe(owner)?;
        let (stderr_pipe, stderr) = pipe(owner)?;
        let stream =
            |name, pipe: OwnedFd| Stream { name, pipe: pipe.into(), partial: Vec::new(), open: true };
        let streams = vec![stream("stdout", stdout_pipe), stream("stderr", stderr_pipe)];
        Ok((Self { streams, log, buffer: vec![0; LINE_BYTES_MAX] }, ContainerEnds { stdout, stderr }))
    }

    /// The pipes to wait for, by index.
    pub(super) fn open_pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.open)
            .map(|(i, stream)| (i, stream.pipe.as_fd()))
    }

    /// Takes one helping from a pipe that is readable.
    pub(super) fn serve(&mut self, index: usize) -> io::Result<()> {
        self.read_once(index)?;
        self.log.flush()
    }

    /// Takes all that is left, when the container is gone.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        for index in 0..self.streams.len() {
            while self.streams[index].open && self.read_once(index)? {}
            self.end_line(index)?;
        }
        self.log.flush()
    }

    /// `false` when nothing was there.
    fn read_once(&mut self, index: usize) -> io::Result<bool> {
        let stream = &mut self.streams[index];
        match stream.pipe.read(&mut self.buffer) {
            Ok(0) => {
                stream.open = false;
                self.end_line(index)?;
                Ok(false)
            }
            Ok(length) => {
                stream.take(&self.buffer[..length], &mut self.log)?;
                Ok(true)
            }
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(cause) => Err(cause),
        }
    }

    fn end_line(&mut self, index: usize) -> io::Result<()> {
        let stream = &mut self.streams[index];
        if stream.partial.is_empty() {
            return Ok(());
        }
        let line = std::mem::take(&mut stream.partial);
        self.log.push(stream.name, &line, false)
    }
}

impl Stream {
    /// Splits `bytes` into lines.
    fn take(&mut self, bytes: &[u8], log: &mut Log) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.partial.extend_from_slice(text);
            while self.partial.len() > LINE_BYTES_MAX {
                let rest = self.partial.split_off(LINE_BYTES_MAX);
                let full = std::mem::replace(&mut self.partial, rest);
                log.push(self.name, &full, true)?;
            }
            if ends {
                log.push(self.name, &self.partial, false)?;
                self.partial.clear();
            }
        }
        Ok(())
    }
}

/// Our end, which doesn't block, and the container's.
fn pipe(owner: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    fchown(&theirs, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    fchmod(&theirs, Mode::from_raw_mode(0o666))?;
    Ok((ours, theirs))
}

/// What a checkpoint knows a pipe by.
pub(super) fn pipe_inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::bundle::LogLimits;
    use crate::shim::log::LOG_FILE;

    #[test]
    fn output_becomes_lines_whatever_the_pieces() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::open(dir.path(), LogLimits::default()).expect("log");
        let (mut output, ends) = Output::new(log, 0).expect("pipes");
        let mut stdout = File::from(ends.stdout);
        for piece in [&b"one\ntw"[..], b"o\n\n\xff", b"end"] {
            stdout.write_all(piece).expect("write");
            output.serve(0).expect("serve");
        }
        File::from(ends.stderr).write_all(&vec![b'x'; LINE_BYTES_MAX + 1]).expect("write");
        drop(stdout);
        output.drain().expect("drain");
        let text = std::fs::read_to_string(dir.path().join(LOG_FILE)).expect("log");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
        let messages: Vec<_> = lines.iter().map(|l| l["m"].as_str().expect("text")).collect();
        assert_eq!(messages[..4], ["one", "two", "", "\u{fffd}end"]);
        assert_eq!((messages[4].len(), messages[5]), (LINE_BYTES_MAX, "x"));
        assert_eq!((&lines[4]["p"], &lines[5]["p"]), (&serde_json::json!(true), &serde_json::Value::Null));
    }
}
