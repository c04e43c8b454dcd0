//! Filters, in the JSON form that Qdrant documents: the same text works against the server's REST interface.

use millrace_events::{DocumentKey, Revision};
use millrace_failpoints::mutants;
use qdrant_edge::Filter as EdgeFilter;
use serde_json::{Value, json};

use super::payload::field;
use crate::index::{Filter, IndexError, Scope};

fn matches(key: &str, value: impl Into<Value>) -> Value {
    json!({"key": key, "match": {"value": value.into()}})
}

fn document(document: &DocumentKey) -> Value {
    matches(field::DOCUMENT, document.to_string())
}

fn head(document: &DocumentKey, live: Value) -> Value {
    let id = millrace_events::points::head(document).to_string();
    json!({"must": [{"has_id": [id]}, live]})
}

fn build(operation: &'static str, filter: Value) -> Result<EdgeFilter, IndexError> {
    serde_json::from_value(filter).map_err(|e| IndexError::Refused {
        operation,
        message: e.to_string(),
    })
}

/// Chunks of one revision. Heads have no `revision` and are never among them.
pub fn revision(operation: &'static str, of: &DocumentKey, revision: Revision) -> Result<EdgeFilter, IndexError> {
    build(
        operation,
        json!({"must": [document(of), matches(field::REVISION, revision.get())]}),
    )
}

/// Chunks of revisions smaller than this one.
pub fn below(operation: &'static str, of: &DocumentKey, revision: Revision) -> Result<EdgeFilter, IndexError> {
    if mutants::DELETE_UNEQUAL.is_active() {
        let (must, live) = (document(of), matches(field::REVISION, revision.get()));
        let chunk = json!({"is_empty": {"key": field::REVISION}});
        return build(operation, json!({"must": [must], "must_not": [live, chunk]}));
    }
    build(
        operation,
        json!({"must": [document(of), {"key": field::REVISION, "range": {"lt": revision.get()}}]}),
    )
}

/// Chunks of one revision, from an ordinal on.
pub fn from_ordinal(
    operation: &'static str,
    of: &DocumentKey,
    revision: Revision,
    from_ordinal: i32,
) -> Result<EdgeFilter, IndexError> {
    let mut must = vec![document(of), matches(field::REVISION, revision.get())];
    if from_ordinal > 0 {
        must.push(json!({"key": field::ORDINAL, "range": {"gte": from_ordinal}}));
    }
    build(operation, json!({"must": must}))
}

/// Points of a tenant, of documents, or all: none then.
pub fn scope(operation: &'static str, scope: &Scope) -> Result<Option<EdgeFilter>, IndexError> {
    let mut must = Vec::new();
    if let Some(tenant) = &scope.tenant {
        must.push(matches(field::TENANT, tenant.as_str()));
    }
    if !scope.documents.is_empty() {
        let any: Vec<String> = scope.documents.iter().map(ToString::to_string).collect();
        must.push(json!({"key": field::DOCUMENT, "match": {"any": any}}));
    }
    if must.is_empty() {
        return Ok(None);
    }
    build(operation, json!({"must": must})).map(Some)
}

/// The document's head, if its live revision is smaller.
pub fn head_below(operation: &'static str, of: &DocumentKey, live: Revision) -> Result<EdgeFilter, IndexError> {
    if mutants::HEAD_UNCONDITIONAL.is_active() {
        return build(operation, head(of, json!({"key": field::LIVE, "range": {"gte": 0}})));
    }
    build(
        operation,
        head(of, json!({"key": field::LIVE, "range": {"lt": live.get()}})),
    )
}

/// The document's head, if its live revision is this one.
pub fn head_at(operation: &'static str, of: &DocumentKey, live: Revision) -> Result<EdgeFilter, IndexError> {
    build(operation, head(of, matches(field::LIVE, live.get())))
}

/// Heads whose clean-up is due.
pub fn to_sweep(operation: &'static str) -> Result<EdgeFilter, IndexError> {
    build(operation, json!({"must": [matches(field::SWEEP, true)]}))
}

/// Heads of documents deleted before a time, clean-up done.
pub fn deleted_before(operation: &'static str, before_ms: i64) -> Result<EdgeFilter, IndexError> {
    build(
        operation,
        json!({
            "must": [matches(field::DELETED, true), {"key": field::MOVED_AT_MS, "range": {"lt": before_ms}}],
            "must_not": [matches(field::SWEEP, true)],
        }),
    )
}

/// What a search may find.
pub fn search(filter: &Filter) -> Result<EdgeFilter, IndexError> {
    let mut must = vec![matches(field::TENANT, filter.tenant.as_str())];
    if !filter.documents.is_empty() {
        let any: Vec<String> = filter.documents.iter().map(ToString::to_string).collect();
        must.push(json!({"key": field::DOCUMENT, "match": {"any": any}}));
    }
    let mut must_not = vec![matches(field::STAGED, true)];
    let mut absent = Vec::new();
    for (of, live) in &filter.pinned {
        match live {
            Some(live) => must_not.push(json!({
                "must": [document(of)],
                "must_not": [matches(field::REVISION, live.get())],
            })),
            None => absent.push(of.to_string()),
        }
    }
    if !absent.is_empty() {
        must_not.push(json!({"key": field::DOCUMENT, "match": {"any": absent}}));
    }
    build("search", json!({"must": must, "must_not": must_not}))
}
