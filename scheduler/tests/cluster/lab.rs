//! Three real scheduler processes on loopback, with a CA of their own.

use dray_proto::tls::{Credentials, Files};
use dray_proto::v1 as wire;
use dray_scheduler::config::Timing;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use wire::cluster_client::ClusterClient;
use wire::workloads_client::WorkloadsClient;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster. Dropping it kills its processes and removes its files.
pub(crate) struct Lab {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) addresses: BTreeMap<u64, SocketAddr>,
    processes: BTreeMap<u64, Child>,
}

impl Lab {
    /// Three voters, started, that take snapshots often.
    pub(crate) fn start() -> Lab {
        Lab::prepare(3, 500).started()
    }

    /// Three voters, started, that take snapshots as users' do.
    pub(crate) fn start_for_figures() -> Lab {
        Lab::prepare(3, Timing::default().snapshot_entries).started()
    }

    /// Voters, not started.
    pub(crate) fn prepare(voters: u64, snapshot_entries: u64) -> Lab {
        dray_proto::tls::install_crypto();
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.clone().self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let addresses = free_addresses(voters);
        let lab = Lab { directory, issuer, addresses, processes: BTreeMap::new() };
        lab.addresses.keys().for_each(|id| lab.configure(*id, snapshot_entries));
        lab
    }

    fn started(mut self) -> Lab {
        for id in self.ids() {
            self.run(id);
        }
        self
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.addresses.keys().copied().collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.path(&format!("data-{id}"))
    }

    pub(crate) fn unix_socket(&self, id: u64) -> PathBuf {
        self.path(&format!("api-{id}.sock"))
    }

    fn configure(&self, id: u64, snapshot_entries: u64) {
        fs::create_dir_all(self.data_dir(id)).unwrap();
        let files = self.certificate(&format!("dray://scheduler/{id}"));
        let peers = self.addresses.iter().map(|(id, address)| format!("{id} = \"{address}\"\n"));
        let text = format!(
            "id = {id}\ndata_dir = {data:?}\nlisten = \"{listen}\"\nunix_socket = {socket:?}\n\
             cluster_cidr = \"10.88.0.0/16\"\n[peers]\n{peers}[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n\
             [timing]\nheartbeat_ms = 200\nlease_ms = 1000\nloss_ms = 2000\nsnapshot_entries = {snapshot_entries}\n",
            data = self.data_dir(id),
            listen = self.addresses[&id],
            socket = self.unix_socket(id),
            peers = peers.collect::<String>(),
            ca = files.ca,
            cert = files.cert,
            key = files.key,
        );
        fs::write(self.path(&format!("{id}.toml")), text).unwrap();
    }

    /// Files of a certificate for a `dray://` name.
    pub(crate) fn certificate(&self, uri: &str) -> Files {
        let name = uri.replace(['/', ':'], "_");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["dray".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            ca: self.path("ca.pem"),
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}-key.pem")),
        };
        fs::write(&files.cert, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// A channel to a scheduler, as somebody.
    pub(crate) fn channel_as(&self, uri: &str, id: u64) -> Channel {
        let credentials = Credentials::load(&self.certificate(uri)).unwrap();
        credentials.channel(&self.addresses[&id].to_string()).unwrap()
    }

    /// A channel to a scheduler, as its administrator.
    pub(crate) fn admin(&self, id: u64) -> Channel {
        self.channel_as("dray://user/admin", id)
    }

    /// Starts a scheduler's process.
    pub(crate) fn run(&mut self, id: u64) {
        let log = File::options().create(true).append(true).open(self.path(&format!("{id}.log"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dray-scheduler"))
            .arg("--config")
            .arg(self.path(&format!("{id}.toml")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes.insert(id, child);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, id: u64) {
        let mut child = self.processes.remove(&id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub(crate) fn terminate(&mut self, id: u64) -> Option<i32> {
        self.signal(id, "TERM");
        self.processes.remove(&id).unwrap().wait().unwrap().code()
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, id: u64, name: &str) {
        let process = self.processes[&id].id().to_string();
        assert!(Command::new("kill").args(["-s", name, &process]).status().unwrap().success());
    }

    /// What a scheduler wrote to its log.
    pub(crate) fn log(&self, id: u64) -> String {
        fs::read_to_string(self.path(&format!("{id}.log"))).unwrap_or_default()
    }

    /// The present leader, once a running scheduler knows one that runs.
    pub(crate) async fn leader(&self) -> u64 {
        until("a leader", || async {
            for id in self.processes.keys() {
                let answer = ClusterClient::new(self.admin(*id)).status(wire::StatusRequest {}).await;
                let Ok(answer) = answer else { continue };
                let schedulers = answer.into_inner().schedulers;
                let leader = schedulers.iter().find(|s| s.leader && s.reachable).map(|s| s.id);
                if let Some(leader) = leader.filter(|id| self.processes.contains_key(id)) {
                    return Some(leader);
                }
            }
            None
        })
        .await
    }

    /// A running scheduler that doesn't lead.
    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.processes.keys().find(|id| **id != leader).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for id in self.ids() {
                eprintln!("--- scheduler {id}\n{}", self.log(id));
            }
        }
    }
}

fn free_addresses(count: u64) -> BTreeMap<u64, SocketAddr> {
    let listeners = (1..=count).map(|id| (id, TcpListener::bind("127.0.0.1:0").unwrap()));
    let listeners: Vec<_> = listeners.collect();
    listeners.iter().map(|(id, listener)| (*id, listener.local_addr().unwrap())).collect()
}

/// Asks again until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A small workload.
pub(crate) fn workload(name: &str, replicas: u32) -> wire::ApplyWorkloadRequest {
    let container =
        wire::Container { name: "main".into(), image: "redis:7".into(), ..wire::Container::default() };
    let template = wire::Template { containers: vec![container], ..wire::Template::default() };
    let spec = wire::WorkloadSpec {
        kind: wire::WorkloadKind::Service.into(),
        replicas,
        template: Some(template),
        ..wire::WorkloadSpec::default()
    };
    wire::ApplyWorkloadRequest { name: name.into(), spec: Some(spec), ..Default::default() }
}

/// The names of all workloads, as a scheduler says.
pub(crate) async fn names(channel: Channel) -> Vec<String> {
    let list = WorkloadsClient::new(channel).list(wire::ListRequest::default()).await.unwrap();
    list.into_inner().workloads.into_iter().map(|workload| workload.name).collect()
}
