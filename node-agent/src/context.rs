//! What every part of the agent uses: configuration, the machine's
//! facilities, and the way to the node task.

use crate::about::about;
use crate::config::Config;
use crate::lease::Contact;
use crate::ledger::{Ledger, Place};
use crate::node::Message;
use crate::worker::{Held, Packets, Registry};
use agent_core::Event;
use anyhow::{Context as _, Result, anyhow};
use container_checkpoint::criu::Criu;
use container_image::ImageStore;
use container_network::{NodeNetwork, NodeSpec};
use container_runtime::{CgroupRoot, Runtime, Version};
use dray_model::assignment::{Assignment, ImageReport};
use dray_model::ids::InstanceId;
use dray_model::node::About;
use dray_proto::tls::{Credentials, Files};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{OnceCell, mpsc, watch};

/// Shared by all; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context(Arc<Inner>);

impl std::ops::Deref for Context {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) about: About,
    pub(crate) credentials: Credentials,
    pub(crate) runtime: Runtime,
    pub(crate) cgroups: CgroupRoot,
    pub(crate) images: ImageStore,
    pub(crate) criu: Option<Criu>,
    pub(crate) ledger: Ledger,
    pub(crate) contact: Contact,
    /// The last assignment, for those who only look.
    pub(crate) assignment: watch::Sender<Arc<Assignment>>,
    /// The images in the store, by reference.
    pub(crate) held: watch::Sender<BTreeMap<String, ImageReport>>,
    /// Source: frozen containers.
    pub(crate) held_dumps: Registry<Held>,
    /// Target: packets of restored containers.
    pub(crate) packets: Registry<Packets>,
    network: OnceCell<(Place, NodeNetwork)>,
    messages: mpsc::Sender<Message>,
}

impl Context {
    /// Opens everything that needs no scheduler.
    pub(crate) fn open(config: Config, messages: mpsc::Sender<Message>) -> Result<Context> {
        let dir = |name: &str| config.data_dir.join(name);
        let run_dir = config.run_dir.join("containers");
        searchable_dir(&config.run_dir)?;
        searchable_dir(&run_dir)?;
        let (criu, version) = find_criu().unzip();
        let cgroups = CgroupRoot::discover(&config.cgroup).context("find the cgroups")?;
        cgroups.ensure().context("make the agent's cgroup")?;
        let files =
            Files { ca: config.tls.ca.clone(), cert: config.tls.cert.clone(), key: config.tls.key.clone() };
        Ok(Context(Arc::new(Inner {
            about: about(&config, &version.unwrap_or_default(), layout(&cgroups))?,
            credentials: Credentials::load(&files)?,
            runtime: Runtime::new(dir("containers"), run_dir)?,
            cgroups,
            images: ImageStore::open(dir("images")).context("open the image store")?,
            criu,
            ledger: Ledger::open(dir("ledger"))?,
            held_dumps: Registry::default(),
            packets: Registry::default(),
            network: OnceCell::default(),
            contact: Contact::default(),
            assignment: watch::Sender::default(),
            held: watch::Sender::default(),
            messages,
            config,
        })))
    }

    /// Makes the node's network when its place in the cluster is known.
    pub(crate) async fn join(&self, place: Place) -> Result<()> {
        let spec = NodeSpec {
            overlay: ipnet::Ipv4Net::new(place.overlay_ip, place.cidr.prefix_len())?,
            underlay: self.config.underlay_ip,
            vni: self.config.vxlan.vni,
            port: self.config.vxlan.port,
        };
        let make = || async { anyhow::Ok((place, NodeNetwork::ensure(spec).await?)) };
        let (joined, _) = self.network.get_or_try_init(make).await.context("make the node's network")?;
        anyhow::ensure!(*joined == place, "the cluster gave this node another address; restart the agent");
        Ok(())
    }

    /// The node's network.
    pub(crate) fn network(&self) -> Result<&NodeNetwork> {
        Ok(&self.joined()?.1)
    }

    /// The node's place in the cluster.
    pub(crate) fn place(&self) -> Result<Place> {
        Ok(self.joined()?.0)
    }

    fn joined(&self) -> Result<&(Place, NodeNetwork)> {
        self.network.get().context("this node has not joined its cluster yet")
    }

    /// Tells the node task.
    pub(crate) async fn tell(&self, message: Message) {
        // The node task ends only with the process.
        let _ = self.messages.send(message).await;
    }

    /// Tells the node task what happened to an instance.
    pub(crate) async fn happened(&self, id: &InstanceId, event: Event) {
        self.tell(Message::Happened(id.clone(), event)).await;
    }

    /// Runs blocking work off the async threads.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Context) -> Result<T> + Send + 'static,
    {
        let context = self.clone();
        tokio::task::spawn_blocking(move || work(&context)).await.context("a worker panicked")?
    }
}

/// A directory that containers' users may pass through, but not list.
pub(crate) fn searchable_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(path, mode).with_context(|| format!("set the mode of {}", path.display()))
}

/// A CRIU that works here, and its version.
fn find_criu() -> Option<(Criu, String)> {
    let found = Criu::find().and_then(|criu| criu.describe().map(|described| (criu, described)));
    match found {
        Ok((mut criu, described)) => {
            if let Err(error) = criu.warm() {
                tracing::warn!("CRIU starts slowly: {:#}", anyhow!(error));
            }
            Some((criu, described.version.to_string()))
        }
        Err(error) => {
            tracing::warn!("nothing can move to or from here: {:#}", anyhow!(error));
            None
        }
    }
}

/// Which cgroup interfaces the machine uses.
fn layout(cgroups: &CgroupRoot) -> &'static str {
    let versions = cgroups.cgroup().hierarchies.iter().map(|hierarchy| hierarchy.version);
    let (v1, v2): (Vec<_>, Vec<_>) = versions.partition(|version| *version == Version::V1);
    match (v1.is_empty(), v2.is_empty()) {
        (true, _) => "v2",
        (false, true) => "v1",
        (false, false) => "hybrid",
    }
}

/// The runtime's name for an instance.
pub(crate) fn runtime_id(id: &InstanceId) -> container_runtime::InstanceId {
    container_runtime::InstanceId::new(id.to_string())
        .unwrap_or_else(|error| unreachable!("every instance id names a directory: {error}"))
}
