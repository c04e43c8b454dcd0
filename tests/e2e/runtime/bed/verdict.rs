//! What came of what was written: positions and outputs, held against the promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millrace_testkit::wire::Committed;
use millrace_testkit::{log, poll};

use super::Bed;
use crate::runtime::process::Process;
use crate::runtime::records::{Done, Out};

/// Longest wait for what is written to come out: outages and sessions that must end included.
pub(super) const OUT_WITHIN: Duration = Duration::from_secs(90);

impl Bed {
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
    pub(super) async fn behind(&self) -> Result<i64> {
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
