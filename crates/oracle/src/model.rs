//! What happens to the model: an endpoint that limits, fails, hangs and hangs up; and that refuses some chunks until it is
//! told not to, whereupon the letters of those are redriven.
//!
//! | fault | what |
//! |---|---|
//! | `rate_limit` | 429, with a `Retry-After` of some seconds |
//! | `errors` | 500 |
//! | `hang` | no answer |
//! | `hang_up` | the connection is closed without an answer |
//! | `nonsense` | 200, and no vectors |
//! | `kill_at_work` | no answer to documents, and the embedder is killed with one under way, three times: the fourth process has a suspect, and nothing else befalls it until that one has passed |

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, PartitionState, Stage};
use millrace_runtime::clock::now_ms;
use millrace_testkit::model::Misbehaviour;
use millrace_testkit::{ModelEndpoint, Stack, poll};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, WORD};
use crate::faults::{Faults, RECOVERY, pause};

/// Of the vectors: those of the model that the stack's tokenizer and manifest belong to.
pub const DIMENSIONS: usize = 384;

const BETWEEN_SECONDS: Range<u64> = 8..24;
const LASTS_SECONDS: Range<u64> = 1..5;
const BETWEEN_REDRIVES_SECONDS: Range<u64> = 10..20;
/// How often a letter is redriven in the storm: those that nobody can read come back each time.
const REDRIVES: i32 = 2;
/// For an embedder to ask for the vectors of a document.
const AT_WORK_WITHIN: Duration = Duration::from_secs(120);
/// For the suspects to pass: brokers may be away meanwhile.
const PASSED_WITHIN: Duration = Duration::from_secs(180);
/// How long the endpoint then answers everything.
const LENIENT: Duration = Duration::from_secs(5);

/// Misbehaves from time to time, until it is told to stop; it behaves then.
pub async fn faults(
    stack: &Stack,
    model: &ModelEndpoint,
    faults: &Faults,
    seed: u64,
    stop: &CancellationToken,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    // Once in any run: by chance a process is rarely killed before its positions have moved at all.
    let mut at_work = true;
    while pause(&mut rng, BETWEEN_SECONDS, stop).await {
        if at_work {
            at_work = false;
            kill_at_work(stack, model, faults, stop).await?;
            continue;
        }
        let retry_after = Some(Duration::from_secs(rng.random_range(1..3)));
        let (name, misbehaviour) = match rng.random_range(0..7) {
            6 => {
                at_work = true;
                continue;
            }
            0 | 1 => ("rate_limit", Misbehaviour::RateLimit { retry_after }),
            2 => ("errors", Misbehaviour::Status(500)),
            3 => ("hang", Misbehaviour::Hang),
            4 => ("hang_up", Misbehaviour::HangUp),
            _ => ("nonsense", Misbehaviour::Html),
        };
        let lasts = Duration::from_secs(rng.random_range(LASTS_SECONDS));
        let from_ms = now_ms();
        model.misbehave_for(misbehaviour, lasts);
        stop.run_until_cancelled(tokio::time::sleep(lasts)).await;
        faults.note(name, "model", from_ms);
    }
    model.behave();
    Ok(())
}

async fn kill_at_work(stack: &Stack, model: &ModelEndpoint, faults: &Faults, stop: &CancellationToken) -> Result<()> {
    // A third death while the same record runs alone would make it a dead letter, as promised.
    let _aimed = faults.embedders_alone().await;
    // Documents do not pass while the model hangs, and one at a time after that.
    let _long = faults.one_that_lasts().await;
    let from_ms = now_ms();
    // Its canary is answered, so that it takes partitions.
    model.misbehave(Misbehaviour::HangOn(WORD));
    for _ in 0..3 {
        let hung = model.counts().hung;
        let at_work = poll::until("a document to be under way", AT_WORK_WITHIN, async || {
            Ok(if model.counts().hung > hung { Ok(()) } else { Err(hung) })
        });
        at_work.await?;
        stack.kill("embedder", Signal::KILL).await?;
    }
    model.behave();
    faults.note("kill_at_work", "embedder", from_ms);
    stack.serving("embedder").await?;
    Box::pin(passed(stack)).await?;
    stop.run_until_cancelled(tokio::time::sleep(RECOVERY)).await;
    Ok(())
}

/// Waits until the embedder runs everything side by side again.
async fn passed(stack: &Stack) -> Result<()> {
    let embedder = PipelineServiceClient::new(millrace_rpc::client::channel(&stack.addresses.embedder)?);
    poll::until("the embedder's suspects to have passed", PASSED_WITHIN, async || {
        let answer = embedder.clone().get_pipeline(GetPipelineRequest {}).await;
        let stages = answer.map(|answer| answer.into_inner().stages);
        let suspects = |stage: &Stage| {
            let partitions = &stage.partitions;
            partitions.is_empty() || partitions.iter().any(|p| p.state() == PartitionState::Quarantined)
        };
        Ok(match stages {
            Ok(stages) if !stages.iter().any(suspects) => Ok(()),
            stages => Err(stages),
        })
    })
    .await
}

/// Redrives what was given up, from time to time and once more when it is told to stop: the endpoint refuses nothing then.
pub async fn redrives(model: &ModelEndpoint, client: &Client, seed: u64, stop: &CancellationToken) -> Result<i64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut redriven = 0;
    while pause(&mut rng, BETWEEN_REDRIVES_SECONDS, stop).await {
        model.be_lenient(true);
        redriven += client.redrive(REDRIVES).await?;
        stop.run_until_cancelled(tokio::time::sleep(LENIENT)).await;
        model.be_lenient(false);
    }
    model.be_lenient(true);
    Ok(redriven)
}
