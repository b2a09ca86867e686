//! Reads manifests: YAML or JSON, from files, directories or standard input.
//!
//! All of it is read and checked before anything is said to the cluster, and
//! every problem is reported at once, with file, line, column and field.
//!
//! ```text
//! source (bytes, limits) -> index (where each field is) -> parse (types) -> check (meaning)
//! ```

mod index;
mod parse;
mod problem;
mod source;
mod suggest;

pub(crate) use problem::{Problem, Problems};

use dray_model::Manifest;
use dray_model::spec::API_VERSION;
use dray_model::validate::violations;
use index::Index;
use source::Source;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One checked document, and where its fields are.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// What it says.
    pub(crate) manifest: Manifest,
    source: Arc<Source>,
    index: Index,
}

impl Document {
    /// The problem with a field, at the field's place or its parent's.
    pub(crate) fn problem(&self, field: &str, problem: &str) -> Problem {
        Problem::at(&self.source, self.index.place(field), field, problem)
    }
}

/// Reads everything that `-f` names.
pub(crate) fn load(files: &[String]) -> Result<Vec<Document>, Problems> {
    let (sources, mut problems) = source::read(files);
    let mut documents = Vec::new();
    for source in sources {
        match parse::documents(&Arc::new(source)) {
            Ok(found) => {
                for document in found {
                    match document {
                        Ok(document) => {
                            problems.extend(check(&document));
                            documents.push(document);
                        }
                        Err(problem) => problems.push(problem),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(duplicates(&documents));
    if documents.is_empty() && problems.is_empty() {
        let names: Vec<&str> = files.iter().map(|name| source::shown(name)).collect();
        problems.push(Problem::of(&names.join(", "), "holds no document; nothing to do"));
    }
    if problems.is_empty() { Ok(documents) } else { Err(Problems(problems)) }
}

/// What is wrong with a document's meaning.
fn check(document: &Document) -> Vec<Problem> {
    let manifest = &document.manifest;
    let version = (manifest.api_version != API_VERSION)
        .then(|| document.problem("apiVersion", &format!("{:?}: write {API_VERSION}", manifest.api_version)));
    let found = violations(&manifest.metadata.name, &manifest.metadata.labels, &manifest.spec);
    let found = found.iter().map(|violation| document.problem(&violation.field, &violation.problem));
    version.into_iter().chain(found).collect()
}

/// Documents whose name was used before.
fn duplicates(documents: &[Document]) -> Vec<Problem> {
    let mut seen = BTreeMap::new();
    let mut problems = Vec::new();
    for document in documents {
        let place = document.index.place("metadata.name");
        let at = format!("{}:{}", document.source.name, place.line);
        if let Some(first) = seen.get(&document.manifest.metadata.name) {
            let problem = format!("{:?} was described already at {first}", document.manifest.metadata.name);
            problems.push(document.problem("metadata.name", &problem));
        } else {
            seen.insert(document.manifest.metadata.name.clone(), at);
        }
    }
    problems
}

#[cfg(test)]
mod tests;
