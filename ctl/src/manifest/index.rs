//! Where each field of a document is, from YAML's own events.
//!
//! Aliases are kept as aliases here, so that nothing can blow up. A field that
//! has no place of its own has its parent's.

use super::problem::{Place, Problem};
use super::source::Source;
use serde_saphyr::granit_parser::{Event, Marker, Parser, Span};
use std::ops::Range;

/// The most values one file may hold.
const NODES_MAX: usize = 100_000;

/// One document of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// The bytes of the file that it takes.
    pub(super) bytes: Range<usize>,
    /// The line that it begins in, counted from one.
    pub(super) line: usize,
    /// The root first, and every parent before its children.
    nodes: Vec<Node>,
}

/// A value and where it is.
#[derive(Debug, Clone)]
struct Node {
    parent: usize,
    step: Step,
    key: Option<Place>,
    value: Place,
    null: bool,
}

/// How a value is reached from its parent.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Root,
    Key(String),
    Item(usize),
}

impl Index {
    /// Whether the document says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.iter().all(|node| node.step == Step::Root && node.null)
    }

    /// Where a field is: its key, or its value if it has none; else its
    /// nearest parent.
    pub(super) fn place(&self, field: &str) -> Place {
        let (mut at, mut rest) = (0, field);
        while let Some((child, left)) = self.descend(at, rest) {
            (at, rest) = (child, left);
        }
        self.nodes.get(at).map_or(Place { line: self.line, column: 1 }, |node| node.key.unwrap_or(node.value))
    }

    /// The child that a path goes through next, and the path from there.
    fn descend<'p>(&self, at: usize, path: &'p str) -> Option<(usize, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        let children = self.nodes.iter().enumerate().filter(|(i, node)| node.parent == at && *i != at);
        let matching = children.filter_map(|(i, node)| {
            let rest = match &node.step {
                Step::Root => None,
                Step::Key(key) => path.strip_prefix(key.as_str()),
                Step::Item(n) => path.strip_prefix(&format!("[{n}]")),
            };
            rest.filter(|rest| rest.is_empty() || rest.starts_with(['.', '['])).map(|rest| (i, rest))
        });
        // A label's name may hold dots: the longest key that fits is meant.
        matching.min_by_key(|(_, rest)| rest.len())
    }

    /// The field whose value is at a place; else the one whose key is there.
    pub(super) fn field_of_value(&self, place: Place) -> Option<String> {
        let value = self.nodes.iter().position(|node| node.value == place);
        value.map(|i| self.path(i)).or_else(|| self.field_of_key(place))
    }

    /// The field whose key is at a place.
    pub(super) fn field_of_key(&self, place: Place) -> Option<String> {
        // The later of two equal keys is the wrong one.
        self.nodes.iter().rposition(|node| node.key == Some(place)).map(|i| self.path(i))
    }

    fn path(&self, mut at: usize) -> String {
        let mut path = String::new();
        while self.nodes[at].step != Step::Root {
            let step = match &self.nodes[at].step {
                Step::Root => String::new(),
                Step::Key(key) => format!(".{key}"),
                Step::Item(n) => format!("[{n}]"),
            };
            path.insert_str(0, &step);
            at = self.nodes[at].parent;
        }
        path.strip_prefix('.').unwrap_or(&path).to_owned()
    }
}

/// The field that holds a field. Names of labels, which may hold dots, have
/// nothing inside, so that the last step is never one of them.
pub(super) fn parent(path: &str) -> &str {
    path.rfind(['.', '[']).map_or("", |end| &path[..end])
}

/// The documents of a file.
pub(super) fn documents(source: &Source) -> Result<Vec<Index>, Problem> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(&source.text) {
        let (event, span) = event.map_err(|error| {
            Problem::at(source, place(error.marker()), "", &format!("this is not YAML: {}", error.info()))
        })?;
        builder.event(&event, &span);
        if builder.count > NODES_MAX {
            let problem = format!("holds more than {NODES_MAX} values, too many for a manifest");
            return Err(Problem::at(source, place(&span.start), "", &problem));
        }
    }
    Ok(builder.finish(source.text.len()))
}

/// Counted from one, as editors do.
fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

/// Collects documents from events.
#[derive(Default)]
struct Builder {
    documents: Vec<Index>,
    /// Containers that are open.
    open: Vec<Open>,
    count: usize,
}

/// A container that is being filled.
enum Open {
    /// A sequence: its node and the next item's number.
    Items(usize, usize),
    /// A mapping: its node, and the key whose value comes next.
    Fields(usize, Option<(String, Place)>),
    /// Something used as a key; what is in it has no path.
    Key,
}

impl Builder {
    fn event(&mut self, event: &Event<'_>, span: &Span) {
        match event {
            Event::DocumentStart(..) => self.document(span),
            Event::Scalar(text, _, _, _) => self.scalar(text, span),
            Event::Alias(_) => self.scalar("*", span),
            Event::SequenceStart(..) => {
                let open = self.node(span, false).map_or(Open::Key, |node| Open::Items(node, 0));
                self.open.push(open);
            }
            Event::MappingStart(..) => {
                let open = self.node(span, false).map_or(Open::Key, |node| Open::Fields(node, None));
                self.open.push(open);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            _ => {}
        }
    }

    fn document(&mut self, span: &Span) {
        let first = self.documents.is_empty();
        let start = if first { 0 } else { span.start.byte_offset().unwrap_or_default() };
        if let Some(previous) = self.documents.last_mut() {
            previous.bytes.end = start;
        }
        let line = if first { 1 } else { span.start.line() };
        self.documents.push(Index { bytes: start..start, line, nodes: Vec::new() });
    }

    fn scalar(&mut self, text: &str, span: &Span) {
        if let Some(Open::Fields(_, key @ None)) = self.open.last_mut() {
            *key = Some((text.to_owned(), place(&span.start)));
            return;
        }
        self.node(span, text.is_empty() || matches!(text, "~" | "null"));
    }

    /// Adds a value; `None` if it is (part of) a key.
    fn node(&mut self, span: &Span, null: bool) -> Option<usize> {
        self.count += 1;
        let (parent, step, key) = match self.open.last_mut() {
            None => (0, Step::Root, None),
            Some(Open::Items(parent, next)) => {
                *next += 1;
                (*parent, Step::Item(*next - 1), None)
            }
            Some(Open::Fields(parent, key @ Some(_))) => {
                let (name, place) = key.take()?;
                (*parent, Step::Key(name), Some(place))
            }
            Some(Open::Fields(_, key @ None)) => {
                // A sequence or mapping as a key: its value follows.
                *key = Some(("?".into(), place(&span.start)));
                return None;
            }
            Some(Open::Key) => return None,
        };
        let nodes = &mut self.documents.last_mut()?.nodes;
        nodes.push(Node { parent, step, key, value: place(&span.start), null });
        Some(nodes.len() - 1)
    }

    fn finish(mut self, end: usize) -> Vec<Index> {
        if let Some(last) = self.documents.last_mut() {
            last.bytes.end = end;
        }
        self.documents
    }
}
