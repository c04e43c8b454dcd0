//! What the log says: the newest state of each document, from the compacted `documents.status`.
//!
//! Held in memory while an audit runs: about 150 bytes and the document's name for each that is asked for.

use std::collections::{BTreeMap, HashMap};

use millrace_events::{DocumentKey, DocumentStatus, State, topics};
use millrace_flow::{Delivery, Failure};
use millrace_runtime::codec::Codec;

use super::judge::{Known, Live};
use super::log::{AuditLog, LogError, Reading};
use super::{AuditError, MAX_DOCUMENTS, covers};
use crate::index::Scope;

/// `documents.status`, read up to one end after another.
#[derive(Debug)]
pub struct Ledger<L> {
    log: L,
    codec: Codec,
    scope: Scope,
    reading: Reading,
    documents: HashMap<DocumentKey, Known>,
}

impl<L: AuditLog> Ledger<L> {
    /// Knows nothing yet.
    pub fn open(log: L, codec: Codec, scope: Scope) -> Result<Self, AuditError> {
        let reading = Reading::begin(&log, topics::STATUS, BTreeMap::new())?;
        Ok(Self {
            log,
            codec,
            scope,
            reading,
            documents: HashMap::new(),
        })
    }

    /// Reads up to where the topic ends now, with transactions that are open: they are waited for. `told` is given the
    /// number of documents now and then.
    pub async fn read(&mut self, mut told: impl FnMut(usize)) -> Result<(), AuditError> {
        let ends = self.log.ranges(topics::STATUS).await?;
        while let Some(delivery) = self.reading.next_below(&ends).await? {
            if let Some(status) = status(&self.codec, &delivery).await? {
                self.learn(&status)?;
                told(self.documents.len());
            }
        }
        Ok(())
    }

    /// What the log says of a document.
    pub fn of(&self, document: &DocumentKey) -> Known {
        self.documents.get(document).copied().unwrap_or_default()
    }

    /// All documents that it knows.
    pub fn documents(&self) -> impl Iterator<Item = (&DocumentKey, &Known)> {
        self.documents.iter()
    }

    fn learn(&mut self, status: &DocumentStatus) -> Result<(), AuditError> {
        // What names no document is no state of one.
        let (Ok(document), Ok(revision)) = (status.document(), status.checked_revision()) else {
            return Ok(());
        };
        if !covers(&self.scope, &document) {
            return Ok(());
        }
        let live = |deleted| Live {
            revision,
            deleted,
            chunk_count: u32::try_from(status.chunk_count).unwrap_or(0),
        };
        let live = match status.state {
            State::Indexed => Some(live(false)),
            State::Deleted => Some(live(true)),
            State::Parsed | State::Failed | State::Superseded | State::DuplicateOf | State::Unknown => None,
        };
        if self.documents.len() >= MAX_DOCUMENTS && !self.documents.contains_key(&document) {
            return Err(AuditError::TooMany);
        }
        self.documents.entry(document).or_default().learn(revision, live);
        Ok(())
    }
}

/// None of a tombstone: those are of revisions below the live one.
async fn status(codec: &Codec, delivery: &Delivery) -> Result<Option<DocumentStatus>, LogError> {
    let Some(value) = delivery.value.as_deref() else {
        return Ok(None);
    };
    match codec.decode::<DocumentStatus>(value).await {
        Ok(status) => Ok(Some(status)),
        Err(Failure::Invalid { message, .. } | Failure::Failed { message, .. }) => {
            let origin = &delivery.origin;
            tracing::warn!(
                partition = origin.partition,
                offset = origin.offset,
                message,
                "a status is passed over: nobody can read it"
            );
            Ok(None)
        }
        Err(failure) => Err(LogError::Away(failure.to_string())),
    }
}
