use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn limits() -> BatchLimits {
    BatchLimits {
        max_batch_tokens: 100,
        max_batch_texts: 8,
        max_wait_ms: 5,
        max_waiting_tokens: 1_000,
        ..BatchLimits::default()
    }
}

fn filled(lengths: &[usize], class: Class, since: Instant) -> Waiting<usize> {
    let mut waiting = Waiting::new(limits());
    for (work, &tokens) in lengths.iter().enumerate() {
        waiting.push(class, Item { tokens, since, work });
    }
    waiting
}

fn run<T>(next: Next<T>) -> Vec<(T, usize)> {
    match next {
        Next::Run(batch) => batch.into_iter().map(|item| (item.work, item.tokens)).collect(),
        Next::WaitUntil(_) => panic!("waits"),
        Next::Idle => panic!("idle"),
    }
}

#[test]
fn documents_wait_for_company_queries_do_not() {
    let now = Instant::now();
    let mut waiting = filled(&[10], Class::Document, now);
    let deadline = now + limits().max_wait();
    assert!(matches!(waiting.next(now), Next::WaitUntil(at) if at == deadline));
    assert_eq!(run(waiting.next(deadline)), [(0, 10)]);
    assert!(matches!(waiting.next(deadline), Next::Idle));
    assert_eq!(run(filled(&[10], Class::Query, now).next(now)), [(0, 10)]);
}

#[test]
fn a_full_batch_does_not_wait() {
    let now = Instant::now();
    assert_eq!(run(filled(&[50, 50], Class::Document, now).next(now)).len(), 2);
    assert_eq!(run(filled(&[1; 9], Class::Document, now).next(now)).len(), 8);
}

#[test]
fn a_batch_is_the_oldest_and_those_nearest_to_it_in_length() {
    let now = Instant::now();
    let mut waiting = filled(&[30, 90, 31, 5, 29, 60, 95], Class::Document, now);
    assert_eq!(run(waiting.next(now)), [(0, 30), (2, 31), (4, 29)]);
    assert_eq!(run(waiting.next(now)), [(1, 90)]);
    assert_eq!(run(waiting.next(now)), [(3, 5)]);
    assert_eq!(run(waiting.next(now)), [(5, 60)]);
}

#[test]
fn a_text_above_the_budget_runs_alone() {
    let now = Instant::now();
    let mut waiting = filled(&[500, 500], Class::Document, now);
    assert_eq!(run(waiting.next(now)), [(0, 500)]);
    assert_eq!(run(waiting.next(now)), [(1, 500)]);
}

#[test]
fn a_flood_of_queries_does_not_starve_documents() {
    let now = Instant::now();
    let mut waiting = filled(&[10], Class::Document, now);
    let mut query_batches = 0;
    loop {
        let (tokens, since, work) = (90, now, 1);
        waiting.push(Class::Query, Item { tokens, since, work });
        if run(waiting.next(now)) == [(0, 10)] {
            break;
        }
        query_batches += 1;
    }
    assert_eq!(query_batches, QUERY_BATCHES_IN_A_ROW);
}

#[test]
fn room_ends_at_the_bound_and_comes_back() {
    let now = Instant::now();
    let mut waiting = filled(&[100; 10], Class::Document, now);
    assert!(!waiting.has_room(Class::Document));
    waiting.retain(|work| *work != 3);
    assert!(waiting.has_room(Class::Document));
}

proptest! {
    /// Whatever waits: every text runs exactly once, every batch keeps the limits, the oldest is always in the next
    /// one, and no row is more than half padding.
    #[test]
    fn everything_runs_once_within_the_limits(lengths in prop::collection::vec(1usize..200, 1..60)) {
        let now = Instant::now();
        let late = now + Duration::from_secs(1);
        let mut waiting = filled(&lengths, Class::Document, now);
        let mut left: Vec<usize> = (0..lengths.len()).collect();
        while !left.is_empty() {
            let batch = run(waiting.next(late));
            prop_assert_eq!(batch[0].0, left[0]);
            let longest = batch.iter().map(|(_, tokens)| *tokens).max().unwrap();
            prop_assert!(batch.len() == 1 || batch.len() * longest <= 100);
            prop_assert!(batch.len() <= 8);
            for (work, tokens) in batch {
                prop_assert_eq!(tokens, lengths[work]);
                prop_assert!(longest <= 2 * tokens);
                let at = left.binary_search(&work);
                prop_assert!(at.is_ok(), "{} ran twice", work);
                left.remove(at.unwrap());
            }
        }
        prop_assert!(waiting.is_empty() && waiting.has_room(Class::Document));
    }
}
