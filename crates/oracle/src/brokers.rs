//! What happens to the brokers.
//!
//! | brokers | fault | what |
//! |---|---|---|
//! | one | `restart`, `freeze` | an outage: nothing else goes on meanwhile, and while it restarts no transaction is decided and not ended |
//! | three | `kill` | SIGKILL of the leader of a partition of `documents.submitted`, of the coordinator of a transactional id, or of any |
//! | | `restart` | SIGTERM of any |
//! | | `freeze` | SIGSTOP of any, for less or more than a broker's session |
//!
//! Of three one is away at a time, and the next one goes only when every replica of every partition is in sync again: two
//! away at once are fewer than must have a record. Nothing is held still for it, and all promises hold meanwhile; only
//! how long a canary stands still is not counted from the fault until all are in sync: the cluster has to find new leaders
//! and coordinators for what the broker led. It is a fault that lasts, as a service that is frozen or cut off: none of
//! these begins before what the last one left behind is over.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_events::topics::{PARTITIONS, SUBMITTED};
use millrace_runtime::clock::now_ms;
use millrace_testkit::cluster::Cluster;
use millrace_testkit::size::{Instance, broker};
use millrace_testkit::still::{Still, undecided};
use millrace_testkit::wire::Broker;
use millrace_testkit::{Stack, poll};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::faults::{Faults, RECOVERY, pause};

const BETWEEN_SECONDS: Range<u64> = 15..35;
/// A broker's session lasts nine seconds.
const FREEZE_SECONDS: Range<u64> = 3..14;
/// For a partition to be led, or a transactional id coordinated, by somebody.
const LED_WITHIN: Duration = Duration::from_secs(60);

/// The transactional id of an instance.
pub fn transactional_id(instance: &Instance) -> String {
    let group = match instance.service {
        "ingest" => "millrace.parse",
        "embedder" => "millrace.embed",
        _ => "millrace.index",
    };
    format!("{group}.local-{}", instance.number)
}

/// Restarts the only broker of a stack.
pub async fn restart_the_only(stack: &Stack) -> Result<()> {
    let mut held = Vec::new();
    for instance in stack.size.instances() {
        held.push((stack.serving(&instance.part()).await?, transactional_id(&instance)));
    }
    let still = undecided(&Broker::new(&stack.addresses.kafka), &held, false).await?;
    stack.kill("kafka", Signal::TERM).await?;
    drop(still);
    stack.serving("kafka").await?;
    Ok(())
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Victim {
    Leader(i32),
    Coordinator(String),
    Node(i32),
}

impl Display for Victim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader(_) => "leader",
            Self::Coordinator(_) => "coordinator",
            Self::Node(_) => "broker",
        })
    }
}

impl Victim {
    fn any(nodes: u16, rng: &mut StdRng) -> Self {
        Self::Node(rng.random_range(1..=i32::from(nodes)))
    }

    fn to_be_killed(stack: &Stack, rng: &mut StdRng) -> Result<Self> {
        Ok(match rng.random_range(0..4) {
            0..=1 => Self::Leader(rng.random_range(0..PARTITIONS)),
            2 => {
                let instances = stack.size.instances();
                let instance = instances.choose(rng).context("a stack has services")?;
                Self::Coordinator(transactional_id(instance))
            }
            _ => Self::any(stack.size.brokers, rng),
        })
    }

    /// The part that it is at this moment.
    async fn part(&self, cluster: &Cluster) -> Result<String> {
        let what = format!("a node that is {self:?}");
        let node = poll::until(&what, LED_WITHIN, async || {
            let node = match self {
                Self::Leader(partition) => cluster.leader(SUBMITTED.name, *partition).await,
                Self::Coordinator(transactional_id) => cluster.coordinator(transactional_id).await,
                Self::Node(node) => Ok(Some(*node)),
            };
            // A busy broker may not answer in time.
            Ok(match node {
                Ok(Some(node)) => Ok(node),
                Ok(None) => Err("none".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            })
        });
        Ok(broker(node.await?))
    }
}

impl Faults {
    /// Faults of several brokers, one after another, until it is told to stop; every replica is in sync then.
    pub async fn of_brokers(&self, stack: &Stack, seed: u64, stop: &CancellationToken) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        let cluster = Cluster::new(&stack.addresses.kafka);
        // The internal topics came with the first members.
        cluster.whole().await?;
        while pause(&mut rng, BETWEEN_SECONDS, stop).await {
            let freeze = Duration::from_secs(rng.random_range(FREEZE_SECONDS));
            let kind = rng.random_range(0..8);
            let victim = match kind {
                0..=3 => Victim::to_be_killed(stack, &mut rng)?,
                _ => Victim::any(stack.size.brokers, &mut rng),
            };
            let _long = self.one_that_lasts().await;
            if stop.is_cancelled() {
                break;
            }
            let part = victim.part(&cluster).await?;
            let from_ms = now_ms();
            match kind {
                0..=3 => {
                    stack.kill(&part, Signal::KILL).await?;
                    self.note("kill", &victim.to_string(), from_ms);
                }
                4..=5 => {
                    stack.kill(&part, Signal::TERM).await?;
                    self.note("restart", &victim.to_string(), from_ms);
                }
                _ => {
                    let still = Still::hold(stack.serving(&part).await?)?;
                    tokio::time::sleep(freeze).await;
                    drop(still);
                    self.note("freeze", &victim.to_string(), from_ms);
                }
            }
            stack.serving(&part).await?;
            cluster.whole().await?;
            self.broker_was_away(from_ms);
            stop.run_until_cancelled(tokio::time::sleep(RECOVERY)).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use millrace_testkit::Size;

    use super::*;

    #[test]
    fn each_instance_has_the_transactional_id_of_its_group_and_name() {
        let size = Size {
            brokers: 3,
            replicas: 2,
        };
        let ids: Vec<_> = size.instances().iter().map(transactional_id).collect();
        let expected = [
            "millrace.parse.local-0",
            "millrace.parse.local-1",
            "millrace.embed.local-0",
            "millrace.embed.local-1",
            "millrace.index.local-0",
        ];
        assert_eq!(ids, expected);
    }
}
