//! One audit, from its order to its summary; it works while its events are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use millrace_events::{DocumentKey, Epoch};
use millrace_runtime::clock::now_ms;
use millrace_runtime::codec::Codec;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::judge::{Finding, Known, Seen, judge};
use super::ledger::Ledger;
use super::log::AuditLog;
use super::look::{self, Sight};
use super::repair::{self, Outcome};
use super::{AuditError, Auditor, Order};
use crate::index::generation::Serving;

const TELL_EVERY: Duration = Duration::from_millis(500);
/// Findings that wait for a caller who reads slowly.
const WAITING: usize = 64;

/// Findings by document.
pub type Findings = BTreeMap<DocumentKey, Vec<Finding>>;

/// What an audit does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The log is read.
    #[default]
    ReadingLog,
    /// The index is read through.
    ReadingIndex,
    /// Suspects are looked at with care.
    LookingAgain,
    /// Parts are found and sent again.
    SendingAgain,
    /// The effect is waited for.
    Repairing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Documents that the log tells.
    pub documents: usize,
    /// Points of the index that were read.
    pub points: usize,
    /// Documents that were looked at again.
    pub suspects: usize,
    /// Parts that were sent again.
    pub sent: usize,
    /// Documents that are healed.
    pub healed: usize,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Documents that the log tells.
    pub documents: usize,
    /// Points of the index.
    pub points: usize,
    /// Documents at which the log and the index differed while both went on.
    pub suspects: usize,
    /// Findings.
    pub found: usize,
    /// Of these, healed.
    pub repaired: usize,
    /// Of these, not to be healed from the log.
    pub not_repairable: usize,
    /// Documents of which nothing was found because a status of theirs cannot be read.
    pub not_judged: usize,
}

/// What an audit tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// At least every second.
    Progress(Progress),
    /// A finding, once it is clear what becomes of it.
    Finding(DocumentKey, Finding, Outcome),
    /// The last event.
    Summary(Summary),
}

/// One audit, not begun.
#[derive(Debug)]
pub struct Job<L> {
    auditor: Auditor<L>,
    codec: Codec,
    order: Order,
    progress: watch::Sender<Progress>,
}

impl<L: AuditLog> Job<L> {
    /// Does nothing until it is run.
    pub fn new(auditor: Auditor<L>, codec: Codec, order: Order) -> Self {
        Self {
            auditor,
            codec,
            order,
            progress: watch::Sender::default(),
        }
    }

    async fn work(self, events: mpsc::Sender<Event>) -> Result<(), AuditError> {
        let scope = self.order.scope.clone();
        let mut ledger = Ledger::open(self.auditor.log.clone(), self.codec.clone(), scope.clone())?;
        self.read(&mut ledger).await?;
        self.phase(Phase::ReadingIndex);
        let told = |points| self.progress.send_modify(|progress| progress.points = points);
        let sight = match self.serving() {
            Some(serving) => look::through(&*serving.index, &scope, told).await?,
            None => Sight::new(),
        };
        let suspects = suspects(&ledger, &sight, self.remembered_from_ms());
        drop(sight);
        self.phase(Phase::LookingAgain);
        self.progress.send_modify(|progress| progress.suspects = suspects.len());
        let found = self.look(&mut ledger, suspects).await?;
        let ended = match self.order.repair && !found.is_empty() {
            true => repair::repair(&self, &mut ledger, found).await?,
            false => flat(found),
        };
        self.tell(ended, ledger.not_judged(), &events).await;
        Ok(())
    }

    async fn read(&self, ledger: &mut Ledger<L>) -> Result<(), AuditError> {
        let told = |documents| self.progress.send_modify(|progress| progress.documents = documents);
        ledger.read(told).await
    }

    /// Looks at documents with care: what is found is true.
    pub(super) async fn look(&self, ledger: &mut Ledger<L>, of: Vec<DocumentKey>) -> Result<Findings, AuditError> {
        if of.is_empty() {
            return Ok(Findings::new());
        }
        let before: Vec<Known> = of.iter().map(|document| ledger.of(document)).collect();
        let mut sight = match self.serving() {
            Some(serving) => look::closely(&*serving.index, &of).await?,
            None => Sight::new(),
        };
        self.read(ledger).await?;
        let remembered_from_ms = self.remembered_from_ms();
        let judged = of.into_iter().zip(before).map(|(document, before)| {
            let seen = sight.remove(&document).unwrap_or_default();
            let findings = judge(&before, &seen, &ledger.of(&document), remembered_from_ms);
            (document, findings)
        });
        Ok(judged.filter(|(_, findings)| !findings.is_empty()).collect())
    }

    /// Asked for after the index was read: what the sweeper has forgotten until then is older.
    fn remembered_from_ms(&self) -> i64 {
        let keep = i64::try_from(self.auditor.keep_deleted.as_millis()).unwrap_or(i64::MAX);
        now_ms().saturating_sub(keep)
    }

    async fn tell(&self, ended: Vec<(DocumentKey, Finding, Outcome)>, not_judged: usize, events: &mpsc::Sender<Event>) {
        let progress = *self.progress.borrow();
        let count = |wanted: fn(&Outcome) -> bool| ended.iter().filter(|(.., outcome)| wanted(outcome)).count();
        let summary = Summary {
            documents: progress.documents,
            points: progress.points,
            suspects: progress.suspects,
            found: ended.len(),
            repaired: count(|outcome| *outcome == Outcome::Repaired),
            not_repairable: count(|outcome| matches!(outcome, Outcome::NotRepairable(_))),
            not_judged,
        };
        if not_judged > 0 {
            tracing::warn!(
                not_judged,
                "documents were not judged: a status of theirs cannot be read"
            );
        }
        tracing::info!(
            found = summary.found,
            suspects = summary.suspects,
            repaired = summary.repaired,
            documents = summary.documents,
            points = summary.points,
            repair = self.order.repair,
            "the index was audited"
        );
        let findings = ended.into_iter();
        let findings = findings.map(|(document, finding, outcome)| Event::Finding(document, finding, outcome));
        for event in findings.chain([Event::Summary(summary)]) {
            // Nobody reads any more: then there is nobody to tell.
            if events.send(event).await.is_err() {
                return;
            }
        }
    }

    pub(super) fn serving(&self) -> Option<Serving> {
        self.auditor.generations.serving()
    }

    pub(super) fn log(&self) -> &L {
        &self.auditor.log
    }

    pub(super) fn codec(&self) -> &Codec {
        &self.codec
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.auditor.epoch
    }

    pub(super) fn patience(&self) -> Duration {
        self.auditor.patience
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    pub(super) fn sent(&self, parts: usize) {
        self.progress.send_modify(|progress| progress.sent = parts);
    }

    pub(super) fn healed(&self, documents: usize) {
        self.progress.send_modify(|progress| progress.healed = documents);
    }
}

/// Documents at which the log and the index differ, both as they were read.
fn suspects<L: AuditLog>(
    ledger: &Ledger<L>,
    sight: &HashMap<DocumentKey, Seen>,
    remembered_from_ms: i64,
) -> Vec<DocumentKey> {
    let judge = |known: &Known, seen: &Seen| judge(known, seen, known, remembered_from_ms);
    let unseen = Seen::default();
    let in_log = ledger.documents().filter_map(|(document, known)| {
        let seen = sight.get(document).unwrap_or(&unseen);
        (!judge(known, seen).is_empty()).then_some(document)
    });
    let unknown = Known::default();
    let in_index = sight.iter().filter_map(|(document, seen)| {
        let suspected = ledger.of(document) == unknown && !judge(&unknown, seen).is_empty();
        suspected.then_some(document)
    });
    let all: BTreeSet<&DocumentKey> = in_log.chain(in_index).collect();
    all.into_iter().cloned().collect()
}

fn flat(found: Findings) -> Vec<(DocumentKey, Finding, Outcome)> {
    let each = found.into_iter().flat_map(|(document, findings)| {
        let findings = findings.into_iter();
        findings.map(move |finding| (document.clone(), finding, Outcome::Found))
    });
    each.collect()
}

/// Works while the stream is read.
pub fn run<L: AuditLog>(
    job: Job<L>,
    turn: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, AuditError>> + Send + use<L> {
    let (sender, events) = mpsc::channel(WAITING);
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let running = Running {
        progress: job.progress.subscribe(),
        leaving: job.auditor.leaving.clone(),
        work: Some(job.work(sender).boxed()),
        events,
        ticks,
        failed: None,
        _turn: turn,
    };
    futures::stream::unfold(running, |mut running| async move {
        let next = running.next().await?;
        Some((next, running))
    })
}

/// An audit that works while it is asked how far it is.
struct Running {
    progress: watch::Receiver<Progress>,
    leaving: CancellationToken,
    /// None once it has ended.
    work: Option<BoxFuture<'static, Result<(), AuditError>>>,
    events: mpsc::Receiver<Event>,
    ticks: Interval,
    failed: Option<AuditError>,
    _turn: OwnedSemaphorePermit,
}

impl Running {
    async fn next(&mut self) -> Option<Result<Event, AuditError>> {
        loop {
            let Some(work) = &mut self.work else {
                // What it told before it ended comes first.
                return match self.events.recv().await {
                    Some(event) => Some(Ok(event)),
                    None => self.failed.take().map(Err),
                };
            };
            let ended = tokio::select! {
                biased;
                () = self.leaving.cancelled() => Err(AuditError::Leaving),
                Some(event) = self.events.recv() => return Some(Ok(event)),
                ended = work => ended,
                _ = self.ticks.tick() => return Some(Ok(Event::Progress(*self.progress.borrow()))),
            };
            self.work = None;
            self.failed = ended.err();
        }
    }
}

#[cfg(test)]
#[cfg(feature = "embedded")]
#[path = "job_tests.rs"]
mod tests;
