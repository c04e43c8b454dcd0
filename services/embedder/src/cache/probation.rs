//! Vectors that wait for a proof of the device that computed them. Plain data: no channel, no clock.

use super::{Entry, Key, Lot};
use crate::model::Vector;

/// So many wait at most; newer ones are not remembered.
pub const BOUND: usize = 8_192;

/// What a job of the model shows about what was computed until then, its own vectors among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Nothing yet.
    None,
    /// The instance that computed it all has passed its canary since, or is one that is taken at its word.
    Passed,
    /// The canary failed, the model does not work, or another instance computes: nobody can vouch for it.
    Lost,
}

/// What a device computed and no canary has confirmed yet: it may be nonsense that is finite.
#[derive(Debug, Default)]
pub struct Probation {
    pending: Lot,
}

impl Probation {
    /// A vector waits, if there is room.
    pub fn hold(&mut self, key: Key, vector: &Vector, tokens: usize) {
        if !self.is_full() {
            let entry = Entry {
                vector: vector.clone(),
                tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            };
            self.pending.push((key, entry));
        }
    }

    /// Whether no more are held: time for a canary.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= BOUND
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What may be remembered now.
    ///
    /// | the job shows | what waited |
    /// |---|---|
    /// | nothing | waits on |
    /// | passed | may be remembered |
    /// | lost | is forgotten |
    #[must_use]
    pub fn judge(&mut self, proof: Proof) -> Lot {
        match proof {
            Proof::None => Vec::new(),
            Proof::Passed => std::mem::take(&mut self.pending),
            Proof::Lost => {
                self.pending.clear();
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::fake::manifest;
    use crate::cache::key_of as key;

    fn vector() -> Vector {
        manifest().gate().pass(vec![1.0, 2.0]).unwrap()
    }

    fn held(keys: &[Key]) -> Probation {
        let mut probation = Probation::default();
        keys.iter().for_each(|key| probation.hold(*key, &vector(), 3));
        probation
    }

    /// A row for each proof.
    #[test]
    fn what_waits_is_remembered_once_it_is_proven() {
        let keys = [key("a"), key("b")];
        for (proof, remembered, left) in [
            (Proof::None, &[][..], &keys[..]),
            (Proof::Passed, &keys, &[]),
            (Proof::Lost, &[], &[]),
        ] {
            let mut probation = held(&keys);
            for (proof, expected) in [(proof, remembered), (Proof::Passed, left)] {
                let lot = probation.judge(proof);
                let found: Vec<Key> = lot.iter().map(|(key, _)| *key).collect();
                assert_eq!(found, expected, "{proof:?}");
                assert!(
                    lot.iter()
                        .all(|(_, entry)| entry.tokens == 3 && entry.vector == vector())
                );
            }
            assert!(probation.is_empty());
        }
    }

    #[test]
    fn beyond_the_bound_newer_ones_are_not_held() {
        let (old, new) = (key("a"), key("b"));
        let mut probation = held(&[old; BOUND]);
        assert!(probation.is_full());
        probation.hold(new, &vector(), 3);
        let lot = probation.judge(Proof::Passed);
        assert!(lot.len() == BOUND && lot.iter().all(|(key, _)| *key == old));
        assert!(probation.is_empty());
    }
}
