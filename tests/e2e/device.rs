//! What runs the model dies and hangs under load, with the real model in a process of its own: on a stack of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use millrace_api::embedder::v1::GetModelRequest;
use millrace_api::embedder::v1::embedder_service_client::EmbedderServiceClient;
use millrace_api::pipeline::v1::GetPipelineRequest;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_events::topics;
use millrace_failpoints::{FOLDER, Switch, device};
use millrace_testkit::children::children;
use millrace_testkit::client::INDEXED_WITHIN;
use millrace_testkit::{Client, Size, Stack, log, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::{check_topics, turn};

/// A batch that takes longer hangs. Long for a batch in a debug build, on a machine that does other things.
const HANGS_AFTER: Duration = Duration::from_secs(10);
const TENANT: &str = "device";
const SERVICE: &str = "embedder";
const DOCUMENTS: usize = 6;
/// Of a document; each is a chunk or more.
const SECTIONS: usize = 12;

pub async fn a_device_that_dies_and_hangs_costs_no_document(_: &mut Option<Stack>) -> Result<()> {
    let environment = [
        ("MILLRACE_EMBEDDER_MODEL__OWN_PROCESS", r#"["cpu"]"#.to_owned()),
        (
            "MILLRACE_EMBEDDER_MODEL__BATCH_TIMEOUT_MS",
            HANGS_AFTER.as_millis().to_string(),
        ),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let stack = Stack::up_with(millrace, Size::default(), environment, |_| ()).await?;
    if let Err(error) = on(&stack).await {
        bail!("{error:#}\n\nits stack told:\n{}", stack.told());
    }
    stack.down().await?;
    Ok(())
}

/// A batch that gives no answer is found long before it is given up.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// What befalls the device, and what shows of it.
const FAULTS: [(Switch, Shows); 7] = [
    (
        device::OUT_OF_MEMORY,
        Shows::Line("the device has no memory for a batch"),
    ),
    (device::SLOW, Shows::Time(Duration::from_millis(500))),
    (device::ERROR, Shows::NotReady),
    (device::NOT_A_NUMBER, Shows::NotReady),
    (device::NONSENSE, Shows::NotReady),
    (device::HANGS, Shows::NotReady),
    (device::GONE, Shows::NotReady),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// The work goes on, and the log says this.
    Line(&'static str),
    /// The work goes on, and takes so long at least.
    Time(Duration),
    /// The model computes nothing: its documents wait.
    NotReady,
}

pub async fn faults_on_order_cost_no_document(_: &mut Option<Stack>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let environment = [
        (FOLDER, folder.path().display().to_string()),
        (
            "MILLRACE_EMBEDDER_MODEL__BATCH_TIMEOUT_MS",
            GIVEN_UP_AFTER.as_millis().to_string(),
        ),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let stack = Stack::up_with(millrace, Size::default(), environment, |_| ()).await?;
    for (fault, shows) in FAULTS {
        if let Err(error) = befalls(&stack, folder.path(), fault, shows).await {
            bail!("{}: {error:#}\n\nits stack told:\n{}", fault.name, stack.told());
        }
    }
    nothing_was_given_up(&stack).await?;
    stack.down().await?;
    Ok(())
}

/// The same documents each time: their revisions must come out in order.
async fn befalls(stack: &Stack, folder: &Path, fault: Switch, shows: Shows) -> Result<()> {
    let client = Client::new(&stack.addresses, TENANT)?;
    turn(folder, SERVICE, fault.name).await?;
    if fault == device::NONSENSE {
        // Until a canary has found it, it is as good as any answer.
        is_ready(stack, false).await?;
    }
    let submit = async |n: usize| client.submit(&format!("{n}.md"), body(fault.name, n)).await;
    let began = Instant::now();
    let receipts = try_join_all((0..DOCUMENTS).map(submit)).await?;
    match shows {
        Shows::Line(_) | Shows::Time(_) => {}
        Shows::NotReady => {
            is_ready(stack, false).await?;
            let after = began.elapsed();
            ensure!(after < GIVEN_UP_AFTER / 2, "found after {after:?} only");
            println!("{}: not ready after {after:.1?}", fault.name);
            turn(folder, SERVICE, "").await?;
        }
    }
    for receipt in &receipts {
        client.indexed(receipt).await?;
    }
    let took = began.elapsed();
    match shows {
        Shows::Line(line) => {
            let log = std::fs::read_to_string(stack.dir().join("logs/embedder.log"))?;
            ensure!(log.contains(line), "the embedder did not meet it");
        }
        Shows::Time(least) => ensure!(took >= least, "all was done after {took:?}"),
        Shows::NotReady => {}
    }
    turn(folder, SERVICE, "").await?;
    is_ready(stack, true).await
}

async fn is_ready(stack: &Stack, ready: bool) -> Result<()> {
    let embedder = PipelineServiceClient::new(millrace_rpc::client::channel(&stack.addresses.embedder)?);
    poll::until(
        &format!("the model's readiness to be {ready}"),
        INDEXED_WITHIN,
        async || {
            let told = embedder.clone().get_pipeline(GetPipelineRequest {}).await?.into_inner();
            Ok(if told.not_ready.is_empty() == ready {
                Ok(())
            } else {
                Err(told.not_ready)
            })
        },
    )
    .await
}

/// No attempt was burned, nothing is a dead letter, and the topics keep their promises.
async fn nothing_was_given_up(stack: &Stack) -> Result<()> {
    let letters = log::records(&stack.addresses.kafka, topics::DLQ.name).await?;
    ensure!(letters.is_empty(), "given up: {letters:?}");
    let channel = millrace_rpc::client::channel(&stack.addresses.embedder)?;
    let pipeline = PipelineServiceClient::new(channel)
        .get_pipeline(GetPipelineRequest {})
        .await?;
    let stages = pipeline.into_inner().stages;
    let failures = stages.iter().flat_map(|stage| &stage.last_failures);
    let burned: Vec<_> = failures.filter(|failure| failure.class != "TRANSIENT").collect();
    ensure!(burned.is_empty(), "attempts were burned: {burned:?}");
    println!("the topics hold {:?}", check_topics(stack).await?);
    Ok(())
}

async fn on(stack: &Stack) -> Result<()> {
    let client = Client::new(&stack.addresses, TENANT)?;
    let embedder = stack.serving("embedder").await?;
    let mut last = one_worker(embedder, None).await?;
    for (name, signal) in [
        ("dies", Signal::KILL),
        ("hangs", Signal::STOP),
        ("dies again", Signal::KILL),
    ] {
        // The same documents each time: their revisions must come out in order.
        let submit = async |n: usize| client.submit(&format!("{n}.md"), body(name, n)).await;
        let receipts = try_join_all((0..DOCUMENTS).map(submit)).await?;
        working(stack).await?;
        kill_process(last, signal)?;
        for receipt in &receipts {
            client.indexed(receipt).await.with_context(|| name.to_owned())?;
        }
        last = one_worker(embedder, Some(last)).await?;
        ensure!(stack.pid("embedder")? == embedder, "the embedder itself died");
    }
    let letters = log::records(&stack.addresses.kafka, topics::DLQ.name).await?;
    ensure!(letters.is_empty(), "given up: {letters:?}");
    let channel = millrace_rpc::client::channel(&stack.addresses.embedder)?;
    let pipeline = PipelineServiceClient::new(channel.clone())
        .get_pipeline(GetPipelineRequest {})
        .await?;
    let stages = pipeline.into_inner().stages;
    let failures: Vec<_> = stages.iter().flat_map(|stage| &stage.last_failures).collect();
    ensure!(failures.is_empty(), "records were told of it: {failures:?}");
    let model = EmbedderServiceClient::new(channel)
        .get_model(GetModelRequest {})
        .await?
        .into_inner();
    ensure!(
        (model.device.as_str(), model.stands_in_for.as_str()) == ("cpu", ""),
        "{model:?}"
    );
    let seen = check_topics(stack).await?;
    println!("the topics hold {seen:?}");
    // Whatever becomes of the embedder, no process stays behind.
    stack.kill("embedder", Signal::KILL).await?;
    poll::until("the worker to be gone", INDEXED_WITHIN, async || {
        let command = std::fs::read(format!("/proc/{}/cmdline", last.as_raw_nonzero()));
        Ok(match command {
            Ok(command) if command.windows(WORKER.len()).any(|part| part == WORKER.as_bytes()) => Err(command),
            _ => Ok(()),
        })
    })
    .await?;
    stack.serving("embedder").await?;
    Ok(())
}

fn body(name: &str, number: usize) -> String {
    let sentence = format!("Mill {number} stands at the river, and the wheel {name} while the miller counts sacks. ");
    let section = |n: usize| format!("# Section {n}\n\n{}\n\n", sentence.repeat(4));
    (0..SECTIONS).map(section).collect()
}

/// Until the embedder has taken records.
async fn working(stack: &Stack) -> Result<()> {
    let embedder = PipelineServiceClient::new(millrace_rpc::client::channel(&stack.addresses.embedder)?);
    poll::until("the embedder to work", INDEXED_WITHIN, async || {
        let pipeline = embedder.clone().get_pipeline(GetPipelineRequest {}).await?.into_inner();
        let window: u64 = pipeline.stages.iter().map(|stage| stage.window_records as u64).sum();
        Ok(if window > 0 { Ok(()) } else { Err(pipeline) })
    })
    .await
}

const WORKER: &str = "model-worker";

/// The embedder's one worker, another one than before.
async fn one_worker(embedder: Pid, before: Option<Pid>) -> Result<Pid> {
    poll::until("one new worker", INDEXED_WITHIN, async || {
        let workers = workers(embedder)?;
        Ok(match &workers[..] {
            [one] if Some(*one) != before => Ok(*one),
            _ => Err(workers),
        })
    })
    .await
}

fn workers(embedder: Pid) -> Result<Vec<Pid>> {
    let found = children(embedder.as_raw_nonzero().get(), |command| command.contains(WORKER))?;
    Ok(found.into_iter().filter_map(Pid::from_raw).collect())
}
