//! `image import` and `image list`.

use super::style;
use crate::client::{Client, Patience};
use crate::output::progress::Sending;
use crate::output::text::bytes;
use crate::output::{Format, Out};
use crate::resource::{self, Kind};
use anyhow::Context;
use bytes::Bytes;
use clap::Subcommand;
use dray_proto::v1::images_client::ImagesClient;
use dray_proto::v1::import_image_request::Message;
use dray_proto::v1::{Image, ImportImageRequest, ImportStart};
use futures::{Stream, StreamExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

/// How much of the file one message holds.
const CHUNK: usize = 1 << 20;

/// What to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  clusterctl image import redis.tar
  docker save redis:7 -o redis.tar && clusterctl image import redis.tar
  clusterctl image import rootfs.tar.gz --name base:1

The file is an archive of an OCI layout, one of `docker save`, or a plain
root file system, which needs --name.";

const LIST_EXAMPLES: &str = "\
Examples:
  clusterctl image list
  clusterctl image list -o wide";

#[derive(Debug, Subcommand)]
enum Command {
    /// Import an image from an archive
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// The archive
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What to call it, instead of the name in the archive
        #[arg(long, value_name = "REFERENCE", default_value = "", hide_default_value = true)]
        name: String,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List images
    #[command(after_help = LIST_EXAMPLES, visible_alias = "ls")]
    List {
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Imports or lists.
pub(crate) async fn run(args: &Args, client: &Client, out: &mut Out) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Import { file, name, output } => {
            let image = import(client, file, name, out).await?;
            imported(out, image, *output)?;
        }
        Command::List { output } => {
            let images = resource::list(client, Kind::Image, "").await?;
            if images.is_empty() && matches!(output, Format::Table | Format::Wide) {
                out.note("There are no images.");
            }
            out.objects(&images, style(*output), false)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a file. It may be sent again, to another scheduler.
async fn import(client: &Client, path: &Path, name: &str, out: &Out) -> anyhow::Result<Image> {
    let reading = || format!("read {}", path.display());
    let about = std::fs::metadata(path).with_context(reading)?;
    anyhow::ensure!(about.is_file(), "{} is not a file; pack a directory with tar first", path.display());
    anyhow::ensure!(about.len() > 0, "{} is empty", path.display());
    std::fs::File::open(path).with_context(reading)?;
    let start = ImportStart { reference: name.to_owned(), size_bytes: about.len() };
    let sending = Sending::new(out, about.len());
    let sent: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(sending.counter());
    let send = async |channel| {
        let file = File::open(path).await?;
        ImagesClient::new(channel).import(messages(start.clone(), file, Arc::clone(&sent))).await
    };
    client.call_with(Patience::Short, None, send).await.with_context(|| format!("import {}", path.display()))
}

/// The start, then the file in pieces. A file that can't be read further ends
/// early; the scheduler notices by its size.
fn messages(
    start: ImportStart,
    file: File,
    sent: Arc<dyn Fn(u64) + Send + Sync>,
) -> impl Stream<Item = ImportImageRequest> + Send + 'static {
    let message = |message| ImportImageRequest { message: Some(message) };
    let mut total = 0;
    let chunks = ReaderStream::with_capacity(file, CHUNK)
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .filter_map(|chunk| std::future::ready(chunk.ok()))
        .inspect(move |chunk: &Bytes| {
            total += chunk.len() as u64;
            sent(total);
        });
    let begin = futures::stream::once(std::future::ready(message(Message::Start(start))));
    begin.chain(chunks.map(move |chunk| message(Message::Chunk(chunk))))
}

fn imported(out: &mut Out, image: Image, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table | Format::Wide => {
            let (digest, size) = (&image.digest, bytes(image.size_bytes));
            out.line(format_args!("image/{} imported: {digest}, {size}", image.reference))?;
        }
        Format::Json | Format::Yaml | Format::Name => {
            out.objects(&[resource::Object::Image(image)], style(format), true)?;
        }
    }
    Ok(())
}
