//! Wire to model and back.
//!
//! From the model to the wire nothing can fail: `From`. From the wire every
//! field is checked: `TryFrom`, whose error names the field.

mod agent;
mod resources;
mod spec;

pub use spec::{checked_workload, template_from_wire};

use dray_model::validate::Violation;

/// A message that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Invalid {
    /// Every field that is wrong; never empty.
    pub violations: Vec<Violation>,
}

impl Invalid {
    /// One wrong field.
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
        Invalid { violations: vec![Violation { field: field.into(), problem: problem.into() }] }
    }
}

/// A field that has to be there.
fn required<T>(value: Option<T>, field: &str) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::field(field, "is missing"))
}

/// A field that is written as text.
fn parsed<T>(text: &str, field: &str) -> Result<T, Invalid>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| Invalid::field(field, format!("{text:?}: {e}")))
}

/// Each message of a list.
fn each<W, M: TryFrom<W, Error = Invalid>>(list: Vec<W>) -> Result<Vec<M>, Invalid> {
    list.into_iter().map(M::try_from).collect()
}

/// A known value of an enumeration other than `UNSPECIFIED`.
fn known<E: TryFrom<i32>>(number: i32, field: &str) -> Result<E, Invalid> {
    let unknown = || Invalid::field(field, format!("{number} is not a known value"));
    if number == 0 {
        return Err(unknown());
    }
    E::try_from(number).map_err(|_| unknown())
}
