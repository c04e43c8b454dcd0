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
/// Suspicious is what takes so many times as long as the longest of the last ones.
const TIMES: u32 = 4;
const REMEMBERED: usize = 64;

/// What batches have taken lately.
#[derive(Debug, Default)]
pub(super) struct Patience {
    recent: VecDeque<Duration>,
}

impl Patience {
    /// A batch was answered. One that was suspicious counts in part: a hang teaches little, a machine that has become slow is
    /// known after a few.
    pub(super) fn took(&mut self, time: Duration) {
        let limit = self.limit();
        self.recent.push_back(if time < limit { time } else { limit / 2 });
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// After this time without an answer a batch is suspicious.
    pub(super) fn limit(&self) -> Duration {
        let least = if self.recent.len() < FEW { LEAST_OF_FEW } else { LEAST };
        let longest = self.recent.iter().max().copied().unwrap_or_default();
        least.max(TIMES * longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(times: &[u64]) -> Duration {
        let mut patience = Patience::default();
        times.iter().for_each(|ms| patience.took(Duration::from_millis(*ms)));
        patience.limit()
    }

    #[test]
    fn it_follows_what_batches_take() {
        let seconds = Duration::from_secs;
        assert_eq!(after(&[]), seconds(10));
        assert_eq!(after(&[100; 7]), seconds(10));
        assert_eq!(after(&[100; 8]), seconds(2));
        assert_eq!(after(&[1000; 8]), seconds(4));
    }

    #[test]
    fn a_hang_teaches_little_and_a_slow_machine_is_known_after_a_few() {
        let mut patience = Patience::default();
        (0..FEW).for_each(|_| patience.took(Duration::from_millis(100)));
        patience.took(Duration::from_secs(60));
        assert_eq!(patience.limit(), Duration::from_secs(4));
        (0..REMEMBERED).for_each(|_| patience.took(Duration::from_millis(100)));
        assert_eq!(patience.limit(), LEAST, "forgotten");
        (0..4).for_each(|_| patience.took(Duration::from_secs(20)));
        assert!(patience.limit() > Duration::from_secs(20));
    }
}
