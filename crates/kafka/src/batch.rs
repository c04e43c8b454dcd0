//! Batches of records, each written whole or not at all, by one writer at a time.
//!
//! Whoever opens a writer takes its name: the writer before is fenced, what it left open is aborted, and only then is the
//! name handed over. So whoever reads afterwards up to where the partitions end then has read all that will ever come
//! from the writers before.
//!
//! No consumer group takes part: what is done must show in the records themselves.
//!
//! | a batch | answer |
//! |---|---|
//! | committed | Ok |
//! | aborted: time-outs, too few replicas, unknown topic | tried again from memory, as long as somebody waits |
//! | a record was refused for what it is | [`BatchError::Refused`]: nothing of it stands, the writer goes on |
//! | the name was taken, or the transaction expired | [`BatchError::Fenced`]: nothing of it stands, the writer is over |
//! | not known, or the producer is broken | [`BatchError::Over`]: it stands whole or not at all, the writer is over |

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, KafkaConfig};
use crate::reports::{self, Reports, TransactionalProducer};
use crate::transactor::{self, Written};
use millrace_flow::Output;
use millrace_flow::log::Outcome;
use millrace_telemetry::Span;

/// Until an aborted batch is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a batch was not written, or a writer not opened.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Kafka's settings are not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system gave no thread.
    #[error("cannot start the thread of a writer")]
    Thread(#[source] std::io::Error),
    /// A record is refused for what it is.
    #[error("a record is refused: {0}")]
    Refused(String),
    /// Another writer of the name took over, or a transaction lasted too long.
    #[error("another writer took the name, or the transaction expired: {0}")]
    Fenced(String),
    /// The producer cannot go on.
    #[error("the writer cannot go on: {0}")]
    Over(String),
}

type Batch = (Vec<Output>, oneshot::Sender<Result<(), BatchError>>);

/// Writes batches. Dropped, it ends after the batch that is under way.
#[derive(Debug)]
pub struct BatchWriter {
    batches: mpsc::Sender<Batch>,
}

impl BatchWriter {
    /// Takes a name. Waits for Kafka as long as it takes; dropping the future gives up.
    pub async fn open(kafka: &KafkaConfig, name: &str) -> Result<Self, BatchError> {
        let producer: TransactionalProducer = kafka
            .transactional_producer(name)?
            .create_with_context(Reports::default())
            .map_err(ConfigError::Client)?;
        let producer = Arc::new(producer);
        reports::serve(&producer, name).map_err(BatchError::Thread)?;
        let (batches, receiver) = mpsc::channel(1);
        let (ready, initialised) = oneshot::channel();
        let leaving = CancellationToken::new();
        let _left = leaving.clone().drop_guard();
        // A plain thread, not joined: a call that waits for a broker must not hold up the end of the process.
        std::thread::Builder::new()
            .name(format!("{name}-producer"))
            .spawn(move || {
                let initialised = transactor::init(&producer, &leaving);
                let go_on = initialised.is_ok();
                if ready.send(initialised).is_ok() && go_on {
                    run(&producer, receiver);
                }
            })
            .map_err(BatchError::Thread)?;
        match initialised.await {
            Ok(Ok(())) => Ok(Self { batches }),
            Ok(Err(error)) => Err(failed_init(&error)),
            Err(_) => Err(BatchError::Over("its thread is gone".into())),
        }
    }

    /// Writes a batch, all of it or nothing, and waits until it is committed. Dropping the future leaves open which.
    pub async fn write(&self, outputs: Vec<Output>) -> Result<(), BatchError> {
        let gone = || BatchError::Over("its thread is gone".into());
        let (reply, answer) = oneshot::channel();
        self.batches.send((outputs, reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn failed_init(error: &KafkaError) -> BatchError {
    use rdkafka::error::RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    match error.rdkafka_error_code() {
        Some(Fenced | InvalidProducerEpoch | ProducerFenced) => BatchError::Fenced(error.to_string()),
        _ => BatchError::Over(error.to_string()),
    }
}

fn run(producer: &TransactionalProducer, mut batches: mpsc::Receiver<Batch>) {
    while let Some((outputs, reply)) = batches.blocking_recv() {
        let nobody = Span::none();
        let records = || {
            outputs.iter().map(|output| Written {
                output,
                cause: &nobody,
                buried: false,
            })
        };
        let written = loop {
            match transactor::transact(producer, records(), || Ok(())) {
                Outcome::Committed => break Ok(()),
                Outcome::Aborted(reason) if !reply.is_closed() => {
                    tracing::warn!(reason, "a batch was aborted and is written again");
                    std::thread::sleep(PAUSE);
                }
                Outcome::Aborted(reason) | Outcome::Restart(reason) => break Err(BatchError::Over(reason)),
                Outcome::Refused(reason) => break Err(BatchError::Refused(reason)),
                Outcome::Fenced(reason) => break Err(BatchError::Fenced(reason)),
            }
        };
        let over = matches!(written, Err(BatchError::Over(_) | BatchError::Fenced(_)));
        if reply.send(written).is_err() || over {
            return;
        }
    }
}
