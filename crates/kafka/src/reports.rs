//! What became of the records of a transaction, and the thread that asks for it.
//!
//! The thread stands in for rust-rdkafka's `ThreadedProducer`, whose poll of 100 ms waits for whole milliseconds and asks
//! through the last one without a pause: four producers that had nothing to do, that of receipts ([`crate::producer`])
//! among them, took 1.5 % of two cores. That one still takes its part: its futures are the library's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, ProducerContext};

/// Its reports are to be served: see [`serve`].
pub(crate) type TransactionalProducer = BaseProducer<Reports>;

/// Longest that the thread keeps a producer that nobody else has. A report does not wait for it.
const POLL: Duration = Duration::from_secs(1);

/// Serves the reports of a producer, and what else its client has to say, for as long as somebody has it: a transaction
/// waits for its reports, an abort too.
pub(crate) fn serve(producer: &Arc<TransactionalProducer>, name: &str) -> std::io::Result<()> {
    let watched = Arc::downgrade(producer);
    let thread = std::thread::Builder::new().name(format!("{name}-reports"));
    // Not joined: it may be the one that closes the client, which takes its time, and nothing is under way by then.
    thread.spawn(move || {
        while let Some(producer) = watched.upgrade() {
            producer.poll(POLL);
        }
    })?;
    Ok(())
}

/// What became of the records of a transaction: reports come of those only that were not delivered.
#[derive(Default)]
pub(crate) struct Reports {
    /// Why the first one was not delivered. What a commit says of it is only that one was not.
    failed: Mutex<Option<KafkaError>>,
}

impl Reports {
    fn reported(&self, failed: Option<KafkaError>) {
        // Those that an abort throws away were not refused by anybody.
        let purged = [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight].map(Some);
        let failed = failed.filter(|error| !purged.contains(&error.rdkafka_error_code()));
        let mut first = self.first();
        *first = first.take().or(failed);
    }

    /// Why the first one since the last call was not delivered.
    pub(crate) fn take_failed(&self) -> Option<KafkaError> {
        self.first().take()
    }

    fn first(&self) -> MutexGuard<'_, Option<KafkaError>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.reported(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_kept_and_what_an_abort_throws_away_is_none() {
        let reports = Reports::default();
        for code in [
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::InvalidRecord,
            RDKafkaErrorCode::MessageTimedOut,
        ] {
            reports.reported(Some(KafkaError::MessageProduction(code)));
        }
        let kept = reports.take_failed().and_then(|error| error.rdkafka_error_code());
        assert_eq!(kept, Some(RDKafkaErrorCode::InvalidRecord));
        assert!(reports.take_failed().is_none());
    }
}
