//! Vectors that wait for a proof of the device that computed them. Plain data: no channel, no clock.

use super::{Entry, Key, Lot};
use crate::model::Vector;

/// So many wait at most; newer ones are not remembered.
const BOUND: usize = 8_192;

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
    use crate::cache::key::Seed;
    use crate::model::tokenizer::tests::trapped;

    fn key(text: &str) -> Key {
        Seed::of(&manifest(), &trapped(16)).key("", text)
    }

    fn held(texts: &[&str]) -> Probation {
        let vector = manifest().gate().pass(vec![1.0, 2.0]).unwrap();
        let mut probation = Probation::default();
        texts.iter().for_each(|text| probation.hold(key(text), &vector, 3));
        probation
    }

    /// A row for each proof.
    #[test]
    fn what_waits_is_remembered_once_it_is_proven() {
        for (proof, remembered, left) in [(Proof::None, 0, 2), (Proof::Passed, 2, 0), (Proof::Lost, 0, 0)] {
            let mut probation = held(&["a", "b"]);
            let lot = probation.judge(proof);
            assert_eq!((lot.len(), probation.pending.len()), (remembered, left), "{proof:?}");
            assert!(
                lot.iter()
                    .zip([key("a"), key("b")])
                    .all(|((found, _), meant)| *found == meant)
            );
            assert!(lot.iter().all(|(_, entry)| entry.tokens == 3));
            assert!(probation.judge(Proof::Passed).len() == left, "once each");
        }
    }

    #[test]
    fn beyond_the_bound_newer_ones_are_not_held() {
        let mut probation = held(&["a"; BOUND]);
        assert!(probation.is_full());
        let vector = manifest().gate().pass(vec![1.0, 2.0]).unwrap();
        probation.hold(key("b"), &vector, 3);
        let lot = probation.judge(Proof::Passed);
        assert!(lot.len() == BOUND && lot.iter().all(|(found, _)| *found == key("a")));
        assert!(probation.is_empty());
    }
}
