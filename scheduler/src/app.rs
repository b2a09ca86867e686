//! One scheduler from its start to its end.

use crate::cluster::{Cluster, Voter};
use crate::config::Config;
use crate::contacts::Contacts;
use crate::leader;
use crate::raft::host::{self, Handle, HostError};
use crate::raft::log::Log;
use crate::raft::transport::Transport;
use crate::server::Services;
use crate::telemetry::raft_logger;
use anyhow::{Context, Result};
use dray_proto::connect::Whom;
use dray_proto::tls::{Credentials, Peer};
use scheduler_core::{Replica, replica};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Log entries kept behind a snapshot, for followers that are a little behind.
const ENTRIES_KEPT: u64 = 2_000;
/// How long an orderly stop waits for another leader, and then for calls.
const GRACE: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// It can't start, or it can't go on.
pub async fn run(config: Config) -> Result<()> {
    let credentials = Credentials::load(&config.tls)?;
    let voters = voters(&config, &credentials)?;
    let (handle, failure) = start_replica(&config, &voters)?;
    let cluster = Cluster::new(config.id, handle, voters);
    let contacts = Contacts::new(config.timing.liveness());
    let (stop, _) = watch::channel(false);
    let services = Services { cluster: cluster.clone(), contacts: contacts.clone(), credentials };
    let tcp = tokio::spawn(services.on_tcp(config.listen, stopped(stop.subscribe()))?);
    let unix = tokio::spawn(services.on_unix(&config.unix_socket, stopped(stop.subscribe()))?);
    let leading = tokio::spawn(leader::run(cluster.clone(), contacts));
    tracing::info!(id = config.id, listen = %config.listen, "serving");
    let ended = wait_for_the_end(failure).await;
    if ended.is_ok() {
        hand_over(&cluster).await;
    }
    stop.send_replace(true);
    // Streams don't end by themselves; a stop doesn't wait for them. Sessions
    // do: the leader's loop tells agents where to go before it is aborted.
    let _ = timeout(GRACE, futures::future::join(tcp, unix)).await;
    leading.abort();
    ended
}

fn voters(config: &Config, credentials: &Credentials) -> Result<BTreeMap<u64, Voter>> {
    let voter = |(id, address): (&u64, &std::net::SocketAddr)| {
        let whom = Whom::Exactly(Peer::Scheduler(*id));
        let others = (*id != config.id).then(|| credentials.channel_to(&address.to_string(), whom));
        let channel = others.transpose().with_context(|| format!("set up the link to {address}"))?;
        Ok((*id, Voter { address: *address, channel }))
    };
    config.peers.iter().map(voter).collect()
}

fn start_replica(
    config: &Config,
    voters: &BTreeMap<u64, Voter>,
) -> Result<(Handle, oneshot::Receiver<HostError>)> {
    let (log, recovered) = Log::open(&config.data_dir).context("open the log")?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let setup = replica::Config {
        id: config.id,
        voters: config.peers.keys().copied().collect(),
        cidr: config.cluster_cidr,
        election_ticks: config.timing.election_ticks,
        heartbeat_ticks: config.timing.heartbeat_ticks,
        snapshot_every: config.timing.snapshot_entries,
        entries_kept: ENTRIES_KEPT,
        seed: started.as_secs().wrapping_mul(1_000_003) ^ u64::from(started.subsec_nanos()) ^ config.id << 48,
    };
    let replica = Replica::new(setup, recovered, &raft_logger()).context("start from the log")?;
    let channels = voters.iter().filter_map(|(id, voter)| Some((*id, voter.channel.clone()?)));
    let (events, links) = mpsc::unbounded_channel();
    let transport = Transport::start(channels.collect(), events);
    let tick = config.timing.tick();
    Ok(host::start(host::Parts { replica, log, transport, links, tick })?)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn wait_for_the_end(failure: oneshot::Receiver<HostError>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = failure => match error {
            Ok(error) => Err(error.into()),
            Err(_) => anyhow::bail!("the replica's thread is gone"),
        },
    }
}

/// Lets another scheduler lead, if this one does.
async fn hand_over(cluster: &Cluster) {
    let mut standing = cluster.handle().subscribe_standing();
    let others: Vec<u64> = cluster.voters().keys().copied().filter(|id| *id != cluster.id()).collect();
    for other in others {
        if standing.borrow().leader != Some(cluster.id()) {
            return;
        }
        cluster.handle().transfer_leader(other).await;
        let _ = timeout(GRACE, standing.wait_for(|now| now.leader != Some(cluster.id()))).await;
    }
}
