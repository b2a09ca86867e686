//! `describe`: one thing with all that belongs to it.

use crate::client::Client;
use crate::output::text::now_ms;
use crate::output::{Out, describe};
use crate::resource::{self, Kind, Object, Target};
use dray_proto::v1::Task;
use std::process::ExitCode;

/// How many of the latest events are shown.
const EVENTS: usize = 20;
/// How many of the latest migrations of a task are shown.
const MIGRATIONS: usize = 10;

const EXAMPLES: &str = "\
Examples:
  clusterctl describe task redis-0       why it is pending, its address, its last exit
  clusterctl describe workload redis     its spec and its tasks
  clusterctl describe node node-1        its resources and what runs on it
  clusterctl describe migration m-3      its phases and steps with their times";

/// What to describe.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A kind and names: `task redis-0` or `task/redis-0`
    #[arg(required = true, value_name = "KIND NAME")]
    target: Vec<String>,
}

/// Describes each.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let target = Target::parse_named(&args.target)?;
    for (i, name) in target.names.iter().enumerate() {
        let object = resource::get(client, target.kind, name).await?;
        let around = around(client, &object).await?;
        if i > 0 {
            out.line("")?;
        }
        out.bytes(describe::object(&object, &around, now_ms())?.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches what belongs to a thing.
async fn around(client: &Client, object: &Object) -> anyhow::Result<describe::Around> {
    let mut around = describe::Around::default();
    let name = object.name();
    if matches!(object.kind(), Kind::Workload | Kind::Node) {
        around.tasks = resource::list(client, Kind::Task, "").await?;
        let belongs = |task: &Task| task.workload == name || task.node == name;
        around.tasks.retain(|task| matches!(task, Object::Task(task) if belongs(task)));
    }
    if object.kind() == Kind::Task {
        around.migrations = resource::list(client, Kind::Migration, "").await?;
        around.migrations.retain(|m| matches!(m, Object::Migration(m) if m.task == name));
        latest(&mut around.migrations, MIGRATIONS);
    }
    if !matches!(object.kind(), Kind::Event | Kind::Image) {
        let about = format!("{}/{name}", object.kind().word());
        let mut events = resource::list(client, Kind::Event, "").await?;
        events.retain(|event| matches!(event, Object::Event(event) if event.object == about));
        latest(&mut events, EVENTS);
        around.events = events;
    }
    Ok(around)
}

/// Keeps only the last ones.
fn latest(objects: &mut Vec<Object>, count: usize) {
    objects.drain(..objects.len().saturating_sub(count));
}
