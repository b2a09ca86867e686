//! A stream of what happens to one container.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::shim::channel::Channel;
use crate::shim::protocol::Event;

/// Events, the present state first. Its descriptor is readable when [`Events::next`] won't block, so an asynchronous
/// caller can wait for that.
#[derive(Debug)]
pub struct Events {
    channel: Channel,
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.channel.as_fd().as_raw_fd()
    }
}

impl Events {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Blocks for the next event; `None` when the shim has ended.
    ///
    /// # Errors
    /// When the connection breaks.
    #[expect(clippy::should_implement_trait, reason = "it fails and blocks, an iterator's next does neither")]
    pub fn next(&mut self) -> io::Result<Option<Event>> {
        self.channel.receive()
    }

    /// Like [`Events::next`], but fails with `TimedOut` after `timeout`.
    ///
    /// # Errors
    /// When the connection breaks, or nothing happens in time.
    pub fn next_within(&mut self, timeout: Duration) -> io::Result<Option<Event>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&self.channel, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_ready) => return self.next(),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
