//! The runner over a log that the test plays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tower::service_fn;

use super::*;
use crate::log::Commit;
use crate::position::Position;
use crate::stage::{Headers, Origin, Output};

struct Played {
    events: mpsc::Sender<Event>,
    commits: mpsc::Receiver<Commit>,
    paused: watch::Receiver<BTreeSet<TopicPartition>>,
}

fn link() -> (Link, Played) {
    let (events, events_receiver) = mpsc::channel(64);
    let (commits_sender, commits) = mpsc::channel(1);
    let (paused_sender, paused) = watch::channel(BTreeSet::new());
    let link = Link {
        events: events_receiver,
        commits: commits_sender,
        paused: paused_sender,
    };
    (
        link,
        Played {
            events,
            commits,
            paused,
        },
    )
}

fn partition() -> TopicPartition {
    TopicPartition {
        topic: "in".into(),
        partition: 0,
    }
}

fn record(offset: i64) -> Event {
    Event::Record(Delivery {
        origin: Origin {
            topic: "in".into(),
            partition: 0,
            offset,
        },
        key: Some(Bytes::from(offset.to_string())),
        value: None,
        headers: Headers::default(),
        timestamp_ms: 0,
        attempt: 1,
    })
}

fn assigned(assignment: u64) -> Event {
    Event::Assigned {
        assignment,
        partitions: vec![(partition(), Ok(Position::at(0)))],
    }
}

async fn echo(delivery: Delivery) -> Result<Outputs, Failure> {
    Ok(Outputs(vec![Output {
        topic: "out".into(),
        partition: None,
        key: delivery.key.unwrap_or_default(),
        value: None,
        headers: Headers::default(),
    }]))
}

#[tokio::test(start_paused = true)]
async fn a_record_leaves_in_a_transaction_with_its_position() {
    let (link, mut log) = link();
    let (progress, seen) = watch::channel(StageProgress::default());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(
        service_fn(echo),
        link,
        Limits::default(),
        progress,
        shutdown.clone(),
    ));
    log.events.send(assigned(1)).await.unwrap();
    log.events.send(record(0)).await.unwrap();
    let (transaction, reply) = log.commits.recv().await.unwrap();
    assert_eq!(transaction.outputs().count(), 1);
    assert_eq!(transaction.positions, [(partition(), Position::at(1))]);
    reply.send(Outcome::Committed).unwrap();
    shutdown.cancel();
    assert_eq!(running.await.unwrap(), Ended::Drained);
    assert_eq!(seen.borrow().processed, 1);
    assert!(log.paused.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_cannot_go_on_ends_the_session() {
    let (link, log) = link();
    let (progress, _seen) = watch::channel(StageProgress::default());
    let running = tokio::spawn(run(
        service_fn(echo),
        link,
        Limits::default(),
        progress,
        CancellationToken::new(),
    ));
    log.events.send(assigned(1)).await.unwrap();
    // The sender stays alive, as the consumer's callbacks keep theirs: only the word counts.
    log.events.send(Event::Ended("gone".into())).await.unwrap();
    assert_eq!(running.await.unwrap(), Ended::Restart("gone".into()));
}

#[tokio::test]
async fn a_transaction_without_an_outcome_is_given_up() {
    let (link, mut log) = link();
    let (progress, _seen) = watch::channel(StageProgress::default());
    let mut runner = Runner {
        service: service_fn(echo),
        core: Core::new(Limits::default()),
        limits: Limits::default(),
        link,
        work: JoinSet::new(),
        ids: HashMap::new(),
        outcome: None,
        sent: Instant::now(),
        drains: Vec::new(),
        leaving: false,
        aborted: None,
        progress,
    };
    assert_eq!(runner.advance(), None);
    let (_reply, outcome) = oneshot::channel();
    (runner.outcome, runner.sent) = (Some(outcome), Instant::now() - UNANSWERED);
    assert!(matches!(runner.advance(), Some(Ended::Restart(_))));
    assert!(log.commits.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn work_of_a_lost_partition_is_stopped() {
    let (link, log) = link();
    let (progress, _seen) = watch::channel(StageProgress::default());
    let alive = Arc::new(AtomicUsize::new(0));
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let counted = alive.clone();
    let stuck = service_fn(move |_: Delivery| {
        counted.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(counted.clone());
        async move {
            let _alive = alive;
            std::future::pending::<Result<Outputs, Failure>>().await
        }
    });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(stuck, link, Limits::default(), progress, shutdown.clone()));
    log.events.send(assigned(1)).await.unwrap();
    log.events.send(record(0)).await.unwrap();
    while alive.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let (done, ended) = oneshot::channel();
    let lost = Event::Revoked {
        assignment: 2,
        partitions: vec![partition()],
        lost: true,
        done,
    };
    log.events.send(lost).await.unwrap();
    ended.await.unwrap();
    while alive.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    assert_eq!(running.await.unwrap(), Ended::Drained);
}
