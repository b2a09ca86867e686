//! Makes a container up to the gate: cgroup, mounts, namespaces, and an init that waits for the word to start.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use thiserror::Error;

use super::channel::Channel;
use super::output::ContainerEnds;
use super::protocol::Refusal;
use super::state::External;
use crate::bundle::Bundle;
use crate::cgroup::{CgroupError, Limits};
use crate::error::chain;
use crate::init::{Init, Report, Step};
use crate::namespaces::{NamespaceError, container_flags, write_id_maps};
use crate::rootfs::{Rootfs, RootfsError, What};
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
pub(super) fn create(bundle: &Bundle, rootfs: Rootfs, ends: ContainerEnds) -> Result<Waiting, CreateError> {
    let mut externals = externals(&rootfs);
    let (pid, pidfd, channel) = give_birth(bundle, rootfs, ends)?;
    match raise(bundle, pid, &channel) {
        Ok(masked) => {
            externals.extend(masked);
            Ok(Waiting { pid, pidfd, gate: Gate(channel), externals })
        }
        Err(error) => {
            // It may have ended by itself already; either way it is our child to reap.
            let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
            let reaped = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            reaped.map_err(|errno| CreateError::Step { step: "reap init", cause: errno.into() })?;
            Err(error)
        }
    }
}

/// The mounts made outside, as far as they are known before init has looked at `/proc`.
pub(super) fn externals(rootfs: &Rootfs) -> Vec<External> {
    let external = |step: &crate::rootfs::Step| match &step.what {
        What::Attach(_, backing) => {
            Some(External { path: step.destination.clone(), backing: *backing, staged: None })
        }
        What::Make(..) => None,
    };
    rootfs.steps.iter().filter_map(external).collect()
}

fn give_birth(
    bundle: &Bundle,
    rootfs: Rootfs,
    ends: ContainerEnds,
) -> Result<(i32, OwnedFd, Channel), CreateError> {
    let failed = |step| move |cause: io::Error| CreateError::Step { step, cause };
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
            Init { bundle, entry, rootfs, channel, stdout: ends.stdout, stderr: ends.stderr }.run()
        }
    }
}

/// Leads init through its steps up to the gate.
fn raise(bundle: &Bundle, pid: i32, channel: &Channel) -> Result<Vec<External>, CreateError> {
    let failed = |step| move |cause: io::Error| CreateError::Step { step, cause };
    channel.set_timeout(PATIENCE).map_err(failed("set a timeout"))?;
    if let Some(idmap) = bundle.idmap {
        write_id_maps(pid, idmap)?;
    }
    let told = channel.send(&Step::Mapped);
    // If init has ended it left its reason behind, which says more than a broken pipe.
    match (channel.receive::<Report>(), told) {
        (Ok(Some(Report::Ready { masked })), Ok(())) => Ok(masked),
        (Ok(Some(Report::Failed { refusal })), _) => Err(refusal.into()),
        (_, Err(cause)) => Err(failed("lead init")(cause)),
        (Ok(None), Ok(())) => Err(CreateError::InitGone),
        (Err(cause), Ok(())) => Err(failed("hear from init")(cause)),
    }
}

impl Gate {
    /// Lets init execute its program, and returns when it has.
    pub(super) fn open(self) -> Result<(), CreateError> {
        let failed = |step| move |cause: io::Error| CreateError::Step { step, cause };
        self.0.send(&Step::Go).map_err(failed("open the gate"))?;
        match self.0.receive::<Report>().map_err(failed("hear from init"))? {
            // The exec closed the socket.
            None => Ok(()),
            Some(Report::Failed { refusal }) => Err(refusal.into()),
            Some(Report::Ready { .. }) => Err(CreateError::InitGone),
        }
    }
}
