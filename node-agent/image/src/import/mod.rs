//! Brings images into the store: OCI layouts and Docker archives (tar, compressed or not, or a directory), plain root
//! file systems, and what another node's [`export`](ImageStore::export) sends.
//!
//! Everything is staged and verified first; an image becomes visible by its name, in the last step. A failed import
//! leaves nothing.

mod docker;
mod error;
mod oci;
mod rootfs;
mod source;
mod staging;

use std::io::Read;
use std::path::Path;

use serde::Serialize;

use self::source::Source;
use self::staging::Staging;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::image::{Image, MAX_DOCUMENT_BYTES};
use crate::reference::Reference;
use crate::store::ImageStore;
use crate::stream::read_document;

pub use self::error::ImportError;
pub(crate) use self::oci::REF_NAME;

/// How to import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// What to call the image. `None`: what the archive calls it.
    pub reference: Option<Reference>,
    /// Which of several platforms to take, in the specification's words (`amd64`, `arm64`).
    pub architecture: String,
    /// The most bytes an archive's files may have together, decompressed.
    pub max_bytes: u64,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { reference: None, architecture: host_architecture().to_owned(), max_bytes: 64 << 30 }
    }
}

/// An image that was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The name it now has.
    pub reference: Reference,
    /// The image.
    pub image: Image,
}

/// An image found in the source: a staged manifest and the names the source has for it.
struct Candidate {
    manifest: Digest,
    names: Vec<String>,
}

impl ImageStore {
    /// Imports the images of an archive: an OCI layout or what `docker save` wrote, plain, gzip or zstd. The result
    /// has an entry for each name.
    pub fn import(&self, reader: impl Read, options: &ImportOptions) -> Result<Vec<Imported>, ImportError> {
        let mut staging = Staging::begin(self, options.max_bytes).map_err(ImportError::Begin)?;
        let source = Source::read_archive(reader, &mut staging)?;
        self.import_source(&source, staging, options)
    }

    /// Imports the images of an unpacked OCI layout.
    pub fn import_directory(
        &self,
        path: &Path,
        options: &ImportOptions,
    ) -> Result<Vec<Imported>, ImportError> {
        let staging = Staging::begin(self, options.max_bytes).map_err(ImportError::Begin)?;
        self.import_source(&Source::open_directory(path)?, staging, options)
    }

    /// Makes an image of one layer out of a root file system's tar.
    pub fn import_rootfs(
        &self,
        reader: impl Read,
        reference: Reference,
        config: &ImageConfig,
        options: &ImportOptions,
    ) -> Result<Imported, ImportError> {
        let mut staging = Staging::begin(self, options.max_bytes).map_err(ImportError::Begin)?;
        let candidate =
            rootfs::build_image(reader, config, &options.architecture, options.max_bytes, &mut staging)?;
        let imported = check_image(&candidate.manifest, reference, &options.architecture, &staging)?;
        self.publish(&mut staging, std::slice::from_ref(&imported))?;
        Ok(imported)
    }

    /// Imports what [`export`](Self::export) wrote on another node: exactly the image with this manifest.
    pub fn receive(
        &self,
        reader: impl Read,
        reference: &Reference,
        manifest: &Digest,
    ) -> Result<Imported, ImportError> {
        let options = ImportOptions { reference: Some(reference.clone()), ..ImportOptions::default() };
        let mut staging = Staging::begin(self, options.max_bytes).map_err(ImportError::Begin)?;
        let source = Source::read_archive(reader, &mut staging)?;
        let found = find_images(&source, &mut staging, &options.architecture)?;
        let Some(candidate) = found.iter().find(|candidate| candidate.manifest == *manifest) else {
            return Err(ImportError::Missing { path: format!("image {manifest}") });
        };
        let imported = check_image(&candidate.manifest, reference.clone(), &options.architecture, &staging)?;
        self.publish(&mut staging, std::slice::from_ref(&imported))?;
        Ok(imported)
    }

    fn import_source(
        &self,
        source: &Source,
        mut staging: Staging<'_>,
        options: &ImportOptions,
    ) -> Result<Vec<Imported>, ImportError> {
        let candidates = find_images(source, &mut staging, &options.architecture)?;
        let named = choose(candidates, options.reference.as_ref())?;
        let imported = named
            .into_iter()
            .map(|(manifest, reference)| check_image(&manifest, reference, &options.architecture, &staging))
            .collect::<Result<Vec<_>, _>>()?;
        self.publish(&mut staging, &imported)?;
        Ok(imported)
    }

    /// Blobs first, names last: a name never leads to a blob that is not there.
    fn publish(&self, staging: &mut Staging<'_>, imported: &[Imported]) -> Result<(), ImportError> {
        let mut names = Vec::new();
        for Imported { reference, image } in imported {
            let digests = std::iter::once(&image.manifest).chain(image.blobs().map(|blob| &blob.digest));
            staging
                .commit(digests)
                .map_err(|cause| ImportError::Commit { manifest: image.manifest.clone(), cause })?;
            names.push((reference.clone(), image.manifest.clone()));
        }
        self.name_images(&names).map_err(ImportError::Register)
    }
}

fn find_images(
    source: &Source,
    staging: &mut Staging<'_>,
    architecture: &str,
) -> Result<Vec<Candidate>, ImportError> {
    if let Some(candidates) = oci::find_images(source, staging, architecture)? {
        return Ok(candidates);
    }
    docker::find_images(source, staging)?.ok_or(ImportError::NotAnImage)
}

/// Which images to import, and under which names.
fn choose(
    candidates: Vec<Candidate>,
    wanted: Option<&Reference>,
) -> Result<Vec<(Digest, Reference)>, ImportError> {
    let Some(wanted) = wanted else { return choose_all(candidates) };
    let names: Vec<String> = candidates.iter().flat_map(|candidate| candidate.names.clone()).collect();
    let called = |candidate: &Candidate| {
        candidate.names.iter().any(|name| name.parse::<Reference>().is_ok_and(|name| name == wanted.filed()))
    };
    let pinned = |candidate: &Candidate| wanted.digest() == Some(&candidate.manifest);
    let only = candidates.len() == 1;
    let Some(chosen) = candidates.into_iter().find(|c| only || pinned(c) || called(c)) else {
        return Err(ImportError::Ambiguous { wanted: wanted.clone(), names });
    };
    match wanted.digest() {
        Some(digest) if *digest != chosen.manifest => {
            Err(ImportError::Pinned { wanted: wanted.clone(), actual: chosen.manifest })
        }
        Some(_) | None => Ok(vec![(chosen.manifest, wanted.clone())]),
    }
}

fn choose_all(candidates: Vec<Candidate>) -> Result<Vec<(Digest, Reference)>, ImportError> {
    let mut named = Vec::new();
    for Candidate { manifest, names } in candidates {
        for name in names {
            named.push((manifest.clone(), name.parse().map_err(ImportError::Name)?));
        }
    }
    if named.is_empty() { Err(ImportError::Nameless) } else { Ok(named) }
}

/// Reads a staged image and checks that nothing of it is missing.
fn check_image(
    manifest: &Digest,
    reference: Reference,
    architecture: &str,
    staging: &Staging<'_>,
) -> Result<Imported, ImportError> {
    let read = |digest: &Digest| read_document(staging.open(digest)?, MAX_DOCUMENT_BYTES);
    let image = Image::read(manifest, read)
        .map_err(|cause| ImportError::Image { manifest: manifest.clone(), cause })?;
    if image.architecture != architecture {
        return Err(ImportError::Platform { architecture: architecture.to_owned() });
    }
    for blob in image.blobs() {
        let entry = blob.digest.to_string();
        let found = staging
            .find(&blob.digest)
            .map_err(|cause| ImportError::Entry { entry: entry.clone(), cause })?
            .ok_or_else(|| ImportError::Missing { path: entry.clone() })?;
        if found.size != blob.size {
            return Err(ImportError::WrongSize { entry, expected: blob.size, actual: found.size });
        }
    }
    Ok(Imported { reference, image })
}

/// Stages a document of our own. Keys are sorted, so that equal values have equal digests.
fn stage_json(what: &str, value: &impl Serialize, staging: &mut Staging<'_>) -> Result<Digest, ImportError> {
    let sorted = serde_json::to_value(value).and_then(|value| serde_json::to_vec(&value));
    let bytes = sorted.map_err(|cause| ImportError::Document { path: what.to_owned(), cause })?;
    staging.add(&bytes[..]).map(|blob| blob.digest).map_err(ImportError::Begin)
}

fn oci_digest(digest: &Digest) -> Result<oci_spec::image::Digest, ImportError> {
    digest.to_string().parse().map_err(ImportError::Specification)
}

/// This machine's architecture in the specification's words.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
