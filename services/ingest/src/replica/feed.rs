//! The one owner of the store: feeds it from the topic, tells who waits or watches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use millrace_events::topics::Topic;
use millrace_events::{DocumentKey, Record};
use millrace_failpoints::points;
use millrace_flow::{Delivery, Failure};
use millrace_runtime::clock::now_ms;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::store::{Batch, Change, ChangeOf, Kept, Store, StoreError};
use crate::codec::RecordCodec;

/// Events applied in one transaction of the store.
const BATCH: usize = 512;
/// Between two waits for the disk: what a crash loses of the replica is read again.
const DURABLE_EVERY: Duration = Duration::from_secs(1);
/// Changes that a watcher may be behind; one that is further behind reads the state itself.
const CHANGES: usize = 1024;
/// Between two attempts to read a record that is waited for.
const RECORD_PAUSE: Duration = Duration::from_secs(1);
/// A replica that was last fed longer ago than this is read anew: tombstones may be gone from the topic by now
/// (Kafka keeps them for 24 hours).
const MAX_AGE_MS: i64 = 12 * 60 * 60 * 1000;

/// What the topic's reader hands over.
#[derive(Debug)]
pub enum Event {
    /// A record of the topic.
    Record(Delivery),
    /// A partition's end was reached.
    CaughtUp {
        /// The partition.
        partition: i32,
        /// Where reading goes on.
        next_offset: i64,
    },
}

/// Why a replica stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Its file failed.
    #[error("a replica stopped")]
    Store(#[from] StoreError),
    /// The reader of the topic died.
    #[error("reading {topic} ended")]
    Ended {
        /// The topic.
        topic: &'static str,
    },
}

/// How far the replica is.
#[derive(Debug, Clone, Default)]
struct Positions {
    /// Next offset by partition: everything below is applied.
    next: BTreeMap<i32, i64>,
    /// Partitions whose committed end was reached since the process started.
    complete: BTreeSet<i32>,
    /// Why the next record is not read yet, and whether somebody is away.
    waits: Option<(String, bool)>,
}

/// What a replica can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is not at the end that the process found.
    Reading,
    /// The next record cannot be read yet.
    Waiting {
        /// Why.
        why: String,
        /// Whether that is over when somebody comes back; else a person is needed.
        outage: bool,
    },
    /// All that stood in the topic at the start is in it, and it follows.
    Complete,
}

impl Positions {
    fn standing(&self, partitions: &BTreeSet<i32>) -> Standing {
        match &self.waits {
            Some((why, outage)) => Standing::Waiting {
                why: why.clone(),
                outage: *outage,
            },
            None if self.complete.is_superset(partitions) => Standing::Complete,
            None => Standing::Reading,
        }
    }
}

/// Reads a replica. Cheap to clone.
#[derive(Debug)]
pub struct Replica<T> {
    store: Store<T>,
    changes: broadcast::Sender<DocumentKey>,
    positions: watch::Receiver<Positions>,
}

impl<T> Clone for Replica<T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            changes: self.changes.clone(),
            positions: self.positions.clone(),
        }
    }
}

/// Feeds a replica; its only writer.
#[derive(Debug)]
pub struct Feed<T> {
    store: Store<T>,
    changes: broadcast::Sender<DocumentKey>,
    positions: watch::Sender<Positions>,
}

/// Puts a replica over a store.
pub fn replica<T: Kept>(store: Store<T>) -> (Replica<T>, Feed<T>) {
    let (changes, _) = broadcast::channel(CHANGES);
    let (sender, positions) = watch::channel(Positions::default());
    let feed = Feed {
        store: store.clone(),
        changes: changes.clone(),
        positions: sender,
    };
    let replica = Replica {
        store,
        changes,
        positions,
    };
    (replica, feed)
}

impl<T: Kept> Replica<T> {
    /// Documents whose state changed, from now on. A receiver that lags must read the state itself.
    pub fn changes(&self) -> broadcast::Receiver<DocumentKey> {
        self.changes.subscribe()
    }
    /// Tells watchers of a change that did not come through the topic.
    pub fn notify(&self, document: &DocumentKey) {
        // Nobody watching is no error.
        let _ = self.changes.send(document.clone());
    }
    /// Returns once everything of a partition below `end` has been applied. Where a transaction of somebody who died is
    /// open below `end`, that is after the broker has ended it.
    pub async fn reached(&self, partition: i32, end: i64) {
        self.wait(|at| end <= at.next.get(&partition).copied().unwrap_or(0))
            .await;
    }
    /// Returns once everything committed when the process started has been applied, of all these partitions.
    pub async fn complete(&self, partitions: &BTreeSet<i32>) {
        self.wait(|at| at.complete.is_superset(partitions)).await;
    }

    /// Whether [`Replica::complete`] would return at once.
    pub fn is_complete(&self, partitions: &BTreeSet<i32>) -> bool {
        self.positions.borrow().complete.is_superset(partitions)
    }

    /// How it stands, now or as soon as it stands otherwise than `before`.
    pub async fn standing(&self, partitions: &BTreeSet<i32>, before: Option<&Standing>) -> Standing {
        let stands = |at: &Positions| at.standing(partitions);
        self.wait(|at| Some(&stands(at)) != before).await;
        stands(&self.positions.borrow())
    }

    async fn wait(&self, there: impl FnMut(&Positions) -> bool) {
        if self.positions.clone().wait_for(there).await.is_err() {
            // The feed is gone and the process is ending: nobody may take this for "reached".
            std::future::pending().await
        }
    }

    /// Reads the store, on a thread that may block.
    pub(crate) async fn read<A: Send + 'static>(
        &self,
        read: impl FnOnce(&Store<T>) -> Result<A, StoreError> + Send + 'static,
    ) -> Result<A, StoreError> {
        blocking(&self.store, read).await
    }
}

impl<T: Kept> Feed<T> {
    const TOPIC: Topic = T::Record::TOPIC;

    /// Makes the stored offsets fit the topic as it is, and returns where to read from. `ends` holds first offset and
    /// end of each partition.
    ///
    /// | stored | topic | then |
    /// |---|---|---|
    /// | within first offset and end | | go on from there |
    /// | above the end, below the first offset | re-created, or shortened behind our back | forget all, read anew |
    /// | last fed 12 hours ago | tombstones may be missing | forget all, read anew |
    pub async fn starts(&self, ends: &BTreeMap<i32, (i64, i64)>) -> Result<BTreeMap<i32, i64>, StoreError> {
        let ends = ends.clone();
        let starts = blocking(&self.store, move |store| {
            let offsets = store.offsets()?;
            let saved_at_ms = store.saved_at_ms()?;
            let Some(why) = outdated(&offsets, &ends, saved_at_ms, now_ms()) else {
                return Ok(offsets);
            };
            tracing::warn!(topic = Self::TOPIC.name, why, "a replica is read anew");
            store.clear()?;
            Ok(BTreeMap::new())
        })
        .await?;
        self.positions.send_modify(|at| at.next = starts.clone());
        Ok(starts)
    }

    /// Applies events until `shutdown`.
    pub async fn run<C: RecordCodec>(
        self,
        events: impl Stream<Item = Event> + Send,
        codec: C,
        shutdown: CancellationToken,
    ) -> Result<(), ReplicaError> {
        let events = events.ready_chunks(BATCH);
        tokio::pin!(events);
        let mut durable_at = Instant::now();
        loop {
            let chunk = tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.apply(Applied::default(), true).await,
                chunk = events.next() => chunk.ok_or(ReplicaError::Ended { topic: Self::TOPIC.name })?,
            };
            let codec = Patient {
                codec: &codec,
                positions: &self.positions,
            };
            let Some(applied) = shutdown.run_until_cancelled(applied::<T, C>(chunk, codec)).await else {
                continue;
            };
            let durable = durable_at.elapsed() >= DURABLE_EVERY;
            self.apply(applied, durable).await?;
            if durable {
                durable_at = Instant::now();
            }
        }
    }

    async fn apply(&self, Applied { batch, complete }: Applied<T>, durable: bool) -> Result<(), ReplicaError> {
        let batch = blocking(&self.store, move |store| {
            store.apply(&batch, now_ms(), durable)?;
            Ok(batch)
        })
        .await?;
        if !batch.changes.is_empty() {
            points::REPLICA_APPLIED.reached();
        }
        self.positions.send_modify(|at| {
            at.next.extend(batch.offsets);
            at.complete.extend(complete);
        });
        for document in batch.changes.iter().filter_map(T::document) {
            // Nobody watching is no error.
            let _ = self.changes.send(document);
        }
        Ok(())
    }
}

async fn blocking<T: Kept, A: Send + 'static>(
    store: &Store<T>,
    work: impl FnOnce(&Store<T>) -> Result<A, StoreError> + Send + 'static,
) -> Result<A, StoreError> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.unwrap_or(Err(StoreError::Interrupted))
}

/// Events as changes.
struct Applied<T: Kept> {
    batch: Batch<ChangeOf<T>>,
    complete: BTreeSet<i32>,
}

impl<T: Kept> Default for Applied<T> {
    fn default() -> Self {
        Self {
            batch: Batch::default(),
            complete: BTreeSet::new(),
        }
    }
}

async fn applied<T: Kept, C: RecordCodec>(events: Vec<Event>, codec: Patient<'_, C>) -> Applied<T> {
    let mut applied = Applied::default();
    let batch = &mut applied.batch;
    for event in events {
        match event {
            Event::CaughtUp { partition, next_offset } => {
                applied.complete.insert(partition);
                batch.offsets.insert(partition, next_offset);
            }
            Event::Record(delivery) => {
                batch
                    .offsets
                    .insert(delivery.origin.partition, delivery.origin.offset + 1);
                batch.changes.extend(change::<T, C>(&delivery, codec).await);
            }
        }
    }
    applied
}

/// | record | change |
/// |---|---|
/// | a record under the key that it belongs to | put |
/// | no value | remove |
/// | unreadable, or under a key of another | none: said in the log, the rest goes on |
/// | of a schema that cannot be had, or not be read by this build | waited for: said in the log and by health |
async fn change<T: Kept, C: RecordCodec>(delivery: &Delivery, codec: Patient<'_, C>) -> Option<ChangeOf<T>> {
    let origin = &delivery.origin;
    let key = match delivery.key.as_deref().map(T::key) {
        Some(Ok(key)) => key,
        Some(Err(error)) => {
            tracing::warn!(%origin, %error, "skipped a record with an unusable key");
            return None;
        }
        None => {
            tracing::warn!(%origin, "skipped a record without a key");
            return None;
        }
    };
    let Some(value) = &delivery.value else {
        return Some(Change::Remove(key));
    };
    let record = match codec.decode::<T::Record>(value).await {
        Ok(record) => record,
        Err(failure) => {
            tracing::warn!(%origin, %failure, "skipped a record that cannot be read");
            return None;
        }
    };
    if T::key_of(&record).as_ref() != Ok(&key) {
        tracing::warn!(%origin, %key, "skipped a record that stands under another's key");
        return None;
    }
    Some(Change::Put {
        entry: Box::new(T::entry(record, delivery)),
        partition: origin.partition,
    })
}

/// Decodes, and waits for what is not the record's own fault, saying so.
struct Patient<'a, C> {
    codec: &'a C,
    positions: &'a watch::Sender<Positions>,
}

impl<C> Clone for Patient<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Patient<'_, C> {}

impl<C: RecordCodec> Patient<'_, C> {
    async fn decode<R: Record>(self, value: &Bytes) -> Result<R, Failure> {
        let mut waits = false;
        loop {
            let decoded = match self.codec.decode(value).await {
                Err(failure @ (Failure::Invalid { .. } | Failure::Failed { .. })) => Err(failure),
                Err(failure) => {
                    tracing::warn!(topic = R::TOPIC.name, %failure, "a replica waits");
                    let why = format!("a record of {} cannot be read yet: {failure}", R::TOPIC.name);
                    let outage = !matches!(failure, Failure::Config { .. });
                    self.positions.send_modify(|at| at.waits = Some((why, outage)));
                    waits = true;
                    tokio::time::sleep(RECORD_PAUSE).await;
                    continue;
                }
                Ok(record) => Ok(record),
            };
            if waits {
                self.positions.send_modify(|at| at.waits = None);
            }
            return decoded;
        }
    }
}

fn outdated(
    offsets: &BTreeMap<i32, i64>,
    ends: &BTreeMap<i32, (i64, i64)>,
    saved_at_ms: Option<i64>,
    now_ms: i64,
) -> Option<String> {
    for (partition, next) in offsets {
        match ends.get(partition) {
            Some((first, end)) if (first..=end).contains(&next) => {}
            Some((first, end)) => {
                return Some(format!(
                    "partition {partition} holds {first} to {end}, the replica stood at {next}"
                ));
            }
            None => return Some(format!("partition {partition} is gone")),
        }
    }
    let age_ms = now_ms - saved_at_ms?;
    (age_ms > MAX_AGE_MS).then(|| format!("it was last fed {} minutes ago", age_ms / 60_000))
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
