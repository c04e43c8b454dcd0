//! Waiting on a level.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often the level is looked at.
const EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` gives `Ok`; after `limit` fails with the last state it gave instead.
pub async fn until<T, S: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Result<T, S>>,
) -> Result<T> {
    let started = Instant::now();
    let mut interval = tokio::time::interval(EVERY);
    loop {
        interval.tick().await;
        match look().await? {
            Ok(reached) => return Ok(reached),
            Err(state) if started.elapsed() > limit => bail!("{what}: not within {limit:?}; last seen: {state:?}"),
            Err(_) => {}
        }
    }
}
