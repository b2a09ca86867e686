//! From an assignment and an image to what the runtime runs. Nothing here
//! depends on the node but the directories, so that source and target of a
//! migration make the same container.

use crate::context::{Context, runtime_id};
use anyhow::{Context as _, Result};
use container_image::{ImageConfig, Reference};
use container_runtime::{Bundle, IdMap, Limits, LogLimits, Overrides, SeedFile, build_spec};
use dray_model::assignment::TaskAssignment;
use dray_model::ids::InstanceId;
use dray_model::resources::{Amounts, Quantities};
use dray_model::spec::Container;
use std::path::PathBuf;

/// The kernel's usual period for processor quotas, in µs.
const PERIOD_US: u64 = 100_000;

/// What to run for a task, from unpacked layers.
pub(crate) async fn bundle(
    context: &Context,
    id: &InstanceId,
    task: &TaskAssignment,
    layers: Vec<PathBuf>,
) -> Result<Bundle> {
    let base = context
        .place()?
        .cidr
        .id_base(task.ip)
        .context("the task's address is outside of the cluster's range")?;
    let container = task.template.container().clone();
    let (instance, id, ip) = (runtime_id(id), id.clone(), task.ip);
    context
        .blocking(move |context| {
            let image = image_config(context, &container.image)?;
            let user =
                container.user.clone().or_else(|| Some(image.user.clone()).filter(|user| !user.is_empty()));
            let spec = build_spec(&Default::default(), &overrides(&container, &image, &id))?;
            Ok(Bundle {
                spec,
                user,
                idmap: Some(IdMap::at(base)),
                layers,
                writable_dir: context.runtime.instance_dir(&instance).join("writable"),
                cgroup: context.cgroups.instance(&instance),
                logs: LogLimits::default(),
                files: seeds(&id, ip),
                instance,
            })
        })
        .await
}

fn image_config(context: &Context, name: &str) -> Result<ImageConfig> {
    let reference: Reference = name.parse()?;
    let digest = context.images.resolve(&reference)?.with_context(|| format!("image {name} is not here"))?;
    Ok(context.images.image(&digest)?.config)
}

/// The stop signal that a task's image names.
pub(super) fn stop_signal(context: &Context, id: &InstanceId) -> Option<String> {
    let assignment = context.assignment.borrow().clone();
    let image = &assignment.tasks.get(&id.task)?.template.container().image;
    image_config(context, image).ok()?.stop_signal
}

fn overrides(container: &Container, image: &ImageConfig, id: &InstanceId) -> Overrides {
    let own = !container.command.is_empty();
    let entrypoint = if own { &container.command } else { &image.entrypoint };
    let args = match (container.args.is_empty(), own) {
        (false, _) => container.args.clone(),
        (true, true) => Vec::new(),
        (true, false) => image.command.clone(),
    };
    let image_env = image.env.iter().map(|(name, value)| format!("{name}={value}"));
    let own_env = container.env.iter().map(|var| format!("{}={}", var.name, var.value));
    let image_dir = Some(&image.working_dir).filter(|dir| !dir.is_empty());
    Overrides {
        entrypoint: Some(entrypoint.clone()),
        args: Some(args),
        env: image_env.chain(own_env).collect(),
        cwd: container.working_dir.as_ref().or(image_dir).map(PathBuf::from),
        hostname: Some(id.task.to_string()),
        limits: limits(container.resources.requests, container.resources.limits),
        ..Overrides::default()
    }
}

fn limits(requests: Quantities, limits: Quantities) -> Limits {
    let some = |amount: u64| Some(amount).filter(|amount| *amount > 0);
    let (asked, most) = (Amounts::from(requests), Amounts::from(limits));
    let weight = some(asked.cpu_millis).or(some(most.cpu_millis));
    Limits {
        // 1024 shares are one processor; two are the least.
        cpu_shares: weight.map(|millis| (millis * 1024 / 1000).max(2)),
        // The kernel takes no quota under a millisecond.
        cpu_quota_us: some(most.cpu_millis).map(|millis| (millis * PERIOD_US / 1000).max(1000)),
        cpu_period_us: some(most.cpu_millis).map(|_| PERIOD_US),
        memory_bytes: some(most.memory_bytes),
        memory_reservation_bytes: some(asked.memory_bytes),
        pids: some(most.pids),
    }
}

/// Files that every container has, whatever its image.
fn seeds(id: &InstanceId, ip: std::net::Ipv4Addr) -> Vec<SeedFile> {
    let name = id.task.to_string();
    let file = |path: &str, content: String| SeedFile { path: path.into(), content, mode: 0o644 };
    vec![
        file("/etc/hostname", format!("{name}\n")),
        file("/etc/hosts", format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n{ip}\t{name}\n")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(value: serde_json::Value) -> Container {
        serde_json::from_value(value).unwrap()
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            command: vec!["default".into()],
            env: vec![("A".into(), "1".into())],
            working_dir: "/image".into(),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn a_command_replaces_entrypoint_and_arguments_of_the_image() {
        let id = "redis-0@1".parse().unwrap();
        let table = [
            (serde_json::json!({}), vec!["/entry"], vec!["default"]),
            (serde_json::json!({"args": ["x"]}), vec!["/entry"], vec!["x"]),
            (serde_json::json!({"command": ["/own"]}), vec!["/own"], vec![]),
            (serde_json::json!({"command": ["/own"], "args": ["x"]}), vec!["/own"], vec!["x"]),
        ];
        for (mut value, entrypoint, args) in table {
            value["name"] = "main".into();
            value["image"] = "redis:7".into();
            let made = overrides(&container(value), &image(), &id);
            assert_eq!(
                (made.entrypoint.unwrap(), made.args.unwrap()),
                (
                    entrypoint.into_iter().map(String::from).collect::<Vec<_>>(),
                    args.into_iter().map(String::from).collect::<Vec<_>>(),
                )
            );
        }
    }

    #[test]
    fn limits_in_the_kernels_units() {
        let requests = Quantities { cpu: Some("250m".parse().unwrap()), ..Quantities::default() };
        let most = Quantities {
            cpu: Some("1.5".parse().unwrap()),
            memory: Some("64Mi".parse().unwrap()),
            pids: Some(9),
        };
        let made = limits(requests, most);
        assert_eq!((made.cpu_shares, made.cpu_quota_us), (Some(256), Some(150_000)));
        assert_eq!((made.memory_bytes, made.pids), (Some(64 << 20), Some(9)));
        assert_eq!(limits(Quantities::default(), Quantities::default()), Limits::default());
    }
}
