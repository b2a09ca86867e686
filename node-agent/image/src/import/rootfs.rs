//! A plain tar of a root file system becomes an image of one layer, with a configuration the caller gives.

use std::io::{self, Read};

use oci_spec::image::{Arch, ImageConfigurationBuilder, Os, RootFsBuilder};

use super::{Candidate, ImportError, Staging, docker};
use crate::compression::Decompressed;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::image::Blob;
use crate::stream::{Hashing, Limited};

/// Stages the layer, a configuration and a manifest.
pub(super) fn build_image(
    reader: impl Read,
    config: &ImageConfig,
    architecture: &str,
    max_layer_bytes: u64,
    staging: &mut Staging<'_>,
) -> Result<Candidate, ImportError> {
    let layer = staging.add(reader).map_err(ImportError::Archive)?;
    let diff_id = uncompressed_digest(&layer, max_layer_bytes, staging).map_err(ImportError::Archive)?;
    let rootfs = RootFsBuilder::default().typ("layers".to_owned()).diff_ids([diff_id.to_string()]).build();
    let configuration = ImageConfigurationBuilder::default()
        .architecture(Arch::from(architecture))
        .os(Os::Linux)
        .config(config.to_oci())
        .rootfs(rootfs.map_err(ImportError::Specification)?)
        .build()
        .map_err(ImportError::Specification)?;
    let digest = super::stage_json("the image's configuration", &configuration, staging)?;
    let found = staging.find(&digest).map_err(ImportError::Begin)?;
    let config = found.ok_or_else(|| ImportError::Missing { path: digest.to_string() })?;
    Ok(Candidate { manifest: docker::write_manifest(&config, &[layer], staging)?, names: Vec::new() })
}

fn uncompressed_digest(layer: &Blob, max_bytes: u64, staging: &Staging<'_>) -> io::Result<Digest> {
    let file = Decompressed::new(staging.open(&layer.digest)?)?;
    let mut hashing = Hashing::new(Limited::new(file, max_bytes));
    io::copy(&mut hashing, &mut io::sink())?;
    Ok(hashing.finish().0)
}
