//! `exec`: run a command in a task's container, with the terminal if wanted.

use crate::client::{Client, Patience};
use crate::error::{CallError, Usage};
use crate::output::Out;
use crate::resource::{Kind, bare};
use crate::terminal::{self, Raw};
use anyhow::Context;
use dray_proto::v1::exec_request::Message as Input;
use dray_proto::v1::exec_response::Message as Output;
use dray_proto::v1::tasks_client::TasksClient;
use dray_proto::v1::{ExecRequest, ExecResponse, ExecStart, TerminalSize};
use std::cell::RefCell;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages on their way to the container.
const QUEUE: usize = 16;
/// The most input in one message.
const PIECE: usize = 32 << 10;

/// What is said when the exit code never comes.
const LOST: &str = "the connection ended before the command did; it may still run";

const EXAMPLES: &str = "\
Examples:
  clusterctl exec redis-0 -- redis-cli ping
  clusterctl exec -it redis-0 -- sh
  clusterctl exec -i redis-0 -- tar x -C /data < data.tar

The exit code is the command's.";

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// The task
    #[arg(value_name = "TASK")]
    task: String,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it and passes its exit code on.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let no_terminal = args.tty && args.stdin && !std::io::stdin().is_terminal();
    if no_terminal {
        out.warning("standard input is not a terminal; going on without one");
    }
    let tty = args.tty && !no_terminal;
    let start = ExecStart {
        task: bare(Kind::Task, &args.task)?,
        command: args.command.clone(),
        tty,
        stdin: args.stdin,
        size: size().filter(|_| tty),
    };
    if start.command.first().is_none_or(String::is_empty) {
        return Err(Usage("which command? write it after --".into()).into());
    }
    let (requests, output) = open(client, start).await?;
    // From here on every way out drops `raw`, which restores the terminal.
    let raw = (tty && args.stdin).then(Raw::enter).transpose().context("put the terminal into raw mode")?;
    if args.stdin {
        std::thread::spawn({
            let requests = requests.clone();
            move || send_stdin(&requests)
        });
    }
    let code = relay(output, requests, tty, out).await;
    drop(raw);
    Ok(ExitCode::from(code?))
}

/// Starts the command. The stream's sender is only used once a scheduler took
/// the start, so that no input is lost to one that didn't answer.
async fn open(
    client: &Client,
    start: ExecStart,
) -> anyhow::Result<(mpsc::Sender<ExecRequest>, Streaming<ExecResponse>)> {
    let sender = RefCell::new(None);
    let call = async |channel| {
        let (requests, queue) = mpsc::channel(QUEUE);
        let first = ExecRequest { message: Some(Input::Start(start.clone())) };
        requests.try_send(first).map_err(|_| Status::internal("the queue is full"))?;
        sender.replace(Some(requests));
        TasksClient::new(channel).exec(ReceiverStream::new(queue)).await
    };
    let output = client.call_with(Patience::Short, Some(crate::client::ATTEMPT), call).await?;
    Ok((sender.take().context("no stream was opened")?, output))
}

fn size() -> Option<TerminalSize> {
    terminal::size().map(|(rows, columns)| TerminalSize { rows, columns })
}

/// Copies standard input until it ends. On a thread of its own, because a read
/// of a terminal can't be cancelled.
fn send_stdin(requests: &mpsc::Sender<ExecRequest>) {
    let mut stdin = std::io::stdin().lock();
    let mut piece = vec![0; PIECE];
    loop {
        let message = match stdin.read(&mut piece) {
            Ok(0) | Err(_) => Input::StdinClosed(true),
            Ok(n) => Input::Stdin(piece[..n].to_vec().into()),
        };
        let last = matches!(message, Input::StdinClosed(_));
        if requests.blocking_send(ExecRequest { message: Some(message) }).is_err() || last {
            return;
        }
    }
}

/// Copies output until the command ends. Returns its exit code.
async fn relay(
    mut output: Streaming<ExecResponse>,
    requests: mpsc::Sender<ExecRequest>,
    tty: bool,
    out: &mut Out,
) -> anyhow::Result<u8> {
    let mut resized = signal(SignalKind::window_change())?;
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    loop {
        // Every arm may be dropped: a message not yet complete stays in the
        // stream, and a signal not yet received stays pending.
        tokio::select! {
            response = output.message() => {
                let Some(response) = response.map_err(|status| CallError::Refused(status.into())).context(LOST)? else {
                    anyhow::bail!(LOST);
                };
                if let Some(code) = show(response, out)? {
                    return Ok(code);
                }
            }
            _ = resized.recv(), if tty => resize(&requests).await,
            signal = stopped(&mut terminated, &mut hung_up) => return Ok(128 + signal),
        }
    }
}

/// Prints a piece of output; returns the exit code when it comes.
fn show(response: ExecResponse, out: &mut Out) -> std::io::Result<Option<u8>> {
    match response.message {
        Some(Output::Stdout(bytes)) => out.bytes(&bytes)?,
        Some(Output::Stderr(bytes)) => out.error_bytes(&bytes)?,
        Some(Output::ExitCode(code)) => return Ok(Some(u8::try_from(code).unwrap_or(u8::MAX))),
        None => {}
    }
    Ok(None)
}

async fn resize(requests: &mpsc::Sender<ExecRequest>) {
    if let Some(size) = size() {
        // The command may have ended already.
        let _ = requests.send(ExecRequest { message: Some(Input::Resize(size)) }).await;
    }
}

/// The number of the signal that asks us to end.
async fn stopped(terminated: &mut Signal, hung_up: &mut Signal) -> u8 {
    tokio::select! {
        _ = terminated.recv() => 15,
        _ = hung_up.recv() => 1,
    }
}
