//! Several backends for one model: the first that works computes, and what is lost when one fails is computed again.
//!
//! | the backend | becomes |
//! |---|---|
//! | gives vectors | those |
//! | fails, gives another number of vectors, or one that is none (NaN, zero, another size), and passes its canary | asked once more; then that, for who has the batch to judge |
//! | refuses the batch, or has no memory for several texts, and passes its canary | the error: it is about the batch |
//! | has no memory for a single text | lost, and rests: somebody else has it |
//! | asks for patience | that: nobody else is asked, since it works |
//! | refuses us | lost, and rests; that, if there is nobody else |
//! | fails its canary, dies, or gives no answer in time | lost |
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

mod candidate;
pub(super) mod instance;
mod seat;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub use candidate::{Candidate, Make, Patience};

use super::backend::{Backend, BackendError, Description, Outage};
use super::canary;
use super::pooling::Gate;
use super::tokenizer::{Tokenizer, Tokens};
use instance::{Answer, DIED_AT_WORK, Making, Waited, hangs};
use seat::{Loss, Seat};

/// Losses in a row after which a backend rests.
const LOSSES_BEFORE_REST: u32 = 2;
/// Backends that one batch may take down before it is to blame.
const BACKENDS_OF_A_BATCH: u32 = 3;

/// The first of several backends that works.
pub struct Failover {
    seats: Vec<Seat>,
    active: Option<usize>,
    /// Raised whenever another instance is at work.
    incarnation: u64,
    tokenizer: Tokenizer,
    gate: Gate,
    patience: Patience,
}

/// What came of a batch.
enum Asked {
    Answer(Answer),
    Lost(Loss),
}

/// After an answer that is suspicious, of a backend that passes its canary.
enum Then {
    /// Ask once more.
    Again,
    /// Tell what it answered.
    Tell,
    /// Leave it alone for a while, whatever its canary says.
    Rest,
}

impl Failover {
    /// Over these, the preferred one first. Nothing is made yet: the first batch or canary does that.
    pub fn new(candidates: Vec<Candidate>, tokenizer: Tokenizer, gate: Gate, patience: Patience) -> Self {
        let seat = |candidate| Seat::of(candidate, patience.rest.0);
        Self {
            seats: candidates.into_iter().map(seat).collect(),
            active: None,
            incarnation: 0,
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
                Err(outage) => self.lose(at, Loss::seen(outage)),
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
        self.active = Some(at);
        self.incarnation += 1;
        for seat in &mut self.seats[at + 1..] {
            // Its memory is wanted elsewhere.
            if seat.instance.take().is_some() {
                seat.made = None;
                seat.last = Outage::Broken("not needed".into());
            }
        }
    }

    fn sing(&self, at: usize) -> Result<(), Outage> {
        let seat = &self.seats[at];
        let limit = seat.candidate.canary_limit();
        canary::sing(&self.tokenizer, self.gate, |inputs| match &seat.instance {
            Some(instance) => instance.answer(inputs, limit),
            None => Err(Outage::Broken(DIED_AT_WORK.into()).into()),
        })
    }

    fn ask(&self, at: usize, inputs: &[&Tokens]) -> Asked {
        let first = self.ask_once(at, inputs);
        let doubt = match &first {
            Asked::Answer(answer) => self.doubt(answer, inputs.len()),
            Asked::Lost(_) => None,
        };
        let (why, then) = match doubt {
            None => return first,
            Some((why, Then::Rest)) => return Asked::Lost(Loss::rests(Outage::Broken(why))),
            Some(doubt) => doubt,
        };
        match (self.sing(at), then) {
            (Err(Outage::Broken(canary)), _) => {
                Asked::Lost(Loss::hung(format!("{why}, and then its canary failed: {canary}")))
            }
            (_, Then::Again) => self.ask_once(at, inputs),
            (_, Then::Tell | Then::Rest) => first,
        }
    }

    /// What is suspicious about an answer, and what is to be done about it.
    fn doubt(&self, answer: &Answer, texts: usize) -> Option<(String, Then)> {
        match answer {
            Ok(vectors) if vectors.len() != texts => Some((
                format!("it gave {} vectors for {texts} texts", vectors.len()),
                Then::Again,
            )),
            Ok(vectors) => {
                let bad = vectors.iter().find_map(|vector| self.gate.check(vector).err())?;
                Some((bad.to_string(), Then::Again))
            }
            Err(BackendError::Failed(why)) => Some((why.clone(), Then::Again)),
            Err(BackendError::Refused(why)) => Some((why.clone(), Then::Tell)),
            Err(BackendError::TooLarge(why)) if texts == 1 => Some((why.clone(), Then::Rest)),
            Err(BackendError::TooLarge(why)) => Some((why.clone(), Then::Tell)),
            Err(BackendError::Outage(_)) => None,
        }
    }

    fn ask_once(&self, at: usize, inputs: &[&Tokens]) -> Asked {
        let seat = &self.seats[at];
        let limit = seat.candidate.call_limit;
        match seat.instance.as_ref().map(|instance| instance.embed(inputs, limit)) {
            Some(Waited::Hung) => Asked::Lost(Loss::hung(hangs(limit))),
            Some(Waited::Died) | None => Asked::Lost(Loss::died(DIED_AT_WORK)),
            Some(Waited::Got(Err(BackendError::Outage(Outage::Broken(why))))) => Asked::Lost(Loss::died(why)),
            Some(Waited::Got(Err(BackendError::Outage(refused @ Outage::Config(_))))) if self.seats.len() > 1 => {
                Asked::Lost(Loss::rests(refused))
            }
            Some(Waited::Got(answer)) => Asked::Answer(answer),
        }
    }

    fn lose(&mut self, at: usize, loss: Loss) {
        let losses_before_rest = match self.seats.len() {
            1 => BACKENDS_OF_A_BATCH,
            _ => LOSSES_BEFORE_REST,
        };
        let was_at_work = self.active == Some(at);
        self.seats[at].lose(loss, was_at_work, losses_before_rest, self.patience.rest);
        if was_at_work {
            self.active = None;
        }
    }

    /// What took them down was not their fault.
    fn absolve(&mut self) {
        self.seats.iter_mut().for_each(Seat::absolve);
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
                    self.lose(at, Loss::died(why));
                }
                continue;
            };
            let made = match (&seat.made, instance.made()) {
                // It has asked for patience.
                (Some(_), _) => None,
                (None, Making::NotYet) if seat.begun.is_none_or(|begun| begun.elapsed() < self.patience.start) => {
                    continue;
                }
                (None, Making::NotYet) => {
                    self.lose(at, Loss::hung("it does not start"));
                    continue;
                }
                (None, Making::Failed(why)) => {
                    self.lose(at, Loss::died(why));
                    continue;
                }
                (None, Making::Made(made)) => Some(made),
            };
            if made.is_some() {
                seat.made = made;
            }
            if seat.not_before.is_some_and(|at| at > Instant::now()) {
                continue;
            }
            match self.sing(at) {
                Ok(()) => return self.take(at),
                Err(Outage::RateLimited { retry_after }) => {
                    self.seats[at].not_before = Some(Instant::now() + retry_after);
                }
                Err(outage) => self.lose(at, Loss::seen(outage)),
            }
        }
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
                        self.seats[at].works(self.patience.rest.0);
                    }
                    return answer;
                }
                Asked::Lost(loss) => {
                    let why = loss.why.to_string();
                    taken_down += u32::from(!loss.rests && !self.seats[at].candidate.remote);
                    self.lose(at, loss);
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

    /// Of the one at work. One that fails it is lost, and the next that passes it is at work.
    fn canary(&mut self, _: &Tokenizer, _: Gate) -> Result<(), Outage> {
        self.look_for_the_preferred();
        loop {
            let sang = self.active.is_none();
            let at = self.seat()?;
            match self.sing(at) {
                _ if sang => return Ok(()),
                Err(outage @ Outage::Broken(_)) => self.lose(at, Loss::seen(outage)),
                Err(refused @ Outage::Config(_)) if self.seats.len() > 1 => self.lose(at, Loss::rests(refused)),
                sung => return sung,
            }
        }
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
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
