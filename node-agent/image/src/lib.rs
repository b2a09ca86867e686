//! The images of a node: a store in a directory, filled from archives, unpacked into overlay layers.
//!
//! Owns: verifying, storing and unpacking images, and sending them to another node. Must never: run anything, mount
//! anything, or trust what an archive says about itself. Everything blocks; readers and writers are `std::io`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use container_image::{ImageStore, ImportOptions, UnpackLimits};
//!
//! let store = ImageStore::open("/var/lib/dray/images")?;
//! store.import(std::fs::File::open("redis.tar")?, &ImportOptions::default())?;
//! let manifest = store.resolve(&"redis".parse()?)?.ok_or("no such image")?;
//! let image = store.image(&manifest)?;
//! let lower_directories = store.unpack(&image, &UnpackLimits::default())?;
//! # Ok(())
//! # }
//! ```

mod compression;
mod config;
mod digest;
mod durable;
mod export;
mod gc;
mod image;
mod import;
mod reference;
mod store;
mod stream;
mod unpack;

pub use compression::Compression;
pub use config::{ConfigError, ExposedPort, ImageConfig, PortProtocol};
pub use digest::{Digest, DigestError};
pub use export::ExportError;
pub use gc::{Collected, GarbageError, InUse};
pub use image::{Blob, Image, ImageError, Layer};
pub use import::{ImportError, ImportOptions, Imported};
pub use reference::{Reference, ReferenceError};
pub use store::{ImageStore, StoreError};
pub use unpack::{EntryError, LayerError, UnpackError, UnpackLimits};
