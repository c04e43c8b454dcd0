//! Places of a stage: how many records run, and whose they are.
//!
//! One place in eight is kept for tenants of which nothing runs. Without it a tenant that fills all places holds up whoever
//! comes next until one of its records has ended, which may be a whole batch of a model. A tenant that is alone in the stage
//! has seven of eight; a stage of fewer than eight places keeps none.

use std::collections::HashMap;

use bytes::Bytes;

use super::WorkId;

/// One in so many places is kept.
const KEPT: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Places {
    running: HashMap<WorkId, Bytes>,
    tenants: HashMap<Bytes, usize>,
}

/// Who may take a place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// Everybody.
    ToAll,
    /// Tenants of which nothing runs.
    ToNewcomers,
    /// Nobody.
    ToNobody,
}

impl Places {
    /// Of so many places, some of which are kept where there are tenants.
    pub(super) fn open(&self, all: usize, tenants: bool) -> Open {
        let kept = if tenants { all / KEPT } else { 0 };
        match self.running.len() {
            taken if taken >= all => Open::ToNobody,
            taken if taken >= all - kept => Open::ToNewcomers,
            _ => Open::ToAll,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether nothing of a tenant runs.
    pub(super) fn is_new(&self, tenant: &Bytes) -> bool {
        !self.tenants.contains_key(tenant)
    }

    pub(super) fn take(&mut self, id: WorkId, tenant: Bytes) {
        *self.tenants.entry(tenant.clone()).or_default() += 1;
        self.running.insert(id, tenant);
    }

    pub(super) fn leave(&mut self, id: WorkId) {
        let Some(tenant) = self.running.remove(&id) else { return };
        if let Some(running) = self.tenants.get_mut(&tenant) {
            *running -= 1;
            if *running == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(offset: i64) -> WorkId {
        WorkId { slot: 1, offset }
    }

    #[test]
    fn the_last_eighth_is_for_tenants_of_which_nothing_runs() {
        let (mut places, large, small) = (Places::default(), Bytes::from("large"), Bytes::from("small"));
        for offset in 0..14 {
            assert_eq!(places.open(16, true), Open::ToAll);
            places.take(id(offset), large.clone());
        }
        assert_eq!(places.open(16, true), Open::ToNewcomers);
        assert_eq!(places.open(16, false), Open::ToAll);
        assert!(!places.is_new(&large) && places.is_new(&small));
        places.take(id(14), small.clone());
        assert!(!places.is_new(&small));
        places.take(id(15), Bytes::from("third"));
        assert_eq!(places.open(16, true), Open::ToNobody);
        places.leave(id(14));
        assert!(places.is_new(&small) && places.open(16, true) == Open::ToNewcomers);
        (0..16).for_each(|offset| places.leave(id(offset)));
        assert!(places.is_empty() && places.is_new(&large));
    }

    #[test]
    fn a_few_places_are_for_all() {
        let mut places = Places::default();
        for offset in 0..4 {
            assert_eq!(places.open(4, true), Open::ToAll);
            places.take(id(offset), Bytes::new());
        }
        assert_eq!(places.open(4, true), Open::ToNobody);
    }
}
