//! The shim: the small process that is a container's parent and outlives the agent.
//!
//! A single-threaded loop around `poll`. It owns the container's output pipes and its log, reaps init and records the
//! exit, freezes the container when its lease runs out, and answers an agent (any agent) on a socket. It decides nothing
//! about the cluster, and removes nothing: what is left of a container is the agent's to look at and delete.
//!
//! If the shim dies, its container dies with it: nobody would be left to freeze it when its lease ends.

pub(crate) mod channel;
mod create;
mod life;
pub(crate) mod log;
mod output;
pub(crate) mod protocol;
mod requests;
mod restore;
pub(crate) mod state;
mod timer;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use thiserror::Error;

use crate::bundle::Bundle;
use crate::client::SPEC_FILE;
use crate::error::chain;
use crate::sys::{survive_signal, take_stdin};

use channel::{Channel, accept};
use create::Gate;
pub(crate) use life::exit_of;
use output::Output;
use protocol::{Event, Reply};
use restore::Restore;
use state::{Phase, ProcessId, State, write_state};
use timer::Timer;

/// More agents than this don't talk to one shim.
const PEERS_MAX: usize = 32;

/// The shim can't go on.
#[derive(Debug, Error)]
pub(crate) enum ShimError {
    #[error("usage: shim --instance-dir DIR --run-dir DIR, with a listening socket as standard input")]
    Usage,
    #[error("read {path}")]
    Spec {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{step}")]
    Step {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
}

/// The shim's state of mind.
struct Shim {
    dir: PathBuf,
    run_dir: PathBuf,
    bundle: Bundle,
    state: State,
    listener: OwnedFd,
    /// Connections whose request is still to come.
    peers: Vec<Channel>,
    subscribers: Vec<Channel>,
    /// Runs while the container may.
    lease: Timer,
    /// Runs while the record isn't on disk.
    sync: Timer,
    unsynced: bool,
    /// The container's init, as long as it lives.
    init: Option<OwnedFd>,
    /// Init waits behind it.
    gate: Option<Gate>,
    output: Option<Output>,
    /// A restore that waits for its checkpoint.
    prepared: Option<Restore>,
    /// The agent's answer to the hook that is held.
    restore_verdict: Option<bool>,
    /// Ends the loop once nothing of the container is left.
    ending: bool,
    /// Who asked for that end, and is told when it has come.
    waiting_for_end: Vec<Channel>,
}

/// Something to attend to.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Output(usize),
    InitExit,
    LeaseEnd,
    SyncDue,
    Peer(usize),
    SubscriberGone(usize),
    Connection,
}

/// Runs the shim until it is told to end. `args` are those after `shim`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match Shim::begin(args).and_then(Shim::attend) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("end", &error);
            ExitCode::FAILURE
        }
    }
}

/// Standard error is a file in the instance's directory.
fn complain(what: &str, error: &dyn std::error::Error) {
    eprintln!("shim: {what}: {}", chain(error));
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> ShimError {
    move |cause| ShimError::Step { step, cause }
}

impl Shim {
    fn begin(args: &[String]) -> Result<Self, ShimError> {
        let [a, dir, b, run_dir] = args else { return Err(ShimError::Usage) };
        if a != "--instance-dir" || b != "--run-dir" {
            return Err(ShimError::Usage);
        }
        let listener = detach().map_err(failed("detach from the agent"))?;
        let bundle = read_spec(Path::new(dir))?;
        let own = i32::try_from(std::process::id()).ok().and_then(ProcessId::of);
        let own = own.ok_or_else(|| failed("find myself in /proc")(io::ErrorKind::NotFound.into()))?;
        let mut shim = Self {
            dir: dir.into(),
            run_dir: run_dir.into(),
            state: State::new(bundle.instance.clone(), own),
            bundle,
            listener,
            peers: Vec::new(),
            subscribers: Vec::new(),
            lease: Timer::new().map_err(failed("make a timer"))?,
            sync: Timer::new().map_err(failed("make a timer"))?,
            unsynced: false,
            init: None,
            gate: None,
            output: None,
            prepared: None,
            restore_verdict: None,
            ending: false,
            waiting_for_end: Vec::new(),
        };
        // So that even a shim that never answers can be found, and ended.
        shim.record();
        Ok(shim)
    }

    fn attend(mut self) -> Result<(), ShimError> {
        while !(self.ending && self.init.is_none()) {
            self.turn()?;
            if self.state.phase == Phase::Restoring
                && let Some(restore) = self.prepared.take()
            {
                self.run_restore(restore);
            }
        }
        if self.waiting_for_end.is_empty() {
            self.sync_now();
        }
        let end = Reply::Done { state: Box::new(self.state) };
        // Who has gone meanwhile needs no answer.
        self.waiting_for_end.iter().for_each(|peer| drop(peer.send(&end)));
        Ok(())
    }

    /// One turn of the loop. Also taken within a restore's hooks, so that the shim answers while CRIU is held.
    fn turn(&mut self) -> Result<(), ShimError> {
        let ready = self.wait().map_err(failed("wait for events"))?;
        // Highest index first: handling one may remove it from its list.
        for ready in ready.into_iter().rev() {
            self.handle(ready);
        }
        Ok(())
    }

    /// Blocks until something is ready. Listed so that, from the end: output before the exit that ends it, and peers and
    /// subscribers from the last to the first.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut sources = vec![(Ready::Connection, PollFd::new(&self.listener, PollFlags::IN))];
        let peers = self.peers.iter().enumerate();
        sources.extend(peers.map(|(i, peer)| (Ready::Peer(i), PollFd::new(peer, PollFlags::IN))));
        // A subscriber says nothing more: anything from it is its end.
        let subscribers = self.subscribers.iter().enumerate();
        sources.extend(subscribers.map(|(i, s)| (Ready::SubscriberGone(i), PollFd::new(s, PollFlags::IN))));
        sources.push((Ready::SyncDue, PollFd::new(&self.sync, PollFlags::IN)));
        sources.push((Ready::LeaseEnd, PollFd::new(&self.lease, PollFlags::IN)));
        sources.extend(self.init.iter().map(|init| (Ready::InitExit, PollFd::new(init, PollFlags::IN))));
        let pipes = self.output.iter().flat_map(Output::open_pipes);
        sources
            .extend(pipes.map(|(i, pipe)| (Ready::Output(i), PollFd::from_borrowed_fd(pipe, PollFlags::IN))));
        let (names, mut fds): (Vec<Ready>, Vec<PollFd<'_>>) = sources.into_iter().unzip();
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            polled => polled?,
        };
        let ready = names.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(name, _)| name).collect())
    }

    fn handle(&mut self, ready: Ready) {
        match ready {
            Ready::Output(index) => self.on_output(index),
            Ready::InitExit => self.on_init_exit(),
            Ready::LeaseEnd => self.on_lease_end(),
            Ready::SyncDue => self.sync_now(),
            Ready::Peer(index) => {
                let peer = self.peers.swap_remove(index);
                self.on_request(peer);
            }
            Ready::SubscriberGone(index) => drop(self.subscribers.swap_remove(index)),
            Ready::Connection => self.on_connection(),
        }
    }

    fn on_connection(&mut self) {
        match accept(&self.listener) {
            Ok(Some(peer)) if self.peers.len() < PEERS_MAX => self.peers.push(peer),
            Ok(_one_too_many_or_none) => {}
            Err(cause) => complain("accept a connection", &cause),
        }
    }

    fn on_output(&mut self, index: usize) {
        if let Some(output) = &mut self.output
            && let Err(cause) = output.serve(index)
        {
            complain("write the log", &cause);
        }
    }

    /// Writes the record. The container goes on if that fails: its agent can still ask.
    fn record(&mut self) {
        let final_record = self.state.phase == Phase::Exited;
        let dir = if final_record { &self.dir } else { &self.run_dir };
        if let Err(error) = write_state(dir, &self.state) {
            complain("record the state", &error);
        }
    }

    /// Tells all subscribers. One that doesn't listen is dropped; it may come again and is told the state.
    fn tell(&mut self, event: &Event) {
        self.subscribers.retain(|subscriber| subscriber.send(event).is_ok());
    }
}

/// Takes the listening socket from standard input, and cuts what ties us to the agent: session, terminal signals.
fn detach() -> io::Result<OwnedFd> {
    let listener = take_stdin()?;
    nix::unistd::dup2_stdin(fs::File::open("/dev/null")?)?;
    // Already a leader (started from a shell): then there is no tie.
    let _leader = nix::unistd::setsid();
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        survive_signal(signal);
    }
    nix::sys::prctl::set_name(c"dray-shim")?;
    // A dying agent must not take its shims along.
    nix::sys::prctl::set_pdeathsig(None)?;
    Ok(listener)
}

fn read_spec(dir: &Path) -> Result<Bundle, ShimError> {
    let path = dir.join(SPEC_FILE);
    let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(io::Error::from);
    fs::read(&path).and_then(parse).map_err(|cause| ShimError::Spec { path, cause })
}
