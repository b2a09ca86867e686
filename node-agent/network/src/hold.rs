//! Keeps the packets sent to a frozen instance and delivers them when it runs again, here or elsewhere.
//!
//! Dropping them would cost more than the freeze itself: the peer's TCP backs its retransmission off and
//! comes back long after the instance does. So while an instance is frozen its MAC points at the hold
//! port, and whatever comes out there waits in a socket's buffer in the kernel; no thread has to run.
//!
//! ```text
//!   begin ---> (freeze, shield up) ---+--> committed: forwarding flips, then release to the tunnel
//!                                     +--> aborted:   shield down, then release to the instance
//! ```
//!
//! If the agent dies the frames are lost and TCP sends them again: slower, still right.

use std::io;
use std::net::Ipv4Addr;

use crate::address::{Mac, host_end_name};
use crate::netlink::LinkError;
use crate::netns::NetNsError;
use crate::node::NodeNetwork;
use crate::sys::PacketSocket;

/// The bridge's port that frames of frozen instances are sent to.
pub const HOLD: &str = "dray-hold";

/// The link where they come out.
pub const HOLD_TAIL: &str = "dray-held";

/// Room for held frames per instance, in bytes; the kernel doubles it for its own bookkeeping.
const BUFFER_BYTES: i32 = 4 << 20;

/// Frames being kept for one frozen instance.
#[derive(Debug)]
pub struct Hold {
    socket: PacketSocket,
    address: Ipv4Addr,
}

/// What came of a hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Frames delivered.
    pub frames: u32,
    /// Frames that did not fit, or could not be sent on; their senders will repeat them.
    pub lost: u32,
}

/// Why frames could not be kept or released.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The socket that keeps them could not be made.
    #[error("keep frames for {address}")]
    Keep {
        /// The frozen task's address.
        address: Ipv4Addr,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The frames kept could not be read.
    #[error("read the frames kept for {address}")]
    Read {
        /// The frozen task's address.
        address: Ipv4Addr,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// A link could not be reached or pointed at.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The node's namespace could not be joined.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
}

impl NodeNetwork {
    /// Prepares to keep a task's frames, without touching them yet. Costs milliseconds; do it while the task
    /// still runs.
    pub fn prepare_hold(&self, address: Ipv4Addr) -> Result<Hold, HoldError> {
        let open = || PacketSocket::keeper(self.hold_tail(), Mac::of(address), BUFFER_BYTES);
        let socket = self.namespace().run(open)?.map_err(|cause| HoldError::Keep { address, cause })?;
        Ok(Hold { socket, address })
    }

    /// From now on the task's frames are kept, wherever on this node they come from.
    pub async fn begin_hold(&self, hold: &Hold) -> Result<(), HoldError> {
        Ok(self.steer(Mac::of(hold.address), self.hold_port(), HOLD).await?)
    }

    /// Delivers what was kept to an instance on this node. Lower its shield first.
    pub async fn release_to_instance(&self, hold: Hold, instance: &str) -> Result<Released, HoldError> {
        let link = self.netlink().get(&host_end_name(instance)).await?;
        hold.release(link.index)
    }

    /// Sends what was kept to the node that forwarding now names. Flip first.
    pub fn release_to_node(&self, hold: Hold) -> Result<Released, HoldError> {
        hold.release(self.tunnel())
    }
}

impl Hold {
    /// Sends everything kept out of a link, oldest first.
    fn release(self, link: u32) -> Result<Released, HoldError> {
        let read = |cause| HoldError::Read { address: self.address, cause };
        let mut released = Released::default();
        while let Some(frame) = self.socket.receive().map_err(read)? {
            match self.socket.send(link, &frame) {
                Ok(()) => released.frames += 1,
                Err(_) => released.lost += 1,
            }
        }
        released.lost += self.socket.dropped().map_err(read)?;
        Ok(released)
    }
}
