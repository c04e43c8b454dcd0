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
use crate::stage::{Headers, Origin, Output, Rejection, TopicPartition};

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
    Event::Records(vec![Delivery {
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
        span: Default::default(),
    }])
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

struct Letters;

impl DeadLetters for Letters {
    fn bury(&self, rejection: &Rejection) -> Outputs {
        Outputs(vec![Output {
            topic: "dlq".into(),
            partition: None,
            key: rejection.delivery.key.clone().unwrap_or_default(),
            value: Some(rejection.reason.clone().into()),
            headers: Headers::default(),
        }])
    }
}

fn stage<S>(service: S) -> Stage<S> {
    Stage {
        service,
        dead_letters: Arc::new(Letters),
        limits: Limits::default(),
        sharing: Sharing::default(),
        progress: watch::Sender::new(StageProgress::default()),
        gate: watch::Sender::new(true),
        hold: watch::channel(false).1,
    }
}

/// The transaction that counts the start comes before any record.
async fn start(log: &mut Played) {
    log.events.send(assigned(1)).await.unwrap();
    let (transaction, reply) = log.commits.recv().await.unwrap();
    assert_eq!((transaction.records(), transaction.positions[0].1.mark.starts), (0, 1));
    reply.send(Outcome::Committed).unwrap();
}

/// Gives the partition to somebody else, and waits until the runner has let go of it.
async fn lose(log: &Played) {
    let (done, ended) = oneshot::channel();
    let lost = Event::Revoked {
        assignment: 2,
        partitions: vec![partition()],
        lost: true,
        done,
    };
    log.events.send(lost).await.unwrap();
    ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_leaves_in_a_transaction_with_its_position() {
    let (link, mut log) = link();
    let stage = stage(service_fn(echo));
    let seen = stage.progress.subscribe();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(stage, link, Marks::default(), shutdown.clone()));
    start(&mut log).await;
    log.events.send(record(0)).await.unwrap();
    let (transaction, reply) = log.commits.recv().await.unwrap();
    assert_eq!(transaction.outputs().count(), 1);
    assert_eq!(transaction.positions, [(partition(), Position::at(1))]);
    reply.send(Outcome::Committed).unwrap();
    shutdown.cancel();
    assert_eq!(running.await.unwrap().0, Ended::Drained);
    assert_eq!(seen.borrow().processed, 1);
    assert!(log.paused.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_assignment_that_gives_nothing_is_known_to_later_transactions() {
    let (link, mut log) = link();
    let _running = tokio::spawn(run(
        stage(service_fn(echo)),
        link,
        Marks::default(),
        CancellationToken::new(),
    ));
    start(&mut log).await;
    let nothing = Event::Assigned {
        assignment: 2,
        partitions: Vec::new(),
    };
    log.events.send(nothing).await.unwrap();
    log.events.send(record(0)).await.unwrap();
    let (transaction, _reply) = log.commits.recv().await.unwrap();
    assert_eq!(transaction.assignment, 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_given_up_leaves_as_a_dead_letter() {
    let (link, mut log) = link();
    let panics = service_fn(|_: Delivery| async { panic!("a bug") });
    let _running = tokio::spawn(run(stage(panics), link, Marks::default(), CancellationToken::new()));
    start(&mut log).await;
    log.events.send(record(0)).await.unwrap();
    let (transaction, _reply) = log.commits.recv().await.unwrap();
    let letter = transaction.outputs().next().unwrap();
    assert_eq!(
        (letter.topic.as_str(), letter.value.as_deref()),
        ("dlq", Some(b"PANIC".as_slice()))
    );
    assert_eq!(transaction.positions[0].1, Position::at(1));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_cannot_go_on_ends_the_session() {
    let (link, mut log) = link();
    let stage = stage(service_fn(echo));
    let running = tokio::spawn(run(stage, link, Marks::default(), CancellationToken::new()));
    start(&mut log).await;
    // The sender stays alive, as the consumer's callbacks keep theirs: only the word counts.
    log.events.send(Event::Ended("gone".into())).await.unwrap();
    let (ended, marks) = running.await.unwrap();
    assert_eq!(ended, Ended::Restart("gone".into()));
    // What this process wrote is no death of another: nothing is quarantined in the next session.
    let mut core = Core::new(Limits::default(), Sharing::default(), marks);
    let written = Position::parse(0, "1;s=1;o=;a=0;b=").unwrap();
    core.assign(partition(), &written);
    let again = core.cut(Instant::now(), false);
    assert!(again.is_none_or(|again| again.positions[0].1.mark.starts == 1));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_producer_ends_the_stage_once_its_membership_is_fenced_too() {
    let (link, mut log) = link();
    let running = tokio::spawn(run(
        stage(service_fn(echo)),
        link,
        Marks::default(),
        CancellationToken::new(),
    ));
    start(&mut log).await;
    log.events.send(record(0)).await.unwrap();
    let (_, reply) = log.commits.recv().await.unwrap();
    reply.send(Outcome::Fenced("fenced".into())).unwrap();
    log.events.send(Event::Fenced("taken".into())).await.unwrap();
    assert_eq!(running.await.unwrap().0, Ended::Fenced("taken".into()));
}

#[tokio::test]
async fn a_transaction_without_an_outcome_and_a_fenced_producer_are_given_up() {
    let (link, mut log) = link();
    let mut runner = Runner::new(stage(service_fn(echo)), link, Marks::default());
    assert_eq!(runner.advance(), None);
    let (_reply, outcome) = oneshot::channel();
    (runner.outcome, runner.sent) = (Some(outcome), Instant::now() - STUCK);
    assert!(runner.why_stuck().is_some_and(|why| why.contains("no outcome for 5 s")));
    runner.sent = Instant::now() - UNANSWERED;
    assert!(matches!(runner.advance(), Some(Ended::Unanswered(_))));
    // One that leaves has its drain and its last words, counted from when it began to leave.
    runner.stage.limits.drain_ms = 5_000;
    runner.sent = Instant::now() - (runner.drain_bound() + drain::LAST_WORDS);
    assert_eq!(runner.advance(), None);
    runner.leaving = Some(Instant::now());
    assert!(runner.given_up() > Instant::now() + runner.drain_bound() / 2);
    runner.leaving = Some(runner.sent);
    assert!(
        matches!(runner.advance(), Some(Ended::Unanswered(_))),
        "it waits for longer than its drain may take"
    );
    runner.leaving = None;
    assert!(log.commits.try_recv().is_err());
    runner.outcome = None;
    runner.fenced = Some(Fenced {
        since: Instant::now() - FENCED,
        reason: "fenced".into(),
        by_another: true,
    });
    assert_eq!(runner.advance(), Some(Ended::Restart("fenced".into())));
}

#[tokio::test(start_paused = true)]
async fn work_of_a_lost_partition_is_stopped() {
    let (link, mut log) = link();
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
    let running = tokio::spawn(run(stage(stuck), link, Marks::default(), shutdown.clone()));
    start(&mut log).await;
    log.events.send(record(0)).await.unwrap();
    while alive.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    lose(&log).await;
    while alive.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    assert_eq!(running.await.unwrap().0, Ended::Drained);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_of_a_lost_partition_never_leaves() {
    let (link, mut log) = link();
    let shutdown = CancellationToken::new();
    let (ran, mut has_run) = watch::channel(false);
    let tells = service_fn(move |delivery: Delivery| {
        let ran = ran.clone();
        async move {
            let done = echo(delivery).await;
            ran.send_replace(true);
            done
        }
    });
    let mut stage = stage(tells);
    // It leaves when it is told to, not by time.
    stage.limits.transaction_age_ms = 3_600_000;
    let running = tokio::spawn(run(stage, link, Marks::default(), shutdown.clone()));
    start(&mut log).await;
    log.events.send(record(0)).await.unwrap();
    has_run.wait_for(|ran| *ran).await.unwrap();
    lose(&log).await;
    shutdown.cancel();
    assert_eq!(running.await.unwrap().0, Ended::Drained);
    assert!(log.commits.try_recv().is_err());
}

#[tokio::test]
async fn a_full_window_takes_nothing_until_its_patience_is_over() {
    let (link, mut log) = link();
    let mut stage = stage(service_fn(|_: Delivery| {
        std::future::pending::<Result<Outputs, Failure>>()
    }));
    stage.limits.window_bytes = 512;
    let mut seen = stage.progress.subscribe();
    let _running = tokio::spawn(run(stage, link, Marks::default(), CancellationToken::new()));
    start(&mut log).await;
    for offset in 0..3 {
        log.events.send(record(offset)).await.unwrap();
    }
    let queued = || log.events.max_capacity() - log.events.capacity();
    let mut last = queued();
    while !log.paused.borrow().contains(&partition()) {
        last = queued();
        tokio::task::yield_now().await;
    }
    assert_eq!(last, 1, "two fill the window, the third waits until it is paused");
    // What comes after the pause is taken again: it was fetched ahead.
    for offset in 3..40 {
        log.events.send(record(offset)).await.unwrap();
    }
    seen.wait_for(|seen| seen.window_records == 40).await.unwrap();
}

#[tokio::test]
async fn a_membership_that_is_replaced_ends_the_stage_for_a_rival_alone() {
    let row = |sent: Duration, replaced: bool| {
        let (link, log) = link();
        let mut runner = Runner::new(stage(service_fn(echo)), link, Marks::default());
        runner.sent -= sent;
        assert_eq!(runner.settled(Outcome::Fenced("by epoch".into())), None);
        if replaced {
            runner.happened(Event::Replaced("replaced".into()));
        }
        if let Some(fenced) = &mut runner.fenced {
            fenced.since -= FENCED;
        }
        drop(log);
        runner.advance()
    };
    assert!(matches!(row(Duration::ZERO, true), Some(Ended::Fenced(why)) if why.contains("same instance name")));
    assert_eq!(row(YOUNG, true), None, "it may have expired: the group knows by whom");
    assert_eq!(row(Duration::ZERO, false), Some(Ended::Restart("by epoch".into())));
}
