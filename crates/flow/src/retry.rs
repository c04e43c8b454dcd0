//! How long to wait before a record is tried again, and when its patience ends.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Exponential backoff with full jitter: a random time up to 100 ms, doubled with every try, at most 30 s.
/// `jitter` is a random number from 0 to 1 that the caller draws.
pub fn backoff(tries: u32, jitter: f64) -> Duration {
    let ceiling = FIRST
        .saturating_mul(1u32.checked_shl(tries.min(16)).unwrap_or(u32::MAX))
        .min(LONGEST);
    ceiling.mul_f64(jitter.clamp(0.0, 1.0))
}

/// What a record has been through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tries {
    /// Runs that ended without success, attempts or not: the backoff grows with them.
    runs: u32,
    /// Attempts burned.
    pub attempts: u32,
    /// When it last said that a dependency is away.
    away: Option<Instant>,
    /// How long it has said so while the stage succeeded for others.
    blamed: Duration,
}

impl Tries {
    /// What it waits for is none of its making: the time until it says again that a dependency is away does not count.
    pub fn is_innocent(&mut self) {
        self.away = None;
    }

    /// Counts a run that did not succeed; how many there were before.
    pub fn again(&mut self) -> u32 {
        self.runs += 1;
        self.runs - 1
    }

    /// The record says that a dependency is away; `success` is when the stage last succeeded for another one. True once
    /// it has said so for `patience` although others succeeded all the while: then it is the record, not the dependency.
    ///
    /// | since it last said so | then |
    /// |---|---|
    /// | the stage succeeded for another | the time in between counts against the record |
    /// | nothing succeeded | an outage: counting begins anew |
    pub fn is_to_blame(&mut self, now: Instant, success: Option<Instant>, patience: Duration) -> bool {
        if let Some(last) = self.away.replace(now) {
            match success {
                Some(success) if success > last => self.blamed += now - last,
                _ => self.blamed = Duration::ZERO,
            }
        }
        self.blamed >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_a_bound() {
        assert_eq!(backoff(0, 1.0), Duration::from_millis(100));
        assert_eq!(backoff(3, 1.0), Duration::from_millis(800));
        assert_eq!(backoff(3, 0.5), Duration::from_millis(400));
        assert_eq!(backoff(40, 1.0), Duration::from_secs(30));
        assert_eq!(backoff(40, f64::NAN.max(0.0)), Duration::ZERO);
    }

    #[test]
    fn only_a_record_that_fails_beside_others_is_to_blame() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let at = |minutes: u32| start + minute * minutes;
        let mut tries = Tries::default();
        // An outage of an hour.
        for m in 0..60 {
            assert!(!tries.is_to_blame(at(m), None, 5 * minute));
        }
        // Others succeed from its end on.
        for m in 60..64 {
            assert!(!tries.is_to_blame(at(m), Some(at(m) - minute / 2), 5 * minute), "{m}");
        }
        assert!(tries.is_to_blame(at(64), Some(at(64) - minute / 2), 5 * minute));
        // A new outage: innocent again.
        assert!(!tries.is_to_blame(at(65), Some(at(64) - minute / 2), 5 * minute));
    }
}
