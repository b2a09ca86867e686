//! From text to [`Manifest`]: shape and types. Every error is given the field
//! it is about, found by its place.

use super::index::{self, Index};
use super::problem::{Place, Problem};
use super::source::Source;
use super::{Document, suggest};
use dray_model::Manifest;
use dray_model::spec::{ManifestKind, Metadata, WorkloadSpec};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};
use std::sync::Arc;

/// The documents of a file, in order, without empty ones. An error if it isn't
/// YAML at all.
pub(super) fn documents(source: &Arc<Source>) -> Result<Vec<Result<Document, Problem>>, Problem> {
    let indices = index::documents(source)?;
    Ok(indices.into_iter().filter(|index| !index.is_empty()).map(|index| document(source, index)).collect())
}

fn document(source: &Arc<Source>, index: Index) -> Result<Document, Problem> {
    // Blank lines in place of what precedes keep the line numbers right.
    let text = "\n".repeat(index.line - 1) + &source.text[index.bytes.clone()];
    let written: Written = serde_saphyr::from_str_with_options(&text, options())
        .map_err(|error| explain(source, &index, &error))?;
    Ok(Document { manifest: written.into(), source: Arc::clone(source), index })
}

/// A manifest, as written by a person or by `get -o yaml`, which adds a
/// status. That says how things were; it asks for nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    api_version: String,
    kind: ManifestKind,
    metadata: Metadata,
    spec: WorkloadSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

impl From<Written> for Manifest {
    fn from(written: Written) -> Manifest {
        let Written { api_version, kind, metadata, spec, _status } = written;
        Manifest { api_version, kind, metadata, spec }
    }
}

/// Small budgets: a manifest is small, and what an alias repeats counts.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_nodes: 100_000,
            max_depth: 32,
            max_documents: 1,
            max_merge_keys: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        with_snippet: false,
    }
}

/// Names the field and says what is wrong in words for people.
fn explain(source: &Source, index: &Index, error: &Error) -> Problem {
    let error = innermost(error);
    let place = error.location().map_or(Place { line: index.line, column: 1 }, |location| Place {
        line: usize::try_from(location.line()).unwrap_or(1).max(1),
        column: usize::try_from(location.column()).unwrap_or(1).max(1),
    });
    let value = || index.field_of_value(place).unwrap_or_default();
    let (field, problem) = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let path = index.field_of_key(place).unwrap_or_else(|| field.clone());
            (path, format!("unknown field; {}", meant(field, expected)))
        }
        Error::SerdeMissingField { field, .. } => return missing(source, index, place, field),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.clone().unwrap_or_default();
            (index.field_of_key(place).unwrap_or(key), "is given twice".into())
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (value(), format!("{variant:?} is not known; {}", meant(variant, expected)))
        }
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            (value(), format!("expected {expected}, but this is {unexpected}"))
        }
        Error::InvalidScalar { .. } if source.ends_at(place) => (value(), "has no value".into()),
        Error::InvalidScalar { ty, .. } => (value(), format!("expected {}", scalar(ty))),
        Error::Unexpected { expected, .. } => (value(), format!("expected {}", shape(expected))),
        Error::NullIntoString { .. } => (value(), "has no value; write \"\" for an empty text".into()),
        Error::Message { msg, .. } => (value(), msg.clone()),
        other => (value(), UserMessageFormatter.format_message(other).into_owned()),
    };
    Problem::at(source, place, &field, &problem)
}

/// A field that isn't there. Reported at the mapping's last key, or at the
/// mapping if it is empty.
fn missing(source: &Source, index: &Index, place: Place, field: &str) -> Problem {
    let parent = match index.field_of_key(place) {
        Some(key) => index::parent(&key).to_owned(),
        None => index.field_of_value(place).unwrap_or_default(),
    };
    let path = if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") };
    Problem::at(source, index.place(&parent), &path, "is missing")
}

/// A scalar type of Rust's in words.
fn scalar(ty: &str) -> &str {
    match ty {
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" => "a whole number, zero or more",
        "bool" => "true or false",
        other => other,
    }
}

/// A YAML shape in words.
fn shape(expected: &str) -> &str {
    match expected {
        "string scalar" => "a single value",
        "sequence start" => "a list: one `- item` per line, or [item, item]",
        "mapping start" => "fields: one `name: value` per line",
        other => other,
    }
}

/// The error itself, without what wraps it.
fn innermost(error: &Error) -> &Error {
    match error.without_snippet() {
        Error::AliasError { error, .. } => innermost(error),
        plain => plain,
    }
}

/// The name that was meant, or all there are.
fn meant(written: &str, known: &[&str]) -> String {
    match suggest::nearest(written, known) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("known here: {}", known.join(", ")),
    }
}
