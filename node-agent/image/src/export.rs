//! Sends an image to another node: an OCI layout tar of one image, its documents first.

use std::fs::File;
use std::io::{self, Read, Write};

use serde_json::json;

use crate::digest::Digest;
use crate::image::{Blob, Image};
use crate::import::REF_NAME;
use crate::reference::Reference;
use crate::store::ImageStore;

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why an image could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store could not be locked.
    #[error("export image {image}")]
    Lock {
        /// The image's manifest.
        image: Digest,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// A blob could not be read from the store, or not be written to the receiver.
    #[error("export {entry} of image {image}")]
    Entry {
        /// The image's manifest.
        image: Digest,
        /// The path within the layout.
        entry: String,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
}

impl ImageStore {
    /// Writes the image as an OCI layout tar that calls it `reference`. Equal images give equal bytes.
    pub fn export(
        &self,
        image: &Image,
        reference: &Reference,
        writer: impl Write,
    ) -> Result<(), ExportError> {
        let _shared =
            self.share().map_err(|cause| ExportError::Lock { image: image.manifest.clone(), cause })?;
        let mut archive = tar::Builder::new(writer);
        let failed = |entry: &str, cause| ExportError::Entry {
            image: image.manifest.clone(),
            entry: entry.to_owned(),
            cause,
        };
        let manifest = self.manifest_blob(image).map_err(|cause| failed("the manifest", cause))?;
        for (name, text) in [("oci-layout", LAYOUT.to_owned()), ("index.json", index(&manifest, reference))] {
            append(&mut archive, name, text.len() as u64, text.as_bytes())
                .map_err(|cause| failed(name, cause))?;
        }
        for blob in std::iter::once(&manifest).chain(image.blobs()) {
            let name = format!("blobs/sha256/{}", blob.digest.hex());
            self.append_blob(&mut archive, &name, blob).map_err(|cause| failed(&name, cause))?;
        }
        archive.into_inner().and_then(|mut writer| writer.flush()).map_err(|cause| failed("the end", cause))
    }

    fn manifest_blob(&self, image: &Image) -> io::Result<Blob> {
        let size = std::fs::metadata(self.blob_path(&image.manifest))?.len();
        Ok(Blob { digest: image.manifest.clone(), size })
    }

    fn append_blob(&self, archive: &mut tar::Builder<impl Write>, name: &str, blob: &Blob) -> io::Result<()> {
        let file = File::open(self.blob_path(&blob.digest))?;
        append(archive, name, blob.size, file)
    }
}

fn index(manifest: &Blob, reference: &Reference) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.digest,
            "size": manifest.size,
            "annotations": { REF_NAME: reference.filed().to_string() },
        }],
    })
    .to_string()
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    archive.append_data(&mut header, name, content.take(size))
}
