//! Compiles `dray/v1/*.proto` without protoc.

use prost::Message;
use std::path::PathBuf;

const FILES: [&str; 7] = [
    "dray/v1/spec.proto",
    "dray/v1/resources.proto",
    "dray/v1/api.proto",
    "dray/v1/agent.proto",
    "dray/v1/peer.proto",
    "dray/v1/raft.proto",
    "dray/v1/errors.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=dray");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["."])?;
    std::fs::write(out.join("dray.v1.descriptors"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".dray.v1").btree_map(".dray.v1").compile_fds(descriptors)?;
    Ok(())
}
