//! Gives images to other nodes, and takes them from users.

use super::{Answers, failed};
use crate::context::Context;
use crate::images;
use crate::lease::unix_ms;
use anyhow::{Context as _, Result};
use container_image::{Digest, ImageConfig, ImportError, ImportOptions, Reference, UnpackLimits};
use dray_proto::v1::import_image_request::Message;
use dray_proto::v1::{FetchImageRequest, Image, ImageChunk, ImportImageRequest};
use std::io::{Error, Read, Seek, Write};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::{StreamReader, SyncIoBridge};
use tonic::{Status, Streaming};

/// Bytes in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// Streams one image as an OCI layout archive.
pub(super) fn fetch(context: Context, request: FetchImageRequest) -> Result<Answers<ImageChunk>, Status> {
    let malformed = |what: &str| Status::invalid_argument(format!("{what} is malformed"));
    let reference: Reference = request.reference.parse().map_err(|_| malformed("reference"))?;
    let digest: Digest = request.digest.parse().map_err(|_| malformed("digest"))?;
    let image =
        context.images.image(&digest).map_err(|_| Status::not_found(format!("no image {reference} here")))?;
    let (answers, stream) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let writer = std::io::BufWriter::with_capacity(CHUNK_BYTES, Chunks { answers: answers.clone() });
        if let Err(error) = context.images.export(&image, &reference, writer) {
            // A receiver that is gone needs no error.
            let _ = answers.blocking_send(Err(failed(&error.into())));
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// Writes become messages.
struct Chunks {
    answers: mpsc::Sender<Result<ImageChunk, Status>>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let part = &bytes[..bytes.len().min(CHUNK_BYTES)];
        let chunk = ImageChunk { data: part.to_vec().into() };
        self.answers.blocking_send(Ok(chunk)).map_err(|_| Error::other("the receiver is gone"))?;
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Imports an archive that a user sends, and unpacks it, so that whoever sent
/// it hears what is wrong with it.
pub(super) async fn import(
    context: &Context,
    mut requests: Streaming<ImportImageRequest>,
) -> Result<Image, Status> {
    let first = requests.message().await?.and_then(|request| request.message);
    let Some(Message::Start(start)) = first else {
        return Err(Status::invalid_argument("the first message must name the image"));
    };
    let reference = match start.reference.as_str() {
        "" => None,
        text => {
            Some(text.parse::<Reference>().map_err(|e| Status::invalid_argument(format!("{text:?}: {e}")))?)
        }
    };
    let chunks = requests.map(|request| match request.map(|request| request.message) {
        Ok(Some(Message::Chunk(bytes))) => Ok(bytes),
        Ok(Some(Message::Start(_)) | None) => Err(Error::other("a message without bytes")),
        Err(status) => Err(Error::other(status)),
    });
    let reader = SyncIoBridge::new(StreamReader::new(chunks));
    let imported = context.blocking(move |context| import_archive(context, reader, reference)).await;
    let name = imported.map_err(|error| Status::invalid_argument(format!("{error:#}")))?;
    images::refresh(context).await;
    let held = context.held.borrow();
    let image = held.get(&name).ok_or_else(|| Status::internal(format!("{name} was removed meanwhile")))?;
    Ok(Image {
        reference: image.reference.clone(),
        digest: image.digest.clone(),
        size_bytes: image.size_bytes,
        nodes: vec![context.config.name.to_string()],
        imported_ms: unix_ms(),
    })
}

/// Imports an image archive or a plain root file system; gives its first name.
fn import_archive(context: &Context, mut reader: impl Read, reference: Option<Reference>) -> Result<String> {
    // An archive may have to be read twice.
    let mut archive = tempfile::tempfile_in(&context.config.data_dir).context("keep the archive")?;
    std::io::copy(&mut reader, &mut archive)?;
    archive.rewind()?;
    let options = ImportOptions { reference: reference.clone(), ..ImportOptions::default() };
    let imported = match context.images.import(&archive, &options) {
        Err(ImportError::NotAnImage) => {
            archive.rewind()?;
            let name = reference.context("the archive is a root file system: give it a name with --name")?;
            vec![context.images.import_rootfs(&archive, name, &ImageConfig::default(), &options)?]
        }
        imported => imported?,
    };
    for image in &imported {
        if let Err(error) = context.images.unpack(&image.image, &UnpackLimits::default()) {
            for image in &imported {
                context.images.remove(&image.reference)?;
            }
            return Err(error.into());
        }
    }
    Ok(imported.first().context("the archive holds no image")?.reference.to_string())
}
