//! A timer to wait for beside other events.
//!
//! By the clock that goes on while the machine sleeps: a node that wakes up after a lease must not run on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Readable once its time has come, until it is set again.
#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Timer {
    /// A timer that isn't set.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { fd: timerfd_create(TimerfdClockId::Boottime, flags)? })
    }

    /// Sets the time from now, or `None` for never.
    pub(super) fn set(&self, duration: Option<Duration>) -> io::Result<()> {
        // A zero would switch the timer off.
        let duration = duration.map_or(Duration::ZERO, |d| d.max(Duration::from_nanos(1)));
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }
}
