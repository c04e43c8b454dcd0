//! What became of a document: the replica's statuses, and what was accepted and has none yet.

use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use millrace_events::{DocumentKey, Lane, Revision};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::EPOCH;
use crate::log::{EndsError, LogEnds};
use crate::recent::Recent;
use crate::status::{Replica, RevisionStatus, StoreError};

/// Documents accepted by this process whose latest revision is remembered until it has a status.
const REMEMBERED: usize = 10_000;

/// A document at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Which one.
    pub key: DocumentKey,
    /// The revision that `state` speaks of.
    pub revision: Revision,
    /// Its state.
    pub state: State,
    /// Greatest revision known.
    pub latest: Revision,
    /// The revision that a search sees.
    pub live: Option<Revision>,
    /// The lane that it is in; the base lane too until it is parsed, and once it is deleted.
    pub lane: Lane,
}

/// State of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In the log, without a status yet.
    Accepted {
        /// When, if this process accepted it.
        accepted_at_ms: Option<i64>,
    },
    /// As its status says.
    Status(Box<RevisionStatus>),
}

impl Document {
    /// Whether nothing but a redrive changes the state any more.
    pub fn is_final(&self) -> bool {
        match &self.state {
            State::Accepted { .. } => false,
            State::Status(status) => status.is_final(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Nothing is known.
    #[error("nothing is known of it: never accepted, or removed after its successors became live")]
    Unknown,
    /// The log is needed for the answer and is away.
    #[error(transparent)]
    Log(#[from] EndsError),
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] StoreError),
    /// The process is leaving.
    #[error("this process is leaving: ask another one")]
    Leaving,
}

/// A command that was just accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its revision.
    pub revision: Revision,
    /// When.
    pub accepted_at_ms: i64,
}

/// The latest revision that this process accepted of each document, bounded in number. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JustAccepted(Arc<Mutex<Recent<DocumentKey, Accepted>>>);

impl Default for JustAccepted {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Recent::new(REMEMBERED))))
    }
}

impl JustAccepted {
    /// Remembers a command, unless a later one of its document is remembered.
    pub fn insert(&self, document: &DocumentKey, accepted: Accepted) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent
            .get(document)
            .is_none_or(|known| known.revision < accepted.revision)
        {
            recent.insert(document.clone(), accepted);
        }
    }
    fn get(&self, document: &DocumentKey) -> Option<Accepted> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(document)
            .copied()
    }
}

/// Answers for documents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Documents<E> {
    replica: Replica,
    just_accepted: JustAccepted,
    ends: E,
    leaving: CancellationToken,
}

impl<E: LogEnds> Documents<E> {
    /// `leaving` ends watches.
    pub fn new(replica: Replica, just_accepted: JustAccepted, ends: E, leaving: CancellationToken) -> Self {
        Self {
            replica,
            just_accepted,
            ends,
            leaving,
        }
    }

    /// The state of a revision, or of the latest one.
    ///
    /// | asked | known | answer |
    /// |---|---|---|
    /// | a revision | a status of it | the status |
    /// | a revision | accepted here, no status yet | ACCEPTED |
    /// | a revision | a status of a later one only | unknown: statuses come in order, it was removed or never was |
    /// | a revision | none, its offset is within the log of the document's partition | ACCEPTED |
    /// | a revision | none, its offset is outside | unknown |
    /// | the latest | accepted here after the latest status | ACCEPTED |
    /// | the latest | a status | the status |
    /// | the latest | nothing | unknown |
    pub async fn get(&self, key: &DocumentKey, revision: Option<Revision>) -> Result<Document, DocumentError> {
        let accepted = self.just_accepted.get(key);
        let view = self.replica.view(key, revision).await?;
        let newer = accepted.filter(|accepted| view.latest.is_none_or(|latest| latest < accepted.revision));
        let latest = newer.map(|accepted| accepted.revision).max(view.latest);
        let document = |revision: Revision, state| Document {
            key: key.clone(),
            revision,
            state,
            latest: latest.map_or(revision, |latest| latest.max(revision)),
            live: view.live,
            lane: view.lane.clone().unwrap_or_default(),
        };
        let asked = revision.or(newer.map(|accepted| accepted.revision));
        let status = match (view.status, revision, newer) {
            // The latest status is not the latest revision.
            (Some(_), None, Some(_)) | (None, _, _) => None,
            (Some(status), _, _) => Some(status),
        };
        if let Some(status) = status {
            let revision = status.record.checked_revision().map_err(|_| DocumentError::Unknown)?;
            return Ok(document(revision, State::Status(Box::new(status))));
        }
        let asked = asked.ok_or(DocumentError::Unknown)?;
        let mine = accepted.filter(|accepted| accepted.revision == asked);
        if mine.is_none() && !self.is_in_log(key, asked, view.latest).await? {
            return Err(DocumentError::Unknown);
        }
        let accepted_at_ms = mine.map(|accepted| accepted.accepted_at_ms);
        Ok(document(asked, State::Accepted { accepted_at_ms }))
    }

    async fn is_in_log(
        &self,
        key: &DocumentKey,
        revision: Revision,
        latest_status: Option<Revision>,
    ) -> Result<bool, EndsError> {
        if latest_status.is_some_and(|latest| revision < latest) || revision.epoch() != i64::from(EPOCH.get()) {
            return Ok(false);
        }
        let (first, end) = self.ends.submitted(key).await?;
        Ok((first..end).contains(&revision.offset()))
    }

    /// The state now and at each change; states that pass quickly can be skipped, the last one never is. Ends when the
    /// revision asked for is final; without one it goes on until the caller leaves.
    pub async fn watch(
        &self,
        key: DocumentKey,
        revision: Option<Revision>,
    ) -> Result<impl Stream<Item = Result<Document, DocumentError>> + use<E>, DocumentError> {
        // Before the first look, so that no change falls between.
        let changes = self.replica.changes();
        let first = self.get(&key, revision).await?;
        let watch = Watch {
            documents: self.clone(),
            key,
            revision,
            changes,
            told: None,
            ended: false,
        };
        let first = Some(first);
        Ok(futures::stream::unfold(
            (watch, first),
            |(mut watch, first)| async move {
                let next = watch.next(first).await?;
                Some((next, (watch, None)))
            },
        ))
    }
}

struct Watch<E> {
    documents: Documents<E>,
    key: DocumentKey,
    revision: Option<Revision>,
    changes: broadcast::Receiver<DocumentKey>,
    told: Option<Document>,
    ended: bool,
}

impl<E: LogEnds> Watch<E> {
    async fn next(&mut self, first: Option<Document>) -> Option<Result<Document, DocumentError>> {
        if self.ended {
            return None;
        }
        let next = match first {
            Some(first) => Ok(first),
            None => self.changed().await,
        };
        self.ended = match &next {
            Ok(document) => self.revision.is_some() && document.is_final(),
            Err(_) => true,
        };
        self.told = next.as_ref().ok().cloned();
        Some(next)
    }

    async fn changed(&mut self) -> Result<Document, DocumentError> {
        let leaving = self.documents.leaving.clone();
        loop {
            let change = tokio::select! {
                biased;
                () = leaving.cancelled() => return Err(DocumentError::Leaving),
                change = self.changes.recv() => change,
            };
            match change {
                Ok(document) if document != self.key => continue,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(DocumentError::Leaving),
            }
            match self.documents.get(&self.key, self.revision).await {
                Ok(document) if self.told.as_ref() == Some(&document) => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
