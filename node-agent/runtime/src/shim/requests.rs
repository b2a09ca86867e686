//! Answers the agent.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::channel::Channel;
use super::create::{CreateError, create, prepare_cgroup};
use super::life::now_ms;
use super::log::Log;
use super::output::{ContainerEnds, Output, pipe_inode};
use super::protocol::{Event, Refusal, Reply, Request};
use super::state::{Phase, ProcessId};
use super::{Shim, complain};
use crate::error::chain;
use crate::sys::{send_signal, trim_heap};

impl Shim {
    /// Reads one request and answers it; a subscriber is kept.
    pub(super) fn on_request(&mut self, peer: Channel) {
        let request = match peer.receive::<Request>() {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(cause) => return complain("read a request", &cause),
        };
        if request == Request::Subscribe {
            let state = Event::State { state: Box::new(self.state.clone()) };
            if peer.send(&state).is_ok() {
                self.subscribers.push(peer);
            }
            return;
        }
        let destroys = request == Request::Destroy;
        let reply = match self.perform(request) {
            Ok(()) if destroys => return self.waiting_for_end.push(peer),
            Ok(()) => Reply::Done { state: Box::new(self.state.clone()) },
            Err(refusal) => Reply::Refused { refusal },
        };
        if let Err(cause) = peer.send(&reply) {
            complain("answer a request", &cause);
        }
    }

    fn perform(&mut self, request: Request) -> Result<(), Refusal> {
        match request {
            Request::Status | Request::Subscribe => Ok(()),
            Request::Create => self.create(),
            Request::Prepare(order) => self.prepare(&order),
            Request::Start => self.start(),
            Request::Signal { signal } => self.signal(signal),
            Request::KillAll => self.kill_all(),
            Request::Hold => {
                self.hold();
                Ok(())
            }
            Request::Pause => self.pause().map_err(refused),
            Request::Resume => self.resume().map_err(refused),
            Request::Lease { ms } => self.set_lease(ms),
            Request::Restore => self.begin_restore(),
            Request::Answer { hook, proceed } => self.answer(hook, proceed),
            Request::Shutdown => self.shutdown(),
            Request::Destroy => {
                self.ending = true;
                self.kill_all()
            }
        }
    }

    /// Refuses unless the container is in `wanted`.
    pub(super) fn require(&self, request: &str, wanted: Phase) -> Result<(), Refusal> {
        if self.state.phase == wanted {
            return Ok(());
        }
        let reason = format!("the container is {:?}, not {wanted:?}", self.state.phase);
        Err(Refusal::Phase { request: request.to_owned(), reason })
    }

    fn create(&mut self) -> Result<(), Refusal> {
        self.require("create", Phase::Empty)?;
        self.state.created_at_ms = Some(now_ms());
        let made = self.try_create();
        if let Err(refusal) = &made {
            let code = match refusal {
                Refusal::Program { code, .. } => *code,
                Refusal::Phase { .. } | Refusal::Failed { .. } => 125,
            };
            self.finish((code, None), Some(refusal.to_string()));
        }
        made
    }

    fn try_create(&mut self) -> Result<(), Refusal> {
        prepare_cgroup(&self.bundle).map_err(refused)?;

        let ends = self.open_output().map_err(refused)?;
        let waiting = create(&self.bundle, ends)?;
        self.state.init = ProcessId::of(waiting.pid);
        self.state.externals = waiting.externals;
        self.state.phase = Phase::Created;
        self.init = Some(waiting.pidfd);
        self.gate = Some(waiting.gate);
        // What making it took isn't needed any more.
        trim_heap();
        Ok(())
    }

    /// Makes the pipes, and returns the container's ends.
    pub(super) fn open_output(&mut self) -> io::Result<ContainerEnds> {
        let log = Log::open(&self.dir.join("logs"), self.bundle.logs)?;
        let (output, ends) = Output::new(log, self.bundle.root_id())?;
        self.state.stdio =
            [None, Some(pipe_inode(ends.stdout.as_fd())?), Some(pipe_inode(ends.stderr.as_fd())?)];
        self.output = Some(output);
        Ok(ends)
    }

    fn start(&mut self) -> Result<(), Refusal> {
        self.require("start", Phase::Created)?;
        if self.state.fenced || self.state.paused {
            let reason = "the container is frozen".to_owned();
            return Err(Refusal::Phase { request: "start".to_owned(), reason });
        }
        let Some(gate) = self.gate.take() else { return Err(gone("start")) };
        match gate.open() {
            Ok(()) => {
                self.state.phase = Phase::Running;
                self.state.started_at_ms = Some(now_ms());
                self.record();
                Ok(())
            }
            Err(error) => Err(self.start_failed(error)),
        }
    }

    /// Init has ended, or is about to: its exit is recorded with the reason.
    fn start_failed(&mut self, error: CreateError) -> Refusal {
        let refusal = Refusal::from(error);
        let code = if let Refusal::Program { code, .. } = &refusal { *code } else { 125 };
        if let Err(error) = self.bundle.cgroup.kill_all() {
            complain("kill a container that didn't start", &error);
        }
        self.reap_init();
        self.finish((code, None), Some(refusal.to_string()));
        refusal
    }

    fn signal(&mut self, signal: i32) -> Result<(), Refusal> {
        let Some(init) = &self.init else { return Err(gone("signal")) };
        send_signal(init.as_fd(), signal).map_err(refused)
    }

    /// Init first: with it goes its whole pid namespace. Then whatever else is in the cgroup.
    fn kill_all(&mut self) -> Result<(), Refusal> {
        self.gate = None;
        // CRIU, held or about to be, is told no and kills what it has made.
        self.restore_verdict = (self.state.phase == Phase::Restoring).then_some(false);
        if let Some(init) = &self.init {
            match send_signal(init.as_fd(), libc::SIGKILL) {
                Err(cause) if cause.raw_os_error() != Some(libc::ESRCH) => return Err(refused(cause)),
                _sent_or_gone => {}
            }
        }
        self.bundle.cgroup.kill_all().map_err(refused)
    }

    fn set_lease(&mut self, ms: Option<u64>) -> Result<(), Refusal> {
        self.lease.set(ms.map(Duration::from_millis)).map_err(refused)?;
        self.unfence().map_err(refused)
    }

    fn shutdown(&mut self) -> Result<(), Refusal> {
        match self.state.phase {
            Phase::Empty | Phase::Prepared | Phase::Exited => {
                self.ending = true;
                Ok(())
            }
            Phase::Created | Phase::Running | Phase::Restoring => self.require("shutdown", Phase::Exited),
        }
    }
}

/// An error of ours as the agent hears it.
pub(super) fn refused(error: impl std::error::Error) -> Refusal {
    Refusal::Failed { message: chain(&error) }
}

/// There is no process to do it to.
pub(super) fn gone(request: &str) -> Refusal {
    Refusal::Phase { request: request.to_owned(), reason: "the container has no process".to_owned() }
}
