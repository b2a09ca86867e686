//! Runs a command in a task's container, its input and output streamed.
//!
//! Three blocking threads per command (out, err, wait) and one task for the
//! input. When the caller goes, the command is killed.

use super::Answers;
use crate::context::{Context, runtime_id};
use anyhow::anyhow;
use container_runtime::{Adopted, Container, Exec, ExecError, ExecRequest as Order, ExecStdio, TerminalSize};
use dray_model::ids::{InstanceId, TaskId};
use dray_proto::v1::exec_request::Message;
use dray_proto::v1::exec_response::Message as Said;
use dray_proto::v1::{ExecRequest, ExecResponse, ExecStart};
use rustix::net::{Shutdown, shutdown};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Bytes in one message.
const CHUNK_BYTES: usize = 32 << 10;

type Answer = mpsc::Sender<Result<ExecResponse, Status>>;

/// Runs what the first message asks for.
pub(super) async fn exec(
    context: Context,
    mut requests: Streaming<ExecRequest>,
) -> Result<Answers<ExecResponse>, Status> {
    let first = requests.message().await?.and_then(|request| request.message);
    let Some(Message::Start(start)) = first else {
        return Err(Status::invalid_argument("the first message must say what to run"));
    };
    let container = running(&context, &start.task).await?;
    let order = order(&start);
    let begun = context.blocking(move |context| Ok(container.exec(&context.runtime, &order))).await;
    let mut exec = begun.map_err(|error| super::failed(&error))?.map_err(refused)?;
    let stdio = exec.take_stdio().ok_or_else(|| Status::internal("the command has no input and output"))?;
    let (answer, answers) = mpsc::channel(16);
    let attended = Ends::of(stdio, start.stdin).and_then(|ends| attend(exec, ends, requests, answer));
    attended.map_err(|error| super::failed(&error.into()))?;
    Ok(ReceiverStream::new(answers))
}

/// The container of a task that this node owns and runs.
async fn running(context: &Context, task: &str) -> Result<Container, Status> {
    let task: TaskId = task.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
    let epoch = context.assignment.borrow().tasks.get(&task).map(|assigned| assigned.epoch);
    let epoch = epoch.ok_or_else(|| Status::not_found(format!("{task} isn't on this node")))?;
    let id = runtime_id(&InstanceId { task: task.clone(), epoch });
    let adopted = context.blocking(move |context| Ok(context.runtime.adopt(&id)?)).await;
    match adopted.map_err(|error| super::failed(&error))? {
        Adopted::Live(container, _) => Ok(container),
        Adopted::Dead(_) => Err(Status::failed_precondition(format!("{task} isn't running"))),
    }
}

fn order(start: &ExecStart) -> Order {
    let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = start.size.map_or((24, 80), |size| (side(size.rows), side(size.columns)));
    Order {
        args: start.command.clone(),
        terminal: start.tty.then_some(TerminalSize { rows: size.0, columns: size.1 }),
        ..Order::default()
    }
}

fn refused(error: ExecError) -> Status {
    let message = format!("{:#}", anyhow!(error));
    Status::failed_precondition(message)
}

/// What to do with bytes of one output.
type Wrap = fn(bytes::Bytes) -> Said;

/// The ends of a command's input and output that are ours.
struct Ends {
    outputs: Vec<(OwnedFd, Wrap)>,
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Ends {
    fn of(stdio: ExecStdio, has_input: bool) -> std::io::Result<Ends> {
        match stdio {
            ExecStdio::Pipes { stdin, stdout, stderr } => Ok(Ends {
                outputs: vec![(stdout, Said::Stdout), (stderr, Said::Stderr)],
                input: has_input.then_some(stdin),
                terminal: None,
            }),
            ExecStdio::Terminal { master } => Ok(Ends {
                outputs: vec![(master.try_clone()?, Said::Stdout)],
                input: Some(master.try_clone()?),
                terminal: Some(master),
            }),
        }
    }
}

/// Starts everything that moves bytes.
fn attend(
    mut exec: Exec,
    ends: Ends,
    requests: Streaming<ExecRequest>,
    answer: Answer,
) -> std::io::Result<()> {
    let line = exec.as_fd().try_clone_to_owned()?;
    let input = tokio::spawn(feed(requests, ends.input, ends.terminal));
    let outputs: Vec<_> = ends
        .outputs
        .into_iter()
        .map(|(fd, said)| {
            let answer = answer.clone();
            tokio::task::spawn_blocking(move || pump(fd, said, &answer))
        })
        .collect();
    let waiting = tokio::task::spawn_blocking(move || exec.wait());
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = waiting => ended.ok(),
            // With the line cut, the command is killed.
            () = answer.closed() => {
                let _ = shutdown(&line, Shutdown::Both);
                None
            }
        };
        input.abort();
        for output in outputs {
            let _ = output.await;
        }
        let last = match ended {
            Some(Ok(exit)) => Ok(ExecResponse { message: Some(Said::ExitCode(exit.code)) }),
            Some(Err(error)) => Err(refused(error)),
            None => return,
        };
        let _ = answer.send(last).await;
    });
    Ok(())
}

/// Passes a command's output on, until it ends or nobody listens.
fn pump(fd: OwnedFd, said: Wrap, answer: &Answer) {
    let mut file = File::from(fd);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        // A terminal whose command has ended fails instead of ending.
        let Ok(count @ 1..) = file.read(&mut buffer) else { return };
        let message = Some(said(buffer[..count].to_vec().into()));
        if answer.blocking_send(Ok(ExecResponse { message })).is_err() {
            return;
        }
    }
}

/// Passes the caller's input on, until it ends.
async fn feed(mut requests: Streaming<ExecRequest>, input: Option<OwnedFd>, terminal: Option<OwnedFd>) {
    let mut input = input.map(File::from);
    while let Ok(Some(request)) = requests.message().await {
        match request.message {
            Some(Message::Stdin(bytes)) => {
                let Some(mut file) = input.take() else { continue };
                let written = tokio::task::spawn_blocking(move || file.write_all(&bytes).map(|()| file));
                input = written.await.ok().and_then(Result::ok);
            }
            Some(Message::Resize(size)) => resize(terminal.as_ref(), size.rows, size.columns),
            Some(Message::StdinClosed(_)) => input = None,
            Some(Message::Start(_)) | None => {}
        }
    }
}

fn resize(terminal: Option<&OwnedFd>, rows: u32, columns: u32) {
    let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: side(rows), ws_col: side(columns), ws_xpixel: 0, ws_ypixel: 0 };
    if let Some(terminal) = terminal {
        // A terminal that is gone needs no size.
        let _ = tcsetwinsize(terminal, size);
    }
}
