//! The container's own events: its exit, and the freezing that lease and agent ask for.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use super::protocol::Event;
use super::state::{Exit, Phase, sync_state};
use super::{Shim, complain};
use crate::cgroup::CgroupError;

/// How long an exit may be lost to a power failure.
const SYNC_AFTER: Duration = Duration::from_millis(20);

/// A container that doesn't freeze is tried again after this.
const FENCE_AGAIN: Duration = Duration::from_millis(200);

impl Shim {
    /// Reaps init. Its pid namespace is empty by now, so the output ends here.
    pub(super) fn on_init_exit(&mut self) {
        let Some(init) = self.init.take() else { return };
        self.gate = None;
        let status = waitid(WaitId::PidFd(init.as_fd()), WaitIdOptions::EXITED).ok().flatten();
        self.finish(status.as_ref().map_or((255, None), exit_of), None);
    }

    /// Reaps an init that is being killed.
    pub(super) fn reap_init(&mut self) {
        if let Some(init) = self.init.take()
            && let Err(errno) = waitid(WaitId::PidFd(init.as_fd()), WaitIdOptions::EXITED)
        {
            complain("reap init", &std::io::Error::from(errno));
        }
    }

    /// Records the end of the container. `error` says why it never ran.
    pub(super) fn finish(&mut self, (code, signal): (i32, Option<i32>), error: Option<String>) {
        if let Some(output) = &mut self.output
            && let Err(cause) = output.drain()
        {
            complain("write the log", &cause);
        }
        self.output = None;
        let oom = self.bundle.cgroup.oom_kills().is_ok_and(|kills| kills > 0);
        let exit = Exit { code, signal, oom, finished_at_ms: now_ms(), error };
        self.state.phase = Phase::Exited;
        self.state.held = None;
        self.state.exit = Some(exit.clone());
        // Every process that asks finds it from now on; a power loss could still undo it for a moment, see [`SYNC_AFTER`].
        self.record();
        self.tell(&Event::Exited { exit });
        self.sync_soon();
    }

    /// Has the loop put the record on disk shortly. Not at once: a sync takes milliseconds, and the agent that has just been
    /// told may want to delete it all.
    fn sync_soon(&mut self) {
        self.unsynced = true;
        if let Err(cause) = self.sync.set(Some(SYNC_AFTER)) {
            complain("set the timer", &cause);
            self.sync_now();
        }
    }

    /// Puts the record on disk, if it isn't.
    pub(super) fn sync_now(&mut self) {
        if self.unsynced {
            self.unsynced = false;
            if let Err(error) = sync_state(&self.dir) {
                complain("sync the record", &error);
            }
        }
        if let Err(cause) = self.sync.set(None) {
            complain("set the timer", &cause);
        }
    }

    /// The lease ran out: freezes what runs.
    pub(super) fn on_lease_end(&mut self) {
        let again = match self.fence() {
            Ok(()) => None,
            Err(error) => {
                complain("fence the container", &error);
                Some(FENCE_AGAIN)
            }
        };
        if let Err(cause) = self.lease.set(again) {
            complain("set the timer", &cause);
        }
    }

    fn fence(&mut self) -> Result<(), CgroupError> {
        match self.state.phase {
            Phase::Empty | Phase::Prepared | Phase::Exited => return Ok(()),
            // Nothing of it has run, and nothing will: the hook is answered with no.
            Phase::Restoring => {}
            Phase::Created | Phase::Running => self.bundle.cgroup.freeze()?,
        }
        if !self.state.fenced {
            self.state.fenced = true;
            self.record();
            self.tell(&Event::Fenced);
        }
        Ok(())
    }

    /// Thaws, if nothing else wants the container frozen.
    pub(super) fn unfence(&mut self) -> Result<(), CgroupError> {
        if !self.state.fenced {
            return Ok(());
        }
        if !self.state.paused {
            self.bundle.cgroup.thaw()?;
        }
        self.state.fenced = false;
        self.record();
        self.tell(&Event::Unfenced);
        Ok(())
    }

    /// Leaves the freezer to the agent.
    pub(super) fn hold(&mut self) {
        self.state.paused = true;
        self.record();
    }

    /// Freezes for the agent.
    pub(super) fn pause(&mut self) -> Result<(), CgroupError> {
        // Recorded first: what is frozen for a reason must never be thawed for the lack of one.
        self.hold();
        self.bundle.cgroup.freeze()
    }

    /// Undoes [`Shim::pause`].
    pub(super) fn resume(&mut self) -> Result<(), CgroupError> {
        if !self.state.fenced {
            self.bundle.cgroup.thaw()?;
        }
        self.state.paused = false;
        self.record();
        Ok(())
    }
}

/// Exit code and signal, as a shell would say it.
pub(crate) fn exit_of(status: &WaitIdStatus) -> (i32, Option<i32>) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (128 + signal, Some(signal)),
        (None, None) => (255, None),
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
