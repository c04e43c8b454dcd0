//! Notices a partition that its client has ceased to fetch, though its log goes on.
//!
//! librdkafka can lose the leader of a partition for good when a broker restarts (its issue 5430): it polls on, its
//! statistics say that nothing is left, and no error comes. So somebody else asks the cluster, every few seconds, where
//! partitions end: a client and a thread of their own, so that polling waits for no answer and the question does not stand
//! behind a fetch. A partition that is behind, and stays exactly where it is while its client has nothing else to hand over,
//! is stalled: another client in the place of the first reads on.
//!
//! | the cluster says | the fetch position | then |
//! |---|---|---|
//! | an end beyond it | unmoved at four looks in a row | stalled |
//! | nothing: no answer of one of the leaders | any | an outage: waited for |
//! | any | moved, at the end, or what was fetched is not handed over yet | well |
//!
//! Who is replaced and still does not move gets twice the time, up to ten minutes: what is merely slow gets through.
//!
//! Rejected: the client's own view of its leaders (statistics), and its own answer: they are what is wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_failpoints::client;
use millrace_flow::TopicPartition;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::statistics::{self, Statistics};
use rdkafka::{ClientConfig, Offset};

use crate::convert;
use crate::positions::{Offsets, bounds};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// So many looks in a row must find a partition where the look before found it; most of them after replacements.
const STRIKES: u32 = 3;
const MOST_STRIKES: u32 = 120;

/// What is known of the partitions that a stage, or a reader of a topic, reads with one client after another. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<BTreeMap<TopicPartition, Look>>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    fetched: i64,
    /// The furthest that any client has fetched.
    furthest: i64,
    behind: bool,
    strikes: u32,
    wanted: u32,
}

/// One client under watch, as its own thread sees it. Dropped, it is watched no more.
#[derive(Debug)]
pub(crate) struct Watched {
    seen: Arc<Seen>,
    stalled: Receiver<String>,
    _watching: Sender<()>,
}

/// What a client's thread says of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    fetched: Mutex<Offsets>,
    emptied: AtomicBool,
}

impl Seen {
    /// Where it fetches, by its statistics, of what is meant to be fetched now.
    pub(crate) fn learn(&self, statistics: &Statistics, is_wanted: impl Fn(&TopicPartition) -> bool) {
        let topics = statistics.topics.values();
        let all = topics.flat_map(|topic| {
            topic
                .partitions
                .values()
                .map(move |partition| (&topic.topic, partition))
        });
        let fetched = all.filter(|(_, seen)| is_fetched(seen)).map(|(topic, seen)| {
            let partition = TopicPartition {
                topic: topic.as_str().into(),
                partition: seen.partition,
            };
            (partition, seen.next_offset)
        });
        let fetched = fetched.filter(|(partition, _)| is_wanted(partition)).collect();
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = fetched;
    }

    fn fetched(&self) -> Offsets {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watched {
    /// The client had nothing to hand over.
    pub(crate) fn emptied(&self) {
        self.seen.emptied.store(true, Ordering::Relaxed);
    }

    /// A partition that is stalled, in words.
    pub(crate) fn stalled(&self) -> Option<String> {
        self.stalled.try_recv().ok()
    }
}

impl Watch {
    /// Watches a client with these settings, from a thread of its own that asks with another client.
    pub(crate) fn begin(&self, settings: &ClientConfig, seen: Arc<Seen>) -> Result<Watched, KafkaError> {
        // Asked, and given no partition: it joins nothing and fetches nothing.
        let asker: BaseConsumer = settings.clone().set("statistics.interval.ms", "0").create()?;
        let (say, stalled) = channel();
        let (watching, over) = channel();
        let (watch, watched) = (self.clone(), seen.clone());
        let thread = std::thread::Builder::new().name("kafka-watch".into());
        thread
            .spawn(move || watch.run(&asker, &watched, &say, &over))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Watched {
            seen,
            stalled,
            _watching: watching,
        })
    }

    /// Until nobody is watched any more.
    fn run(&self, asker: &BaseConsumer, seen: &Seen, say: &Sender<String>, over: &Receiver<()>) {
        while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let fetched = seen.fetched();
            if fetched.is_empty() {
                continue;
            }
            let ends = ends(asker, &fetched).unwrap_or_else(|error| {
                // An outage, of which the client itself tells.
                tracing::debug!(%error, "where partitions end could not be asked");
                Offsets::new()
            });
            let emptied = seen.emptied.swap(false, Ordering::Relaxed);
            if let Some(stalled) = self.found(&fetched, &ends, emptied)
                && say.send(stalled).is_err()
            {
                return;
            }
        }
    }

    fn looks(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, fetched: &Offsets, ends: &Offsets, emptied: bool) -> Option<String> {
        let mut looks = self.looks();
        for (partition, look) in looks.iter_mut() {
            if !fetched.contains_key(partition) {
                (look.behind, look.strikes) = (false, 0);
            }
        }
        let mut stalled = None;
        for (partition, fetched) in fetched {
            let end = ends.get(partition).copied().filter(|end| fetched < end);
            let look = looks.entry(partition.clone()).or_insert(Look {
                fetched: *fetched,
                furthest: *fetched,
                behind: false,
                strikes: 0,
                wanted: STRIKES,
            });
            if *fetched > look.furthest {
                (look.furthest, look.wanted) = (*fetched, STRIKES);
            }
            let stands = emptied && look.behind && look.fetched == *fetched;
            look.strikes = if stands && end.is_some() { look.strikes + 1 } else { 0 };
            (look.fetched, look.behind) = (*fetched, end.is_some());
            if let Some(end) = end.filter(|_| look.strikes >= look.wanted && stalled.is_none()) {
                stalled = Some(told(partition, look, end));
                look.wanted = (2 * look.wanted).min(MOST_STRIKES);
                (look.behind, look.strikes) = (false, 0);
            }
        }
        stalled
    }
}

fn told(TopicPartition { topic, partition }: &TopicPartition, look: &Look, end: i64) -> String {
    let (fetched, seconds) = (look.fetched, (LOOK * look.strikes).as_secs());
    format!(
        "the client has ceased to fetch {topic}/{partition}: it stood at {fetched} for {seconds} seconds, and the log goes \
         on to {end}"
    )
}

/// Whether a partition is held and has a position; those of nobody are counted under partition −1.
fn is_fetched(seen: &statistics::Partition) -> bool {
    let held = !matches!(&*seen.fetch_state, "none" | "stopping" | "stopped");
    seen.partition >= 0 && seen.next_offset >= 0 && held
}

/// Next stable offsets. None of a partition whose leader does not say.
fn ends(asker: &BaseConsumer, fetched: &Offsets) -> Result<Offsets, KafkaError> {
    let ends = bounds(asker, &convert::list(fetched.keys()), Offset::End)?;
    let known = ends
        .into_iter()
        .filter_map(|(partition, end)| Some((partition, end.ok()?)));
    Ok(known.filter(|(_, end)| *end >= 0).collect())
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

    fn at(partition: i32, offset: i64) -> Offsets {
        let id = TopicPartition {
            topic: "t".into(),
            partition,
        };
        [(id, offset)].into()
    }

    /// A look at partition 0: its fetch position, its end, and whether the client ran empty before.
    type Step = (i64, Option<i64>, bool);

    fn look(watch: &Watch, (fetched, end, emptied): Step) -> bool {
        let ends = end.map_or_else(Offsets::new, |end| at(0, end));
        watch.found(&at(0, fetched), &ends, emptied).is_some()
    }

    fn looks(script: &[Step]) -> Vec<bool> {
        let watch = Watch::default();
        script.iter().map(|step| look(&watch, *step)).collect()
    }

    #[test]
    fn behind_and_unmoved_at_four_looks_is_stalled() {
        assert_eq!(looks(&[(5, Some(9), true); 4]), [false, false, false, true]);
    }

    #[test]
    fn what_moves_is_at_its_end_is_waited_for_or_not_handed_over_is_well() {
        let moved = [(5, Some(9), true), (6, Some(9), true)].repeat(4);
        let at_end = [(9, Some(9), true)].repeat(8);
        let outage = [(5, None, true)].repeat(8);
        let queued = [(5, Some(9), false)].repeat(8);
        // Records came just now, each time: it was at its end before.
        let new = (0..8).map(|n| (n, Some(n + 1), true)).collect();
        let often_away = [(5, Some(9), true), (5, Some(9), true), (5, None, true)].repeat(4);
        for script in [moved, at_end, outage, queued, new, often_away] {
            assert_eq!(looks(&script), vec![false; script.len()], "{script:?}");
        }
    }

    #[test]
    fn a_partition_that_was_not_to_be_fetched_meanwhile_begins_anew() {
        let watch = Watch::default();
        for _ in 0..3 {
            assert_eq!([(); 3].map(|()| look(&watch, (5, Some(9), true))), [false; 3]);
            assert_eq!(watch.found(&at(1, 0), &at(1, 0), true), None);
        }
    }

    /// How many looks it takes until it counts as stalled again.
    fn until_stalled(watch: &Watch, fetched: i64) -> usize {
        (1..1000).find(|_| look(watch, (fetched, Some(9), true))).unwrap_or(0)
    }

    #[test]
    fn who_does_not_move_after_a_replacement_gets_twice_the_time_until_it_moves() {
        let watch = Watch::default();
        // The first look at a client finds it behind; the others count.
        assert_eq!([(); 3].map(|()| until_stalled(&watch, 5)), [4, 7, 13]);
        // Back at what is committed: no progress.
        assert_eq!(until_stalled(&watch, 3), 25);
        assert_eq!([(); 3].map(|()| until_stalled(&watch, 5)), [49, 97, 121]);
        assert_eq!(until_stalled(&watch, 5), 121, "the most");
        assert_eq!(until_stalled(&watch, 6), 4);
    }
}
