//! What a container's runtime and CRIU would do: a network namespace owned by a user namespace, and an
//! established TCP connection taken from one namespace to another with `TCP_REPAIR`
//! (<https://lwn.net/Articles/495304/>).

#![expect(unsafe_code, reason = "TCP_REPAIR's socket options and unsharing in a child have no safe binding")]

use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

const OFF: i32 = 0;
const ON: i32 = 1;
const RECEIVE_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;
const OPTION_MSS: u32 = 2;
const OPTION_WINDOW_SCALE: u32 = 3;
const OPTION_SACK: u32 = 4;
const OPTION_TIMESTAMPS: u32 = 8;

/// Starts a process in a user namespace of its own that owns its network namespace.
pub(crate) fn start_in_user_namespace() -> Child {
    let mut command = Command::new("sleep");
    command.arg("60");
    let leave = || Ok(unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?);
    // SAFETY: unshare(2) is one system call; nothing in the child allocates or locks.
    unsafe { command.pre_exec(leave) }.spawn().unwrap()
}

/// All that is needed to bring a connection with empty queues up elsewhere.
#[derive(Debug)]
pub(crate) struct Connection {
    local: SocketAddrV4,
    peer: SocketAddrV4,
    sent: u32,
    received: u32,
    mss: u32,
    window_scales: u32,
    timestamp: u32,
    window: [u32; 5],
}

/// Takes a connection out of its namespace. Its peer hears nothing of it.
pub(crate) fn take(stream: TcpStream) -> Connection {
    let fd = stream.as_raw_fd();
    set(fd, libc::TCP_REPAIR, &ON);
    let sequence = |queue: i32| {
        set(fd, libc::TCP_REPAIR_QUEUE, &queue);
        get::<u32>(fd, libc::TCP_QUEUE_SEQ)
    };
    let (received, sent) = (sequence(RECEIVE_QUEUE), sequence(SEND_QUEUE));
    // Byte 6 of tcp_info holds both window scales, the peer's in its lower half.
    let scales = u32::from(get::<[u8; 8]>(fd, libc::TCP_INFO)[6]);
    Connection {
        local: crate::lab::v4(stream.local_addr().unwrap()),
        peer: crate::lab::v4(stream.peer_addr().unwrap()),
        sent,
        received,
        mss: get(fd, libc::TCP_MAXSEG),
        window_scales: (scales & 15) | (scales >> 4) << 16,
        timestamp: get(fd, libc::TCP_TIMESTAMP),
        window: get(fd, libc::TCP_REPAIR_WINDOW),
    }
}

/// Brings a connection up in the calling thread's namespace.
pub(crate) fn give(connection: &Connection) -> TcpStream {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let raw = fd.as_raw_fd();
    set(raw, libc::TCP_REPAIR, &ON);
    bind(raw, &SockaddrIn::from(connection.local)).unwrap();
    for (queue, sequence) in [(SEND_QUEUE, connection.sent), (RECEIVE_QUEUE, connection.received)] {
        set(raw, libc::TCP_REPAIR_QUEUE, &queue);
        set(raw, libc::TCP_QUEUE_SEQ, &sequence);
    }
    connect(raw, &SockaddrIn::from(connection.peer)).unwrap();
    let options = [
        [OPTION_MSS, connection.mss],
        [OPTION_WINDOW_SCALE, connection.window_scales],
        [OPTION_SACK, 0],
        [OPTION_TIMESTAMPS, 0],
    ];
    set(raw, libc::TCP_REPAIR_OPTIONS, &options);
    set(raw, libc::TCP_TIMESTAMP, &connection.timestamp);
    set(raw, libc::TCP_REPAIR_WINDOW, &connection.window);
    set(raw, libc::TCP_REPAIR, &OFF);
    TcpStream::from(fd)
}

fn set<T>(fd: i32, option: i32, value: &T) {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap();
    // SAFETY: value lives through the call and the length is its own.
    let done = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, option, (&raw const *value).cast(), length) };
    assert_eq!(done, 0, "setsockopt {option}: {}", io::Error::last_os_error());
}

fn get<T: Copy>(fd: i32, option: i32) -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).unwrap();
    // SAFETY: the kernel writes at most `length` bytes, which is the value's size.
    let done = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, option, value.as_mut_ptr().cast(), &raw mut length)
    };
    assert_eq!(done, 0, "getsockopt {option}: {}", io::Error::last_os_error());
    // SAFETY: only used with numbers and arrays of them, for which all patterns are valid.
    unsafe { value.assume_init() }
}
