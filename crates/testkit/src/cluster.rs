//! A cluster as its brokers tell it: who leads what, who coordinates whom, which replicas are in sync.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::poll;
use crate::wire::{Api, Body, Broker, none};

const METADATA: Api = Api(3, 1, false);
const FIND_COORDINATOR: Api = Api(10, 1, false);
/// A transactional id, not a group.
const TRANSACTION: u8 = 1;
/// For a broker to catch up with whatever it missed.
const WHOLE_WITHIN: Duration = Duration::from_secs(180);

/// A partition of any topic, internal ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its topic.
    pub topic: String,
    /// From 0.
    pub partition: i32,
    /// Node that leads it; none while nobody does.
    pub leader: Option<i32>,
    /// How many have it.
    pub replicas: usize,
    /// How many of them have all of it.
    pub in_sync: usize,
}

impl Partition {
    fn is_whole(&self) -> bool {
        self.leader.is_some() && self.in_sync == self.replicas
    }
}

/// The brokers of a stack.
#[derive(Debug, Clone)]
pub struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    /// Of bootstrap servers that are all of its brokers.
    pub fn new(bootstrap_servers: &str) -> Self {
        let brokers = bootstrap_servers.split(',').map(Broker::new).collect();
        Self { brokers }
    }

    /// The node that leads a partition; none while nobody does.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Option<i32>> {
        let partitions = partitions(self.any()?).await?;
        let found = partitions
            .into_iter()
            .find(|p| p.topic == topic && p.partition == partition);
        Ok(found
            .with_context(|| format!("no partition {partition} of {topic}"))?
            .leader)
    }

    /// The node that coordinates a transactional id; none while nobody does.
    pub async fn coordinator(&self, transactional_id: &str) -> Result<Option<i32>> {
        let mut body = Body::default();
        body.string(transactional_id).bytes(&[TRANSACTION]);
        let mut answer = self.any()?.call(FIND_COORDINATOR, body).await?;
        let code = answer.skip(4)?.int16()?;
        answer.string()?;
        let node = answer.int32()?;
        Ok((code == 0).then_some(node))
    }

    /// Waits until every broker says that each partition is led and each of its replicas in sync.
    pub async fn whole(&self) -> Result<()> {
        poll::until("every replica to be in sync", WHOLE_WITHIN, async || {
            for broker in &self.brokers {
                let partitions = match partitions(broker).await {
                    Ok(partitions) => partitions,
                    Err(error) => return Ok(Err(format!("{error:#}"))),
                };
                if let Some(lacking) = partitions.iter().find(|partition| !partition.is_whole()) {
                    return Ok(Err(format!("{lacking:?}")));
                }
            }
            Ok(Ok(()))
        })
        .await
    }

    fn any(&self) -> Result<&Broker> {
        self.brokers.first().context("a cluster has a broker")
    }
}

/// All partitions, as one broker knows them.
async fn partitions(broker: &Broker) -> Result<Vec<Partition>> {
    const ALL: i32 = -1;
    let mut body = Body::default();
    body.int32(ALL);
    let mut answer = broker.call(METADATA, body).await?;
    for _ in 0..answer.int32()? {
        // Node, host, port, rack.
        answer.skip(4)?.string()?;
        answer.skip(4)?.string()?;
    }
    // Which node is the controller.
    answer.skip(4)?;
    let mut partitions = Vec::new();
    for _ in 0..answer.int32()? {
        none("describe a topic", answer.int16()?)?;
        let topic = answer.string()?.context("a topic without a name")?;
        // Whether it is internal.
        answer.skip(1)?;
        for _ in 0..answer.int32()? {
            // That a replica or the leader is away, which the rest tells.
            answer.skip(2)?;
            let (partition, leader) = (answer.int32()?, answer.int32()?);
            let mut nodes = || -> Result<usize> {
                let count = usize::try_from(answer.int32()?)?;
                answer.skip(4 * count)?;
                Ok(count)
            };
            let (replicas, in_sync) = (nodes()?, nodes()?);
            ensure!(replicas > 0, "{topic}/{partition} has no replica");
            partitions.push(Partition {
                topic: topic.clone(),
                partition,
                leader: (leader >= 0).then_some(leader),
                replicas,
                in_sync,
            });
        }
    }
    Ok(partitions)
}
