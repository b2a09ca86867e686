//! The agent's side: makes, finds and removes containers. Blocking calls; each is short unless it says otherwise.
//!
//! A [`Runtime`] holds two directories and the program to re-exec, nothing else: all knowledge about containers is on disk
//! and in their shims, so that an agent may be killed at any moment and the next one goes on.

mod container;
mod delete;
mod events;
mod process;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::bundle::{Bundle, InstanceId};
use crate::program::{Program, ProgramError};
use crate::shim::channel;
use crate::shim::protocol::{Request, RestoreOrder};
use crate::shim::state::{State, StateError, read_state, replace_file};

pub use container::{Container, RequestError};
pub use delete::DeleteError;
pub(crate) use delete::read_bundle;
pub use events::Events;
pub use process::Process;

/// The file in an instance's directory that holds its [`Bundle`].
pub const SPEC_FILE: &str = "spec.json";

/// Where the shim writes what goes wrong with itself.
const SHIM_LOG: &str = "shim.log";

/// One node's containers.
#[derive(Debug)]
pub struct Runtime {
    containers_dir: PathBuf,
    run_dir: PathBuf,
    program: Program,
}

/// A container couldn't be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// There is one already.
    #[error("container {instance} exists already")]
    Exists {
        /// Its id.
        instance: InstanceId,
    },
    /// A directory or file couldn't be made.
    #[error("create {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The shim's process couldn't be started.
    #[error("start the shim")]
    Spawn(#[source] io::Error),
    /// The shim couldn't do it.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// What is left of an instance that an earlier agent made.
#[derive(Debug)]
pub enum Adopted {
    /// Its shim answers.
    Live(Container, Box<State>),
    /// Its shim is gone, and every process with it; the last record, if there was one.
    Dead(Option<Box<State>>),
}

/// An instance's remains couldn't be looked at.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// Its record is unreadable.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its shim lives, but doesn't answer.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Runtime {
    /// A runtime over the two directories that hold one directory per instance. Both are made as needed; the second
    /// one's parents must be searchable by all users, best of mode 0711. Shims re-exec this program, which must
    /// call [`crate::dispatch`] first thing in `main`.
    ///
    /// # Errors
    /// When the program can't be opened.
    pub fn new(
        containers_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
    ) -> Result<Self, ProgramError> {
        Self::with_program(containers_dir, run_dir, Path::new("/proc/self/exe"))
    }

    /// Like [`Runtime::new`], with another program that calls [`crate::dispatch`].
    ///
    /// # Errors
    /// When the program can't be opened.
    pub fn with_program(
        containers_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
        program: &Path,
    ) -> Result<Self, ProgramError> {
        let program = Program::open(program)?;
        Ok(Self { containers_dir: containers_dir.into(), run_dir: run_dir.into(), program })
    }

    /// An instance's durable directory.
    #[must_use]
    pub fn instance_dir(&self, instance: &InstanceId) -> PathBuf {
        self.containers_dir.join(instance.as_str())
    }

    /// An instance's run directory.
    #[must_use]
    pub fn instance_run_dir(&self, instance: &InstanceId) -> PathBuf {
        self.run_dir.join(instance.as_str())
    }

    /// The instances that have a directory, whatever their state.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn list(&self) -> io::Result<Vec<InstanceId>> {
        let mut instances = Vec::new();
        let entries = match fs::read_dir(&self.containers_dir) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(instances),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            instances.extend(name.to_str().and_then(|text| InstanceId::new(text).ok()));
        }
        instances.sort();
        Ok(instances)
    }

    /// Makes a container up to the point where only [`Container::start`] is missing: its namespaces exist (see
    /// [`Container::init`]), its program doesn't run. After an error nothing but directories is left: call
    /// [`Runtime::delete`].
    ///
    /// # Errors
    /// When the instance exists, or a step fails. [`CreateError::Request`] with a [`crate::Refusal::Program`] is the
    /// workload's own fault.
    pub fn create(&self, bundle: &Bundle) -> Result<Container, CreateError> {
        self.launch(bundle, &Request::Create)
    }

    /// Makes all that a restore needs (cgroup, mounts, a CRIU that waits), but no process of the container. The images,
    /// the upper directory and the content of the tmpfs mounts ([`State::externals`]) may be brought afterwards; then call
    /// [`Container::restore`].
    ///
    /// # Errors
    /// As [`Runtime::create`].
    pub fn prepare_restore(&self, bundle: &Bundle, order: &RestoreOrder) -> Result<Container, CreateError> {
        self.launch(bundle, &Request::Prepare(order.clone()))
    }

    /// Finds an instance that an earlier agent (or this one) made.
    ///
    /// # Errors
    /// When its record can't be read, or its shim lives and doesn't answer.
    pub fn adopt(&self, instance: &InstanceId) -> Result<Adopted, AdoptError> {
        let container =
            Container::new(instance.clone(), &self.instance_dir(instance), &self.instance_run_dir(instance));
        match container.status() {
            Ok(state) => Ok(Adopted::Live(container, Box::new(state))),
            Err(RequestError::Connect { .. }) => Ok(Adopted::Dead(self.last_state(instance)?.map(Box::new))),
            Err(error) => Err(error.into()),
        }
    }

    /// The record of an instance, whether its shim lives or not; `None` if there is none (yet).
    ///
    /// # Errors
    /// When there is one and it can't be read.
    pub fn last_state(&self, instance: &InstanceId) -> Result<Option<State>, StateError> {
        read_state(&self.instance_dir(instance), &self.instance_run_dir(instance))
    }

    /// The program to re-exec.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    fn launch(&self, bundle: &Bundle, request: &Request) -> Result<Container, CreateError> {
        let (dir, run_dir) = (self.instance_dir(&bundle.instance), self.instance_run_dir(&bundle.instance));
        if dir.join(SPEC_FILE).exists() {
            return Err(CreateError::Exists { instance: bundle.instance.clone() });
        }
        make_dir(&dir, 0o700)?;
        // A restored init, which is nobody on the node, must reach the mounts staged below it.
        make_dir(&run_dir, 0o711)?;
        let listener = channel::listen_in(&run_dir).map_err(at(&run_dir))?;
        let spec = serde_json::to_vec(bundle).map_err(|cause| at(&dir)(cause.into()))?;
        replace_file(&dir.join(SPEC_FILE), &spec).map_err(at(&dir))?;
        self.spawn_shim(&dir, &run_dir, listener)?;
        let container = Container::new(bundle.instance.clone(), &dir, &run_dir);
        container.request(request)?;
        Ok(container)
    }

    /// The shim gets the listening socket as its standard input: connecting works from now on, before it is ready.
    fn spawn_shim(&self, dir: &Path, run_dir: &Path, listener: OwnedFd) -> Result<(), CreateError> {
        let log = dir.join(SHIM_LOG);
        let stderr = File::create(&log).map_err(at(&log))?;
        let child = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()))
            .arg("shim")
            .arg("--instance-dir")
            .arg(dir)
            .arg("--run-dir")
            .arg(run_dir)
            .current_dir("/")
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::from(stderr))
            .spawn();
        // Dropping the handle neither kills nor reaps it: `delete` reaps by pidfd, and so does init after our death.
        child.map(drop).map_err(CreateError::Spawn)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CreateError {
    let path = path.to_owned();
    move |cause| CreateError::Path { path, cause }
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), CreateError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(at(dir))
}
