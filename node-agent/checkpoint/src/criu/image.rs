//! The one change made to CRIU's images: "the network namespace is CRIU's own" becomes "is the container's own".
//!
//! A dump is taken by a CRIU that runs *inside* the container's network namespace. Told to save that namespace empty
//! instead, CRIU walks the machine's whole connection tracking table twice (12 ms each with the usual 262144 buckets),
//! while the container is frozen and for nothing. Inside, CRIU takes the namespace for its own and leaves it alone. For
//! the restore to make a new one, the inventory must say that CRIU's namespace was another: one number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::encoding::{WireType, decode_key, decode_varint};
use thiserror::Error;

/// The image starts with its magic and the length of the entry.
const HEADER_BYTES: usize = 8;

/// `inventory_entry.root_ids`: the ids of CRIU's own resources.
const ROOT_IDS: u32 = 3;

/// `task_kobj_ids_entry.net_ns_id`.
const NETWORK: u32 = 6;

/// Flipped in the id: a bit that leaves the length of the number as it is. Ids are counted from 1 in each dump, and are
/// compared only with those of other network namespaces, of which there is one.
const ANOTHER: u8 = 0x40;

/// The inventory could not be changed.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// The file.
    #[error("change {path}")]
    Io {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Its content.
    #[error("{path} is not an inventory as CRIU 4 writes it: {reason}")]
    Strange {
        /// The image.
        path: PathBuf,
        /// In which way.
        reason: &'static str,
    },
}

/// Makes the inventory in `images` say that the container had a network namespace of its own.
///
/// # Errors
/// When the file isn't there, or isn't an inventory that names CRIU's network namespace.
pub(crate) fn give_own_network(images: &Path) -> Result<(), InventoryError> {
    let path = images.join("inventory.img");
    let io = |cause: io::Error| InventoryError::Io { path: path.clone(), cause };
    let mut image = fs::read(&path).map_err(io)?;
    let at = network_id(&image).map_err(|reason| InventoryError::Strange { path: path.clone(), reason })?;
    image[at] ^= ANOTHER;
    fs::write(&path, image).map_err(io)
}

/// Where in the image the first byte of the id is.
fn network_id(image: &[u8]) -> Result<usize, &'static str> {
    let entry = image.get(HEADER_BYTES..).ok_or("it is too short")?;
    let stated: [u8; 4] = image[4..HEADER_BYTES].try_into().map_err(|_| "it is too short")?;
    if u32::try_from(entry.len()) != Ok(u32::from_le_bytes(stated)) {
        return Err("its length doesn't match");
    }
    let (ids, length) = field(entry, ROOT_IDS, WireType::LengthDelimited).ok_or("it names no resources")?;
    let ids_at = HEADER_BYTES + ids;
    let (network, _) =
        field(&image[ids_at..ids_at + length], NETWORK, WireType::Varint).ok_or("it names no network")?;
    Ok(ids_at + network)
}

/// Finds a field of a message: where its value starts and how many bytes it has.
fn field(message: &[u8], wanted: u32, wanted_wire: WireType) -> Option<(usize, usize)> {
    let mut rest = message;
    while !rest.is_empty() {
        let (tag, wire) = decode_key(&mut rest).ok()?;
        let length = match wire {
            WireType::Varint => rest.iter().position(|byte| byte & 0x80 == 0)? + 1,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let start = message.len() - rest.len();
        rest = rest.get(length..)?;
        if tag == wanted && wire == wanted_wire {
            return Some((start, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CRIU 4.2.1 wrote it: version, flags, ids of the root (network: 2), and more.
    const IDS: &[u8] = b"\x08\x01\x10\x01\x18\x01 \x01(\x010\x028\x03@\x04H\x06";

    fn image(ids: &[u8]) -> Vec<u8> {
        let mut entry = b"\x08\x02\x10\x01\x1a".to_vec();
        entry.push(u8::try_from(ids.len()).unwrap());
        entry.extend(ids);
        entry.extend(b" \x01(\x010\x00X\x02b\x00");
        let length = u32::try_from(entry.len()).unwrap().to_le_bytes();
        [b"MAGI".as_slice(), &length, &entry].concat()
    }

    #[test]
    fn finds_the_one_byte() {
        let image = image(IDS);
        let at = network_id(&image).unwrap();
        assert_eq!((image[at - 1], image[at]), (b'0', 2));
    }

    #[test]
    fn refuses_what_is_no_inventory() {
        let good = image(IDS);
        assert_eq!(network_id(&good[..5]), Err("it is too short"));
        assert_eq!(network_id(&good[..good.len() - 1]), Err("its length doesn't match"));
        assert_eq!(network_id(&image(&IDS[..10])), Err("it names no network"));
        assert_eq!(network_id(b"MAGI\x02\0\0\0\x08\x02"), Err("it names no resources"));
    }
}
