//! The figures, as a table and as a file.

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use dray_e2e::cluster::repository;
use serde::Serialize;

/// Everything measured, in order.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Figure>);

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    /// `migrate.stall.p50`.
    name: String,
    value: f64,
    unit: &'static str,
    /// The peer's value in the same run.
    baseline: Option<f64>,
    /// Value by baseline.
    ratio: Option<f64>,
}

impl Report {
    /// Adds a figure.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, value: f64, baseline: Option<f64>) {
        let ratio = baseline.filter(|baseline| *baseline > 0.0).map(|baseline| value / baseline);
        println!("{name}: {value:.2} {unit}");
        self.0.push(Figure { name: name.to_owned(), value, unit, baseline, ratio });
    }

    /// Adds the median and the 99th percentile of milliseconds.
    pub(crate) fn add_spread(&mut self, name: &str, values: &[f64], baseline: &[f64]) {
        for (suffix, share) in [("p50", 0.5), ("p99", 0.99)] {
            let peer = (!baseline.is_empty()).then(|| percentile(baseline, share));
            self.add(&format!("{name}.{suffix}"), "ms", percentile(values, share), peer);
        }
    }

    /// Prints the table and writes the file.
    pub(crate) fn write(&self) -> Result<()> {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_header(["figure", "value", "unit", "baseline", "ratio"]);
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        for Figure { name, value, unit, baseline, ratio } in &self.0 {
            table.add_row([name, &cell(Some(*value)), *unit, &cell(*baseline), &cell(*ratio)]);
        }
        println!("\n{table}");
        let dir = repository().join("target/bench");
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let path = dir.join("report.json");
        let text = serde_json::to_string_pretty(&self.0)?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }
}

/// The smallest value that at least this share of all values doesn't exceed.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (1..=sorted.len()).find(|rank| to_f64(*rank) >= share * to_f64(sorted.len()));
    rank.and_then(|rank| sorted.get(rank - 1)).copied().unwrap_or(f64::NAN)
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// Microseconds as milliseconds.
pub(crate) fn millis(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        for (share, value) in [(0.5, 100.0), (0.99, 198.0), (1.0, 200.0)] {
            assert!((percentile(&values, share) - value).abs() < f64::EPSILON);
        }
        assert!((percentile(&[7.0], 0.99) - 7.0).abs() < f64::EPSILON);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
