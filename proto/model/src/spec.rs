//! What a user asks for: the manifest as written in YAML, and the workload
//! spec in it. The fields' shapes are checked by serde, their meaning by
//! [`crate::validate`].

use crate::resources::Quantities;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The `apiVersion` of every manifest.
pub const API_VERSION: &str = "dray/v1";

/// One YAML document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Manifest {
    /// Always `dray/v1`.
    pub api_version: String,
    /// What the document describes.
    pub kind: ManifestKind,
    /// Name and labels.
    pub metadata: Metadata,
    /// What to run.
    pub spec: WorkloadSpec,
}

/// What a document describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestKind {
    /// A workload.
    Workload,
}

/// Labels of a workload or a node.
pub type Labels = BTreeMap<String, String>;

/// Name and labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The workload's name.
    pub name: String,
    /// For selecting.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// What a user wants to run, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// How the workload's life goes.
    pub kind: WorkloadKind,
    /// How many tasks.
    #[serde(default = "one")]
    pub replicas: u32,
    /// What each task runs.
    pub template: Template,
    /// Whether and how its tasks move.
    #[serde(default)]
    pub migration: MigrationPolicy,
    /// What happens to a task whose node is lost.
    #[serde(default)]
    pub on_node_loss: NodeLossPolicy,
}

fn one() -> u32 {
    1
}

/// How a workload's life goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// Runs until deleted.
    Service,
}

/// What each task of a workload runs. A change of it makes a new revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Template {
    /// Exactly one for now.
    pub containers: Vec<Container>,
    /// When a container that ended is started again.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// The signal that asks the container to end; the image's, or SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How long after the stop signal the container is killed.
    #[serde(default = "ten_seconds", with = "humantime_text")]
    pub stop_grace: Duration,
    /// Labels a node must carry.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub node_selector: Labels,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

impl Template {
    /// The one container. Validation made sure that there is one.
    pub fn container(&self) -> &Container {
        &self.containers[0]
    }
}

/// One container of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Container {
    /// Names the container within the task.
    pub name: String,
    /// An image's reference.
    pub image: String,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Added to the image's environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// What it listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Replaces the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `uid`, `uid:gid` or a user name of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it needs and what it may take.
    #[serde(default)]
    pub resources: Resources,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Names the port within the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// 1 to 65535.
    pub port: u16,
    /// TCP unless said otherwise.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// What a container needs to be placed, and what it may take at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Counted when placing; a limit without a request counts as the request.
    #[serde(default)]
    pub requests: Quantities,
    /// Enforced by the kernel.
    #[serde(default)]
    pub limits: Quantities,
}

/// When a container that ended is started again, and how soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RestartPolicy {
    /// When.
    #[serde(default)]
    pub mode: RestartMode,
    /// The first wait; each further one is twice as long.
    #[serde(default = "one_second", with = "humantime_text")]
    pub backoff: Duration,
    /// The longest wait.
    #[serde(default = "one_minute", with = "humantime_text")]
    pub backoff_max: Duration,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy { mode: RestartMode::default(), backoff: one_second(), backoff_max: one_minute() }
    }
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestartMode {
    /// However it ended.
    #[default]
    Always,
    /// When it ended with an error.
    OnFailure,
    /// Never.
    Never,
}

/// Whether and how a workload's tasks move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MigrationPolicy {
    /// How.
    #[serde(default)]
    pub mode: MigrationMode,
    /// How long a migration may take before it is aborted.
    #[serde(default = "one_minute", with = "humantime_text")]
    pub timeout: Duration,
}

impl Default for MigrationPolicy {
    fn default() -> Self {
        MigrationPolicy { mode: MigrationMode::default(), timeout: one_minute() }
    }
}

/// How a task's state is carried over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationMode {
    /// The best that both nodes can do.
    #[default]
    Auto,
    /// Freeze, copy everything, resume.
    StopCopy,
    /// Its tasks don't move; draining waits for them to be deleted.
    Never,
}

/// What happens to a task whose node is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeLossPolicy {
    /// It is started anew on another node.
    #[default]
    Restart,
    /// It waits for its node to come back.
    Wait,
}

/// Durations as people write them: `250ms`, `10s`, `1m 30s`.
mod humantime_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|_| Error::custom(format!("{text:?} is not a duration: write 250ms, 10s or 1m 30s")))
    }
}
