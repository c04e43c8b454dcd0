//! Notices a partition that its client has ceased to fetch, though its log goes on.
//!
//! librdkafka can lose the leader of a partition for good when a broker restarts (its issue 5430): it polls on, its
//! statistics say that nothing is left, and no error comes. So the cluster is asked, every few seconds, where partitions
//! end. One that is behind, and stays exactly where it is while the client has nothing else to hand over, is stalled: a
//! client in its place reads on.
//!
//! | the cluster says | the fetch position | then |
//! |---|---|---|
//! | an end beyond it | unmoved at four looks in a row | stalled |
//! | no end, but who leads it | unmoved at four looks in a row | stalled: the client has lost it |
//! | no end, and not who leads it | any | an outage: waited for |
//! | any | moved, at the end, or what was fetched is not handed over yet | well |
//!
//! Rejected: the client's own view of its leaders (statistics), which is what is wrong; a second client that asks (the
//! first one's question goes to the leader that metadata name, whatever its fetcher believes).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_flow::TopicPartition;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};

use crate::consumer::Offsets;
use crate::convert;
use millrace_failpoints::client;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// So many looks in a row must find a partition where the look before found it.
const STRIKES: u32 = 3;
/// For an answer. The thread that asks polls for nobody meanwhile.
const REQUEST: Duration = Duration::from_secs(2);

/// What is known of the partitions that one client reads.
#[derive(Debug)]
pub(crate) struct Watch {
    looked: Instant,
    /// The client had nothing to hand over, at some moment since the last look.
    emptied: bool,
    partitions: BTreeMap<TopicPartition, Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    fetched: i64,
    behind: bool,
    strikes: u32,
}

/// Where a partition ends, as far as the cluster says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    At(i64),
    /// It has a leader, which could not be asked.
    Led,
    Unknown,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            looked: Instant::now(),
            emptied: false,
            partitions: BTreeMap::new(),
        }
    }

    /// The client had nothing to hand over.
    pub(crate) fn emptied(&mut self) {
        self.emptied = true;
    }

    /// A partition that is stalled, in words, if it is time to look and there is one. `fetched` are the positions at which
    /// the client says that it fetches; one that is not meant to be fetched now must not be among them.
    pub(crate) fn look<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        fetched: impl FnOnce() -> Offsets,
    ) -> Option<String> {
        if self.looked.elapsed() < LOOK {
            return None;
        }
        let fetched = fetched();
        let ends = if fetched.is_empty() {
            BTreeMap::new()
        } else {
            ends(consumer, &fetched)
        };
        // After the question, which may have taken its time.
        self.looked = Instant::now();
        self.found(&fetched, &ends)
    }

    fn found(&mut self, fetched: &Offsets, ends: &BTreeMap<TopicPartition, End>) -> Option<String> {
        let emptied = std::mem::take(&mut self.emptied);
        let before = std::mem::take(&mut self.partitions);
        let mut stalled = None;
        for (partition, fetched) in fetched {
            let end = ends.get(partition).copied().unwrap_or(End::Unknown);
            let behind = match end {
                End::At(end) => *fetched < end,
                End::Led => true,
                End::Unknown => false,
            };
            let strikes = before
                .get(partition)
                .filter(|look| emptied && behind && look.behind && look.fetched == *fetched)
                .map_or(0, |look| look.strikes + 1);
            if strikes >= STRIKES {
                stalled.get_or_insert_with(|| told(partition, *fetched, end));
            }
            let look = Look {
                fetched: *fetched,
                behind,
                strikes,
            };
            self.partitions.insert(partition.clone(), look);
        }
        stalled
    }
}

fn told(TopicPartition { topic, partition }: &TopicPartition, fetched: i64, end: End) -> String {
    let end = match end {
        End::At(end) => format!("its log goes on to {end}"),
        End::Led | End::Unknown => "its leader, which others know, cannot be asked".to_owned(),
    };
    let seconds = (LOOK * STRIKES).as_secs();
    format!(
        "the client has ceased to fetch {topic}/{partition}: it stood at {fetched} for {seconds} seconds, and {end}"
    )
}

fn ends<C: ConsumerContext>(consumer: &BaseConsumer<C>, fetched: &Offsets) -> BTreeMap<TopicPartition, End> {
    let asked = asked_ends(consumer, fetched).or_else(|error| {
        tracing::debug!(%error, "the ends of partitions could not be asked for");
        leaders(consumer, fetched)
    });
    // An outage: others tell of it.
    asked.unwrap_or_default()
}

/// Next stable offsets: one request to each leader.
fn asked_ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    fetched: &Offsets,
) -> Result<BTreeMap<TopicPartition, End>, KafkaError> {
    let mut asked = convert::list(fetched.keys());
    asked.set_all_offsets(Offset::End)?;
    let answered = consumer.offsets_for_times(asked, REQUEST)?;
    let known = answered.elements().into_iter().map(|element| {
        let end = match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(end)) => End::At(end),
            _ => End::Unknown,
        };
        (convert::partition_of(&element), end)
    });
    Ok(known.collect())
}

/// Which of them have a leader, by whichever broker answers.
fn leaders<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    fetched: &Offsets,
) -> Result<BTreeMap<TopicPartition, End>, KafkaError> {
    let mut led = BTreeMap::new();
    for partition in fetched.keys() {
        if led.contains_key(partition) {
            continue;
        }
        let metadata = consumer.fetch_metadata(Some(&partition.topic), REQUEST)?;
        let topic = metadata.topics().first();
        for found in topic.into_iter().flat_map(|topic| topic.partitions()) {
            let id = TopicPartition {
                topic: partition.topic.clone(),
                partition: found.id(),
            };
            let unled = found.leader() < 0 || found.error().is_some();
            led.insert(id, if unled { End::Unknown } else { End::Led });
        }
    }
    Ok(led)
}

/// For tests: the client ceases to fetch the partition of this record, as if by itself.
pub(crate) fn as_told<C: ConsumerContext>(consumer: &BaseConsumer<C>, message: &BorrowedMessage<'_>) {
    if !client::STALLS.is_active() {
        return;
    }
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition(message.topic(), message.partition());
    if let Err(error) = consumer.pause(&list) {
        tracing::warn!(%error, "a partition could not be made to stall");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: "t".into(),
            partition,
        }
    }

    /// Looks, one after the other, at partition 0: its fetch position, its end, and whether the client ran empty before.
    fn looks(script: &[(i64, End, bool)]) -> Vec<bool> {
        let mut watch = Watch::new();
        let look = |(fetched, end, emptied): &(i64, End, bool)| {
            if *emptied {
                watch.emptied();
            }
            let found = watch.found(&[(at(0), *fetched)].into(), &[(at(0), *end)].into());
            found.is_some()
        };
        script.iter().map(look).collect()
    }

    #[test]
    fn behind_and_unmoved_at_four_looks_is_stalled() {
        assert_eq!(looks(&[(5, End::At(9), true); 4]), [false, false, false, true]);
        assert_eq!(looks(&[(5, End::Led, true); 4]), [false, false, false, true]);
    }

    #[test]
    fn what_moves_is_at_its_end_is_waited_for_or_not_handed_over_is_well() {
        let moved = [(5, End::At(9), true), (6, End::At(9), true)].repeat(4);
        let at_end = [(9, End::At(9), true)].repeat(8);
        let outage = [(5, End::Unknown, true)].repeat(8);
        let queued = [(5, End::At(9), false)].repeat(8);
        // Records came just now, each time: it was at its end before.
        let new = [
            (5, End::At(9), true),
            (9, End::At(9), true),
            (9, End::At(12), true),
            (12, End::At(12), true),
        ]
        .repeat(3);
        for script in [moved, at_end, outage, queued, new] {
            assert_eq!(looks(&script), vec![false; script.len()], "{script:?}");
        }
    }

    #[test]
    fn a_partition_that_was_not_to_be_fetched_meanwhile_begins_anew() {
        let mut watch = Watch::new();
        let (fetched, ends): (Offsets, BTreeMap<_, _>) = ([(at(0), 5)].into(), [(at(0), End::At(9))].into());
        for round in 0..3 {
            for look in 0..3 {
                watch.emptied();
                assert_eq!(watch.found(&fetched, &ends), None, "{round} {look}");
            }
            watch.found(&Offsets::new(), &BTreeMap::new());
        }
    }
}
