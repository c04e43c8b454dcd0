//! Lanes of keys: records of one key run one after another, lanes run side by side.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items waiting behind the one that runs, by key. A key without a lane is free.
#[derive(Debug)]
pub struct Lanes<K, T> {
    waiting: HashMap<K, VecDeque<T>>,
}

impl<K: Hash + Eq, T> Default for Lanes<K, T> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq, T: PartialEq> Lanes<K, T> {
    /// Takes the lane of a free key and gives the item back to be run now, or queues it behind the one that runs.
    pub fn enter(&mut self, key: K, item: T) -> Option<T> {
        match self.waiting.entry(key) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(item)
            }
            std::collections::hash_map::Entry::Occupied(mut taken) => {
                taken.get_mut().push_back(item);
                None
            }
        }
    }

    /// Whether an item waits behind another one of its key.
    pub fn is_waiting(&self, key: &K, item: &T) -> bool {
        self.waiting.get(key).is_some_and(|lane| lane.contains(item))
    }

    /// The one that ran has finished: the next of its key, which runs now; without one the key is free.
    pub fn leave(&mut self, key: &K) -> Option<T> {
        let next = self.waiting.get_mut(key)?.pop_front();
        if next.is_none() {
            self.waiting.remove(key);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_one_after_another_others_at_once() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter("a", 1), Some(1));
        assert_eq!(lanes.enter("a", 2), None);
        assert_eq!(lanes.enter("b", 3), Some(3));
        assert!(lanes.is_waiting(&"a", &2) && !lanes.is_waiting(&"a", &1));
        assert_eq!(lanes.leave(&"a"), Some(2));
        assert_eq!(lanes.leave(&"a"), None);
        assert_eq!(lanes.enter("a", 4), Some(4), "the key is free again");
    }
}
