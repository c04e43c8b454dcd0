//! The consumer thread: polls, always, and pauses what the runner has no room for. What happens is told by [`crate::member`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;

use crate::member::Member;
use crate::positions::REQUEST;
use crate::{convert, rival, stalled};
use millrace_flow::TopicPartition;
use millrace_flow::log::Event;

/// Longest time between two looks at what should be paused.
const POLL: Duration = Duration::from_millis(20);
/// Between two looks at who holds the name of a member that was fenced, and how long nobody may say.
const LOOK: Duration = Duration::from_millis(500);
const NOBODY_SAYS: Duration = Duration::from_secs(300);

/// Who a consumer is in its group.
pub(crate) struct Name {
    pub(crate) group: String,
    pub(crate) instance: String,
    /// For how long it may be silent.
    pub(crate) session: Duration,
}

/// Polls until told to close, or until the consumer cannot go on; then says why.
///
/// | what `poll` says | then |
/// |---|---|
/// | fenced | it is found out by whom ([`rival`]): by another process, and the stage ends; by itself, and a new session begins |
/// | another fatal error, or a callback that failed | a new session |
/// | nothing more of a partition whose log goes on ([`stalled`]) | a new session |
/// | nothing, and the group does not let it in ([`crate::joining`]) | a new session |
/// | the position is out of the log's range | a new session, which finds out and stops that partition |
/// | any other error | librdkafka goes on by itself |
pub(crate) fn poll(
    consumer: &Member,
    name: &Name,
    mut wanted: watch::Receiver<BTreeSet<TopicPartition>>,
    closing: &AtomicBool,
    watched: &stalled::Watched,
) {
    use KafkaError::{MessageConsumption, MessageConsumptionFatal};
    use RDKafkaErrorCode::{
        AllBrokersDown, AutoOffsetReset, BrokerTransportFailure, FencedInstanceId, OffsetOutOfRange,
    };
    let context = consumer.context().clone();
    let mut full = false;
    let ended = loop {
        if closing.load(Ordering::SeqCst) {
            return;
        }
        if let Some(why) = context.thread().joining.given_up() {
            break Event::Ended(why);
        }
        if let Some(why) = context.broken.get() {
            break Event::Ended(why.clone());
        }
        let reassigned = context.reassigned.swap(false, Ordering::SeqCst);
        if reassigned || wanted.has_changed().unwrap_or(false) {
            let wanted = wanted.borrow_and_update().clone();
            let mut thread = context.thread();
            thread.ends.clear();
            let paused = std::mem::replace(&mut thread.paused, wanted.clone());
            drop(thread);
            if let Err(error) = pause(consumer, &paused, &wanted, reassigned) {
                break Event::Ended(format!("partitions could not be paused or resumed: {error}"));
            }
        }
        // What is at hand already goes with the batch; only an empty one is waited for.
        let waiting = !full && !context.thread().batch.is_empty();
        if full && !context.tell(None) {
            return;
        }
        full = match consumer.poll(if waiting { Duration::ZERO } else { POLL }) {
            None => {
                watched.emptied();
                waiting
            }
            Some(Ok(message)) => {
                stalled::as_told(consumer, &message);
                context.add(&message)
            }
            Some(Err(MessageConsumptionFatal(FencedInstanceId))) => {
                let replaced = Event::Replaced("the consumer group gave this instance's name to another member".into());
                match context
                    .tell(Some(replaced))
                    .then(|| fenced(consumer, name, closing))
                    .flatten()
                {
                    Some(ended) => break ended,
                    None => return,
                }
            }
            Some(Err(MessageConsumptionFatal(code))) => {
                break Event::Ended(format!("the consumer cannot go on: {code}"));
            }
            Some(Err(MessageConsumption(code @ (AutoOffsetReset | OffsetOutOfRange)))) => {
                break Event::Ended(format!("a position lies outside of its log: {code}"));
            }
            // The client's own callback has told it.
            Some(Err(MessageConsumption(AllBrokersDown | BrokerTransportFailure))) => false,
            Some(Err(error)) => {
                tracing::warn!(%error, "the consumer goes on after an error");
                context.thread().joining.said(&error);
                false
            }
        };
        if let Some(stalled) = watched.stalled() {
            break Event::Ended(stalled);
        }
    };
    // A runner that has hung up knows already.
    context.tell(Some(ended));
}

/// Finds out by whom a member was fenced. None when that does not matter any more.
fn fenced(consumer: &Member, name: &Name, closing: &AtomicBool) -> Option<Event> {
    let (mut watch, asked) = (rival::Watch::new(name.session), Instant::now());
    while !closing.load(Ordering::SeqCst) {
        let held = match consumer.fetch_group_list(Some(&name.group), REQUEST) {
            Ok(list) => Some(list.groups().iter().any(|group| rival::is_held(group, &name.instance))),
            Err(error) => {
                tracing::warn!(%error, "fenced, and the consumer group does not say by whom");
                None
            }
        };
        match watch.seen(held, Instant::now()) {
            Some(rival::By::Rival) => {
                return Some(Event::Fenced(
                    "another process with the same instance name is in the consumer group".into(),
                ));
            }
            Some(rival::By::Itself) => {
                return Some(Event::Ended("the consumer was fenced by a join of its own".into()));
            }
            None if asked.elapsed() > NOBODY_SAYS => {
                return Some(Event::Ended(
                    "the consumer was fenced, and nobody could say by whom".into(),
                ));
            }
            None => std::thread::sleep(LOOK),
        }
    }
    None
}

fn pause(
    consumer: &Member,
    paused: &BTreeSet<TopicPartition>,
    wanted: &BTreeSet<TopicPartition>,
    reassigned: bool,
) -> Result<(), KafkaError> {
    let held: BTreeSet<TopicPartition> = convert::partitions(&consumer.assignment()?).into_iter().collect();
    let changes = |from: &BTreeSet<TopicPartition>, to: &BTreeSet<TopicPartition>| {
        let stays = |p: &TopicPartition| !reassigned && from.contains(p);
        convert::list(to.intersection(&held).filter(|p| !stays(p)))
    };
    let running: BTreeSet<TopicPartition> = held.difference(wanted).cloned().collect();
    let was_running: BTreeSet<TopicPartition> = held.difference(paused).cloned().collect();
    for (list, stop) in [
        (changes(paused, wanted), true),
        (changes(&was_running, &running), false),
    ] {
        match (list.count(), stop) {
            (0, _) => {}
            (_, true) => consumer.pause(&list)?,
            (_, false) => consumer.resume(&list)?,
        }
    }
    Ok(())
}
