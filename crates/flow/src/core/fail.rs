//! What a record's result leads to.
//!
//! | result | attempt burned | then | gate |
//! |---|---|---|---|
//! | outputs | | ready to leave | answered |
//! | outputs, one larger than a topic takes | yes | given up: `OUTPUT_TOO_LARGE` | answered |
//! | `Transient` | no | again after a backoff, or when the gate opens | away |
//! | `Transient` for minutes while others succeed | yes | as `Failed` | |
//! | `Away`, however long and whoever succeeds | no | again after a backoff | |
//! | `RateLimited` | no | again when the gate opens | limited |
//! | `Config` | no | its partition stops and says so | |
//! | `Invalid` | yes | given up | answered |
//! | `Failed` | yes | again after a backoff; given up after the last attempt | answered |
//!
//! Until a record has ended, or its dead letter is ready in its place, the later records of its key wait; no other does.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::{Core, Ready, Waiting, WorkId};
use crate::gate::Verdict;
use crate::quarantine::DEATHS;
use crate::retry::backoff;
use crate::stage::{Failure, Output, Outputs, Rejection};

/// Failures that are kept to be shown.
const FAILURES_KEPT: usize = 20;

impl Core {
    /// A record has run. `jitter` is a random number from 0 to 1, `now_ms` the wall clock for people.
    pub fn finish(&mut self, id: WorkId, result: Result<Outputs, Failure>, now: Instant, now_ms: i64, jitter: f64) {
        self.places.leave(id);
        let Some(partition) = self.partitions.get_mut(&id.slot).filter(|p| !p.abandoned) else {
            self.gate.lost(now);
            return;
        };
        partition.running -= 1;
        partition.quarantine.ended(id.offset);
        match result {
            Ok(outputs) => {
                self.success = Some(now);
                self.answered();
                let largest = outputs.0.iter().map(Output::size_bytes).max().unwrap_or(0);
                if largest <= self.limits.output_bytes {
                    self.done(id, outputs, false, now);
                } else {
                    let limit = self.limits.output_bytes;
                    let message =
                        format!("an output of {largest} bytes is larger than the {limit} bytes that may be written");
                    let reason = "OUTPUT_TOO_LARGE";
                    self.failed(id, &Failure::Invalid { reason, message }, now, now_ms, jitter);
                }
            }
            Err(failure) => self.failed(id, &failure, now, now_ms, jitter),
        }
    }

    fn failed(&mut self, id: WorkId, failure: &Failure, now: Instant, now_ms: i64, jitter: f64) {
        let patience = Duration::from_millis(self.limits.blame_ms);
        let Some(partition) = self.partitions.get_mut(&id.slot) else {
            return;
        };
        let Some(held) = partition.held(id.offset) else { return };
        let runs = held.tries.again();
        let why = format!("{}: {}", failure.reason(), failure.message());
        let last = held.tries.attempts + 1 >= self.limits.attempts;
        let again = match failure {
            Failure::Transient { .. } if held.tries.is_to_blame(now, self.success, patience) => {
                held.tries.attempts += 1;
                self.gate.lost(now);
                (!last).then(|| (now + backoff(runs, jitter), false))
            }
            // Those who do not need it go on: the gate is not its.
            Failure::Away { .. } => {
                held.tries.is_innocent();
                self.gate.lost(now);
                Some((now + backoff(runs, jitter), false))
            }
            Failure::Transient { .. } => {
                self.gate.away(runs == 0, &why, now, jitter);
                Some((now + backoff(runs, jitter), true))
            }
            Failure::RateLimited { retry_after, .. } => {
                Some((self.gate.limited(*retry_after, &why, now, jitter), true))
            }
            Failure::Config { .. } => {
                partition.stopped = Some(why);
                self.gate.lost(now);
                self.saw(id, failure, now_ms);
                return;
            }
            Failure::Invalid { .. } => {
                held.tries.attempts += 1;
                None
            }
            Failure::Failed { .. } => {
                held.tries.attempts += 1;
                (!last).then(|| (now + backoff(runs, jitter), false))
            }
        };
        if matches!(failure, Failure::Invalid { .. } | Failure::Failed { .. }) {
            self.answered();
        }
        self.saw(id, failure, now_ms);
        match again {
            Some((until, outage)) => self.waiting.push(Reverse(Waiting { until, id, outage })),
            None => self.reject(id, failure.class(), failure.reason(), failure.message()),
        }
    }

    /// Gives a record up. Its dead letter is asked for with [`Self::next_rejected`].
    pub(super) fn reject(&mut self, id: WorkId, class: &'static str, reason: &str, message: &str) {
        let held = self.partitions.get_mut(&id.slot).and_then(|p| p.held(id.offset));
        let rejection = held.map(|held| Rejection {
            delivery: held.delivery.clone(),
            class,
            reason: reason.to_owned(),
            message: message.to_owned(),
            attempts: held.tries.attempts,
            at_ms: 0,
        });
        self.rejected.extend(rejection.map(|rejection| (id, rejection)));
    }

    /// A record whose deaths have become too many: they are its attempts.
    pub(super) fn died(&mut self, id: WorkId) {
        if let Some(held) = self.partitions.get_mut(&id.slot).and_then(|p| p.held(id.offset)) {
            held.tries.attempts = DEATHS;
        }
        let message = format!("the process died {DEATHS} times in a row while this record ran alone");
        self.reject(id, "FAILED", "PROCESS_DIED", &message);
    }

    /// A record that is given up: [`Self::bury`] takes its dead letter.
    pub fn next_rejected(&mut self, now_ms: i64) -> Option<(WorkId, Rejection)> {
        let (id, mut rejection) = self.rejected.pop_front()?;
        rejection.at_ms = now_ms;
        Some((id, rejection))
    }

    /// The dead letter of a record leaves in the place of its outputs.
    pub fn bury(&mut self, id: WorkId, letter: Outputs, now: Instant) {
        self.failed += 1;
        self.rate.ended(now, 0, 1);
        let largest = letter.0.iter().map(Output::size_bytes).max().unwrap_or(0);
        if largest <= 2 * self.limits.output_bytes {
            self.done(id, letter, true, now);
        } else if let Some(partition) = self.partitions.get_mut(&id.slot) {
            partition.stopped = Some(format!(
                "DEAD_LETTER_TOO_LARGE: offset {} was given up, and its dead letter of {largest} bytes cannot be written",
                id.offset
            ));
        }
    }

    fn done(&mut self, id: WorkId, outputs: Outputs, buried: bool, now: Instant) {
        let Some(partition) = self.partitions.get_mut(&id.slot) else {
            return;
        };
        partition.quarantine.ended(id.offset);
        let bytes = outputs.0.iter().map(Output::size_bytes).sum();
        let span = partition.held(id.offset).map(|held| held.delivery.span.clone());
        let ready = Ready {
            id,
            outputs,
            bytes,
            since: now,
            buried,
            span: span.unwrap_or_default(),
        };
        self.ready_bytes += bytes;
        // A record whose outputs were refused has left its lane already, and goes before those who follow it.
        if partition.has_left_lane(id.offset) {
            self.ready.push_front(ready);
        } else {
            self.ready.push_back(ready);
            let next = partition.next_of_key(id.offset);
            if let Some(offset) = next {
                self.line_up(WorkId { offset, ..id });
            }
        }
    }

    /// The dependencies answer: what waited for them need not wait any longer.
    fn answered(&mut self) {
        if self.gate.answered() == Verdict::Opened {
            let waiting = std::mem::take(&mut self.waiting);
            let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|Reverse(waiting)| waiting.outage);
            self.waiting = later.into();
            now.into_iter().for_each(|Reverse(waiting)| self.line_up(waiting.id));
        }
    }

    fn saw(&mut self, id: WorkId, failure: &Failure, now_ms: i64) {
        let partition = self.partitions.get(&id.slot);
        let seen = partition.and_then(|p| p.failure_seen(id.offset, failure, now_ms));
        self.failures.extend(seen);
        while self.failures.len() > FAILURES_KEPT {
            self.failures.pop_front();
        }
    }
}
