//! `get`: lists of things, once or as they change.

use super::{now_ms, style};
use crate::client::Client;
use crate::error::Usage;
use crate::output::{Format, Out, Style, table, view};
use crate::resource::{self, Kind, Object, Target};
use crate::watch::{Change, Watch};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  clusterctl get tasks
  clusterctl get tasks -l app=redis -o wide
  clusterctl get workload redis -o yaml
  clusterctl get task/redis-0 -o json
  clusterctl get migrations -w

Kinds and their short names: workloads (wl), tasks (t), nodes (no),
migrations (mig), images (img), events (ev).";

/// What to list.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A kind, and names if not all are wanted: `tasks`, `task redis-0` or `task/redis-0`
    #[arg(required = true, value_name = "KIND [NAME]")]
    target: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Keep printing what changes
    #[arg(short, long)]
    watch: bool,
    /// Only what has these labels: key=value, key!=value, key, !key, joined by commas
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", hide_default_value = true)]
    selector: String,
    /// Leave the heading out
    #[arg(long)]
    no_headers: bool,
}

/// Lists, and follows if asked to.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    let target = Target::parse(&args.target)?;
    if !target.names.is_empty() && !args.selector.is_empty() {
        return Err(Usage("give names or --selector, not both".into()).into());
    }
    let style = Style { headers: !args.no_headers, ..style(args.output) };
    if args.watch {
        return follow(client, &target, &args.selector, style, out).await;
    }
    let objects = fetch(client, &target, &args.selector).await?;
    if objects.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        out.note(format_args!("There are no {}.", target.kind.names()[1]));
    }
    out.objects(&objects, style, target.names.len() == 1)?;
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &Client, target: &Target, selector: &str) -> anyhow::Result<Vec<Object>> {
    if target.names.is_empty() {
        return Ok(resource::list(client, target.kind, selector).await?);
    }
    let mut objects = Vec::new();
    for name in &target.names {
        objects.push(resource::get(client, target.kind, name).await?);
    }
    Ok(objects)
}

/// Prints each thing when it changes. Ends only with an error, or when the
/// reader goes away.
async fn follow(
    client: &Client,
    target: &Target,
    selector: &str,
    style: Style,
    out: &mut Out,
) -> anyhow::Result<ExitCode> {
    let mut watch = Watch::open(client, target.kind, selector).await?;
    let mut columns = Columns::new(target.kind, style);
    loop {
        let (object, removed) = match watch.next().await? {
            Change::Now(object) => (object, false),
            Change::Removed(object) => (object, true),
            Change::Synced => {
                columns.flush(out)?;
                continue;
            }
            Change::Restarted => continue,
        };
        if !target.names.is_empty() && !target.names.contains(&object.name()) {
            continue;
        }
        match style.format {
            Format::Table | Format::Wide => columns.row(out, &object, removed)?,
            Format::Json => out.json_line(&view::ChangeView::of(&object, removed))?,
            Format::Yaml => {
                out.line("---")?;
                out.yaml(&view::ChangeView::of(&object, removed))?;
            }
            Format::Name => out.line(format_args!("{}/{}", object.kind().word(), object.name()))?,
        }
    }
}

/// A table that grows: what was there first is aligned together, and columns
/// only ever become wider.
struct Columns {
    style: Style,
    kind: Kind,
    first: Option<Vec<Object>>,
    widths: Vec<usize>,
}

impl Columns {
    fn new(kind: Kind, style: Style) -> Columns {
        Columns { style, kind, first: Some(Vec::new()), widths: Vec::new() }
    }

    fn row(&mut self, out: &mut Out, object: &Object, removed: bool) -> std::io::Result<()> {
        if let Some(first) = self.first.as_mut() {
            if !removed {
                first.push(object.clone());
            }
            return Ok(());
        }
        let style = Style { now_ms: now_ms(), ..self.style };
        let mut cells = table::row(object, style.format == Format::Wide, style.now_ms);
        if removed && let Some(name) = cells.first_mut() {
            name.push_str(" (removed)");
        }
        self.widths = table::widths(&self.widths, std::iter::once(&cells));
        out.line(table::padded(&cells, &self.widths))
    }

    fn flush(&mut self, out: &mut Out) -> std::io::Result<()> {
        let Some(first) = self.first.take() else { return Ok(()) };
        let wide = self.style.format == Format::Wide;
        let heading = table::heading(self.kind, wide);
        let rows: Vec<_> = first.iter().map(|object| table::row(object, wide, self.style.now_ms)).collect();
        let titles = heading.iter().map(|title| (*title).to_owned()).collect();
        self.widths = table::widths(&[], rows.iter().chain(std::iter::once(&titles)));
        out.bytes(table::plain(if self.style.headers { &heading } else { &[] }, rows).as_bytes())
    }
}
