//! A test a row. Revisions are offsets; the log says the same before and after unless a case says otherwise.

use millrace_events::Epoch;

use super::*;

fn r(offset: i64) -> Revision {
    Revision::new(Epoch::FIRST, offset).unwrap()
}

fn live(offset: i64, chunk_count: u32) -> Live {
    Live {
        revision: r(offset),
        deleted: false,
        chunk_count,
        at_ms: 0,
    }
}

fn deleted(offset: i64) -> Live {
    Live {
        deleted: true,
        ..live(offset, 0)
    }
}

fn known(live: Live, newest: i64) -> Known {
    Known {
        live: Some(live),
        newest: Some(r(newest)),
        ..Known::default()
    }
}

/// `head` as offset, deleted, sweep; points as offset, ordinals, staged.
fn seen(head: Option<(i64, bool, bool)>, points: &[(i64, std::ops::Range<i32>, bool)]) -> Seen {
    let mut seen = Seen {
        head: head.map(|(live, deleted, sweep)| HeadSeen {
            live: r(live),
            deleted,
            sweep,
        }),
        points: Vec::new(),
    };
    for (revision, ordinals, staged) in points {
        for ordinal in ordinals.clone() {
            seen.count(r(*revision), ordinal, *staged);
        }
    }
    seen
}

const AT_5: Option<(i64, bool, bool)> = Some((5, false, false));

const REMEMBERED_FROM_MS: i64 = 1000;

fn judge(before: &Known, seen: &Seen, after: &Known) -> Vec<Finding> {
    super::judge(before, seen, after, REMEMBERED_FROM_MS)
}

fn found(log: Known, seen: &Seen) -> Vec<(Kind, Vec<Step>)> {
    let findings = judge(&log, seen, &log);
    findings.into_iter().map(|f| (f.kind, f.remedy)).collect()
}

fn nothing(log: Known, seen: &Seen) {
    assert_eq!(found(log, seen), [], "{log:?} {seen:?}");
}

#[test]
fn what_agrees_is_no_finding() {
    nothing(known(live(5, 3), 5), &seen(AT_5, &[(5, 0..3, false)]));
    nothing(known(live(5, 0), 5), &seen(AT_5, &[]));
    nothing(known(deleted(5), 5), &seen(Some((5, true, false)), &[]));
    nothing(known(deleted(5), 5), &seen(None, &[]));
    nothing(Known::default(), &Seen::default());
    let failed = Known {
        live: None,
        newest: Some(r(5)),
        ..Known::default()
    };
    nothing(failed, &seen(None, &[(5, 0..2, true)]));
}

#[test]
fn row_1_a_document_that_the_log_does_not_know_is_extra() {
    let all = seen(Some((5, false, true)), &[(5, 0..3, false), (4, 0..1, true)]);
    let remedy = vec![Step::DropHead(r(5)), Step::Delete(r(5), 0), Step::Delete(r(4), 0)];
    assert_eq!(found(Known::default(), &all), [(Kind::Extra, remedy)]);
    let headless = seen(None, &[(4, 0..1, true)]);
    let remedy = vec![Step::Delete(r(4), 0)];
    assert_eq!(found(Known::default(), &headless), [(Kind::Extra, remedy)]);
    // It became known while the index was looked at.
    let later = Known {
        live: None,
        newest: Some(r(5)),
        ..Known::default()
    };
    assert_eq!(judge(&Known::default(), &all, &later), []);
}

#[test]
fn row_2_a_head_above_all_that_the_log_knows_is_extra() {
    let index = seen(Some((9, false, true)), &[(9, 0..1, false), (5, 0..3, false)]);
    let remedy = vec![Step::DropHead(r(9)), Step::Delete(r(9), 0)];
    assert_eq!(found(known(live(5, 3), 5), &index), [(Kind::Extra, remedy)]);
}

#[test]
fn rows_3_and_4_a_live_revision_without_head_or_points_is_missing() {
    let log = known(live(5, 3), 5);
    let again = vec![Step::SendAgain(live(5, 3))];
    assert_eq!(found(log, &Seen::default()), [(Kind::Missing, again.clone())]);
    assert_eq!(found(log, &seen(AT_5, &[])), [(Kind::Missing, again.clone())]);
    let raised = [(Kind::Missing, vec![Step::Raise(live(5, 3))])];
    assert_eq!(found(log, &seen(AT_5, &[(5, 0..3, true)])), raised);
    assert_eq!(found(log, &seen(None, &[(5, 0..2, true), (5, 2..3, false)])), raised);
    // Row 16: what is older is cleaned up once it is healed; points of its own count again then.
    let older = seen(None, &[(4, 0..2, false), (5, 0..1, false)]);
    assert_eq!(found(log, &older), [(Kind::Missing, again)]);
    let beyond = vec![Step::Delete(r(5), 3), Step::SendAgain(live(5, 3))];
    assert_eq!(found(log, &seen(None, &[(5, 0..4, false)])), [(Kind::Missing, beyond)]);
    let empty = known(live(5, 0), 5);
    assert_eq!(
        found(empty, &Seen::default()),
        [(Kind::Missing, vec![Step::Raise(live(5, 0))])]
    );
    let beyond = vec![Step::Delete(r(5), 0), Step::Raise(live(5, 0))];
    assert_eq!(
        found(empty, &seen(None, &[(5, 0..1, false)])),
        [(Kind::Missing, beyond)]
    );
}

#[test]
fn row_5_an_older_head_is_stale() {
    let index = seen(Some((4, false, false)), &[(4, 0..2, false), (3, 0..1, false)]);
    let again = vec![Step::SendAgain(live(5, 3))];
    assert_eq!(found(known(live(5, 3), 5), &index), [(Kind::Stale, again)]);
    let raised = vec![Step::Raise(live(5, 3))];
    let whole = seen(Some((4, false, false)), &[(4, 0..2, false), (5, 0..3, false)]);
    assert_eq!(found(known(live(5, 3), 5), &whole), [(Kind::Stale, raised)]);
    let raised = vec![Step::Raise(live(5, 0))];
    assert_eq!(found(known(live(5, 0), 5), &index), [(Kind::Stale, raised)]);
}

#[test]
fn row_6_a_deletion_that_the_index_does_not_know_is_stale() {
    let remedy = vec![Step::Raise(deleted(5))];
    for was_deleted in [false, true] {
        let index = seen(Some((4, was_deleted, false)), &[]);
        assert_eq!(found(known(deleted(5), 5), &index), [(Kind::Stale, remedy.clone())]);
    }
}

#[test]
fn row_7_deleted_in_one_and_not_in_the_other_is_stale() {
    let index = seen(Some((5, true, false)), &[]);
    let remedy = vec![Step::DropHead(r(5)), Step::SendAgain(live(5, 3))];
    assert_eq!(found(known(live(5, 3), 5), &index), [(Kind::Stale, remedy)]);
    let remedy = vec![Step::DropHead(r(5)), Step::Raise(deleted(5))];
    assert_eq!(found(known(deleted(5), 5), &seen(AT_5, &[])), [(Kind::Stale, remedy)]);
}

#[test]
fn row_7_without_chunks_needs_no_part() {
    let index = seen(Some((5, true, false)), &[]);
    let remedy = vec![Step::DropHead(r(5)), Step::Raise(live(5, 0))];
    assert_eq!(found(known(live(5, 0), 5), &index), [(Kind::Stale, remedy)]);
}

#[test]
fn row_8_points_too_few_too_many_or_hidden_are_a_wrong_count() {
    let log = known(live(5, 3), 5);
    let again = vec![Step::SendAgain(live(5, 3))];
    for points in [
        &[(5, 0..2, false)][..],
        &[(5, 1..3, false)],
        &[(5, 0..1, false), (5, 2..3, true)],
    ] {
        assert_eq!(
            found(log, &seen(AT_5, points)),
            [(Kind::WrongCount, again.clone())],
            "{points:?}"
        );
    }
    let hidden = seen(AT_5, &[(5, 0..2, false), (5, 2..3, true)]);
    assert_eq!(found(log, &hidden), [(Kind::WrongCount, vec![Step::Raise(live(5, 3))])]);
    let trim = vec![Step::Delete(r(5), 3)];
    for points in [
        &[(5, 0..4, false)][..],
        &[(5, 0..2, false), (5, 7..8, false)],
        &[(5, 0..3, false), (5, 3..4, true)],
    ] {
        assert_eq!(
            found(log, &seen(AT_5, points)),
            [(Kind::WrongCount, trim.clone())],
            "{points:?}"
        );
    }
    let none = vec![Step::Delete(r(5), 0)];
    let empty = known(live(5, 0), 5);
    assert_eq!(
        found(empty, &seen(AT_5, &[(5, 0..1, false)])),
        [(Kind::WrongCount, none)]
    );
}

#[test]
fn row_9_a_head_that_is_ahead_of_what_was_read_is_on_its_way() {
    nothing(
        known(live(5, 3), 7),
        &seen(Some((6, false, true)), &[(6, 0..1, false), (5, 0..3, false)]),
    );
    let index = seen(Some((7, true, true)), &[]);
    assert_eq!(judge(&known(live(5, 3), 5), &index, &known(live(5, 3), 7)), []);
}

#[test]
fn row_10_points_above_all_that_the_log_knows_are_orphaned() {
    let log = known(live(5, 3), 5);
    let stray = (9, 0..2, true);
    let orphaned = || (Kind::Orphaned, vec![Step::Delete(r(9), 0)]);
    let index = seen(AT_5, &[(5, 0..3, false), stray.clone()]);
    assert_eq!(found(log, &index), [orphaned()]);
    let again = (Kind::Missing, vec![Step::SendAgain(live(5, 3))]);
    assert_eq!(found(log, &seen(None, &[stray])), [again, orphaned()]);
}

#[test]
fn rows_11_and_12_older_points_are_orphaned_once_the_clean_up_is_done() {
    let log = known(live(5, 3), 5);
    let points = [(5, 0..3, false), (4, 0..2, false), (3, 0..1, true)];
    let orphaned = |offset| (Kind::Orphaned, vec![Step::Delete(r(offset), 0)]);
    assert_eq!(found(log, &seen(AT_5, &points)), [orphaned(4), orphaned(3)]);
    nothing(log, &seen(Some((5, false, true)), &points));
    let counted = judge(&log, &seen(AT_5, &points), &log);
    assert_eq!((counted[0].index, counted[0].found), (Some(r(4)), 2));
    // Beside points of the live one that are too few.
    let short = seen(AT_5, &[(5, 0..2, false), (4, 0..1, false)]);
    let kinds: Vec<_> = found(log, &short).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [Kind::WrongCount, Kind::Orphaned]);
}

#[test]
fn rows_13_and_14_points_of_a_deleted_document_are_orphaned() {
    let log = known(deleted(5), 6);
    let orphaned = |offset| (Kind::Orphaned, vec![Step::Delete(r(offset), 0)]);
    let head = Some((5, true, true));
    assert_eq!(found(log, &seen(head, &[(5, 0..1, false)])), [orphaned(5)]);
    assert_eq!(found(log, &seen(None, &[(4, 0..1, false)])), [orphaned(4)]);
}

#[test]
fn row_15_points_between_the_head_and_the_newest_are_on_their_way() {
    nothing(known(live(5, 3), 8), &seen(AT_5, &[(5, 0..3, false), (7, 0..2, true)]));
    nothing(known(deleted(5), 8), &seen(None, &[(7, 0..2, true)]));
}

#[test]
fn rows_17_and_18_a_deletion_without_a_head_is_missing_while_it_is_to_be_remembered() {
    let at = |at_ms| Live { at_ms, ..deleted(5) };
    nothing(known(at(REMEMBERED_FROM_MS - 1), 5), &Seen::default());
    let young = at(REMEMBERED_FROM_MS);
    let missing = || (Kind::Missing, vec![Step::Raise(young)]);
    assert_eq!(found(known(young, 5), &Seen::default()), [missing()]);
    let orphaned = (Kind::Orphaned, vec![Step::Delete(r(4), 0)]);
    let points = seen(None, &[(4, 0..1, false)]);
    assert_eq!(found(known(young, 5), &points), [missing(), orphaned]);
    nothing(known(young, 5), &seen(Some((5, true, false)), &[]));
}

#[test]
fn row_19_what_may_have_a_newer_state_than_can_be_read_is_not_judged() {
    let unreadable = |mut log: Known, offset| {
        log.learn_unreadable(r(offset));
        log
    };
    let ahead = seen(Some((9, false, true)), &[(9, 0..1, false), (3, 0..1, false)]);
    let clean = known(live(5, 3), 5);
    assert!(!judge(&clean, &ahead, &clean).is_empty());
    for log in [
        unreadable(Known::default(), 9),
        unreadable(clean, 9),
        unreadable(clean, 5),
    ] {
        nothing(log, &ahead);
        nothing(log, &Seen::default());
        assert_eq!(judge(&clean, &ahead, &log), []);
    }
    // A live one above it says all.
    let below = unreadable(clean, 4);
    assert_eq!(found(below, &ahead), found(clean, &ahead));
    assert_eq!(below.newest, Some(r(5)));
}

#[test]
fn what_was_learned_is_not_taken_back() {
    let mut log = Known::default();
    log.learn(r(3), None);
    log.learn(r(2), Some(live(2, 1)));
    assert_eq!(log, known(live(2, 1), 3));
    log.learn(r(3), Some(deleted(3)));
    log.learn(r(2), Some(live(2, 1)));
    assert_eq!(log, known(deleted(3), 3));
}
