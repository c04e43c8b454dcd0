//! A line that repeats is written so often and no more: what is wrong with every record is said of some of them, and how
//! many lines were left out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one place in the code within [`WINDOW`].
const LINES: u32 = 50;
/// Of a place in the telemetry's own library, which says the same each time that a receiver is away.
const OF_TELEMETRY: u32 = 1;
/// For how long they count.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// Lets so many lines of each place through. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Limit(Arc<Mutex<HashMap<Identifier, Place>>>);

#[derive(Debug)]
struct Place {
    /// Where it is, for people.
    name: &'static str,
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Limit {
    fn places(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, line: &'static Metadata<'static>, now: Instant) -> bool {
        // Asked for, or looked for by the number that a client was told.
        if *line.level() > Level::INFO || line.fields().field("incident").is_some() {
            return true;
        }
        let lines = match line.target().starts_with("opentelemetry") {
            true => OF_TELEMETRY,
            false => LINES,
        };
        let mut places = self.places();
        let place = places.entry(line.callsite()).or_insert_with(|| Place {
            name: line.name(),
            since: now,
            written: 0,
            left_out: 0,
        });
        if now >= place.since + WINDOW {
            (place.since, place.written) = (now, 0);
        }
        let admitted = place.written < lines;
        match admitted {
            true => place.written += 1,
            false => place.left_out += 1,
        }
        admitted
    }

    /// How many lines of which place were left out since this was last asked.
    pub(super) fn left_out(&self) -> Vec<(&'static str, u64)> {
        let mut places = self.places();
        let left_out = places.values_mut().filter(|place| place.left_out > 0);
        left_out
            .map(|place| (place.name, std::mem::take(&mut place.left_out)))
            .collect()
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admits(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{Layer, Registry};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<u32>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn a_place_that_repeats_is_cut_off_and_counted_and_another_is_not() {
        let (limit, lines) = (Limit::default(), Lines::default());
        let subscriber = Registry::default().with(lines.clone().with_filter(limit.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..LINES + 7 {
                tracing::warn!("again");
            }
            tracing::warn!("once");
        });
        assert_eq!(*lines.0.lock().unwrap(), LINES + 1);
        let left_out: Vec<u64> = limit.left_out().into_iter().map(|(_, count)| count).collect();
        assert_eq!(left_out, [7]);
        assert!(limit.left_out().is_empty());
        for place in limit.places().values_mut() {
            place.since = Instant::now().checked_sub(WINDOW).unwrap();
        }
        let line = |limit: &Limit| {
            let subscriber = Registry::default().with(lines.clone().with_filter(limit.clone()));
            tracing::subscriber::with_default(subscriber, || tracing::warn!("later"));
        };
        line(&limit);
        assert_eq!(*lines.0.lock().unwrap(), LINES + 2);
    }
}
