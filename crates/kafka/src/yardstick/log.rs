//! Topics of a bench: filled, read to their end, and removed; and what a group has committed for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::{STARVED, YardstickError, failed};
use crate::config::{ConfigError, KafkaConfig};

const REQUEST: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// Counts the records that were not delivered.
#[derive(Default, Clone)]
struct Undelivered(Arc<AtomicU64>);

impl ClientContext for Undelivered {}

impl ProducerContext for Undelivered {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if delivery.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes records, and returns when all are acknowledged. Each goes to the given partition; their order is kept.
pub fn fill(
    kafka: &KafkaConfig,
    topic: &str,
    records: impl Iterator<Item = (i32, Vec<u8>, Vec<u8>)>,
) -> Result<(), YardstickError> {
    let undelivered = Undelivered::default();
    let producer: ThreadedProducer<Undelivered> = kafka
        .producer("millrace-bench")?
        .set("linger.ms", "20")
        .set("message.timeout.ms", "60000")
        .create_with_context(undelivered.clone())
        .map_err(ConfigError::Client)?;
    for (partition, key, value) in records {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(partition)
            .key(&key)
            .payload(&value);
        while let Err((error, unsent)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(failed("fill its topic")(error));
            }
            record = unsent;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while producer.in_flight_count() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    match undelivered.0.load(Ordering::Relaxed) {
        0 => Ok(()),
        lost => Err(YardstickError::Missing(format!(
            "{lost} records for {topic} were not delivered"
        ))),
    }
}

/// A record as a reader sees it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// When it was written, milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
}

/// Hands over every committed record that stands in a topic now; those of a partition in their order.
pub fn read(
    kafka: &KafkaConfig,
    topic: &str,
    partitions: i32,
    mut each: impl FnMut(Seen<'_>),
) -> Result<(), YardstickError> {
    let consumer: BaseConsumer = kafka
        .reader("millrace-bench-reader")?
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", "0")
        .create()
        .map_err(ConfigError::Client)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .map_err(failed("list partitions"))?;
    }
    consumer.assign(&list).map_err(failed("read its topic"))?;
    let mut ended = std::collections::BTreeSet::new();
    let mut silent = Duration::ZERO;
    while ended.len() < list.count() {
        match consumer.poll(POLL) {
            None => silent += POLL,
            Some(Ok(message)) => {
                silent = Duration::ZERO;
                each(Seen {
                    key: message.key().unwrap_or_default(),
                    value: message.payload().unwrap_or_default(),
                    timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
                });
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => return Err(failed("read its topic")(error)),
        }
        if silent > STARVED {
            return Err(YardstickError::Missing(format!("{topic} cannot be read to its end")));
        }
    }
    Ok(())
}

/// What a group has committed, as anybody may ask.
pub struct Committed {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl std::fmt::Debug for Committed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committed")
            .field("partitions", &self.partitions)
            .finish()
    }
}

impl Committed {
    /// Asks for one topic.
    pub fn of(kafka: &KafkaConfig, group: &str, topic: &str, partitions: i32) -> Result<Self, YardstickError> {
        let consumer = kafka
            .reader("millrace-bench-positions")?
            .set("group.id", group)
            // What is committed so far, without waiting for the end of a transaction that is open.
            .set("isolation.level", "read_uncommitted")
            .set("statistics.interval.ms", "0")
            .create()
            .map_err(ConfigError::Client)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        Ok(Self {
            consumer,
            partitions: list,
        })
    }

    /// By partition: the committed offset, and the metadata beside it; none where nothing is committed.
    pub fn now(&self) -> Result<Vec<Option<(i64, String)>>, YardstickError> {
        let committed = self
            .consumer
            .committed_offsets(self.partitions.clone(), REQUEST)
            .map_err(failed("ask for committed positions"))?;
        let mut positions = vec![None; self.partitions.count()];
        for element in committed.elements() {
            element.error().map_err(failed("ask for committed positions"))?;
            let slot = usize::try_from(element.partition()).ok();
            if let (Offset::Offset(at), Some(slot)) = (element.offset(), slot.and_then(|i| positions.get_mut(i))) {
                *slot = Some((at, element.metadata().to_owned()));
            }
        }
        Ok(positions)
    }
}

/// Removes topics and groups. What is left behind is only told: it harms nothing but the disk.
pub async fn remove(kafka: &KafkaConfig, topics: &[String], groups: &[String]) -> Result<(), YardstickError> {
    let admin: AdminClient<DefaultClientContext> = kafka.admin()?.create().map_err(ConfigError::Client)?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let (topics, groups): (Vec<&str>, Vec<&str>) = (
        topics.iter().map(String::as_str).collect(),
        groups.iter().map(String::as_str).collect(),
    );
    if !topics.is_empty() {
        let results = admin.delete_topics(&topics, &options).await;
        for (topic, code) in results
            .map_err(failed("delete topics"))?
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::warn!(topic, %code, "a topic of the bench could not be deleted");
        }
    }
    if !groups.is_empty() {
        let results = admin.delete_groups(&groups, &options).await;
        for (group, code) in results
            .map_err(failed("delete groups"))?
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::warn!(group, %code, "a group of the bench could not be deleted");
        }
    }
    Ok(())
}
