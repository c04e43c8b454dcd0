//! A stage that has nothing to do has nothing left to do: its position is its input's end, whatever stands there.

use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_testkit::Stack;

use super::bed::on_bed;
use super::records::spread;
use crate::running;

const SOON: Duration = Duration::from_secs(30);

/// A second stage reads what the first one wrote in transactions: markers occupy offsets at the end of every partition, and
/// at last records that were aborted.
pub async fn a_position_moves_past_markers_and_aborted_records(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "idle", 2, async |bed| {
        let (group, output) = (format!("{}.second", bed.group), format!("{}.second", bed.output));
        bed.create(&output, &[]).await?;
        let mut second = bed.spec("second");
        second.input.clone_from(&bed.output);
        second.group.clone_from(&group);
        second.output = output;

        let first = bed.start("a")?;
        let mut second = bed.start_as(&second)?;
        bed.send(&spread(100, 20, "ok")).await?;
        bed.settled().await?;
        bed.settled_in(&group, &bed.output, &[]).await?;
        second
            .until("to say that nothing is left", SOON, |seen| {
                seen.partitions.len() == 2 && seen.partitions.iter().all(|held| held.lag == Some(0))
            })
            .await?;

        let (still, _) = bed
            .under_load("sleep:5", async || bed.caught_in_transactions(from_ref(&first)).await)
            .await?;
        first.kill().await?;
        drop(still);
        bed.broker.fence(&bed.transactional_id("a")).await?;
        bed.settled_in(&group, &bed.output, &[]).await?;

        let first = bed.start("a")?;
        bed.settled().await?;
        bed.settled_in(&group, &bed.output, &[]).await?;
        second.ensure_alive()?;
        second.leave().await?;
        let out = bed.finish([first]).await?;
        ensure!(out.dead.is_empty(), "{:?}", out.dead);
        Ok(())
    })
    .await
}
