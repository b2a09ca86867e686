//! Containers from kernel primitives. Knows nothing of the cluster.
//!
//! A container is described by a [`Bundle`] (an OCI runtime specification plus a small part of ours), made by a
//! [`Runtime`], and kept by its **shim**: a small process that outlives the agent.
//!
//! ```text
//! agent: Runtime::create -> spec.json, shim.sock -> shim: cgroup, mounts, clone3 -> init: pivot_root, waits at the gate
//!        Container::start -------------------------------- opens the gate --------> init: drops privileges, execs
//! ```
//!
//! Shim, init and exec helper are re-execs of the calling program: its `main` must call [`dispatch`] before anything else,
//! while it is still single-threaded.

mod bundle;
mod cgroup;
mod client;
mod devices;
mod error;
mod exec;
mod init;
mod mounts;
mod namespaces;
mod overlay;
mod process;
mod program;
mod rootfs;
mod security;
mod shim;
mod spec;
mod sys;

use std::ffi::OsString;
use std::process::ExitCode;

pub use bundle::{Bundle, IdMap, InstanceId, InvalidInstanceId, LogLimits, SeedFile};
pub use cgroup::{
    Cgroup, CgroupError, CgroupRoot, Controller, Hierarchy, LayoutError, Limits, Usage, Version,
};
pub use client::{
    AdoptError, Adopted, Container, CreateError, DeleteError, Events, Process, RequestError, Runtime,
    SPEC_FILE,
};
pub use exec::{Exec, ExecError, ExecExit, ExecRequest, ExecStdio, TerminalSize};
pub use program::ProgramError;
pub use security::{default_capabilities, default_masked_paths, default_readonly_paths, default_seccomp};
pub use shim::log::LOG_FILE;
pub use shim::protocol::{Event, Refusal, RestoreOrder};
pub use shim::state::{Backing, Exit, External, Hook, Phase, ProcessId, STATE_FILE, State, StateError};
pub use spec::{Overrides, SpecError, build_spec};

/// Becomes a shim or an exec helper, if `args` (with the program's name) ask for one. Call first thing in `main`.
#[must_use]
pub fn dispatch(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<String> = args.into_iter().skip(1).filter_map(|arg| arg.into_string().ok()).collect();
    let (name, rest) = args.split_first()?;
    match name.as_str() {
        "shim" => Some(shim::run(rest)),
        "container-exec" => Some(exec::run()),
        _other => None,
    }
}
