//! Each way a transaction can end, and a broker that is away.

use std::slice::from_ref;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millrace_testkit::proxy::Call;
use millrace_testkit::{Stack, poll};
use rustix::process::Signal;

use super::bed::{Bed, SHORT_SESSION_MS, on_bed};
use super::process::Process;
use super::records::spread;
use crate::running;
use millrace_testkit::still::Still;

/// `transaction.timeout.ms`, and the rounds in which the coordinator looks for what is over time.
const TIMED_OUT_WITHIN: Duration = Duration::from_secs(60);
/// From the end of an outage until everything flows.
const RECOVERED_WITHIN: Duration = Duration::from_secs(90);
/// Longer than a session, a transaction and a message may last.
const AWAY: Duration = Duration::from_secs(40);
const KILLS: usize = 3;
/// Longer than one call of the transactional client waits, shorter than a transaction may last.
const LATE: Duration = Duration::from_secs(11);
/// What a transaction asks of a broker, in this order.
const STEPS: [Call; 5] = [
    Call::AddPartitionsToTxn,
    Call::Produce,
    Call::AddOffsetsToTxn,
    Call::TxnOffsetCommit,
    Call::EndTxn,
];
const ROUNDS: usize = 3;

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

/// A position that somebody else's transaction is about to change is not known: it is waited for, and said why.
pub async fn a_position_in_an_open_transaction_is_waited_for(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "held", 2, async |bed| {
        let a = bed.start("a")?;
        bed.send(&spread(50, 10, "ok")).await?;
        bed.settled().await?;
        a.leave().await?;
        bed.broker.leave(&bed.group, "a").await?;
        let (at, _) = bed.position(0).await?;
        let partition = (bed.group.as_str(), bed.input.as_str(), 0);
        bed.broker.hold_position("e2e.held.stranger", partition, at).await?;
        let mut a = bed.start("a")?;
        a.until("to say what it waits for", RECOVERED_WITHIN, |seen| {
            seen.reason.contains("a transaction of the group has no end")
        })
        .await?;
        bed.broker.fence("e2e.held.stranger").await?;
        a.holds(2).await?;
        bed.send(&spread(50, 10, "ok")).await?;
        bed.settled().await?;
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}

/// Whatever step of a transaction has no answer: the broker has done it, and the stage cannot know.
pub async fn a_step_without_an_answer_is_taken_once(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "unanswered", 4, async |bed| {
        let (proxy, spec) = bed.behind_a_proxy(bed.spec("a")).await?;
        let first = proxy.lose_answer(Call::InitProducerId);
        let (mut a, ()) = tokio::try_join!(async { bed.start_as(&spec) }, first)?;
        bed.under_load(WORK, async || {
            for call in STEPS.iter().cycle().take(ROUNDS * STEPS.len()) {
                flows(&mut a).await?;
                proxy.lose_answer(*call).await?;
            }
            flows(&mut a).await
        })
        .await?;
        ensure!(a.picture().restarts == 0, "{:?}", a.picture());
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}

/// A step whose answer comes after the client's patience: it is asked for again. Records that wait behind it may time out
/// meanwhile; then the transaction is aborted, and leaves again from memory.
pub async fn a_step_that_is_answered_late_is_asked_for_again(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "late", 4, async |bed| {
        let (proxy, spec) = bed.behind_a_proxy(bed.spec("a")).await?;
        let mut a = bed.start_as(&spec)?;
        bed.under_load(WORK, async || {
            flows(&mut a).await?;
            proxy.hold_answer(Call::AddOffsetsToTxn, LATE).await?;
            flows(&mut a).await
        })
        .await?;
        let told = a.told()?;
        ensure!(told.contains("a transaction call is made again"), "{told}");
        ensure!(a.picture().restarts == 0, "{told}");
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}

/// A process that is held still in a transaction: the coordinator ends the transaction, another process takes the
/// partitions and goes on; then the first wakes up in the middle of what it was doing.
pub async fn a_zombie_commits_nothing(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "zombie", 4, async |bed| {
        let mut a = bed.start_as(&bed.of_short_session("a"))?;
        let mut b = bed.start("b")?;
        a.holds(2).await?;
        b.holds(2).await?;
        bed.under_load(WORK, async || {
            flows(&mut a).await?;
            let still = bed.caught_in_transactions(from_ref(&a)).await?;
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

/// When a broker is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Any.
    Any,
    /// While transactions are open, and none is decided without being ended: see [`super::still::undecided`].
    Undecided,
}

/// Open transactions are among what a broker takes along.
pub async fn a_broker_killed_again_and_again_loses_and_repeats_nothing(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    on_bed(stack, "broker-kills", 4, async |bed| {
        let mut stages = [bed.start("a")?, bed.start("b")?];
        let written = kills(bed, stack, &mut stages, [Moment::Undecided; KILLS]).await?;
        bed.finish(stages).await?.at_the_first_attempt()?;
        println!("{written} records through {KILLS} kills of the broker");
        Ok(())
    })
    .await
}

/// Decided transactions are among what a broker takes along. Kafka 4.3 does not always bring them back: see [`super::still::undecided`].
pub async fn a_broker_killed_at_any_moment_loses_and_repeats_nothing(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    on_bed(stack, "broker-dies", 4, async |bed| {
        let mut stages = [bed.start("a")?, bed.start("b")?];
        kills(bed, stack, &mut stages, [Moment::Any; 2 * KILLS]).await?;
        bed.finish(stages).await?.at_the_first_attempt()
    })
    .await
}

/// A member gives itself up for lost while the broker still knows it: its own second join must not look like a rival.
pub async fn a_broker_away_for_longer_than_a_session_fences_nobody(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    on_bed(stack, "broker-session", 4, async |bed| {
        let mut stages = [
            bed.start_as(&bed.of_short_session("a"))?,
            bed.start_as(&bed.of_short_session("b"))?,
        ];
        for stage in &mut stages {
            stage.holds(2).await?;
        }
        // The group goes on under the name of a process that is gone.
        let [first, _] = &mut stages;
        let again = bed.start_as(&bed.of_short_session("a"))?;
        std::mem::replace(first, again).kill().await?;
        first.holds(2).await?;
        let members = bed.membership().await?.members;
        ensure!(
            members.values().all(|member| member.session_ms == SHORT_SESSION_MS),
            "the property is not heeded: {members:?}"
        );
        kills(bed, stack, &mut stages, [Moment::Undecided]).await?;
        bed.finish(stages).await?.at_the_first_attempt()
    })
    .await
}

/// Kills the broker under load. Gives how many records were written.
async fn kills(
    bed: &Bed,
    stack: &Stack,
    stages: &mut [Process],
    moments: impl IntoIterator<Item = Moment>,
) -> Result<usize> {
    let ((), written) = bed
        .under_load(WORK, async || {
            for moment in moments {
                for stage in &mut *stages {
                    flows(stage).await?;
                }
                let still = match moment {
                    Moment::Any => Vec::new(),
                    Moment::Undecided => bed.caught_in_transactions(stages).await?,
                };
                stack.kill("kafka", Signal::KILL).await?;
                drop(still);
                stack.serving("kafka").await?;
            }
            for stage in stages {
                flows(stage).await?;
            }
            Ok(())
        })
        .await?;
    Ok(written)
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
