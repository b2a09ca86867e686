//! Makes the node's forwarding tables those of the assignment.

use crate::context::Context;
use container_network::Forwarding;
use dray_model::assignment::Assignment;

/// Wrong tables are mended by the next assignment; meanwhile frames are
/// flooded or lost, never misdelivered.
pub(crate) async fn forward(context: &Context, assignment: &Assignment) {
    let Ok(network) = context.network() else { return };
    let want = Forwarding {
        peers: assignment.peers.values().map(|peer| (peer.underlay_ip, peer.overlay_ip)).collect(),
        tasks: assignment.routes.clone(),
    };
    match network.ensure_forwarding(&want).await {
        Ok(0) => {}
        Ok(changes) => tracing::debug!(changes, "forwarding"),
        Err(error) => tracing::error!("set the forwarding tables: {:#}", anyhow::Error::from(error)),
    }
}
