//! A directory tree as a stream, and back.
//!
//! Everything that moves with a container goes this way: the upper directory of its overlay, the content of its
//! `/dev/shm`, and CRIU's images. Kept are ownership, modes, times, extended attributes (so an overlay's opaque
//! directories), hard links, holes, symlinks, device nodes (so an overlay's whiteouts, character device 0:0), FIFOs
//! and sockets. Left out is what an overlay notes about *this* machine's layers.
//!
//! The stream is a sequence of [frames](frame), each with its length and checksum; each frame holds one
//! [record]. At the end stands a digest over all lengths and checksums, so that a missing, repeated or
//! reordered frame is noticed too. That guards against accidents; against attackers there is mutual TLS below.
//!
//! [`unpack()`] trusts nothing that it reads: it writes only below its directory, never through a symlink, never over
//! something that is there, and uses no more memory than one frame.

mod frame;
#[cfg(test)]
mod hostile;
mod pack;
mod record;
mod unpack;

pub use frame::FrameError;
pub use pack::{PackError, pack};
pub use record::{DecodeError, InvalidPath};
pub use unpack::{UnpackError, unpack};

/// What went through a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, directories and everything else.
    pub entries: u64,
    /// Content of files, without holes.
    pub data_bytes: u64,
    /// Length of the stream.
    pub stream_bytes: u64,
}
