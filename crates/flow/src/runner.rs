//! Drives a stage: feeds the [`Core`] with what happens, does what it decides. Holds no decision of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_telemetry::{metrics, names};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use crate::core::{Core, Settled, WorkId};
pub use crate::core::{Limits, Marks};
use crate::drain::{self, Drain};
use crate::fair::Sharing;
use crate::log::{Event, Link, Outcome};
use crate::progress::{StageProgress, StageState};
use crate::stage::{DeadLetters, Delivery, Failure, Outputs, TopicPartition};

/// How often readers of progress get a new picture.
const PICTURE: Duration = Duration::from_millis(250);

/// A transaction without an outcome for this long is given up, and the session with it: the next one fences it, and starts
/// from what is committed, whatever that is. Seen with librdkafka 2.12: sending offsets while the broker goes away
/// returns never, whatever its time-out, about once in 20 restarts of the broker. A stage that leaves waits for no longer
/// than its drain may take: whoever comes next does the fencing. As long as Kafka lets a transaction be: one that is older is
/// aborted there, or committed already, and the next session finds out which. At 30 s three services stood still for 47 s
/// after a broker was killed (`chaos --brokers 3 --seed 7`).
const UNANSWERED: Duration = Duration::from_secs(15);

/// After its producer was fenced, a stage waits this long for its membership to be replaced as well. If it is, the log
/// finds out by whom; else a transaction had expired, and the stage starts again. Were it to start again at once, two
/// processes of one name would fence each other for ever. Longer than two heartbeats.
const FENCED: Duration = Duration::from_secs(8);

/// A transaction this young cannot have expired: whoever fenced its producer is another process.
const YOUNG: Duration = Duration::from_secs(10);

/// Aborts that go on for this long, or one transaction that does, are told as a reason.
const STUCK: Duration = Duration::from_secs(5);

/// A stage: what it does to a record, and what belongs to it from one session of its log to the next.
#[derive(Clone)]
pub struct Stage<S> {
    /// The function of one record.
    pub service: S,
    /// Makes the dead letters of records that are given up.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Bounds.
    pub limits: Limits,
    /// Whose turn it is.
    pub sharing: Sharing,
    /// What the outside may see.
    pub progress: watch::Sender<StageProgress>,
    /// Whether calls may be made, for layers of the service's own.
    pub gate: watch::Sender<bool>,
    /// Whether nothing more is to start: somebody has asked for it.
    pub hold: watch::Receiver<bool>,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Asked to leave, and everything that could finish within the bound is committed.
    Drained,
    /// Start again from what is committed.
    Restart(String),
    /// As [`Self::Restart`]; and the log's producer hangs in a call, so that nobody need wait for it.
    Unanswered(String),
    /// Another process with the same instance name took over.
    Fenced(String),
}

struct Runner<S> {
    stage: Stage<S>,
    core: Core,
    link: Link,
    work: JoinSet<Result<Outputs, Failure>>,
    ids: HashMap<Id, (WorkId, AbortHandle)>,
    outcome: Option<oneshot::Receiver<Outcome>>,
    /// When the open transaction was handed over.
    sent: Instant,
    /// With whom to tell that it is over.
    drains: Vec<(Drain, Option<oneshot::Sender<()>>)>,
    /// Since when it is leaving.
    leaving: Option<Instant>,
    /// How its producer was fenced.
    fenced: Option<Fenced>,
    /// Why its membership is over.
    replaced: Option<String>,
    /// Since when, and lastly why, transactions have been aborted with none committed in between.
    aborted: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Fenced {
    since: Instant,
    reason: String,
    /// Not by the end of its time.
    by_another: bool,
}

/// Runs a stage over a log until it is asked to leave or cannot go on. Errors of records are in its progress. `marks` is
/// what the session before gave back.
pub async fn run<S>(stage: Stage<S>, link: Link, marks: Marks, shutdown: CancellationToken) -> (Ended, Marks)
where
    S: Service<Delivery, Response = Outputs, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut runner = Runner::new(stage, link, marks);
    let ended = runner.run(shutdown).await;
    // What still runs belongs to no assignment any more; it is stopped before somebody else starts the same.
    runner.work.shutdown().await;
    (ended, runner.core.into_marks())
}

impl<S> Runner<S>
where
    S: Service<Delivery, Response = Outputs, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
{
    fn new(stage: Stage<S>, link: Link, marks: Marks) -> Self {
        Self {
            core: Core::new(stage.limits, stage.sharing.clone(), marks),
            stage,
            link,
            work: JoinSet::new(),
            ids: HashMap::new(),
            outcome: None,
            sent: Instant::now(),
            drains: Vec::new(),
            leaving: None,
            fenced: None,
            replaced: None,
            aborted: None,
        }
    }

    async fn run(&mut self, shutdown: CancellationToken) -> Ended {
        let mut picture = tokio::time::interval(PICTURE);
        picture.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            if let Some(ended) = self.advance() {
                return ended;
            }
            let deadline = self.next_deadline();
            tokio::select! {
                biased;
                // First: the next transaction waits for it.
                outcome = outcome_of(&mut self.outcome) => {
                    if let Some(ended) = self.settled(outcome) {
                        return ended;
                    }
                }
                Some(done) = self.work.join_next_with_id() => self.finished(done),
                event = self.link.events.recv(), if self.core.has_room() => match event {
                    Some(Event::Fenced(reason)) => return Ended::Fenced(reason),
                    Some(Event::Ended(reason)) => return Ended::Restart(reason),
                    Some(event) => self.happened(event),
                    None => return Ended::Restart("the consumer ended".into()),
                },
                () = shutdown.cancelled(), if self.leaving.is_none() => self.leave(),
                Ok(()) = self.stage.hold.changed() => {}
                _ = picture.tick() => self.show(),
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    }

    /// Does everything that can be done now. Some when nothing is left to do.
    fn advance(&mut self) -> Option<Ended> {
        let now = Instant::now();
        let held = *self.stage.hold.borrow_and_update();
        self.core.hold(held);
        while let Some(work) = self.core.next_to_run(now) {
            let service = self.stage.service.clone();
            let handle = self.work.spawn(service.oneshot(work.delivery));
            self.ids.insert(handle.id(), (work.id, handle));
        }
        while let Some((id, rejection)) = self.core.next_rejected(now_ms()) {
            let origin = &rejection.delivery.origin;
            tracing::error!(
                %origin, reason = rejection.reason, message = rejection.message, attempts = rejection.attempts,
                "a record is given up and becomes a dead letter"
            );
            let (reason, message) = (rejection.reason.clone(), rejection.message.clone());
            metrics::DEAD_LETTERS.add(1, || {
                let stage = self.stage.progress.borrow().name.clone();
                [(names::STAGE, stage.into()), (names::REASON, reason.clone().into())]
            });
            rejection.delivery.span.failed(reason, message);
            let letter = self.stage.dead_letters.bury(&rejection);
            self.core.bury(id, letter, now);
        }
        self.drain(now);
        if self.outcome.is_none()
            && let Some(transaction) = self.core.cut(now, !self.drains.is_empty())
        {
            let (reply, outcome) = oneshot::channel();
            // The channel holds one: the core opens one transaction at a time.
            if let Err(error) = self.link.commits.try_send((transaction, reply)) {
                return Some(Ended::Restart(format!("the producer ended: {error}")));
            }
            (self.outcome, self.sent) = (Some(outcome), now);
        }
        if self.outcome.is_some() && now >= self.given_up() {
            let seconds = (now - self.sent).as_secs();
            return Some(Ended::Unanswered(format!(
                "a transaction had no outcome for {seconds} s"
            )));
        }
        match (&self.fenced, &self.replaced) {
            (Some(fenced), Some(replaced)) if fenced.by_another => {
                return Some(Ended::Fenced(format!(
                    "another process with the same instance name took over: {replaced}, and its producer was fenced: {}",
                    fenced.reason
                )));
            }
            (Some(fenced), None) if now >= fenced.since + FENCED => {
                return Some(Ended::Restart(fenced.reason.clone()));
            }
            _ => {}
        }
        told(&self.link.paused, self.core.paused(now));
        told(&self.stage.gate, self.core.lets_calls_through());
        (self.leaving.is_some() && self.drains.is_empty()).then(|| {
            self.show_as(StageState::Stopped);
            Ended::Drained
        })
    }

    fn drain(&mut self, now: Instant) {
        let (core, ids) = (&mut self.core, &self.ids);
        self.drains.retain_mut(|(drain, done)| {
            let drained = core.is_drained(&drain.partitions);
            let step = drain.step(now, drained, core.is_leaving());
            match step {
                drain::Step::Wait => {}
                drain::Step::CutOff => {
                    stop(core, ids, &drain.partitions);
                    core.abandon(&drain.partitions);
                }
                drain::Step::Over => {
                    core.forget(&drain.partitions);
                    let _ = done.take().map(|done| done.send(()));
                }
            }
            step != drain::Step::Over
        });
    }

    fn next_deadline(&self) -> Instant {
        let drains = self.drains.iter().map(|(drain, _)| drain.deadline());
        let unanswered = self.outcome.as_ref().map(|_| self.given_up());
        let fenced = self.fenced.as_ref().map(|fenced| fenced.since + FENCED);
        let fenced = fenced.filter(|_| self.replaced.is_none());
        let far = Instant::now() + Duration::from_secs(3600);
        drains
            .chain(unanswered)
            .chain(fenced)
            .chain(self.core.next_deadline())
            .min()
            .unwrap_or(far)
            .max(Instant::now() + Duration::from_millis(1))
    }

    fn finished(&mut self, done: Result<(Id, Result<Outputs, Failure>), JoinError>) {
        // Stopped by us, with its partition.
        let stopped = done.as_ref().is_err_and(JoinError::is_cancelled);
        let (id, result) = match done {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(panicked(error))),
        };
        if let Some((id, _)) = self.ids.remove(&id) {
            let failure = result.as_ref().err().filter(|_| !stopped);
            if let (Some(failure), Some(partition)) = (failure, self.core.partition_of(id)) {
                tracing::warn!(
                    %partition, offset = id.offset, class = failure.class(), reason = failure.reason(),
                    message = failure.message(), "a record could not be processed"
                );
            }
            self.core.finish(id, result, Instant::now(), now_ms(), rand::random());
        }
    }

    fn settled(&mut self, outcome: Outcome) -> Option<Ended> {
        self.outcome = None;
        match outcome {
            Outcome::Committed => {
                self.core.settle(Settled::Committed, Instant::now(), 0.0);
                self.aborted = None;
            }
            Outcome::Aborted(reason) => {
                tracing::warn!(reason, "a transaction was aborted and is sent again");
                let since = self.aborted.take().map_or_else(Instant::now, |(since, _)| since);
                self.aborted = Some((since, reason));
                self.core.settle(Settled::Aborted, Instant::now(), rand::random());
            }
            Outcome::Refused(reason) => {
                tracing::warn!(
                    reason,
                    "a transaction was refused for a record of it, which is looked for"
                );
                self.core
                    .settle(Settled::Refused(reason), Instant::now(), rand::random());
            }
            Outcome::Restart(reason) => return Some(Ended::Restart(reason)),
            Outcome::Fenced(reason) => {
                tracing::warn!(
                    reason,
                    "the producer is fenced: by another process of this name, or for a late transaction"
                );
                self.fenced = Some(Fenced {
                    since: Instant::now(),
                    reason,
                    by_another: self.sent.elapsed() < YOUNG,
                });
            }
        }
        None
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Records(deliveries) => deliveries.into_iter().for_each(|delivery| self.core.arrive(delivery)),
            Event::Assigned { assignment, partitions } => {
                self.core.assignment_changed(assignment);
                for (partition, position) in partitions {
                    match position {
                        Ok(position) => self.core.assign(partition, &position),
                        Err(reason) => {
                            tracing::error!(%partition, reason, "a partition is stopped");
                            self.core.assign_stopped(partition, reason);
                        }
                    }
                }
                self.show();
            }
            Event::Revoked {
                assignment,
                partitions,
                lost,
                done,
            } => {
                self.core.assignment_changed(assignment);
                let now = Instant::now();
                let drain = if lost {
                    stop(&self.core, &self.ids, &partitions);
                    self.core.lose(&partitions);
                    Drain::of_lost(partitions, now)
                } else {
                    self.core.begin_drain(&partitions);
                    Drain::new(partitions, now + self.drain_bound())
                };
                self.drains.push((drain, Some(done)));
                self.show();
            }
            Event::End {
                partition,
                last_stable,
                caught_up,
            } => self.core.log_end(&partition, last_stable, caught_up),
            Event::Replaced(reason) => {
                tracing::warn!(
                    reason,
                    "fenced: it is being found out whether another process has this instance's name"
                );
                self.replaced = Some(reason);
                self.show();
            }
            // Handled where the loop can end.
            Event::Fenced(_) | Event::Ended(_) => {}
        }
    }

    /// Asked to leave: the same drain as for a revoke, of all partitions.
    fn leave(&mut self) {
        self.leaving = Some(Instant::now());
        let partitions = self.core.assigned();
        self.core.begin_drain(&partitions);
        let drain = Drain::new(partitions, Instant::now() + self.drain_bound());
        self.drains.push((drain, None));
        self.show();
    }

    /// When the transaction under way is given up if it has no outcome.
    fn given_up(&self) -> Instant {
        let unanswered = self.sent + UNANSWERED;
        match self.leaving {
            Some(since) => unanswered.min(self.sent.max(since) + self.drain_bound() + drain::LAST_WORDS),
            None => unanswered,
        }
    }

    fn drain_bound(&self) -> Duration {
        Duration::from_millis(self.stage.limits.drain_ms)
    }

    fn show(&self) {
        let state = match (self.leaving.is_some(), self.core.assigned().is_empty()) {
            (true, _) => StageState::Draining,
            (false, true) => StageState::Starting,
            (false, false) if *self.stage.hold.borrow() => StageState::Paused,
            (false, false) => StageState::Running,
        };
        self.show_as(state);
    }

    /// Why nothing leaves, once that has lasted.
    fn why_stuck(&self) -> Option<String> {
        if let Some(reason) = &self.replaced {
            return Some(format!(
                "{reason}: whether another process has its name shows within a session"
            ));
        }
        if let Some(Fenced { reason, .. }) = &self.fenced {
            return Some(format!(
                "its producer was fenced, by another process of its name or for a late transaction: {reason}"
            ));
        }
        if self.outcome.is_some() && self.sent.elapsed() >= STUCK {
            let seconds = self.sent.elapsed().as_secs();
            return Some(format!(
                "a transaction has had no outcome for {seconds} s: the broker does not answer"
            ));
        }
        let (since, reason) = self.aborted.as_ref().filter(|(since, _)| since.elapsed() >= STUCK)?;
        Some(format!(
            "no transaction was committed for {} s: {reason}",
            since.elapsed().as_secs()
        ))
    }

    fn show_as(&self, state: StageState) {
        let now = Instant::now();
        self.stage.progress.send_modify(|progress| {
            progress.state = state;
            progress.reason = match state {
                StageState::Starting => "waiting for partitions of its consumer group".into(),
                _ => self
                    .why_stuck()
                    .or_else(|| self.core.why_not_fetching(now))
                    .unwrap_or_default(),
            };
            self.core.show(progress, now, now_ms());
        });
    }
}

/// Stops what runs of partitions: it must not go on beside its own replay, should they come back.
fn stop(core: &Core, ids: &HashMap<Id, (WorkId, AbortHandle)>, partitions: &[TopicPartition]) {
    let of_them = |id| core.partition_of(id).is_some_and(|of| partitions.contains(of));
    let running = ids.values().filter(|(id, _)| of_them(*id));
    running.for_each(|(_, work)| work.abort());
}

/// A level, not an edge: readers are woken by changes only.
fn told<T: PartialEq>(level: &watch::Sender<T>, now: T) {
    level.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}

async fn outcome_of(outcome: &mut Option<oneshot::Receiver<Outcome>>) -> Outcome {
    match outcome {
        Some(outcome) => outcome
            .await
            .unwrap_or_else(|_| Outcome::Restart("the producer ended".into())),
        None => std::future::pending().await,
    }
}

fn panicked(error: JoinError) -> Failure {
    let message = match error.try_into_panic() {
        Ok(panic) => panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without words".into()),
        Err(error) => error.to_string(),
    };
    Failure::Failed {
        reason: "PANIC",
        message,
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
