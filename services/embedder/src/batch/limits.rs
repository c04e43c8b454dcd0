//! The bounds of batches and of what waits for one.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_events::Tenant;
use serde::{Deserialize, Serialize};

/// Bounds of a batch and of the queue before it.
///
/// The token budget is what a batch costs: rows times its longest row, padding included. A processor gains nothing
/// from large batches (figures in the crate's header), and a query that comes while a batch of documents runs waits
/// for its end: so the default is small. A GPU wants 16,384 and more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchLimits {
    /// Largest batch: rows times longest row. A single longer text runs alone, or with one for each other part of a batch that
    /// the backend computes at once.
    pub max_batch_tokens: usize,
    /// Largest batch in texts.
    pub max_batch_texts: usize,
    /// How long a chunk of a document may wait for company while the model is idle. Queries never wait.
    pub max_wait_ms: u64,
    /// Full batches of documents that are handed over while another one runs, so that a fast device does not wait for the next.
    /// A query may have to wait for as many more.
    pub prepared_batches: usize,
    /// Tokens that may wait; beyond them nothing is taken in and callers wait (documents) or are refused (queries).
    pub max_waiting_tokens: usize,
    /// Requests that may wait to be taken in, for queries and for documents each.
    pub queue_requests: usize,
    /// Weights of tenants, where parts of documents start and where their texts wait; one that is not named has 1.
    pub tenant_weights: BTreeMap<String, u32>,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            max_batch_tokens: 1_024,
            max_batch_texts: 64,
            max_wait_ms: 5,
            prepared_batches: 0,
            max_waiting_tokens: 65_536,
            queue_requests: 64,
            tenant_weights: BTreeMap::new(),
        }
    }
}

const MAX_PREPARED: usize = 4;
/// Weight that a tenant or a lane has at most beside another one: below it each still gets its turns.
pub const MOST_WEIGHT: u32 = 1000;

impl BatchLimits {
    /// How long a chunk may wait for company.
    pub fn max_wait(&self) -> Duration {
        Duration::from_millis(self.max_wait_ms)
    }

    /// What cannot work, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("max_batch_tokens", self.max_batch_tokens),
            ("max_batch_texts", self.max_batch_texts),
            ("queue_requests", self.queue_requests),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("batch.{name} is 0: nothing could run"));
        }
        if let Some((tenant, weight)) = self
            .tenant_weights
            .iter()
            .find(|(_, weight)| !(1..=MOST_WEIGHT).contains(*weight))
        {
            return Err(format!(
                "batch.tenant_weights gives {tenant} the weight {weight}: a weight is 1 to {MOST_WEIGHT}"
            ));
        }
        let no_tenant = |name: &&String| Tenant::new(name.as_str()).is_err();
        if let Some(name) = self.tenant_weights.keys().find(no_tenant) {
            return Err(format!("batch.tenant_weights names {name}, which is no tenant"));
        }
        if self.prepared_batches > MAX_PREPARED {
            return Err(format!(
                "batch.prepared_batches is {}: more than {MAX_PREPARED} only make queries wait",
                self.prepared_batches
            ));
        }
        if self.max_waiting_tokens < self.max_batch_tokens {
            return Err(format!(
                "batch.max_waiting_tokens ({}) is below batch.max_batch_tokens ({}): no batch could fill",
                self.max_waiting_tokens, self.max_batch_tokens
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(BatchLimits::default().check(), Ok(()));
        let zero = BatchLimits {
            max_batch_texts: 0,
            ..BatchLimits::default()
        };
        assert!(zero.check().unwrap_err().contains("batch.max_batch_texts"));
        let narrow = BatchLimits {
            max_waiting_tokens: 1_023,
            ..BatchLimits::default()
        };
        assert!(narrow.check().unwrap_err().contains("batch.max_waiting_tokens"));
        let weightless = BatchLimits {
            tenant_weights: [("acme".to_owned(), 0)].into(),
            ..BatchLimits::default()
        };
        assert!(weightless.check().unwrap_err().contains("gives acme the weight 0"));
        let nobody = BatchLimits {
            tenant_weights: [("Acme Corp".to_owned(), 1)].into(),
            ..BatchLimits::default()
        };
        assert!(nobody.check().unwrap_err().contains("names Acme Corp"));
    }
}
