//! A redrive or a discard: one call, from its order to its last letter.
//!
//! 1. Become the one writer: whoever wrote before is fenced, what it left open is undone.
//! 2. Wait until the replica has read `documents.failed` up to where it ends now: all that earlier jobs did is in it.
//! 3. Plan: which letters the filter selects, and which of them are passed over.
//! 4. Redrive: read `documents.dlq` once, up to its end. A letter that is planned, and was buried as often redriven as its
//!    state says (the newest of several of one origin), re-enters its stage. Discard: only the states are written.
//! 5. Write some hundred letters in a transaction, original and new state together.
//!
//! A dry run is 2 to 4: it fences nobody.
//!
//! | the job ends | what it wrote | the same order again |
//! |---|---|---|
//! | between two transactions: killed, fenced, the caller gone | stands | goes on with the letters still open |
//! | within one | nothing of that one stands, or all of it | step 1 decides which, step 2 reads it |
//!
//! Rejected: a table of jobs (a second truth beside the topic, and somebody would have to own it), finding letters by
//! their offsets (nothing says where in `documents.dlq` a letter stands), many redrivers at once (docs/adr/0012).

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use millrace_events::{DeadLetter, LetterKey, LetterState, topics};
use millrace_failpoints::points;
use millrace_flow::{Headers, Output};
use millrace_runtime::clock::now_ms;
use millrace_runtime::codec::headers_of;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::batches::{Batches, Change, Pace};
use super::filter::Filter;
use super::log::LetterLog;
use super::original::{origin, redriven, redrives};
use super::progress::Progress;
use super::skip::{Skip, from_discard, from_redrive};
use super::store::{Letter, Plan};
use super::{LetterError, Replica};
use crate::EPOCH;
use crate::codec::RecordCodec;
use crate::pipeline::lanes::LaneConfig;

const TELL_EVERY: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// With which letters.
    pub filter: Filter,
    /// What.
    pub action: Action,
    /// Only counted.
    pub dry_run: bool,
}

/// What to do with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send them to their stage again.
    Redrive {
        /// Letters a second; none is no bound.
        max_per_second: Option<NonZeroU32>,
        /// Those that were redriven as often are passed over.
        max_redrives: i32,
    },
    /// Let them go.
    Discard,
}

/// One job, not begun.
#[derive(Debug)]
pub struct Job<L, C> {
    replica: Replica,
    log: L,
    codec: C,
    lanes: LaneConfig,
    order: Order,
    progress: watch::Sender<Progress>,
}

impl<L: LetterLog, C: RecordCodec> Job<L, C> {
    /// Does nothing until it is run.
    pub fn new(replica: Replica, log: L, codec: C, lanes: LaneConfig, order: Order) -> Self {
        Self {
            replica,
            log,
            codec,
            lanes,
            order,
            progress: watch::Sender::default(),
        }
    }

    /// Works while the stream is read.
    pub fn run(
        self,
        leaving: CancellationToken,
    ) -> impl Stream<Item = Result<Progress, LetterError>> + Send + use<L, C> {
        let progress = self.progress.subscribe();
        let mut ticks = interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let running = Running {
            work: self.work().boxed(),
            progress,
            ticks,
            leaving,
            over: false,
        };
        futures::stream::unfold(running, |mut running| async move {
            let next = running.next().await?;
            Some((next, running))
        })
    }

    async fn work(self) -> Result<(), LetterError> {
        let writer = match self.order.dry_run {
            true => None,
            false => Some(self.log.take_over().await?),
        };
        points::REDRIVE_CLAIMED.reached();
        let mut batches = Batches::new(writer, Pace::new(self.max_per_second()));
        for (partition, end) in self.log.ends().await? {
            self.replica.reached(partition, end).await;
        }
        let plan = self.plan().await?;
        points::REDRIVE_PLANNED.reached();
        self.progress.send_modify(|progress| {
            progress.matched = plan.matched;
            progress.skipped = plan.skipped.clone();
        });
        match self.order.action {
            Action::Redrive { .. } => self.redrive(plan, &mut batches).await?,
            Action::Discard => self.discard(plan, &mut batches).await?,
        }
        batches.write(&self.progress).await
    }

    fn max_per_second(&self) -> Option<NonZeroU32> {
        match self.order.action {
            Action::Redrive { max_per_second, .. } => max_per_second,
            Action::Discard => None,
        }
    }

    async fn plan(&self) -> Result<Plan, LetterError> {
        let Order { filter, action, .. } = self.order.clone();
        let skip = move |letter: &DeadLetter| match action {
            Action::Redrive { max_redrives, .. } => from_redrive(letter, max_redrives, now_ms()),
            Action::Discard => from_discard(letter),
        };
        self.replica.read(move |store| Ok(store.plan(&filter, skip))).await?
    }

    async fn redrive(&self, plan: Plan, batches: &mut Batches<L::Writer>) -> Result<(), LetterError> {
        let mut open = plan.open;
        let mut letters = self.log.letters().await?;
        while let Some(buried) = letters.next().await.transpose()? {
            let Some(key) = origin(&buried).filter(|key| open.contains(key)) else {
                continue;
            };
            let Some(letter) = self.open(&key).await? else {
                continue;
            };
            if redrives(&buried) != letter.record.redrives {
                continue;
            }
            open.remove(&key);
            match redriven(&buried, &letter.record, &self.lanes) {
                Ok(original) => {
                    let redrives = letter.record.redrives + 1;
                    let state = self.state(&letter, LetterState::Redriven, redrives)?;
                    let original = Some(original);
                    batches.add(Change { original, state }, &self.progress).await?;
                }
                Err(skip) => self.progress.send_modify(|progress| progress.skip(skip, 1)),
            }
        }
        let gone = open.len() as u64;
        self.progress
            .send_modify(|progress| progress.skip(Skip::OriginalGone, gone));
        Ok(())
    }

    async fn discard(&self, plan: Plan, batches: &mut Batches<L::Writer>) -> Result<(), LetterError> {
        for key in plan.open {
            if let Some(letter) = self.open(&key).await? {
                let state = self.state(&letter, LetterState::Discarded, letter.record.redrives)?;
                let original = None;
                batches.add(Change { original, state }, &self.progress).await?;
            }
        }
        Ok(())
    }

    async fn open(&self, key: &LetterKey) -> Result<Option<Letter>, LetterError> {
        let key = key.clone();
        let letter = self.replica.read(move |store| store.letter(&key)).await?;
        Ok(letter.filter(|letter| letter.record.state == LetterState::Open))
    }

    /// Where the state before it stands: elsewhere both would stay.
    fn state(&self, letter: &Letter, state: LetterState, redrives: i32) -> Result<Output, LetterError> {
        let record = DeadLetter {
            state,
            redrives,
            updated_at_ms: now_ms(),
            ..letter.record.clone()
        };
        let key = record.key().map(|key| key.to_string()).unwrap_or_default();
        Ok(Output {
            topic: topics::FAILED.in_epoch(EPOCH),
            partition: Some(letter.partition),
            key: Bytes::from(key),
            value: Some(self.codec.encode(&record).map_err(LetterError::Encode)?),
            headers: letter.trace().map_or_else(Headers::default, |trace| headers_of(&trace)),
        })
    }
}

/// A job that works while it is asked how far it is.
struct Running {
    work: BoxFuture<'static, Result<(), LetterError>>,
    progress: watch::Receiver<Progress>,
    ticks: Interval,
    leaving: CancellationToken,
    over: bool,
}

impl Running {
    async fn next(&mut self) -> Option<Result<Progress, LetterError>> {
        if self.over {
            return None;
        }
        let ended = tokio::select! {
            biased;
            () = self.leaving.cancelled() => Err(LetterError::Leaving),
            ended = &mut self.work => ended,
            _ = self.ticks.tick() => return Some(Ok(self.progress.borrow().clone())),
        };
        self.over = true;
        let finished = true;
        Some(ended.map(|()| Progress {
            finished,
            ..self.progress.borrow().clone()
        }))
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
