//! How commands, answers and the state become bytes: one version byte, then
//! JSON. The only place that knows.

use crate::command::{Command, Op};
use crate::outcome::Reply;
use crate::refusal::Refusal;
use crate::state::{State, Tables};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the encoding. Grows with every change of the shape of what
/// is encoded.
pub const VERSION: u8 = 1;

/// Bytes that aren't what they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("decode {what}: empty")]
    Empty {
        /// What was expected.
        what: &'static str,
    },
    /// Written by another version of this program.
    #[error("decode {what}: version {version} is not known; this program knows {VERSION}")]
    Version {
        /// What was expected.
        what: &'static str,
        /// The version that was found.
        version: u8,
    },
    /// Not of the right shape.
    #[error("decode {what}")]
    Shape {
        /// What was expected.
        what: &'static str,
        /// Where and why.
        #[source]
        cause: serde_json::Error,
    },
}

/// A value that can't be written. Only a defect in this program causes it.
#[derive(Debug, thiserror::Error)]
#[error("encode {what}")]
pub struct EncodeError {
    what: &'static str,
    #[source]
    cause: serde_json::Error,
}

/// A command as a log entry's bytes.
///
/// # Errors
/// A value has no representation; a defect.
pub fn encode_command(command: &Command) -> Result<Vec<u8>, EncodeError> {
    encode("a command", command)
}

/// A command from a log entry's bytes.
///
/// # Errors
/// The bytes aren't a command of a known version.
pub fn decode_command(bytes: &[u8]) -> Result<Command, DecodeError> {
    decode("a command", bytes)
}

/// An answer for the scheduler that forwarded the command.
///
/// # Errors
/// A value has no representation; a defect.
pub fn encode_result(result: &Result<Reply, Refusal>) -> Result<Vec<u8>, EncodeError> {
    encode("an outcome", result)
}

/// An answer from the leader.
///
/// # Errors
/// The bytes aren't an answer of a known version.
pub fn decode_result(bytes: &[u8]) -> Result<Result<Reply, Refusal>, DecodeError> {
    decode("an outcome", bytes)
}

/// The whole replicated state: a snapshot.
///
/// # Errors
/// A value has no representation; a defect.
pub fn encode_state(state: &State) -> Result<Vec<u8>, EncodeError> {
    encode("the state", state.tables())
}

/// The state from a snapshot.
///
/// # Errors
/// The bytes aren't a state of a known version.
pub fn decode_state(bytes: &[u8]) -> Result<State, DecodeError> {
    decode::<Tables>("the state", bytes).map(State::from_tables)
}

/// A number that is equal for equal bytes (64-bit FNV-1a); finds replicas
/// that differ, doesn't protect against people.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The digest of an operation's encoding: tells two requests apart that came
/// with the same id.
pub(crate) fn digest_of(op: &Op) -> u64 {
    encode("an operation", op).map(|bytes| digest(&bytes)).unwrap_or_default()
}

fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value).map_err(|cause| EncodeError { what, cause })?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty { what }),
        Some((&VERSION, json)) => {
            serde_json::from_slice(json).map_err(|cause| DecodeError::Shape { what, cause })
        }
        Some((&version, _)) => Err(DecodeError::Version { what, version }),
    }
}
