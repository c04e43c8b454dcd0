//! How many records ended well of late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back it looks, at most.
pub const WINDOW: Duration = Duration::from_secs(300);
/// What ended together is forgotten together.
const STEP: Duration = Duration::from_secs(10);

/// Counts of the last five minutes, in steps of ten seconds.
#[derive(Debug, Default)]
pub struct Rate {
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Step {
    since: Instant,
    processed: u64,
    failed: u64,
}

impl Rate {
    /// Records ended now: processed, or given up.
    pub fn ended(&mut self, now: Instant, processed: u64, failed: u64) {
        match self.steps.back_mut().filter(|step| now < step.since + STEP) {
            Some(step) => {
                step.processed += processed;
                step.failed += failed;
            }
            None => self.steps.push_back(Step {
                since: now,
                processed,
                failed,
            }),
        }
        while self.steps.front().is_some_and(|step| now >= step.since + WINDOW) {
            self.steps.pop_front();
        }
    }

    /// Processed and given up within the window.
    pub fn counts(&self, now: Instant) -> (u64, u64) {
        let recent = self.steps.iter().filter(|step| now < step.since + WINDOW);
        recent.fold((0, 0), |(processed, failed), step| {
            (processed + step.processed, failed + step.failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let (start, mut rate) = (Instant::now(), Rate::default());
        assert_eq!(rate.counts(start), (0, 0));
        rate.ended(start, 5, 1);
        rate.ended(start + STEP / 2, 5, 0);
        rate.ended(start + 2 * STEP, 1, 0);
        assert_eq!(rate.counts(start + 2 * STEP), (11, 1));
        assert_eq!(rate.counts(start + WINDOW), (1, 0));
        assert_eq!(rate.counts(start + 3 * WINDOW), (0, 0));
        for second in 0..10_000 {
            rate.ended(start + 3 * WINDOW + Duration::from_secs(second), 1, 0);
        }
        assert!(rate.steps.len() <= 31, "{}", rate.steps.len());
    }
}
