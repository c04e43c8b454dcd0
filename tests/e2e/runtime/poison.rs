//! Records that kill the process, and processes that are killed for nothing that a record did.

use anyhow::{Result, ensure};
use millrace_testkit::Stack;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;

use super::bed::on_bed;
use super::records::{input, spread};
use super::stage::ATTEMPTS;
use crate::running;

pub async fn a_poison_record_is_given_up_and_the_rest_comes_out(stack: &mut Option<Stack>) -> Result<()> {
    const DEATHS: usize = 5;
    on_bed(running(stack)?, "poison", 1, async |bed| {
        bed.send(&spread(25, 25, "sleep:5")).await?;
        bed.send(&[input("poison", "abort"), input("poison", "ok")]).await?;
        bed.send(&spread(25, 25, "sleep:5")).await?;
        let mut deaths = 0;
        let survivor = loop {
            let mut a = bed.start("a")?;
            tokio::select! {
                settled = bed.settled() => {
                    settled?;
                    break a;
                }
                ended = a.end() => {
                    let status = ended?;
                    ensure!(status.signal() == Some(Signal::ABORT.as_raw()), "it ended with {status}");
                    deaths += 1;
                    ensure!(deaths <= DEATHS, "it died {deaths} times; committed: {:?}", bed.committed().await?);
                }
            }
        };
        let out = bed.finish([survivor]).await?;
        ensure!(
            out.dead.len() == 1 && out.dead[0].value == "abort" && out.dead[0].header(ATTEMPTS) == Some("3"),
            "{:?}",
            out.dead
        );
        ensure!(out.done.len() == 51, "{} came out", out.done.len());
        println!("the poison record took {deaths} processes along");
        Ok(())
    })
    .await
}

/// Kills at once after the assignment and in the middle of work: the first alone cost a partition its standing, and never
/// three in a row, which is what a poison record looks like.
pub async fn kills_from_outside_give_nothing_up(stack: &mut Option<Stack>) -> Result<()> {
    const KILLS: usize = 12;
    on_bed(running(stack)?, "innocent", 2, async |bed| {
        let (a, written) = bed
            .under_load("sleep:20", async || {
                for kill in 0..KILLS {
                    let mut a = bed.start("a")?;
                    a.holds(2).await?;
                    if kill % 3 == 2 {
                        a.processes(20).await?;
                    }
                    a.kill().await?;
                }
                let mut a = bed.start("a")?;
                a.processes(200).await?;
                Ok(a)
            })
            .await?;
        let out = bed.finish([a]).await?;
        ensure!(out.dead.is_empty(), "given up: {:?}", out.dead);
        println!("{written} records through {KILLS} kills");
        Ok(())
    })
    .await
}
