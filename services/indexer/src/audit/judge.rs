//! What is wrong with a document, and what heals it: the log and the index held against each other.
//!
//! The log is read, then the index (a document's head first, its points after it), then the log again. What the log told
//! *before* must be in the index: a head moves before its status is committed, and replaced points outlive every look. What
//! is in the index must be known to the log *after* it: a revision has the status PARSED before any part of it can be read.
//! So nothing on its way is ever a finding. `live` is the greatest revision that is INDEXED or DELETED, `newest` the
//! greatest with any status: between the two revisions are on their way, wait for a redrive, or failed.
//!
//! | # | the log | the head | points | finding | healed by |
//! |---|---|---|---|---|---|
//! | 1 | knows nothing of the document | any or none | any | EXTRA | both deleted |
//! | 2 | `newest` | > `newest` | any | EXTRA | the head and all points > `newest` deleted; then looked at again |
//! | 3 | `live`, not deleted | none | any | MISSING | sent again |
//! | 4 | `live`, n chunks | = `live` | none shown of n > 0 | MISSING | sent again |
//! | 5 | `live` | < `live` | any | STALE | sent again |
//! | 6 | `live`, deleted | < `live` | any | STALE | raised: the log tells all that there is to it |
//! | 7 | `live` | = `live`, but deleted in one and not in the other | any | STALE | the head deleted, then as 3 or 6 |
//! | 8 | `live`, n chunks | = `live` | not 0 to n - 1, shown | WRONG_COUNT | those from n on deleted; else sent again |
//! | | as 3, 4, 5, 7, 8 with n > 0 | | 0 to n - 1, some or all hidden | as there | raised: no part is needed, retention or not |
//! | | as 3, 5, 7 with n = 0 | | any | as there | raised: there is no part to need |
//! | 9 | `live` | `live` < head ≤ `newest` | any of the head's | none: on its way, or newer than what was read before | |
//! | 10 | any | any | > `newest` | ORPHANED | deleted |
//! | 11 | any | head, its clean-up done | < head | ORPHANED | deleted |
//! | 12 | any | head, its clean-up to come | < head | none: the sweeper takes them | |
//! | 13 | any | head, deleted | = head | ORPHANED | deleted |
//! | 14 | `live`, deleted | none | ≤ `live` | ORPHANED | deleted |
//! | 15 | any | any or none | head or `live` < points ≤ `newest` | none: on its way | |
//! | 16 | as 3, 5, 6, 7 | | older | none beside it: once healed its head asks for a clean-up | |
//! | 17 | `live`, deleted so long ago that its head may be forgotten | none | none | none | |
//! | 18 | `live`, deleted since then | none | any | MISSING: a letter sent again would bring the document back | raised |
//! | 19 | a status that nobody can read, none live above it | any | any | none: not judged, only counted | |
//!
//! To raise is to show the points of the live revision and to move the head there. Each remedy names what it takes by
//! document and revision, and heads by the revision that they stand at: what a client submits meanwhile has a greater one,
//! and stays.

use millrace_events::Revision;

/// What the log says of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The greatest revision that is INDEXED or DELETED.
    pub live: Option<Live>,
    /// The greatest revision with any status.
    pub newest: Option<Revision>,
    /// The greatest revision with a status that nobody can read: it may be the live one.
    pub unreadable: Option<Revision>,
}

/// The live revision, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// The revision.
    pub revision: Revision,
    /// It is a deletion.
    pub deleted: bool,
    /// Its chunks.
    pub chunk_count: u32,
    /// When it became live.
    pub at_ms: i64,
}

/// What the index holds of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its head.
    pub head: Option<HeadSeen>,
    /// Points by revision, in no order; none of them empty.
    pub points: Vec<Tally>,
}

/// A head, as far as it counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadSeen {
    /// Where it stands.
    pub live: Revision,
    /// The document is deleted.
    pub deleted: bool,
    /// A clean-up below it is to come.
    pub sweep: bool,
}

/// Points of one revision. Their ids follow from their ordinals: no ordinal counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The revision.
    pub revision: Revision,
    /// Those that searches find.
    pub shown: u32,
    /// Those that are hidden.
    pub staged: u32,
    /// The greatest ordinal.
    pub last: i32,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The log tells a live revision of which the index shows nothing.
    Missing,
    /// The index stands at an older revision than the log, or at another state of the same one.
    Stale,
    /// Points of the live revision are too few, too many or hidden.
    WrongCount,
    /// The index holds what the log does not know.
    Extra,
    /// Points that no head owns and no clean-up takes.
    Orphaned,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// The live revision in the log.
    pub log: Option<Revision>,
    /// Of the points or the head that are wrong in the index.
    pub index: Option<Revision>,
    /// Chunks that the log says.
    pub expected: u32,
    /// Points that are in the index.
    pub found: u32,
    /// What heals it, in this order.
    pub remedy: Vec<Step>,
}

/// A step of a remedy. Taken twice, it does nothing the second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Delete the head, if it still stands there.
    DropHead(Revision),
    /// Delete points of a revision, from an ordinal on.
    Delete(Revision, i32),
    /// Show the points of the live revision, and move the head there: all of it is in the index, or it is a deletion.
    Raise(Live),
    /// Send the revision's parts to the index stage again.
    SendAgain(Live),
}

impl Known {
    /// Takes a status in: what was known is never taken back.
    pub fn learn(&mut self, revision: Revision, live: Option<Live>) {
        self.newest = self.newest.max(Some(revision));
        if let Some(live) = live
            && self.live.is_none_or(|known| known.revision <= live.revision)
        {
            self.live = Some(live);
        }
    }

    /// Takes in that a revision has a status which nobody can read.
    pub fn learn_unreadable(&mut self, revision: Revision) {
        self.learn(revision, None);
        self.unreadable = self.unreadable.max(Some(revision));
    }

    /// Whatever could not be read would change nothing: row 19.
    pub fn is_judged(&self) -> bool {
        let below_live = |unreadable| self.live.is_some_and(|live| live.revision > unreadable);
        self.unreadable.is_none_or(below_live)
    }
}

impl Seen {
    /// Takes a chunk in.
    pub fn count(&mut self, revision: Revision, ordinal: i32, staged: bool) {
        let at = self.points.iter().position(|tally| tally.revision == revision);
        let at = at.unwrap_or_else(|| {
            self.points.push(Tally {
                revision,
                shown: 0,
                staged: 0,
                last: ordinal,
            });
            self.points.len() - 1
        });
        let tally = &mut self.points[at];
        tally.last = tally.last.max(ordinal);
        match staged {
            true => tally.staged += 1,
            false => tally.shown += 1,
        }
    }

    fn of(&self, revision: Revision) -> Option<&Tally> {
        self.points.iter().find(|tally| tally.revision == revision)
    }
}

impl Tally {
    fn all(&self) -> u32 {
        self.shown.saturating_add(self.staged)
    }

    /// 0 to n - 1 are there, shown or not.
    fn is_whole(&self, chunk_count: u32) -> bool {
        self.all() == chunk_count && !self.reaches_beyond(chunk_count)
    }

    fn reaches_beyond(&self, chunk_count: u32) -> bool {
        i64::from(self.last) >= i64::from(chunk_count)
    }
}

/// What is wrong with a document: nothing, one thing about what is live, and points that nobody owns. A deletion of before
/// `remembered_from_ms` may be forgotten.
pub fn judge(before: &Known, seen: &Seen, after: &Known, remembered_from_ms: i64) -> Vec<Finding> {
    if !(before.is_judged() && after.is_judged()) {
        return Vec::new();
    }
    let Some(newest) = after.newest else {
        return extra(before, seen, None).into_iter().collect();
    };
    if seen.head.is_some_and(|head| head.live > newest) {
        return extra(before, seen, Some(newest)).into_iter().collect();
    }
    let live = before.live.and_then(|live| of_live(&live, seen, remembered_from_ms));
    // Row 16; of a document without a head no older point is a stray as long as the log says live.
    let head_moves = live.as_ref().is_some_and(|finding| finding.kind == Kind::Stale);
    let strays = seen.points.iter().filter(|tally| {
        let stray = is_stray(tally, before, seen.head, newest);
        stray && (tally.revision > newest || !head_moves)
    });
    let orphaned = strays.map(|tally| Finding {
        kind: Kind::Orphaned,
        log: before.live.map(|live| live.revision),
        index: Some(tally.revision),
        expected: 0,
        found: tally.all(),
        remedy: vec![Step::Delete(tally.revision, 0)],
    });
    let orphaned: Vec<_> = orphaned.collect();
    live.into_iter().chain(orphaned).collect()
}

/// Rows 1 and 2: all that is above what the log knows.
fn extra(before: &Known, seen: &Seen, newest: Option<Revision>) -> Option<Finding> {
    let above = |tally: &&Tally| newest.is_none_or(|newest| tally.revision > newest);
    let points: Vec<&Tally> = seen.points.iter().filter(above).collect();
    let drop = seen.head.map(|head| Step::DropHead(head.live));
    let delete = points.iter().map(|tally| Step::Delete(tally.revision, 0));
    let remedy: Vec<Step> = drop.into_iter().chain(delete).collect();
    let index = seen.head.map(|head| head.live);
    (!remedy.is_empty()).then(|| Finding {
        kind: Kind::Extra,
        log: before.live.map(|live| live.revision),
        index: index.or_else(|| points.iter().map(|tally| tally.revision).max()),
        expected: 0,
        found: points.iter().map(|tally| tally.all()).sum(),
        remedy,
    })
}

/// Rows 3 to 9, 17 and 18.
fn of_live(live: &Live, seen: &Seen, remembered_from_ms: i64) -> Option<Finding> {
    let points = seen.of(live.revision);
    let shown = points.map_or(0, |tally| tally.shown);
    let beyond = points.is_some_and(|tally| tally.reaches_beyond(live.chunk_count));
    let (kind, drop) = match seen.head {
        None if live.deleted && live.at_ms < remembered_from_ms => return None,
        None => (Kind::Missing, None),
        Some(head) if head.live > live.revision => return None,
        Some(head) if head.live < live.revision => (Kind::Stale, None),
        Some(head) if head.deleted != live.deleted => (Kind::Stale, Some(Step::DropHead(head.live))),
        Some(_) if live.deleted => return None,
        Some(_) if shown == 0 && live.chunk_count > 0 => (Kind::Missing, None),
        Some(_) if shown != live.chunk_count || beyond => (Kind::WrongCount, None),
        Some(_) => return None,
    };
    let whole = points.is_some_and(|tally| tally.is_whole(live.chunk_count));
    let heal = match kind {
        // Whether the others are all there shows when these are gone.
        Kind::WrongCount if beyond => None,
        _ if live.deleted || live.chunk_count == 0 || whole => Some(Step::Raise(*live)),
        _ => Some(Step::SendAgain(*live)),
    };
    let ordinal = i32::try_from(live.chunk_count).unwrap_or(i32::MAX);
    let trim = (beyond && !live.deleted).then_some(Step::Delete(live.revision, ordinal));
    Some(Finding {
        kind,
        log: Some(live.revision),
        index: seen.head.map(|head| head.live),
        expected: live.chunk_count,
        found: shown,
        remedy: drop.into_iter().chain(trim).chain(heal).collect(),
    })
}

/// Rows 10 to 15.
fn is_stray(tally: &Tally, before: &Known, head: Option<HeadSeen>, newest: Revision) -> bool {
    let revision = tally.revision;
    if revision > newest {
        return true;
    }
    match (head, before.live) {
        (Some(head), _) if revision == head.live => head.deleted,
        (Some(head), _) => revision < head.live && !head.sweep,
        (None, Some(live)) => live.deleted && revision <= live.revision,
        (None, None) => false,
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
