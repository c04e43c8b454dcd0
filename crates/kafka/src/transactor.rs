//! The producer thread: carries out one transaction at a time. Every call of the transactional interface blocks, which
//! is why it has a thread of its own.
//!
//! Order of steps: take the group's metadata, check that the assignment is still the one under which the transaction
//! was cut, send, commit. Metadata taken before the check is of that assignment or older, so the broker refuses a
//! commit of a zombie; metadata taken after it could be of a newer one and would let it pass.
//!
//! | what a call answers | what happens |
//! |---|---|
//! | retriable | the same call again: the outcome of a commit is asked for until it is known |
//! | needs an abort | abort; the runtime sends the same again from memory |
//! | fatal | this producer is over: a new session starts from committed positions |

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::util::Timeout;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::consumer::Member;
use crate::convert;
use millrace_flow::Output;
use millrace_flow::core::Transaction;
use millrace_flow::log::{Commit, Outcome};

/// A poll thread of its own serves delivery reports: commit and abort wait for them.
pub(crate) type TransactionalProducer = ThreadedProducer<DefaultProducerContext>;

const REQUEST: Duration = Duration::from_secs(10);

/// Why a transaction did not commit.
enum Stop {
    /// Abort and send again.
    Abort(String),
    /// A new session is needed.
    Fatal(String),
}

/// Makes the transactional id this process's own: whoever used it before is fenced, and its open transaction aborted.
/// Waits for the coordinator as long as nobody asks to leave.
pub(crate) fn init(producer: &TransactionalProducer, leaving: &CancellationToken) -> Result<(), KafkaError> {
    loop {
        match producer.init_transactions(REQUEST) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !leaving.is_cancelled() => {
                tracing::info!(error = %error.string(), "waiting for the transaction coordinator");
            }
            other => return other,
        }
    }
}

/// Carries out transactions until the runtime hangs up.
pub(crate) fn run(
    producer: &TransactionalProducer,
    consumer: &Weak<Member>,
    assignment: &Arc<AtomicU64>,
    commits: &mut mpsc::Receiver<Commit>,
) {
    while let Some((transaction, reply)) = commits.blocking_recv() {
        let outcome = carry_out(producer, consumer, assignment, &transaction);
        drop(transaction);
        if reply.send(outcome).is_err() {
            return;
        }
    }
}

fn carry_out(
    producer: &TransactionalProducer,
    consumer: &Weak<Member>,
    assignment: &AtomicU64,
    transaction: &Transaction,
) -> Outcome {
    // Held for this call only: a call below that never returns must not keep the consumer from being closed.
    let Some(member) = consumer.upgrade().and_then(|consumer| consumer.group_metadata()) else {
        return Outcome::Aborted("not a member of the consumer group yet".into());
    };
    if assignment.load(Ordering::SeqCst) != transaction.assignment {
        return Outcome::Aborted("the assignment changed".into());
    }
    let attempt = || -> Result<(), Stop> {
        again(|| producer.begin_transaction())?;
        for output in transaction.outputs() {
            send(producer, output)?;
        }
        let positions = positions(transaction).map_err(|error| Stop::Abort(error.to_string()))?;
        again(|| producer.send_offsets_to_transaction(&positions, &member, REQUEST))?;
        delivered(producer);
        again(|| producer.commit_transaction(Timeout::Never))
    };
    match attempt() {
        Ok(()) => Outcome::Committed,
        Err(Stop::Fatal(reason)) => Outcome::Restart(reason),
        Err(Stop::Abort(reason)) => match again(|| producer.abort_transaction(Timeout::Never)) {
            Ok(()) => Outcome::Aborted(reason),
            Err(Stop::Abort(error) | Stop::Fatal(error)) => Outcome::Restart(format!("{reason}; then: {error}")),
        },
    }
}

/// Waits until every message has its delivery report; each gets one within the message time-out.
///
/// Before the commit, because rust-rdkafka's own flush polls for reports up to 100 ms at a time while the producer's poll
/// thread takes them. No figure justifies this yet: accepted to searchable on the idle stack was p50 407 ms before it and
/// 425 ms with it.
fn delivered(producer: &TransactionalProducer) {
    while producer.in_flight_count() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn positions(transaction: &Transaction) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, position) in &transaction.positions {
        let mut element = list.add_partition(&partition.topic, partition.partition);
        element.set_offset(Offset::Offset(position.offset))?;
        let metadata = position.metadata();
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    Ok(list)
}

fn send(producer: &TransactionalProducer, output: &Output) -> Result<(), Stop> {
    let mut record = BaseRecord::<[u8], [u8]>::to(&output.topic)
        .key(&output.key)
        .headers(convert::headers(&output.headers));
    record.payload = output.value.as_deref();
    record.partition = output.partition;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                record = unsent;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(stop(&error)),
        }
    }
}

fn again(mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), Stop> {
    loop {
        match call() {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.txn_requires_abort() => {
                tracing::warn!(error = %error.string(), "a transaction call is made again");
            }
            Err(error) => return Err(stop(&error)),
        }
    }
}

fn stop(error: &KafkaError) -> Stop {
    match error {
        KafkaError::Transaction(inner) if inner.is_fatal() => Stop::Fatal(inner.string()),
        KafkaError::Transaction(inner) => Stop::Abort(inner.string()),
        KafkaError::MessageProduction(RDKafkaErrorCode::Fatal) => Stop::Fatal(error.to_string()),
        other => Stop::Abort(other.to_string()),
    }
}
