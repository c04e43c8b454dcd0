//! The newest entries of a map, bounded in number.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Keeps the entries inserted last. One that is inserted again counts as new.
#[derive(Debug)]
pub struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: VecDeque<(u64, K)>,
    capacity: usize,
    inserted: u64,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// Keeps up to `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            capacity,
            inserted: 0,
        }
    }
    /// The value of a key, unless it was pushed out.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }
    /// Inserts or replaces; pushes out the oldest where there is no room.
    pub fn insert(&mut self, key: K, value: V) {
        self.inserted += 1;
        self.entries.insert(key.clone(), (self.inserted, value));
        self.order.push_back((self.inserted, key));
        // Replaced entries leave their old place in the order behind, hence the bound on both.
        while self.entries.len() > self.capacity || self.order.len() > 2 * self.capacity {
            let Some((number, key)) = self.order.pop_front() else {
                break;
            };
            if self.entries.get(&key).is_some_and(|(newest, _)| *newest == number) {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_first() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        recent.insert("a", 3);
        recent.insert("c", 4);
        assert_eq!(
            (recent.get(&"a"), recent.get(&"b"), recent.get(&"c")),
            (Some(&3), None, Some(&4))
        );
    }

    #[test]
    fn one_key_again_and_again_takes_no_more_room() {
        let mut recent = Recent::new(2);
        for value in 0..1000 {
            recent.insert("a", value);
        }
        assert_eq!(recent.get(&"a"), Some(&999));
        assert!(recent.order.len() <= 4);
    }
}
