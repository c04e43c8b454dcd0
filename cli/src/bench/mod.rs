//! `millrace bench`: the stage runtime on a real broker, each figure beside its yardstick in the same run.
//!
//! [`workload`] is what goes in and what must come out, [`stages`] what is measured, [`timer`] the simulated work. One
//! file a figure: [`parallel`] (a), [`throughput`] (b), [`latency`] (c), [`slow`] (d), [`restart`] (e), [`memory`].
//! [`pipeline`] and [`traces`] are of the whole pipeline, on stacks that [`whole`] makes and with [`documents`], [`embed`] of
//! the embedder alone. [`processor`] is who has used the cores, [`peers`] runs what others use on the same broker, [`child`]
//! is this program in a process of its own, [`report`] what is shown.
//!
//! Figures are not judged: whether a target is met stands in the table. What is judged is the work: each bench reads
//! its outputs back and fails when one lacks, stands there twice or out of its key's order.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use millrace_kafka::yardstick::log::{self, Committed};
use millrace_kafka::{Admin, KafkaConfig, NewTopic};

use crate::output::Progress;

pub mod child;
mod documents;
pub mod embed;
mod latency;
pub mod memory;
mod parallel;
mod peers;
pub mod pipeline;
mod processor;
pub mod report;
mod restart;
mod slow;
mod stages;
mod throughput;
mod timer;
pub mod traces;
mod whole;
mod workload;

use peers::Peers;
use report::Row;

/// Partitions of a bench's topics, where nothing else is said.
pub const PARTITIONS: i32 = 12;

/// One figure of `bench flow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Figure {
    /// Many short records of simulated work
    A,
    /// Records a second
    B,
    /// Latency
    C,
    /// Slow records among quick ones
    D,
    /// Killed and started again
    E,
}

/// All of them.
pub const FIGURES: [Figure; 5] = [Figure::A, Figure::B, Figure::C, Figure::D, Figure::E];

/// Where benches are run.
#[derive(Debug)]
pub struct Lab {
    /// The broker.
    pub kafka: KafkaConfig,
    /// How often each figure is taken; the median counts.
    pub runs: usize,
    /// Where it shows what it does.
    pub progress: Progress,
    admin: Admin,
    /// Keeps this run's names apart from those of others on the same broker.
    id: String,
    peers: Option<Peers>,
}

impl Lab {
    /// On a broker that serves.
    pub fn new(kafka: KafkaConfig, runs: usize, progress: Progress) -> Result<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Ok(Self {
            admin: Admin::new(&kafka)?,
            kafka,
            runs,
            progress,
            id: id[..8].to_owned(),
            peers: None,
        })
    }

    /// Makes what others use ready to run.
    pub async fn with_peers(mut self, dir: PathBuf, cache: &crate::stack::fetch::Cache) -> Result<Self> {
        let peers = Peers::prepare(&dir, cache, &self.kafka.bootstrap_servers, &self.progress).await;
        self.peers = Some(peers.context("the peers cannot be made ready")?);
        Ok(self)
    }

    /// Takes the figures.
    pub async fn flow(&self, figures: &[Figure]) -> Result<Vec<Row>> {
        throughput::warm_up(self)
            .await
            .context("the broker cannot be warmed up")?;
        let mut rows = Vec::new();
        for figure in figures {
            rows.extend(match figure {
                Figure::A => parallel::run(self).await.context("bench a")?,
                Figure::B => throughput::run(self).await.context("bench b")?,
                Figure::C => latency::run(self).await.context("bench c")?,
                Figure::D => slow::run(self).await.context("bench d")?,
                Figure::E => restart::run(self).await.context("bench e")?,
            });
        }
        Ok(rows)
    }

    fn name(&self, what: &str) -> String {
        format!("millrace.bench.{}.{what}", self.id)
    }

    /// Makes a topic and says its name.
    async fn topic(&self, what: &str, partitions: i32) -> Result<String> {
        let name = self.name(what);
        let topic = NewTopic {
            name: name.clone(),
            partitions,
            replication: 1,
            config: Vec::new(),
        };
        self.admin.create(topic).await?;
        Ok(name)
    }

    fn committed(&self, group: &str, topic: &str, partitions: i32) -> Result<Arc<Committed>> {
        Ok(Arc::new(Committed::of(&self.kafka, group, topic, partitions)?))
    }

    /// Removes topics and groups: a bench's data must not fill the disk.
    async fn remove(&self, topics: &[&str], groups: &[&str]) -> Result<()> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Ok(log::remove(&self.kafka, &owned(topics), &owned(groups)).await?)
    }
}
