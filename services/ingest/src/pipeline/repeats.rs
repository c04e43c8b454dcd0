//! Commands that carry a request id which had its effect already.
//!
//! Two sources: the replica knows what all processes parsed; it lags, so this process also remembers what it parsed
//! itself. A partition that comes from another process waits once until the replica has reached the status topic's end:
//! everything that the previous owner committed stands below it.
//!
//! Limits: a request id is remembered for 24 hours after its acceptance. Within one process the newest
//! [`REMEMBERED`] are, beyond what the replica has read. A partition that is lost and comes back between two looks at
//! the assignment (a second) skips the wait; a repeat is then missed only if the replica lags behind that.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_events::{DocumentKey, RequestId, Revision};
use millrace_flow::Failure;
use millrace_flow::progress::ProgressReader;

use crate::log::LogEnds;
use crate::recent::Recent;
use crate::status::store::REQUEST_ID_TTL_MS;
use crate::status::{DocumentView, Replica, StoreError};

/// Request ids that a process remembers beside the replica.
pub const REMEMBERED: usize = 100_000;
const CATCH_UP: Duration = Duration::from_secs(20);

/// Knows which request ids had their effect.
#[derive(Debug)]
pub struct Repeats<E> {
    replica: Replica,
    ends: E,
    parsed: Mutex<Recent<(DocumentKey, RequestId), First>>,
    caught_up: Mutex<BTreeSet<i32>>,
}

#[derive(Debug, Clone, Copy)]
struct First {
    revision: Revision,
    accepted_at_ms: i64,
}

/// A command that carries a request id.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its document.
    pub document: &'a DocumentKey,
    /// Its request id.
    pub id: RequestId,
    /// Its own revision.
    pub revision: Revision,
    /// When it was accepted.
    pub accepted_at_ms: i64,
    /// Partition that it came from; the document's in every topic.
    pub partition: i32,
}

impl<E: LogEnds> Repeats<E> {
    /// Nothing parsed yet.
    pub fn new(replica: Replica, ends: E) -> Self {
        Self {
            replica,
            ends,
            parsed: Mutex::new(Recent::new(REMEMBERED)),
            caught_up: Mutex::new(BTreeSet::new()),
        }
    }

    /// The earlier revision that holds the effect of this request, if there is one.
    pub async fn first(&self, request: Request<'_>) -> Result<Option<Revision>, Failure> {
        let earlier = |first: First| {
            let in_time = request.accepted_at_ms - first.accepted_at_ms <= REQUEST_ID_TTL_MS;
            (first.revision < request.revision && in_time).then_some(first.revision)
        };
        let key = (request.document.clone(), request.id);
        let parsed = locked(&self.parsed).get(&key).copied();
        if let Some(revision) = parsed.and_then(earlier) {
            return Ok(Some(revision));
        }
        self.catch_up(request.partition).await?;
        let known = self
            .replica
            .request(request.document, request.id, request.accepted_at_ms);
        let known = known.await.map_err(replica_failed)?;
        let first = known.and_then(|status| {
            Some(First {
                revision: status.record.checked_revision().ok()?,
                accepted_at_ms: status.record.accepted_at_ms,
            })
        });
        Ok(first.and_then(earlier))
    }

    /// What all processes made of a document, but for what this one has just done.
    pub async fn view(&self, document: &DocumentKey, partition: i32) -> Result<DocumentView, Failure> {
        self.catch_up(partition).await?;
        self.replica.view(document, None).await.map_err(replica_failed)
    }

    /// Remembers a command that was parsed.
    pub fn parsed(&self, request: Request<'_>) {
        let first = First {
            revision: request.revision,
            accepted_at_ms: request.accepted_at_ms,
        };
        locked(&self.parsed).insert((request.document.clone(), request.id), first);
    }

    /// Partitions that this process holds now: one that is not among them waits again when it comes back.
    pub fn assigned(&self, partitions: &BTreeSet<i32>) {
        locked(&self.caught_up).retain(|partition| partitions.contains(partition));
    }

    #[cfg(test)]
    pub(crate) fn ends_for_test(&mut self, ends: E) {
        self.ends = ends;
    }

    async fn catch_up(&self, partition: i32) -> Result<(), Failure> {
        if locked(&self.caught_up).contains(&partition) {
            return Ok(());
        }
        // The replica waits for brokers and registry, on behalf of all records: no single one is to blame.
        let away = |message: String| Failure::Away {
            reason: "STATUS_REPLICA_BEHIND",
            message,
        };
        let end = self
            .ends
            .status_end(partition)
            .await
            .map_err(|error| away(error.to_string()))?;
        let reached = tokio::time::timeout(CATCH_UP, self.replica.reached(partition, end)).await;
        reached.map_err(|_| {
            away(format!(
                "the status replica has not reached {end} of partition {partition} yet"
            ))
        })?;
        locked(&self.caught_up).insert(partition);
        Ok(())
    }
}

/// Tells which partitions the stage lost, so that it looks again at what others did with them.
pub async fn follow_assignment<E: LogEnds>(
    mut seen: ProgressReader,
    repeats: Arc<Repeats<E>>,
) -> Result<(), Infallible> {
    loop {
        let held: BTreeSet<i32> = seen
            .borrow_and_update()
            .partitions
            .iter()
            .map(|p| p.partition)
            .collect();
        repeats.assigned(&held);
        if seen.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn replica_failed(error: StoreError) -> Failure {
    Failure::Away {
        reason: "STATUS_REPLICA_FAILED",
        message: millrace_rpc::error::chain(&error),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
