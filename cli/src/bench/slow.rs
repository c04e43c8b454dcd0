//! (d) With one record of 5 s in flight in every partition, always: what the others keep of their throughput.
//!
//! Throughput is counted from the outputs that stand in the log, by the time at which they were written, over the same
//! span of each run. Both runs end while records are left, and are verified against what was committed.
//!
//! Two stages: one whose records take 0 to 40 ms, and one that does nothing else. The second meets a bound by design: a
//! partition's window spans 8,192 offsets above its lowest unfinished one, so while a record takes 5 s its partition
//! processes at most 8,192 others, 1,638 a second.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use millrace_flow::runner::Limits;
use tokio::time::sleep;

use super::report::{Row, Target, Unit};
use super::stages::{self, SLOW, Setup, Simulated, Slow};
use super::timer::TimerThread;
use super::workload::Workload;
use super::{Lab, PARTITIONS};

const TIME: Duration = Duration::from_secs(5);
/// Counted: two slow records, one after another.
const SPAN: Duration = Duration::from_secs(10);
/// Before it: the start, and the first slow record of every partition.
const START: Duration = Duration::from_secs(1);

pub async fn run(lab: &Lab) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, records, longest) in [
        ("0 to 40 ms each", 250_000, Duration::from_millis(40)),
        ("nothing to do", 1_500_000, Duration::ZERO),
    ] {
        let step = lab.progress.step(format!("d: {name}"));
        let workload = Workload {
            alone_every: Some(16),
            ..Workload::new(records, 100)
        };
        let input = lab.topic(&format!("d.{records}.in"), PARTITIONS).await?;
        step.say("filling its topic");
        workload.fill(&lab.kafka, &input).await?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for run in 0..lab.runs {
            step.say(format!("run {} of {}", run + 1, lab.runs));
            let name = format!("d.{records}.{run}");
            without.push(once(lab, &workload, &input, longest, false, &name).await?);
            with.push(once(lab, &workload, &input, longest, true, &name).await?);
        }
        lab.remove(&[&input], &[]).await?;
        step.done("measured");
        rows.push(Row {
            figure: "d",
            name: format!("beside a record of 5 s in every partition, {name}"),
            unit: Unit::RecordsPerSecond,
            millrace: with,
            yardstick: "the same without slow records",
            beside: Ok(without),
            target: Target::AtLeastTimes(0.9),
        });
    }
    Ok(rows)
}

/// Records a second, slow ones not counted.
async fn once(lab: &Lab, workload: &Workload, input: &str, longest: Duration, slow: bool, name: &str) -> Result<f64> {
    let name = format!("{name}.{}", if slow { "with" } else { "without" });
    let output = lab.topic(&name, PARTITIONS).await?;
    let setup = Setup {
        group: lab.name(&name),
        instance: "0".into(),
        input: input.to_owned(),
        limits: Limits::default(),
    };
    let timer = TimerThread::start()?;
    let first = Arc::<OnceLock<_>>::default();
    let service = Simulated {
        topic: output.as_str().into(),
        longest,
        timer: timer.timer(),
        slow: slow.then(|| (TIME, Arc::new(Slow::none(PARTITIONS)))),
        first: first.clone(),
    };
    let mut stage = stages::start(&lab.kafka, &setup, service);
    let long_enough = async {
        while first.get().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(START + SPAN + Duration::from_millis(500)).await;
    };
    tokio::select! {
        () = long_enough => {}
        error = stage.ended() => return Err(error),
    }
    // Waits for the slow ones too, which end within its bound.
    stage.stop().await?;
    let committed = lab.committed(&setup.group, input, PARTITIONS)?;
    let positions = tokio::task::spawn_blocking(move || committed.now()).await??;
    let finished = workload.finished(&positions)?;
    let written = Arc::<Mutex<Vec<i64>>>::default();
    let times = written.clone();
    let note = move |seen: millrace_kafka::yardstick::log::Seen<'_>| {
        if !seen.value.ends_with(SLOW) {
            times
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(seen.timestamp_ms);
        }
    };
    workload.verify(&lab.kafka, &output, Some(finished), note).await?;
    lab.remove(&[&output], &[&setup.group]).await?;
    let written = std::mem::take(&mut *written.lock().unwrap_or_else(PoisonError::into_inner));
    rate(&written, workload.records)
}

/// Outputs a second over the span; over less where the input ended before.
fn rate(written: &[i64], records: u64) -> Result<f64> {
    let (Some(first), Some(last)) = (written.iter().min(), written.iter().max()) else {
        bail!("nothing was written");
    };
    let start = first + START.as_millis() as i64;
    let all_written = written.len() as u64 * 100 >= records * 99;
    let end = match start + SPAN.as_millis() as i64 {
        end if all_written => end.min(*last),
        end => end,
    };
    if end <= start {
        bail!(
            "{records} records were processed within {} s: too few to tell",
            START.as_secs()
        );
    }
    let counted = written.iter().filter(|at| (start..end).contains(*at)).count();
    Ok(counted as f64 * 1e3 / (end - start) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_span_counts_and_an_input_that_ended_shortens_it() {
        // One a millisecond for 20 s, then for 3 s.
        let long: Vec<i64> = (0..20_000).collect();
        assert_eq!(rate(&long, 100_000).unwrap(), 1000.0);
        assert_eq!(rate(&long[..3000], 3000).unwrap(), 1000.0);
        assert!(rate(&long[..3000], 100_000).unwrap() < 300.0);
        assert!(rate(&long[..500], 500).is_err());
    }
}
