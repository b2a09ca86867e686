//! The commands. Each reads its arguments, asks the cluster and hands what it
//! learnt to `output`.

pub(crate) mod apply;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod cordon;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod drain;
pub(crate) mod exec;
pub(crate) mod get;
pub(crate) mod image;
pub(crate) mod logs;
pub(crate) mod migrate;
mod running;
pub(crate) mod scale;
pub(crate) mod version;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::local;
use crate::output::text::now_ms;
use crate::output::{Format, Out, Style};
use std::process::ExitCode;
use std::time::Duration;

/// Does what was asked.
pub(crate) async fn run(cli: Cli, out: &mut Out) -> anyhow::Result<ExitCode> {
    let connection = &cli.connection;
    match cli.command {
        Command::Apply(args) => apply::run(&args, connection, out).await,
        Command::Diff(args) => apply::diff(&args, connection, out).await,
        Command::Get(args) => get::run(&args, &Client::new(connection)?, out).await,
        Command::Describe(args) => describe::run(&args, &Client::new(connection)?, out).await,
        Command::Delete(args) => delete::run(&args, connection, out).await,
        Command::Scale(args) => scale::run(&args, &Client::new(connection)?, out).await,
        Command::Logs(args) => logs::run(&args, &Client::new(connection)?, out).await,
        Command::Exec(args) => exec::run(&args, &Client::new(connection)?, out).await,
        Command::Migrate(args) => migrate::run(&args, &Client::new(connection)?, out).await,
        Command::Cancel(args) => migrate::cancel(&args, &Client::new(connection)?, out).await,
        Command::Cordon(args) => cordon::cordon(&args, &Client::new(connection)?, out).await,
        Command::Uncordon(args) => cordon::uncordon(&args, &Client::new(connection)?, out).await,
        Command::Drain(args) => drain::run(&args, &Client::new(connection)?, out).await,
        Command::Image(args) => image::run(&args, &Client::new(connection)?, out).await,
        Command::Cluster(args) => cluster::run(&args, &Client::new(connection)?, out).await,
        Command::Local(args) => local::run(&args, out).await,
        Command::Completion(args) => completion::run(&args, out),
        Command::Version(args) => version::run(&args, connection, out).await,
    }
}

/// Names one write, so that trying again doesn't do it twice.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// How to show results now.
fn style(format: Format) -> Style {
    Style { format, headers: true, now_ms: now_ms() }
}

/// Waits until something is done, no longer than the user wants.
async fn within<T>(
    limit: Option<Duration>,
    what: &str,
    wait: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let Some(limit) = limit else { return wait.await };
    let late = || anyhow::anyhow!("{what} took longer than {}", humantime::format_duration(limit));
    tokio::time::timeout(limit, wait).await.map_err(|_| late())?
}
