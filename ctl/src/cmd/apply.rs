//! `apply` and `diff`: make the cluster's workloads what manifests say.
//!
//! Read everything, check everything here, let the scheduler check everything,
//! and only then change anything.

use super::running::{Wanted, until_running};
use super::{request_id, style, within};
use crate::client::Client;
use crate::connection::Connection;
use crate::error::{CallError, Refusal};
use crate::manifest::{self, Document, Problem, Problems};
use crate::output::{Format, Out, diff, word};
use crate::resource::Object;
use dray_proto::status::details;
use dray_proto::v1::workloads_client::WorkloadsClient;
use dray_proto::v1::{self as wire, ApplyWorkloadRequest, ApplyWorkloadResponse};
use std::process::ExitCode;
use tonic::Code;

const EXAMPLES: &str = "\
Examples:
  clusterctl apply -f redis.yaml
  clusterctl apply -f manifests/ --wait --timeout 2m
  clusterctl apply -f redis.yaml --dry-run --diff
  cat *.yaml | clusterctl apply -f -

All documents are checked, here and by the scheduler, before anything changes.";

/// What to apply.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A manifest, a directory of manifests (*.yaml, *.yml, *.json) or - for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Show what changes
    #[arg(long)]
    diff: bool,
    /// Wait until all tasks run
    #[arg(long)]
    wait: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const DIFF_EXAMPLES: &str = "\
Examples:
  clusterctl diff -f redis.yaml

Exit codes: 0 nothing would change, 1 something would, 2 failed.";

/// What to compare.
#[derive(Debug, clap::Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct DiffArgs {
    /// A manifest, a directory of manifests (*.yaml, *.yml, *.json) or - for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// Applies, or says what it would do.
pub(crate) async fn run(args: &Args, connection: &Connection, out: &mut Out) -> anyhow::Result<ExitCode> {
    let documents = manifest::load(&args.files)?;
    let client = Client::new(connection)?;
    let mut responses = Vec::new();
    // One document alone is checked and applied by the same request.
    if args.dry_run || documents.len() > 1 {
        responses = check(&client, &documents).await?;
    }
    if args.dry_run {
        for response in &responses {
            report(args, response, out)?;
        }
    } else {
        responses = apply(args, &client, &documents, out).await?;
    }
    if !matches!(args.output, Format::Table | Format::Wide) {
        let objects: Vec<_> =
            responses.iter().filter_map(|r| r.workload.clone()).map(Object::Workload).collect();
        out.objects(&objects, style(args.output), objects.len() == 1)?;
    }
    if args.wait && !args.dry_run {
        let wanted = responses.iter().filter_map(|response| response.workload.as_ref()).map(Wanted::of);
        within(client.wait_limit(), "waiting for the tasks", until_running(&client, wanted.collect(), out))
            .await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares only.
pub(crate) async fn diff(
    args: &DiffArgs,
    connection: &Connection,
    out: &mut Out,
) -> anyhow::Result<ExitCode> {
    match compare(args, connection, out).await {
        Ok(false) => Ok(ExitCode::SUCCESS),
        Ok(true) => Ok(ExitCode::from(1)),
        Err(error) => {
            out.failure(&error);
            Ok(ExitCode::from(2))
        }
    }
}

/// Says whether anything would change.
async fn compare(args: &DiffArgs, connection: &Connection, out: &mut Out) -> anyhow::Result<bool> {
    let documents = manifest::load(&args.files)?;
    let responses = check(&Client::new(connection)?, &documents).await?;
    for response in &responses {
        show_diff(response, out)?;
    }
    Ok(responses.iter().any(|response| response.change() != wire::Change::Unchanged))
}

/// Lets the scheduler check every document. All problems are told together.
async fn check(client: &Client, documents: &[Document]) -> anyhow::Result<Vec<ApplyWorkloadResponse>> {
    let (mut responses, mut found) = (Vec::new(), Vec::new());
    for document in documents {
        match apply_one(client, document, true).await {
            Ok(response) => responses.push(response),
            Err(error) => match problems(document, &error) {
                Some(problems) => found.extend(problems),
                None => return Err(error.into()),
            },
        }
    }
    if found.is_empty() { Ok(responses) } else { Err(Problems(found).into()) }
}

/// Applies each document in order, and says so at once.
async fn apply(
    args: &Args,
    client: &Client,
    documents: &[Document],
    out: &mut Out,
) -> anyhow::Result<Vec<ApplyWorkloadResponse>> {
    let mut responses = Vec::new();
    for document in documents {
        let response =
            apply_one(client, document, false).await.map_err(|error| explained(document, error))?;
        report(args, &response, out)?;
        responses.push(response);
    }
    Ok(responses)
}

async fn apply_one(
    client: &Client,
    document: &Document,
    validate_only: bool,
) -> Result<ApplyWorkloadResponse, CallError> {
    let manifest = &document.manifest;
    let request = ApplyWorkloadRequest {
        name: manifest.metadata.name.clone(),
        labels: manifest.metadata.labels.clone(),
        spec: Some(manifest.spec.clone().into()),
        etag: String::new(),
        request_id: request_id(),
        validate_only,
    };
    client.call(async |channel| WorkloadsClient::new(channel).apply(request.clone()).await).await
}

/// A refusal as problems with the document's fields; `None` if it isn't about
/// the document.
fn problems(document: &Document, error: &CallError) -> Option<Vec<Problem>> {
    let CallError::Refused(Refusal(status)) = error else { return None };
    let details = details(status);
    let found: Vec<_> = details.violations.iter().map(|v| document.problem(&v.field, &v.problem)).collect();
    if !found.is_empty() {
        return Some(found);
    }
    let field = match details.reason.as_str() {
        "TooLarge" => "spec.template.containers[0].resources",
        reason if reason.contains("Image") => "spec.template.containers[0].image",
        _ if is_about_the_document(status.code()) => "metadata.name",
        _ => return None,
    };
    Some(vec![document.problem(field, status.message())])
}

/// Whether a refusal would not have come for another document.
fn is_about_the_document(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::Aborted)
}

fn explained(document: &Document, error: CallError) -> anyhow::Error {
    match problems(document, &error) {
        // What came before it is applied, so that this isn't `Problems`.
        Some(problems) => {
            anyhow::Error::msg(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        None => anyhow::Error::new(error).context(format!("workload/{}", document.manifest.metadata.name)),
    }
}

fn report(args: &Args, response: &ApplyWorkloadResponse, out: &mut Out) -> anyhow::Result<()> {
    let name = response.workload.as_ref().map_or("", |workload| &workload.name);
    if args.diff {
        show_diff(response, out)?;
    }
    if matches!(args.output, Format::Table | Format::Wide) {
        let dry = if args.dry_run { " (dry run)" } else { "" };
        out.line(format_args!("workload/{name} {}{dry}", word::change(response.change())))?;
    }
    for warning in &response.warnings {
        out.warning(format_args!("workload/{name}: {warning}"));
    }
    Ok(())
}

fn show_diff(response: &ApplyWorkloadResponse, out: &mut Out) -> anyhow::Result<()> {
    let Some(workload) = &response.workload else { return Ok(()) };
    if response.change() == wire::Change::Unchanged {
        return Ok(());
    }
    let text = diff::specs(&workload.name, response.previous.clone(), workload.spec.clone())?;
    Ok(diff::print(out, &text)?)
}
