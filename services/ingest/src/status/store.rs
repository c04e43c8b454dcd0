//! Statuses on disk: records, and first receipts by request id.

use millrace_events::headers::LANE;
use millrace_events::{DocumentKey, DocumentStatus, IdError, Lane, RequestId, Revision, State, StatusKey};
use millrace_flow::Delivery;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;

use super::Store;
use super::view::{DocumentView, RevisionStatus};
use crate::pipeline::parse;
use crate::replica::store::access;
use crate::replica::{Change, ChangeOf, Kept, StoreError};

/// Status of each revision by `document NUL revision` (big-endian: in order).
const STATUSES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("statuses");
/// Revision that took effect by `document NUL request_id`, and when it was accepted.
const REQUESTS: TableDefinition<'_, &[u8], (i64, i64)> = TableDefinition::new("requests");
/// Greatest offset of `documents.submitted` that a status speaks of, by partition.
const SUBMITTED: TableDefinition<'_, i32, i64> = TableDefinition::new("submitted");
/// Within this time after its acceptance a request id has one effect.
pub const REQUEST_ID_TTL_MS: i64 = 24 * 60 * 60 * 1000;

/// `documents.status`, as it is kept.
#[derive(Debug)]
pub struct Statuses;

impl Kept for Statuses {
    type Record = DocumentStatus;
    type Key = StatusKey;
    type Entry = RevisionStatus;
    const FILE: &'static str = "status.redb";
    const FORMAT: i64 = 2;

    fn key(key: &[u8]) -> Result<StatusKey, IdError> {
        StatusKey::from_bytes(key)
    }
    fn key_of(record: &DocumentStatus) -> Result<StatusKey, IdError> {
        record.key()
    }
    fn entry(record: DocumentStatus, delivery: &Delivery) -> RevisionStatus {
        let trace = delivery.headers.trace();
        let lane = delivery.headers.get_str(LANE).unwrap_or_default();
        RevisionStatus {
            record,
            // Nobody but us writes it.
            lane: Lane::new(lane).unwrap_or_default(),
            trace_id: trace.map(|t| t.trace_id().to_owned()).unwrap_or_default(),
        }
    }
    fn document(change: &ChangeOf<Self>) -> Option<DocumentKey> {
        match change {
            Change::Put { entry, .. } => entry.record.document().ok(),
            Change::Remove(key) => Some(key.document.clone()),
        }
    }
    fn reset(write: &WriteTransaction) -> Result<(), redb::Error> {
        write.delete_table(STATUSES)?;
        write.delete_table(REQUESTS)?;
        write.delete_table(SUBMITTED)?;
        write.open_table(STATUSES)?;
        write.open_table(REQUESTS)?;
        write.open_table(SUBMITTED)?;
        Ok(())
    }
    fn apply(write: &WriteTransaction, changes: &[ChangeOf<Self>]) -> Result<(), StoreError> {
        let failed = "apply a batch";
        let mut tables = Tables {
            statuses: write.open_table(STATUSES).map_err(access(failed))?,
            requests: write.open_table(REQUESTS).map_err(access(failed))?,
            submitted: write.open_table(SUBMITTED).map_err(access(failed))?,
        };
        changes.iter().try_for_each(|change| tables.apply(change))
    }
}

impl Store {
    /// Greatest offset of `documents.submitted` that a status speaks of, by partition.
    pub fn submitted(&self) -> Result<BTreeMap<i32, i64>, StoreError> {
        self.numbers(SUBMITTED)
    }

    /// What is known of a document; `revision` chooses the status, the latest one without it.
    pub fn view(&self, document: &DocumentKey, revision: Option<Revision>) -> Result<DocumentView, StoreError> {
        let failed = "read a document";
        let read = self.begin_read(failed)?;
        let statuses = read.open_table(STATUSES).map_err(access(failed))?;
        let mut view = DocumentView::default();
        let mut deleted = false;
        if let Some(revision) = revision {
            let key = status_key(document, revision);
            if let Some(value) = statuses.get(key.as_slice()).map_err(access(failed))? {
                view.status = Some(serde_json::from_slice(value.value())?);
            }
        }
        let (first, last) = (document_key(document, &[0; 8]), document_key(document, &[0xff; 8]));
        let all = statuses
            .range(first.as_slice()..=last.as_slice())
            .map_err(access(failed))?;
        for entry in all.rev() {
            let (_, value) = entry.map_err(access(failed))?;
            let status: RevisionStatus = serde_json::from_slice(value.value())?;
            let this = status.record.checked_revision().ok();
            let state = status.record.state;
            view.latest = view.latest.or(this);
            deleted |= state == State::Deleted;
            let in_lane = match state {
                State::Parsed | State::Indexed | State::Superseded => true,
                // Given up behind the parse stage, which had put it into its lane.
                State::Failed => status.record.stage != parse::STAGE,
                State::Deleted | State::DuplicateOf | State::Unknown => false,
            };
            if in_lane && !deleted && view.lane.is_none() {
                view.lane = Some(status.lane.clone());
            }
            if revision.is_none() && view.status.is_none() {
                view.status = Some(status);
            }
            match state {
                State::Indexed => {
                    view.live = this;
                    break;
                }
                State::Deleted => break,
                _ => {}
            }
        }
        Ok(view)
    }

    /// The revision that took effect for a request id of a document, if it was accepted within 24 hours before `now_ms`.
    pub fn request(
        &self,
        document: &DocumentKey,
        request: RequestId,
        now_ms: i64,
    ) -> Result<Option<RevisionStatus>, StoreError> {
        let failed = "look up a request id";
        let read = self.begin_read(failed)?;
        let requests = read.open_table(REQUESTS).map_err(access(failed))?;
        let key = document_key(document, request.to_string().as_bytes());
        let Some(found) = requests.get(key.as_slice()).map_err(access(failed))? else {
            return Ok(None);
        };
        let (revision, accepted_at_ms) = found.value();
        if now_ms - accepted_at_ms > REQUEST_ID_TTL_MS {
            return Ok(None);
        }
        let statuses = read.open_table(STATUSES).map_err(access(failed))?;
        let key = document_key(document, &revision.to_be_bytes());
        let status = statuses.get(key.as_slice()).map_err(access(failed))?;
        Ok(status.map(|value| serde_json::from_slice(value.value())).transpose()?)
    }
}

struct Tables<'t> {
    statuses: Table<'t, &'static [u8], &'static [u8]>,
    requests: Table<'t, &'static [u8], (i64, i64)>,
    submitted: Table<'t, i32, i64>,
}

impl Tables<'_> {
    fn apply(&mut self, change: &ChangeOf<Statuses>) -> Result<(), StoreError> {
        match change {
            Change::Put { entry, partition } => self.put(entry, *partition),
            Change::Remove(key) => self.remove(key),
        }
    }

    fn put(&mut self, status: &RevisionStatus, partition: i32) -> Result<(), StoreError> {
        let failed = "store a status";
        let record = &status.record;
        // Records without an identity were refused before they came here.
        let (Ok(document), Ok(revision)) = (record.document(), record.checked_revision()) else {
            return Ok(());
        };
        let value = serde_json::to_vec(status)?;
        let key = status_key(&document, revision);
        self.statuses
            .insert(key.as_slice(), value.as_slice())
            .map_err(access(failed))?;
        let known = self
            .submitted
            .get(partition)
            .map_err(access(failed))?
            .map(|v| v.value());
        if known.is_none_or(|known| known < revision.offset()) {
            self.submitted
                .insert(partition, revision.offset())
                .map_err(access(failed))?;
        }
        self.put_request(&document, revision, record)
    }

    /// The first revision of a request id keeps it, for 24 hours.
    fn put_request(
        &mut self,
        document: &DocumentKey,
        revision: Revision,
        record: &DocumentStatus,
    ) -> Result<(), StoreError> {
        let failed = "store a request id";
        let Ok(request) = record.request_id.parse::<RequestId>() else {
            return Ok(());
        };
        if record.state == State::DuplicateOf {
            return Ok(());
        }
        let key = document_key(document, request.to_string().as_bytes());
        let kept = self
            .requests
            .get(key.as_slice())
            .map_err(access(failed))?
            .map(|v| v.value());
        let keep = kept
            .is_some_and(|(first, at_ms)| first < revision.get() && record.accepted_at_ms - at_ms <= REQUEST_ID_TTL_MS);
        if !keep {
            let entry = (revision.get(), record.accepted_at_ms);
            self.requests.insert(key.as_slice(), entry).map_err(access(failed))?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &StatusKey) -> Result<(), StoreError> {
        let failed = "remove a status";
        let status = status_key(&key.document, key.revision);
        let removed = self.statuses.remove(status.as_slice()).map_err(access(failed))?;
        let Some(removed) = removed else { return Ok(()) };
        let removed: RevisionStatus = serde_json::from_slice(removed.value())?;
        let request = document_key(&key.document, removed.record.request_id.as_bytes());
        let held = self
            .requests
            .get(request.as_slice())
            .map_err(access(failed))?
            .map(|v| v.value().0);
        if held == Some(key.revision.get()) {
            self.requests.remove(request.as_slice()).map_err(access(failed))?;
        }
        Ok(())
    }
}

fn status_key(document: &DocumentKey, revision: Revision) -> Vec<u8> {
    document_key(document, &revision.get().to_be_bytes())
}

/// NUL ends a document's name: names have no control characters.
fn document_key(document: &DocumentKey, rest: &[u8]) -> Vec<u8> {
    let mut key = document.to_string().into_bytes();
    key.push(0);
    key.extend_from_slice(rest);
    key
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
