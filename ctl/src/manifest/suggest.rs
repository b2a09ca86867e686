//! The name that was probably meant.

/// The known name nearest to what was written, if it is near.
pub(super) fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let limit = 1 + written.chars().count() / 4;
    let distance = |name: &str| distance(&written.to_lowercase(), &name.to_lowercase());
    let best = known.iter().copied().min_by_key(|name| distance(name))?;
    let prefix = written.len() > 2 && (best.starts_with(written) || written.starts_with(best));
    (distance(best) <= limit || prefix).then_some(best)
}

/// How many letters to insert, remove, replace or swap (Damerau-Levenshtein,
/// restricted to neighbours).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names() {
        let known = ["replicas", "template", "kind", "migration", "onNodeLoss"];
        for (written, meant) in [
            ("replcas", Some("replicas")),
            ("replica", Some("replicas")),
            ("Kind", Some("kind")),
            ("knid", Some("kind")),
            ("onnodeloss", Some("onNodeLoss")),
            ("temp", Some("template")),
            ("volumes", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
    }
}
