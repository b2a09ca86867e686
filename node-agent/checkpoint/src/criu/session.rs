//! One conversation with one CRIU process.
//!
//! ```text
//! start ──► call (version, features) ──► drop
//!      └──► run: request ─► notification ─► answer ─► ... ─► response ─► CRIU exits
//! ```
//!
//! **CRIU is never killed from here.** While it holds a container, the container's tasks are stopped under its ptrace
//! and their TCP sockets are in repair mode; killed, it can't undo that (see [`crate::sockets`]). To end a conversation
//! early the socket is closed: CRIU takes that for a refusal, undoes what it did and exits by itself.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use prost::Message;
use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use thiserror::Error;

use super::log::LogTail;
use super::rpc::{Kind, Request, Response};
use crate::sys::{self, CgroupVisit, ChildSetup};

/// The largest message CRIU sends is a few hundred bytes.
const MESSAGE_BYTES: usize = 64 << 10;

/// A point of CRIU's work at which it waits for an answer. Named as CRIU names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Dump: CRIU is ready and has touched nothing yet.
    PreDump,
    /// Dump: the images are complete, the tasks are stopped. A refusal lets them go on; consent kills them.
    PostDump,
    /// Restore: the images have been read.
    PreRestore,
    /// Restore: the init exists in its namespaces, alone. The network namespace is empty.
    SetupNamespaces,
    /// Restore: the mounts and the other namespaces are there.
    PostSetupNamespaces,
    /// Restore: carries the master of a terminal as a descriptor.
    OrphanPtsMaster,
    /// Restore: all is there and none of it has run. **The last moment to refuse.**
    PostRestore,
    /// Restore: about to let go. An answer changes nothing any more.
    PreResume,
    /// Restore: it runs.
    PostResume,
    /// Anything else (`network-lock`, `network-unlock`, `query-ext-files`, ...).
    Other(String),
}

impl Event {
    fn named(name: &str) -> Self {
        match name {
            "pre-dump" => Self::PreDump,
            "post-dump" => Self::PostDump,
            "pre-restore" => Self::PreRestore,
            "setup-namespaces" => Self::SetupNamespaces,
            "post-setup-namespaces" => Self::PostSetupNamespaces,
            "orphan-pts-master" => Self::OrphanPtsMaster,
            "post-restore" => Self::PostRestore,
            "pre-resume" => Self::PreResume,
            "post-resume" => Self::PostResume,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What CRIU says at an [`Event`].
#[derive(Debug)]
pub struct Notification {
    /// Which point has been reached.
    pub event: Event,
    /// The restored init, where CRIU gives it (`setup-namespaces`, `post-restore`).
    pub pid: Option<i32>,
    /// A descriptor handed over with it.
    pub fd: Option<OwnedFd>,
}

/// Why a hook said no.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Refused {
    /// For the user.
    pub reason: String,
}

impl Refused {
    /// Refuses for `reason`.
    #[must_use]
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// What a hook answers.
pub type Answer = Result<(), Refused>;

/// A conversation failed.
#[derive(Debug, Error)]
pub enum SessionError {
    /// CRIU can't be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A namespace or cgroup to start it in can't be opened.
    #[error("open {path} to start CRIU there")]
    Place {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The socket failed.
    #[error("talk to CRIU")]
    Talk(#[source] io::Error),
    /// CRIU's message makes no sense.
    #[error("understand CRIU's message")]
    Decode(#[from] prost::DecodeError),
    /// CRIU ended without an answer: killed, or crashed. What it held is in doubt.
    #[error("CRIU ended without an answer ({status}). {said}{log}")]
    Gone {
        /// How it ended.
        status: String,
        /// What it wrote to its standard error.
        said: String,
        /// The end of its log.
        log: LogTail,
    },
    /// CRIU says that it failed; it has undone what it did.
    #[error("CRIU failed. {log}")]
    Failed {
        /// The end of its log.
        log: LogTail,
    },
    /// A hook refused, and CRIU has undone what it did.
    #[error("refused at {event:?}")]
    Refused {
        /// Where.
        event: Event,
        /// Why.
        #[source]
        reason: Refused,
    },
}

/// Where and with what CRIU is started.
#[derive(Debug, Default)]
pub struct Place {
    /// The network namespace to work in, for example `/proc/4711/ns/net`.
    pub network: Option<PathBuf>,
    /// Directories of cgroups that become the roots of a new cgroup namespace. CRIU itself stays where it is.
    pub cgroups: Vec<PathBuf>,
    /// Descriptors that CRIU inherits under their own numbers.
    pub inherit: Vec<OwnedFd>,
}

/// A running CRIU that waits for requests.
#[derive(Debug)]
pub struct Session {
    // Declared first, so that it is closed before the child is waited for.
    socket: Option<OwnedFd>,
    child: Child,
    said: File,
}

impl Place {
    pub(super) fn setup(self) -> Result<ChildSetup, SessionError> {
        let network = self.network.map(|path| open(&path, OFlags::RDONLY)).transpose()?;
        let cgroups = if self.cgroups.is_empty() { None } else { Some(visit(&self.cgroups)?) };
        Ok(ChildSetup { inherit: self.inherit, network, cgroups, mounts: Vec::new() })
    }
}

/// The doors of the cgroups to visit, and of those this process is in, hierarchy by hierarchy.
fn visit(dirs: &[PathBuf]) -> Result<CgroupVisit, SessionError> {
    let door = |dir: &Path| open(&dir.join("cgroup.procs"), OFlags::WRONLY);
    let back = super::launch::own_cgroups(dirs)
        .map_err(|cause| SessionError::Place { path: PathBuf::from("/proc/self/cgroup"), cause })?;
    Ok(CgroupVisit {
        visit: dirs.iter().map(|dir| door(dir)).collect::<Result<_, _>>()?,
        back: back.iter().map(|dir| door(dir)).collect::<Result<_, _>>()?,
    })
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, SessionError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(|errno| SessionError::Place { path: path.to_owned(), cause: errno.into() })
}

impl Session {
    /// Starts `program` as `criu swrk`. It does nothing until it is asked.
    pub(super) fn start(program: &Path, mut setup: ChildSetup) -> Result<Self, SessionError> {
        let failed = |cause: io::Error| SessionError::Start { program: program.to_owned(), cause };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| failed(errno.into()))?;
        let said = rustix::fs::memfd_create("criu-stderr", MemfdFlags::CLOEXEC)
            .map_err(|errno| failed(errno.into()))
            .map(File::from)?;
        let mut command = Command::new(program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(said.try_clone().map_err(failed)?);
        setup.inherit.push(theirs);
        sys::prepare(&mut command, setup);
        let child = command.spawn().map_err(failed)?;
        Ok(Self { socket: Some(ours), child, said })
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks something that has no notifications.
    ///
    /// # Errors
    /// When CRIU can't be talked to, or fails.
    pub fn call(&mut self, request: &Request) -> Result<Response, SessionError> {
        self.run(request, Path::new(""), &mut |_| Ok(()))
    }

    /// Has CRIU do `request`, answering its notifications with `hook`, and returns its response.
    /// `log` is the file it logs to.
    ///
    /// # Errors
    /// When a hook refuses, CRIU fails, or it ends without an answer ([`SessionError::Gone`]).
    pub fn run(
        &mut self,
        request: &Request,
        log: &Path,
        hook: &mut dyn FnMut(Notification) -> Answer,
    ) -> Result<Response, SessionError> {
        let mut refusal: Option<(Event, Refused)> = None;
        if self.send(request).is_err() {
            return Err(self.gone(log));
        }
        loop {
            let Some((response, fd)) = self.receive()? else { return Err(self.gone(log)) };
            let Some(notify) = response.notify.as_ref().filter(|_| response.kind() == Kind::Notify) else {
                return match refusal {
                    Some((event, reason)) => Err(SessionError::Refused { event, reason }),
                    None if response.success => Ok(response),
                    None => Err(SessionError::Failed { log: LogTail::read(log) }),
                };
            };
            let event = Event::named(notify.script());
            let answer = hook(Notification { event: event.clone(), pid: notify.pid, fd });
            let sent = self.send(&Request::answer(answer.is_ok()));
            // The first refusal is the reason; what is refused while CRIU undoes its work isn't.
            refusal = refusal.or(answer.err().map(|reason| (event, reason)));
            if sent.is_err() {
                return Err(self.gone(log));
            }
        }
    }

    fn send(&self, request: &Request) -> Result<(), Errno> {
        let bytes = request.encode_to_vec();
        let socket = self.socket.as_ref().ok_or(Errno::PIPE)?;
        let parts = [IoSlice::new(&bytes)];
        retry(|| sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)).map(drop)
    }

    /// The next message, or nothing when CRIU has closed its end.
    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>, SessionError> {
        let mut bytes = vec![0_u8; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let Some(socket) = &self.socket else { return Ok(None) };
        let received = retry(|| {
            recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Ok(received) => received,
            Err(Errno::CONNRESET | Errno::PIPE) => return Ok(None),
            Err(errno) => return Err(SessionError::Talk(errno.into())),
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(SessionError::Talk(io::Error::from(Errno::MSGSIZE)));
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(Some((Response::decode(&bytes[..received.bytes])?, fd)))
    }

    fn gone(&mut self, log: &Path) -> SessionError {
        let status = self.end();
        let mut said = String::new();
        let read = self.said.rewind().and_then(|()| self.said.read_to_string(&mut said));
        if read.is_err() || said.trim().is_empty() {
            said.clear();
        }
        SessionError::Gone { status, said, log: LogTail::read(log) }
    }

    /// Closes the socket and waits for CRIU to end by itself.
    fn end(&mut self) -> String {
        drop(self.socket.take());
        match self.child.wait() {
            Ok(status) => ExitStatus::to_string(&status),
            // The shim reaps all its children in one place and may have been faster.
            Err(cause) => cause.to_string(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _status = self.end();
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
