//! Writing families in the OpenMetrics text format (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Invariant: a family is written under its own name and labels, so that what is exposed is what the reference lists.
//! Deliberately absent: values, HTTP.

use std::fmt::{self, Write as _};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families::{self, Family, Kind};
use super::metrics::{Histogram, Times};

/// The media type of what [`Exposition::text`] gives.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one source, ready to be written again and again.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// `write` writes every family, each once; it is called for each text.
    pub fn new(write: impl Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Collect(write)));
        Self(registry)
    }

    /// The values now.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a String fails only if a source of values does, and none does.
        let _ = encode(&mut text, &self.0);
        text
    }

    /// The same in Prometheus' own text format: there a counter's family has the name of its samples, and no mark ends the page.
    #[must_use]
    pub fn classic_text(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        for line in self.text().lines().filter(|line| *line != "# EOF") {
            let counter = ["# HELP ", "# TYPE "].into_iter().find_map(|head| {
                let (name, rest) = line.strip_prefix(head)?.split_once(' ')?;
                let counts = |family: &&Family| family.name == name && matches!(family.kind, Kind::Counter);
                families::ALL.iter().find(counts).map(|_| (head, name, rest))
            });
            // Writing to a String does not fail.
            let _ = match counter {
                Some((head, name, rest)) => writeln!(text, "{head}{name}_total {rest}"),
                None => writeln!(text, "{line}"),
            };
        }
        text
    }
}

struct Collect<F>(F);

impl<F> fmt::Debug for Collect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collect")
    }
}

impl<F: Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static> Collector for Collect<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Page(encoder))
    }
}

/// Where families are written.
#[derive(Debug)]
pub struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// Writes a family; `write` adds its values.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn family(
        &mut self,
        family: &'static Family,
        write: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let encoder = self.0.encode_descriptor(family.name, family.help, None, kind)?;
        write(&mut Samples { encoder, family })
    }

    /// Writes a family that has one value and no labels.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn single(&mut self, family: &'static Family, value: u64) -> fmt::Result {
        self.family(family, |out| out.value(&[], value))
    }
}

/// The values of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    encoder: MetricEncoder<'a>,
    family: &'static Family,
}

impl Samples<'_> {
    /// A counter's or gauge's whole number, with the labels' values in the order of [`Family::labels`].
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn value(&mut self, labels: &[&str], value: u64) -> fmt::Result {
        let kind = self.family.kind;
        self.labelled(labels, |encoder| match kind {
            Kind::Counter => encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            _ => encoder.encode_gauge(&value),
        })
    }

    /// A gauge's number, such as seconds.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn fraction(&mut self, labels: &[&str], value: f64) -> fmt::Result {
        self.labelled(labels, |encoder| encoder.encode_gauge(&value))
    }

    /// A histogram.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn times(&mut self, labels: &[&str], times: &Times) -> fmt::Result {
        let bounds = Histogram::BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(times.buckets).collect();
        self.labelled(labels, |encoder| {
            encoder.encode_histogram::<NoLabelSet>(times.sum.as_secs_f64(), times.count(), &buckets, None)
        })
    }

    fn labelled(&mut self, values: &[&str], write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result) -> fmt::Result {
        debug_assert_eq!(self.family.labels.len(), values.len(), "{}", self.family.name);
        if values.is_empty() {
            return write(&mut self.encoder);
        }
        let labels = Labels { names: self.family.labels, values };
        write(&mut self.encoder.encode_family(&labels)?)
    }
}

struct Labels<'a> {
    names: &'static [&'static str],
    values: &'a [&'a str],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for pair in self.names.iter().copied().zip(self.values.iter().copied()) {
            pair.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::families;
    use super::*;

    #[test]
    fn what_is_written_is_open_metrics() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(2));
        let times = histogram.read();
        let exposition = Exposition::new(move |page| {
            page.single(&families::ACCEPTED, 7)?;
            page.family(&families::NODE_LAG, |out| out.fraction(&["main", "s", "a \"b\"\n\\c"], 1.5))?;
            page.family(&families::CHECKOUT_WAITS, |out| out.times(&["m", "s", "n"], &times))
        });
        let text = exposition.text();
        for line in [
            "# TYPE pointsman_clients_accepted counter",
            "pointsman_clients_accepted_total 7",
            r#"pointsman_node_replay_lag_seconds{cluster="main",shard="s",node="a \"b\"\n\\c"} 1.5"#,
            "# TYPE pointsman_checkout_wait_seconds histogram",
            r#"pointsman_checkout_wait_seconds_bucket{le="0.001",cluster="m",shard="s",node="n"} 0"#,
            r#"pointsman_checkout_wait_seconds_bucket{le="0.005",cluster="m",shard="s",node="n"} 1"#,
            r#"pointsman_checkout_wait_seconds_bucket{le="+Inf",cluster="m",shard="s",node="n"} 1"#,
            r#"pointsman_checkout_wait_seconds_count{cluster="m",shard="s",node="n"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
        // In the older format a family has the name of its samples.
        let classic = exposition.classic_text();
        for line in ["# TYPE pointsman_clients_accepted_total counter", "pointsman_clients_accepted_total 7"] {
            assert!(classic.lines().any(|found| found == line), "{line} is not in\n{classic}");
        }
        assert!(
            classic.contains("# TYPE pointsman_checkout_wait_seconds histogram") && !classic.contains("EOF"),
            "{classic}"
        );
    }
}
