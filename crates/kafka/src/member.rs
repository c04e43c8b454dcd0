//! A member of a consumer group: what its client calls back, and what waits to be told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::statistics::{self, Statistics};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use crate::joining::Joining;
use crate::positions::{AssignmentError, Offsets, committed, log_bounds, offset_of, position};
use crate::{convert, stalled, trace};
use millrace_failpoints::points;
use millrace_flow::log::Event;
use millrace_flow::{Delivery, TopicPartition};

/// Records handed over at once, and their bytes; the channel holds a few of such batches.
const BATCH_RECORDS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

pub(crate) type Member = BaseConsumer<Context>;

/// What the callbacks need. They run on the consumer thread, inside `poll`.
pub(crate) struct Context {
    group: String,
    events: mpsc::Sender<Event>,
    /// Counts changes of assignment, before they take effect.
    pub(crate) assignment: Arc<AtomicU64>,
    /// The assignment changed: what is paused must be told to librdkafka again.
    pub(crate) reassigned: AtomicBool,
    /// Why a callback could not do its work: the session must be replaced.
    pub(crate) broken: OnceLock<String>,
    /// What the watch is told.
    pub(crate) seen: Arc<stalled::Seen>,
    /// What only the consumer thread touches, in `poll` and in its callbacks.
    thread: Mutex<Thread>,
}

pub(crate) struct Thread {
    /// Polled and not handed over yet. Handed over before anything else is told: order matters.
    pub(crate) batch: Vec<Delivery>,
    batch_bytes: usize,
    /// The newest topic's name, shared by its records.
    topic: Option<Arc<str>>,
    pub(crate) paused: BTreeSet<TopicPartition>,
    /// By partition, where fetching stood when the client's statistics last said that nothing was left.
    pub(crate) ends: Offsets,
    pub(crate) joining: Joining,
}

impl Context {
    pub(crate) fn new(group: String, joining: Joining, events: mpsc::Sender<Event>) -> Self {
        Self {
            group,
            events,
            assignment: Arc::default(),
            reassigned: AtomicBool::new(false),
            broken: OnceLock::new(),
            seen: Arc::default(),
            thread: Mutex::new(Thread {
                batch: Vec::new(),
                batch_bytes: 0,
                topic: None,
                paused: BTreeSet::new(),
                ends: Offsets::new(),
                joining,
            }),
        }
    }

    pub(crate) fn thread(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the runner, behind every record that was polled before. False when it has hung up.
    ///
    /// The runner takes events without waiting for anything but room, for a moment each: heartbeats do not depend on it.
    pub(crate) fn tell(&self, event: Option<Event>) -> bool {
        let mut thread = self.thread();
        let records = std::mem::take(&mut thread.batch);
        thread.batch_bytes = 0;
        drop(thread);
        let records = (!records.is_empty()).then_some(Event::Records(records));
        records
            .into_iter()
            .chain(event)
            .all(|event| self.events.blocking_send(event).is_ok())
    }

    /// Adds a record to the batch. Whether it is full.
    pub(crate) fn add(&self, message: &BorrowedMessage<'_>) -> bool {
        let mut thread = self.thread();
        let topic = thread.topic.take().filter(|topic| **topic == *message.topic());
        let topic = topic.unwrap_or_else(|| message.topic().into());
        let mut delivery = convert::delivery(message, topic.clone());
        delivery.span = trace::process(&delivery, &self.group);
        thread.topic = Some(topic);
        thread.batch_bytes += delivery.size_bytes();
        thread.batch.push(delivery);
        thread.batch.len() >= BATCH_RECORDS || thread.batch_bytes >= BATCH_BYTES
    }

    fn assigned(&self, consumer: &Member, list: &TopicPartitionList) -> Result<(), AssignmentError> {
        let assignment = self.assignment.fetch_add(1, Ordering::SeqCst) + 1;
        let committed = committed(consumer, list).map_err(AssignmentError::of_positions)?;
        let low = log_bounds(consumer, list, Offset::Beginning).map_err(AssignmentError::Bounds)?;
        let high = log_bounds(consumer, list, Offset::End).map_err(AssignmentError::Bounds)?;
        let mut start = TopicPartitionList::new();
        let (mut partitions, mut ends) = (Vec::new(), Vec::new());
        for element in committed.elements() {
            let partition = convert::partition_of(&element);
            let bound = |of| offset_of(of, &partition).map_err(AssignmentError::Bounds);
            let (low, high) = (bound(&low)?, bound(&high)?);
            let position = position(element.offset(), element.metadata(), low, high);
            let offset = position
                .as_ref()
                .map_or(Offset::End, |position| Offset::Offset(position.offset));
            let added = start.add_partition_offset(&partition.topic, partition.partition, offset);
            added.map_err(AssignmentError::Client)?;
            ends.push((partition.clone(), high));
            partitions.push((partition, position));
        }
        points::ASSIGNED.reached();
        // Before any record of them can be polled.
        self.thread().ends.clear();
        self.tell(Some(Event::Assigned { assignment, partitions }));
        // What statistics say first may be of an earlier assignment of the same partition.
        for (partition, last_stable) in ends {
            self.tell(Some(Event::End {
                partition,
                last_stable,
                caught_up: None,
            }));
        }
        consumer.incremental_assign(&start).map_err(AssignmentError::Client)
    }

    fn revoked(&self, consumer: &Member, list: &TopicPartitionList) -> Result<(), AssignmentError> {
        let assignment = self.assignment.fetch_add(1, Ordering::SeqCst) + 1;
        let (done, ended) = oneshot::channel();
        let event = Event::Revoked {
            assignment,
            partitions: convert::partitions(list),
            lost: consumer.assignment_lost(),
            done,
        };
        if self.tell(Some(event)) {
            // The runner bounds its drain below the session timeout; its end drops the sender.
            let _ = ended.blocking_recv();
        }
        consumer.incremental_unassign(list).map_err(AssignmentError::Client)
    }
}

/// Whether everything of a partition was fetched and handed over. None while its end is not known: the client says so
/// with negative offsets, and counts what is nobody's under partition −1.
fn nothing_left(seen: &statistics::Partition) -> Option<bool> {
    let known = seen.partition >= 0 && seen.ls_offset >= 0 && seen.fetch_state == "active";
    known.then_some(seen.fetchq_cnt == 0 && seen.next_offset >= seen.ls_offset)
}

impl ClientContext for Context {
    /// The client's statistics count transaction markers, which no record tells of. A partition is caught up when they
    /// say so twice in a row: once could fall between a fetch and its hand-over. Nothing is said of one that is paused:
    /// pausing throws away what was fetched ahead.
    fn stats(&self, statistics: Statistics) {
        let mut ends = Vec::new();
        let mut thread = self.thread();
        if let Some(group) = &statistics.cgrp {
            thread.joining.learn(group);
        }
        self.seen
            .learn(&statistics, |partition| !thread.paused.contains(partition));
        for topic in statistics.topics.values() {
            for partition in topic.partitions.values() {
                let id = TopicPartition {
                    topic: topic.topic.as_str().into(),
                    partition: partition.partition,
                };
                let nothing_left = nothing_left(partition).map(|none| none && !thread.paused.contains(&id));
                let next = partition.next_offset;
                let before = match nothing_left {
                    Some(true) => thread.ends.insert(id.clone(), next),
                    _ => thread.ends.remove(&id),
                };
                if let Some(nothing_left) = nothing_left {
                    ends.push(Event::End {
                        partition: id,
                        last_stable: partition.ls_offset,
                        caught_up: (nothing_left && before == Some(next)).then_some(next),
                    });
                }
            }
        }
        drop(thread);
        ends.into_iter().all(|end| self.tell(Some(end)));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
        self.thread().joining.said(format_args!("{error} ({reason})"));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let done = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.thread().joining.let_in();
                self.assigned(consumer, list)
            }
            _ => {
                // Until what is given back has drained, no assignment can come.
                if !consumer.assignment_lost() {
                    self.thread().joining.let_in();
                }
                self.revoked(consumer, list)
            }
        };
        self.reassigned.store(true, Ordering::SeqCst);
        if let Err(error) = done {
            let why = format!("a change of assignment could not be carried out: {error}");
            // The first one ends the session, and is told then.
            if let Err(another) = self.broken.set(why) {
                tracing::warn!("{another}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_not_known_is_no_end() {
        let seen = |partition, ls_offset, fetch_state: &str, fetchq_cnt, next_offset| statistics::Partition {
            partition,
            ls_offset,
            fetch_state: fetch_state.into(),
            fetchq_cnt,
            next_offset,
            ..statistics::Partition::default()
        };
        for (seen, told) in [
            (seen(0, 7, "active", 0, 7), Some(true)),
            (seen(0, 7, "active", 0, 6), Some(false)),
            (seen(0, 7, "active", 1, 7), Some(false)),
            (seen(0, -1001, "active", 0, -1001), None),
            (seen(0, -1, "active", 0, 0), None),
            (seen(-1, 7, "active", 0, 7), None),
            (seen(0, 7, "offset-query", 0, 7), None),
        ] {
            assert_eq!(nothing_left(&seen), told, "{seen:?}");
        }
    }
}
