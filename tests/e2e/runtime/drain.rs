//! Leaving, and giving partitions away: what can finish does, what never ends holds nobody up.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millrace_testkit::Stack;

use super::bed::on_bed;
use super::records::{input, spread};
use crate::running;

/// The stages' own bound.
const DRAIN: Duration = Duration::from_millis(1500);
/// Beyond the bound: the open transaction, the consumer's end, the process's.
const BEYOND: Duration = Duration::from_secs(8);
const SOON: Duration = Duration::from_secs(30);

pub async fn on_sigterm_it_leaves_within_its_bound(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "drain", 1, async |bed| {
        let mut a = bed.start("a")?;
        a.holds(1).await?;
        bed.send(&[input("endless", "until:go")]).await?;
        bed.send(&spread(20, 5, "ok")).await?;
        bed.come_out(20).await?;
        // One more is under way when it is asked to leave, and has the time to finish.
        bed.send(&[input("late", "sleep:700")]).await?;
        a.until("to have two records under way", SOON, |seen| seen.window == 2)
            .await?;
        let asked = Instant::now();
        a.leave().await?;
        let took = asked.elapsed();
        ensure!(
            (DRAIN..DRAIN + BEYOND).contains(&took),
            "it left after {took:?}, with a record that never ends and a bound of {DRAIN:?}"
        );
        bed.come_out(21).await?;
        let at = bed.position(0).await?;
        ensure!(at == (0, (1..=21).collect()), "{at:?}");
        bed.signal("go")?;
        let a = bed.start("a")?;
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}

pub async fn a_partition_is_given_away_within_the_bound(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "revoke", 2, async |bed| {
        let mut a = bed.start("a")?;
        a.holds(2).await?;
        bed.send(&[
            input("endless-0", "until:go").to(0),
            input("endless-1", "until:go").to(1),
        ])
        .await?;
        bed.send(&spread(40, 10, "ok")).await?;
        bed.come_out(40).await?;
        let joined = Instant::now();
        let mut b = bed.start("b")?;
        b.holds(1).await?;
        let took = joined.elapsed();
        ensure!(
            took < DRAIN + BEYOND,
            "a partition with a record that never ends was given away after {took:?}, with a bound of {DRAIN:?}"
        );
        a.holds(1).await?;
        // Both processes had the record under way that changed hands: only its owner's result may come out.
        bed.signal("go")?;
        bed.finish([a, b]).await?.at_the_first_attempt()
    })
    .await
}
