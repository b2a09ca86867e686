//! Turning a forked process into a container's program: user, limits, capabilities, seccomp, exec.
//!
//! Used by init and by exec helpers, inside of the container's namespaces. [`Program::look_up`] does all that can fail
//! for the workload's own fault; [`Program::execute`] gives up privileges in the one order that works, and execs.

mod command;
mod privileges;
mod user;

use std::ffi::CString;
use std::io;

use caps::{Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, chdir, execve, setgroups, setresgid, setresuid};
use oci_spec::runtime::{LinuxSeccomp, Process};
use thiserror::Error;

use crate::security::{SeccompError, SeccompFilters};

pub(crate) use command::{CommandError, c_strings};
pub(crate) use user::{Identity, UserError};

/// Why a program can't be run.
#[derive(Debug, Error)]
pub(crate) enum ProgramError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error("enter the working directory {path}")]
    Directory {
        path: String,
        #[source]
        cause: io::Error,
    },
    #[error("{step}")]
    Privileges {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("set the limit {limit}")]
    Limit {
        limit: String,
        #[source]
        cause: io::Error,
    },
    #[error("execute {path}")]
    Execute {
        path: String,
        #[source]
        cause: io::Error,
    },
}

impl ProgramError {
    /// The exit code a shell would give, if it is the workload's or its image's own fault.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Command(error) => Some(error.exit_code()),
            Self::Execute { .. } => Some(126),
            Self::User(_) | Self::Directory { .. } | Self::Limit { .. } => Some(125),
            Self::Seccomp(_) | Self::Privileges { .. } => None,
        }
    }
}

/// Everything looked up and checked; only [`Program::execute`] is missing.
#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    directory: String,
    identity: Identity,
    capabilities: privileges::CapabilitySets,
    rlimits: Vec<privileges::Rlimit>,
    no_new_privileges: bool,
    umask: Option<u32>,
    seccomp: SeccompFilters,
}

impl Program {
    /// Looks everything up in the container's root, which must be the caller's root already. `user` overrides the
    /// numbers in `process`.
    pub(crate) fn look_up(
        process: &Process,
        user: Option<&str>,
        seccomp: Option<&LinuxSeccomp>,
    ) -> Result<Self, ProgramError> {
        let identity = match user {
            Some(user) => Identity::look_up(user)?,
            None => Identity::of_spec(process.user()),
        };
        let mut env = process.env().clone().unwrap_or_default();
        if let Some(home) = identity.home.as_ref().filter(|_| !env.iter().any(|var| var.starts_with("HOME=")))
        {
            env.push(format!("HOME={home}"));
        }
        let args = process.args().as_deref().unwrap_or_default();
        let directory = process.cwd().to_string_lossy().into_owned();
        Ok(Self {
            path: command::find(args, &env, &directory)?,
            args: c_strings("argument", args)?,
            env: c_strings("environment variable", &env)?,
            directory,
            capabilities: privileges::CapabilitySets::of_spec(process.capabilities().as_ref()),
            rlimits: privileges::rlimits(process.rlimits().as_deref().unwrap_or_default())?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            umask: process.user().umask(),
            seccomp: seccomp.map(SeccompFilters::compile).transpose()?.unwrap_or_default(),
            identity,
        })
    }

    /// Becomes the program. Returns only if that failed.
    pub(crate) fn execute(&self) -> ProgramError {
        match self.give_up_privileges() {
            Ok(()) => match execve(&self.path, &self.args, &self.env) {
                Err(errno) => self.cannot_execute(errno),
            },
            Err(error) => error,
        }
    }

    /// The order matters: limits and bounding set need root; ids go before the other sets, because a change of uid clears
    /// them; a filter without no-new-privileges needs CAP_SYS_ADMIN, so then it comes first.
    fn give_up_privileges(&self) -> Result<(), ProgramError> {
        privileges::apply_rlimits(&self.rlimits)?;
        let step = |step| move |cause: io::Error| ProgramError::Privileges { step, cause };
        if !self.no_new_privileges {
            self.seccomp.install()?;
        }
        self.capabilities.drop_bounding().map_err(step("drop capabilities from the bounding set"))?;
        self.become_user().map_err(step("change user and groups"))?;
        self.capabilities.set_others().map_err(step("set capabilities"))?;
        // After the change of user: a directory may be readable for that user only, or not for it.
        chdir(self.directory.as_str())
            .map_err(|errno| ProgramError::Directory { path: self.directory.clone(), cause: errno.into() })?;
        if let Some(bits) = self.umask {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(bits));
        }
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs()
                .map_err(|errno| step("set no-new-privileges")(errno.into()))?;
            self.seccomp.install()?;
        }
        Ok(())
    }

    fn become_user(&self) -> io::Result<()> {
        let Identity { uid, gid, groups, .. } = &self.identity;
        rustix::thread::set_keep_capabilities(true)?;
        setgroups(&groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>())?;
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        // A change of user forgets this.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        Ok(())
    }

    fn cannot_execute(&self, errno: nix::Error) -> ProgramError {
        let path = self.path.to_string_lossy().into_owned();
        match errno {
            // The file was there when we looked: what is missing is its interpreter.
            nix::Error::ENOENT => CommandError::Interpreter { path }.into(),
            errno => ProgramError::Execute { path, cause: errno.into() },
        }
    }
}

/// The set the specification names.
fn capability_set(set: Option<&oci_spec::runtime::Capabilities>) -> CapsHashSet {
    let name =
        |capability: &oci_spec::runtime::Capability| format!("CAP_{capability}").parse::<Capability>().ok();
    set.into_iter().flatten().filter_map(name).collect()
}
