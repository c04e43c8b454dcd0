//! What the log says: the newest state of each document, from the compacted `documents.status`.
//!
//! Held in memory while an audit runs: about 150 bytes and the document's name for each that is asked for.

use std::collections::{BTreeMap, HashMap};

use millrace_events::{DocumentKey, DocumentStatus, State, StatusKey, topics};
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
            self.take(&delivery).await?;
            told(self.documents.len());
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

    /// Documents that are not judged: a status of theirs that counts cannot be read.
    pub fn not_judged(&self) -> usize {
        self.documents.values().filter(|known| !known.is_judged()).count()
    }

    /// | a record | what is learned |
    /// |---|---|
    /// | a tombstone | nothing: those are of revisions below the live one |
    /// | its value names a document and a revision | its state |
    /// | its value does not, its key does | that this revision has a state that nobody can read |
    /// | neither does | nobody knows whose it is, so nothing can be judged: the audit ends |
    async fn take(&mut self, delivery: &Delivery) -> Result<(), AuditError> {
        let Some(value) = delivery.value.as_deref() else {
            return Ok(());
        };
        let why = match self.codec.decode::<DocumentStatus>(value).await {
            Ok(status) => match status.key() {
                Ok(key) => return self.learn(key, &status),
                Err(error) => error.to_string(),
            },
            Err(Failure::Invalid { message, .. } | Failure::Failed { message, .. }) => message,
            Err(failure) => return Err(LogError::Away(failure.to_string()).into()),
        };
        let Some(Ok(key)) = delivery.key.as_deref().map(StatusKey::from_bytes) else {
            let place = delivery.origin.to_string();
            return Err(AuditError::Unreadable { place, why });
        };
        tracing::warn!(origin = %delivery.origin, why, "a status cannot be read: its document may not be judged");
        if let Some(known) = self.known(key.document)? {
            known.learn_unreadable(key.revision);
        }
        Ok(())
    }

    fn learn(&mut self, key: StatusKey, status: &DocumentStatus) -> Result<(), AuditError> {
        let live = |deleted| Live {
            revision: key.revision,
            deleted,
            chunk_count: u32::try_from(status.chunk_count).unwrap_or(0),
            at_ms: status.updated_at_ms,
        };
        let live = match status.state {
            State::Indexed => Some(live(false)),
            State::Deleted => Some(live(true)),
            State::Parsed | State::Failed | State::Superseded | State::DuplicateOf | State::Unknown => None,
        };
        if let Some(known) = self.known(key.document)? {
            known.learn(key.revision, live);
        }
        Ok(())
    }

    /// None of a document that is not asked for.
    fn known(&mut self, document: DocumentKey) -> Result<Option<&mut Known>, AuditError> {
        if !covers(&self.scope, &document) {
            return Ok(None);
        }
        if self.documents.len() >= MAX_DOCUMENTS && !self.documents.contains_key(&document) {
            return Err(AuditError::TooMany);
        }
        Ok(Some(self.documents.entry(document).or_default()))
    }
}
