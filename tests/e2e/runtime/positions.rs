//! What is committed, and what a new owner makes of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use millrace_testkit::Stack;
use millrace_testkit::wire::Committed;

use super::bed::{Bed, on_bed};
use super::process::Process;
use super::records::{Input, input, spread};
use super::stage::Held;
use crate::running;

const SOON: Duration = Duration::from_secs(30);

/// Records that are waited for to show that nobody else waits: of other documents, behind a slow one.
const OTHERS: usize = 300;

pub async fn a_slow_record_holds_nobody_up_and_its_bitmap_moves_on(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "slow", 1, async |bed| {
        let a = a_slow_record_in_front(bed).await?;
        a.leave().await?;
        // Without waiting for its session to end.
        bed.broker.leave(&bed.group, "a").await?;
        let mut b = bed.start("b")?;
        b.holds(1).await?;
        bed.send(&spread(50, 30, "ok")).await?;
        bed.come_out(OTHERS + 50).await?;
        let at = bed.position(0).await?;
        ensure!(at == (0, (2..=351).collect()), "{at:?}");
        bed.signal("go")?;
        let out = bed.finish([b]).await?;
        let at = bed.position(0).await?;
        ensure!(at == (352, [].into()), "{at:?}");
        out.at_the_first_attempt()
    })
    .await
}

/// After a kill the record at the front may be what killed: it runs alone, and its partition says so. Another partition,
/// whose position had moved, does not wait.
pub async fn a_slow_record_is_alone_in_its_partition_after_a_kill(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "slow-killed", 2, async |bed| {
        let a = a_slow_record_in_front(bed).await?;
        let other: Vec<_> = (0..20).map(|n| input(&format!("o{n}"), "ok").to(1)).collect();
        bed.send(&other).await?;
        bed.settled_but(&[0]).await?;
        a.kill().await?;
        bed.broker.leave(&bed.group, "a").await?;

        let mut b = bed.start("b")?;
        let alone = |held: &Held| held.partition == 0 && held.reason.contains("one record at a time");
        b.until("to run the slow record alone", SOON, |seen| {
            seen.partitions.iter().any(alone)
        })
        .await?;
        bed.send(&other).await?;
        bed.settled_but(&[0]).await?;
        bed.signal("go")?;
        bed.finish([b]).await?.at_the_first_attempt()
    })
    .await
}

/// A record of partition 0 that waits for `go`, one behind it of the same key, and others that have come out.
async fn a_slow_record_in_front(bed: &Bed) -> Result<Process> {
    let mut a = bed.start("a")?;
    a.holds(usize::try_from(bed.partitions)?).await?;
    bed.send(&[input("slow", "until:go").to(0), input("slow", "ok").to(0)])
        .await?;
    let others: Vec<_> = spread(OTHERS, 30, "ok")
        .into_iter()
        .map(|record| record.to(0))
        .collect();
    bed.send(&others).await?;
    let out = bed.come_out(OTHERS).await?;
    ensure!(
        out.iter().all(|done| done.key != "slow"),
        "the slow key overtook its own record"
    );
    let at = bed.position(0).await?;
    ensure!(at == (0, (2..=301).collect()), "{at:?}");
    Ok(a)
}

/// Ten records for each partition, each of a key that lives there alone.
fn ten_each(partitions: i32) -> Vec<Input> {
    let one = |n: i32| input(&format!("p{}", n % partitions), "ok").to(n % partitions);
    (0..10 * partitions).map(one).collect()
}

/// Waits until a partition is stopped for a reason that says all of this.
async fn stops(stage: &mut Process, partition: i32, words: &[&str]) -> Result<()> {
    let says = |held: &Held| {
        held.partition == partition && held.stopped && words.iter().all(|word| held.reason.contains(word))
    };
    let what = format!("to stop partition {partition} and say {words:?}");
    stage
        .until(&what, SOON, |seen| seen.partitions.iter().any(says))
        .await
        .map(|_| ())
}

pub async fn a_lost_range_stops_its_partition_alone(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "lost", 2, async |bed| {
        let a = bed.start("a")?;
        bed.send(&ten_each(2)).await?;
        bed.settled().await?;
        a.leave().await?;
        bed.send(&ten_each(2)).await?;
        let start = bed.broker.delete_records(&bed.input, 0, 15).await?;
        ensure!(start == 15, "the log starts at {start}");

        let mut a = bed.start("a")?;
        let words = ["LOST_RANGE", "committed position 10", "start 15", "5 records"];
        stops(&mut a, 0, &words).await?;
        bed.settled_but(&[0]).await?;
        bed.send(&ten_each(2)).await?;
        bed.settled_but(&[0]).await?;
        bed.come_out(10 + 30).await?;
        let at = bed.position(0).await?;
        ensure!(at == (10, [].into()), "nobody but a person moves it: {at:?}");
        a.leave().await?;

        // What the reason tells a person to do. The member is static: its session has to end first.
        bed.broker.leave(&bed.group, "a").await?;
        let at = Committed {
            offset: 15,
            metadata: String::new(),
        };
        bed.broker.commit(&bed.group, &bed.input, 0, &at).await?;
        let a = bed.start("a")?;
        bed.settled().await?;
        bed.come_out(10 + 30 + 15).await?;
        a.leave().await
    })
    .await
}

/// Retention overtakes a member that has as much to do as it may hold.
pub async fn a_lost_range_under_a_running_member_stops_its_partition(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "lost-running", 1, async |bed| {
        let mut spec = bed.spec("a");
        spec.limits.window_bytes = 1 << 20;
        let mut a = bed.start_as(&spec)?;
        a.holds(1).await?;
        let script = format!("until:go:{}", "x".repeat(10_000));
        let backlog: Vec<_> = (0..5000).map(|n| input(&format!("k{n}"), &script)).collect();
        bed.send(&backlog).await?;
        a.until("to hold what it may", SOON, |seen| seen.window > 50).await?;
        let start = bed.broker.delete_records(&bed.input, 0, 4990).await?;
        ensure!(start == 4990, "the log starts at {start}");
        bed.signal("go")?;
        stops(&mut a, 0, &["LOST_RANGE", "start 4990", "records were deleted"]).await?;
        let (at, _) = bed.position(0).await?;
        ensure!(at < 4990, "it went on at {at}, as if nothing was lost");
        let out = bed.outputs().await?;
        let in_order = out.iter().all(|done| done.origin.1 < 4990);
        ensure!(in_order && !out.is_empty(), "it went on behind what was lost");
        a.leave().await
    })
    .await
}

pub async fn unreadable_metadata_stops_its_partition_alone(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "metadata", 3, async |bed| {
        bed.send(&ten_each(3)).await?;
        let newer = Committed {
            offset: 4,
            metadata: "9;of a version to come".into(),
        };
        let foreign = Committed {
            offset: 4,
            metadata: "1;written by something else".into(),
        };
        for (partition, committed) in [(0, &newer), (1, &foreign)] {
            bed.broker.commit(&bed.group, &bed.input, partition, committed).await?;
        }
        let mut a = bed.start("a")?;
        stops(&mut a, 0, &["OFFSET_METADATA at offset 4", "version \"9\""]).await?;
        stops(&mut a, 1, &["OFFSET_METADATA at offset 4", "not readable"]).await?;
        bed.settled_but(&[0, 1]).await?;
        a.leave().await?;
        let committed = bed.committed().await?;
        ensure!(
            committed.get(&0) == Some(&newer) && committed.get(&1) == Some(&foreign),
            "what could not be read was written over: {committed:?}"
        );
        let out = bed.exactly_once_but(|partition, _| partition < 2).await?;
        out.at_the_first_attempt()
    })
    .await
}
