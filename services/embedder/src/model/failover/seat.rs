//! The place of one backend: whether it is made, was lost, and when it may be made again.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_telemetry::{metrics, names};

use super::candidate::Candidate;
use super::instance::{Instance, Made};
use crate::model::backend::Outage;

/// Threads that hang in a call, of one candidate.
const MAX_ABANDONED: usize = 2;

/// A candidate's place in the list, and what became of it.
pub(super) struct Seat {
    pub(super) candidate: Candidate,
    pub(super) instance: Option<Instance>,
    /// Once it has been made.
    pub(super) made: Option<Made>,
    /// In a row.
    pub(super) losses: u32,
    pub(super) rest: Duration,
    pub(super) not_before: Option<Instant>,
    /// Since when it is being made.
    pub(super) begun: Option<Instant>,
    /// Why it is not at work.
    pub(super) last: Outage,
    pub(super) abandoned: Vec<JoinHandle<()>>,
}

/// How a backend was lost.
pub(super) struct Loss {
    pub(super) why: Outage,
    /// It may never come back from its call.
    hung: bool,
    /// Making it anew would change nothing.
    pub(super) rests: bool,
}

impl Loss {
    pub(super) fn died(why: impl Into<String>) -> Self {
        Self {
            why: Outage::Broken(why.into()),
            hung: false,
            rests: false,
        }
    }
    pub(super) fn hung(why: impl Into<String>) -> Self {
        Self {
            hung: true,
            ..Self::died(why)
        }
    }
    /// As its canary, or its start, showed.
    pub(super) fn seen(why: Outage) -> Self {
        Self {
            why,
            hung: true,
            rests: false,
        }
    }
    pub(super) fn rests(why: Outage) -> Self {
        Self {
            why,
            hung: false,
            rests: true,
        }
    }
}

impl Seat {
    /// Not tried yet.
    pub(super) fn of(candidate: Candidate, rest: Duration) -> Self {
        Self {
            candidate,
            instance: None,
            made: None,
            losses: 0,
            rest,
            not_before: None,
            begun: None,
            last: Outage::Broken("not tried yet".into()),
            abandoned: Vec::new(),
        }
    }

    pub(super) fn may_be_made(&mut self) -> bool {
        self.abandoned.retain(|thread| !thread.is_finished());
        self.abandoned.len() < MAX_ABANDONED && self.not_before.is_none_or(|at| at <= Instant::now())
    }

    pub(super) fn begin(&mut self) -> Result<(), String> {
        let made = Instance::make(&self.candidate);
        self.instance = Some(made.map_err(|e| format!("its thread cannot be started: {e}"))?);
        self.begun = Some(Instant::now());
        Ok(())
    }

    /// It is lost, and is made again at once; or rests, if it was not at work, was lost too often in a row, or making it anew
    /// would change nothing.
    pub(super) fn lose(&mut self, loss: Loss, was_at_work: bool, losses_before_rest: u32, rest: (Duration, Duration)) {
        let (name, why) = (self.candidate.name, loss.why);
        if was_at_work {
            tracing::error!(backend = name, %why, "a backend is lost");
            metrics::BACKENDS_LOST.add(1, || [(names::BACKEND, name.into())]);
        } else {
            tracing::warn!(backend = name, %why, "a backend does not start");
        }
        let thread = self.instance.take().map(Instance::give_up);
        self.abandoned.extend(thread.filter(|_| loss.hung));
        if let Some(interrupt) = self.made.take().and_then(|made| made.interrupt) {
            interrupt();
        }
        self.last = why;
        self.losses += 1;
        if !was_at_work || loss.rests || self.candidate.remote || self.losses >= losses_before_rest {
            self.not_before = Some(Instant::now() + self.rest);
            if !self.candidate.remote {
                let (first, longest) = rest;
                self.rest = (self.rest * 2).clamp(first, longest);
            }
        }
    }

    /// What took it down was not its fault.
    pub(super) fn absolve(&mut self) {
        (self.losses, self.not_before) = (0, None);
    }

    /// It has computed a batch.
    pub(super) fn works(&mut self, rest: Duration) {
        (self.losses, self.rest, self.not_before) = (0, rest, None);
    }
}
