//! Processes that are held still.

use std::time::Duration;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

use crate::poll;
use crate::wire::Broker;

const CAUGHT_WITHIN: Duration = Duration::from_secs(90);
/// How often a transaction's state is looked at: what was on its way when the processes were stopped may still arrive.
const LOOKS: usize = 20;

/// A process that is held still; it goes on when this is dropped.
#[derive(Debug)]
pub struct Still(Pid);

impl Still {
    /// Holds a process still.
    pub fn hold(pid: Pid) -> Result<Self> {
        kill_process(pid, Signal::STOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        // One that is gone needs no waking.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Holds processes still, with none of their transactions decided and not ended; `open`: and at least one of them open.
///
/// A broker that goes away between the two, and with it the last replica of a partition, can come back without that
/// transaction's markers. While it leaves or registers, its partitions have no leader for a moment; Kafka's metadata cache
/// gives no endpoint for such a partition, and the coordinator takes no endpoint for a deleted partition ("likely deleted
/// already and hence can be skipped" in its log): it ends the transaction, and readers wait for the markers for ever. Seen
/// in about one of ten kills on Kafka 4.3.
pub async fn undecided(broker: &Broker, held: &[(Pid, String)], open: bool) -> Result<Vec<Still>> {
    poll::until(
        "processes to be caught with nothing decided",
        CAUGHT_WITHIN,
        async || {
            let still: Vec<_> = held.iter().map(|(pid, _)| Still::hold(*pid)).collect::<Result<_>>()?;
            for _ in 0..LOOKS {
                let mut states = Vec::new();
                for (_, transactional_id) in held {
                    states.push(broker.transaction_state(transactional_id).await?);
                }
                let is_open = states.iter().any(|state| state == "Ongoing");
                let decided = states.iter().any(|state| state.starts_with("Prepare"));
                if decided || (open && !is_open) {
                    return Ok(Err(states));
                }
            }
            Ok(Ok(still))
        },
    )
    .await
}
