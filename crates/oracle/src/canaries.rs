//! Canaries: one document in each partition, written again and again. How long one of them stands still is how long the
//! pipeline did.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_events::topics::PARTITIONS;
use millrace_testkit::Client;
use millrace_testkit::client::{is_for_now, name_on};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Tenant of the canaries, whose requests are no debts.
pub const TENANT: &str = "canaries";

/// A document's name for each partition.
pub fn documents() -> Result<Vec<String>> {
    let of = |partition| name_on(partition, TENANT, |n| format!("{partition}/{n}"));
    (0..PARTITIONS)
        .map(|partition| of(partition).context("no name"))
        .collect()
}

/// `tenant/document_id`, as its records are keyed.
pub fn key(document: &str) -> String {
    format!("{TENANT}/{document}")
}

/// Writes one canary until it is told to stop. What is not accepted is left out: the next one comes soon.
pub async fn sing(client: Client, document: &str, every: Duration, stop: &CancellationToken) -> Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match client.send(client.request(document, "A canary sings.")).await {
            Ok(_) => {}
            Err(status) if is_for_now(&status) => {}
            Err(status) => return Err(status).context("a canary"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_kafka::partitioner::partition_for;

    use super::*;

    #[test]
    fn each_partition_has_one() -> Result<()> {
        let documents = documents()?;
        let at = |name: &String| partition_for(key(name).as_bytes(), PARTITIONS);
        assert_eq!(
            documents.iter().map(at).collect::<Vec<_>>(),
            (0..PARTITIONS).collect::<Vec<_>>()
        );
        Ok(())
    }
}
