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

/// How long a shim gets to end when it has nothing more to do.
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
        let failed = |cause| DeleteError::Shim { instance: instance.clone(), cause };
        let shim = self.end_container(instance).map_err(failed)?;
        // The specification names the cgroup, so it goes after the cgroup has gone.
        if let Some(bundle) = read_bundle(&dir) {
            bundle.cgroup.remove()?;
        }
        remove_dir(&run_dir)?;
        remove_dir(&dir)?;
        shim.map_or(Ok(()), |shim| reap(&shim)).map_err(failed)
    }

    /// Asks the shim to kill its container and to end; kills it if it doesn't, then its container dies with it. Returns
    /// the shim, which may still be about to end, but does nothing more.
    fn end_container(&self, instance: &InstanceId) -> io::Result<Option<Process>> {
        let container =
            Container::new(instance.clone(), &self.instance_dir(instance), &self.instance_run_dir(instance));
        if let Ok(state) = container.request(&Request::Destroy) {
            return Process::open(state.shim);
        }
        // Gone, or out of its mind. It has no record only as long as it has made nothing.
        let recorded = self.last_state(instance).ok().flatten().map(|state| state.shim);
        let shim = recorded.map_or(Ok(None), Process::open)?;
        if let Some(shim) = &shim {
            shim.kill()?;
            reap(shim)?;
        }
        Ok(shim)
    }
}

fn reap(shim: &Process) -> io::Result<()> {
    if shim.wait(PATIENCE)? { Ok(()) } else { Err(ErrorKind::TimedOut.into()) }
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
