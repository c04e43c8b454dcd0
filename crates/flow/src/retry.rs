//! How long to wait before a record is tried again.

use std::time::Duration;

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
}
