use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use millrace_events::headers::{FAILURE_REASON, ORIGIN, REDRIVE};
use millrace_flow::{Delivery, Origin};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::codec::Offline;
use crate::letters::Store;
use crate::letters::log::{LetterWriter, LogError};
use crate::replica::{Event, replica};
use crate::testing::revision;

/// Topics of dead letters in memory: what is written to `documents.failed` comes to the replica.
#[derive(Clone, Default)]
struct Topics(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    letters: Vec<Delivery>,
    written: Vec<Vec<Output>>,
    writers: u64,
    refuses: Option<Bytes>,
    /// Batches until the writer is taken over.
    taken_over_after: Option<usize>,
    events: Option<mpsc::UnboundedSender<Event>>,
    next: i64,
}

#[derive(Clone)]
struct Writer(Topics, u64);

impl LetterLog for Topics {
    type Writer = Writer;
    async fn take_over(&self) -> Result<Writer, LogError> {
        let mut state = self.0.lock().unwrap();
        state.writers += 1;
        Ok(Writer(self.clone(), state.writers))
    }
    async fn ends(&self) -> Result<BTreeMap<i32, i64>, LogError> {
        Ok([(3, self.0.lock().unwrap().next)].into())
    }
    async fn letters(&self) -> Result<BoxStream<'static, Result<Delivery, LogError>>, LogError> {
        let letters = self.0.lock().unwrap().letters.clone();
        Ok(futures::stream::iter(letters.into_iter().map(Ok)).boxed())
    }
}

impl LetterWriter for Writer {
    async fn write(&self, outputs: Vec<Output>) -> Result<(), LogError> {
        let mut state = self.0.0.lock().unwrap();
        let over = state.taken_over_after.is_some_and(|after| state.written.len() >= after);
        if state.writers != self.1 || over {
            return Err(LogError::TakenOver("x".into()));
        }
        if state.refuses.is_some() && outputs.iter().any(|output| output.value == state.refuses) {
            return Err(LogError::Refused("too large".into()));
        }
        for output in outputs.iter().filter(|output| output.topic == "documents.failed") {
            state.put(output.key.clone(), output.value.clone());
        }
        state.written.push(outputs);
        Ok(())
    }
}

impl State {
    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let event = Event::Record(at(3, self.next, Some(key), value, Headers::default()));
        self.next += 1;
        self.events.as_ref().unwrap().send(event).unwrap();
    }
}

fn at(partition: i32, offset: i64, key: Option<Bytes>, value: Option<Bytes>, headers: Headers) -> Delivery {
    Delivery {
        origin: Origin {
            topic: Arc::from("test"),
            partition,
            offset,
        },
        key,
        value,
        headers,
        timestamp_ms: 0,
        attempt: 1,
        span: Default::default(),
    }
}

struct Set {
    topics: Topics,
    replica: Replica,
    _folder: tempfile::TempDir,
    _running: tokio::task::JoinHandle<()>,
}

fn set() -> Set {
    let folder = tempfile::tempdir().unwrap();
    let (replica, feed) = replica(Store::open(folder.path()).unwrap());
    let (events, mut received) = mpsc::unbounded_channel();
    let (sender, receiver) = mpsc::channel(16);
    let running = tokio::spawn(async move {
        let passing = async {
            while let Some(event) = received.recv().await {
                sender.send(event).await.unwrap();
            }
        };
        let fed = feed.run(ReceiverStream::new(receiver), Offline, CancellationToken::new());
        let _ended = tokio::join!(passing, fed);
    });
    let topics = Topics::default();
    topics.0.lock().unwrap().events = Some(events);
    Set {
        topics,
        replica,
        _folder: folder,
        _running: running,
    }
}

impl Set {
    /// Buries record `n`, as often redriven as told.
    fn bury(&self, n: i64, redrives: i32) {
        let record = DeadLetter {
            topic: "documents.parsed".into(),
            partition: 3,
            offset: n,
            tenant: "t".into(),
            document_id: "d".into(),
            revision: revision(n).get(),
            state: LetterState::Open,
            redrives,
            stage: "embed".into(),
            reason: "PANIC".into(),
            failed_at_ms: now_ms(),
            ..DeadLetter::default()
        };
        let key = record.key().unwrap().to_string();
        let mut headers = Headers::default();
        if redrives > 0 {
            headers.push(REDRIVE, redrives.to_string());
        }
        headers.push(FAILURE_REASON, "PANIC");
        headers.push(ORIGIN, key.clone());
        let mut state = self.topics.0.lock().unwrap();
        let value = Bytes::from(format!("value {n}"));
        let offset = state.letters.len() as i64;
        state
            .letters
            .push(at(3, offset, Some(Bytes::from_static(b"t/d")), Some(value), headers));
        state.put(key.into(), Some(Offline.encode(&record).unwrap()));
    }

    fn job(&self, action: Action, dry_run: bool) -> Job<Topics, Offline> {
        let order = Order {
            filter: Filter::default(),
            action,
            dry_run,
        };
        let (replica, topics) = (self.replica.clone(), self.topics.clone());
        Job::new(replica, topics, Offline, LaneConfig::default(), order)
    }

    async fn run(&self, action: Action, dry_run: bool) -> Result<Progress, LetterError> {
        let job = self.job(action, dry_run);
        let told: Vec<_> = job.run(CancellationToken::new()).collect().await;
        told.into_iter().last().unwrap()
    }

    async fn redrive(&self) -> Result<Progress, LetterError> {
        self.run(REDRIVE_ALL, false).await
    }

    /// Origin and redrive count of each record that re-entered its stage, in order.
    fn reentered(&self) -> Vec<(String, String)> {
        let state = self.topics.0.lock().unwrap();
        let outputs = state.written.iter().flatten();
        let originals = outputs.filter(|output| output.topic != "documents.failed");
        let mark = |output: &Output, name| output.headers.get_str(name).unwrap_or_default().to_owned();
        originals.map(|o| (mark(o, ORIGIN), mark(o, REDRIVE))).collect()
    }

    async fn states(&self) -> BTreeMap<i64, (LetterState, i32)> {
        let next = self.topics.0.lock().unwrap().next;
        self.replica.reached(3, next).await;
        let page = self.replica.read(|store| store.page(&Filter::default(), None, 10_000));
        let letters = page.await.unwrap().letters.into_iter();
        letters
            .map(|l| (l.record.offset, (l.record.state, l.record.redrives)))
            .collect()
    }
}

const REDRIVE_ALL: Action = Action::Redrive {
    max_per_second: None,
    max_redrives: 3,
};

#[tokio::test]
async fn each_letter_re_enters_once_with_its_new_state_in_the_same_transaction() {
    let set = set();
    (0..450).for_each(|n| set.bury(n, 0));
    let told = set.redrive().await.unwrap();
    assert_eq!((told.matched, told.done, told.finished), (450, 450, true));
    assert!(set.states().await.values().all(|s| *s == (LetterState::Redriven, 1)));
    for batch in &set.topics.0.lock().unwrap().written {
        let (originals, states) = batch.split_at(batch.len() / 2);
        let origins: Vec<_> = originals
            .iter()
            .map(|o| o.headers.get_str(ORIGIN).unwrap().as_bytes())
            .collect();
        let keys: Vec<_> = states.iter().map(|o| o.key.as_ref()).collect();
        assert_eq!(origins, keys);
        assert!(
            states
                .iter()
                .all(|o| o.topic == "documents.failed" && o.partition == Some(3))
        );
    }
    let again = set.redrive().await.unwrap();
    assert_eq!((again.done, again.skipped), (0, [(Skip::NotOpen, 450)].into()));
    let reentered = set.reentered();
    assert_eq!(reentered.iter().collect::<BTreeSet<_>>().len(), 450);
    assert_eq!(reentered.len(), 450);
}

#[tokio::test]
async fn a_job_that_was_taken_over_is_gone_on_with() {
    let set = set();
    (0..450).for_each(|n| set.bury(n, 0));
    set.topics.0.lock().unwrap().taken_over_after = Some(1);
    let ended = set.redrive().await;
    assert!(matches!(ended, Err(LetterError::Log(LogError::TakenOver(_)))));
    set.topics.0.lock().unwrap().taken_over_after = None;
    let told = set.redrive().await.unwrap();
    assert_eq!((told.done, told.skipped), (250, [(Skip::NotOpen, 200)].into()));
    let reentered = set.reentered();
    assert_eq!(reentered.iter().collect::<BTreeSet<_>>().len(), 450);
    assert_eq!(reentered.len(), 450);
}

#[tokio::test]
async fn of_several_letters_of_one_origin_the_newest_re_enters() {
    let set = set();
    set.bury(7, 0);
    set.bury(7, 2);
    set.bury(8, 3);
    let told = set.redrive().await.unwrap();
    assert_eq!((told.done, told.skipped), (1, [(Skip::RedrivenTooOften, 1)].into()));
    assert_eq!(set.reentered(), [("documents.parsed/3/7".into(), "3".into())]);
    let states = set.states().await;
    assert_eq!(
        (states[&7], states[&8]),
        ((LetterState::Redriven, 3), (LetterState::Open, 3))
    );
}

#[tokio::test]
async fn what_no_longer_stands_in_the_topic_is_told() {
    let set = set();
    (0..3).for_each(|n| set.bury(n, 0));
    set.topics.0.lock().unwrap().letters.remove(1);
    let told = set.redrive().await.unwrap();
    assert_eq!((told.done, told.skipped), (2, [(Skip::OriginalGone, 1)].into()));
    assert_eq!(set.states().await[&1], (LetterState::Open, 0));
}

#[tokio::test]
async fn a_record_that_is_refused_is_found_and_the_others_go() {
    let set = set();
    (0..9).for_each(|n| set.bury(n, 0));
    set.topics.0.lock().unwrap().refuses = Some("value 5".into());
    let told = set.redrive().await.unwrap();
    assert_eq!((told.done, told.skipped), (8, [(Skip::Refused, 1)].into()));
    let order: Vec<_> = set.reentered().into_iter().map(|(origin, _)| origin).collect();
    let expected: Vec<_> = (0..9)
        .filter(|n| *n != 5)
        .map(|n| format!("documents.parsed/3/{n}"))
        .collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_dry_run_counts_the_same_and_writes_nothing() {
    let set = set();
    (0..5).for_each(|n| set.bury(n, if n == 4 { 3 } else { 0 }));
    for (action, done) in [(REDRIVE_ALL, 4), (Action::Discard, 5)] {
        let told = set.run(action, true).await.unwrap();
        assert_eq!((told.matched, told.done, told.finished), (5, done, true));
    }
    let state = set.topics.0.lock().unwrap();
    assert_eq!((state.written.len(), state.writers), (0, 0));
}

#[tokio::test]
async fn a_discard_changes_states_alone() {
    let set = set();
    (0..3).for_each(|n| set.bury(n, 1));
    let told = set.run(Action::Discard, false).await.unwrap();
    assert_eq!((told.matched, told.done), (3, 3));
    assert!(set.states().await.values().all(|s| *s == (LetterState::Discarded, 1)));
    assert_eq!(set.reentered(), []);
    let told = set.redrive().await.unwrap();
    assert_eq!((told.done, told.skipped), (0, [(Skip::NotOpen, 3)].into()));
}

#[tokio::test]
async fn a_process_that_leaves_says_so() {
    let set = set();
    let leaving = CancellationToken::new();
    leaving.cancel();
    let job = set.job(Action::Discard, false);
    let told: Vec<_> = job.run(leaving).collect().await;
    assert!(matches!(told[..], [Err(LetterError::Leaving)]));
}
