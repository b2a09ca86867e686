//! The helper process of an exec: forks the command into the container, and waits for it.
//!
//! The helper stays outside, but for the pid namespace of its children.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid, setsid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, major, minor, openat};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ExecExit, ExecRequest, Job, Notice, Order, TerminalSize};
use crate::bundle::Bundle;
use crate::cgroup::{CgroupError, Entry};
use crate::client::{Process, read_bundle};
use crate::error::chain;
use crate::process::{Program, ProgramError};
use crate::shim::channel::Channel;
use crate::shim::exit_of;
use crate::shim::protocol::Refusal;
use crate::sys::{
    CloneOptions, Forked, clone3, close_from_on_exec, default_signal_actions, exit_now, send_signal,
    take_stdin,
};

/// Why the command can't be run.
#[derive(Debug, Error)]
enum HelperError {
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("the container isn't running")]
    NotRunning,
    #[error("the container is frozen")]
    Frozen,
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> HelperError {
    move |cause| HelperError::Step { step, cause }
}

impl From<HelperError> for Refusal {
    fn from(error: HelperError) -> Self {
        let message = chain(&error);
        match error {
            HelperError::Refused(refusal) => refusal,
            HelperError::NotRunning | HelperError::Frozen => {
                Self::Phase { request: "exec".into(), reason: message }
            }
            HelperError::Program(error) => match error.exit_code() {
                Some(code) => Self::Program { message, code },
                None => Self::Failed { message },
            },
            HelperError::Step { .. } | HelperError::Cgroup(_) => Self::Failed { message },
        }
    }
}

/// Runs the helper: standard input is the socket to the caller.
pub(crate) fn run() -> ExitCode {
    let Ok(control) = take_stdin().map(Channel::new) else { return ExitCode::FAILURE };
    let (job, fds) = match control.receive_with::<Order>() {
        Ok((Some(Order::Run { job }), fds)) => (job, fds),
        Ok((Some(Order::Signal { .. }) | None, _)) | Err(_) => return ExitCode::FAILURE,
    };
    let notice = match start(&job, fds, &control) {
        Ok(command) => attend(&command, &control),
        Err(error) => Some(Notice::Failed { refusal: error.into() }),
    };
    // A caller that is gone needs no answer.
    let _told = notice.map(|notice| control.send(&notice));
    ExitCode::SUCCESS
}

/// What the command's process tells the helper.
#[derive(Debug, Serialize, Deserialize)]
enum Progress {
    /// Its terminal's master comes with it.
    Terminal,
    /// It can't become the command.
    Failed { refusal: Refusal },
}

/// A process on its way to become the command.
struct Birth<'a> {
    bundle: Bundle,
    init: Process,
    entry: Entry,
    request: &'a ExecRequest,
    /// The command's ends of its pipes, unless it wants a terminal.
    pipes: Vec<OwnedFd>,
}

fn start(job: &Job, pipes: Vec<OwnedFd>, control: &Channel) -> Result<OwnedFd, HelperError> {
    // Inherited by the command's process: in the container, but still made of the node's memory.
    set_dumpable(false).map_err(|errno| step("hide from the container")(errno.into()))?;
    let bundle = read_bundle(&job.instance_dir).ok_or(HelperError::NotRunning)?;
    let init = Process::open(job.init).map_err(step("open the container's init"))?;
    let init = init.ok_or(HelperError::NotRunning)?;
    if bundle.cgroup.is_frozen()? {
        // What is born there would not even begin.
        return Err(HelperError::Frozen);
    }
    let entry = bundle.cgroup.open_entry()?;
    // Only what is forked from here on is in it. The other namespaces are for the command alone to enter.
    setns(init.as_fd(), CloneFlags::CLONE_NEWPID)
        .map_err(|errno| step("enter the container's pid namespace")(errno.into()))?;
    let (command, master) = Birth { bundle, init, entry, request: &job.request, pipes }.give()?;
    let master: Vec<BorrowedFd<'_>> = master.iter().map(AsFd::as_fd).collect();
    control.send_with(&Notice::Started, &master).map_err(step("tell the caller"))?;
    Ok(command)
}

impl Birth<'_> {
    /// Forks the command's process, and returns when it has executed its program: its pidfd, and its terminal's master.
    fn give(self) -> Result<(OwnedFd, Option<OwnedFd>), HelperError> {
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.map_err(|errno| step("make a socket pair")(errno.into()))?;
        let options = CloneOptions { namespaces: 0, cgroup: self.entry.birthplace() };
        match clone3(&options).map_err(step("fork"))? {
            Forked::Child => {
                drop(ours);
                let channel = Channel::new(theirs);
                let refusal = Refusal::from(self.become_command(&channel));
                let _told = channel.send(&Progress::Failed { refusal });
                exit_now(125)
            }
            Forked::Parent(_, pidfd) => {
                drop(theirs);
                Ok((pidfd, hear(&Channel::new(ours))?))
            }
        }
    }

    /// Becomes the command; returns only why not.
    fn become_command(&self, channel: &Channel) -> HelperError {
        match self.prepare(channel) {
            Ok(program) => program.execute().into(),
            Err(error) => error,
        }
    }

    fn prepare(&self, channel: &Channel) -> Result<Program, HelperError> {
        // Nothing of the container's own choosing is done before it counts against the container's limits.
        self.entry.pass()?;
        self.enter().map_err(step("enter the container's namespaces"))?;
        self.connect_stdio(channel).map_err(step("connect standard input and output"))?;
        let process = process_of(&self.bundle, self.request).ok_or(HelperError::NotRunning)?;
        let user = self.request.user.as_deref().or(self.bundle.user.as_deref());
        let seccomp = self.bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        Ok(Program::look_up(&process, user, seccomp)?)
    }

    fn enter(&self) -> io::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        default_signal_actions();
        SigSet::empty().thread_set_mask()?;
        let all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        let user = if self.bundle.idmap.is_some() { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
        setns(self.init.as_fd(), all | user)?;
        setgroups(&[])?;
        setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
        setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
        // A change of user forgets this.
        set_pdeathsig(Signal::SIGKILL)?;
        setsid()?;
        Ok(())
    }

    fn connect_stdio(&self, channel: &Channel) -> io::Result<()> {
        match (self.request.terminal, self.pipes.as_slice()) {
            (Some(size), _) => {
                let (master, slave) = open_terminal(size)?;
                channel.send_with(&Progress::Terminal, &[master.as_fd()])?;
                rustix::process::ioctl_tiocsctty(&slave)?;
                connect(&slave, &slave, &slave)
            }
            (None, [stdin, stdout, stderr]) => connect(stdin, stdout, stderr),
            (None, _missing) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

fn connect(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    close_from_on_exec(3)
}

/// Hears from the command's process until it has executed its program, which closes the channel.
fn hear(channel: &Channel) -> Result<Option<OwnedFd>, HelperError> {
    let mut master = None;
    loop {
        match channel.receive_with::<Progress>().map_err(step("hear from the command"))? {
            (Some(Progress::Terminal), fds) => master = fds.into_iter().next(),
            (Some(Progress::Failed { refusal }), _) => return Err(refusal.into()),
            (None, _) => return Ok(master),
        }
    }
}

/// A terminal of the container's own devpts, so that its name means something inside: master and slave.
fn open_terminal(size: TerminalSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?;
    // The container's root may have put something else there.
    let stat = fstat(&master)?;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2);
    if !is_ptmx {
        return Err(io::Error::other("/dev/pts/ptmx is no terminal multiplexer"));
    }
    rustix::io::ioctl_fionbio(&master, false)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size)?;
    Ok((master, slave))
}

/// The container's own process with the request's differences.
fn process_of(bundle: &Bundle, request: &ExecRequest) -> Option<oci_spec::runtime::Process> {
    let mut process = bundle.spec.process().clone()?;
    process.set_args(Some(request.args.clone()));
    let env = process.env().iter().flatten().chain(&request.env).cloned().collect();
    process.set_env(Some(env));
    if let Some(cwd) = &request.cwd {
        process.set_cwd(cwd.clone());
    }
    Some(process)
}

/// Waits for the command's end, or for the caller's. `None` when nobody is left to be told.
fn attend(command: &OwnedFd, control: &Channel) -> Option<Notice> {
    loop {
        let mut fds = [PollFd::new(command, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_ready) => {}
        }
        if !fds[0].revents().is_empty() {
            let status = waitid(WaitId::PidFd(command.as_fd()), WaitIdOptions::EXITED).ok().flatten()?;
            let (code, signal) = exit_of(&status);
            return Some(Notice::Exited { exit: ExecExit { code, signal } });
        }
        match control.receive::<Order>() {
            Ok(Some(Order::Signal { signal })) => {
                // A command that has just ended needs no signal, and one that doesn't exist does nothing.
                let _gone = send_signal(command.as_fd(), signal);
            }
            Ok(Some(Order::Run { .. }) | None) | Err(_) => {
                let _gone = send_signal(command.as_fd(), libc::SIGKILL);
                return None;
            }
        }
    }
}
