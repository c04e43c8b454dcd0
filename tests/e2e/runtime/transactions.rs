//! Each way a transaction can end, and a broker that is away.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millrace_testkit::{Stack, poll};
use rustix::process::Signal;

use super::bed::on_bed;
use super::process::{Process, Still};
use crate::running;

/// `transaction.timeout.ms`, and the rounds in which the coordinator looks for what is over time.
const TIMED_OUT_WITHIN: Duration = Duration::from_secs(60);
/// From the end of an outage until everything flows.
const RECOVERED_WITHIN: Duration = Duration::from_secs(90);
/// Longer than a session, a transaction and a message may last.
const AWAY: Duration = Duration::from_secs(40);
const KILLS: usize = 4;

/// Waits until a stage has committed more than it had.
async fn flows(stage: &mut Process) -> Result<()> {
    let before = stage.picture().processed;
    stage
        .until("to commit again", RECOVERED_WITHIN, |seen| seen.processed > before + 50)
        .await
        .map(|_| ())
}

/// What the load's records do.
const WORK: &str = "sleep:5";

pub async fn a_fenced_producer_starts_again(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "taken", 4, async |bed| {
        let mut a = bed.start("a")?;
        bed.under_load(WORK, async || {
            for times in 1..=3 {
                flows(&mut a).await?;
                bed.broker.fence(&bed.transactional_id("a")).await?;
                a.until("to start again", RECOVERED_WITHIN, |seen| seen.restarts == times)
                    .await?;
            }
            flows(&mut a).await
        })
        .await?;
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}

/// A process that is held still in a transaction: the coordinator ends the transaction, another process takes the
/// partitions and goes on; then the first wakes up in the middle of what it was doing.
pub async fn a_zombie_commits_nothing(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "zombie", 4, async |bed| {
        let (mut a, mut b) = (bed.start("a")?, bed.start("b")?);
        a.holds(2).await?;
        b.holds(2).await?;
        bed.under_load(WORK, async || {
            flows(&mut a).await?;
            let still = bed.caught_in_a_transaction("a", &a).await?;
            b.holds(4).await?;
            let id = bed.transactional_id("a");
            poll::until("the transaction to be over time", TIMED_OUT_WITHIN, async || {
                let state = bed.broker.transaction_state(&id).await?;
                Ok(if state == "CompleteAbort" { Ok(()) } else { Err(state) })
            })
            .await?;
            flows(&mut b).await?;
            drop(still);
            flows(&mut a).await?;
            flows(&mut b).await
        })
        .await?;
        bed.finish([a, b]).await?.at_the_first_attempt()
    })
    .await
}

/// Commits whose answer never comes are among what a broker takes along.
pub async fn a_broker_killed_again_and_again_loses_and_repeats_nothing(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    on_bed(stack, "broker-kills", 4, async |bed| {
        let mut stages = [bed.start("a")?, bed.start("b")?];
        let ((), written) = bed
            .under_load(WORK, async || {
                for _ in 0..KILLS {
                    for stage in &mut stages {
                        flows(stage).await?;
                    }
                    stack.kill("kafka", Signal::KILL).await?;
                    stack.serving("kafka").await?;
                }
                for stage in &mut stages {
                    flows(stage).await?;
                }
                Ok(())
            })
            .await?;
        bed.finish(stages).await?.at_the_first_attempt()?;
        println!("{written} records through {KILLS} kills of the broker");
        Ok(())
    })
    .await
}

/// The broker neither answers nor hangs up.
pub async fn a_broker_away_is_waited_for(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    on_bed(stack, "broker-away", 4, async |bed| {
        let mut stages = [bed.start("a")?, bed.start("b")?];
        bed.under_load(WORK, async || {
            for stage in &mut stages {
                flows(stage).await?;
            }
            let since = Instant::now();
            let still = Still::hold(stack.pid("kafka")?)?;
            poll::until("the outage to last", AWAY * 2, async || {
                for stage in &mut stages {
                    stage.ensure_alive()?;
                }
                let pictures: Vec<_> = stages.iter().map(Process::picture).collect();
                Ok(if since.elapsed() > AWAY { Ok(()) } else { Err(pictures) })
            })
            .await?;
            for stage in &mut stages {
                let picture = stage.picture();
                ensure!(
                    !picture.reason.is_empty(),
                    "it does not say why nothing leaves: {picture:?}"
                );
            }
            drop(still);
            for stage in &mut stages {
                flows(stage).await?;
            }
            Ok(())
        })
        .await?;
        for stage in &stages {
            ensure!(stage.picture().failed == 0, "{:?}", stage.picture());
        }
        bed.finish(stages).await?.at_the_first_attempt()
    })
    .await
}
