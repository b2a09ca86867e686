//! Runs another command inside of a running container.
//!
//! A short-lived re-exec of our program (the helper) enters the container's namespaces and forks the command; neither the
//! agent nor the shim can, because entering a pid or user namespace takes a single-threaded process and can't be undone.
//! The helper itself stays out of the container's cgroup and pid namespace, and kills the command when its caller is gone.
//!
//! A container can't be checkpointed while such a command runs: its parent is outside.

mod helper;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::client::RequestError;
use crate::program::Program;
use crate::shim::channel::Channel;
use crate::shim::protocol::Refusal;
use crate::shim::state::ProcessId;

pub(crate) use helper::run;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Command and arguments.
    pub args: Vec<String>,
    /// Variables (`NAME=value`) added to the container's own environment.
    pub env: Vec<String>,
    /// Working directory; the container's own if not given.
    pub cwd: Option<PathBuf>,
    /// As in [`crate::Bundle::user`]; the container's own if not given.
    pub user: Option<String>,
    /// A terminal of this size instead of three pipes.
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// The caller's ends. Blocking; they are the caller's to read, write and close.
#[derive(Debug)]
pub enum ExecStdio {
    /// Three pipes.
    Pipes {
        /// Close it to end the command's input.
        stdin: OwnedFd,
        /// What the command says.
        stdout: OwnedFd,
        /// What the command complains about.
        stderr: OwnedFd,
    },
    /// A terminal's master. Reading it fails with `EIO` when the command has ended.
    Terminal {
        /// The master.
        master: OwnedFd,
    },
}

/// A command that runs in a container. Dropping it kills the command.
///
/// Its descriptor is readable when the command has ended.
#[derive(Debug)]
pub struct Exec {
    stdio: Option<ExecStdio>,
    control: Channel,
    helper: Child,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    /// As a shell would say it: the exit code, or 128 + signal.
    pub code: i32,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

/// The command couldn't be run.
#[derive(Debug, Error)]
pub enum ExecError {
    /// The helper couldn't be started or talked to.
    #[error("{step}")]
    Helper {
        /// What we were doing.
        step: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The shim can't be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The container doesn't run, or the command can't be executed.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A command for a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Holds the container's specification.
    pub instance_dir: PathBuf,
    /// The container's init.
    pub init: ProcessId,
    pub request: ExecRequest,
}

/// From caller to helper. The first one comes with the command's three pipe ends, unless it wants a terminal.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Run { job: Job },
    Signal { signal: i32 },
}

/// From helper to caller. `Started` comes with the terminal's master, if there is one.
#[derive(Debug, Serialize, Deserialize)]
enum Notice {
    Started,
    Exited { exit: ExecExit },
    Failed { refusal: Refusal },
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> ExecError {
    move |cause| ExecError::Helper { step, cause }
}

impl Exec {
    pub(crate) fn start(program: &Program, job: Job) -> Result<Self, ExecError> {
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.map_err(|errno| failed("make a socket pair")(errno.into()))?;
        let helper = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg("container-exec")
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("start the exec helper"))?;
        let mut exec = Self { stdio: None, control: Channel::new(ours), helper };
        exec.stdio = Some(exec.order(job)?);
        Ok(exec)
    }

    fn order(&self, job: Job) -> Result<ExecStdio, ExecError> {
        let (ours, theirs) = match job.request.terminal {
            Some(_) => (None, Vec::new()),
            None => pipes().map(|(ours, theirs)| (Some(ours), theirs)).map_err(failed("make pipes"))?,
        };
        let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
        self.control.send_with(&Order::Run { job }, &fds).map_err(failed("order the command"))?;
        let (notice, fds) =
            self.control.receive_with::<Notice>().map_err(failed("hear from the exec helper"))?;
        match (notice, ours, fds.into_iter().next()) {
            (Some(Notice::Started), Some(pipes), _) => Ok(pipes),
            (Some(Notice::Started), None, Some(master)) => Ok(ExecStdio::Terminal { master }),
            (Some(Notice::Failed { refusal }), ..) => Err(refusal.into()),
            (Some(Notice::Started | Notice::Exited { .. }) | None, ..) => {
                Err(failed("hear from the exec helper")(io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }

    /// The caller's ends, once.
    #[must_use]
    pub fn take_stdio(&mut self) -> Option<ExecStdio> {
        self.stdio.take()
    }

    /// Sends a signal to the command.
    ///
    /// # Errors
    /// When the helper is gone.
    pub fn signal(&self, signal: i32) -> Result<(), ExecError> {
        self.control.send(&Order::Signal { signal }).map_err(failed("send a signal"))
    }

    /// Blocks until the command has ended. Its output may still be in the pipes.
    ///
    /// # Errors
    /// When the helper was killed.
    pub fn wait(&mut self) -> Result<ExecExit, ExecError> {
        let lost = failed("wait for the command");
        match self.control.receive::<Notice>().map_err(&lost)? {
            Some(Notice::Exited { exit }) => Ok(exit),
            Some(Notice::Failed { refusal }) => Err(refusal.into()),
            Some(Notice::Started) | None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl AsFd for Exec {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // The end of the conversation tells the helper to kill and end; then it is ours to reap. If it has ended already,
        // there is nobody to tell.
        let _gone = self.control.shut_down();
        let _reaped = self.helper.wait();
    }
}

/// The caller's ends and the command's.
fn pipes() -> io::Result<(ExecStdio, Vec<OwnedFd>)> {
    let (their_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((ExecStdio::Pipes { stdin, stdout, stderr }, vec![their_stdin, their_stdout, their_stderr]))
}
