//! A case's own topics and group, what its stages are told, and what it writes. What comes of it: [`verdict`].

mod verdict;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use futures::future::join_all;
use millrace_flow::runner::Limits;
use millrace_flow::{Headers, Output};
use millrace_kafka::{Admin, Created, KafkaConfig, NewTopic, Producer, SendError};
use millrace_testkit::group::{self, Membership};
use millrace_testkit::wire::Broker;
use millrace_testkit::{Proxy, Stack, poll};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::process::Process;
use super::records::{Input, WRITTEN_FOR, spread};
use super::stage::Spec;
use millrace_testkit::still::{Still, undecided};
use verdict::OUT_WITHIN;

/// The shortest session that a broker takes by default.
pub const SHORT_SESSION_MS: i32 = 6000;

/// Records of a load that are under way at most.
const AHEAD: i64 = 400;
/// Records of a load that are written at once.
const BATCH: usize = 50;

/// Topics `e2e.NAME.in`, `.out` and `.dlq`, and the group `e2e.NAME`.
#[derive(Debug)]
pub struct Bed {
    pub group: String,
    pub input: String,
    pub output: String,
    pub dead_letters: String,
    pub partitions: i32,
    /// What no client of the product does.
    pub broker: Broker,
    kafka: KafkaConfig,
    admin: Admin,
    producer: Producer,
    dir: TempDir,
    started: AtomicUsize,
}

/// Runs a case on a bed of its own; a failure comes with what its stages told.
pub async fn on_bed(
    stack: &Stack,
    name: &str,
    partitions: i32,
    case: impl AsyncFnOnce(&Bed) -> Result<()>,
) -> Result<()> {
    on_bed_with(stack, name, partitions, &[], case).await
}

/// As [`on_bed`], with settings for the output topic.
pub async fn on_bed_with(
    stack: &Stack,
    name: &str,
    partitions: i32,
    output: &[(&str, &str)],
    case: impl AsyncFnOnce(&Bed) -> Result<()>,
) -> Result<()> {
    let bed = Bed::new(stack, name, partitions, output).await?;
    let outcome = Box::pin(case(&bed)).await;
    outcome.map_err(|error| anyhow!("{error:#}\n\nthe stages of {name} told:\n{}", bed.told()))
}

impl Bed {
    async fn new(stack: &Stack, name: &str, partitions: i32, output: &[(&str, &str)]) -> Result<Self> {
        let kafka = KafkaConfig {
            bootstrap_servers: stack.addresses.kafka.clone(),
            // Members hear of a rebalance soon.
            properties: [("heartbeat.interval.ms".to_owned(), "500".to_owned())].into(),
        };
        let plain = KafkaConfig {
            properties: BTreeMap::new(),
            ..kafka.clone()
        };
        let topic = |kind: &str| format!("e2e.{name}.{kind}");
        let bed = Self {
            group: format!("e2e.{name}"),
            input: topic("in"),
            output: topic("out"),
            dead_letters: topic("dlq"),
            partitions,
            broker: Broker::new(&stack.addresses.kafka),
            admin: Admin::new(&plain)?,
            producer: Producer::new(&plain, &format!("e2e.{name}"))?,
            kafka,
            dir: tempfile::Builder::new().prefix("stages-").tempdir_in(stack.dir())?,
            started: AtomicUsize::new(0),
        };
        let big = [("max.message.bytes", "9437184")];
        for (name, config) in [(&bed.input, &big[..]), (&bed.output, output), (&bed.dead_letters, &big)] {
            bed.create(name, config).await?;
        }
        Ok(bed)
    }

    /// Creates a topic.
    pub async fn create(&self, name: &str, config: &[(&str, &str)]) -> Result<()> {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: self.partitions,
            replication: 1,
            config: config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        ensure!(self.admin.create(new).await? == Created::Created, "{name} is left over");
        Ok(())
    }

    /// What a stage of this name is told.
    pub fn spec(&self, instance: &str) -> Spec {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Spec {
            kafka: self.kafka.clone(),
            group: self.group.clone(),
            instance: instance.to_owned(),
            input: self.input.clone(),
            output: self.output.clone(),
            dead_letters: self.dead_letters.clone(),
            signals: self.dir.path().to_owned(),
            picture: self.dir.path().join(format!("{instance}-{number}.json")),
            limits: Limits {
                drain_ms: 1500,
                ..Limits::default()
            },
        }
    }

    /// What a stage of this name is told that is missed soon after it is gone.
    pub fn of_short_session(&self, instance: &str) -> Spec {
        let mut spec = self.spec(instance);
        let session = ("session.timeout.ms".to_owned(), SHORT_SESSION_MS.to_string());
        spec.kafka.properties.extend([session]);
        spec
    }

    /// Starts a stage.
    pub fn start(&self, instance: &str) -> Result<Process> {
        self.start_as(&self.spec(instance))
    }

    /// Starts a stage that is told something else than usual.
    pub fn start_as(&self, spec: &Spec) -> Result<Process> {
        Process::start(spec)
    }

    /// The transactional id of a stage.
    pub fn transactional_id(&self, instance: &str) -> String {
        format!("{}.{instance}", self.group)
    }

    /// Gives a signal that records wait for.
    pub fn signal(&self, name: &str) -> Result<()> {
        std::fs::write(self.dir.path().join(name), "").map_err(Into::into)
    }

    /// Writes records, in order. All are acknowledged when it returns.
    pub async fn send(&self, records: &[Input]) -> Result<()> {
        for sent in self.offer(records).await {
            sent?;
        }
        Ok(())
    }

    async fn offer(&self, records: &[Input]) -> Vec<Result<millrace_kafka::Sent, SendError>> {
        let output = |record: &Input| Output {
            topic: self.input.clone(),
            partition: record.partition,
            key: record.key.clone().into_bytes().into(),
            value: Some(record.script.clone().into_bytes().into()),
            headers: Headers(vec![(WRITTEN_FOR.to_owned(), Some(self.group.clone().into()))]),
        };
        join_all(records.iter().map(|record| self.producer.send(output(record)))).await
    }

    /// Does something while records with this script are written, and gives how many were.
    pub async fn under_load<T>(&self, script: &str, trouble: impl AsyncFnOnce() -> Result<T>) -> Result<(T, usize)> {
        let stop = CancellationToken::new();
        let trouble = async {
            let _stop = stop.clone().drop_guard();
            trouble().await
        };
        tokio::try_join!(trouble, self.load(script, &stop))
    }

    /// Writes records of 60 keys until told to stop, never far ahead of what is committed. A record whose outcome is
    /// unknown is not written again: what counts is what stands in the input. Gives how many were acknowledged.
    async fn load(&self, script: &str, stop: &CancellationToken) -> Result<usize> {
        let records = spread(BATCH, 60, script);
        let mut acknowledged = 0;
        while !stop.is_cancelled() {
            for sent in self.offer(&records).await {
                match sent {
                    Ok(_) => acknowledged += 1,
                    Err(SendError::OutcomeUnknown(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            poll::until("the stages to keep up with a load", OUT_WITHIN, async || {
                match self.behind().await {
                    Ok(behind) if behind > AHEAD && !stop.is_cancelled() => Ok(Err(format!("{behind} behind"))),
                    Err(error) if !stop.is_cancelled() => Ok(Err(format!("{error:#}"))),
                    _ => Ok(Ok(())),
                }
            })
            .await?;
        }
        Ok(acknowledged)
    }

    /// The group's life so far.
    pub async fn history(&self) -> Result<Vec<Membership>> {
        group::history(&self.kafka.bootstrap_servers, &self.group).await
    }

    /// The group as it is now.
    pub async fn membership(&self) -> Result<Membership> {
        let now = self.history().await?.pop();
        now.context("the group has never been")
    }

    /// Holds stages still, at least one in an open transaction and none in one that is decided: see [`undecided`].
    pub async fn caught_in_transactions(&self, stages: &[Process]) -> Result<Vec<Still>> {
        let held = stages
            .iter()
            .map(|stage| (stage.pid(), self.transactional_id(stage.instance())));
        undecided(&self.broker, &held.collect::<Vec<_>>(), true).await
    }

    /// The same, of a stage that reaches the broker through a proxy of its own.
    pub async fn behind_a_proxy(&self, mut spec: Spec) -> Result<(Proxy, Spec)> {
        let proxy = Proxy::before(&self.kafka.bootstrap_servers).await?;
        spec.kafka.bootstrap_servers.clone_from(&proxy.address);
        Ok((proxy, spec))
    }

    fn told(&self) -> String {
        let mut told = String::new();
        for entry in self.dir.path().read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some() {
                told.push_str(&format!("--- {}\n{}\n", path.display(), end_of(&path)));
            }
        }
        told
    }
}

fn end_of(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
