//! Workload specs. An unset or zero field takes the default that the YAML
//! manifest has for it.

use super::{Invalid, required};
use crate::v1 as wire;
use dray_model::resources::{CpuMillis, MemoryBytes, Quantities};
use dray_model::spec::{self, Labels, Template, WorkloadSpec};
use dray_model::validate::violations;
use std::time::Duration;

/// A spec from the wire whose every field was checked, together with the
/// workload's name and labels.
///
/// # Errors
/// Names each field that is wrong.
pub fn checked_workload(
    name: &str,
    labels: &Labels,
    spec: Option<wire::WorkloadSpec>,
) -> Result<WorkloadSpec, Invalid> {
    let spec = WorkloadSpec::try_from(required(spec, "spec")?)?;
    let violations = violations(name, labels, &spec);
    if violations.is_empty() { Ok(spec) } else { Err(Invalid { violations }) }
}

/// Wire enumerations whose zero means the model's default.
macro_rules! enumeration {
    ($model:ty, $wire:ident, $zero:expr, { $($variant:ident),+ }) => {
        impl From<$model> for wire::$wire {
            fn from(value: $model) -> Self {
                match value { $(<$model>::$variant => wire::$wire::$variant),+ }
            }
        }

        impl TryFrom<wire::$wire> for $model {
            type Error = Invalid;
            fn try_from(value: wire::$wire) -> Result<Self, Invalid> {
                match value {
                    wire::$wire::Unspecified => $zero,
                    $(wire::$wire::$variant => Ok(<$model>::$variant)),+
                }
            }
        }
    };
}

enumeration!(spec::WorkloadKind, WorkloadKind, Err(Invalid::field("spec.kind", "is missing")), { Service });
enumeration!(spec::Protocol, Protocol, Ok(Self::default()), { Tcp, Udp });
enumeration!(spec::RestartMode, RestartMode, Ok(Self::default()), { Always, OnFailure, Never });
enumeration!(spec::MigrationMode, MigrationMode, Ok(Self::default()), { Auto, StopCopy, Never });
enumeration!(spec::NodeLossPolicy, NodeLossPolicy, Ok(Self::default()), { Restart, Wait });

fn enumerated<W, M>(number: i32, field: &str) -> Result<M, Invalid>
where
    W: TryFrom<i32>,
    M: TryFrom<W, Error = Invalid>,
{
    let unknown = |_| Invalid::field(field, format!("{number} is not a known value"));
    M::try_from(W::try_from(number).map_err(unknown)?)
}

/// A duration from the wire, where zero means the default.
fn duration(ms: u64, default: Duration) -> Duration {
    if ms == 0 { default } else { Duration::from_millis(ms) }
}

/// Milliseconds for the wire.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<WorkloadSpec> for wire::WorkloadSpec {
    fn from(spec: WorkloadSpec) -> Self {
        wire::WorkloadSpec {
            kind: wire::WorkloadKind::from(spec.kind).into(),
            replicas: spec.replicas,
            template: Some(spec.template.into()),
            migration: Some(wire::MigrationPolicy {
                mode: wire::MigrationMode::from(spec.migration.mode).into(),
                timeout_ms: millis(spec.migration.timeout),
            }),
            on_node_loss: wire::NodeLossPolicy::from(spec.on_node_loss).into(),
        }
    }
}

impl TryFrom<wire::WorkloadSpec> for WorkloadSpec {
    type Error = Invalid;
    fn try_from(spec: wire::WorkloadSpec) -> Result<Self, Invalid> {
        let migration = spec.migration.unwrap_or_default();
        let policy = spec::MigrationPolicy::default();
        Ok(WorkloadSpec {
            kind: enumerated::<wire::WorkloadKind, _>(spec.kind, "spec.kind")?,
            replicas: spec.replicas,
            template: template_from_wire(required(spec.template, "spec.template")?)?,
            migration: spec::MigrationPolicy {
                mode: enumerated::<wire::MigrationMode, _>(migration.mode, "spec.migration.mode")?,
                timeout: duration(migration.timeout_ms, policy.timeout),
            },
            on_node_loss: enumerated::<wire::NodeLossPolicy, _>(spec.on_node_loss, "spec.onNodeLoss")?,
        })
    }
}

impl From<Template> for wire::Template {
    fn from(template: Template) -> Self {
        wire::Template {
            containers: template.containers.into_iter().map(Into::into).collect(),
            restart: Some(wire::RestartPolicy {
                mode: wire::RestartMode::from(template.restart.mode).into(),
                backoff_ms: millis(template.restart.backoff),
                backoff_max_ms: millis(template.restart.backoff_max),
            }),
            stop_signal: template.stop_signal.unwrap_or_default(),
            stop_grace_ms: Some(millis(template.stop_grace)),
            node_selector: template.node_selector,
        }
    }
}

/// A template from the wire.
///
/// # Errors
/// Names each field that is wrong.
pub fn template_from_wire(template: wire::Template) -> Result<Template, Invalid> {
    let restart = template.restart.unwrap_or_default();
    let policy = spec::RestartPolicy::default();
    Ok(Template {
        containers: super::each(template.containers)?,
        restart: spec::RestartPolicy {
            mode: enumerated::<wire::RestartMode, _>(restart.mode, "spec.template.restart.mode")?,
            backoff: duration(restart.backoff_ms, policy.backoff),
            backoff_max: duration(restart.backoff_max_ms, policy.backoff_max),
        },
        stop_signal: filled(template.stop_signal),
        stop_grace: template.stop_grace_ms.map_or(Duration::from_secs(10), Duration::from_millis),
        node_selector: template.node_selector,
    })
}

/// An empty text on the wire means: not set.
fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<spec::Container> for wire::Container {
    fn from(c: spec::Container) -> Self {
        wire::Container {
            name: c.name,
            image: c.image,
            command: c.command,
            args: c.args,
            env: c.env.into_iter().map(|v| wire::EnvVar { name: v.name, value: v.value }).collect(),
            ports: c.ports.into_iter().map(Into::into).collect(),
            working_dir: c.working_dir.unwrap_or_default(),
            user: c.user.unwrap_or_default(),
            resources: Some(wire::Resources {
                requests: Some(c.resources.requests.into()),
                limits: Some(c.resources.limits.into()),
            }),
        }
    }
}

impl TryFrom<wire::Container> for spec::Container {
    type Error = Invalid;
    fn try_from(c: wire::Container) -> Result<Self, Invalid> {
        let resources = c.resources.unwrap_or_default();
        Ok(spec::Container {
            name: c.name,
            image: c.image,
            command: c.command,
            args: c.args,
            env: c.env.into_iter().map(|v| spec::EnvVar { name: v.name, value: v.value }).collect(),
            ports: super::each(c.ports)?,
            working_dir: filled(c.working_dir),
            user: filled(c.user),
            resources: spec::Resources {
                requests: resources.requests.unwrap_or_default().into(),
                limits: resources.limits.unwrap_or_default().into(),
            },
        })
    }
}

impl From<spec::Port> for wire::Port {
    fn from(port: spec::Port) -> Self {
        wire::Port {
            name: port.name,
            port: u32::from(port.port),
            protocol: wire::Protocol::from(port.protocol).into(),
        }
    }
}

impl TryFrom<wire::Port> for spec::Port {
    type Error = Invalid;
    fn try_from(port: wire::Port) -> Result<Self, Invalid> {
        let field = "spec.template.containers[0].ports";
        Ok(spec::Port {
            name: port.name,
            port: u16::try_from(port.port)
                .map_err(|_| Invalid::field(field, format!("{} is not a port", port.port)))?,
            protocol: enumerated::<wire::Protocol, _>(port.protocol, field)?,
        })
    }
}

impl From<Quantities> for wire::Quantities {
    fn from(q: Quantities) -> Self {
        wire::Quantities {
            cpu_millis: q.cpu.map(|cpu| cpu.0),
            memory_bytes: q.memory.map(|memory| memory.0),
            pids: q.pids,
        }
    }
}

impl From<wire::Quantities> for Quantities {
    fn from(q: wire::Quantities) -> Self {
        Quantities { cpu: q.cpu_millis.map(CpuMillis), memory: q.memory_bytes.map(MemoryBytes), pids: q.pids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> WorkloadSpec {
        serde_json::from_value(serde_json::json!({
            "kind": "service", "replicas": 0, "onNodeLoss": "wait",
            "migration": {"mode": "never", "timeout": "5s"},
            "template": {
                "stopGrace": "0s", "stopSignal": "INT", "nodeSelector": {"disk": "ssd"},
                "restart": {"mode": "onFailure", "backoff": "2s"},
                "containers": [{"name": "main", "image": "redis:7", "user": "1:2", "workingDir": "/x",
                    "env": [{"name": "A", "value": ""}], "ports": [{"port": 53, "protocol": "udp"}],
                    "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi", "pids": 5}}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_spec_survives_the_wire() {
        let spec = sample();
        let wire = wire::WorkloadSpec::from(spec.clone());
        assert_eq!(checked_workload("redis", &Labels::new(), Some(wire)), Ok(spec));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut wire = wire::WorkloadSpec::from(sample());
        wire.kind = 9;
        let error = checked_workload("redis", &Labels::new(), Some(wire)).unwrap_err();
        assert_eq!(error.to_string(), "spec.kind: 9 is not a known value");
        assert_eq!(checked_workload("x", &Labels::new(), None).unwrap_err().to_string(), "spec: is missing");
    }
}
