//! The OCI image layout: `index.json` and `blobs/sha256/`, as written by Docker 25+, skopeo, buildah and ourselves.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::source::{Source, parse_document};
use super::{Candidate, ImportError, Staging, docker};
use crate::digest::Digest;
use crate::image::Blob;

/// Index in index in index: real layouts need two levels.
const MAX_DEPTH: usize = 4;
/// What `docker save` and containerd call the image.
const FULL_NAME: &str = "io.containerd.image.name";
/// A full name or only a tag, depending on the writer.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image index, or as much of it as choosing a manifest takes.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index has `manifests`, a manifest has `config`; media types differ between writers, this does not.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
}

/// All images of the layout that fit the architecture, or `None` if the source is no OCI layout.
pub(super) fn find_images(
    source: &Source,
    staging: &mut Staging<'_>,
    architecture: &str,
) -> Result<Option<Vec<Candidate>>, ImportError> {
    let Some(index) = source.document::<Index>("index.json", staging)? else { return Ok(None) };
    let docker_names = docker::names_by_config(source, staging)?;
    let mut reader = Reader { source, staging, architecture };
    let mut candidates = Vec::new();
    for descriptor in &index.manifests {
        let Some((manifest, config)) = reader.resolve(descriptor, 0)? else { continue };
        let names = docker_names.get(&config).cloned().unwrap_or_else(|| descriptor.names());
        candidates.push(Candidate { manifest, names });
    }
    if candidates.is_empty() && !index.manifests.is_empty() {
        return Err(ImportError::Platform { architecture: architecture.to_owned() });
    }
    for candidate in &candidates {
        reader.stage_blobs(&candidate.manifest)?;
    }
    Ok(Some(candidates))
}

struct Reader<'r, 's> {
    source: &'r Source,
    staging: &'r mut Staging<'s>,
    architecture: &'r str,
}

impl Reader<'_, '_> {
    /// Follows a descriptor to the manifest of the wanted architecture and that manifest's configuration.
    fn resolve(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<(Digest, Digest)>, ImportError> {
        if depth > MAX_DEPTH {
            return Err(ImportError::Depth { digest: descriptor.digest.clone() });
        }
        if !descriptor.fits(self.architecture) {
            return Ok(None);
        }
        let blob = self.stage(&descriptor.digest, Some(descriptor.size))?;
        let document: Document = parse_document(&blob_path(&blob.digest), &blob, self.staging)?;
        if let Some(config) = document.config {
            return Ok(Some((blob.digest, config.digest)));
        }
        for nested in document.manifests.iter().flatten() {
            if let Some(found) = self.resolve(nested, depth + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Stages configuration and layers of a manifest, where they are not in the store already.
    fn stage_blobs(&mut self, manifest: &Digest) -> Result<(), ImportError> {
        #[derive(Deserialize)]
        struct Manifest {
            config: Descriptor,
            layers: Vec<Descriptor>,
        }
        let blob = self.stage(manifest, None)?;
        let manifest: Manifest = parse_document(&blob_path(manifest), &blob, self.staging)?;
        for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
            self.stage(&descriptor.digest, Some(descriptor.size))?;
        }
        Ok(())
    }

    fn stage(&mut self, digest: &Digest, size: Option<u64>) -> Result<Blob, ImportError> {
        let path = blob_path(digest);
        let known =
            self.staging.find(digest).map_err(|cause| ImportError::Entry { entry: path.clone(), cause })?;
        let blob = match known {
            Some(blob) => blob,
            None => {
                self.source.find(&path, self.staging)?.ok_or(ImportError::Missing { path: path.clone() })?
            }
        };
        if blob.digest != *digest {
            return Err(ImportError::WrongDigest { entry: path, actual: blob.digest });
        }
        match size {
            Some(expected) if expected != blob.size => {
                Err(ImportError::WrongSize { entry: path, expected, actual: blob.size })
            }
            Some(_) | None => Ok(blob),
        }
    }
}

impl Descriptor {
    fn fits(&self, architecture: &str) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
    }

    fn names(&self) -> Vec<String> {
        let annotation = |key| self.annotations.as_ref().and_then(|annotations| annotations.get(key));
        // Without a separator it is only a tag, and a tag is no name.
        let full = |name: &&String| name.contains([':', '/', '@']);
        annotation(FULL_NAME).or_else(|| annotation(REF_NAME).filter(full)).into_iter().cloned().collect()
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
