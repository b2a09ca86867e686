//! The archive of `docker save`: `manifest.json` with paths of configurations and layers.
//!
//! Docker before 25 wrote only this; since then it is a second table of contents beside an OCI layout. It holds no
//! manifest in OCI's sense, so we write one.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType};
use serde::Deserialize;

use super::source::Source;
use super::{Candidate, ImportError, Staging, oci_digest};
use crate::compression::Decompressed;
use crate::digest::Digest;
use crate::image::Blob;

const CONTENTS: &str = "manifest.json";

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// All images of the archive, or `None` if the source is no Docker archive.
pub(super) fn find_images(
    source: &Source,
    staging: &mut Staging<'_>,
) -> Result<Option<Vec<Candidate>>, ImportError> {
    let Some(images) = source.document::<Vec<SavedImage>>(CONTENTS, staging)? else { return Ok(None) };
    let mut candidates = Vec::new();
    for image in images {
        let config = require(source, &image.config, staging)?;
        let layers =
            image.layers.iter().map(|path| require(source, path, staging)).collect::<Result<Vec<_>, _>>()?;
        let manifest = write_manifest(&config, &layers, staging)?;
        candidates.push(Candidate { manifest, names: image.repo_tags.unwrap_or_default() });
    }
    Ok(Some(candidates))
}

/// The names Docker gave to the images of an OCI layout that also has a `manifest.json`.
pub(super) fn names_by_config(
    source: &Source,
    staging: &mut Staging<'_>,
) -> Result<BTreeMap<Digest, Vec<String>>, ImportError> {
    let images = source.document::<Vec<SavedImage>>(CONTENTS, staging)?.unwrap_or_default();
    let mut names: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for image in images {
        if let (Some(config), Some(tags)) = (source.find(&image.config, staging)?, image.repo_tags) {
            names.entry(config.digest).or_default().extend(tags);
        }
    }
    Ok(names)
}

/// Writes and stages an OCI manifest for a configuration and layers that are staged.
pub(super) fn write_manifest(
    config: &Blob,
    layers: &[Blob],
    staging: &mut Staging<'_>,
) -> Result<Digest, ImportError> {
    let layers = layers.iter().map(|layer| describe_layer(layer, staging)).collect::<Result<Vec<_>, _>>()?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(Descriptor::new(MediaType::ImageConfig, config.size, oci_digest(&config.digest)?))
        .layers(layers)
        .build()
        .map_err(ImportError::Specification)?;
    super::stage_json("the image's manifest", &manifest, staging)
}

fn describe_layer(layer: &Blob, staging: &Staging<'_>) -> Result<Descriptor, ImportError> {
    let compression = staging
        .open(&layer.digest)
        .and_then(Decompressed::new)
        .map_err(|cause| ImportError::Entry { entry: layer.digest.to_string(), cause })?
        .compression();
    Ok(Descriptor::new(compression.layer_media_type(), layer.size, oci_digest(&layer.digest)?))
}

fn require(source: &Source, path: &str, staging: &mut Staging<'_>) -> Result<Blob, ImportError> {
    source.find(path, staging)?.ok_or_else(|| ImportError::Missing { path: path.to_owned() })
}
