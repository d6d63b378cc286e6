//! Prometheus's text format (version 0.0.4): families of samples, for `/metrics` of the server and of each cluster.

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use std::fmt::{Display, Write};

/// A page of metrics, written family by family.
#[derive(Default)]
pub struct Page(String);

/// What a family's numbers are.
#[derive(Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Page {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String can't fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if i == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// A family of one sample without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    pub fn answer(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut page = Page::default();
        page.gauge("a_bytes", "Bytes.", 3);
        page.family("b_total", Kind::Counter, "All of b.");
        page.sample("b_total", &[("x", "1"), ("y", "say \"no\"\\\n")], 0.5);
        let expected = "# HELP a_bytes Bytes.\n# TYPE a_bytes gauge\na_bytes 3\n# HELP b_total All of b.\n\
             # TYPE b_total counter\nb_total{x=\"1\",y=\"say \\\"no\\\"\\\\\\n\"} 0.5\n";
        assert_eq!(page.0, expected);
    }
}
