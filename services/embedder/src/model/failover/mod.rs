//! Several backends for one model: the first that works computes, and what is lost when one fails is computed again.
//!
//! | the backend | becomes |
//! |---|---|
//! | gives vectors | those |
//! | gives a vector that is none (NaN, zero, another size), and passes its canary | those: who has the batch judges each |
//! | fails, refuses or has no memory, and passes its canary | the error: it is about the batch |
//! | asks for patience, or refuses us | that: nobody else is asked, since it works |
//! | does one of the first three and fails its canary; dies; gives no answer in time | lost |
//!
//! A lost one is made again at once and the batch given to it; lost twice in a row, or away at an endpoint, it rests, and the
//! next in the list takes the batch. While another stands in for it, it is made in the background and takes over again when
//! it passes its canary. A batch that has taken down three backends, all of which had passed their canary before, is said to
//! have failed, and none of them rests for it: who has it halves it and finds the text that is to blame.
//!
//! A call that does not come back leaves its thread behind, which cannot be stopped unless it waits for a process of its own.
//! Two of those, and the backend is not made again before one comes back.
//!
//! Rejected: a circuit breaker that counts errors over time (one failed canary says more); running the batch on two backends
//! at once; more than one at work (the batches would overtake each other for nothing, and a GPU is kept busy by one).

mod instance;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ModelError;
use super::backend::{Backend, BackendError, Description, Outage};
use super::canary;
use super::pooling::Gate;
use super::tokenizer::{Tokenizer, Tokens};
use instance::{Instance, Made, Making, Waited};

/// Makes a backend: blocking work of seconds.
pub type Make = dyn Fn() -> Result<Box<dyn Backend>, ModelError> + Send + Sync;

/// A backend that can be made, as often as it is lost.
#[derive(Clone)]
pub struct Candidate {
    /// For people: `cuda`, `cpu`, `endpoint`.
    pub name: &'static str,
    /// How to make it.
    pub make: Arc<Make>,
    /// It runs elsewhere: making it anew changes nothing.
    pub remote: bool,
    /// Longest time for one batch. Whatever takes longer hangs.
    pub call_limit: Duration,
}

/// How much patience there is with backends.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Longest time to make one.
    pub start: Duration,
    /// How long the first rest of a lost one is, and the longest: each is twice the one before. At an endpoint each is the
    /// first.
    pub rest: (Duration, Duration),
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            rest: (Duration::from_secs(1), Duration::from_secs(15)),
        }
    }
}

/// A canary is three short sentences.
const CANARY_LIMIT: Duration = Duration::from_secs(10);
/// Losses in a row after which a backend rests.
const LOSSES_BEFORE_REST: u32 = 2;
/// Backends that one batch may take down before it is to blame.
const BACKENDS_OF_A_BATCH: u32 = 3;
/// Threads that hang in a call, of one candidate.
const MAX_ABANDONED: usize = 2;

/// The first of several backends that works.
pub struct Failover {
    seats: Vec<Seat>,
    active: Option<usize>,
    tokenizer: Tokenizer,
    gate: Gate,
    patience: Patience,
}

struct Seat {
    candidate: Candidate,
    instance: Option<Instance>,
    /// Once it has been made.
    made: Option<Made>,
    /// In a row.
    losses: u32,
    rest: Duration,
    not_before: Option<Instant>,
    /// Why it is not at work.
    last: Outage,
    abandoned: Vec<JoinHandle<()>>,
}

/// What came of a batch.
enum Asked {
    Answer(Result<Vec<Vec<f32>>, BackendError>),
    Lost { why: Outage, hung: bool },
}

impl Failover {
    /// Over these, the preferred one first. Nothing is made yet: the first batch or canary does that.
    pub fn new(candidates: Vec<Candidate>, tokenizer: Tokenizer, gate: Gate, patience: Patience) -> Self {
        let seat = |candidate| Seat {
            candidate,
            instance: None,
            made: None,
            losses: 0,
            rest: patience.rest.0,
            not_before: None,
            last: Outage::Broken("not tried yet".into()),
            abandoned: Vec::new(),
        };
        Self {
            seats: candidates.into_iter().map(seat).collect(),
            active: None,
            tokenizer,
            gate,
            patience,
        }
    }

    /// Makes the first that works.
    pub(super) fn prove(&mut self) -> Result<(), Outage> {
        self.seat().map(|_| ())
    }

    /// The one to ask: the one at work, else the first that can be made and passes its canary.
    fn seat(&mut self) -> Result<usize, Outage> {
        if let Some(at) = self.active {
            return Ok(at);
        }
        for at in 0..self.seats.len() {
            if !self.seats[at].may_be_made() {
                continue;
            }
            match self.start(at) {
                Ok(()) => {
                    self.take(at);
                    return Ok(at);
                }
                // It is there, and has not yet shown that it computes.
                Err(patience @ Outage::RateLimited { .. }) => return Err(patience),
                Err(outage) => self.lose(at, outage, true),
            }
        }
        match &self.seats[..] {
            [only] => Err(only.last.clone()),
            _ => Err(Outage::Broken(self.reasons())),
        }
    }

    fn reasons(&self) -> String {
        let reason = |seat: &Seat| format!("{}: {}", seat.candidate.name, seat.last);
        self.seats.iter().map(reason).collect::<Vec<_>>().join("; ")
    }

    /// Makes one and has it sing.
    fn start(&mut self, at: usize) -> Result<(), Outage> {
        let limit = self.patience.start;
        let seat = &mut self.seats[at];
        if seat.instance.is_none() {
            seat.begin().map_err(Outage::Broken)?;
        }
        // One that has asked for patience was made before.
        if let (Some(instance), None) = (&seat.instance, &seat.made) {
            seat.made = Some(instance.wait_made(limit).map_err(Outage::Broken)?);
        }
        self.sing(at)
    }

    fn take(&mut self, at: usize) {
        if self.active == Some(at) {
            return;
        }
        let name = self.seats[at].candidate.name;
        match (self.active, at) {
            (None, 0) => tracing::info!(backend = name, "a backend computes"),
            (None, _) => tracing::warn!(backend = name, why = %self.reasons(), "a backend stands in for another one"),
            (Some(_), _) => tracing::info!(backend = name, "a backend is back"),
        }
        if let Some(before) = self.active.replace(at) {
            // Its memory is wanted elsewhere.
            let seat = &mut self.seats[before];
            (seat.instance, seat.made) = (None, None);
            seat.last = Outage::Broken("not needed".into());
        }
    }

    fn sing(&self, at: usize) -> Result<(), Outage> {
        let seat = &self.seats[at];
        let limit = seat.candidate.canary_limit();
        canary::sing(&self.tokenizer, self.gate, |inputs| {
            match seat.instance.as_ref().map(|instance| instance.embed(inputs, limit)) {
                Some(Waited::Got(answer)) => answer,
                Some(Waited::Hung) => Err(Outage::Broken(hangs(limit)).into()),
                Some(Waited::Died) | None => Err(Outage::Broken(DIED.into()).into()),
            }
        })
    }

    fn ask(&self, at: usize, inputs: &[&Tokens]) -> Asked {
        let seat = &self.seats[at];
        let limit = seat.candidate.call_limit;
        let lost = |why: String, hung| Asked::Lost {
            why: Outage::Broken(why),
            hung,
        };
        let answer = match seat.instance.as_ref().map(|instance| instance.embed(inputs, limit)) {
            Some(Waited::Got(answer)) => answer,
            Some(Waited::Hung) => return lost(hangs(limit), true),
            Some(Waited::Died) | None => return lost(DIED.into(), false),
        };
        let suspicious = match &answer {
            Ok(vectors) => vectors
                .iter()
                .find_map(|vector| self.gate.check(vector).err())
                .map(|bad| bad.to_string()),
            Err(BackendError::Outage(Outage::Broken(why))) => return lost(why.clone(), false),
            Err(BackendError::Outage(_)) => None,
            Err(error) => Some(error.to_string()),
        };
        match suspicious.map(|why| (why, self.sing(at))) {
            Some((why, Err(Outage::Broken(canary)))) => {
                lost(format!("{why}, and then its canary failed: {canary}"), false)
            }
            _ => Asked::Answer(answer),
        }
    }

    fn lose(&mut self, at: usize, why: Outage, hung: bool) {
        let (first, longest) = self.patience.rest;
        let losses_before_rest = match self.seats.len() {
            1 => BACKENDS_OF_A_BATCH,
            _ => LOSSES_BEFORE_REST,
        };
        let was_at_work = self.active == Some(at);
        let seat = &mut self.seats[at];
        tracing::error!(backend = seat.candidate.name, %why, "a backend is lost");
        let thread = seat.instance.take().map(Instance::give_up);
        seat.abandoned.extend(thread.filter(|_| hung));
        if let Some(interrupt) = seat.made.take().and_then(|made| made.interrupt) {
            interrupt();
        }
        seat.last = why;
        seat.losses += 1;
        if !was_at_work || seat.candidate.remote || seat.losses >= losses_before_rest {
            seat.not_before = Some(Instant::now() + seat.rest);
            if !seat.candidate.remote {
                seat.rest = (seat.rest * 2).clamp(first, longest);
            }
        }
        if was_at_work {
            self.active = None;
        }
    }

    /// What took them down was not their fault.
    fn absolve(&mut self) {
        for seat in &mut self.seats {
            (seat.losses, seat.not_before) = (0, None);
        }
    }

    fn works(&mut self, at: usize) {
        let first = self.patience.rest.0;
        let seat = &mut self.seats[at];
        (seat.losses, seat.rest, seat.not_before) = (0, first, None);
    }

    /// While one stands in: whoever comes before it is made in the background, and takes over when it sings.
    fn look_for_the_preferred(&mut self) {
        let before = self.active.unwrap_or(0);
        for at in 0..before {
            let seat = &mut self.seats[at];
            let Some(instance) = &seat.instance else {
                if seat.may_be_made()
                    && let Err(why) = seat.begin()
                {
                    self.lose(at, Outage::Broken(why), false);
                }
                continue;
            };
            match instance.made() {
                Making::NotYet => {}
                Making::Failed(why) => self.lose(at, Outage::Broken(why), false),
                Making::Made(made) => {
                    seat.made = Some(made);
                    match self.sing(at) {
                        Ok(()) => return self.take(at),
                        Err(outage) => self.lose(at, outage, true),
                    }
                }
            }
        }
    }
}

const DIED: &str = "it died while it computed";

fn hangs(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f32())
}

impl Candidate {
    fn canary_limit(&self) -> Duration {
        CANARY_LIMIT.min(self.call_limit)
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Seat {
    fn may_be_made(&mut self) -> bool {
        self.abandoned.retain(|thread| !thread.is_finished());
        self.abandoned.len() < MAX_ABANDONED && self.not_before.is_none_or(|at| at <= Instant::now())
    }

    fn begin(&mut self) -> Result<(), String> {
        let made = Instance::make(&self.candidate);
        self.instance = Some(made.map_err(|e| format!("its thread cannot be started: {e}"))?);
        Ok(())
    }
}

impl Backend for Failover {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        self.look_for_the_preferred();
        let mut taken_down = 0;
        loop {
            let at = self.seat()?;
            match self.ask(at, inputs) {
                Asked::Answer(answer) => {
                    if answer.is_ok() {
                        self.works(at);
                    }
                    return answer;
                }
                Asked::Lost { why, hung } => {
                    taken_down += u32::from(!self.seats[at].candidate.remote);
                    self.lose(at, why.clone(), hung);
                    if taken_down == BACKENDS_OF_A_BATCH {
                        self.absolve();
                        return Err(BackendError::Failed(format!(
                            "{taken_down} backends in a row were lost with it, the last: {why}"
                        )));
                    }
                }
            }
        }
    }

    fn describe(&self) -> Description {
        let at_work = self.active.and_then(|at| self.seats[at].made.as_ref());
        let stands_in_for = (self.active > Some(0)).then(|| self.seats[0].candidate.name);
        match at_work {
            Some(made) => Description {
                stands_in_for,
                ..made.description.clone()
            },
            None => Description::of_none(self.seats.first().map_or("none", |seat| seat.candidate.name)),
        }
    }
}
