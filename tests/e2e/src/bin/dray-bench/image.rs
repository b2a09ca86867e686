//! An example image's root file system in a directory, for the peers.

use anyhow::{Context, Result, ensure};
use dray_e2e::cluster::repository;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Unpacks the layers of `target/images/NAME.tar` into a directory.
pub(crate) fn unpack(name: &str, root: &Path) -> Result<()> {
    let archive = repository().join("target/images").join(format!("{name}.tar"));
    let layout = root.with_extension("layout");
    for dir in [root, &layout] {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    tar("-xf", &archive, &layout)?;
    let blob = |digest: &Value| -> Result<std::path::PathBuf> {
        let digest = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        Ok(layout.join("blobs/sha256").join(digest.context("no digest")?))
    };
    let index = read(&layout.join("index.json"))?;
    let manifest = read(&blob(&index["manifests"][0]["digest"])?)?;
    for layer in manifest["layers"].as_array().context("no layers")? {
        tar("-xzf", &blob(&layer["digest"])?, root)?;
    }
    std::fs::remove_dir_all(&layout).with_context(|| layout.display().to_string())
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

fn tar(flags: &str, archive: &Path, into: &Path) -> Result<()> {
    let status = Command::new("tar").arg(flags).arg(archive).arg("-C").arg(into).status().context("tar")?;
    ensure!(status.success(), "tar {flags} {}: {status}", archive.display());
    Ok(())
}
