//! Builds an OCI runtime specification from an image's configuration and what the workload changes. Pure.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxSeccomp,
    Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec, get_default_mounts,
};
use thiserror::Error;

use crate::cgroup::Limits;
use crate::security::{default_capabilities, default_masked_paths, default_readonly_paths, default_seccomp};

/// What is open at a time, if the workload doesn't say. Below every node's hard limit that we know, because a restored
/// process must get the limit it had, and limits can't be raised in a user namespace.
const OPEN_FILES: u64 = 16_384;

/// Most processes and threads, if the workload doesn't say.
const PIDS: u64 = 4096;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a workload changes about its image's defaults. `None` and empty keep the image's.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Replaces the image's entry point; the image's arguments are then dropped as well.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's arguments.
    pub args: Option<Vec<String>>,
    /// `NAME=value`, added to the image's; the same name replaces.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// More mounts, after the default ones; the same destination replaces.
    pub mounts: Vec<Mount>,
    /// More capabilities, by name (`NET_ADMIN` or `CAP_NET_ADMIN`).
    pub add_capabilities: Vec<String>,
    /// Fewer capabilities, by name; `ALL` for all of the default ones.
    pub drop_capabilities: Vec<String>,
    /// Cgroup limits.
    pub limits: Limits,
    /// Limits per process, as the specification has them.
    pub rlimits: Vec<PosixRlimit>,
    /// The root file system can't be written.
    pub read_only_root: bool,
    /// No seccomp filter.
    pub unconfined: bool,
    /// Programs may gain privileges by set-user-id files.
    pub allow_new_privileges: bool,
    /// More likely (positive) to be killed when the node runs out of memory.
    pub oom_score_adj: Option<i32>,
}

/// The workload's part can't be honoured.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// No capability has this name.
    #[error("unknown capability {0:?}")]
    Capability(String),
    /// A variable without a name.
    #[error("environment variable {0:?} has no `NAME=` in front")]
    Environment(String),
}

/// Builds the specification. The image's user is not in it: give it to [`crate::Bundle::user`].
///
/// # Errors
/// When the overrides name something that doesn't exist.
pub fn build_spec(image: &ImageConfiguration, overrides: &Overrides) -> Result<Spec, SpecError> {
    let mut spec = Spec::default();
    spec.set_process(Some(process(image, overrides)?));
    spec.set_hostname(overrides.hostname.clone());
    spec.set_mounts(Some(mounts(&overrides.mounts)));
    spec.set_linux(Some(linux(overrides)));
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"));
    root.set_readonly(Some(overrides.read_only_root));
    spec.set_root(Some(root));
    Ok(spec)
}

fn process(image: &ImageConfiguration, overrides: &Overrides) -> Result<Process, SpecError> {
    let config = image.config().clone().unwrap_or_default();
    let mut process = Process::default();
    process.set_args(Some(args(config.entrypoint().as_deref(), config.cmd().as_deref(), overrides)));
    process.set_env(Some(environment(config.env().as_deref().unwrap_or_default(), &overrides.env)?));
    let image_cwd = config.working_dir().as_deref().filter(|dir| !dir.is_empty()).map(PathBuf::from);
    process.set_cwd(overrides.cwd.clone().or(image_cwd).unwrap_or_else(|| PathBuf::from("/")));
    process.set_capabilities(Some(capabilities(overrides)?));
    process.set_no_new_privileges(Some(!overrides.allow_new_privileges));
    process.set_rlimits(Some(rlimits(&overrides.rlimits)));
    process.set_oom_score_adj(overrides.oom_score_adj);
    Ok(process)
}

/// As Docker combines them: a new entry point drops the image's arguments, new arguments keep the entry point.
fn args(entrypoint: Option<&[String]>, cmd: Option<&[String]>, overrides: &Overrides) -> Vec<String> {
    let own_args = overrides.args.as_deref();
    let (head, tail) = match &overrides.entrypoint {
        Some(own) => (own.as_slice(), own_args.unwrap_or_default()),
        None => (entrypoint.unwrap_or_default(), own_args.or(cmd).unwrap_or_default()),
    };
    head.iter().chain(tail).cloned().collect()
}

fn environment(image: &[String], own: &[String]) -> Result<Vec<String>, SpecError> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    for variable in image.iter().chain(own) {
        let name = match variable.split_once('=') {
            Some((name, _)) if !name.is_empty() => name,
            _nameless => return Err(SpecError::Environment(variable.clone())),
        };
        env.retain(|earlier| earlier.split_once('=').is_none_or(|(earlier, _)| earlier != name));
        env.push(variable.clone());
    }
    Ok(env)
}

fn mounts(own: &[Mount]) -> Vec<Mount> {
    let mut mounts = get_default_mounts();
    mounts.retain(|mount| !own.iter().any(|other| other.destination() == mount.destination()));
    mounts.extend_from_slice(own);
    mounts
}

fn linux(overrides: &Overrides) -> Linux {
    let mut linux = Linux::default();
    linux.set_resources(Some(resources(&overrides.limits)));
    linux.set_masked_paths(Some(default_masked_paths()));
    linux.set_readonly_paths(Some(default_readonly_paths()));
    let seccomp: Option<LinuxSeccomp> = (!overrides.unconfined).then(default_seccomp);
    linux.set_seccomp(seccomp);
    linux
}

fn resources(limits: &Limits) -> LinuxResources {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(limits.cpu_shares);
    cpu.set_quota(limits.cpu_quota_us.map(signed));
    cpu.set_period(limits.cpu_period_us);
    let mut memory = LinuxMemory::default();
    memory.set_limit(limits.memory_bytes.map(signed));
    memory.set_reservation(limits.memory_reservation_bytes.map(signed));
    let mut pids = LinuxPids::default();
    pids.set_limit(signed(limits.pids.unwrap_or(PIDS)));
    let mut resources = LinuxResources::default();
    resources.set_cpu(Some(cpu));
    resources.set_memory(Some(memory));
    resources.set_pids(Some(pids));
    resources
}

fn rlimits(own: &[PosixRlimit]) -> Vec<PosixRlimit> {
    let mut limits = own.to_vec();
    if !limits.iter().any(|limit| limit.typ() == PosixRlimitType::RlimitNofile) {
        let files = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
        let files = files.soft(OPEN_FILES).hard(OPEN_FILES).build();
        limits.push(files.unwrap_or_else(|error| unreachable!("every field is set: {error}")));
    }
    limits
}

fn capabilities(overrides: &Overrides) -> Result<LinuxCapabilities, SpecError> {
    let mut set = default_capabilities();
    for name in &overrides.drop_capabilities {
        if name.eq_ignore_ascii_case("ALL") {
            set.clear();
        } else {
            set.remove(&capability(name)?);
        }
    }
    for name in &overrides.add_capabilities {
        set.insert(capability(name)?);
    }
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()));
    sets.set_effective(Some(set.clone()));
    sets.set_permitted(Some(set));
    // Nothing is inherited across an exec by another user than root.
    sets.set_inheritable(None);
    sets.set_ambient(None);
    Ok(sets)
}

fn capability(name: &str) -> Result<Capability, SpecError> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().map_err(|_| SpecError::Capability(name.to_owned()))
}
