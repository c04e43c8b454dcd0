//! How large a batch may be that the device still has memory for. Plain data.

/// After so many batches in a row without trouble a larger one is tried: whoever took the memory may have left.
const CALM: u32 = 256;

/// The largest batch that is given to the backend, in tokens with padding.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SafeSize {
    limit: Option<Limit>,
}

#[derive(Debug, PartialEq, Eq)]
struct Limit {
    tokens: usize,
    failed_at: usize,
    calm: u32,
}

impl SafeSize {
    /// Whether a batch of several texts is to be halved unasked.
    pub(super) fn is_above(&self, tokens: usize) -> bool {
        self.limit.as_ref().is_some_and(|limit| tokens > limit.tokens)
    }

    /// There was no memory for a batch of this size. Says the new bound.
    ///
    /// | before | after |
    /// |---|---|
    /// | no bound, or a larger one | half of what failed |
    /// | a smaller one | as it was |
    pub(super) fn too_large(&mut self, failed_at: usize) -> usize {
        let tokens = (failed_at / 2).max(1);
        let known = self.limit.as_ref().map_or(usize::MAX, |limit| limit.tokens);
        self.limit = Some(Limit {
            tokens: tokens.min(known),
            failed_at,
            calm: 0,
        });
        tokens.min(known)
    }

    /// A batch went well. After 256 in a row the bound is doubled, and gone once it is past the size that failed.
    pub(super) fn went_well(&mut self) {
        let Some(limit) = &mut self.limit else { return };
        limit.calm += 1;
        if limit.calm < CALM {
            return;
        }
        (limit.calm, limit.tokens) = (0, limit.tokens.saturating_mul(2));
        if limit.tokens >= limit.failed_at {
            self.limit = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_halved_and_remembered() {
        let mut safe = SafeSize::default();
        assert!(!safe.is_above(usize::MAX));
        assert_eq!(safe.too_large(1_000), 500);
        assert_eq!(safe.too_large(500), 250);
        assert_eq!(safe.too_large(2_000), 250);
        assert!(safe.is_above(251) && !safe.is_above(250));
    }

    #[test]
    fn after_a_calm_time_larger_ones_are_tried_again() {
        let mut safe = SafeSize::default();
        safe.too_large(1_000);
        safe.too_large(500);
        let calm = |safe: &mut SafeSize| (0..CALM).for_each(|_| safe.went_well());
        calm(&mut safe);
        assert_eq!(safe, SafeSize::default());
        safe.too_large(1_000);
        safe.went_well();
        assert!(safe.is_above(501));
    }
}
