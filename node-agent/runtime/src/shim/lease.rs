//! The time a container may run without hearing from its agent.
//!
//! By the clock that goes on while the machine sleeps: a node that wakes up after its lease must not run on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer that is readable once the lease has run out.
#[derive(Debug)]
pub(super) struct Lease {
    timer: OwnedFd,
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl Lease {
    /// A lease for ever.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Boottime, flags)? })
    }

    /// Replaces the lease: `None` is for ever.
    pub(super) fn set(&self, duration: Option<Duration>) -> io::Result<()> {
        // A zero would switch the timer off.
        let duration = duration.map_or(Duration::ZERO, |d| d.max(Duration::from_nanos(1)));
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: seconds, tv_nsec: duration.subsec_nanos().into() };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }
}
