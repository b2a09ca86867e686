//! What can go wrong in an import.

use std::io;

use oci_spec::OciSpecError;

use crate::digest::Digest;
use crate::image::ImageError;
use crate::reference::{Reference, ReferenceError};
use crate::store::StoreError;

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
