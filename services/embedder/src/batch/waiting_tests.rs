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
        waiting.push(class, item("", tokens, since, work));
    }
    waiting
}

fn item<T>(tenant: &str, tokens: usize, since: Instant, work: T) -> Item<T> {
    Item {
        tokens,
        since,
        tenant: tenant.into(),
        work,
    }
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

fn late(now: Instant) -> Instant {
    now + limits().max_wait()
}

/// A row for each number of streams.
#[test]
fn texts_of_a_batch_are_a_multiple_of_the_streams() {
    let now = Instant::now();
    let lengths = [20, 16, 21, 19, 22];
    for (streams, sizes) in [
        (1, vec![4, 1]),
        (2, vec![4, 1]),
        (3, vec![3, 2]),
        (4, vec![4, 1]),
        (5, vec![5]),
    ] {
        let mut waiting = filled(&lengths, Class::Document, now);
        waiting.for_streams(streams);
        let batches: Vec<_> = sizes.iter().map(|_| run(waiting.next(late(now)))).collect();
        assert_eq!(
            batches.iter().map(Vec::len).collect::<Vec<_>>(),
            sizes,
            "{streams} streams"
        );
        assert_eq!(batches[0][0], (0, 20), "the oldest is among them");
        assert!(waiting.is_empty());
    }
    let mut queries = filled(&[9, 9, 9], Class::Query, now);
    queries.for_streams(2);
    assert_eq!(run(queries.next(now)).len(), 2);
    assert_eq!(run(queries.next(now)).len(), 1);
    let mut long = filled(&[90, 90], Class::Query, now);
    long.for_streams(2);
    assert_eq!(run(long.next(now)).len(), 2, "one a stream, whatever the budget");
    let mut few = Waiting::new(BatchLimits {
        max_batch_texts: 2,
        ..limits()
    });
    few.for_streams(3);
    (0..3).for_each(|work| few.push(Class::Document, item("", 10, now, work)));
    assert_eq!(run(few.next(late(now))).len(), 2);
}

#[test]
fn a_small_tenant_waits_for_one_batch_of_a_large_one() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    (0..500).for_each(|_| waiting.push(Class::Document, item("large", 50, now, "large")));
    let company = |batch: Vec<(&'static str, usize)>| batch.iter().filter(|(whose, _)| *whose == "small").count();
    assert_eq!(company(run(waiting.next(now))), 0);
    for _ in 0..3 {
        waiting.push(Class::Document, item("small", 90, now, "small"));
    }
    // A text a batch, and as many tokens to the large one in between.
    let batches: Vec<usize> = (0..8).map(|_| company(run(waiting.next(now)))).collect();
    assert_eq!(batches.iter().sum::<usize>(), 3, "{batches:?}");
    assert_eq!(batches[0], 1, "{batches:?}");
}

#[test]
fn tenants_get_as_many_tokens_each_while_they_wait() {
    let now = Instant::now();
    let mut waiting = Waiting::new(limits());
    for tenant in ["a", "a", "a", "b", "c"] {
        for tokens in [10, 30, 50, 90, 20].repeat(40) {
            waiting.push(Class::Document, item(tenant, tokens, now, tenant));
        }
    }
    let mut served: HashMap<&str, usize> = HashMap::new();
    for _ in 0..100 {
        for (whose, tokens) in run(waiting.next(now)) {
            *served.entry(whose).or_default() += tokens;
        }
    }
    let least = served.values().min().unwrap();
    assert!(
        served.len() == 3 && served.values().all(|tokens| tokens * 2 <= least * 3),
        "{served:?}"
    );
}

#[test]
fn a_tenant_of_twice_the_weight_has_twice_the_tokens() {
    let now = Instant::now();
    let limits = BatchLimits {
        tenant_weights: [("double".to_owned(), 2)].into(),
        ..limits()
    };
    let mut waiting = Waiting::new(limits);
    for _ in 0..200 {
        waiting.push(Class::Document, item("single", 90, now, "single"));
        waiting.push(Class::Document, item("double", 90, now, "double"));
    }
    let batches: Vec<_> = (0..90).flat_map(|_| run(waiting.next(now))).collect();
    let double = batches.iter().filter(|(whose, _)| *whose == "double").count();
    assert!((52..=66).contains(&double), "{double} of 90");
}

#[test]
fn a_text_above_the_budget_runs_alone() {
    let now = Instant::now();
    let mut waiting = filled(&[500, 500], Class::Document, now);
    assert_eq!(run(waiting.next(now)), [(0, 500)]);
    assert_eq!(run(waiting.next(now)), [(1, 500)]);
}

#[test]
fn each_stream_has_a_text_above_the_budget() {
    let now = Instant::now();
    let mut waiting = filled(&[500, 90, 400, 500], Class::Document, now);
    waiting.for_streams(2);
    assert_eq!(run(waiting.next(now)), [(0, 500), (3, 500)]);
    assert_eq!(
        run(waiting.next(now)).len(),
        1,
        "the one that is left has none of its length"
    );
}

#[test]
fn a_flood_of_queries_does_not_starve_documents() {
    let now = Instant::now();
    let mut waiting = filled(&[10], Class::Document, now);
    let mut query_batches = 0;
    loop {
        waiting.push(Class::Query, item("", 90, now, 1));
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
    fn everything_runs_once_within_the_limits(
        lengths in prop::collection::vec(1usize..200, 1..60),
        streams in 1usize..5,
    ) {
        let now = Instant::now();
        let late = now + Duration::from_secs(1);
        let mut waiting = filled(&lengths, Class::Document, now);
        waiting.for_streams(streams);
        let mut left: Vec<usize> = (0..lengths.len()).collect();
        while !left.is_empty() {
            let batch = run(waiting.next(late));
            prop_assert_eq!(batch[0].0, left[0]);
            let longest = batch.iter().map(|(_, tokens)| *tokens).max().unwrap();
            prop_assert!(batch.len() <= streams || batch.len() * longest <= 100);
            prop_assert!(batch.len() <= 8);
            prop_assert!(batch.len() <= streams || batch.len().is_multiple_of(streams));
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
