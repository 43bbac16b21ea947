//! From single measurements to ratios, and from ratios to a table.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::figures::{mean, ratio, short, spread};
use crate::load::pingpong::Placement;
use crate::scene::Between;

/// A line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    Bulk {
        streams: u8,
    },
    BulkCpu {
        streams: u8,
    },
    BulkRetransmits {
        streams: u8,
    },
    PingPong50 {
        placement: Placement,
    },
    PingPong99 {
        placement: Placement,
    },
    Kept,
    Kept99,
    OneEach,
    OneEach99,
    /// Per second; none: as many as can be sent.
    Delivered {
        rate: Rate,
    },
    Loss {
        rate: Rate,
    },
}

/// Datagrams per second that are sent. The unbounded rate comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rate {
    PerSecond(u32),
    Most,
}

impl Metric {
    pub fn name(self) -> String {
        let at = |rate| match rate {
            Rate::PerSecond(rate) => format!("at {rate}/s"),
            Rate::Most => "as fast as can be".to_owned(),
        };
        let plural = |streams| if streams == 1 { "1 stream".to_owned() } else { format!("{streams} streams") };
        let placed = |placement| match placement {
            Placement::Free => "ends placed freely",
            Placement::One => "ends on one processor",
            Placement::Two => "ends on two processors",
        };
        match self {
            Self::Bulk { streams } => format!("TCP bulk, {} (Gbit/s)", plural(streams)),
            Self::BulkCpu { streams } => format!("TCP bulk, {}: processor seconds per Gbit", plural(streams)),
            Self::BulkRetransmits { streams } => format!("TCP bulk, {}: retransmits per Gbit", plural(streams)),
            Self::PingPong50 { placement } => format!("TCP ping-pong p50, {} (µs)", placed(placement)),
            Self::PingPong99 { placement } => format!("TCP ping-pong p99, {} (µs)", placed(placement)),
            Self::Kept => "HTTP keep-alive (requests/s)".into(),
            Self::Kept99 => "HTTP keep-alive p99 (µs)".into(),
            Self::OneEach => "HTTP, a connection per request (requests/s)".into(),
            Self::OneEach99 => "HTTP, a connection per request, p99 (µs)".into(),
            Self::Delivered { rate } => format!("UDP delivered {} (datagrams/s)", at(rate)),
            Self::Loss { rate } => format!("UDP lost {} (%)", at(rate)),
        }
    }

    /// What matters of a loss or a count of retransmits is the figure, not how many times more than nearly nothing it is.
    fn is_ratio(self) -> bool {
        !matches!(self, Self::Loss { .. } | Self::BulkRetransmits { .. })
    }
}

/// One row of one round.
#[derive(Debug, Clone)]
pub struct Sample {
    pub between: Between,
    /// `bare` or the name of what was put in between.
    pub row: &'static str,
    pub round: usize,
    pub values: BTreeMap<Metric, f64>,
}

pub const BARE: &str = "bare";

/// A row's mean of one metric, and its ratio to the mean of the bares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cell {
    pub mean: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// [`spread`] over the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
}

/// Columns in the order in which they were first measured, `bare` first.
pub fn rows(samples: &[Sample]) -> Vec<&'static str> {
    let mut rows = vec![BARE];
    for sample in samples {
        if !rows.contains(&sample.row) {
            rows.push(sample.row);
        }
    }
    rows
}

pub fn cell(samples: &[Sample], between: Between, row: &str, metric: Metric) -> Option<Cell> {
    let values = |row: &str| -> Vec<f64> {
        let of_row = samples.iter().filter(|sample| sample.between == between && sample.row == row);
        of_row.filter_map(|sample| sample.values.get(&metric).copied()).collect()
    };
    let own = values(row);
    let mean_own = mean(&own)?;
    let base = mean(&values(BARE));
    let ratio = base.filter(|_| metric.is_ratio()).and_then(|base| ratio(mean_own, base));
    Some(Cell { mean: mean_own, ratio, spread: spread(&own) })
}

/// A table in Markdown for each scene: `bare` with its absolute figures and their spread, the others as ratios with the
/// absolute figure behind them.
pub fn markdown(samples: &[Sample], scenes: &[Between], notes: &[String]) -> String {
    let rows = rows(samples);
    let mut text = String::new();
    for &between in scenes {
        text += &format!("**{}**\n\n| |", between.title());
        text += &rows.iter().map(|row| format!(" {row} |")).collect::<String>();
        text += &format!("\n|---|{}\n", "---:|".repeat(rows.len()));
        for metric in metrics(samples, between) {
            text += &format!("| {} |", metric.name());
            for row in &rows {
                let shown = cell(samples, between, row, metric).map_or_else(|| "NOT RUN".to_owned(), |cell| shown(cell, *row == BARE));
                text += &format!(" {shown} |");
            }
            text += "\n";
        }
        text += "\n";
    }
    for note in notes {
        text += &format!("{note}\n");
    }
    text
}

pub fn json(samples: &[Sample], scenes: &[Between]) -> Value {
    let rows = rows(samples);
    scenes
        .iter()
        .map(|&between| {
            let metrics = metrics(samples, between).into_iter().map(|metric| {
                let cells = rows.iter().filter_map(|row| Some(((*row).to_owned(), json!(cell(samples, between, row, metric)?))));
                (metric.name(), Value::Object(cells.collect()))
            });
            json!({ "scene": between, "figures": Value::Object(metrics.collect()) })
        })
        .collect()
}

fn metrics(samples: &[Sample], between: Between) -> std::collections::BTreeSet<Metric> {
    samples.iter().filter(|sample| sample.between == between).flat_map(|sample| sample.values.keys().copied()).collect()
}

fn shown(cell: Cell, bare: bool) -> String {
    match (bare, cell.ratio, cell.spread) {
        (true, _, Some(spread)) => format!("{} ±{:.0} %", short(cell.mean), spread * 50.0),
        (false, Some(ratio), _) => format!("**{ratio:.2}** ({})", short(cell.mean)),
        (true, _, None) | (false, None, _) => short(cell.mean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(row: &'static str, round: usize, values: &[(Metric, f64)]) -> Sample {
        Sample { between: Between::Bridge, row, round, values: values.iter().copied().collect() }
    }

    const LOSS: Metric = Metric::Loss { rate: Rate::Most };

    #[test]
    fn a_ratio_is_to_the_mean_of_all_bares() {
        let samples = [
            sample(BARE, 0, &[(Metric::Kept, 90.0), (LOSS, 0.0)]),
            sample("protected", 0, &[(Metric::Kept, 80.0), (LOSS, 1.5)]),
            sample(BARE, 0, &[(Metric::Kept, 110.0), (LOSS, 0.0)]),
        ];
        let cell = |row, metric| cell(&samples, Between::Bridge, row, metric);
        assert_eq!(cell("protected", Metric::Kept), Some(Cell { mean: 80.0, ratio: Some(0.8), spread: None }));
        assert_eq!(cell(BARE, Metric::Kept), Some(Cell { mean: 100.0, ratio: Some(1.0), spread: Some(0.2) }));
        assert_eq!(cell("protected", LOSS).and_then(|cell| cell.ratio), None);
        assert_eq!(cell("protected", Metric::OneEach), None);
    }

    #[test]
    fn what_did_not_run_says_so() {
        let samples =
            [sample(BARE, 0, &[(Metric::Kept, 100.0)]), sample("judged", 0, &[(Metric::PingPong50 { placement: Placement::One }, 20.0)])];
        let table = markdown(&samples, &[Between::Bridge], &["Made by hand.".into()]);
        let expected = "**Two containers on one bridge**\n\n| | bare | judged |\n|---|---:|---:|\n\
                        | TCP ping-pong p50, ends on one processor (µs) | NOT RUN | 20.0 |\n\
                        | HTTP keep-alive (requests/s) | 100 | NOT RUN |\n\nMade by hand.\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn rows_stand_in_the_order_of_their_measurement() {
        let samples = [sample("protected", 0, &[]), sample(BARE, 0, &[]), sample("judged", 0, &[]), sample("protected", 1, &[])];
        assert_eq!(rows(&samples), [BARE, "protected", "judged"]);
        assert!(Rate::PerSecond(u32::MAX) < Rate::Most);
    }
}
