//! Label selectors: `key=value`, `key!=value`, `key`, `!key`, joined by commas.

use dray_model::spec::Labels;
use dray_proto::convert::Invalid;

/// Requirements that labels must meet, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Parses a selector; an empty one selects everything.
    ///
    /// # Errors
    /// Names `label_selector` and the part that is wrong.
    pub fn parse(text: &str) -> Result<Selector, Invalid> {
        let parts = text.split(',').map(str::trim);
        let parts = parts.filter(|_| !text.trim().is_empty());
        parts.map(Requirement::parse).collect::<Result<_, _>>().map(Selector)
    }

    /// Whether labels meet every requirement.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.is_met(labels))
    }
}

impl Requirement {
    fn parse(text: &str) -> Result<Requirement, Invalid> {
        let (requirement, key) = if let Some((key, value)) = text.split_once("!=") {
            (Requirement::Differs(key.into(), value.into()), key)
        } else if let Some((key, value)) = text.split_once('=') {
            (Requirement::Equals(key.into(), value.trim_start_matches('=').into()), key)
        } else if let Some(key) = text.strip_prefix('!') {
            (Requirement::Absent(key.into()), key)
        } else {
            (Requirement::Exists(text.into()), text)
        };
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if key.is_empty() || !key.chars().all(fine) {
            let problem = format!("{text:?} is not a requirement: write key=value, key!=value, key or !key");
            return Err(Invalid::field("label_selector", problem));
        }
        Ok(requirement)
    }

    fn is_met(&self, labels: &Labels) -> bool {
        match self {
            Requirement::Equals(key, value) => labels.get(key) == Some(value),
            Requirement::Differs(key, value) => labels.get(key) != Some(value),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select() {
        let labels = Labels::from([("tier".into(), "front".into()), ("zone".into(), "a".into())]);
        for (selector, selected) in [
            ("", true),
            (" ", true),
            ("tier=front", true),
            ("tier==front", true),
            ("tier=front,zone!=b", true),
            ("tier=front, zone=b", false),
            ("tier", true),
            ("!tier", false),
            ("!disk,disk!=ssd", true),
            ("disk", false),
        ] {
            assert_eq!(Selector::parse(selector).unwrap().selects(&labels), selected, "{selector:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [",", "a,,b", "=x", "!=x", "!", "a b", "a in (b)"] {
            assert!(Selector::parse(bad).is_err(), "{bad:?}");
        }
    }
}
