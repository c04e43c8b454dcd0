//! What `millrace bench` measures the stage runtime against: the same work in the fewest lines that this client allows.
//!
//! [`bare_loop`] consumes, transforms and produces on one thread, exactly once, with the stage's own client settings.
//! It has no window, no concurrency and no drain: what it reaches is what the client and the broker give.
//! [`BareTransaction`] writes one record in a transaction. [`log`] fills, reads and removes the topics around them.
//!
//! No service uses this module.

pub mod log;

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::Offset;
use rdkafka::util::Timeout;

use crate::config::{ConfigError, KafkaConfig};

const REQUEST: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Between two looks for delivery reports.
const REPORTS: Duration = Duration::from_micros(200);
/// A loop that is given nothing for so long will be given nothing.
const STARVED: Duration = Duration::from_secs(30);
const TRANSACTION_AGE: Duration = Duration::from_millis(100);
const TRANSACTION_RECORDS: usize = 1000;

/// A yardstick that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum YardstickError {
    /// The settings are not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client or the broker refused.
    #[error("the bench's own client cannot {operation}")]
    Call {
        /// What was tried.
        operation: &'static str,
        /// What the client said.
        source: KafkaError,
    },
    /// Records that should be there did not come.
    #[error("{0}")]
    Missing(String),
}

pub(crate) fn failed(operation: &'static str) -> impl FnOnce(KafkaError) -> YardstickError {
    move |source| YardstickError::Call { operation, source }
}

/// A [`bare_loop`]'s work.
#[derive(Debug, Clone)]
pub struct LoopConfig {
    /// Consumer group.
    pub group: String,
    /// Static member, and with the group the transactional id.
    pub instance: String,
    /// Topic to read.
    pub input: String,
    /// Topic to write.
    pub output: String,
    /// Ends after so many; none goes on for ever.
    pub records: Option<u64>,
}

/// What a [`bare_loop`] took.
#[derive(Debug, Clone, Copy)]
pub struct LoopReport {
    /// From the first record polled to the last commit.
    pub took: Duration,
    /// Transactions committed.
    pub transactions: u64,
}

/// Consumes, transforms, produces; a transaction every 100 ms or 1,000 records, whichever comes first.
///
/// `transform` writes the output's value into the buffer, or leaves it empty to pass the input's value on.
pub fn bare_loop(
    kafka: &KafkaConfig,
    config: &LoopConfig,
    mut transform: impl FnMut(&[u8], &mut Vec<u8>),
) -> Result<LoopReport, YardstickError> {
    let producer = transactional(kafka, &format!("{}.{}", config.group, config.instance))?;
    let consumer: BaseConsumer = kafka
        .member(&config.group, &config.instance)?
        .set("auto.offset.reset", "earliest")
        .create()
        .map_err(ConfigError::Client)?;
    consumer.subscribe(&[&config.input]).map_err(failed("subscribe"))?;
    let wanted = config.records.unwrap_or(u64::MAX);
    let (mut got, mut transactions) = (0, 0);
    let mut buffer = Vec::new();
    let mut first = None;
    let mut heard = Instant::now();
    while got < wanted {
        let Some(message) = consumer.poll(POLL) else {
            if config.records.is_some() && heard.elapsed() > STARVED {
                return Err(YardstickError::Missing(format!(
                    "the bare loop got {got} of {wanted} records"
                )));
            }
            continue;
        };
        let began = Instant::now();
        first.get_or_insert(began);
        producer.begin_transaction().map_err(failed("begin a transaction"))?;
        let mut ends = std::collections::HashMap::new();
        let (mut records, mut next) = (0, Some(message));
        loop {
            if let Some(message) = next.take() {
                let message = message.map_err(failed("poll"))?;
                buffer.clear();
                let value = message.payload().unwrap_or_default();
                transform(value, &mut buffer);
                let value = if buffer.is_empty() { value } else { &buffer };
                send(&producer, &config.output, message.key().unwrap_or_default(), value)?;
                ends.insert(message.partition(), message.offset() + 1);
                records += 1;
                got += 1;
            }
            if records >= TRANSACTION_RECORDS || got >= wanted || began.elapsed() >= TRANSACTION_AGE {
                break;
            }
            next = consumer.poll(POLL);
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, end) in &ends {
            offsets
                .add_partition_offset(&config.input, *partition, Offset::Offset(*end))
                .map_err(failed("list offsets"))?;
        }
        let missing = || YardstickError::Missing("the bare loop is not a member of its group".into());
        let member = consumer.group_metadata().ok_or_else(missing)?;
        producer
            .send_offsets_to_transaction(&offsets, &member, REQUEST)
            .map_err(failed("send offsets to a transaction"))?;
        commit(&producer)?;
        transactions += 1;
        heard = Instant::now();
    }
    Ok(LoopReport {
        took: first.map_or(Duration::ZERO, |first| first.elapsed()),
        transactions,
    })
}

/// A transactional producer that writes one record at a time.
pub struct BareTransaction {
    producer: BaseProducer,
    topic: String,
}

impl std::fmt::Debug for BareTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareTransaction").field("topic", &self.topic).finish()
    }
}

impl BareTransaction {
    /// Ready for [`Self::write`].
    pub fn new(kafka: &KafkaConfig, transactional_id: &str, topic: &str) -> Result<Self, YardstickError> {
        Ok(Self {
            producer: transactional(kafka, transactional_id)?,
            topic: topic.to_owned(),
        })
    }

    /// Begins, writes one record, commits; returns when that is done.
    pub fn write(&self, key: &[u8], value: &[u8]) -> Result<(), YardstickError> {
        self.producer
            .begin_transaction()
            .map_err(failed("begin a transaction"))?;
        send(&self.producer, &self.topic, key, value)?;
        commit(&self.producer)
    }
}

fn transactional(kafka: &KafkaConfig, transactional_id: &str) -> Result<BaseProducer, YardstickError> {
    let producer: BaseProducer = kafka
        .transactional_producer(transactional_id)?
        .create()
        .map_err(ConfigError::Client)?;
    producer
        .init_transactions(Duration::from_secs(60))
        .map_err(failed("make its transactional producer ready"))?;
    Ok(producer)
}

fn send(producer: &BaseProducer, topic: &str, key: &[u8], value: &[u8]) -> Result<(), YardstickError> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(key).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                record = unsent;
                producer.poll(Duration::ZERO);
                std::thread::sleep(REPORTS);
            }
            Err((error, _)) => return Err(failed("produce")(error)),
        }
    }
}

/// The client's own flush, with which its commit begins, waits 100 ms at a time whatever happens meanwhile: that would
/// make a yardstick that is easily beaten. So the reports are taken first, and the flush finds nothing to do.
fn commit(producer: &BaseProducer) -> Result<(), YardstickError> {
    loop {
        producer.poll(Duration::ZERO);
        if producer.in_flight_count() == 0 {
            break;
        }
        std::thread::sleep(REPORTS);
    }
    producer
        .commit_transaction(Timeout::Never)
        .map_err(failed("commit a transaction"))
}
