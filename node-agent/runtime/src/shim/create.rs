//! Makes a container up to the gate: cgroup, mounts, namespaces, and an init that waits for the word to start.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use oci_spec::runtime::Process;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use thiserror::Error;

use super::channel::Channel;
use super::output::ContainerEnds;
use super::protocol::Refusal;
use super::state::External;
use crate::bundle::Bundle;
use crate::cgroup::{CgroupError, Limits};
use crate::error::chain;
use crate::init::{Cue, Init, Report};
use crate::namespaces::{NamespaceError, container_flags, map_ids};
use crate::rootfs::{self, RootfsError, Step, What};
use crate::sys::{CloneOptions, Forked, clone3};

/// How long init gets for a step. It reads files of the image, which may lie on a slow disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// An init that waits at the gate.
#[derive(Debug)]
pub(super) struct Waiting {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub gate: Gate,
    pub externals: Vec<External>,
}

/// Holds init until it is opened. Dropped unopened, it ends init.
#[derive(Debug)]
pub(super) struct Gate(Channel);

/// The container couldn't be made.
#[derive(Debug, Error)]
pub(super) enum CreateError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("init ended without a word")]
    InitGone,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Refused(refusal) => refusal,
            other => Self::Failed { message: chain(&other) },
        }
    }
}

/// Makes the cgroup and sets its limits.
pub(super) fn prepare_cgroup(bundle: &Bundle) -> Result<(), CgroupError> {
    bundle.cgroup.ensure()?;
    let resources = bundle.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    resources.map_or(Ok(()), |resources| bundle.cgroup.apply_limits(&Limits::from(resources)))
}

/// Makes everything but the last step. After an error nothing of the container runs.
pub(super) fn create(bundle: &Bundle, ends: ContainerEnds) -> Result<Waiting, CreateError> {
    let (pid, pidfd, channel) = give_birth(bundle, ends)?;
    match raise(bundle, pid, &channel) {
        Ok(externals) => Ok(Waiting { pid, pidfd, gate: Gate(channel), externals }),
        Err(error) => {
            // It may have ended by itself already; either way it is our child to reap.
            let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
            let reaped = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            reaped.map_err(|errno| failed("reap init")(errno.into()))?;
            Err(error)
        }
    }
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> CreateError {
    move |cause| CreateError::Step { step, cause }
}

fn give_birth(bundle: &Bundle, ends: ContainerEnds) -> Result<(i32, OwnedFd, Channel), CreateError> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.map_err(|errno| failed("make a socket pair")(errno.into()))?;
    let entry = bundle.cgroup.open_entry()?;
    let options = CloneOptions { namespaces: container_flags(bundle.idmap), cgroup: entry.birthplace() };
    match clone3(&options).map_err(failed("make namespaces"))? {
        Forked::Parent(pid, pidfd) => Ok((pid, pidfd, Channel::new(ours))),
        Forked::Child => {
            // Init must see the end of the socket when the shim dies, so it may not hold the shim's side itself.
            drop(ours);
            let channel = Channel::new(theirs);
            Init { bundle, entry, channel, stdout: ends.stdout, stderr: ends.stderr }.run()
        }
    }
}

/// Leads init through its steps up to the gate. Returns the mounts that were made outside.
fn raise(bundle: &Bundle, pid: i32, channel: &Channel) -> Result<Vec<External>, CreateError> {
    channel.set_timeout(PATIENCE).map_err(failed("set a timeout"))?;
    set_oom_score(bundle, pid)?;
    let userns = bundle.idmap.map(|idmap| map_ids(pid, idmap)).transpose()?;
    let rootfs = rootfs::prepare(bundle, userns.as_ref().map(AsFd::as_fd))?;
    let mut externals = externals(&rootfs.below.steps);
    let mut fds = vec![rootfs.root.as_fd(), rootfs.empty.as_fd()];
    fds.extend(rootfs.below.mounts.iter().map(AsFd::as_fd));
    let told = channel.send_with(&Cue::Assemble { steps: rootfs.below.steps }, &fds);
    // If init has ended it left its reason behind, which says more than a broken pipe.
    match (channel.receive::<Report>(), told) {
        (Ok(Some(Report::Ready { masked })), Ok(())) => {
            externals.extend(masked);
            Ok(externals)
        }
        (Ok(Some(Report::Failed { refusal })), _) => Err(refusal.into()),
        (_, Err(cause)) => Err(failed("hand init its mounts")(cause)),
        (Ok(_), Ok(())) => Err(CreateError::InitGone),
        (Err(cause), Ok(())) => Err(failed("hear from init")(cause)),
    }
}

/// Always set, because init has inherited ours, which is the agent's. To lower it takes a capability that not every node's
/// root has: then it stays as it is.
fn set_oom_score(bundle: &Bundle, pid: i32) -> Result<(), CreateError> {
    let wanted = bundle.spec.process().as_ref().and_then(Process::oom_score_adj).unwrap_or(0);
    match fs::write(format!("/proc/{pid}/oom_score_adj"), wanted.to_string()) {
        Err(cause) if cause.kind() != io::ErrorKind::PermissionDenied => {
            Err(failed("set the OOM score")(cause))
        }
        _set_or_not_allowed => Ok(()),
    }
}

/// The mounts made outside, as far as they are known before init has looked at `/proc`.
fn externals(steps: &[Step]) -> Vec<External> {
    let external = |step: &Step| match step.what {
        What::Attach(backing) => Some(External { path: step.destination.clone(), backing, staged: None }),
        What::Make { .. } => None,
    };
    steps.iter().filter_map(external).collect()
}

impl Gate {
    /// Lets init execute its program, and returns when it has.
    pub(super) fn open(self) -> Result<(), CreateError> {
        self.0.send(&Cue::Go).map_err(failed("open the gate"))?;
        match self.0.receive::<Report>().map_err(failed("hear from init"))? {
            // The exec closed the socket.
            None => Ok(()),
            Some(Report::Failed { refusal }) => Err(refusal.into()),
            Some(Report::Ready { .. }) => Err(CreateError::InitGone),
        }
    }
}
