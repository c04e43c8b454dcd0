//! What the endpoint does to calls, for how long, and what it has done.

use std::time::{Duration, Instant};

/// What the endpoint does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// 429, with so many seconds in `Retry-After` if any.
    RateLimit {
        /// Whole seconds count.
        retry_after: Option<Duration>,
    },
    /// This status, for example 500 or 401.
    Status(u16),
    /// No answer, ever.
    Hang,
    /// No answer, ever, to calls with this in a text; the others are answered as they should be.
    HangOn(&'static str),
    /// Hangs up without an answer.
    HangUp,
    /// Hangs up in the middle of the answer.
    Cut,
    /// The right answer, so much later.
    Slow(Duration),
    /// 200, and a page of HTML.
    Html,
    /// A vector less than texts.
    OneTooFew,
}

/// What has befallen the calls so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All calls.
    pub calls: usize,
    /// Texts of all calls.
    pub texts: usize,
    /// Answered as they should be, but for single vectors.
    pub served: usize,
    /// 400 for the sake of a text.
    pub refused: usize,
    /// 401 for a wrong key, 404 for another model's name.
    pub not_ours: usize,
    /// 429.
    pub rate_limited: usize,
    /// A status that it was told to answer with.
    pub failed: usize,
    /// Without an answer.
    pub hung: usize,
    /// Hung up on, answered or half answered.
    pub hung_up: usize,
    /// Answered late.
    pub slow: usize,
    /// Answered with what is no answer.
    pub nonsense: usize,
}

/// What a mutex keeps.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) counts: Counts,
    pub(super) misbehaviour: Option<(Misbehaviour, For)>,
    /// What it refuses otherwise is answered.
    pub(super) lenient: bool,
}

/// How long a misbehaviour lasts.
#[derive(Debug, Clone, Copy)]
pub(super) enum For {
    Good,
    Calls(usize),
    Until(Instant),
}

impl State {
    /// What the next call gets. It uses one up of so many calls.
    pub(super) fn next(&mut self, now: Instant) -> Option<Misbehaviour> {
        let (misbehaviour, lasting) = self.misbehaviour.take()?;
        let left = match lasting {
            For::Good => For::Good,
            For::Calls(0) => return None,
            For::Calls(calls) => For::Calls(calls - 1),
            For::Until(end) if end <= now => return None,
            For::Until(end) => For::Until(end),
        };
        self.misbehaviour = Some((misbehaviour, left));
        Some(misbehaviour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misbehaviour_lasts_as_long_as_it_was_told() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        for (lasting, expected) in [
            (For::Good, [true; 4]),
            (For::Calls(2), [true, true, false, false]),
            (For::Calls(0), [false; 4]),
            (For::Until(now + 2 * second), [true, true, false, false]),
        ] {
            let mut state = State {
                misbehaviour: Some((Misbehaviour::Hang, lasting)),
                ..State::default()
            };
            let seen = [0, 1, 2, 3].map(|at| state.next(now + at * second).is_some());
            assert_eq!(seen, expected, "{lasting:?}");
        }
    }
}
