//! Brings images into the store: OCI layouts and Docker archives (tar, compressed or not, or a directory), plain root
//! file systems, and what another node's [`export`](ImageStore::export) sends.
//!
//! Everything is staged and verified first; an image becomes visible by its name, in the last step. A failed import
//! leaves nothing.

mod docker;
mod oci;
mod rootfs;
mod source;
mod staging;

use std::io::{self, Read};
use std::path::Path;

use oci_spec::OciSpecError;
use serde::Serialize;

use self::source::Source;
use self::staging::Staging;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::image::{Image, ImageError, MAX_DOCUMENT_BYTES};
use crate::reference::{Reference, ReferenceError};
use crate::store::{ImageStore, StoreError};
use crate::stream::read_document;

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

/// Why an import failed. Nothing of it is visible in the store then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store has no room or right for work in progress.
    #[error("prepare the import")]
    Begin(#[source] io::Error),
    /// The archive is unreadable or truncated.
    #[error("read the image archive")]
    Archive(#[source] io::Error),
    /// One file of the archive is unreadable, truncated or too large.
    #[error("read `{entry}` of the image archive")]
    Entry {
        /// Its path in the archive.
        entry: String,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// Neither an OCI layout nor a Docker archive.
    #[error("not an image: the archive has neither index.json (OCI layout) nor manifest.json (docker save)")]
    NotAnImage,
    /// Something refers to a file that is not there.
    #[error("the image archive lacks `{path}`")]
    Missing {
        /// The path.
        path: String,
    },
    /// A blob's content is not what its name says.
    #[error("`{entry}` of the image archive has the digest {actual}")]
    WrongDigest {
        /// Its path in the archive.
        entry: String,
        /// The digest of its content.
        actual: Digest,
    },
    /// A blob's size is not what its descriptor says.
    #[error("`{entry}` of the image archive has {actual} bytes, expected {expected}")]
    WrongSize {
        /// Its path in the archive.
        entry: String,
        /// The descriptor's size.
        expected: u64,
        /// The real size.
        actual: u64,
    },
    /// A document is not what it should be.
    #[error("`{path}` of the image archive cannot be understood")]
    Document {
        /// Its path in the archive.
        path: String,
        /// Where.
        #[source]
        cause: serde_json::Error,
    },
    /// An index in an index in an index.
    #[error("index {digest} is nested too deeply")]
    Depth {
        /// The innermost index.
        digest: Digest,
    },
    /// No image for this machine.
    #[error("the image archive has no image for linux/{architecture}")]
    Platform {
        /// The wanted architecture.
        architecture: String,
    },
    /// The image's own documents do not fit together.
    #[error("image {manifest} is not usable")]
    Image {
        /// The manifest.
        manifest: Digest,
        /// Why.
        #[source]
        cause: ImageError,
    },
    /// A document of ours could not be put together.
    #[error("write the image's documents")]
    Specification(#[source] OciSpecError),
    /// The archive's own name for an image is no reference.
    #[error("the image archive's own name is unusable; give the image a name")]
    Name(#[source] ReferenceError),
    /// The archive names no image, and neither did the caller.
    #[error("the image archive does not name its image; give the image a name")]
    Nameless,
    /// The caller named one image, but there are several.
    #[error("the archive has several images, none of them called {wanted}: {}", names.join(", "))]
    Ambiguous {
        /// The caller's name.
        wanted: Reference,
        /// The archive's names.
        names: Vec<String>,
    },
    /// The caller pinned another digest.
    #[error("the image archive has {actual}, not {wanted}")]
    Pinned {
        /// The caller's reference.
        wanted: Reference,
        /// The manifest's digest.
        actual: Digest,
    },
    /// The verified blobs could not be moved into the store.
    #[error("add image {manifest} to the store")]
    Commit {
        /// The manifest.
        manifest: Digest,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// The image could not be named.
    #[error("name the imported images")]
    Register(#[source] StoreError),
}

impl ImportError {
    fn archive(cause: io::Error) -> Self {
        Self::Archive(cause)
    }
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
