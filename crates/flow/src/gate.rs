//! Whether records may start: one gate for a stage, shut while a dependency asks for patience or is away.
//!
//! Rate limit, circuit breaker and half-open probe are one state machine:
//!
//! | state | a record may start | it succeeds | `RateLimited` | `Transient`, its first | time passes |
//! |---|---|---|---|---|---|
//! | open | yes | | shut for `retry_after` and jitter | the eighth with no success in between: shut for a backoff | |
//! | shut | no | shut by an outage: open | shut for the longer time | | the time is over: probing |
//! | probing, none runs | one | | | | |
//! | probing, one runs | no | open | shut, for longer | shut, for longer | |
//!
//! A record that fails by itself (`Invalid`, `Failed`) was answered: it counts as a success. A stuck record's second and
//! later `Transient` count for nothing: alone it never shuts the gate for others. Shut for a minute without a success
//! means that the stage should stop fetching and say that it is not ready ([`Gate::in_force`]).

use std::time::{Duration, Instant};

use crate::retry::backoff;

/// Consecutive first `Transient`s that shut the gate.
const OUTAGE: u32 = 8;
/// Longest time between two probes of an outage.
const LONGEST: Duration = Duration::from_secs(5);

/// Reads whether calls may be made, false while the gate is shut: for layers of a stage's own calls ([`crate::layers`]).
pub type GateReader = tokio::sync::watch::Receiver<bool>;

/// The state machine. It has no clock: moments are given to it.
#[derive(Debug, Default)]
pub struct Gate {
    state: State,
    /// `Transient`s in a row.
    outage: u32,
    /// Shut in a row, probes in between: the backoff grows with them.
    shut: u32,
    /// When it was first shut since it was last open, and why it was last.
    since: Option<(Instant, String)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Shut {
        until: Instant,
        by_limit: bool,
    },
    Probing,
}

/// What the gate made of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changed.
    Same,
    /// It has just opened: whatever waits may start.
    Opened,
}

impl Gate {
    /// Whether a record may start now.
    pub fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::Open => true,
            State::Shut { until, .. } => now >= until,
            State::Probing => false,
        }
    }

    /// A record that was admitted starts: if the gate is not open, it is the probe.
    pub fn start(&mut self) {
        if self.state != State::Open {
            self.state = State::Probing;
        }
    }

    /// A record was answered.
    pub fn answered(&mut self) -> Verdict {
        self.outage = 0;
        match self.state {
            State::Open => Verdict::Same,
            // What was under way when the limit came says nothing about what starts now.
            State::Shut { by_limit: true, .. } => Verdict::Same,
            State::Shut { by_limit: false, .. } | State::Probing => {
                *self = Self::default();
                Verdict::Opened
            }
        }
    }

    /// A dependency asked for patience. Until when the gate is shut now.
    pub fn limited(&mut self, retry_after: Duration, why: &str, now: Instant, jitter: f64) -> Instant {
        let mut until = now + retry_after + backoff(self.shut, jitter);
        if let State::Shut { until: already, .. } = self.state {
            until = until.max(already);
        }
        self.shut(until, true, why, now);
        until
    }

    /// A dependency is away, says a record; `first` when it says so for the first time.
    pub fn away(&mut self, first: bool, why: &str, now: Instant, jitter: f64) {
        match self.state {
            State::Shut { .. } => {}
            State::Open if !first => {}
            State::Open if self.outage + 1 < OUTAGE => self.outage += 1,
            State::Open | State::Probing => {
                let until = now + backoff(self.shut + 3, jitter).min(LONGEST);
                self.shut(until, false, why, now);
            }
        }
    }

    /// The record that probed went away without an answer.
    pub fn lost(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Shut {
                until: now,
                by_limit: false,
            };
        }
    }

    fn shut(&mut self, until: Instant, by_limit: bool, why: &str, now: Instant) {
        if !matches!(self.state, State::Shut { .. }) {
            self.shut += 1;
        }
        self.state = State::Shut { until, by_limit };
        let since = self.since.take().map_or(now, |(since, _)| since);
        self.since = Some((since, why.to_owned()));
    }

    /// Nothing starts, not even a probe.
    pub fn is_shut(&self) -> bool {
        matches!(self.state, State::Shut { .. })
    }

    /// When it may change by time alone.
    pub fn next_change(&self) -> Option<Instant> {
        match self.state {
            State::Shut { until, .. } => Some(until),
            State::Open | State::Probing => None,
        }
    }

    /// For how long it has not been open, and why.
    pub fn in_force(&self, now: Instant) -> Option<(Duration, &str)> {
        let (since, why) = self.since.as_ref()?;
        Some((now.saturating_duration_since(*since), why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    impl Gate {
        fn admit(&mut self, now: Instant) -> bool {
            let admits = self.admits(now);
            if admits {
                self.start();
            }
            admits
        }

        fn is_open(&self) -> bool {
            self.state == State::Open
        }
    }

    fn outage(now: Instant) -> Gate {
        let mut gate = Gate::default();
        (0..OUTAGE).for_each(|_| gate.away(true, "away", now, 1.0));
        gate
    }

    #[test]
    fn open_until_a_limit_or_an_outage() {
        let now = Instant::now();
        let mut gate = Gate::default();
        for _ in 1..OUTAGE {
            assert!(gate.admit(now));
            gate.away(true, "away", now, 1.0);
        }
        assert_eq!(gate.answered(), Verdict::Same);
        (1..OUTAGE).for_each(|_| gate.away(true, "away", now, 1.0));
        assert!(gate.is_open(), "a success in between");
        gate.away(true, "away", now, 1.0);
        assert!(!gate.admit(now));
        assert_eq!(gate.in_force(now + SECOND), Some((SECOND, "away")));

        let mut gate = Gate::default();
        assert_eq!(gate.limited(9 * SECOND, "429", now, 0.0), now + 9 * SECOND);
        assert!(!gate.admit(now + 8 * SECOND) && gate.admit(now + 9 * SECOND));
    }

    #[test]
    fn a_stuck_record_shuts_nothing() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.away(true, "away", now, 1.0);
        (0..100).for_each(|_| gate.away(false, "away", now, 1.0));
        assert!(gate.is_open());
    }

    #[test]
    fn shut_until_a_probe_is_answered() {
        let now = Instant::now();
        let mut gate = outage(now);
        assert_eq!(gate.next_change(), Some(now + Duration::from_millis(800)));
        let later = now + SECOND;
        assert!(gate.admit(later), "the probe");
        assert!(!gate.admit(later), "only one");
        gate.away(false, "still", later, 1.0);
        assert_eq!(gate.next_change(), Some(later + Duration::from_millis(1600)), "longer");
        let later = later + 2 * SECOND;
        assert!(gate.admit(later));
        assert_eq!(gate.in_force(later), Some((3 * SECOND, "still")), "since the beginning");
        assert_eq!(gate.answered(), Verdict::Opened);
        assert!(gate.is_open() && gate.in_force(later).is_none());
    }

    #[test]
    fn a_success_that_was_under_way_ends_an_outage_and_no_limit() {
        let now = Instant::now();
        assert_eq!(outage(now).answered(), Verdict::Opened);
        let mut gate = Gate::default();
        gate.limited(9 * SECOND, "429", now, 0.0);
        assert_eq!(gate.answered(), Verdict::Same);
        assert!(!gate.admit(now));
        // A limit that comes later can only lengthen it.
        assert_eq!(gate.limited(SECOND, "429", now, 0.0), now + 9 * SECOND);
        assert_eq!(gate.limited(10 * SECOND, "429", now, 0.0), now + 10 * SECOND);
    }

    #[test]
    fn a_probe_that_was_lost_is_given_out_again() {
        let now = Instant::now();
        let mut gate = outage(now);
        let later = now + SECOND;
        assert!(gate.admit(later) && !gate.admit(later));
        gate.lost(later);
        assert!(gate.admit(later));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit,
        Answered,
        Limited(u8),
        Away(bool),
        Lost,
        Wait(u8),
    }

    proptest! {
        /// Naive: what may start is counted, and a shut gate always opens to a dependency that answers.
        #[test]
        fn at_most_one_probe_and_never_shut_for_ever(steps in proptest::collection::vec(prop_oneof![
            Just(Step::Admit), Just(Step::Answered), any::<u8>().prop_map(Step::Limited),
            any::<bool>().prop_map(Step::Away), Just(Step::Lost), any::<u8>().prop_map(Step::Wait),
        ], 0..100)) {
            let (mut gate, mut now) = (Gate::default(), Instant::now());
            let mut admitted = 0;
            for step in steps {
                let was_open = gate.is_open();
                match step {
                    Step::Admit => {
                        let shut = gate.next_change().is_some_and(|until| now < until);
                        let yes = gate.admit(now);
                        prop_assert!(!(yes && shut));
                        if yes && !was_open {
                            admitted += 1;
                            prop_assert_eq!(admitted, 1, "a second probe");
                        }
                    }
                    Step::Answered => { gate.answered(); admitted = 0; }
                    Step::Limited(s) => { gate.limited(SECOND * s.into(), "429", now, 0.5); admitted = 0; }
                    Step::Away(first) => { gate.away(first, "away", now, 0.5); admitted = 0; }
                    Step::Lost => { gate.lost(now); admitted = 0; }
                    Step::Wait(s) => now += SECOND * s.into(),
                }
                prop_assert_eq!(gate.is_open(), gate.in_force(now).is_none());
            }
            now += SECOND * 1000;
            gate.lost(now);
            prop_assert!(gate.admit(now));
            gate.answered();
            prop_assert!(gate.is_open());
        }
    }
}
