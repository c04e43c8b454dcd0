//! Who is a member, and what that costs: restarts, fencing, more and fewer processes.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_testkit::proxy::Call;
use millrace_testkit::{Stack, poll};
use tokio::process::Command;
use tokio::time::timeout;

use super::bed::on_bed;
use super::process::Process;
use super::records::spread;
use super::stage::FENCED;
use crate::running;

/// For a fenced process to find out: a heartbeat, and the end of its session.
const FENCED_WITHIN: Duration = Duration::from_secs(60);
/// For longer than a member with a short session is waited for.
const HELD: Duration = Duration::from_secs(60);
/// What a fenced process says.
const SENTENCES: [&str; 2] = [
    "another process with the same instance name",
    "give every process an instance name of its own",
];

/// What a member says that is replaced because its group does not let it in.
const NOT_LET_IN: &str = "the consumer group has not let this member in";

/// The client itself would wait for ten minutes: a join waits for others, and this one's answer is late.
pub async fn a_join_without_an_answer_is_made_anew(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "unanswered-join", 2, async |bed| {
        let (proxy, spec) = bed.behind_a_proxy(bed.of_short_session("a")).await?;
        let held = proxy.hold_answer(Call::JoinGroup, HELD);
        let joined = async {
            let mut a = bed.start_as(&spec)?;
            a.until("to join anew", HELD, |seen| seen.restarts == 1).await?;
            a.holds(2).await?;
            ensure!(a.told()?.contains(NOT_LET_IN));
            anyhow::Ok(a)
        };
        let (a, ()) = tokio::try_join!(joined, held)?;
        bed.send(&spread(50, 10, "ok")).await?;
        bed.finish([a]).await?.at_the_first_attempt()
    })
    .await
}

/// As above, of a member that was let in and given nothing, once it joins again for what another leaves.
pub async fn a_later_join_without_an_answer_is_made_anew(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "unanswered-rejoin", 1, async |bed| {
        let mut a = bed.start_as(&bed.of_short_session("a"))?;
        a.holds(1).await?;
        let (proxy, spec) = bed.behind_a_proxy(bed.of_short_session("b")).await?;
        let mut b = bed.start_as(&spec)?;
        poll::until("two members", HELD, async || {
            let members = bed.membership().await?.members;
            Ok(if members.len() == 2 { Ok(()) } else { Err(members) })
        })
        .await?;
        let held = proxy.hold_answer(Call::JoinGroup, HELD);
        let joined = async {
            a.leave().await?;
            b.until("to join anew", HELD, |seen| seen.restarts == 1).await?;
            b.holds(1).await?;
            ensure!(b.told()?.contains(NOT_LET_IN));
            anyhow::Ok(())
        };
        tokio::try_join!(joined, held)?;
        bed.send(&spread(50, 10, "ok")).await?;
        bed.finish([b]).await?.at_the_first_attempt()
    })
    .await
}

/// As above, of a member that holds partitions. It has heard nothing of the generation that its group goes on with: each of its
/// commits is refused.
pub async fn a_join_without_an_answer_at_work_is_made_anew(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "unanswered-at-work", 2, async |bed| {
        let (proxy, spec) = bed.behind_a_proxy(bed.of_short_session("b")).await?;
        let mut b = bed.start_as(&spec)?;
        b.holds(2).await?;
        let held = proxy.hold_answer(Call::JoinGroup, HELD);
        let joined = async {
            let mut a = bed.start_as(&bed.of_short_session("a"))?;
            bed.send(&spread(50, 10, "ok")).await?;
            b.until("to join anew", HELD, |seen| seen.restarts == 1).await?;
            ensure!(b.told()?.contains(NOT_LET_IN));
            a.holds(1).await?;
            b.holds(1).await?;
            anyhow::Ok(a)
        };
        let (a, ()) = tokio::try_join!(joined, held)?;
        bed.finish([a, b]).await?.at_the_first_attempt()
    })
    .await
}

/// Both members in turn: one of them leads the group, and the leader's return must not cost a rebalance either.
pub async fn a_restart_within_the_session_leaves_the_generation(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "restart", 4, async |bed| {
        let mut stages = [bed.start("a")?, bed.start("b")?];
        for stage in &mut stages {
            stage.holds(2).await?;
        }
        let before = bed.membership().await?;
        ensure!(before.members.len() == 2, "{before:?}");
        let ((), _) = bed
            .under_load("sleep:5", async || {
                for (at, name) in ["a", "b"].into_iter().enumerate() {
                    stages[at].processes(100).await?;
                    let killed = std::mem::replace(&mut stages[at], bed.start(name)?);
                    killed.kill().await?;
                    stages[at].holds(2).await?;
                    stages[at].processes(100).await?;
                }
                Ok(())
            })
            .await?;
        let after = bed.membership().await?;
        ensure!(
            after.generation == before.generation,
            "a restart cost a rebalance: {:?}",
            bed.history().await?
        );
        for name in ["a", "b"] {
            ensure!(
                after.members.get(name) != before.members.get(name),
                "{name} has not joined again: {after:?}"
            );
        }
        bed.finish(stages).await?.at_the_first_attempt()
    })
    .await
}

/// The first of two processes of one name ends, with the code and the sentence for it.
async fn is_fenced(mut first: Process) -> Result<()> {
    let status = first.ended().await.context("the first is not fenced")?;
    let told = first.told()?;
    ensure!(status.code() == Some(FENCED.into()), "the first ended with {status}");
    for sentence in SENTENCES {
        ensure!(told.contains(sentence), "the first does not say {sentence:?}");
    }
    Ok(())
}

pub async fn a_second_process_of_the_name_fences_the_first(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "fenced", 2, async |bed| {
        let mut first = bed.start("a")?;
        first.holds(2).await?;
        bed.send(&spread(100, 10, "ok")).await?;
        bed.settled().await?;
        let mut second = bed.start("a")?;
        is_fenced(first).await?;
        second.holds(2).await?;
        bed.send(&spread(100, 10, "ok")).await?;
        bed.finish([second]).await?.at_the_first_attempt()
    })
    .await
}

/// As above, but the second takes the first one's producer away in the middle of its work, before it joins the group.
pub async fn a_second_process_of_the_name_fences_the_first_at_work(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "fenced-at-work", 2, async |bed| {
        let (second, _) = bed
            .under_load("sleep:5", async || {
                let mut first = bed.start("a")?;
                first.holds(2).await?;
                first.processes(200).await?;
                let mut second = bed.start("a")?;
                is_fenced(first).await?;
                second.processes(200).await?;
                Ok(second)
            })
            .await?;
        bed.finish([second]).await?.at_the_first_attempt()
    })
    .await
}

/// The service's own process: the second fences the first, `up` starts the first again, and that fences the second. Both
/// ends are seen: the first one's in what `up` says, the second one's by its code and its words.
pub async fn a_second_embedder_of_the_name_fences_the_first(stack: &mut Option<Stack>) -> Result<()> {
    let stack = running(stack)?;
    stack.serving("embedder").await?;
    let second = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["run", "embedder", "--config"])
        .arg(stack.dir().join("config/embedder.toml"))
        .env("MILLRACE_EMBEDDER_LISTEN", "127.0.0.1:0")
        .env("MILLRACE_EMBEDDER_HTTP", "127.0.0.1:0")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    poll::until("the first embedder to be fenced", FENCED_WITHIN, async || {
        let told = fs::read_to_string(stack.dir().join("up.log"))?;
        let died: Vec<_> = told
            .lines()
            .filter(|line| line.contains("embedder died"))
            .map(str::to_owned)
            .collect();
        Ok(if died.iter().any(|line| line.contains("(exit code 78)")) {
            Ok(())
        } else {
            Err(died)
        })
    })
    .await?;
    let log = fs::read_to_string(stack.dir().join("logs/embedder.log"))?;
    for sentence in SENTENCES {
        ensure!(log.contains(sentence), "the first does not say {sentence:?}");
    }
    let ended = timeout(FENCED_WITHIN, second.wait_with_output())
        .await
        .context("the second is not fenced")??;
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(
        ended.status.code() == Some(FENCED.into()),
        "the second ended with {}: {told}",
        ended.status
    );
    for sentence in SENTENCES {
        ensure!(told.contains(sentence), "the second does not say {sentence:?}: {told}");
    }
    stack.serving("embedder").await?;
    Ok(())
}

pub async fn one_to_three_to_one_under_load(stack: &mut Option<Stack>) -> Result<()> {
    on_bed(running(stack)?, "scale", 6, async |bed| {
        let (a, written) = bed
            .under_load("sleep:5", async || {
                let mut a = bed.start("a")?;
                a.holds(6).await?;
                a.processes(200).await?;
                let mut b = bed.start_as(&bed.of_short_session("b"))?;
                let mut c = bed.start_as(&bed.of_short_session("c"))?;
                for stage in [&mut a, &mut b, &mut c] {
                    stage.holds(2).await?;
                }
                for stage in [&mut a, &mut b, &mut c] {
                    let seen = stage.processes(200).await?;
                    ensure!(seen.restarts == 0, "a change of members cost a session: {seen:?}");
                }
                b.leave().await?;
                c.leave().await?;
                a.holds(6).await?;
                a.processes(200).await?;
                Ok(a)
            })
            .await?;
        bed.finish([a]).await?.at_the_first_attempt()?;
        println!("{written} records through 1, 3 and 1 processes");
        Ok(())
    })
    .await
}
