//! Source: freezes a container, dumps it, and sends it to the target.
//!
//! ```text
//! stream open -> CRIU started -> [ frozen, shielded, held ] -> dumped -> sent -> (the log decides) -> kill or thaw
//! ```
//!
//! From the freeze on only [`super::release::thaw`] lets it run again, and
//! only [`super::held::kill`] ends it; both follow the log.

use super::archive::{Carried, pack};
use super::held::Held;
use crate::context::{Context, runtime_id};
use crate::failpoint;
use crate::lease::unix_us;
use crate::transfer::Sender;
use agent_core::Event;
use anyhow::{Context as _, Result, anyhow};
use container_checkpoint::criu::Refused;
use container_checkpoint::dump::{LogLevel, Phases};
use container_checkpoint::manifest::stdio_pipes;
use container_checkpoint::preflight::inspect;
use container_checkpoint::{DumpHooks, DumpSpec, Fate, Freezer, Outcome, dump};
use container_network::Incoming;
use container_runtime::{Adopted, Container};
use dray_model::assignment::MigrationAssignment;
use dray_model::ids::InstanceId;
use dray_model::migration::{Figures, Side, Step};
use dray_proto::connect::Whom;
use dray_proto::tls::Peer;
use dray_proto::v1::migrate_request::Message;
use dray_proto::v1::peer_client::PeerClient;
use dray_proto::v1::{MigrateRequest, MigrateResponse, MigrateStart};
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// Why it could not be sent, and how it was left.
struct Failure {
    cause: anyhow::Error,
    frozen: bool,
}

/// Sends a container; it is left frozen if all went well, and says so.
pub(super) async fn send(
    context: &Context,
    id: &InstanceId,
    migration: &MigrationAssignment,
    cancel: &CancellationToken,
) -> Event {
    match try_send(context, id, migration, cancel).await {
        Ok(figures) => Event::Sent { figures },
        Err(Failure { cause, frozen }) => {
            tracing::warn!(instance = %id, frozen, "send: {cause:#}");
            Event::SendFailed { message: format!("{cause:#}"), frozen }
        }
    }
}

async fn try_send(
    context: &Context,
    id: &InstanceId,
    migration: &MigrationAssignment,
    cancel: &CancellationToken,
) -> Result<Figures, Failure> {
    let runs = |cause| Failure { cause, frozen: false };
    let stream = Stream::open(context, migration).await.map_err(runs)?;
    let messages = stream.messages.clone();
    let sent = match dump_it(context, id, migration).await {
        Ok(dumped) => send_it(context, id, stream, &dumped, cancel).await,
        Err(failure) => Err(failure),
    };
    if let Err(Failure { cause, .. }) = &sent {
        // So that both sides give the same reason; a target that is gone needs none.
        let failure = Some(Message::Failure(format!("{cause:#}")));
        let _ = messages.try_send(MigrateRequest { message: failure });
    }
    sent
}

/// Can't be cancelled: CRIU is left to finish what it holds.
async fn dump_it(
    context: &Context,
    id: &InstanceId,
    migration: &MigrationAssignment,
) -> Result<Dumped, Failure> {
    let dumping = Dumping::begin(context, id, migration.task.ip).await;
    dumping.map_err(|cause| Failure { cause, frozen: false })?.wait(context, id).await
}

async fn send_it(
    context: &Context,
    id: &InstanceId,
    stream: Stream,
    dumped: &Dumped,
    cancel: &CancellationToken,
) -> Result<Figures, Failure> {
    let send = async {
        failpoint::reach(&context.config.name, "source-frozen").await?;
        let figures = stream.send(context, id, dumped).await?;
        failpoint::reach(&context.config.name, "source-sent").await?;
        Ok(figures)
    };
    let sent = tokio::select! {
        // A stream that is dropped ends the target's part, too.
        sent = send => sent,
        () = cancel.cancelled() => Err(anyhow!("no longer wanted")),
    };
    sent.map_err(|cause| Failure { cause, frozen: true })
}

/// What the dump's thread says when the images are complete.
struct Dumped {
    phases: Phases,
    frozen_us: u64,
    memory_bytes: u64,
    hold: Option<Incoming>,
}

/// How the dump's thread ended.
pub(super) struct Ended {
    pub(super) result: Result<Outcome>,
    frozen: bool,
    hold: Option<Incoming>,
}

/// A dump under way on its own thread.
struct Dumping {
    dumped: oneshot::Receiver<Dumped>,
    decide: oneshot::Sender<Fate>,
    thread: JoinHandle<Ended>,
}

impl Dumping {
    async fn begin(context: &Context, id: &InstanceId, ip: Ipv4Addr) -> Result<Dumping> {
        let name = id.clone();
        let (container, spec) = context.blocking(move |context| dump_spec(context, &name)).await?;
        let hold = context.network()?.prepare_incoming(ip)?;
        let (tell, dumped) = oneshot::channel();
        let (decide, fate) = oneshot::channel();
        let thread =
            Thread { context: context.clone(), id: id.clone(), container, spec, runtime: Handle::current() };
        let thread = tokio::task::spawn_blocking(move || thread.run(hold, tell, fate));
        Ok(Dumping { dumped, decide, thread })
    }

    /// Waits for the images. Whatever is frozen is registered, so that it can
    /// be killed or thawed.
    async fn wait(self, context: &Context, id: &InstanceId) -> Result<Dumped, Failure> {
        match self.dumped.await {
            Ok(mut dumped) => {
                context.happened(id, Event::Froze).await;
                let held = Held { hold: dumped.hold.take(), dump: Some((self.decide, self.thread)) };
                context.held_dumps.put(id, held);
                Ok(dumped)
            }
            Err(_) => {
                let ended = self.thread.await;
                let Ok(Ended { result, frozen, hold }) = ended else {
                    return Err(Failure { cause: anyhow!("the dump's thread panicked"), frozen: true });
                };
                if frozen {
                    context.held_dumps.put(id, Held { hold, dump: None });
                }
                let cause = result.err().unwrap_or_else(|| anyhow!("the dump ended too early"));
                Err(Failure { cause, frozen })
            }
        }
    }
}

/// What the dump's thread works with.
struct Thread {
    context: Context,
    id: InstanceId,
    container: Container,
    spec: DumpSpec,
    runtime: Handle,
}

impl Thread {
    fn run(&self, hold: Incoming, tell: oneshot::Sender<Dumped>, fate: oneshot::Receiver<Fate>) -> Ended {
        let frozen_us = Cell::new(0);
        let hold = RefCell::new(Some(hold));
        let mut talk = Some((tell, fate));
        let mut frozen = || {
            frozen_us.set(unix_us());
            self.cut_off(hold.borrow().as_ref()).map_err(|error| Refused::because(format!("{error:#}")))
        };
        let mut held = |phases: &Phases| {
            let dumped = Dumped {
                phases: *phases,
                frozen_us: frozen_us.get(),
                memory_bytes: size(&self.spec.images),
                hold: hold.take(),
            };
            // Nobody left to decide: it stays frozen until an agent does.
            let Some((tell, fate)) = talk.take() else { return Fate::Keep };
            let _ = tell.send(dumped);
            fate.blocking_recv().unwrap_or(Fate::Keep)
        };
        let hooks = DumpHooks { frozen: &mut frozen, held: &mut held };
        let result = self.dump(hooks);
        let frozen = frozen_us.get() > 0;
        if !frozen && let Err(error) = self.container.resume() {
            tracing::warn!(instance = %self.id, "give its freezer back to its shim: {error}");
        }
        Ended { result, frozen, hold: hold.take() }
    }

    fn dump<'a>(&'a self, hooks: DumpHooks<'a>) -> Result<Outcome> {
        let criu = self.context.criu.as_ref();
        let criu = criu.context("this node has no CRIU that works; run deploy/setup-host.sh")?;
        // From now on a new lease thaws nothing.
        self.container.hold()?;
        Ok(dump(criu, &self.spec, hooks)?)
    }

    /// The container has just been frozen: nothing may reach or leave it.
    fn cut_off(&self, hold: Option<&Incoming>) -> Result<()> {
        let network = self.context.network()?;
        let id = self.id.to_string();
        self.runtime.block_on(async {
            if let Some(hold) = hold {
                network.begin_incoming(hold).await?;
            }
            network.raise_shield(&id).await?;
            Ok(())
        })
    }
}

/// Bytes of the files in a directory.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

fn dump_spec(context: &Context, id: &InstanceId) -> Result<(Container, DumpSpec)> {
    let name = runtime_id(id);
    let Adopted::Live(container, state) = context.runtime.adopt(&name)? else {
        return Err(anyhow!("the container isn't running"));
    };
    let init = state.init.context("the container has no init")?.pid;
    let cgroup = context.cgroups.instance(&name);
    let images = images_dir(context, id);
    fresh_dir(&images)?;
    let spec = DumpSpec {
        init,
        freezer: Freezer::at(cgroup.freezer_dir().context("the container's cgroup has no freezer")?)?,
        logs: context.runtime.instance_dir(&name),
        mounts: state.externals.iter().map(|external| external.path.clone()).collect(),
        stdio: stdio_pipes(init)?,
        log_level: LogLevel::Errors,
        images,
    };
    let report = inspect(init, &spec.freezer, &spec.mounts)?;
    if !report.blockers.is_empty() {
        let blockers: Vec<_> = report.blockers.iter().map(ToString::to_string).collect();
        return Err(anyhow!("it can't be moved: {}", blockers.join("; ")));
    }
    Ok((container, spec))
}

/// Where an instance's checkpoint is, on the source and on the target: in
/// memory, where the run directory is a tmpfs.
pub(super) fn images_dir(context: &Context, id: &InstanceId) -> PathBuf {
    context.config.run_dir.join("checkpoints").join(id.to_string())
}

/// An empty directory that only root may look into.
pub(super) fn fresh_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("create {}", dir.display()))
}

/// The stream to the target.
struct Stream {
    messages: mpsc::Sender<MigrateRequest>,
    answers: Streaming<MigrateResponse>,
}

impl Stream {
    /// Opens it; the target answers only if it is prepared.
    async fn open(context: &Context, migration: &MigrationAssignment) -> Result<Stream> {
        let channel = context.credentials.channel_to(
            &migration.peer_address.to_string(),
            Whom::Exactly(Peer::Node(migration.peer.clone())),
        )?;
        let (messages, stream) = mpsc::channel(8);
        let start = MigrateStart {
            migration: migration.migration.to_string(),
            task: migration.task.task.to_string(),
            epoch: migration.task.epoch.0,
        };
        messages.send(MigrateRequest { message: Some(Message::Start(start)) }).await?;
        let answers = PeerClient::new(channel).migrate(ReceiverStream::new(stream)).await;
        let answers =
            answers.map_err(|status| anyhow!("{} refused: {}", migration.peer, status.message()))?;
        Ok(Stream { messages, answers: answers.into_inner() })
    }

    /// Sends everything, and waits until it has arrived.
    async fn send(mut self, context: &Context, id: &InstanceId, dumped: &Dumped) -> Result<Figures> {
        let began_us = unix_us();
        let began = Instant::now();
        let carried = Carried { frozen_us: dumped.frozen_us };
        let (name, messages) = (id.clone(), self.messages);
        let bytes = context
            .blocking(move |context| {
                let mut sender = Sender::new(messages);
                pack(context, &name, &carried, &mut sender)?;
                sender.finish()
            })
            .await?;
        let answer = self.answers.message().await.map_err(|status| anyhow!("{}", status.message()))?;
        answer.context("the target closed the stream before everything had arrived")?;
        let mut steps = dump_steps(dumped);
        steps.push(step("transfer", began_us, began.elapsed()));
        Ok(Figures { steps, bytes, memory_bytes: dumped.memory_bytes, freeze_us: 0 })
    }
}

fn dump_steps(dumped: &Dumped) -> Vec<Step> {
    let Phases { freeze, dump, .. } = dumped.phases;
    let freeze_us = u64::try_from(freeze.as_micros()).unwrap_or(u64::MAX);
    vec![
        step("freeze", dumped.frozen_us, freeze),
        step("dump", dumped.frozen_us.saturating_add(freeze_us), dump),
    ]
}

fn step(name: &str, began_us: u64, took: Duration) -> Step {
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    Step { side: Side::Source, name: name.into(), began_us, took_us }
}
