//! Names and numbers that identify things, valid by construction.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of a workload or node, in bytes (RFC 1123 label).
pub const NAME_MAX: usize = 63;

/// Why a text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not an RFC 1123 label.
    #[error(
        "{text:?} is not a valid name: use 1 to {NAME_MAX} of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    Name {
        /// What was given.
        text: String,
    },
    /// Not `<workload>-<slot>`.
    #[error("{text:?} is not a task id: expected <workload>-<slot>, for instance redis-0")]
    Task {
        /// What was given.
        text: String,
    },
    /// Not `m-<number>`.
    #[error("{text:?} is not a migration: expected m-<number>, for instance m-3")]
    Migration {
        /// What was given.
        text: String,
    },
    /// Not `<task>@<epoch>`.
    #[error("{text:?} is not an instance: expected <task>@<epoch>")]
    Instance {
        /// What was given.
        text: String,
    },
}

/// Whether `text` is an RFC 1123 label of at most [`NAME_MAX`] bytes.
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bytes = text.as_bytes();
    (1..=NAME_MAX).contains(&bytes.len())
        && bytes.iter().copied().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_label(text) { Ok(Self(text.into())) } else { Err(IdError::Name { text: text.into() }) }
            }
        }

        text_id!($type);
    };
}

macro_rules! text_id {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.to_string()
            }
        }
    };
}

name! {
    /// A workload's name; unique in the cluster.
    WorkloadName
}
name! {
    /// A node's name; unique in the cluster.
    NodeName
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A task's fencing number. It grows by one whenever the right to run the
/// task changes hands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `<workload>-<slot>`: one place of a workload. It outlives moves, restarts
/// and new revisions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId {
    /// The workload it belongs to.
    pub workload: WorkloadName,
    /// Counts from zero.
    pub slot: u32,
}

impl FromStr for TaskId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Task { text: text.into() };
        let (workload, digits) = text.rsplit_once('-').ok_or_else(bad)?;
        let slot = digits.parse::<u32>().map_err(|_| bad())?;
        if slot.to_string() != digits {
            return Err(bad());
        }
        Ok(TaskId { workload: workload.parse().map_err(|_| bad())?, slot })
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.workload, self.slot))
    }
}

text_id!(TaskId);

/// `m-<number>`: one migration, numbered by the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MigrationId(pub u64);

impl FromStr for MigrationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = text.strip_prefix("m-").and_then(|digits| digits.parse().ok());
        number.map(MigrationId).ok_or_else(|| IdError::Migration { text: text.into() })
    }
}

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("m-{}", self.0))
    }
}

text_id!(MigrationId);

/// `<task>@<epoch>`: what one node runs of a task. Names directories.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// The task.
    pub task: TaskId,
    /// The epoch at which it may run.
    pub epoch: Epoch,
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Instance { text: text.into() };
        let (task, epoch) = text.split_once('@').ok_or_else(bad)?;
        Ok(InstanceId {
            task: task.parse().map_err(|_| bad())?,
            epoch: Epoch(epoch.parse().map_err(|_| bad())?),
        })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.task, self.epoch)
    }
}

text_id!(InstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_or_are_refused() {
        for text in ["redis-0", "a-1-22", "x-4294967295"] {
            assert_eq!(text.parse::<TaskId>().unwrap().to_string(), text);
        }
        for text in ["redis", "redis-", "-0", "redis-01", "Redis-0", "redis-4294967296", "redis-+1"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
        assert_eq!("redis-0@7".parse::<InstanceId>().unwrap().to_string(), "redis-0@7");
        assert!("m-x".parse::<MigrationId>().is_err());
    }

    #[test]
    fn labels() {
        let longest = "a".repeat(NAME_MAX);
        for good in ["a", "a-b", "0", longest.as_str()] {
            assert!(is_label(good), "{good}");
        }
        let too_long = "a".repeat(NAME_MAX + 1);
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "ä", too_long.as_str()] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
