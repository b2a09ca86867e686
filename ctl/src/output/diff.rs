//! What an apply changes, as a unified diff of the manifests.

use super::{Out, Tint, yaml};
use dray_model::WorkloadSpec;
use dray_proto::v1 as wire;
use similar::TextDiff;

/// Lines of a diff between two specs; empty if they are equal.
pub(crate) fn specs(
    name: &str,
    before: Option<wire::WorkloadSpec>,
    after: Option<wire::WorkloadSpec>,
) -> anyhow::Result<String> {
    let (before, after) = (text(before)?, text(after)?);
    let diff = TextDiff::from_lines(&before, &after);
    let (from, to) = (format!("workload/{name} (now)"), format!("workload/{name} (new)"));
    Ok(diff.unified_diff().context_radius(3).header(&from, &to).to_string())
}

fn text(spec: Option<wire::WorkloadSpec>) -> anyhow::Result<String> {
    match spec {
        None => Ok(String::new()),
        Some(spec) => yaml(&WorkloadSpec::try_from(spec)?),
    }
}

/// Prints a diff, coloured on a terminal.
pub(crate) fn print(out: &mut Out, diff: &str) -> std::io::Result<()> {
    for line in diff.lines() {
        let tint = match line.as_bytes().first() {
            _ if line.starts_with("+++") || line.starts_with("---") => Some(Tint::Bold),
            Some(b'+') => Some(Tint::Green),
            Some(b'-') => Some(Tint::Red),
            Some(b'@') => Some(Tint::Cyan),
            Some(_) | None => None,
        };
        let line = tint.map_or_else(|| line.to_owned(), |tint| out.tinted(tint, line));
        out.line(line)?;
    }
    Ok(())
}
