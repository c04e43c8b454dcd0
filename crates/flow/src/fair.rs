//! Whose turn it is: who share a stage take turns by weight, however much each of them has waiting.
//!
//! Start-time fair queueing on two levels: topics take turns by their weights, and so do the tenants of one topic. A turn is
//! paid for by the bytes of its record. Whoever comes anew has neither debt nor credit.
//!
//! - Records of one tenant run in the order in which they came.
//! - A tenant with little to do waits for one record of each other tenant at most, not for all that they have.
//! - **Nobody starves.** Every eighth turn is that of whoever has waited longest, whatever its weight: a record before which
//!   n others came runs within 8 (n + 1) turns.
//!
//! Rejected: strict priorities (the lowest may never run); a quota of running records for each (idle ones are lost); turns
//! by number of records (one tenant's may be a hundred times as large).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::stage::Delivery;

/// Every so many turns, whoever has waited longest.
const TURN_OF_THE_OLDEST: u64 = 8;
/// Virtual time that a byte costs at weight 1.
const BYTE: u128 = 1 << 32;
/// Turns of a topic among which [`FairQueue::pop_of`] looks.
const LOOKED_AT: usize = 16;
/// Idle tenants that are remembered beyond those that wait.
const IDLE_TENANTS: usize = 256;

/// Who shares a stage, and with which weights.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// A record's tenant; none where there are no tenants.
    pub tenant_of: Option<fn(&Delivery) -> Bytes>,
    /// Weight of a topic, from 1; one that is not named has 1.
    pub topics: HashMap<String, u32>,
    /// Weight of a tenant among those of its topic, from 1; one that is not named has 1.
    pub tenants: HashMap<Bytes, u32>,
}

impl Default for Sharing {
    /// All are one tenant's, and no topic weighs more than another.
    fn default() -> Self {
        Self {
            tenant_of: None,
            topics: HashMap::new(),
            tenants: HashMap::new(),
        }
    }
}

impl Sharing {
    /// Whose a record is.
    pub fn tenant(&self, record: &Delivery) -> Bytes {
        self.tenant_of.map_or_else(Bytes::new, |tenant_of| tenant_of(record))
    }

    /// Whose a record of a topic is, and what its turn costs.
    pub fn of(&self, topic: Arc<str>, record: &Delivery) -> Share {
        let tenant = self.tenant(record);
        Share {
            weight: self.topics.get(&*topic).copied().unwrap_or(1),
            topic,
            tenant_weight: self.tenants.get(&tenant).copied().unwrap_or(1),
            tenant,
            bytes: record.size_bytes(),
        }
    }
}

/// Whose a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The topic that it stands in.
    pub topic: Arc<str>,
    /// Weight of that topic, from 1.
    pub weight: u32,
    /// Its tenant.
    pub tenant: Bytes,
    /// Weight of that tenant, from 1.
    pub tenant_weight: u32,
    /// What its turn costs.
    pub bytes: usize,
}

/// What waits for its turn.
#[derive(Debug)]
pub struct FairQueue<T> {
    topics: BTreeMap<Arc<str>, Topic>,
    waiting: BTreeMap<u64, Waiting<T>>,
    /// Virtual time of the topics: where the last turn began.
    now: u128,
    came: u64,
    turns: u64,
}

#[derive(Debug, Default)]
struct Topic {
    /// Virtual time at which its next turn begins.
    begins: u128,
    /// By the virtual time at which its turn begins, then by when it came.
    waiting: BTreeSet<(u128, u64)>,
    /// Virtual time of its tenants.
    now: u128,
    tenants: HashMap<Bytes, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Virtual time at which its last turn ends.
    ends: u128,
    waiting: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    share: Share,
    begins: u128,
}

impl Share {
    /// What its turn costs whoever has this weight.
    fn cost(&self, weight: u32) -> u128 {
        BYTE * self.bytes.max(1) as u128 / u128::from(weight.max(1))
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
            waiting: BTreeMap::new(),
            now: 0,
            came: 0,
            turns: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits behind what its tenant has waiting already.
    pub fn push(&mut self, share: Share, item: T) {
        let topic = self.topics.entry(share.topic.clone()).or_default();
        if topic.waiting.is_empty() {
            topic.begins = topic.begins.max(self.now);
        }
        let begins = topic.join(share.tenant.clone(), share.cost(share.tenant_weight));
        self.came += 1;
        topic.waiting.insert((begins, self.came));
        self.waiting.insert(self.came, Waiting { item, share, begins });
    }

    /// Drops what is not wanted. If that is any, turns begin anew: nobody pays for what was not done.
    pub fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        if self.waiting.values().all(|waiting| wanted(&waiting.item)) {
            return;
        }
        self.topics.clear();
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            if wanted(&waiting.item) {
                self.push(waiting.share, waiting.item);
            }
        }
    }

    /// Whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        self.turns += 1;
        if self.turns.is_multiple_of(TURN_OF_THE_OLDEST) {
            return self.take(|_| true);
        }
        let topics = self.topics.values_mut().filter(|topic| !topic.waiting.is_empty());
        let topic = topics.min_by_key(|topic| topic.begins)?;
        let (begins, came) = *topic.waiting.first()?;
        self.now = self.now.max(topic.begins);
        topic.now = begins;
        self.remove(came)
    }

    /// As [`Self::pop`], of wanted tenants only. It looks at those whose turns are next, a few of each topic: a tenant that
    /// has just come is among them, but not one that still pays for a large record. It is paid for, and moves no clock.
    pub fn pop_of(&mut self, wanted: impl Fn(&Bytes) -> bool) -> Option<T> {
        let is_wanted = |(_, came): &&(u128, u64)| {
            let waiting = self.waiting.get(came);
            waiting.is_some_and(|waiting| wanted(&waiting.share.tenant))
        };
        let nexts = self.topics.iter().filter_map(|(name, topic)| {
            let next = topic.waiting.iter().take(LOOKED_AT).find(is_wanted)?;
            Some((topic.begins, name, *next))
        });
        let (_, _, (_, came)) = nexts.min()?;
        self.remove(came)
    }

    /// The first that came of those wanted, whoever's turn it is: it is paid for, and moves no clock.
    pub fn take(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let found = self.waiting.iter().find(|(_, waiting)| wanted(&waiting.item));
        let came = *found?.0;
        self.remove(came)
    }

    fn remove(&mut self, came: u64) -> Option<T> {
        let waiting = self.waiting.remove(&came)?;
        let share = &waiting.share;
        let topic = self.topics.get_mut(&share.topic)?;
        topic.waiting.remove(&(waiting.begins, came));
        topic.begins += share.cost(share.weight);
        topic.leave(&share.tenant);
        Some(waiting.item)
    }
}

impl Topic {
    /// When a tenant's next turn begins.
    fn join(&mut self, tenant: Bytes, cost: u128) -> u128 {
        let tenant = self.tenants.entry(tenant).or_default();
        let begins = self.now.max(tenant.ends);
        tenant.ends = begins + cost;
        tenant.waiting += 1;
        begins
    }

    /// Some of those that have nothing waiting are remembered, for what their last turn cost.
    fn leave(&mut self, tenant: &Bytes) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.waiting -= 1;
        }
        if self.tenants.len() > 2 * self.waiting.len() + IDLE_TENANTS {
            self.tenants.retain(|_, tenant| tenant.waiting > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push<T>(queue: &mut FairQueue<T>, (topic, weight): (&str, u32), tenant: &str, bytes: usize, item: T) {
        let share = Share {
            topic: topic.into(),
            weight,
            tenant_weight: if tenant.starts_with("double") { 2 } else { 1 },
            tenant: Bytes::copy_from_slice(tenant.as_bytes()),
            bytes,
        };
        queue.push(share, item);
    }

    fn drain<T>(queue: &mut FairQueue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn of_wanted_tenants_who_has_just_come_is_found_before_a_backlog() {
        let mut queue = FairQueue::default();
        for at in 0..1000 {
            push(&mut queue, ("t", 1), "large", 100, ("large", at));
        }
        (0..10).for_each(|_| assert!(queue.pop().is_some()));
        let small = |tenant: &Bytes| tenant == "small";
        assert_eq!(queue.pop_of(small), None);
        push(&mut queue, ("t", 1), "small", 100, ("small", 0));
        push(&mut queue, ("t", 1), "small", 100, ("small", 1));
        assert_eq!(queue.pop_of(small), Some(("small", 0)));
        assert_eq!(queue.pop_of(small), Some(("small", 1)));
        assert_eq!(queue.pop_of(small), None);
        assert_eq!(drain(&mut queue).len(), 990);
    }

    #[test]
    fn a_small_tenant_waits_for_one_record_of_a_large_one() {
        let mut queue = FairQueue::default();
        for at in 0..1000 {
            push(&mut queue, ("t", 1), "large", 100, ("large", at));
        }
        assert_eq!(queue.pop(), Some(("large", 0)));
        for at in 0..3 {
            push(&mut queue, ("t", 1), "small", 100, ("small", at));
        }
        let order = drain(&mut queue);
        let places: Vec<usize> = (0..order.len()).filter(|at| order[*at].0 == "small").collect();
        assert!(places[2] <= 6, "{places:?}");
        let large: Vec<i32> = order
            .iter()
            .filter(|(who, _)| *who == "large")
            .map(|(_, at)| *at)
            .collect();
        assert!(large.is_sorted());
    }

    #[test]
    fn turns_are_paid_for_by_bytes() {
        let mut queue = FairQueue::default();
        for _ in 0..400 {
            push(&mut queue, ("t", 1), "heavy", 900, "heavy");
            push(&mut queue, ("t", 1), "light", 100, "light");
        }
        let first: Vec<&str> = (0..100).filter_map(|_| queue.pop()).collect();
        let heavy = first.iter().filter(|who| **who == "heavy").count();
        // A tenth each, and half of every eighth turn.
        assert!((8..=20).contains(&heavy), "{heavy} of 100");
    }

    #[test]
    fn a_tenant_of_twice_the_weight_has_twice_the_turns() {
        let mut queue = FairQueue::default();
        for _ in 0..400 {
            push(&mut queue, ("t", 1), "single", 100, "single");
            push(&mut queue, ("t", 1), "double", 100, "double");
        }
        let first: Vec<&str> = (0..90).filter_map(|_| queue.pop()).collect();
        let double = first.iter().filter(|who| **who == "double").count();
        assert!((52..=66).contains(&double), "{double} of 90");
    }

    #[test]
    fn topics_take_turns_by_weight_however_many_tenants_they_have() {
        let mut queue = FairQueue::default();
        for at in 0..400 {
            push(&mut queue, ("fast", 3), "one", 100, "fast");
            push(&mut queue, ("slow", 1), &format!("tenant {}", at % 10), 100, "slow");
        }
        let first: Vec<&str> = (0..160).filter_map(|_| queue.pop()).collect();
        let fast = first.iter().filter(|who| **who == "fast").count();
        assert!((105..=125).contains(&fast), "{fast} of 160");
    }

    #[test]
    fn idleness_earns_no_credit() {
        let mut queue = FairQueue::default();
        for _ in 0..100 {
            push(&mut queue, ("busy", 1), "a", 100, "busy");
            queue.pop();
        }
        for _ in 0..50 {
            push(&mut queue, ("idle", 1), "b", 100, "idle");
            push(&mut queue, ("busy", 1), "a", 100, "busy");
        }
        let first: Vec<&str> = (0..20).filter_map(|_| queue.pop()).collect();
        let idle = first.iter().filter(|who| **who == "idle").count();
        assert!((8..=12).contains(&idle), "{idle} of 20");
    }

    #[test]
    fn what_is_wanted_is_taken_out_of_turn() {
        let mut queue = FairQueue::default();
        for at in 0..10 {
            push(&mut queue, ("t", 1), "a", 1, at);
        }
        assert_eq!(queue.take(|at| *at > 6), Some(7));
        assert_eq!(queue.take(|at| *at > 20), None);
        assert_eq!(drain(&mut queue), [0, 1, 2, 3, 4, 5, 6, 8, 9]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_dropped_is_not_paid_for() {
        let mut queue = FairQueue::default();
        for at in 0..100 {
            push(&mut queue, ("t", 1), "a", 100, ("a", at));
        }
        queue.retain(|(_, at)| *at >= 90);
        for at in 0..10 {
            push(&mut queue, ("t", 1), "b", 100, ("b", at));
        }
        let order = drain(&mut queue);
        let a: Vec<i32> = order.iter().filter(|(who, _)| *who == "a").map(|(_, at)| *at).collect();
        assert_eq!(a, (90..100).collect::<Vec<_>>());
        let first = order[..10].iter().filter(|(who, _)| *who == "a").count();
        assert!((4..=7).contains(&first), "{order:?}");
    }

    #[test]
    fn tenants_that_are_gone_are_forgotten() {
        let mut queue = FairQueue::default();
        for at in 0..10_000 {
            push(&mut queue, ("t", 1), &format!("tenant {at}"), 10, at);
            queue.pop();
        }
        assert!(queue.topics["t"].tenants.len() <= 2 * IDLE_TENANTS);
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_in_order_per_tenant_and_within_its_bound(
            records in proptest::collection::vec((0_u8..3, 0_u8..4, 1_u32..2000), 1..300),
            weights in proptest::collection::vec(1_u32..100, 3),
        ) {
            let mut queue = FairQueue::default();
            let topics = ["a", "b", "c"];
            for (at, (topic, tenant, bytes)) in records.iter().enumerate() {
                let topic = usize::from(*topic);
                let weighted = (topics[topic], weights[topic]);
                push(&mut queue, weighted, &tenant.to_string(), *bytes as usize, at);
            }
            let order = drain(&mut queue);
            for (turn, at) in order.iter().enumerate() {
                prop_assert!(turn < 8 * (at + 1), "{at} came {turn}th");
            }
            for topic in 0..3 {
                for tenant in 0..4 {
                    let of = |at: &&usize| (records[**at].0, records[**at].1) == (topic, tenant);
                    prop_assert!(order.iter().filter(of).is_sorted());
                }
            }
            let mut all = order;
            all.sort_unstable();
            prop_assert_eq!(all, (0..records.len()).collect::<Vec<_>>());
        }
    }
}
