//! More than a stage may hold: it stops fetching, goes on polling, and forgets nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millrace_flow::runner::Limits;
use millrace_testkit::{Stack, poll};

use super::bed::{Bed, on_bed};
use super::process::Process;
use super::records::{Input, input};
use super::stage::Spec;
use crate::running;

const SOON: Duration = Duration::from_secs(30);
/// A member that does not poll for so long is out.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

const RECORD_BYTES: usize = 10_000;
const WINDOW_BYTES: usize = 8 << 20;
/// What is on its way from the client to the window when fetching stops.
const ON_ITS_WAY_BYTES: usize = 12 << 20;
/// Many times what a window takes.
const BACKLOG: usize = 6000;

/// Records that wait for `go`.
fn backlog() -> Vec<Input> {
    let script = format!("until:go:{}", "x".repeat(RECORD_BYTES));
    (0..BACKLOG).map(|n| input(&format!("k{n}"), &script)).collect()
}

fn small(bed: &Bed, instance: &str) -> Spec {
    let mut spec = bed.of_short_session(instance);
    let poll_ms = POLL_INTERVAL.as_millis().to_string();
    spec.kafka.properties.insert("max.poll.interval.ms".into(), poll_ms);
    spec.limits = Limits {
        window_bytes: WINDOW_BYTES,
        ..spec.limits
    };
    spec
}

/// Waits until its window is full.
async fn is_full(stage: &mut Process) -> Result<()> {
    let full = (WINDOW_BYTES / RECORD_BYTES / 2) as u64;
    stage.until("to be full", SOON, |seen| seen.window > full).await?;
    Ok(())
}

/// Two members, the second of which is given its partitions while both have far more to do than they may hold, for longer
/// than a member may be silent.
pub async fn a_full_window_stops_fetching_and_not_polling(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "backlog", 4, async |bed| {
        bed.send(&backlog()).await?;
        let mut a = bed.start_as(&small(bed, "a"))?;
        a.holds(4).await?;
        is_full(&mut a).await?;
        let mut b = bed.start_as(&small(bed, "b"))?;
        b.holds(2).await?;
        a.holds(2).await?;
        is_full(&mut b).await?;

        let before = bed.membership().await?;
        let since = Instant::now();
        let most = ((WINDOW_BYTES + ON_ITS_WAY_BYTES) / RECORD_BYTES) as u64;
        poll::until("a poll interval to pass", POLL_INTERVAL * 3, async || {
            for stage in [&mut a, &mut b] {
                stage.ensure_alive()?;
                let seen = stage.picture();
                ensure!(seen.window <= most, "it holds more than {most} records: {seen:?}");
                ensure!(seen.restarts == 0 && seen.partitions.len() == 2, "{seen:?}");
            }
            Ok(if since.elapsed() > POLL_INTERVAL + POLL_INTERVAL / 4 {
                Ok(())
            } else {
                Err(since.elapsed())
            })
        })
        .await?;
        let after = bed.membership().await?;
        ensure!(after.generation == before.generation, "{before:?}, then {after:?}");
        bed.signal("go")?;
        bed.finish([a, b]).await?.at_the_first_attempt()
    })
    .await
}
