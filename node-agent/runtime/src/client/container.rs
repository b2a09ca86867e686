//! One container, as its agent sees it: requests to its shim.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::bundle::InstanceId;
use crate::exec::{Exec, ExecError, ExecRequest, Job};
use crate::shim::channel::Channel;
use crate::shim::protocol::{Refusal, Reply, Request};
use crate::shim::state::{Hook, Phase, State};

use super::events::Events;
use super::process::Process;

/// No request takes longer: the slowest (freezing) is bounded by 5 s in the shim.
const PATIENCE: Duration = Duration::from_secs(30);

/// A container with a shim. Holds no connection: every request makes its own, so it may be used from any thread.
#[derive(Debug, Clone)]
pub struct Container {
    instance: InstanceId,
    dir: PathBuf,
    run_dir: PathBuf,
}

/// A request to a shim failed.
#[derive(Debug, Error)]
pub enum RequestError {
    /// Nobody listens: the shim is gone.
    #[error("connect to the shim of {instance}")]
    Connect {
        /// Whose.
        instance: InstanceId,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The shim lives, but didn't answer properly.
    #[error("talk to the shim of {instance}")]
    Talk {
        /// Whose.
        instance: InstanceId,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The shim answered no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Container {
    pub(super) fn new(instance: InstanceId, dir: &Path, run_dir: &Path) -> Self {
        Self { instance, dir: dir.to_owned(), run_dir: run_dir.to_owned() }
    }

    /// Which container this is.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Asks the shim for the state.
    ///
    /// # Errors
    /// When the shim is gone ([`RequestError::Connect`]) or doesn't answer. The same holds for every request below.
    pub fn status(&self) -> Result<State, RequestError> {
        self.request(&Request::Status)
    }

    /// The container's init, once it exists: its pid for the network, a pidfd for all else.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn init(&self) -> Result<Option<Process>, RequestError> {
        let init = self.status()?.init;
        init.map_or(Ok(None), Process::open).map_err(|cause| self.talk(cause))
    }

    /// The shim's own process, for example to watch it.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn shim(&self) -> Result<Option<Process>, RequestError> {
        Process::open(self.status()?.shim).map_err(|cause| self.talk(cause))
    }

    /// Runs the container's program. Returns when the kernel has executed it.
    ///
    /// # Errors
    /// [`Refusal::Program`] when it can't be executed: then the container has exited with that code.
    pub fn start(&self) -> Result<State, RequestError> {
        self.request(&Request::Start)
    }

    /// Sends a signal to the container's init.
    ///
    /// # Errors
    /// As [`Container::status`]; refused when there is no init.
    pub fn signal(&self, signal: i32) -> Result<State, RequestError> {
        self.request(&Request::Signal { signal })
    }

    /// Kills every process of the container. Watch [`Container::events`] for the exit.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn kill_all(&self) -> Result<State, RequestError> {
        self.request(&Request::KillAll)
    }

    /// Leaves the freezer to the caller until [`Container::resume`], across agents: the shim freezes when the lease runs
    /// out, but thaws nothing. To be called before a dump.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn hold(&self) -> Result<State, RequestError> {
        self.request(&Request::Hold)
    }

    /// Freezes the container until [`Container::resume`], across leases and agents. Returns when it is frozen.
    ///
    /// # Errors
    /// As [`Container::status`]; refused when it doesn't freeze within 5 s.
    pub fn pause(&self) -> Result<State, RequestError> {
        self.request(&Request::Pause)
    }

    /// Undoes [`Container::hold`] and [`Container::pause`], and thaws. A container whose lease ran out stays frozen.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn resume(&self) -> Result<State, RequestError> {
        self.request(&Request::Resume)
    }

    /// Lets the container run for so long from now, then freezes it unless this is called again. `None` is for ever.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn lease(&self, duration: Option<Duration>) -> Result<State, RequestError> {
        let ms = duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self.request(&Request::Lease { ms })
    }

    /// Begins a restore. Returns at once; [`Container::events`] tells of hooks and the end.
    ///
    /// # Errors
    /// As [`Container::status`]; refused unless the shim was made by [`super::Runtime::prepare_restore`].
    pub fn restore(&self) -> Result<State, RequestError> {
        self.request(&Request::Restore)
    }

    /// Answers the hook that is held.
    ///
    /// # Errors
    /// As [`Container::status`]; refused when another hook, or none, is held.
    pub fn answer(&self, hook: Hook, proceed: bool) -> Result<State, RequestError> {
        self.request(&Request::Answer { hook, proceed })
    }

    /// Ends the shim and keeps the record and the logs. Refused while a container exists.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn release(&self) -> Result<State, RequestError> {
        self.request(&Request::Shutdown)
    }

    /// Opens a stream of all that happens to the container, beginning with its present state.
    ///
    /// # Errors
    /// As [`Container::status`].
    pub fn events(&self) -> Result<Events, RequestError> {
        let channel = self.connect()?;
        channel.send(&Request::Subscribe).map_err(|cause| self.talk(cause))?;
        Ok(Events::new(channel))
    }

    /// Runs another command inside of the container.
    ///
    /// # Errors
    /// When the container doesn't run, or the command can't be executed.
    pub fn exec(&self, runtime: &super::Runtime, request: &ExecRequest) -> Result<Exec, ExecError> {
        let state = self.status()?;
        let Some(init) = state.init.filter(|_| state.phase == Phase::Running) else {
            let reason = "the container isn't running".to_owned();
            return Err(Refusal::Phase { request: "exec".to_owned(), reason }.into());
        };
        let job = Job { instance_dir: self.dir.clone(), init, request: request.clone() };
        Exec::start(runtime.program(), job)
    }

    pub(super) fn request(&self, request: &Request) -> Result<State, RequestError> {
        let channel = self.connect()?;
        let exchange = || {
            channel.set_timeout(PATIENCE)?;
            channel.send(request)?;
            channel.receive::<Reply>()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        match exchange().map_err(|cause| self.talk(cause))? {
            Reply::Done { state } => Ok(*state),
            Reply::Refused { refusal } => Err(refusal.into()),
        }
    }

    fn connect(&self) -> Result<Channel, RequestError> {
        Channel::connect(&self.run_dir)
            .map_err(|cause| RequestError::Connect { instance: self.instance.clone(), cause })
    }

    fn talk(&self, cause: io::Error) -> RequestError {
        RequestError::Talk { instance: self.instance.clone(), cause }
    }
}
