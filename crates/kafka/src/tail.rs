//! Reads a whole topic without a consumer group: for replicas that keep their own offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::statistics::Statistics;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::config::{ConfigError, KafkaConfig};
use crate::convert;
use crate::stalled;
use millrace_flow::Delivery;

const EVENTS: usize = 256;
const POLL: Duration = Duration::from_millis(100);
const REQUEST: Duration = Duration::from_secs(10);
/// Between two attempts to have a client.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// What the watch is told.
    seen: Arc<stalled::Seen>,
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
        self.seen.learn(&statistics, |_| true);
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
    let closing = Arc::new(AtomicBool::new(false));
    let mut reader = Reader {
        settings: kafka.reader(&format!("millrace.tail.{}", config.topic))?,
        topic: config.topic.as_str().into(),
        starts: config.starts,
        events: sender,
        closing: closing.clone(),
    };
    let first = reader.client().map_err(ConfigError::Client)?;
    let thread = std::thread::Builder::new().name(format!("tail-{}", config.topic));
    // Not joined: it ends by itself within a poll of the flag, or with the process.
    thread
        .spawn(move || {
            if let Err(error) = reader.run(first) {
                tracing::error!(topic = &*reader.topic, %error, "the topic cannot be read any further");
            }
        })
        .map_err(|error| ConfigError::Client(KafkaError::ClientCreation(error.to_string())))?;
    Ok(Tail { events, closing })
}

/// What the reading thread owns.
struct Reader {
    settings: ClientConfig,
    topic: Arc<str>,
    /// Where to read on, by partition.
    starts: BTreeMap<i32, i64>,
    events: mpsc::Sender<TailEvent>,
    closing: Arc<AtomicBool>,
}

/// Why reading with one client ended.
enum Ended {
    Closed,
    Stalled(String),
}

impl Reader {
    fn client(&self) -> Result<BaseConsumer<Context>, KafkaError> {
        self.settings.create_with_context(Context {
            events: self.events.clone(),
            positions: Mutex::default(),
            seen: Arc::default(),
        })
    }

    /// Another client; until there is one, or reading is over.
    fn another(&self) -> Option<BaseConsumer<Context>> {
        while !self.closing.load(Ordering::SeqCst) {
            match self.client() {
                Ok(client) => return Some(client),
                Err(error) => tracing::warn!(topic = &*self.topic, %error, "no client can be made"),
            }
            std::thread::sleep(PAUSE);
        }
        None
    }

    /// Reads until it is closed. A client that stalls is replaced by another one, which reads on.
    fn run(&mut self, first: BaseConsumer<Context>) -> Result<(), KafkaError> {
        let Some(partitions) = partitions(&first, &self.topic, &self.closing) else {
            return Ok(());
        };
        let watch = stalled::Watch::default();
        let mut client = Some(first);
        while let Some(reading) = client.take() {
            let watched = watch.begin(&self.settings, reading.context().seen.clone())?;
            if let Ended::Stalled(why) = self.read(&reading, partitions, &watched)? {
                tracing::warn!(topic = &*self.topic, why, "another client reads on");
                drop(reading);
                client = self.another();
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        consumer: &BaseConsumer<Context>,
        partitions: i32,
        watched: &stalled::Watched,
    ) -> Result<Ended, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let start = self.starts.get(&partition);
            let start = start.map_or(Offset::Beginning, |at| Offset::Offset(*at));
            list.add_partition_offset(&self.topic, partition, start)?;
        }
        consumer.assign(&list)?;
        while !self.closing.load(Ordering::SeqCst) {
            match consumer.poll(POLL) {
                None => watched.emptied(),
                Some(Ok(message)) => {
                    stalled::as_told(consumer, &message);
                    self.starts.insert(message.partition(), message.offset() + 1);
                    let record = TailEvent::Record(convert::delivery(&message, self.topic.clone()));
                    // A slow reader makes this wait: there is no group that could mind.
                    if self.events.blocking_send(record).is_err() {
                        break;
                    }
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
                Some(Err(error)) => {
                    tracing::warn!(topic = &*self.topic, %error, "reading goes on after an error");
                }
            }
            if let Some(why) = watched.stalled() {
                return Ok(Ended::Stalled(why));
            }
        }
        Ok(Ended::Closed)
    }
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
