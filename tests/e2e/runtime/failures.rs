//! Each class of failure has one answer.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::{Stack, poll};

use super::bed::{Bed, on_bed, on_bed_with};
use super::records::{Done, Out, WRITTEN_FOR, input, spread};
use super::stage::{ATTEMPT, ATTEMPTS, CLASS, REASON, SINCE_LIMITED};
use crate::running;

const SOON: Duration = Duration::from_secs(30);

/// The only dead letter, which says why it is one and is otherwise as it was written.
fn the_letter<'o>(bed: &Bed, out: &'o Out, class: &str, reason: &str, attempts: &str) -> Result<&'o Done> {
    ensure!(out.dead.len() == 1, "{:?}", out.dead);
    let letter = out.dead.first().context("none")?;
    is_letter(bed, letter, class, reason, attempts)?;
    Ok(letter)
}

fn is_letter(bed: &Bed, letter: &Done, class: &str, reason: &str, attempts: &str) -> Result<()> {
    let says = [CLASS, REASON, ATTEMPTS, WRITTEN_FOR].map(|name| letter.header(name));
    ensure!(
        says == [class, reason, attempts, &bed.group].map(Some),
        "it says {says:?}: {letter:?}"
    );
    Ok(())
}

fn attempts(out: &[Done]) -> BTreeSet<Option<&str>> {
    out.iter().map(|done| done.header(ATTEMPT)).collect()
}

pub async fn an_invalid_record_is_given_up_at_once(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "invalid", 1, async |bed| {
        bed.send(&[input("k", "ok"), input("k", "invalid"), input("k", "ok")])
            .await?;
        bed.send(&spread(50, 10, "ok")).await?;
        let a = bed.start("a")?;
        let out = bed.finish([a]).await?;
        let letter = the_letter(bed, &out, "INVALID", "SCRIPTED", "1")?;
        ensure!(
            letter.origin == (0, 1) && letter.key == "k" && letter.value == "invalid",
            "{letter:?}"
        );
        ensure!(attempts(&out.done) == [Some("1")].into(), "{:?}", out.done);
        Ok(())
    })
    .await
}

pub async fn a_failed_record_is_tried_three_times(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "failed", 1, async |bed| {
        bed.send(&[
            input("twice", "failed:2"),
            input("twice", "ok"),
            input("ever", "failed:9"),
            input("ever", "ok"),
        ])
        .await?;
        bed.send(&spread(50, 10, "ok")).await?;
        let a = bed.start("a")?;
        let out = bed.finish([a]).await?;
        let letter = the_letter(bed, &out, "FAILED", "SCRIPTED", "3")?;
        ensure!(letter.origin == (0, 2) && letter.value == "failed:9", "{letter:?}");
        let again: Vec<_> = out.done.iter().filter(|d| d.header(ATTEMPT) != Some("1")).collect();
        ensure!(
            again.len() == 1 && again[0].origin == (0, 0) && again[0].header(ATTEMPT) == Some("3"),
            "{again:?}"
        );
        Ok(())
    })
    .await
}

/// A letter is buried in one transaction with its record's position: never twice, whenever the process dies.
pub async fn kills_bury_no_letter_twice(stack: &mut Option<Stack>) -> Result<()> {
    const LETTERS: usize = 60;
    on_bed(running(stack)?, "buried", 2, async |bed| {
        let mut records = Vec::new();
        for n in 0..LETTERS {
            records.push(input(&format!("bad{n}"), "failed:9"));
            records.extend(spread(6, 40, "sleep:20"));
        }
        bed.send(&records).await?;
        for _ in 0..5 {
            let mut spec = bed.spec("a");
            spec.limits.max_in_flight = 8;
            let mut a = bed.start_as(&spec)?;
            // Some came out in this life: no death is any one record's making.
            a.processes(20).await?;
            a.kill().await?;
        }
        let a = bed.start("a")?;
        let out = bed.finish([a]).await?;
        ensure!(out.dead.len() == LETTERS, "{} dead letters", out.dead.len());
        for letter in &out.dead {
            is_letter(bed, letter, "FAILED", "SCRIPTED", "3")?;
        }
        Ok(())
    })
    .await
}

pub async fn an_output_that_no_topic_takes_is_invalid(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "huge", 1, async |bed| {
        bed.send(&spread(20, 10, "ok")).await?;
        bed.send(&[input("large", "huge:10000000"), input("large", "ok")])
            .await?;
        bed.send(&spread(20, 10, "ok")).await?;
        let a = bed.start("a")?;
        let out = bed.finish([a]).await?;
        let letter = the_letter(bed, &out, "INVALID", "OUTPUT_TOO_LARGE", "1")?;
        ensure!(letter.value == "huge:10000000", "{letter:?}");
        ensure!(attempts(&out.done) == [Some("1")].into(), "{:?}", out.done);
        Ok(())
    })
    .await
}

/// The client takes it, the topic does not: the whole transaction fails, again and again, for one record's sake.
pub async fn a_record_that_fails_its_transaction_is_found(stack: &mut Option<Stack>) -> Result<()> {
    let small = [("max.message.bytes", "20000")];
    on_bed_with(running(stack)?, "refused", 2, &small, async |bed| {
        bed.send(&spread(50, 20, "ok")).await?;
        bed.send(&[input("guilty", "huge:60000"), input("guilty", "ok")])
            .await?;
        bed.send(&spread(50, 20, "ok")).await?;
        let a = bed.start("a")?;
        let out = bed.finish([a]).await?;
        ensure!(out.dead.len() == 1, "{:?}", out.dead);
        let letter = &out.dead[0];
        ensure!(
            letter.value == "huge:60000" && letter.header(CLASS) == Some("INVALID"),
            "{letter:?}"
        );
        ensure!(attempts(&out.done) == [Some("1")].into(), "{:?}", out.done);
        Ok(())
    })
    .await
}

pub async fn a_rate_limit_shuts_the_gate(stack: &mut Option<Stack>) -> Result<()> {
    const RETRY: i64 = 1500;
    // Records that were started before the runtime heard of the limit.
    const STARTED: i64 = 100;
    on_bed(running(stack)?, "limited", 2, async |bed| {
        let mut a = bed.start("a")?;
        a.holds(2).await?;
        bed.send(&[input("slow-down", &format!("limited:1000:{RETRY}"))])
            .await?;
        a.until("to be limited", SOON, |seen| {
            seen.failures.iter().any(|(class, _)| class == "RATE_LIMITED")
        })
        .await?;
        bed.send(&spread(50, 20, "ok")).await?;
        let out = bed.finish([a]).await?;
        out.at_the_first_attempt()?;
        let mut behind_the_gate = 0;
        for done in &out.done {
            let since: Option<i64> = done.header(SINCE_LIMITED).map(str::parse).transpose()?;
            let Some(since) = since else { continue };
            ensure!(
                !(STARTED..RETRY).contains(&since),
                "it ran {since} ms after a limit of {RETRY} ms: {done:?}"
            );
            behind_the_gate += i32::from(since >= RETRY);
        }
        ensure!(
            behind_the_gate > 40,
            "only {behind_the_gate} records waited for the gate"
        );
        Ok(())
    })
    .await
}

/// A dependency of every record is away for longer than the gate's patience.
pub async fn an_outage_stops_fetching_and_is_over_by_itself(stack: &mut Option<Stack>) -> Result<()> {
    const AWAY_MS: u64 = 12_000;
    on_bed(running(stack)?, "outage", 2, async |bed| {
        let mut spec = bed.spec("a");
        spec.limits.gate_patience_ms = 2000;
        let mut a = bed.start_as(&spec)?;
        a.holds(2).await?;
        let before = bed.membership().await?;
        bed.send(&spread(200, 20, &format!("transient:{AWAY_MS}"))).await?;
        a.until("to say that it stands still", SOON, |seen| {
            seen.reason.contains("let through") && seen.reason.contains("SCRIPTED")
        })
        .await?;
        bed.send(&spread(50, 20, "ok")).await?;
        let seen = a.picture();
        ensure!(seen.processed == 0 && seen.failed == 0, "{seen:?}");
        bed.settled().await?;
        let seen = a.picture();
        ensure!(seen.restarts == 0, "{seen:?}");
        let after = bed.membership().await?;
        ensure!(after.generation == before.generation, "{before:?}, then {after:?}");
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}

pub async fn a_transient_record_waits_alone(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "transient", 1, async |bed| {
        let a = bed.start("a")?;
        bed.send(&[input("stuck", "transient:6000"), input("stuck", "ok")])
            .await?;
        bed.send(&spread(100, 20, "ok")).await?;
        let others = poll::until("the others to come out", SOON, async || {
            let outputs = bed.outputs().await?;
            let (stuck, others): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|done| done.key == "stuck");
            ensure!(stuck.is_empty(), "the others did not come out first");
            Ok(if others.len() == 100 {
                Ok(others)
            } else {
                Err(others.len())
            })
        })
        .await?;
        ensure!(attempts(&others) == [Some("1")].into(), "{others:?}");
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}
