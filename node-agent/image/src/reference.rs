//! What a user calls an image: `[host[:port]/]name[:tag][@digest]`.
//!
//! Strict: a text either follows the grammar of the OCI distribution specification or is refused with the part that
//! is wrong. Normalised: without a tag and a digest, the tag is `latest`. No registry is implied; the store is local.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

const DEFAULT_TAG: &str = "latest";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A parsed, normalised image reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Name, tag or digest is empty although its separator is there.
    #[error("image reference `{text}`: the {part} is empty")]
    Empty {
        /// The whole reference.
        text: String,
        /// Which part.
        part: &'static str,
    },
    /// The name breaks the grammar.
    #[error(
        "image reference `{text}`: bad name part `{part}`: lowercase letters and digits, separated by \
         `.`, `_`, `__` or dashes"
    )]
    Name {
        /// The whole reference.
        text: String,
        /// The offending path component.
        part: String,
    },
    /// The name is too long.
    #[error("image reference `{text}`: the name is longer than {MAX_NAME} bytes")]
    Long {
        /// The whole reference.
        text: String,
    },
    /// The tag breaks the grammar.
    #[error(
        "image reference `{text}`: bad tag `{tag}`: at most {MAX_TAG} letters, digits, `_`, `.` and `-`, not \
         starting with `.` or `-`"
    )]
    Tag {
        /// The whole reference.
        text: String,
        /// The offending tag.
        tag: String,
    },
    /// The digest is not a SHA-256 one.
    #[error("image reference `{text}`")]
    Digest {
        /// The whole reference.
        text: String,
        /// What is wrong with the digest.
        #[source]
        cause: DigestError,
    },
}

impl Reference {
    /// Host and path, without tag and digest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag; `None` only where a digest is given instead.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest, if the reference pins one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same reference as it is filed in the store: by tag where it has one, else by digest.
    pub(crate) fn filed(&self) -> Self {
        let digest = if self.tag.is_some() { None } else { self.digest.clone() };
        Self { name: self.name.clone(), tag: self.tag.clone(), digest }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(text, digest)?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        check_name(text, name)?;
        if let Some(tag) = tag {
            check_tag(text, tag)?;
        }
        let implied = if digest.is_none() { Some(DEFAULT_TAG) } else { None };
        let tag = tag.or(implied).map(str::to_owned);
        Ok(Self { name: name.to_owned(), tag, digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A colon before the last slash belongs to a host's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        Some(_) | None => (text, None),
    }
}

fn parse_digest(text: &str, digest: &str) -> Result<Digest, ReferenceError> {
    if digest.is_empty() {
        return Err(ReferenceError::Empty { text: text.to_owned(), part: "digest" });
    }
    digest.parse().map_err(|cause| ReferenceError::Digest { text: text.to_owned(), cause })
}

fn check_name(text: &str, name: &str) -> Result<(), ReferenceError> {
    if name.is_empty() {
        return Err(ReferenceError::Empty { text: text.to_owned(), part: "name" });
    }
    if name.len() > MAX_NAME {
        return Err(ReferenceError::Long { text: text.to_owned() });
    }
    let path = match name.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        Some(_) | None => name,
    };
    match path.split('/').find(|part| !is_component(part)) {
        Some(part) => Err(ReferenceError::Name { text: text.to_owned(), part: part.to_owned() }),
        None => Ok(()),
    }
}

/// The first component is a host where it could not be anything else: with a dot or a port, or `localhost`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let distinct = host == "localhost" || host.contains('.') || port.is_some();
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    distinct && host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|b| word(*b));
    let bytes = text.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .split(|b| word(*b))
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

fn check_tag(text: &str, tag: &str) -> Result<(), ReferenceError> {
    if tag.is_empty() {
        return Err(ReferenceError::Empty { text: text.to_owned(), part: "tag" });
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if valid { Ok(()) } else { Err(ReferenceError::Tag { text: text.to_owned(), tag: tag.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_normalises() {
        let pinned = format!("redis@{DIGEST}");
        let both = format!("a/b:1@{DIGEST}");
        let table = [
            ("redis", "redis:latest", "redis", Some("latest")),
            ("redis:7.0", "redis:7.0", "redis", Some("7.0")),
            ("localhost/redis", "localhost/redis:latest", "localhost/redis", Some("latest")),
            ("host:5000/a/b", "host:5000/a/b:latest", "host:5000/a/b", Some("latest")),
            (
                "Host.Example:5000/a-b__c:v1",
                "Host.Example:5000/a-b__c:v1",
                "Host.Example:5000/a-b__c",
                Some("v1"),
            ),
            ("a--b.c_d:_x", "a--b.c_d:_x", "a--b.c_d", Some("_x")),
            (&pinned, &pinned, "redis", None),
            (&both, &both, "a/b", Some("1")),
        ];
        for (text, display, name, tag) in table {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.to_string(), display);
            assert_eq!((reference.name(), reference.tag()), (name, tag), "{text}");
            assert_eq!(reference.to_string().parse(), Ok(reference), "{text} survives a round trip");
        }
    }

    #[test]
    fn refuses_what_breaks_the_grammar() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        let refused = [
            "",
            ":1",
            "@",
            "a@",
            "a:",
            "A",
            "a/",
            "/a",
            "a//b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "a:b:c",
            "a:-x",
            "a:.x",
            "a:x/y:",
            "a@sha256:12",
            "a/../b",
            "Ho_st.x/a",
            "h:99999/a",
            "a:ä",
            &long,
            &long_tag,
        ];
        for text in refused {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
