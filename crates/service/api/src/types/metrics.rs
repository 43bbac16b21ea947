//! `GET /v1/metrics` as JSON, and the same as text for Prometheus.
//! Source of the text form: Prometheus documentation, "Exposition formats", text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// `bulkhead_packets_total`
    pub name: String,
    pub help: String,
    pub kind: MetricKind,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Only grows while the agent runs; the name ends with `_total`.
    Counter,
    Gauge,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metric {
    pub fn counter(name: &str, help: &str, value: u64) -> Self {
        Self::new(name, help, MetricKind::Counter).sample([], value as f64)
    }

    pub fn gauge(name: &str, help: &str, value: f64) -> Self {
        Self::new(name, help, MetricKind::Gauge).sample([], value)
    }

    pub fn new(name: &str, help: &str, kind: MetricKind) -> Self {
        Self { name: name.to_owned(), help: help.to_owned(), kind, samples: Vec::new() }
    }

    #[must_use]
    pub fn sample<'a>(mut self, labels: impl IntoIterator<Item = (&'a str, &'a str)>, value: f64) -> Self {
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        self.samples.push(Sample { labels, value });
        self
    }
}

/// Names that Prometheus would not take have their odd characters replaced by `_`.
pub fn prometheus_text(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for metric in metrics {
        let name = word(&metric.name);
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for sample in &metric.samples {
            let labels: Vec<String> = sample.labels.iter().map(|(key, value)| format!("{}=\"{}\"", word(key), quoted(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{name}{labels} {}", number(sample.value));
        }
    }
    text
}

fn word(name: &str) -> String {
    let mut word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
        word.insert(0, '_');
    }
    word
}

fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_quotes_and_line_feeds_cannot_forge_a_line() {
        let metric =
            Metric::new("bulkhead.bytes-total", "Bytes\nby workload", MetricKind::Counter).sample([("name", "a\"} 1\nevil 2\\")], 7.0);
        assert_eq!(
            prometheus_text(&[metric]),
            "# HELP bulkhead_bytes_total Bytes\\nby workload\n# TYPE bulkhead_bytes_total counter\nbulkhead_bytes_total{name=\"a\\\"} 1\\nevil 2\\\\\"} 7\n"
        );
    }

    #[test]
    fn plain_values_are_plain() {
        let text =
            prometheus_text(&[Metric::counter("bulkhead_events_total", "Events", 12), Metric::gauge("bulkhead_ratio", "Ratio", 0.5)]);
        assert!(text.contains("bulkhead_events_total 12\n") && text.contains("bulkhead_ratio 0.5\n"), "{text}");
    }
}
