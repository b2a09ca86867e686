//! Packets between agent and shim: one JSON message each, over `SOCK_SEQPACKET`.

use std::fs::Permissions;
use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    UnixAddr, accept4, bind, connect, listen, recv, recvmsg, send, sendmsg, setsockopt, shutdown, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use rustix::fs::{CWD, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{MESSAGE_BYTES_MAX, SOCKET_FILE};

/// The kernel sends no more descriptors along with a message (`SCM_MAX_FD`).
const FDS_MAX: usize = 253;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Channel {
    /// Wraps a connected socket.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Connects to the shim in `run_dir`.
    pub(crate) fn connect(run_dir: &Path) -> io::Result<Self> {
        let fd = new_socket(SockFlag::SOCK_CLOEXEC)?;
        with_address(run_dir, |address| connect(fd.as_raw_fd(), address))?;
        Ok(Self { fd })
    }

    /// How long sending and receiving may block.
    pub(crate) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let value =
            TimeVal::new(timeout.as_secs().try_into().unwrap_or(i64::MAX), timeout.subsec_micros().into());
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &value)?;
        Ok(setsockopt(&self.fd, sockopt::SendTimeout, &value)?)
    }

    /// Sends one message.
    pub(crate) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Receives one message; `None` when the other side has closed.
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<M>> {
        let mut buffer = vec![0; self.next_length()?];
        if buffer.is_empty() {
            return Ok(None);
        }
        let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        Ok(Some(serde_json::from_slice(&buffer[..length])?))
    }

    /// The length of the message that is next, or 0 when there is none any more. Blocks for it.
    fn next_length(&self) -> io::Result<usize> {
        let look = || recv(self.fd.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC);
        let length = match look() {
            // Said once when the other side closed without reading all; what it sent before is still to be had.
            Err(Errno::ECONNRESET) => look()?,
            looked => looked?,
        };
        if length > MESSAGE_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(length) }
    }
}

impl Channel {
    /// Sends one message together with descriptors.
    pub(crate) fn send_with(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &rights[..0] } else { &rights };
        let bytes = [IoSlice::new(&bytes)];
        sendmsg::<UnixAddr>(self.fd.as_raw_fd(), &bytes, rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Receives one message with the descriptors that came along.
    pub(crate) fn receive_with<M: DeserializeOwned>(&self) -> io::Result<(Option<M>, Vec<OwnedFd>)> {
        let mut buffer = vec![0; self.next_length()?];
        let mut space = cmsg_space!([RawFd; FDS_MAX]);
        let mut fds = Vec::new();
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<UnixAddr>(self.fd.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                fds.extend(raw.into_iter().map(crate::sys::own));
            }
        }
        match received.bytes {
            0 => Ok((None, fds)),
            length => Ok((Some(serde_json::from_slice(&buffer[..length])?), fds)),
        }
    }

    /// Ends the conversation: the other side receives no more.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        Ok(shutdown(self.fd.as_raw_fd(), Shutdown::Both)?)
    }
}

/// Binds and listens on the shim's socket in `run_dir`. A stale socket is replaced.
pub(crate) fn listen_in(run_dir: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(run_dir.join(SOCKET_FILE)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _gone => {}
    }
    let fd = new_socket(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    with_address(run_dir, |address| bind(fd.as_raw_fd(), address))?;
    // Who may write to it may do anything to the container. Nobody can connect before we listen.
    std::fs::set_permissions(run_dir.join(SOCKET_FILE), Permissions::from_mode(0o600))?;
    listen(&fd, Backlog::new(64)?)?;
    Ok(fd)
}

/// Accepts one connection, if one waits.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<Option<Channel>> {
    match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
        Ok(fd) => Ok(Some(Channel::new(crate::sys::own(fd)))),
        Err(Errno::EAGAIN | Errno::ECONNABORTED) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// Calls `act` with the socket's address, by way of the directory's fd: a socket's path may have 107 bytes, ours more.
fn with_address(run_dir: &Path, act: impl FnOnce(&UnixAddr) -> nix::Result<()>) -> io::Result<()> {
    let dir =
        rustix::fs::openat(CWD, run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd());
    Ok(act(&UnixAddr::new(path.as_str())?)?)
}
