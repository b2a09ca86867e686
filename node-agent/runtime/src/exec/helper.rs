//! The helper process of an exec: enters the container, forks the command, waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
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
use thiserror::Error;

use super::{ExecExit, ExecRequest, Notice, Order, TerminalSize};
use crate::bundle::Bundle;
use crate::cgroup::{CgroupError, Door};
use crate::client::{Process, read_bundle};
use crate::error::chain;
use crate::process::{Program, ProgramError};
use crate::shim::channel::Channel;
use crate::shim::exit_of;
use crate::shim::protocol::Refusal;
use crate::shim::state::{Phase, StateError, read_state};
use crate::sys::{
    Forked, close_from_on_exec, default_signal_actions, exit_now, fork, send_signal, take_stdin,
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
    #[error(transparent)]
    State(#[from] StateError),
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
            HelperError::NotRunning => Self::Phase { request: "exec".into(), reason: message },
            HelperError::Program(error) => match error.exit_code() {
                Some(code) => Self::Program { message, code },
                None => Self::Failed { message },
            },
            HelperError::Step { .. } | HelperError::State(_) | HelperError::Cgroup(_) => {
                Self::Failed { message }
            }
        }
    }
}

/// Runs the helper: standard input is the socket to the caller.
pub(crate) fn run() -> ExitCode {
    let Ok(control) = take_stdin().map(Channel::new) else { return ExitCode::FAILURE };
    let (order, fds) = match control.receive_with::<Order>() {
        Ok((Some(Order::Run { instance_dir, request }), fds)) => ((instance_dir, request), fds),
        Ok((Some(Order::Signal { .. }) | None, _)) | Err(_) => return ExitCode::FAILURE,
    };
    let notice = match start(&order.0, &order.1, fds, &control) {
        Ok(command) => attend(&command, &control),
        Err(error) => Some(Notice::Failed { refusal: error.into() }),
    };
    // A caller that is gone needs no answer.
    let _told = notice.map(|notice| control.send(&notice));
    ExitCode::SUCCESS
}

/// What a command reads and writes, and the caller's side of it if that is a terminal.
enum Stdio {
    Pipes(Vec<OwnedFd>),
    Terminal { master: OwnedFd, slave: OwnedFd },
}

fn start(
    dir: &Path,
    request: &ExecRequest,
    fds: Vec<OwnedFd>,
    control: &Channel,
) -> Result<OwnedFd, HelperError> {
    // Once inside, the container's root could otherwise look into this process, which is of the node.
    set_dumpable(false).map_err(|errno| step("hide from the container")(errno.into()))?;
    let bundle = read_bundle(dir).ok_or(HelperError::NotRunning)?;
    let init = running_init(dir)?;
    // Opened from outside: the container sees no other cgroups, and may not move processes.
    let mut doors = bundle.cgroup.open_doors()?;
    enter(&bundle, &init).map_err(step("enter the container's namespaces"))?;
    let stdio = match request.terminal {
        Some(size) => open_terminal(size).map_err(step("open a terminal in the container"))?,
        None => Stdio::Pipes(fds),
    };
    let command = give_birth(&bundle, request, &stdio, &mut doors)?;
    let master = match &stdio {
        Stdio::Terminal { master, .. } => vec![master.as_fd()],
        Stdio::Pipes(_) => Vec::new(),
    };
    control.send_with(&Notice::Started, &master).map_err(step("tell the caller"))?;
    Ok(command)
}

fn running_init(dir: &Path) -> Result<Process, HelperError> {
    let state = read_state(dir)?;
    let init = state.init.filter(|_| state.phase == Phase::Running).ok_or(HelperError::NotRunning)?;
    Process::open(init).map_err(step("open the container's init"))?.ok_or(HelperError::NotRunning)
}

fn enter(bundle: &Bundle, init: &Process) -> io::Result<()> {
    let all = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    let user = if bundle.idmap.is_some() { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
    setns(init.as_fd(), all | user)?;
    setgroups(&[])?;
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
    Ok(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?)
}

/// A terminal of the container's own devpts, so that its name means something inside.
fn open_terminal(size: TerminalSize) -> io::Result<Stdio> {
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
    Ok(Stdio::Terminal { master, slave })
}

/// Forks the command into the pid namespace, moves it into the cgroup, and returns when it has executed its program.
fn give_birth(
    bundle: &Bundle,
    request: &ExecRequest,
    stdio: &Stdio,
    doors: &mut [Door],
) -> Result<OwnedFd, HelperError> {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.map_err(|errno| step("make a socket pair")(errno.into()))?;
    match fork().map_err(step("fork"))? {
        Forked::Child => {
            drop(ours);
            let channel = Channel::new(theirs);
            let refusal = Refusal::from(become_command(bundle, request, stdio, &channel));
            let _told = channel.send(&refusal);
            exit_now(125)
        }
        Forked::Parent(pid, pidfd) => {
            drop(theirs);
            let channel = Channel::new(ours);
            doors.iter_mut().try_for_each(|door| door.admit(pid))?;
            channel.send(&()).map_err(step("let the command go"))?;
            match channel.receive::<Refusal>().map_err(step("hear from the command"))? {
                None => Ok(pidfd),
                Some(refusal) => Err(refusal.into()),
            }
        }
    }
}

/// Becomes the command; returns only why not.
fn become_command(bundle: &Bundle, request: &ExecRequest, stdio: &Stdio, channel: &Channel) -> HelperError {
    let prepare = || {
        begin(stdio).map_err(step("connect standard input and output"))?;
        // Nothing of the container's own choosing runs before it is in the cgroup.
        match channel.receive::<()>().map_err(step("hear from the helper"))? {
            Some(()) => {}
            None => return Err(HelperError::NotRunning),
        }
        let process = process_of(bundle, request).ok_or(HelperError::NotRunning)?;
        let user = request.user.as_deref().or(bundle.user.as_deref());
        let seccomp = bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        Ok(Program::look_up(&process, user, seccomp)?)
    };
    match prepare() {
        Ok(program) => program.execute().into(),
        Err(error) => error,
    }
}

fn begin(stdio: &Stdio) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    default_signal_actions();
    SigSet::empty().thread_set_mask()?;
    setsid()?;
    let ends: [BorrowedFd<'_>; 3] = match stdio {
        Stdio::Terminal { slave, .. } => {
            rustix::process::ioctl_tiocsctty(slave)?;
            [slave.as_fd(), slave.as_fd(), slave.as_fd()]
        }
        Stdio::Pipes(pipes) => match pipes.as_slice() {
            [stdin, stdout, stderr] => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            _missing => return Err(io::ErrorKind::InvalidInput.into()),
        },
    };
    dup2_stdin(ends[0])?;
    dup2_stdout(ends[1])?;
    dup2_stderr(ends[2])?;
    close_from_on_exec(3)
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
