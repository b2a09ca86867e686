//! `logs`: what a task's container wrote. Following goes on when the task moves
//! to another node, and when the scheduler that sends it is lost.

use crate::client::{ATTEMPT, Client, Patience};
use crate::error::CallError;
use crate::output::Out;
use crate::output::text::rfc3339;
use crate::resource::{self, Kind, bare};
use dray_proto::v1::tasks_client::TasksClient;
use dray_proto::v1::{LogLine, LogsRequest, LogsResponse, Stream, TaskPhase};
use std::process::ExitCode;
use std::time::Duration;
use tonic::{Code, Streaming};

/// Between the end of a stream and the next.
const PAUSE: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  clusterctl logs redis-0
  clusterctl logs -f redis-0 --tail 20
  clusterctl logs redis-0 --timestamps
  clusterctl logs redis-0 --previous        of the container before the last restart";

/// Which lines.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The task
    #[arg(value_name = "TASK")]
    task: String,
    /// Keep printing what is written
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Print each line's time first
    #[arg(long)]
    timestamps: bool,
    /// Of the container before the last restart
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
}

/// Prints lines; what the container wrote to standard error goes there.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let task = bare(Kind::Task, &args.task)?;
    let mut request =
        LogsRequest { task, follow: args.follow, tail_lines: args.tail, previous: args.previous };
    let mut printed = Printed::default();
    let mut waiting = Waiting::default();
    let mut patience = Patience::Short;
    loop {
        let open = async |channel| TasksClient::new(channel).logs(request.clone()).await;
        match client.call_with(patience, Some(ATTEMPT), open).await {
            Ok(stream) => copy(stream, &mut printed, args, out).await?,
            // The task may be between two nodes.
            Err(error @ CallError::Refused(_)) if args.follow && patience == Patience::Long => {
                waiting.say(out, &error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        if !args.follow || ended(client, &request.task).await? {
            return Ok(ExitCode::SUCCESS);
        }
        (patience, request.tail_lines) = (Patience::Long, None);
        printed.again();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints a stream until it ends or breaks; a break while following isn't an
/// error, one while reading is.
async fn copy(
    mut stream: Streaming<LogsResponse>,
    printed: &mut Printed,
    args: &Args,
    out: &mut Out,
) -> anyhow::Result<()> {
    loop {
        let response = match stream.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(()),
            Err(status) if args.follow && Client::may_try_again(&status) => return Ok(()),
            Err(status) => return Err(CallError::Refused(status.into()).into()),
        };
        for line in response.lines {
            if printed.is_new(&line) {
                print(&line, args.timestamps, out)?;
            }
        }
    }
}

fn print(line: &LogLine, timestamps: bool, out: &mut Out) -> std::io::Result<()> {
    let mut text = Vec::with_capacity(line.text.len() + 32);
    if timestamps {
        text.extend_from_slice(format!("{} ", rfc3339(line.at_ms)).as_bytes());
    }
    text.extend_from_slice(&line.text);
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    match line.stream() {
        Stream::Stderr => out.error_bytes(&text),
        Stream::Stdout | Stream::Unspecified => out.bytes(&text),
    }
}

/// Whether nothing more will be written.
async fn ended(client: &Client, task: &str) -> Result<bool, CallError> {
    match resource::task(client, task).await {
        Ok(task) => Ok(matches!(task.phase(), TaskPhase::Exited | TaskPhase::Stopped)),
        Err(error) if error.code() == Some(Code::NotFound) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Why nothing is printed, said once.
#[derive(Debug, Default)]
struct Waiting(String);

impl Waiting {
    fn say(&mut self, out: &mut Out, why: &str) {
        if self.0 != why {
            out.note(format_args!("waiting: {why}"));
            self.0 = why.to_owned();
        }
    }
}

/// Which lines were printed, so that a stream opened again doesn't repeat
/// them: lines come in order, and those of one millisecond are counted.
#[derive(Debug, Default)]
struct Printed {
    last_ms: u64,
    at_last: usize,
    /// Lines of `last_ms` that a new stream will repeat.
    repeated: usize,
}

impl Printed {
    fn again(&mut self) {
        self.repeated = self.at_last;
    }

    fn is_new(&mut self, line: &LogLine) -> bool {
        if line.at_ms < self.last_ms {
            return false;
        }
        if line.at_ms > self.last_ms {
            (self.last_ms, self.at_last, self.repeated) = (line.at_ms, 1, 0);
            return true;
        }
        if self.repeated > 0 {
            self.repeated -= 1;
            return false;
        }
        self.at_last += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_opened_again_repeats_nothing() {
        let mut printed = Printed::default();
        let mut new = |times: &[u64]| -> Vec<bool> {
            printed.again();
            let line = |at_ms: &u64| LogLine { at_ms: *at_ms, ..Default::default() };
            times.iter().map(|at| printed.is_new(&line(at))).collect()
        };
        assert_eq!(new(&[1, 2, 2]), [true, true, true]);
        assert_eq!(new(&[1, 2, 2, 2, 3]), [false, false, false, true, true]);
        assert_eq!(new(&[2, 2, 2, 3, 3, 4]), [false, false, false, false, true, true]);
    }
}
