//! Images: held as assigned, fetched from the nodes that have them.

use crate::context::Context;
use anyhow::{Context as _, Result, bail};
use container_image::{Digest, Reference, UnpackLimits};
use dray_model::assignment::{ImageAssignment, ImageReport};
use dray_proto::connect::Whom;
use dray_proto::v1::FetchImageRequest;
use dray_proto::v1::peer_client::PeerClient;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// How long to wait before an image that can't be had is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Holds what is assigned, for ever.
pub(crate) async fn keep(context: Context) {
    refresh(&context).await;
    let mut assignment = context.assignment.subscribe();
    loop {
        let wanted: Vec<_> = assignment.borrow_and_update().images.values().cloned().collect();
        let mut missed = false;
        for image in wanted {
            if let Err(error) = ensure(&context, &image).await {
                tracing::warn!(image = image.reference, "hold it: {error:#}");
                missed = true;
            }
        }
        tokio::select! {
            // The change is still there when asked again.
            changed = assignment.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE), if missed => {}
        }
    }
}

/// Tells what is in the store.
pub(crate) async fn refresh(context: &Context) {
    match context.blocking(list).await {
        Ok(held) => {
            context.held.send_if_modified(|last| {
                let changed = *last != held;
                *last = held;
                changed
            });
        }
        Err(error) => tracing::error!("list the images: {error:#}"),
    }
}

fn list(context: &Context) -> Result<BTreeMap<String, ImageReport>> {
    let mut held = BTreeMap::new();
    for (reference, digest) in context.images.list()? {
        let size_bytes = context.images.image(&digest)?.blobs().map(|blob| blob.size).sum();
        let report = ImageReport {
            reference: reference.to_string(),
            digest: digest.to_string(),
            size_bytes,
            removed: false,
        };
        held.insert(report.reference.clone(), report);
    }
    Ok(held)
}

/// The layer directories of a task's image, lowest first.
pub(crate) async fn layers(
    context: &Context,
    image: Option<&ImageAssignment>,
    name: &str,
) -> Result<Vec<PathBuf>> {
    let image = image.with_context(|| {
        format!(
            "the cluster has no image {name}: import it with `clusterctl image import FILE --name {name}`"
        )
    })?;
    let digest = ensure(context, image).await?;
    let name = image.reference.clone();
    context
        .blocking(move |context| {
            let image = context.images.image(&digest)?;
            context.images.unpack(&image, &UnpackLimits::default()).with_context(|| format!("unpack {name}"))
        })
        .await
}

/// Fetches an image unless it is here.
async fn ensure(context: &Context, image: &ImageAssignment) -> Result<Digest> {
    let reference: Reference = image.reference.parse()?;
    let digest: Digest = image.digest.parse()?;
    let here = digest.clone();
    let (name, wanted) = (reference.clone(), digest.clone());
    if context.blocking(move |context| Ok(context.images.list()?.get(&name) == Some(&wanted))).await? {
        return Ok(here);
    }
    let mut failures = Vec::new();
    for holder in image.holders.iter().filter(|holder| **holder != context.config.listen) {
        match fetch(context, &holder.to_string(), &reference, &digest).await {
            Ok(()) => {
                tracing::info!(image = %reference, %holder, "fetched");
                refresh(context).await;
                return Ok(here);
            }
            Err(error) => failures.push(format!("{holder}: {error:#}")),
        }
    }
    match failures.is_empty() {
        true => bail!("no node that is up has image {reference}"),
        false => bail!("fetch image {reference}: {}", failures.join("; ")),
    }
}

async fn fetch(context: &Context, holder: &str, reference: &Reference, digest: &Digest) -> Result<()> {
    let mut peer = PeerClient::new(context.credentials.channel_to(holder, Whom::AnyNode)?);
    let request = FetchImageRequest { reference: reference.to_string(), digest: digest.to_string() };
    let chunks = peer.fetch_image(request).await?.into_inner();
    let chunks = chunks.map(|chunk| chunk.map(|chunk| chunk.data).map_err(std::io::Error::other));
    let reader = SyncIoBridge::new(StreamReader::new(chunks));
    let (reference, digest) = (reference.clone(), digest.clone());
    context
        .blocking(move |context| {
            context.images.receive(reader, &reference, &digest)?;
            Ok(())
        })
        .await
}
