//! Places of a stage: how many records run, and whose they are.
//!
//! One place in eight is kept for tenants of which nothing runs. Without it a tenant that fills all places holds up whoever
//! comes next until one of its records has ended, which may be a whole batch of a model. The others are given by turns, as
//! if there were no kept ones: a record has the kind of place that it was given until it leaves. A tenant that is alone in
//! the stage has seven of eight; a stage of fewer than eight places keeps none.

use std::collections::HashMap;

use bytes::Bytes;

use super::WorkId;

/// One in so many places is kept.
const KEPT: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Places {
    running: HashMap<WorkId, Taken>,
    /// How many of them are kept ones.
    kept: usize,
    tenants: HashMap<Bytes, usize>,
}

#[derive(Debug)]
struct Taken {
    tenant: Bytes,
    place: Place,
}

/// A place that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// For whoever's turn it is.
    Common,
    /// For a tenant of which nothing runs.
    Kept,
}

impl Places {
    /// A free one of so many, some of which are kept where there are tenants.
    pub(super) fn free(&self, all: usize, tenants: bool) -> Option<Place> {
        let kept = if tenants { all / KEPT } else { 0 };
        if self.running.len() - self.kept < all - kept {
            Some(Place::Common)
        } else if self.kept < kept {
            Some(Place::Kept)
        } else {
            None
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether nothing of a tenant runs.
    pub(super) fn is_new(&self, tenant: &Bytes) -> bool {
        !self.tenants.contains_key(tenant)
    }

    pub(super) fn take(&mut self, place: Place, id: WorkId, tenant: Bytes) {
        *self.tenants.entry(tenant.clone()).or_default() += 1;
        self.kept += usize::from(place == Place::Kept);
        self.running.insert(id, Taken { tenant, place });
    }

    pub(super) fn leave(&mut self, id: WorkId) {
        let Some(Taken { tenant, place }) = self.running.remove(&id) else {
            return;
        };
        self.kept -= usize::from(place == Place::Kept);
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
    fn one_in_eight_is_for_tenants_of_which_nothing_runs() {
        let (mut places, large, small) = (Places::default(), Bytes::from("large"), Bytes::from("small"));
        for offset in 0..14 {
            assert_eq!(places.free(16, true), Some(Place::Common));
            places.take(Place::Common, id(offset), large.clone());
        }
        assert_eq!(places.free(16, true), Some(Place::Kept));
        assert_eq!(places.free(16, false), Some(Place::Common), "without tenants");
        assert!(!places.is_new(&large) && places.is_new(&small));
        places.take(Place::Kept, id(14), small.clone());
        places.take(Place::Kept, id(15), Bytes::from("third"));
        assert!(!places.is_new(&small) && places.free(16, true).is_none());
        places.leave(id(0));
        assert_eq!(places.free(16, true), Some(Place::Common), "its turn, whoever's it is");
        places.take(Place::Common, id(0), large.clone());
        places.leave(id(14));
        assert!(places.is_new(&small) && places.free(16, true) == Some(Place::Kept));
        (0..16).for_each(|offset| places.leave(id(offset)));
        assert!(places.is_empty() && places.is_new(&large));
    }

    #[test]
    fn few_places_are_for_all() {
        let mut places = Places::default();
        for offset in 0..4 {
            assert_eq!(places.free(4, true), Some(Place::Common));
            places.take(Place::Common, id(offset), Bytes::new());
        }
        assert_eq!(places.free(4, true), None);
    }
}
