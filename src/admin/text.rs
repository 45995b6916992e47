//! Prometheus' text format, version 0.0.4: a family's help and type, then its samples.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use crate::metrics::Recorded;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What is written so far. Names of ours get their `ringlog_`. Writing into a String can't fail.
pub struct Text(pub String);

/// Label names and values.
pub type Labels<'a> = [(&'a str, &'a str)];

impl Text {
    /// Begins a family.
    pub fn head(&mut self, name: &str, kind: Kind, help: &str) {
        self.write_head("ringlog_", name, kind, help);
    }

    /// Begins a family whose name is not ours.
    pub fn foreign_head(&mut self, name: &str, kind: Kind, help: &str) {
        self.write_head("", name, kind, help);
    }

    fn write_head(&mut self, prefix: &str, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.0, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}\n");
    }

    pub fn sample(&mut self, name: &str, labels: &Labels<'_>, value: impl Display) {
        let _ = writeln!(self.0, "ringlog_{name}{} {value}", encode(labels));
    }

    /// With labels that [`encode`] has made.
    pub fn encoded_sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "ringlog_{name}{labels} {value}");
    }

    pub fn foreign_sample(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, &[], value);
    }

    /// One series of a histogram: its buckets, sum and count.
    pub fn histogram(&mut self, name: &str, labels: &Labels<'_>, recorded: &Recorded) {
        let count = recorded.count();
        let mut bucket = |bound: &str, below| {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound)]).collect();
            let _ = writeln!(self.0, "ringlog_{name}_bucket{} {below}", encode(&labels));
        };
        for (bound, below) in recorded.below() {
            bucket(&bound.to_string(), below);
        }
        bucket("+Inf", count);
        let labels = encode(labels);
        let _ = writeln!(self.0, "ringlog_{name}_sum{labels} {}", recorded.seconds());
        let _ = writeln!(self.0, "ringlog_{name}_count{labels} {count}");
    }
}

/// Labels as they stand behind a name: nothing if there are none.
pub fn encode(labels: &Labels<'_>) -> String {
    let mut text = String::new();
    for (label, value) in labels {
        let opening = if text.is_empty() { '{' } else { ',' };
        let _ = write!(text, "{opening}{label}=\"{}\"", escape(value));
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

fn escape(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        value.into()
    }
}
