//! Packet sockets (packet(7)): sending a frame out of a link as it is, and keeping the frames that arrive.
//!
//! Every frame is preceded by a `virtio_net_hdr`, in both directions: frames between containers are often
//! large segments with their checksums still to be filled in, and that header is what says so. Without it a
//! frame kept and sent again would be dropped by its receiver.

#![expect(unsafe_code, reason = "packet sockets and their options have no safe binding")]

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::address::Mac;

/// Bytes of the `virtio_net_hdr` before each frame.
pub(crate) const OFFLOAD_HEADER_BYTES: usize = 10;

/// A frame can be a whole 64 KiB segment and its headers.
const LARGEST_FRAME_BYTES: usize = OFFLOAD_HEADER_BYTES + 128 + 65_536;

/// Returns the whole frame to the socket (BPF's return value is a length).
const ACCEPT: u32 = 0x0004_0000;

/// `AF_PACKET` and `ETH_P_ALL` in the widths of a packet socket's address.
const FAMILY: libc::sa_family_t = 17;
const EVERY_PROTOCOL: u16 = 3;

/// A raw packet socket. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PacketSocket {
    /// A socket that only sends.
    pub(crate) fn sender() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket(2) takes no pointers. Protocol 0 receives nothing.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        socket.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
        Ok(socket)
    }

    /// A socket that keeps, from now on, the frames that come in through the link with this index, in a
    /// buffer of the kernel of this size; only those for `mac`, if it is given. It sends too.
    pub(crate) fn keeper(link: u32, mac: Option<Mac>, buffer_bytes: i32) -> io::Result<Self> {
        let socket = Self::sender()?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer_bytes)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        if let Some(mac) = mac {
            socket.filter(mac)?;
        }
        // Last, so that nothing but what is wanted was ever received.
        let address = link_address(link)?;
        // SAFETY: the address lives through the call and the length is its own.
        check(unsafe {
            libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), length_of(&address))
        })?;
        Ok(socket)
    }

    /// The next frame kept, with its offload header, or `None` if there is none now.
    pub(crate) fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0_u8; LARGEST_FRAME_BYTES];
        // SAFETY: the buffer is ours, initialized, and as long as said.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        match usize::try_from(got) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Sends a frame, with its offload header in front, out of the link with this index.
    pub(crate) fn send(&self, link: u32, frame: &[u8]) -> io::Result<()> {
        let address = link_address(link)?;
        // SAFETY: frame and address live through the call and the lengths are their own.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                length_of(&address),
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Frames that did not fit the buffer since the last call.
    pub(crate) fn dropped(&self) -> io::Result<u32> {
        let mut stats = MaybeUninit::<libc::tpacket_stats>::zeroed();
        let mut length = length_of(&stats);
        // SAFETY: the kernel writes at most `length` bytes, which is the structure's size.
        check(unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                stats.as_mut_ptr().cast(),
                &raw mut length,
            )
        })?;
        // SAFETY: all bytes are initialized, zeroed if not written, and every pattern is valid.
        Ok(unsafe { stats.assume_init() }.tp_drops)
    }

    /// Accepts only frames to `mac`: compares the first four and the next two bytes.
    fn filter(&self, mac: Mac) -> io::Result<()> {
        let [a, b, c, d, e, f] = mac.0;
        let load = |size, offset| instruction(libc::BPF_LD | size | libc::BPF_ABS, 0, offset);
        let unless = |value, skip| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, value);
        let answer = |length| instruction(libc::BPF_RET | libc::BPF_K, 0, length);
        let mut program = [
            load(libc::BPF_W, 0),
            unless(u32::from_be_bytes([a, b, c, d]), 3),
            load(libc::BPF_H, 4),
            unless(u32::from(u16::from_be_bytes([e, f])), 1),
            answer(ACCEPT),
            answer(0),
        ];
        let filter = libc::sock_fprog { len: 6, filter: program.as_mut_ptr() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    /// Sets a socket option. `T` must be the option's own C type.
    fn set<T>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        // SAFETY: value lives through the call and the length is its own; the kernel only reads it.
        let done = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, option, (&raw const *value).cast(), length_of(value))
        };
        check(done).map(drop)
    }
}

/// A BPF instruction that skips `otherwise` instructions if a comparison fails.
fn instruction(code: u32, otherwise: u8, k: u32) -> libc::sock_filter {
    let code = u16::try_from(code).unwrap_or_default();
    libc::sock_filter { code, jt: 0, jf: otherwise, k }
}

fn link_address(link: u32) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: the structure is plain numbers; zero is valid for all of them.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = FAMILY;
    address.sll_protocol = EVERY_PROTOCOL.to_be();
    address.sll_ifindex = i32::try_from(link).map_err(io::Error::other)?;
    Ok(address)
}

/// A value's size in the type that socket calls take; all of ours are a few bytes.
fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or(libc::socklen_t::MAX)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
