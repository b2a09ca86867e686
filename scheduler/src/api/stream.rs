//! Streams of answers, and what ends them.

use futures::{Stream, StreamExt, stream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::{Status, Streaming};

/// A stream of answers.
pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a watch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// Workloads.
    Workloads,
    /// Tasks.
    Tasks,
    /// Nodes.
    Nodes,
    /// Migrations.
    Migrations,
    /// Events.
    Events,
}

/// Why a user's stream broke off.
#[derive(Debug, Clone, Default)]
pub(super) struct Broken(Arc<Mutex<Option<Status>>>);

impl Broken {
    /// The error, if there was one.
    pub(super) fn take(&self) -> Option<Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

/// A user's messages as a stream to an agent. It ends where the user's broke
/// off, and the second value knows whether it did.
pub(super) fn until_broken<T: Send + 'static>(
    first: T,
    rest: Streaming<T>,
) -> (impl Stream<Item = T> + Send + 'static, Broken) {
    let broken = Broken::default();
    let noted = broken.clone();
    let rest = rest.scan(noted, |noted, message| {
        let message = message.map_err(|status| noted.set(status)).ok();
        std::future::ready(message)
    });
    (stream::iter([first]).chain(rest), broken)
}
