//! An image in the store: its manifest and configuration, read and checked.

use std::fs;
use std::io;

use oci_spec::image::{ImageConfiguration, ImageManifest};

use crate::config::{ConfigError, ImageConfig};
use crate::digest::{Digest, DigestError};
use crate::store::ImageStore;

/// Manifests and configurations are small; more than this is an attack or a mistake.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// An image whose manifest, configuration and layer blobs are all in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the manifest; the image's identity.
    pub manifest: Digest,
    /// The processor it is built for, in the specification's words (`amd64`, `arm64`).
    pub architecture: String,
    /// The configuration blob.
    pub config_blob: Blob,
    /// How to run it.
    pub config: ImageConfig,
    /// From the base up.
    pub layers: Vec<Layer>,
}

/// A blob some document refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The layer as it came, compressed or not.
    pub blob: Blob,
    /// Digest of its uncompressed tar; names the unpacked directory.
    pub diff_id: Digest,
}

/// Why an image's documents make no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A document could not be read.
    #[error("read {document} {digest}")]
    Read {
        /// `manifest` or `configuration`.
        document: &'static str,
        /// Its digest.
        digest: Digest,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// A document is not what it should be.
    #[error("{document} {digest} cannot be understood")]
    Parse {
        /// `manifest` or `configuration`.
        document: &'static str,
        /// Its digest.
        digest: Digest,
        /// Where.
        #[source]
        cause: serde_json::Error,
    },
    /// A digest of another algorithm, or none at all.
    #[error("{document} {digest} names a blob")]
    Digest {
        /// `manifest` or `configuration`.
        document: &'static str,
        /// The document's digest.
        digest: Digest,
        /// The name it uses.
        #[source]
        cause: DigestError,
    },
    /// A value in the configuration makes no sense.
    #[error("configuration {digest}")]
    Config {
        /// The configuration's digest.
        digest: Digest,
        /// Which value.
        #[source]
        cause: ConfigError,
    },
    /// Manifest and configuration disagree.
    #[error("manifest {digest} has {layers} layers, its configuration has {diff_ids}")]
    LayerCount {
        /// The manifest's digest.
        digest: Digest,
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
}

impl ImageStore {
    /// Reads an image by its manifest's digest, as [`resolve`](Self::resolve) gives it.
    pub fn image(&self, manifest: &Digest) -> Result<Image, ImageError> {
        Image::read(manifest, |blob| fs::read(self.blob_path(blob)))
    }
}

impl Image {
    /// Assembles an image from documents that `read` fetches by digest.
    pub(crate) fn read(
        digest: &Digest,
        mut read: impl FnMut(&Digest) -> io::Result<Vec<u8>>,
    ) -> Result<Self, ImageError> {
        let mut document = |document, digest: &Digest| {
            read(digest).map_err(|cause| ImageError::Read { document, digest: digest.clone(), cause })
        };
        let manifest: ImageManifest = parse("manifest", digest, &document("manifest", digest)?)?;
        let config_blob = blob("manifest", digest, manifest.config())?;
        let bytes = document("configuration", &config_blob.digest)?;
        let configuration: ImageConfiguration = parse("configuration", &config_blob.digest, &bytes)?;
        let config = ImageConfig::from_oci(&configuration)
            .map_err(|cause| ImageError::Config { digest: config_blob.digest.clone(), cause })?;
        let layers = pair_layers(digest, &manifest, &config_blob.digest, &configuration)?;
        let architecture = configuration.architecture().to_string();
        Ok(Self { manifest: digest.clone(), architecture, config_blob, config, layers })
    }

    /// All blobs besides the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config_blob).chain(self.layers.iter().map(|layer| &layer.blob))
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    document: &'static str,
    digest: &Digest,
    bytes: &[u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|cause| ImageError::Parse {
        document,
        digest: digest.clone(),
        cause,
    })
}

fn blob(
    document: &'static str,
    digest: &Digest,
    descriptor: &oci_spec::image::Descriptor,
) -> Result<Blob, ImageError> {
    let name = parse_digest(document, digest, descriptor.digest().as_ref())?;
    Ok(Blob { digest: name, size: descriptor.size() })
}

fn parse_digest(document: &'static str, digest: &Digest, text: &str) -> Result<Digest, ImageError> {
    text.parse().map_err(|cause| ImageError::Digest { document, digest: digest.clone(), cause })
}

fn pair_layers(
    digest: &Digest,
    manifest: &ImageManifest,
    config: &Digest,
    configuration: &ImageConfiguration,
) -> Result<Vec<Layer>, ImageError> {
    let diff_ids = configuration.rootfs().diff_ids();
    let layers = manifest.layers();
    if layers.len() != diff_ids.len() {
        let (layers, diff_ids) = (layers.len(), diff_ids.len());
        return Err(ImageError::LayerCount { digest: digest.clone(), layers, diff_ids });
    }
    let pairs = layers.iter().zip(diff_ids);
    pairs
        .map(|(layer, diff_id)| {
            let diff_id = parse_digest("configuration", config, diff_id)?;
            Ok(Layer { blob: blob("manifest", digest, layer)?, diff_id })
        })
        .collect()
}
