//! Reads a whole topic without a consumer group: for replicas that keep their own offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::config::{ConfigError, KafkaConfig};
use crate::convert;
use millrace_flow::Delivery;

const EVENTS: usize = 256;
const POLL: Duration = Duration::from_millis(100);
const REQUEST: Duration = Duration::from_secs(10);

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct TailConfig {
    /// The topic; all its partitions are read.
    pub topic: String,
    /// First offset wanted, by partition; a missing one starts at the beginning.
    pub starts: BTreeMap<i32, i64>,
}

/// What was read. Records of a partition come in order, committed ones only.
#[derive(Debug)]
pub enum TailEvent {
    /// A record.
    Record(Delivery),
    /// Everything committed that stood in the partition was handed over; comes again each time its end has moved.
    CaughtUp {
        /// The partition.
        partition: i32,
        /// Where reading goes on: the partition's end, transaction markers included.
        next_offset: i64,
    },
}

/// A running read. Dropping it ends the read.
#[derive(Debug)]
pub struct Tail {
    events: mpsc::Receiver<TailEvent>,
    closing: Arc<AtomicBool>,
}

impl Tail {
    /// The next event; waits for it, through outages too. None when the reader has died.
    pub async fn next(&mut self) -> Option<TailEvent> {
        self.events.recv().await
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}

/// Learns from the client's statistics where everything was handed over: they count transaction markers, which no record
/// tells of. Its callbacks run inside `poll`, behind every record handed over before.
struct Context {
    events: mpsc::Sender<TailEvent>,
    positions: Mutex<HashMap<i32, Seen>>,
}

/// What the last statistics said of a partition.
#[derive(Clone, Copy, PartialEq)]
struct Seen {
    next_offset: i64,
    told: bool,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let Ok(mut positions) = self.positions.lock() else {
            return;
        };
        for partition in statistics.topics.values().flat_map(|topic| topic.partitions.values()) {
            let next_offset = partition.next_offset;
            let at_end = partition.partition >= 0
                && partition.fetch_state == "active"
                && partition.fetchq_cnt == 0
                && partition.ls_offset >= 0
                && next_offset >= partition.ls_offset;
            let seen = positions.get(&partition.partition).copied();
            // Twice in a row: once could fall between a fetch and its hand-over.
            let told = match seen {
                Some(seen) if at_end && seen.next_offset == next_offset && !seen.told => {
                    let event = TailEvent::CaughtUp {
                        partition: partition.partition,
                        next_offset,
                    };
                    self.events.blocking_send(event).is_ok()
                }
                seen => seen.is_some_and(|seen| seen.told && seen.next_offset == next_offset),
            };
            positions.insert(partition.partition, Seen { next_offset, told });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Context {}

/// Starts reading on a thread of its own.
pub fn tail(kafka: &KafkaConfig, config: TailConfig) -> Result<Tail, ConfigError> {
    let (sender, events) = mpsc::channel(EVENTS);
    let context = Context {
        events: sender.clone(),
        positions: Mutex::default(),
    };
    let consumer: BaseConsumer<Context> = kafka
        .reader(&format!("millrace.tail.{}", config.topic))?
        .create_with_context(context)
        .map_err(ConfigError::Client)?;
    let closing = Arc::new(AtomicBool::new(false));
    let closed = closing.clone();
    let reader = std::thread::Builder::new().name(format!("tail-{}", config.topic));
    // Not joined: it ends by itself within a poll of the flag, or with the process.
    reader
        .spawn(move || {
            if let Err(error) = read(&consumer, &config, &sender, &closed) {
                tracing::error!(topic = config.topic, %error, "the topic cannot be read any further");
            }
        })
        .map_err(|error| ConfigError::Client(KafkaError::ClientCreation(error.to_string())))?;
    Ok(Tail { events, closing })
}

fn read(
    consumer: &BaseConsumer<Context>,
    config: &TailConfig,
    events: &mpsc::Sender<TailEvent>,
    closing: &AtomicBool,
) -> Result<(), KafkaError> {
    let Some(count) = partitions(consumer, &config.topic, closing) else {
        return Ok(());
    };
    let mut list = TopicPartitionList::new();
    for partition in 0..count {
        let start = config
            .starts
            .get(&partition)
            .map_or(Offset::Beginning, |at| Offset::Offset(*at));
        list.add_partition_offset(&config.topic, partition, start)?;
    }
    consumer.assign(&list)?;
    let topic: Arc<str> = config.topic.as_str().into();
    while !closing.load(Ordering::SeqCst) {
        let event = match consumer.poll(POLL) {
            None => continue,
            Some(Ok(message)) => TailEvent::Record(convert::delivery(&message, topic.clone())),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
            Some(Err(error)) => {
                tracing::warn!(topic = config.topic, %error, "reading goes on after an error");
                continue;
            }
        };
        // A slow reader makes this wait: there is no group that could mind.
        if events.blocking_send(event).is_err() {
            break;
        }
    }
    Ok(())
}

/// The topic's partition count; waits for the broker and for the topic.
fn partitions(consumer: &BaseConsumer<Context>, topic: &str, closing: &AtomicBool) -> Option<i32> {
    let mut told = false;
    while !closing.load(Ordering::SeqCst) {
        let found = consumer.fetch_metadata(Some(topic), REQUEST).ok().and_then(|metadata| {
            let topic = metadata.topics().first()?;
            (topic.error().is_none() && !topic.partitions().is_empty()).then(|| topic.partitions().len())
        });
        if let Some(count) = found {
            return i32::try_from(count).ok();
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                topic,
                "waiting for the topic: the broker is away or `millrace topics apply` has not run"
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    None
}
