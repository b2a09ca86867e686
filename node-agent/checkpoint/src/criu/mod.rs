//! CRIU as a program: where it is, what it can do, and one conversation with it.
//!
//! Everything goes through `criu swrk`: one process per conversation, protobuf messages over a SEQPACKET pair.

pub mod cache;
pub mod image;
pub mod launch;
pub mod log;
pub mod rpc;
pub mod session;

pub use cache::{CacheError, KernelCache};
pub use launch::{Criu, CriuError, Description, Version};
pub use session::{Answer, Event, Notification, Place, Refused, Session, SessionError};
