//! What a bench puts into its input topic, and what must then stand in its output topic: each record once, and those of
//! a key in their order.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use millrace_flow::position::Position;
use millrace_kafka::KafkaConfig;
use millrace_kafka::partitioner::partition_for;
use millrace_kafka::yardstick::log::{self, Seen};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Records numbered from 0. A value begins with its number and a space; what follows compresses about as prose does.
#[derive(Debug, Clone)]
pub struct Workload {
    /// How many.
    pub records: u64,
    /// Bytes of each value.
    pub bytes: usize,
    /// Keys; record `i` has key `i % keys`.
    pub keys: u64,
    /// Every so many records one has a key of its own.
    pub alone_every: Option<u64>,
    /// Partitions of the input topic.
    pub partitions: i32,
    /// What values are cut from.
    pub text: Bytes,
}

/// Marks a key that no other record has.
pub const ALONE: &[u8] = b"alone-";

impl Workload {
    /// Records over 1,000 keys and 12 partitions.
    pub fn new(records: u64, bytes: usize) -> Self {
        Self {
            records,
            bytes,
            keys: 1000,
            alone_every: None,
            partitions: super::PARTITIONS,
            text: prose(),
        }
    }

    /// A record's key.
    pub fn key(&self, index: u64) -> String {
        if self.is_alone(index) {
            format!("alone-{index}")
        } else {
            format!("key-{}", index % self.keys)
        }
    }

    fn is_alone(&self, index: u64) -> bool {
        self.alone_every.is_some_and(|every| index.is_multiple_of(every))
    }

    fn partition(&self, index: u64) -> i32 {
        partition_for(self.key(index).as_bytes(), self.partitions)
    }

    /// A value of `bytes` bytes for a record.
    pub fn value(text: &[u8], index: u64, bytes: usize) -> Vec<u8> {
        let mut value = format!("{index} ").into_bytes();
        let rest = bytes.saturating_sub(value.len());
        let start = (index as usize).wrapping_mul(977) % (text.len() - rest);
        value.extend_from_slice(&text[start..start + rest]);
        value
    }

    /// Writes all of them into a topic.
    pub async fn fill(&self, kafka: &KafkaConfig, topic: &str) -> Result<()> {
        let (workload, kafka, name) = (self.clone(), kafka.clone(), topic.to_owned());
        let fill = move || {
            let record = |i| {
                let value = Self::value(&workload.text, i, workload.bytes);
                (workload.partition(i), workload.key(i).into_bytes(), value)
            };
            log::fill(&kafka, &name, (0..workload.records).map(record))
        };
        tokio::task::spawn_blocking(fill)
            .await?
            .with_context(|| format!("cannot fill {topic}"))
    }

    /// Offset of each partition's end, once filled.
    pub fn ends(&self) -> Vec<i64> {
        let mut ends = vec![0; self.partitions as usize];
        (0..self.records).for_each(|i| ends[self.partition(i) as usize] += 1);
        ends
    }

    /// Which records are finished by what a group has committed.
    pub fn finished(&self, committed: &[Option<(i64, String)>]) -> Result<Vec<bool>> {
        let nothing = Position::at(0);
        let mut positions = Vec::new();
        for position in committed {
            positions.push(match position {
                Some((offset, metadata)) => Position::parse(*offset, metadata)?,
                None => nothing.clone(),
            });
        }
        let above: Vec<BTreeSet<i64>> = positions
            .iter()
            .map(|p| p.finished.iter().flat_map(Range::clone).collect())
            .collect();
        let mut offsets = vec![0; positions.len()];
        let finished = (0..self.records).map(|i| {
            let partition = self.partition(i) as usize;
            let offset = offsets[partition];
            offsets[partition] += 1;
            offset < positions[partition].offset || above[partition].contains(&offset)
        });
        Ok(finished.collect())
    }

    /// Reads an output topic as everybody should, `read_committed`, and refuses it unless it has the outputs of the
    /// finished records (of all, where nothing is said), each once, and those of a key in order.
    pub async fn verify(
        &self,
        kafka: &KafkaConfig,
        output: &str,
        finished: Option<Vec<bool>>,
        mut each: impl FnMut(Seen<'_>) + Send + 'static,
    ) -> Result<()> {
        let (workload, kafka, name) = (self.clone(), kafka.clone(), output.to_owned());
        let read = move || {
            let mut outputs = Outputs::of(&workload);
            log::read(&kafka, &name, workload.partitions, |seen| {
                outputs.take(&workload, seen);
                each(seen);
            })?;
            outputs.check(&workload, finished.as_deref())
        };
        tokio::task::spawn_blocking(read)
            .await?
            .with_context(|| format!("the outputs in {output} are not what they must be"))
    }
}

/// What was read of an output topic.
struct Outputs {
    seen: Vec<bool>,
    last: Vec<Option<u64>>,
    wrong: Option<String>,
}

impl Outputs {
    fn of(workload: &Workload) -> Self {
        Self {
            seen: vec![false; workload.records as usize],
            last: vec![None; workload.keys as usize],
            wrong: None,
        }
    }

    fn take(&mut self, workload: &Workload, seen: Seen<'_>) {
        if self.wrong.is_some() {
            return;
        }
        self.wrong = self.refusal(workload, seen);
    }

    fn refusal(&mut self, workload: &Workload, seen: Seen<'_>) -> Option<String> {
        let Some(index) = index_of(seen.value).filter(|i| *i < workload.records) else {
            return Some("an output is of no input".into());
        };
        if seen.key != workload.key(index).as_bytes() {
            return Some(format!("the output of record {index} has another key"));
        }
        if std::mem::replace(&mut self.seen[index as usize], true) {
            return Some(format!("the output of record {index} stands there twice"));
        }
        if !workload.is_alone(index) {
            let before = self.last[(index % workload.keys) as usize].replace(index);
            if let Some(before) = before.filter(|before| *before > index) {
                return Some(format!(
                    "the output of record {index} stands behind that of {before}, of the same key"
                ));
            }
        }
        None
    }

    fn check(&self, workload: &Workload, finished: Option<&[bool]>) -> Result<()> {
        if let Some(wrong) = &self.wrong {
            bail!("{wrong}");
        }
        for index in 0..workload.records as usize {
            let finished = finished.is_none_or(|finished| finished[index]);
            match (finished, self.seen[index]) {
                (true, false) => bail!("record {index} is committed and has no output"),
                (false, true) => bail!("record {index} has an output and is not committed"),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The number that a value begins with.
pub fn index_of(value: &[u8]) -> Option<u64> {
    let digits = value.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A mebibyte of words that nobody wrote, the frequent ones short: lz4 halves it, as it does prose.
pub fn prose() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(words);
    TEXT.clone()
}

fn words() -> Bytes {
    const SYLLABLES: [&str; 24] = [
        "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "xi",
        "yo", "zu", "ster", "ment", "tion", "ough",
    ];
    let mut rng = StdRng::seed_from_u64(1);
    let mut word = |n: usize| -> String {
        let syllables = 1 + n / 400;
        (0..syllables)
            .map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())])
            .collect()
    };
    let words: Vec<String> = (0..2000).map(&mut word).collect();
    let mut text = Vec::with_capacity(1 << 20);
    while text.len() < 1 << 20 {
        let draw: f64 = rng.random();
        let rank = (draw * draw * words.len() as f64) as usize;
        text.extend_from_slice(words[rank].as_bytes());
        text.push(b' ');
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Workload {
        Workload {
            keys: 3,
            alone_every: Some(5),
            partitions: 2,
            ..Workload::new(20, 40)
        }
    }

    fn outputs(workload: &Workload, order: &[u64], finished: Option<&[bool]>) -> Result<()> {
        let mut outputs = Outputs::of(workload);
        for index in order {
            let (key, value) = (workload.key(*index), Workload::value(&workload.text, *index, 40));
            assert_eq!((value.len(), index_of(&value)), (40, Some(*index)));
            let seen = Seen {
                key: key.as_bytes(),
                value: &value,
                timestamp_ms: 0,
            };
            outputs.take(workload, seen);
        }
        outputs.check(workload, finished)
    }

    #[test]
    fn missing_repeated_and_reordered_outputs_are_refused() {
        let workload = small();
        let all: Vec<u64> = (0..20).collect();
        let refused = |order: &[u64]| outputs(&workload, order, None).unwrap_err().to_string();
        assert!(outputs(&workload, &all, None).is_ok());
        assert!(refused(&all[..19]).contains("19 is committed and has no output"));
        assert!(refused(&[&all[..], &[7]].concat()).contains("7 stands there twice"));
        assert!(refused(&[1, 7, 4]).contains("4 stands behind that of 7"));
        assert!(
            outputs(
                &workload,
                &[3, 2, 1],
                Some(&(0..20).map(|i| (1..4).contains(&i)).collect::<Vec<_>>())
            )
            .is_ok()
        );
        assert!(outputs(&workload, &[3], Some(&[false; 20])).is_err());
    }

    #[test]
    fn what_is_committed_says_which_records_are_finished() {
        let workload = small();
        let of_partition = |p| {
            (0..20)
                .filter(move |i| small().partition(*i) == p)
                .collect::<Vec<u64>>()
        };
        let (zero, one) = (of_partition(0), of_partition(1));
        assert_eq!(workload.ends(), [zero.len() as i64, one.len() as i64]);
        // Of partition 0 the first two offsets and the fourth, of partition 1 nothing.
        let committed = [Some((2, "1;s=0;o=;a=0;b=AQ".to_owned())), None];
        let finished = workload.finished(&committed).unwrap();
        let expected: BTreeSet<u64> = [zero[0], zero[1], zero[3]].into();
        let found: BTreeSet<u64> = (0..20).filter(|i| finished[*i as usize]).collect();
        assert_eq!(found, expected);
    }
}
