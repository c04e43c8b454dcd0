//! Spans around what is asked of an index for a document or a search: where the time of a record went.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_events::{DocumentKey, Revision};
use millrace_telemetry::{Kind, Span, Traced as _, names, span};
use uuid::Uuid;

use super::{Answer, Found, Head, IndexError, Page, Query, RevisionPoints, Scope, VectorIndex};

/// An index whose calls are spans of whoever makes them. Those of clean-up and audit belong to no document's trace.
pub struct TracedIndex(pub Arc<dyn VectorIndex>);

impl TracedIndex {
    fn within<'a, T: 'a>(&self, name: &'static str, call: Answer<'a, T>) -> Answer<'a, T> {
        let span = span(Kind::Internal, || name).start_here();
        match span.is_some() {
            true => Box::pin(judged(span, call)),
            false => call,
        }
    }
}

async fn judged<T>(span: Span, call: Answer<'_, T>) -> Result<T, IndexError> {
    let answer = call.within(span.clone()).await;
    if let Err(error) = &answer {
        span.failed(error.code(), error.to_string());
    }
    answer
}

impl VectorIndex for TracedIndex {
    fn write(&self, points: RevisionPoints) -> Answer<'_, ()> {
        let count = i64::try_from(points.points.len()).unwrap_or(i64::MAX);
        let written = self.0.write(points);
        self.within(
            "index write",
            Box::pin(async move {
                Span::current().set(names::POINTS, count);
                written.await
            }),
        )
    }
    fn count(&self, document: DocumentKey, revision: Revision) -> Answer<'_, u64> {
        self.within("index count", self.0.count(document, revision))
    }
    fn unstage(&self, document: DocumentKey, revision: Revision) -> Answer<'_, ()> {
        self.within("index unstage", self.0.unstage(document, revision))
    }
    fn move_head(&self, document: DocumentKey, head: Head) -> Answer<'_, ()> {
        self.within("index move head", self.0.move_head(document, head))
    }
    fn heads(&self, documents: Vec<DocumentKey>) -> Answer<'_, HashMap<DocumentKey, Head>> {
        self.within("index heads", self.0.heads(documents))
    }
    fn delete_below(&self, document: DocumentKey, revision: Revision) -> Answer<'_, ()> {
        self.0.delete_below(document, revision)
    }
    fn to_sweep(&self, limit: usize) -> Answer<'_, Vec<(DocumentKey, Revision)>> {
        self.0.to_sweep(limit)
    }
    fn mark_sweep(&self, document: DocumentKey, live: Revision, sweep: bool) -> Answer<'_, ()> {
        self.0.mark_sweep(document, live, sweep)
    }
    fn forget_deleted(&self, before_ms: i64) -> Answer<'_, ()> {
        self.0.forget_deleted(before_ms)
    }
    fn delete_chunks(&self, document: DocumentKey, revision: Revision, from_ordinal: i32) -> Answer<'_, ()> {
        self.0.delete_chunks(document, revision, from_ordinal)
    }
    fn delete_head(&self, document: DocumentKey, live: Revision) -> Answer<'_, ()> {
        self.0.delete_head(document, live)
    }
    fn scan(&self, scope: Scope, from: Option<Uuid>, limit: usize) -> Answer<'_, Page> {
        self.0.scan(scope, from, limit)
    }
    fn search(&self, query: Query) -> Answer<'_, Vec<Found>> {
        self.within("index search", self.0.search(query))
    }
    fn flush(&self) -> Answer<'_, ()> {
        self.within("index flush", self.0.flush())
    }
}
