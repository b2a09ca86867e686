//! Replies to recent requests, so that a repeated request isn't done twice.

use crate::outcome::Reply;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// How many replies are kept. At 100 writes a second, over a minute.
pub const REQUESTS_KEPT: usize = 8192;

/// The last requests that were granted. A refused one may be repeated: it
/// changed nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    order: VecDeque<String>,
    replies: BTreeMap<String, Remembered>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// Digest of the operation, to notice an id that is used for two.
    digest: u64,
    reply: Reply,
}

/// What is known of a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// Nothing.
    New,
    /// The same request was granted.
    Repeated(&'a Reply),
    /// Another request had this id.
    Reused,
}

impl Requests {
    pub(crate) fn look_up(&self, id: &str, digest: u64) -> Known<'_> {
        match self.replies.get(id) {
            None => Known::New,
            Some(known) if known.digest == digest => Known::Repeated(&known.reply),
            Some(_) => Known::Reused,
        }
    }

    pub(crate) fn remember(&mut self, id: &str, digest: u64, reply: Reply) {
        if self.order.len() == REQUESTS_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.replies.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.replies.insert(id.to_owned(), Remembered { digest, reply });
    }
}
