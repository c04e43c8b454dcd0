//! One trace: its spans as a tree, and where its time went.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::Result;
use millrace_telemetry::{names, otlp};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde::Serialize;

use super::store;

/// A span that was kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The parent's; empty without one.
    pub parent_id: String,
    /// Its name.
    pub name: String,
    /// The process: `ingest`, `embedder`, `indexer`.
    pub service: String,
    /// Nanoseconds since 1970 UTC.
    pub from_ns: u64,
    /// As [`Self::from_ns`].
    pub until_ns: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Trace and span ids that it is linked to.
    pub links: Vec<(String, String)>,
}

/// One trace, with the spans of other traces that it is linked to: batches of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Trace {
    /// Its spans, earliest first.
    pub spans: Vec<Seen>,
    /// Spans of other traces that spans of this one are linked to.
    pub linked: Vec<Seen>,
}

/// A line of the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'t> {
    /// 0 for a root.
    pub depth: usize,
    /// The span.
    pub span: &'t Seen,
    /// Of another trace.
    pub linked: bool,
}

/// A share of a trace's time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// On what.
    pub what: String,
    /// Nanoseconds.
    pub ns: u64,
}

impl Trace {
    /// Reads a trace of what is kept.
    pub fn read(folder: &Path, trace_id: &str) -> Result<Self> {
        let mut trace = Self::default();
        // Spans of other traces that have links: which of them are wanted is known at the end.
        let mut others = Vec::new();
        store::read(folder, |request| {
            for (service, span) in otlp::spans(request) {
                if otlp::hex(&span.trace_id) == trace_id {
                    trace.spans.push(Seen::of(span, &service));
                } else if span.links.iter().any(|link| otlp::hex(&link.trace_id) == trace_id) {
                    others.push(Seen::of(span, &service));
                }
            }
        })?;
        // One that was sent twice, since its first answer was lost, is one.
        let mut known = HashSet::new();
        trace.spans.retain(|span| known.insert(span.span_id.clone()));
        trace.spans.sort_by_key(|span| (span.from_ns, span.until_ns));
        let wanted: HashSet<&str> = trace.links().map(|(_, span)| span).collect();
        others.retain(|span| wanted.contains(span.span_id.as_str()));
        trace.linked = others;
        Ok(trace)
    }

    /// The newest trace in which something was done with a document.
    pub fn newest_of(folder: &Path, key: &str) -> Result<Option<String>> {
        let mut newest: Option<(u64, String)> = None;
        store::read(folder, |request| {
            let spans = otlp::spans(request).map(|(_, span)| span);
            for span in spans.filter(|span| otlp::attribute(&span.attributes, names::MESSAGING_KEY) == key) {
                let at = span.start_time_unix_nano;
                if newest.as_ref().is_none_or(|(known, _)| *known <= at) {
                    newest = Some((at, otlp::hex(&span.trace_id)));
                }
            }
        })?;
        Ok(newest.map(|(_, trace)| trace))
    }

    fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        let links = self.spans.iter().flat_map(|span| &span.links);
        links.map(|(trace, span)| (trace.as_str(), span.as_str()))
    }

    /// The lines, depth first, earlier before later. A span whose parent was not kept is a root.
    pub fn lines(&self) -> Vec<Line<'_>> {
        let known: HashSet<&str> = self.spans.iter().map(|span| span.span_id.as_str()).collect();
        let linked: HashMap<&str, &Seen> = self.linked.iter().map(|span| (span.span_id.as_str(), span)).collect();
        let mut children: HashMap<&str, Vec<&Seen>> = HashMap::new();
        let mut next = Vec::new();
        for span in &self.spans {
            match known.contains(span.parent_id.as_str()) {
                true => children.entry(&span.parent_id).or_default().push(span),
                false => next.push((0, span)),
            }
        }
        next.reverse();
        let mut lines = Vec::new();
        while let Some((depth, span)) = next.pop() {
            lines.push(Line {
                depth,
                span,
                linked: false,
            });
            for (_, id) in &span.links {
                if let Some(span) = linked.get(id.as_str()) {
                    lines.push(Line {
                        depth: depth + 1,
                        span,
                        linked: true,
                    });
                }
            }
            let below = children.remove(span.span_id.as_str()).unwrap_or_default();
            next.extend(below.into_iter().rev().map(|span| (depth + 1, span)));
        }
        lines
    }

    /// From the first span's start, nanoseconds since 1970 UTC.
    pub fn began_ns(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.from_ns)
    }

    /// When the first revision of it could be searched for, else when the last span ended.
    pub fn ended_ns(&self) -> u64 {
        let searchable = self.spans.iter().filter(|span| span.name == SEARCHABLE);
        let last = || self.spans.iter().map(|span| span.until_ns).max();
        let ended = searchable.map(|span| span.until_ns).min().or_else(last).unwrap_or(0);
        // A clock may have been set back.
        ended.max(self.began_ns())
    }

    /// Where the time until [`Self::ended_ns`] went, most first: each moment belongs to the deepest span of that moment.
    pub fn shares(&self) -> Vec<Share> {
        let (began, ended) = (self.began_ns(), self.ended_ns());
        let lines = self.lines();
        let within = |at: u64| at.clamp(began, ended);
        let mut moments: Vec<u64> = lines
            .iter()
            .flat_map(|line| [line.span.from_ns, line.span.until_ns])
            .map(within)
            .collect();
        moments.extend([began, ended]);
        moments.sort_unstable();
        moments.dedup();
        let mut shares: BTreeMap<String, u64> = BTreeMap::new();
        for pair in moments.windows(2) {
            let active = lines
                .iter()
                .filter(|line| line.span.from_ns <= pair[0] && pair[1] <= line.span.until_ns);
            let deepest = active.max_by_key(|line| (line.depth, line.span.from_ns));
            *shares
                .entry(deepest.map_or_else(|| BETWEEN.to_owned(), what))
                .or_default() += pair[1] - pair[0];
        }
        let mut shares: Vec<Share> = shares.into_iter().map(|(what, ns)| Share { what, ns }).collect();
        shares.sort_by(|a, b| b.ns.cmp(&a.ns).then_with(|| a.what.cmp(&b.what)));
        shares
    }
}

const SEARCHABLE: &str = "searchable";
const BETWEEN: &str = "Kafka: written, not yet received";

fn what(line: &Line<'_>) -> String {
    let Seen { name, service, .. } = line.span;
    match name.split_once(' ') {
        Some(("process", topic)) => format!("{service}: {topic} waits for its turn, or to be committed"),
        Some(("embeddings", _)) => format!("{service}: the model computes"),
        _ => format!("{service}: {name}"),
    }
}

impl Seen {
    fn of(span: Span, service: &str) -> Self {
        let status = span.status.as_ref().filter(|status| status.code() == StatusCode::Error);
        let error_type = otlp::attribute(&span.attributes, names::ERROR_TYPE);
        let error = match status {
            Some(status) if status.message.is_empty() => Some(error_type),
            Some(status) => Some(format!("{error_type}: {}", status.message)),
            None => None,
        };
        Self {
            trace_id: otlp::hex(&span.trace_id),
            span_id: otlp::hex(&span.span_id),
            parent_id: otlp::hex(&span.parent_span_id),
            service: service.strip_prefix("millrace-").unwrap_or(service).to_owned(),
            from_ns: span.start_time_unix_nano,
            until_ns: span.end_time_unix_nano,
            error,
            links: otlp::links(&span),
            attributes: otlp::attributes(&span.attributes),
            name: span.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str, name: &str, from: u64, until: u64) -> Seen {
        Seen {
            trace_id: "t".into(),
            span_id: id.into(),
            parent_id: parent.into(),
            name: name.into(),
            service: "embedder".into(),
            from_ns: from,
            until_ns: until,
            error: None,
            attributes: BTreeMap::new(),
            links: Vec::new(),
        }
    }

    fn trace() -> Trace {
        let mut attempt = span("c", "b", "embed", 20, 60);
        attempt.links = vec![("other".into(), "m".into())];
        let mut model = span("m", "", "embeddings mini", 30, 50);
        model.trace_id = "other".into();
        Trace {
            spans: vec![
                span("a", "", "send documents.parsed", 0, 5),
                span("b", "a", "process documents.parsed", 10, 80),
                attempt,
                span("d", "b", SEARCHABLE, 70, 70),
                span("e", "lost", "send documents.status", 90, 100),
            ],
            linked: vec![model],
        }
    }

    #[test]
    fn a_tree_is_depth_first_with_what_is_linked_where_it_was_waited_for() {
        let trace = trace();
        let lines: Vec<_> = trace
            .lines()
            .iter()
            .map(|line| (line.depth, line.span.span_id.clone(), line.linked))
            .collect();
        let line = |depth: usize, id: &str, linked: bool| (depth, id.to_owned(), linked);
        assert_eq!(
            lines,
            [
                line(0, "a", false),
                line(1, "b", false),
                line(2, "c", false),
                line(3, "m", true),
                line(2, "d", false),
                line(0, "e", false)
            ]
        );
    }

    #[test]
    fn each_moment_belongs_to_the_deepest_span_until_it_is_searchable() {
        let shares = trace().shares();
        let share = |what: &str, ns| Share { what: what.into(), ns };
        assert_eq!(
            shares,
            [
                share("embedder: documents.parsed waits for its turn, or to be committed", 20),
                share("embedder: embed", 20),
                share("embedder: the model computes", 20),
                share(BETWEEN, 5),
                share("embedder: send documents.parsed", 5),
            ]
        );
        let sum: u64 = shares.iter().map(|share| share.ns).sum();
        assert_eq!(sum, 70);
    }
}
