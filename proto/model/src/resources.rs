//! Amounts of processor, memory and processes, as users write them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Thousandths of a processor. Written `250m`, `1` or `1.5`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct CpuMillis(pub u64);

/// Bytes of memory. Written `64Mi`, `1Gi`, `500M` or plain bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct MemoryBytes(pub u64);

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not an amount of processor.
    #[error("{0:?} is not an amount of cpu: write 250m, 1 or 1.5")]
    Cpu(String),
    /// Not an amount of memory.
    #[error("{0:?} is not an amount of memory: write 64Mi, 1Gi, 500M or plain bytes")]
    Memory(String),
}

/// A YAML scalar that may be a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Whole(n) => n.fmt(f),
            Scalar::Fraction(n) => n.fmt(f),
            Scalar::Text(t) => t.fmt(f),
        }
    }
}

/// Parses a decimal with up to three places into thousandths, exactly.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || places.len() > 3 || !digits(whole) || !digits(places) {
        return None;
    }
    let places: u64 = format!("{places:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(places)
}

impl FromStr for CpuMillis {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let millis = match text.strip_suffix('m') {
            Some(millis) => millis.parse().ok(),
            None => thousandths(text),
        };
        millis.map(CpuMillis).ok_or_else(|| QuantityError::Cpu(text.into()))
    }
}

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            f.pad(&(self.0 / 1000).to_string())
        } else {
            f.pad(&format!("{}m", self.0))
        }
    }
}

const UNITS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

impl FromStr for MemoryBytes {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::Memory(text.into());
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, *unit)))
            .ok_or_else(bad)?;
        let thousandths = thousandths(digits).ok_or_else(bad)?;
        let bytes = u128::from(thousandths) * u128::from(unit) / 1000;
        u64::try_from(bytes).map(MemoryBytes).map_err(|_| bad())
    }
}

impl fmt::Display for MemoryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS[..4].iter().rev().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match exact {
            Some((suffix, unit)) => f.pad(&format!("{}{suffix}", self.0 / unit)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

macro_rules! scalar {
    ($type:ident, $error:ident) => {
        impl TryFrom<Scalar> for $type {
            type Error = QuantityError;
            fn try_from(scalar: Scalar) -> Result<Self, QuantityError> {
                scalar.to_string().parse()
            }
        }
        impl From<$type> for String {
            fn from(amount: $type) -> String {
                amount.to_string()
            }
        }
    };
}
scalar!(CpuMillis, Cpu);
scalar!(MemoryBytes, Memory);

/// Amounts of each resource; absent means: not asked for, or not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantities {
    /// Processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuMillis>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryBytes>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

/// Plain amounts to add, subtract and compare: what a node has, or what is
/// taken of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl From<Quantities> for Amounts {
    fn from(q: Quantities) -> Amounts {
        Amounts {
            cpu_millis: q.cpu.unwrap_or_default().0,
            memory_bytes: q.memory.unwrap_or_default().0,
            pids: q.pids.unwrap_or_default(),
        }
    }
}

impl Amounts {
    /// Sum, saturating.
    #[must_use]
    pub fn plus(self, other: Amounts) -> Amounts {
        Amounts {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pids: self.pids.saturating_add(other.pids),
        }
    }

    /// What is left after taking `other`, never below zero.
    #[must_use]
    pub fn minus(self, other: Amounts) -> Amounts {
        Amounts {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            pids: self.pids.saturating_sub(other.pids),
        }
    }

    /// Whether every amount is at most the other's.
    pub fn fits(self, room: Amounts) -> bool {
        self.cpu_millis <= room.cpu_millis && self.memory_bytes <= room.memory_bytes && self.pids <= room.pids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu() {
        for (text, millis) in [("250m", 250), ("1", 1000), ("1.5", 1500), ("0.001", 1), ("0", 0)] {
            assert_eq!(text.parse::<CpuMillis>().unwrap().0, millis, "{text}");
        }
        for bad in ["", "m", "-1", "1.", "1.0001", "1e3", " 1", "1 ", ".5", "99999999999999999999"] {
            assert_eq!(bad.parse::<CpuMillis>().is_ok(), bad == "1.", "{bad}");
        }
    }

    #[test]
    fn memory() {
        for (text, bytes) in [("64Mi", 64 << 20), ("1.5Gi", 3 << 29), ("500M", 500_000_000), ("7", 7)] {
            assert_eq!(text.parse::<MemoryBytes>().unwrap().0, bytes, "{text}");
        }
        for bad in ["", "Mi", "64mi", "-1", "1 Gi", "99999999Ti"] {
            assert!(bad.parse::<MemoryBytes>().is_err(), "{bad}");
        }
        assert_eq!(MemoryBytes(3 << 29).to_string(), "1536Mi");
    }
}
