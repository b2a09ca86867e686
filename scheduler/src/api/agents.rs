//! Channels to the nodes' agents, made when first used and kept.

use super::error::of_refusal;
use dray_model::ids::NodeName;
use dray_proto::connect::Whom;
use dray_proto::tls::{Credentials, Peer};
use dray_proto::v1::peer_client::PeerClient;
use scheduler_core::{Refusal, State};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::Status;
use tonic::transport::Channel;

/// Largest message to or from an agent.
const MESSAGE_MAX: usize = 16 << 20;

/// Channels to the nodes' agents.
#[derive(Debug, Clone)]
pub(super) struct Agents {
    credentials: Credentials,
    channels: Arc<Mutex<BTreeMap<(NodeName, SocketAddr), Channel>>>,
}

impl Agents {
    pub(super) fn new(credentials: Credentials) -> Agents {
        Agents { credentials, channels: Arc::default() }
    }

    /// A client of a node's agent, which serves at an address.
    pub(super) fn of(&self, node: &NodeName, address: SocketAddr) -> Result<PeerClient<Channel>, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(&(node.clone(), address)) {
            Some(channel) => channel.clone(),
            None => {
                let whom = Whom::Exactly(Peer::Node(node.clone()));
                let channel = self.credentials.channel_to(&address.to_string(), whom);
                let channel = channel.map_err(|e| Status::internal(format!("agent of {node}: {e}")))?;
                channels.insert((node.clone(), address), channel.clone());
                channel
            }
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX))
    }
}

/// The node that runs a task, and where its agent serves.
pub(super) fn owner(state: &State, task: &str) -> Result<(NodeName, SocketAddr), Status> {
    let task = super::error::parsed(task, "task")?;
    let found = state.task(&task).ok_or_else(|| of_refusal(Refusal::UnknownTask { task: task.clone() }))?;
    let node = found.node.as_ref().ok_or_else(|| {
        of_refusal(Refusal::NotPlaced { task: task.clone(), why: found.observed.message.clone() })
    })?;
    let known = state.node(node).ok_or_else(|| of_refusal(Refusal::UnknownNode { node: node.clone() }))?;
    Ok((node.clone(), known.about.peer_address))
}
