//! A case's own topics and group, what it writes, and the promises that what comes out is held against.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use millrace_flow::runner::Limits;
use millrace_flow::{Headers, Output};
use millrace_kafka::{Admin, Created, KafkaConfig, NewTopic, Producer, SendError};
use millrace_testkit::group::{self, Membership};
use millrace_testkit::wire::{Broker, Committed};
use millrace_testkit::{Proxy, Stack, log, poll};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::process::Process;
use super::records::{Done, Input, Out, WRITTEN_FOR, spread};
use super::stage::Spec;
use millrace_testkit::still::{Still, undecided};

/// Longest wait for what is written to come out: outages and sessions that must end included.
const OUT_WITHIN: Duration = Duration::from_secs(90);

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

    /// What is committed, by partition.
    pub async fn committed(&self) -> Result<BTreeMap<i32, Committed>> {
        self.broker.committed(&self.group, &self.input, self.partitions).await
    }

    /// Lowest unfinished offset of a partition, and the finished ones above it.
    pub async fn position(&self, partition: i32) -> Result<(i64, BTreeSet<i64>)> {
        let committed = self.committed().await?;
        let at = committed.get(&partition).context("nothing is committed")?;
        Ok((at.offset, finished(at)?))
    }

    /// Offsets from what is committed to the ends.
    async fn behind(&self) -> Result<i64> {
        let committed = self.committed().await?;
        let at = |partition| committed.get(partition).map_or(0, |c| c.offset);
        Ok(self
            .broker
            .ends(&self.input, self.partitions)
            .await?
            .iter()
            .map(|(p, end)| end - at(p))
            .sum())
    }

    /// Waits until nothing of the input is unfinished: the position of each partition with records is its end.
    pub async fn settled(&self) -> Result<()> {
        self.settled_but(&[]).await
    }

    /// As [`Self::settled`], but for these partitions.
    pub async fn settled_but(&self, left_out: &[i32]) -> Result<()> {
        self.settled_in(&self.group, &self.input, left_out).await
    }

    /// As [`Self::settled_but`], for another group and topic.
    pub async fn settled_in(&self, group: &str, topic: &str, left_out: &[i32]) -> Result<()> {
        poll::until("positions to be at the ends", OUT_WITHIN, async || {
            let committed = self.broker.committed(group, topic, self.partitions).await;
            let (committed, ends) = match (committed, self.broker.ends(topic, self.partitions).await) {
                (Ok(committed), Ok(ends)) => (committed, ends),
                (Err(error), _) | (_, Err(error)) => return Ok(Err(format!("{error:#}"))),
            };
            let mut wanting = Vec::new();
            for (partition, end) in ends {
                let at = committed.get(&partition);
                match at.map_or(0, |at| at.offset) {
                    offset if offset > end => bail!("partition {partition} ends at {end}, behind {at:?}"),
                    offset if offset == end || left_out.contains(&partition) => {}
                    _ => wanting.push(format!("partition {partition} ends at {end}, {at:?}")),
                }
            }
            Ok(if wanting.is_empty() {
                Ok(())
            } else {
                Err(wanting.join("; "))
            })
        })
        .await
    }

    /// All outputs that are committed now, none of them twice.
    pub async fn outputs(&self) -> Result<Vec<Done>> {
        self.read(&self.output).await
    }

    async fn read(&self, topic: &str) -> Result<Vec<Done>> {
        let records = log::records(&self.kafka.bootstrap_servers, topic).await?;
        let done: Vec<_> = records.iter().map(Done::of).collect::<Result<_>>()?;
        let mut seen = BTreeSet::new();
        let again = done.iter().find(|done| !seen.insert(done.origin));
        ensure!(again.is_none(), "{topic} holds it more than once: {again:?}");
        Ok(done)
    }

    /// Waits until so many outputs are committed; fails if there are more.
    pub async fn come_out(&self, count: usize) -> Result<Vec<Done>> {
        poll::until(&format!("{count} outputs"), OUT_WITHIN, async || {
            let outputs = self.outputs().await?;
            ensure!(
                outputs.len() <= count,
                "{} outputs where {count} were to come",
                outputs.len()
            );
            Ok(if outputs.len() == count {
                Ok(outputs)
            } else {
                Err(outputs.len())
            })
        })
        .await
    }

    /// Each record of the input is an output or a dead letter, exactly once, and the outputs of a key are in the order of
    /// its inputs. To be asked when the stages have left: nothing can come after.
    pub async fn exactly_once(&self) -> Result<Out> {
        self.exactly_once_but(|_, _| false).await
    }

    /// As [`Self::exactly_once`], with records that nothing must come of.
    pub async fn exactly_once_but(&self, nothing: impl Fn(i32, i64) -> bool) -> Result<Out> {
        let input = log::records(&self.kafka.bootstrap_servers, &self.input).await?;
        let all: BTreeSet<(i32, i64)> = input.iter().map(|r| (r.origin.partition, r.origin.offset)).collect();
        let (none, wanted): (BTreeSet<_>, BTreeSet<_>) = all.into_iter().partition(|(p, o)| nothing(*p, *o));
        ensure!(!wanted.is_empty(), "nothing was written");
        // The last transaction is decided before its markers stand in every partition.
        let out = poll::until("every record to come out", OUT_WITHIN, async || {
            let (done, dead) = (self.outputs().await?, self.read(&self.dead_letters).await?);
            let came: BTreeSet<_> = done.iter().chain(&dead).map(|d| d.origin).collect();
            let missing: Vec<_> = wanted.difference(&came).collect();
            Ok(if missing.is_empty() {
                Ok(Out { done, dead })
            } else {
                let first = &missing[..missing.len().min(10)];
                Err(format!("{} of {} missing: {first:?} …", missing.len(), wanted.len()))
            })
        })
        .await?;
        let mut seen = BTreeSet::new();
        for done in out.done.iter().chain(&out.dead) {
            ensure!(seen.insert(done.origin), "it came out more than once: {done:?}");
            ensure!(!none.contains(&done.origin), "nothing was to come of it: {done:?}");
            ensure!(wanted.contains(&done.origin), "it has no input: {done:?}");
        }
        let mut last = HashMap::new();
        for done in &out.done {
            let before = last.insert(&done.key, done.origin.1).unwrap_or(-1);
            ensure!(before < done.origin.1, "it came out after offset {before}: {done:?}");
        }
        Ok(out)
    }

    /// Lets everything come out, asks the stages to leave, and holds the outputs against the promises.
    pub async fn finish(&self, stages: impl IntoIterator<Item = Process>) -> Result<Out> {
        self.settled().await?;
        for stage in stages {
            stage.leave().await?;
        }
        self.exactly_once().await
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

/// Reads the metadata of a position as its contract has it (crates/flow, `position`), by itself.
fn finished(at: &Committed) -> Result<BTreeSet<i64>> {
    if at.metadata.is_empty() {
        return Ok(BTreeSet::new());
    }
    let bitmap = at.metadata.strip_prefix("1;").and_then(|m| m.split_once(";b="));
    let (_, bitmap) = bitmap.with_context(|| format!("no bitmap in {at:?}"))?;
    let bytes = URL_SAFE_NO_PAD.decode(bitmap)?;
    let set = |i: &i64| bytes[*i as usize / 8] & (1 << (i % 8)) != 0;
    let bits = (0..8 * i64::try_from(bytes.len())?).filter(set);
    Ok(bits.map(|i| at.offset + 1 + i).collect())
}

fn end_of(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
