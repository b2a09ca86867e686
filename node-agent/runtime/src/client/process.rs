//! Processes that can't be mistaken for another with the same pid.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::shim::state::ProcessId;

/// A process held by a pidfd. The descriptor is readable once the process has ended.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Process {
    /// Opens the process that was recorded; `None` if it is gone, whoever has its pid now.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub fn open(id: ProcessId) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(id.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            pidfd => pidfd?,
        };
        // The start time is read after the pidfd was opened: if it fits, the pidfd is of the process we mean.
        Ok((start_ticks(id.pid) == Some(id.start_ticks)).then_some(Self { id, pidfd }))
    }

    /// The pid in the node's pid namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.id.pid
    }

    /// Sends SIGKILL. A process that has ended already is as dead as wanted.
    ///
    /// # Errors
    /// When the kernel refuses for another reason.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Waits for the end, and reaps it if it is our child. `false` if it still runs after `timeout`.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let limit = Timespec::try_from(timeout).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
        let poll = || poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&limit));
        if retry_on_intr(poll)? == 0 {
            return Ok(false);
        }
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl ProcessId {
    /// Names the process that has `pid` now; `None` if there is none.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_ticks: start_ticks(pid)? })
    }
}

/// Field 22 of `/proc/<pid>/stat`. The second field is in parentheses and may hold anything, so count from the last one.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_not_the_recorded_process() {
        let me = ProcessId::of(i32::try_from(std::process::id()).expect("a pid")).expect("I run");
        assert!(Process::open(me).expect("open").is_some());
        let earlier = ProcessId { start_ticks: me.start_ticks - 1, ..me };
        assert!(Process::open(earlier).expect("open").is_none());
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is waited for by pidfd: that is the test")]
    fn a_child_is_waited_for_and_reaped() {
        let child = std::process::Command::new("/bin/sleep").arg("100").spawn().expect("spawn");
        let id = ProcessId::of(i32::try_from(child.id()).expect("a pid")).expect("runs");
        let process = Process::open(id).expect("open").expect("runs");
        assert!(!process.wait(Duration::ZERO).expect("wait"));
        process.kill().expect("kill");
        assert!(process.wait(Duration::from_secs(5)).expect("wait"));
        assert_eq!(ProcessId::of(id.pid), None, "a zombie is left");
    }
}
