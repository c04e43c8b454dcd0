//! The producer thread: carries out one transaction at a time. Every call of the transactional interface blocks, which
//! is why it has a thread of its own.
//!
//! Order of steps: take the group's metadata, check that the assignment is still the one under which the transaction
//! was cut, send, commit. Metadata taken before the check is of that assignment or older, so the broker refuses a
//! commit of a zombie; metadata taken after it could be of a newer one and would let it pass.
//!
//! | what a call answers | what happens |
//! |---|---|
//! | retriable, or out of time | the same call again: the outcome of a commit is asked for until it is known |
//! | needs an abort | abort; the runtime sends the same again from memory |
//! | needs an abort, and a record was refused for what it is ([`refusal`]) | abort; the runtime looks for the record |
//! | fatal: fenced | another process has this name, or the transaction expired: the membership tells which |
//! | fatal, another one | this producer is over: a new session starts from committed positions |

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::topic_partition_list::Offset;
use rdkafka::util::Timeout;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::member::Member;
use crate::reports::TransactionalProducer;
use crate::{convert, trace};
use millrace_failpoints::{ACTIVE, mutants, points};
use millrace_flow::Output;
use millrace_flow::core::Transaction;
use millrace_flow::log::{Commit, Outcome};
use millrace_telemetry::Span;

const REQUEST: Duration = Duration::from_secs(10);
/// Until a full queue of the client is tried again.
const FULL: Duration = Duration::from_millis(1);

/// Between two looks whether records are still under way.
const UNDER_WAY: Duration = Duration::from_micros(100);

/// Why a transaction did not commit.
pub(crate) enum Stop {
    /// Abort and send again.
    Abort(String),
    /// Abort and look for the record that is refused.
    Refused(String),
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
            initialised => {
                if initialised.is_ok() {
                    points::ID_TAKEN.reached();
                }
                return initialised;
            }
        }
    }
}

/// Carries out transactions until the runtime hangs up.
pub(crate) fn run(
    producer: &TransactionalProducer,
    group: &str,
    consumer: &Weak<Member>,
    assignment: &Arc<AtomicU64>,
    commits: &mut mpsc::Receiver<Commit>,
) {
    while let Some((transaction, reply)) = commits.blocking_recv() {
        let (span, topic, began) = (
            trace::commit(&transaction, group),
            trace::topic_of(&transaction),
            Instant::now(),
        );
        let outcome = carry_out(producer, consumer, assignment, &transaction);
        drop(transaction);
        let failure = match &outcome {
            Outcome::Committed => None,
            Outcome::Aborted(reason) => Some(("ABORTED", reason)),
            Outcome::Refused(reason) => Some(("REFUSED", reason)),
            Outcome::Restart(reason) => Some(("UNKNOWN", reason)),
            Outcome::Fenced(reason) => Some(("FENCED", reason)),
        };
        if let Some((code, reason)) = failure {
            span.failed(code, reason.clone());
        }
        drop(span);
        trace::took("commit", &topic, began, failure.map(|(code, _)| code));
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
    let written = transaction.finished().flat_map(|finished| {
        let written = move |output| Written {
            output,
            cause: finished.span,
            buried: finished.buried,
        };
        finished.outputs.iter().map(written)
    });
    let outcome = transact(producer, written, || {
        let positions = positions(transaction).map_err(|error| Stop::Abort(error.to_string()))?;
        again(|| producer.send_offsets_to_transaction(&positions, &member, REQUEST))
    });
    if transaction.records() == 0 && matches!(outcome, Outcome::Committed) {
        points::START_COMMITTED.reached();
    }
    outcome
}

/// A record to write.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) output: &'a Output,
    /// What it comes from; none where its headers say it.
    pub(crate) cause: &'a Span,
    /// It belongs to a dead letter.
    pub(crate) buried: bool,
}

/// One transaction: begins, sends `outputs`, does what belongs to it besides, commits.
pub(crate) fn transact<'a>(
    producer: &TransactionalProducer,
    outputs: impl IntoIterator<Item = Written<'a>>,
    besides: impl FnOnce() -> Result<(), Stop>,
) -> Outcome {
    // They end with the transaction.
    let mut spans = Vec::new();
    let outcome = attempt(producer, outputs, besides, &mut spans);
    let failure = match &outcome {
        Outcome::Committed => None,
        // It may stand.
        Outcome::Restart(_) => Some("UNKNOWN"),
        Outcome::Aborted(_) | Outcome::Refused(_) | Outcome::Fenced(_) => Some("NOT_COMMITTED"),
    };
    if let Some(failure) = failure {
        spans.iter().for_each(|span: &Span| span.failed(failure, ""));
    }
    outcome
}

fn attempt<'a>(
    producer: &TransactionalProducer,
    outputs: impl IntoIterator<Item = Written<'a>>,
    besides: impl FnOnce() -> Result<(), Stop>,
    spans: &mut Vec<Span>,
) -> Outcome {
    let attempt = || -> Result<(), Stop> {
        again(|| producer.begin_transaction())?;
        points::TRANSACTION_BEGUN.reached();
        let mut sent = 0;
        for written in outputs {
            let span = trace::send(written.output, written.cause, written.buried);
            spans.push(span.clone());
            send(producer, written.output, &span)?;
            sent += 1;
        }
        if ACTIVE {
            // What is only queued has not happened yet.
            delivered(producer);
        }
        if mutants::OUTPUT_OUTSIDE.is_active() {
            delivered(producer);
            again(|| producer.commit_transaction(Timeout::Never))?;
            again(|| producer.begin_transaction())?;
        }
        if sent > 0 {
            points::OUTPUTS_SENT.reached();
        }
        besides()?;
        delivered(producer);
        points::OFFSETS_SENT.reached();
        again(|| producer.commit_transaction(Timeout::Never))?;
        points::TRANSACTION_COMMITTED.reached();
        Ok(())
    };
    producer.context().take_failed();
    let stop = match attempt() {
        Ok(()) => return Outcome::Committed,
        Err(Stop::Fatal(reason)) if is_fenced(producer) => return Outcome::Fenced(reason),
        Err(Stop::Fatal(reason)) => return Outcome::Restart(reason),
        Err(stop) => stop,
    };
    // What the commit calls a failed delivery has its own reason in the record's report.
    delivered(producer);
    let stop = match (stop, producer.context().take_failed()) {
        (Stop::Abort(_), Some(error)) => self::stop(&error),
        (stop, _) => stop,
    };
    match (again(|| producer.abort_transaction(Timeout::Never)), stop) {
        (Ok(()), Stop::Refused(reason)) => Outcome::Refused(reason),
        (Ok(()), Stop::Abort(reason) | Stop::Fatal(reason)) => Outcome::Aborted(reason),
        (Err(_), Stop::Abort(reason) | Stop::Refused(reason) | Stop::Fatal(reason)) if is_fenced(producer) => {
            Outcome::Fenced(reason)
        }
        (Err(then), Stop::Abort(reason) | Stop::Refused(reason) | Stop::Fatal(reason)) => {
            let (Stop::Abort(then) | Stop::Refused(then) | Stop::Fatal(then)) = then;
            Outcome::Restart(format!("{reason}; then: {then}"))
        }
    }
}

/// Waits until nothing of this producer is under way, reports of failures included; the message time-out bounds it.
///
/// Not left to the commit: rust-rdkafka's flush serves reports for 100 ms at a time and returns not before, so that every
/// transaction would last as long.
fn delivered(producer: &TransactionalProducer) {
    while producer.in_flight_count() > 0 {
        std::thread::sleep(UNDER_WAY);
    }
}

/// Whether a newer producer of this name took over.
fn is_fenced(producer: &TransactionalProducer) -> bool {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    let fatal = producer.client().fatal_error();
    fatal.is_some_and(|(code, _)| matches!(code, Fenced | ProducerFenced | InvalidProducerEpoch))
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

fn send(producer: &TransactionalProducer, output: &Output, span: &Span) -> Result<(), Stop> {
    let mut record = BaseRecord::<[u8], [u8]>::to(&output.topic).key(&output.key);
    let carried = trace::carried(&output.headers, span);
    record.headers = convert::headers(carried.as_ref().unwrap_or(&output.headers));
    record.payload = output.value.as_deref();
    record.partition = output.partition;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                record = unsent;
                std::thread::sleep(FULL);
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
        other if other.rdkafka_error_code().is_some_and(refusal) => Stop::Refused(other.to_string()),
        other => Stop::Abort(other.to_string()),
    }
}

/// Whether Kafka refuses a record for what it is, so that the same would be refused again.
///
/// | code | class |
/// |---|---|
/// | too large, here or at the broker; invalid record, timestamp or size; against the topic's policy | `Invalid`: bisected |
/// | unknown topic or partition, not authorised | `Config`: the stage says so and tries again, no record is to blame |
/// | time-outs, transport, not enough replicas, coordinator moving, anything else | `Transient` |
fn refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::PolicyViolation
            | Code::BadMessage
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::MessageSizeTooLarge,
            Code::InvalidRecord,
            Code::InvalidTimestamp,
            Code::PolicyViolation,
        ] {
            assert!(
                matches!(stop(&KafkaError::MessageProduction(code)), Stop::Refused(_)),
                "{code}"
            );
        }
        for code in [
            Code::UnknownTopicOrPartition,
            Code::TopicAuthorizationFailed,
            Code::MessageTimedOut,
            Code::NotEnoughReplicas,
            Code::BrokerTransportFailure,
        ] {
            assert!(
                matches!(stop(&KafkaError::MessageProduction(code)), Stop::Abort(_)),
                "{code}"
            );
        }
        assert!(matches!(
            stop(&KafkaError::MessageProduction(Code::Fatal)),
            Stop::Fatal(_)
        ));
    }
}
