//! How long a batch may run before it is suspicious: the model says nothing, and nobody knows whether it ever will.
//!
//! Readiness follows at once; the batch itself is given up by whoever runs the model, after `model.batch_timeout_ms`.

use std::collections::VecDeque;
use std::time::Duration;

/// No batch is suspicious before.
const LEAST: Duration = Duration::from_secs(2);
/// As long as only so few have run, the first of a cold device among them.
const FEW: usize = 8;
const LEAST_OF_FEW: Duration = Duration::from_secs(10);
/// Suspicious is what takes so many times as long as the slowest of the last ones would have taken.
const TIMES: u32 = 4;
const REMEMBERED: usize = 64;

/// What a token of a batch, padding too, has taken lately.
#[derive(Debug, Default)]
pub(super) struct Patience {
    recent: VecDeque<Duration>,
}

impl Patience {
    /// A batch was answered. One that was suspicious counts in part: a hang teaches little, a machine that has become slow is
    /// known after a few.
    pub(super) fn took(&mut self, time: Duration, padded_tokens: usize) {
        let limit = self.limit(padded_tokens);
        let time = if time < limit { time } else { limit / 2 };
        self.recent.push_back(time / count(padded_tokens));
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// After this time without an answer a batch is suspicious.
    pub(super) fn limit(&self, padded_tokens: usize) -> Duration {
        let least = if self.recent.len() < FEW { LEAST_OF_FEW } else { LEAST };
        let slowest = self.recent.iter().max().copied().unwrap_or_default();
        least.max(slowest.saturating_mul(TIMES * count(padded_tokens)))
    }

    /// Something else computes now.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
    }
}

fn count(tokens: usize) -> u32 {
    // A batch has fewer than the limits allow: far below this bound.
    u32::try_from(tokens)
        .unwrap_or(u32::MAX / TIMES)
        .clamp(1, u32::MAX / TIMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(batches: &[(u64, usize)]) -> Patience {
        let mut patience = Patience::default();
        for (ms, tokens) in batches {
            patience.took(Duration::from_millis(*ms), *tokens);
        }
        patience
    }

    #[test]
    fn it_follows_what_batches_take() {
        assert_eq!(after(&[]).limit(1000), 10 * SECOND);
        assert_eq!(after(&[(100, 1000); 7]).limit(1000), 10 * SECOND);
        assert_eq!(after(&[(100, 1000); 8]).limit(1000), 2 * SECOND);
        assert_eq!(after(&[(1000, 1000); 8]).limit(1000), 4 * SECOND);
        assert_eq!(after(&[(1000, 1000); 8]).limit(3000), 12 * SECOND);
    }

    #[test]
    fn many_small_batches_do_not_make_a_large_one_suspicious() {
        assert_eq!(after(&[(20, 10); REMEMBERED]).limit(1000), 8 * SECOND);
    }

    #[test]
    fn a_hang_teaches_little_and_a_slow_machine_is_known_after_a_few() {
        let mut patience = after(&[(100, 1000); FEW]);
        patience.took(60 * SECOND, 1000);
        assert_eq!(patience.limit(1000), 4 * SECOND);
        (0..REMEMBERED).for_each(|_| patience.took(SECOND / 10, 1000));
        assert_eq!(patience.limit(1000), LEAST, "forgotten");
        (0..4).for_each(|_| patience.took(20 * SECOND, 1000));
        assert!(patience.limit(1000) > 20 * SECOND);
        patience.forget();
        assert_eq!(patience.limit(1000), LEAST_OF_FEW);
    }
}
