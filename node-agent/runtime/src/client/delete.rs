//! Removes a container and all that was made for it. Safe to repeat, from any state, after any crash.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::{Runtime, SPEC_FILE};
use crate::bundle::{Bundle, InstanceId};
use crate::cgroup::CgroupError;
use crate::client::Container;
use crate::client::process::Process;
use crate::shim::protocol::Request;
use crate::shim::state::ProcessId;

/// How long a shim gets to kill its container and end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container couldn't be removed entirely. Call again.
#[derive(Debug, Error)]
pub enum DeleteError {
    /// The shim doesn't end.
    #[error("end the shim of {instance}")]
    Shim {
        /// Whose.
        instance: InstanceId,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The cgroup stays.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A directory stays.
    #[error("remove {path}")]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl Runtime {
    /// Kills the container if it lives, ends its shim, and removes its cgroup and both its directories, with the upper
    /// directory, the logs and the record. An instance that doesn't exist is deleted already.
    ///
    /// # Errors
    /// When something stays. What could be removed is gone; call again.
    pub fn delete(&self, instance: &InstanceId) -> Result<(), DeleteError> {
        let (dir, run_dir) = (self.instance_dir(instance), self.instance_run_dir(instance));
        self.end_shim(instance).map_err(|cause| DeleteError::Shim { instance: instance.clone(), cause })?;
        // The specification names the cgroup, so it goes after the cgroup has gone.
        if let Some(bundle) = read_bundle(&dir) {
            bundle.cgroup.remove()?;
        }
        remove_dir(&run_dir)?;
        remove_dir(&dir)
    }

    /// Asks the shim to kill and end; kills it if it doesn't. Its container dies with it.
    fn end_shim(&self, instance: &InstanceId) -> io::Result<()> {
        let container =
            Container::new(instance.clone(), &self.instance_dir(instance), &self.instance_run_dir(instance));
        let Some(shim) = self.shim_process(instance, &container)? else { return Ok(()) };
        // Whatever it answers: what counts is whether it ends.
        let _answer = container.request(&Request::Destroy);
        if shim.wait(PATIENCE)? {
            return Ok(());
        }
        shim.kill()?;
        if shim.wait(PATIENCE)? { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
    }

    /// The shim, by its own word or else by its record.
    fn shim_process(&self, instance: &InstanceId, container: &Container) -> io::Result<Option<Process>> {
        let recorded = || Some(self.last_state(instance).ok()??.shim);
        let id: Option<ProcessId> = container.status().map(|state| state.shim).ok().or_else(recorded);
        id.map_or(Ok(None), Process::open)
    }
}

/// The specification, if the instance has got that far.
pub(crate) fn read_bundle(instance_dir: &Path) -> Option<Bundle> {
    serde_json::from_slice(&fs::read(instance_dir.join(SPEC_FILE)).ok()?).ok()
}

fn remove_dir(path: &Path) -> Result<(), DeleteError> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            Err(DeleteError::Remove { path: path.to_owned(), cause })
        }
        _gone => Ok(()),
    }
}
