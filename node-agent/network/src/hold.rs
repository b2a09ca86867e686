//! Keeps packets of a frozen instance and delivers them when it runs again, here or elsewhere.
//!
//! Dropping them would cost more than the freeze itself. What is sent *to* it: the peer's TCP backs its
//! retransmission off and comes back long after the instance does. So its MAC points at the hold port, and
//! whatever comes out there waits in a socket's buffer in the kernel; no thread has to run. What it sends
//! *itself* behind its shield: a restored socket's first packet needs an ARP answer, and a request that
//! was lost is repeated after a whole second.
//!
//! ```text
//!   source: hold incoming ---> (freeze, shield up) -+-> committed: relay to the tunnel for a while, then flip
//!                                                   +-> aborted: shield down, then release to the instance
//!   target: hold outgoing ---> (restore) -----------+-> committed: shield down, then release to the bridge
//! ```
//!
//! If the agent dies the frames are lost and TCP sends them again: slower, still right.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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

/// How soon a relay notices that it is to end.
const RELAY_PAUSE: Duration = Duration::from_millis(20);

/// Frames being kept that were sent to a task.
#[derive(Debug)]
pub struct Incoming {
    keeper: Keeper,
    address: Ipv4Addr,
}

/// Frames being kept that an instance sent.
#[derive(Debug)]
pub struct Outgoing {
    keeper: Keeper,
}

impl Incoming {
    /// The task's address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
}

/// A socket that keeps frames, and whose they are, for errors.
#[derive(Debug)]
struct Keeper {
    socket: PacketSocket,
    whose: String,
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
    #[error("keep frames of {whose}")]
    Keep {
        /// The task's address or the instance.
        whose: String,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The frames kept could not be read.
    #[error("read the frames kept of {whose}")]
    Read {
        /// The task's address or the instance.
        whose: String,
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
    /// Prepares to keep what is sent to a task, without touching it yet. Do it while the task still runs.
    pub fn prepare_incoming(&self, address: Ipv4Addr) -> Result<Incoming, HoldError> {
        let keeper = self.keeper(self.hold_tail(), Some(Mac::of(address)), address.to_string())?;
        Ok(Incoming { keeper, address })
    }

    /// From now on what is sent to the task is kept, wherever on this node it comes from.
    pub async fn begin_incoming(&self, hold: &Incoming) -> Result<(), HoldError> {
        self.end_relay(hold.address).await;
        Ok(self.steer(Mac::of(hold.address), self.hold_port(), HOLD).await?)
    }

    /// Delivers what was kept to an instance on this node. Lower its shield first.
    pub async fn release_to_instance(&self, hold: Incoming, instance: &str) -> Result<Released, HoldError> {
        let link = self.netlink().get(&host_end_name(instance)).await?;
        hold.keeper.release(link.index)
    }

    /// Sends what was kept to the node that has the task now, and for a while whatever still comes: other
    /// nodes learn of the move a moment later, and what they send here meanwhile would be lost. Then flips.
    /// Ends at once when the task comes back.
    pub async fn relay_to_node(
        &self,
        hold: Incoming,
        node: Ipv4Addr,
        how_long: Duration,
    ) -> Result<Released, HoldError> {
        let Incoming { keeper, address } = hold;
        let ended = Arc::new(AtomicBool::new(false));
        {
            let mut relays = self.relays.lock().await;
            self.point(address, node).await?;
            relays.insert(address, ended.clone());
        }
        let (tunnel, deadline, until) = (self.tunnel(), Instant::now() + how_long, ended.clone());
        let relay = move || keeper.relay(tunnel, deadline, &until);
        let lost = |cause| HoldError::Read { whose: address.to_string(), cause: io::Error::other(cause) };
        let (keeper, mut released) = tokio::task::spawn_blocking(relay).await.map_err(lost)??;
        // Under the lock: a task that comes back now is steered after this, not before.
        let mut relays = self.relays.lock().await;
        if !ended.load(Ordering::Acquire) {
            relays.remove(&address);
            self.flip(address, node).await?;
            keeper.pass_on(tunnel, &mut released)?;
        }
        keeper.finish(released)
    }

    /// The task is coming here: what is sent to it stays here.
    pub(crate) async fn end_relay(&self, address: Ipv4Addr) {
        if let Some(ended) = self.relays.lock().await.remove(&address) {
            ended.store(true, Ordering::Release);
        }
    }

    /// Sends what was kept for a task that is not to come here after all to the node that has it.
    pub async fn release_to_node(&self, hold: Incoming, node: Ipv4Addr) -> Result<Released, HoldError> {
        self.flip(hold.address, node).await?;
        hold.keeper.release(self.tunnel())
    }

    /// From now on what a shielded instance sends is kept.
    pub async fn hold_outgoing(&self, instance: &str) -> Result<Outgoing, HoldError> {
        let link = self.netlink().get(&host_end_name(instance)).await?;
        let keeper = self.keeper(link.index, None, instance.to_owned())?;
        Ok(Outgoing { keeper })
    }

    /// Sends what was kept on its way. Lower the instance's shield first, so that answers find it.
    pub fn release_outgoing(&self, hold: Outgoing) -> Result<Released, HoldError> {
        hold.keeper.release(self.bridge())
    }

    fn keeper(&self, link: u32, mac: Option<Mac>, whose: String) -> Result<Keeper, HoldError> {
        match self.namespace().run(|| PacketSocket::keeper(link, mac, BUFFER_BYTES))? {
            Ok(socket) => Ok(Keeper { socket, whose }),
            Err(cause) => Err(HoldError::Keep { whose, cause }),
        }
    }
}

impl Keeper {
    /// Sends everything kept out of a link, oldest first.
    fn release(self, link: u32) -> Result<Released, HoldError> {
        let mut released = Released::default();
        self.pass_on(link, &mut released)?;
        self.finish(released)
    }

    /// The same, and counts them; the socket goes on keeping.
    fn pass_on(&self, link: u32, released: &mut Released) -> Result<(), HoldError> {
        while let Some(frame) = self.socket.receive().map_err(|cause| self.unreadable(cause))? {
            match self.socket.send(link, &frame) {
                Ok(()) => released.frames += 1,
                Err(_) => released.lost += 1,
            }
        }
        Ok(())
    }

    /// Passes on what comes until the deadline, or until told to end.
    fn relay(self, link: u32, deadline: Instant, ended: &AtomicBool) -> Result<(Self, Released), HoldError> {
        let mut released = Released::default();
        while !ended.load(Ordering::Acquire) {
            self.pass_on(link, &mut released)?;
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            self.wait(left.min(RELAY_PAUSE))?;
        }
        Ok((self, released))
    }

    /// Waits for a frame, but not longer than this.
    fn wait(&self, most: Duration) -> Result<(), HoldError> {
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, most) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(self.unreadable(errno.into())),
        }
    }

    fn finish(self, mut released: Released) -> Result<Released, HoldError> {
        released.lost += self.socket.dropped().map_err(|cause| self.unreadable(cause))?;
        close_aside(self.socket);
        Ok(released)
    }

    fn unreadable(&self, cause: io::Error) -> HoldError {
        HoldError::Read { whose: self.whose.clone(), cause }
    }
}

/// Closing a packet socket waits until no CPU can still use it: 6 to 20 ms that nobody needs to wait for.
fn close_aside(socket: PacketSocket) {
    // Without a thread it is dropped, and so closed, right here.
    drop(thread::Builder::new().name("close".to_owned()).spawn(move || drop(socket)));
}
