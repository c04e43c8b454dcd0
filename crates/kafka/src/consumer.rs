//! The consumer thread: polls, always; hands over what happens; carries assignments in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::statistics::{self, Statistics};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{convert, rival, stalled, trace};
use millrace_failpoints::points;
use millrace_flow::log::Event;
use millrace_flow::position::Position;
use millrace_flow::{Delivery, TopicPartition};

/// Longest time between two looks at what should be paused.
const POLL: Duration = Duration::from_millis(20);
/// One request for positions or watermarks.
const REQUEST: Duration = Duration::from_secs(5);
/// Records handed over at once, and their bytes; the channel holds a few of such batches.
const BATCH_RECORDS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// How often positions are asked for while another owner's transaction is still being written down.
const UNSTABLE_TRIES: u32 = 50;
const UNSTABLE_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at who holds the name of a member that was fenced, and how long nobody may say.
const LOOK: Duration = Duration::from_millis(500);
const NOBODY_SAYS: Duration = Duration::from_secs(300);

/// The client asks its group again after so long by itself: `max.poll.interval.ms`.
const LONGEST_JOIN: Duration = Duration::from_secs(600);

pub(crate) type Member = BaseConsumer<Context>;

/// How many members in a row were given no assignment, not even an empty one, and were replaced. Cheap to clone.
///
/// A request to join waits at the broker for the other members, so the client gives it ten minutes; an answer that was lost
/// meanwhile is waited for as long. Two sessions are enough for the others to come or to be missed. Who is replaced and is
/// still not answered gets twice the time: a group that is merely slow gets through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unanswered(Arc<AtomicU32>);

impl Unanswered {
    fn patience(&self, session: Duration) -> Duration {
        let doubled = 1_u32.checked_shl(self.0.load(Ordering::SeqCst) + 1);
        session.saturating_mul(doubled.unwrap_or(u32::MAX)).min(LONGEST_JOIN)
    }

    fn answered(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    fn given_up(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Who a consumer is in its group.
pub(crate) struct Name {
    pub(crate) group: String,
    pub(crate) instance: String,
    /// For how long it may be silent.
    pub(crate) session: Duration,
    /// Those of this name before it.
    pub(crate) unanswered: Unanswered,
}

/// What the callbacks need. They run on the consumer thread, inside `poll`.
pub(crate) struct Context {
    group: String,
    events: mpsc::Sender<Event>,
    /// Counts changes of assignment, before they take effect.
    pub(crate) assignment: Arc<AtomicU64>,
    /// The assignment changed: what is paused must be told to librdkafka again.
    reassigned: AtomicBool,
    /// Why a callback could not do its work: the session must be replaced.
    broken: OnceLock<String>,
    /// What the watch is told.
    pub(crate) seen: Arc<stalled::Seen>,
    /// What only the consumer thread touches, in `poll` and in its callbacks.
    thread: Mutex<Thread>,
}

#[derive(Default)]
struct Thread {
    /// Polled and not handed over yet. Handed over before anything else is told: order matters.
    batch: Vec<Delivery>,
    batch_bytes: usize,
    /// The newest topic's name, shared by its records.
    topic: Option<Arc<str>>,
    paused: BTreeSet<TopicPartition>,
    /// By partition, where fetching stood when the client's statistics last said that nothing was left.
    ends: Offsets,
}

impl Context {
    pub(crate) fn new(group: String, events: mpsc::Sender<Event>) -> Self {
        Self {
            group,
            events,
            assignment: Arc::default(),
            reassigned: AtomicBool::new(false),
            broken: OnceLock::new(),
            seen: Arc::default(),
            thread: Mutex::default(),
        }
    }

    fn thread(&self) -> MutexGuard<'_, Thread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the runner, behind every record that was polled before. False when it has hung up.
    ///
    /// The runner takes events without waiting for anything but room, for a moment each: heartbeats do not depend on it.
    fn tell(&self, event: Option<Event>) -> bool {
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
    fn add(&self, message: &BorrowedMessage<'_>) -> bool {
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

    fn assigned(&self, consumer: &Member, list: &TopicPartitionList) -> Result<(), Unchanged> {
        let assignment = self.assignment.fetch_add(1, Ordering::SeqCst) + 1;
        let committed = committed(consumer, list).map_err(Unchanged::Positions)?;
        let low = log_bounds(consumer, list, Offset::Beginning).map_err(Unchanged::Bounds)?;
        let high = log_bounds(consumer, list, Offset::End).map_err(Unchanged::Bounds)?;
        let mut start = TopicPartitionList::new();
        let (mut partitions, mut ends) = (Vec::new(), Vec::new());
        for element in committed.elements() {
            let partition = convert::partition_of(&element);
            let bound = |of| offset_of(of, &partition).map_err(Unchanged::Bounds);
            let (low, high) = (bound(&low)?, bound(&high)?);
            let position = position(element.offset(), element.metadata(), low, high);
            let offset = position
                .as_ref()
                .map_or(Offset::End, |position| Offset::Offset(position.offset));
            start.add_partition_offset(&partition.topic, partition.partition, offset)?;
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
        Ok(consumer.incremental_assign(&start)?)
    }

    fn revoked(&self, consumer: &Member, list: &TopicPartitionList) -> Result<(), Unchanged> {
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
        Ok(consumer.incremental_unassign(list)?)
    }
}

/// Why a change of assignment could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Unchanged {
    /// Kafka tells a position only once the transaction that writes it has ended.
    #[error(
        "committed positions of the consumer group could not be read ({0}); where this goes on and the broker is well, a \
         transaction of the group has no end: look for it with kafka-transactions.sh find-hanging"
    )]
    Positions(KafkaError),
    #[error("where partitions begin and end could not be asked ({0})")]
    Bounds(KafkaError),
    #[error("the client refused the partitions ({0})")]
    Client(#[from] KafkaError),
}

/// The positions committed for partitions. An error of one partition is never taken for "nothing committed": that would
/// process it again from its beginning.
fn committed(consumer: &Member, list: &TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
    for _ in 0..UNSTABLE_TRIES {
        let committed = consumer.committed_offsets(list.clone(), REQUEST)?;
        let failed = committed.elements().iter().find_map(|element| element.error().err());
        match failed {
            None => return Ok(committed),
            Some(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnstableOffsetCommit) => {
                std::thread::sleep(UNSTABLE_PAUSE);
            }
            Some(error) => return Err(error),
        }
    }
    Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnstableOffsetCommit))
}

/// By partition, an offset, or why its leader tells none.
type Bounds = Vec<(TopicPartition, Result<i64, KafkaError>)>;

/// Offsets by partition.
pub(crate) type Offsets = BTreeMap<TopicPartition, i64>;

/// The first, or the next stable, offset of partitions: one request to each of their leaders, however many they are.
fn log_bounds(consumer: &Member, list: &TopicPartitionList, bound: Offset) -> Result<Offsets, KafkaError> {
    // A change of assignment that gives nothing: the client takes an empty question for an error.
    if list.count() == 0 {
        return Ok(Offsets::new());
    }
    bounds(consumer, list, bound)?
        .into_iter()
        .map(|(partition, bound)| Ok((partition, bound?)))
        .collect()
}

/// The same for whichever partitions can be told; −1 where a log has none.
pub(crate) fn bounds<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
    bound: Offset,
) -> Result<Bounds, KafkaError> {
    let mut asked = list.clone();
    asked.set_all_offsets(bound)?;
    let answered = consumer.offsets_for_times(asked, REQUEST)?;
    let bounds = answered.elements().into_iter().map(|element| {
        let offset = element.error().map(|()| element.offset().to_raw().unwrap_or(-1));
        (convert::partition_of(&element), offset)
    });
    Ok(bounds.collect())
}

fn offset_of(offsets: &Offsets, partition: &TopicPartition) -> Result<i64, KafkaError> {
    let known = offsets.get(partition).copied().filter(|offset| *offset >= 0);
    known.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))
}

/// Where a partition starts.
///
/// | committed | log | start |
/// |---|---|---|
/// | nothing | any | its beginning |
/// | within the log | any | there, with what its metadata says |
/// | below the log's start | records are gone | stopped: `LOST_RANGE` |
/// | above the log's end | the log was re-created | stopped: `LOG_RECREATED` |
/// | unreadable metadata | any | stopped: guessing would repeat or skip records |
fn position(committed: Offset, metadata: &str, low: i64, high: i64) -> Result<Position, String> {
    match committed {
        Offset::Offset(at) if at < low => Err(format!(
            "LOST_RANGE: committed position {at} lies below the log's start {low}: {} records were deleted by retention \
             before they were processed; reset the group's offset to {low} to go on without them",
            low - at
        )),
        Offset::Offset(at) if at > high => Err(format!(
            "LOG_RECREATED: committed position {at} lies above the log's end {high}: the topic was re-created; \
             start the next epoch, or reset the group's offsets"
        )),
        Offset::Offset(at) => {
            Position::parse(at, metadata).map_err(|error| format!("OFFSET_METADATA at offset {at}: {error}"))
        }
        _ => Ok(Position::at(low)),
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
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let done = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ => self.revoked(consumer, list),
        };
        self.reassigned.store(true, Ordering::SeqCst);
        if let Err(error) = done {
            // The first one counts; the session ends with it, which is told.
            let _ = self
                .broken
                .set(format!("a change of assignment could not be carried out: {error}"));
        }
    }
}

/// Polls until told to close, or until the consumer cannot go on; then says why.
///
/// | what `poll` says | then |
/// |---|---|
/// | fenced | it is found out by whom ([`rival`]): by another process, and the stage ends; by itself, and a new session begins |
/// | another fatal error, or a callback that failed | a new session |
/// | nothing more of a partition whose log goes on ([`stalled`]) | a new session |
/// | nothing, and no assignment ([`Unanswered`]) | a new session |
/// | the position is out of the log's range | a new session, which finds out and stops that partition |
/// | any other error | librdkafka goes on by itself |
pub(crate) fn poll(
    consumer: &Member,
    name: &Name,
    mut wanted: watch::Receiver<BTreeSet<TopicPartition>>,
    closing: &AtomicBool,
    watched: &stalled::Watched,
) {
    use KafkaError::{MessageConsumption, MessageConsumptionFatal};
    use RDKafkaErrorCode::{
        AllBrokersDown, AutoOffsetReset, BrokerTransportFailure, FencedInstanceId, OffsetOutOfRange,
    };
    let context = consumer.context().clone();
    let (mut full, began) = (false, Instant::now());
    let patience = name.unanswered.patience(name.session);
    let mut answered = false;
    let ended = loop {
        if closing.load(Ordering::SeqCst) {
            return;
        }
        if !answered && context.assignment.load(Ordering::SeqCst) > 0 {
            answered = true;
            name.unanswered.answered();
        }
        if !answered && began.elapsed() > patience {
            name.unanswered.given_up();
            let seconds = patience.as_secs();
            break Event::Ended(format!(
                "the consumer group has not answered a request to join for {seconds} s"
            ));
        }
        if let Some(why) = context.broken.get() {
            break Event::Ended(why.clone());
        }
        let reassigned = context.reassigned.swap(false, Ordering::SeqCst);
        if reassigned || wanted.has_changed().unwrap_or(false) {
            let wanted = wanted.borrow_and_update().clone();
            let mut thread = context.thread();
            thread.ends.clear();
            let paused = std::mem::replace(&mut thread.paused, wanted.clone());
            drop(thread);
            if let Err(error) = pause(consumer, &paused, &wanted, reassigned) {
                break Event::Ended(format!("partitions could not be paused or resumed: {error}"));
            }
        }
        // What is at hand already goes with the batch; only an empty one is waited for.
        let waiting = !full && !context.thread().batch.is_empty();
        if full && !context.tell(None) {
            return;
        }
        full = match consumer.poll(if waiting { Duration::ZERO } else { POLL }) {
            None => {
                watched.emptied();
                waiting
            }
            Some(Ok(message)) => {
                stalled::as_told(consumer, &message);
                context.add(&message)
            }
            Some(Err(MessageConsumptionFatal(FencedInstanceId))) => {
                let replaced = Event::Replaced("the consumer group gave this instance's name to another member".into());
                match context
                    .tell(Some(replaced))
                    .then(|| fenced(consumer, name, closing))
                    .flatten()
                {
                    Some(ended) => break ended,
                    None => return,
                }
            }
            Some(Err(MessageConsumptionFatal(code))) => {
                break Event::Ended(format!("the consumer cannot go on: {code}"));
            }
            Some(Err(MessageConsumption(code @ (AutoOffsetReset | OffsetOutOfRange)))) => {
                break Event::Ended(format!("a position lies outside of its log: {code}"));
            }
            // The client's own callback has told it.
            Some(Err(MessageConsumption(AllBrokersDown | BrokerTransportFailure))) => false,
            Some(Err(error)) => {
                tracing::warn!(%error, "the consumer goes on after an error");
                false
            }
        };
        if let Some(stalled) = watched.stalled() {
            break Event::Ended(stalled);
        }
    };
    // A runner that has hung up knows already.
    context.tell(Some(ended));
}

/// Finds out by whom a member was fenced. None when that does not matter any more.
fn fenced(consumer: &Member, name: &Name, closing: &AtomicBool) -> Option<Event> {
    let (mut watch, asked) = (rival::Watch::new(name.session), Instant::now());
    while !closing.load(Ordering::SeqCst) {
        let held = match consumer.fetch_group_list(Some(&name.group), REQUEST) {
            Ok(list) => Some(list.groups().iter().any(|group| rival::is_held(group, &name.instance))),
            Err(error) => {
                tracing::warn!(%error, "fenced, and the consumer group does not say by whom");
                None
            }
        };
        match watch.seen(held, Instant::now()) {
            Some(rival::By::Rival) => {
                return Some(Event::Fenced(
                    "another process with the same instance name is in the consumer group".into(),
                ));
            }
            Some(rival::By::Itself) => {
                return Some(Event::Ended("the consumer was fenced by a join of its own".into()));
            }
            None if asked.elapsed() > NOBODY_SAYS => {
                return Some(Event::Ended(
                    "the consumer was fenced, and nobody could say by whom".into(),
                ));
            }
            None => std::thread::sleep(LOOK),
        }
    }
    None
}

fn pause(
    consumer: &Member,
    paused: &BTreeSet<TopicPartition>,
    wanted: &BTreeSet<TopicPartition>,
    reassigned: bool,
) -> Result<(), KafkaError> {
    let held: BTreeSet<TopicPartition> = convert::partitions(&consumer.assignment()?).into_iter().collect();
    let changes = |from: &BTreeSet<TopicPartition>, to: &BTreeSet<TopicPartition>| {
        let stays = |p: &TopicPartition| !reassigned && from.contains(p);
        convert::list(to.intersection(&held).filter(|p| !stays(p)))
    };
    let running: BTreeSet<TopicPartition> = held.difference(wanted).cloned().collect();
    let was_running: BTreeSet<TopicPartition> = held.difference(paused).cloned().collect();
    for (list, stop) in [
        (changes(paused, wanted), true),
        (changes(&was_running, &running), false),
    ] {
        match (list.count(), stop) {
            (0, _) => {}
            (_, true) => consumer.pause(&list)?,
            (_, false) => consumer.resume(&list)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_answered_gets_twice_the_time_until_it_is() {
        let (unanswered, session) = (Unanswered::default(), Duration::from_secs(30));
        let seconds = || unanswered.patience(session).as_secs();
        let waits: Vec<u64> = (0..40).map(|_| (seconds(), unanswered.given_up()).0).collect();
        assert_eq!(waits[..6], [60, 120, 240, 480, 600, 600]);
        assert_eq!(waits.last(), Some(&600));
        unanswered.answered();
        assert_eq!(seconds(), 60);
    }

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

    #[test]
    fn each_row_of_the_table() {
        assert_eq!(position(Offset::Invalid, "", 5, 9), Ok(Position::at(5)));
        assert_eq!(position(Offset::Offset(7), "", 5, 9), Ok(Position::at(7)));
        let with_bitmap = position(Offset::Offset(5), "1;s=0;o=;a=0;b=AQ", 5, 9).unwrap();
        assert!(with_bitmap.finished.contains(&6) && !with_bitmap.finished.contains(&7));
        assert!(
            position(Offset::Offset(4), "", 5, 9)
                .unwrap_err()
                .starts_with("LOST_RANGE")
        );
        assert!(
            position(Offset::Offset(10), "", 5, 9)
                .unwrap_err()
                .starts_with("LOG_RECREATED")
        );
        assert!(
            position(Offset::Offset(7), "9;", 5, 9)
                .unwrap_err()
                .starts_with("OFFSET_METADATA")
        );
    }
}
