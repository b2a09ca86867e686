//! The container's first process, from its birth in new namespaces until it becomes the container's program.
//!
//! Runs in a forked copy of the shim (which is single-threaded) and talks to it over a socket pair, one packet a step:
//!
//! ```text
//!                                       init: session, cgroups
//! shim: Cue::Assemble  ids are mapped,  init: mounts, pivot_root, hidden paths, looks the program up
//!       the pieces are made
//! init: Report         ready, or not    shim: records it, waits for the agent
//! shim: Cue::Go        at the start     init: gives up privileges, execs (which closes the socket)
//! init: Report         if that failed
//! ```
//!
//! If the shim dies, the socket ends and init with it.

mod assemble;
mod paths;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{
    Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, sethostname, setresgid, setresuid, setsid,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::Bundle;
use crate::cgroup::{CgroupError, Entry};
use crate::error::chain;
use crate::process::{Program, ProgramError};
use crate::rootfs::{Rootfs, Step, Steps};
use crate::shim::channel::Channel;
use crate::shim::protocol::Refusal;
use crate::shim::state::External;
use crate::sys::{close_from_on_exec, default_signal_actions, exit_now};

use assemble::AssembleError;

/// What the shim tells init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Cue {
    /// Its ids are mapped. Comes with the detached mounts: the root, the empty directory, and those of the steps.
    Assemble { steps: Vec<Step> },
    /// Become the program.
    Go,
}

/// What init tells the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// All is made and checked. The paths that were masked.
    Ready { masked: Vec<External> },
    /// It can't go on.
    Failed { refusal: Refusal },
}

/// What init needs, all of it opened and made by the shim.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub bundle: &'a Bundle,
    pub entry: Entry,
    pub channel: Channel,
    /// The ends for standard output and standard error.
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Why init can't become the program.
#[derive(Debug, Error)]
enum InitError {
    #[error("talk to the shim")]
    Channel(#[source] io::Error),
    #[error("the shim ended")]
    Orphaned,
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("the specification has no process")]
    NoProcess,
}

impl Init<'_> {
    /// Becomes the container's program, or ends.
    pub(crate) fn run(self) -> ! {
        let error = match self.prepare() {
            Ok(program) => match self.wait_for_go() {
                Ok(()) => program.execute().into(),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let refusal = error.refusal();
        let code = match &refusal {
            Refusal::Program { code, .. } => *code,
            Refusal::Phase { .. } | Refusal::Failed { .. } => 125,
        };
        // If the shim is gone there is nobody to tell.
        let _told = self.channel.send(&Report::Failed { refusal });
        exit_now(code)
    }

    fn prepare(&self) -> Result<Program, InitError> {
        become_leader().map_err(|errno| InitError::Step { step: "start a session", cause: errno.into() })?;
        // First of all, so that the container pays for what is made in it. The cgroup namespace begins where we are then.
        self.entry.pass()?;
        let rootfs = self.wait_for_pieces()?;
        become_root(self.bundle).map_err(step("become root of the user namespace"))?;
        let masked = assemble::assemble(self.bundle, &rootfs)?;
        if let Some(name) = self.bundle.spec.hostname() {
            sethostname(name).map_err(|errno| step("set the host name")(errno.into()))?;
        }
        unshare(CloneFlags::CLONE_NEWCGROUP)
            .map_err(|errno| step("make a cgroup namespace")(errno.into()))?;
        let process = self.bundle.spec.process().as_ref().ok_or(InitError::NoProcess)?;
        let seccomp = self.bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let program = Program::look_up(process, self.bundle.user.as_deref(), seccomp)?;
        self.connect_stdio().map_err(step("connect standard input and output"))?;
        self.channel.send(&Report::Ready { masked }).map_err(InitError::Channel)?;
        Ok(program)
    }

    fn wait_for_pieces(&self) -> Result<Rootfs, InitError> {
        let (cue, fds) = self.channel.receive_with::<Cue>().map_err(InitError::Channel)?;
        let mut fds = fds.into_iter();
        match (cue, fds.next(), fds.next()) {
            (Some(Cue::Assemble { steps }), Some(root), Some(empty)) => {
                Ok(Rootfs { root, empty, below: Steps { steps, mounts: fds.collect() } })
            }
            _anything_else => Err(InitError::Orphaned),
        }
    }

    fn wait_for_go(&self) -> Result<(), InitError> {
        match self.channel.receive::<Cue>().map_err(InitError::Channel)? {
            Some(Cue::Go) => Ok(()),
            Some(Cue::Assemble { .. }) | None => Err(InitError::Orphaned),
        }
    }

    /// Standard input is the container's own `/dev/null`: one of the node's couldn't be checkpointed.
    fn connect_stdio(&self) -> io::Result<()> {
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(&self.stdout)?;
        dup2_stderr(&self.stderr)?;
        close_from_on_exec(3)
    }
}

/// The first process of a session that lies within the container (else it couldn't be checkpointed), with no signal
/// ignored or blocked, that dies with the shim.
fn become_leader() -> nix::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    default_signal_actions();
    SigSet::empty().thread_set_mask()?;
    setsid().map(drop)
}

fn become_root(bundle: &Bundle) -> io::Result<()> {
    if bundle.idmap.is_some() {
        setgroups(&[])?;
        setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
        setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
        // A change of user forgets this.
        set_pdeathsig(Signal::SIGKILL)?;
    }
    Ok(())
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> InitError {
    move |cause| InitError::Step { step, cause }
}

impl InitError {
    fn refusal(&self) -> Refusal {
        let message = chain(self);
        let code = match self {
            Self::Program(error) => error.exit_code(),
            Self::Assemble(error) => error.is_images_fault().then_some(125),
            Self::NoProcess => Some(125),
            Self::Channel(_) | Self::Orphaned | Self::Cgroup(_) | Self::Step { .. } => None,
        };
        match code {
            Some(code) => Refusal::Program { message, code },
            None => Refusal::Failed { message },
        }
    }
}
