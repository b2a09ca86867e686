//! Images the cluster knows of.

use crate::ids::NodeName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// An image and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The name that manifests use, with its tag.
    pub reference: String,
    /// `sha256:<hex>` of its manifest.
    pub digest: String,
    /// Bytes of all its blobs.
    pub size_bytes: u64,
    /// The nodes that have it.
    pub holders: BTreeSet<NodeName>,
    /// When the cluster first saw it, in Unix milliseconds.
    pub imported_ms: u64,
}
