//! Lanes, on a stack of its own that works on one part at a time.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use millrace_api::ingest::v1::{DocumentState, Receipt};
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::{GetPipelineRequest, PauseRequest, ResumeRequest};
use millrace_events::{Epoch, Lane, topics};
use millrace_rpc::error::reason;
use millrace_testkit::{Client, Size, Stack, log};
use tonic::Code;

const BULK: &str = "bulk";
const URGENT: &str = "urgent";
/// Documents of the lane that is to wait, and of the other one. In the order of their coming, wherever that puts each, the last
/// of the few would be among the last of all.
const BACKLOG: usize = 60;
const FEW: usize = 8;

/// The embedder comes back within its session, with one topic more to read.
pub async fn a_lane_that_is_added_is_read_goes_by_its_weight_and_is_for_life(_: &mut Option<Stack>) -> Result<()> {
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let stack = Stack::up_with(millrace, Size::default(), environment("bulk"), |_| ()).await?;
    let client = Client::new(&stack.addresses, "lanes")?;
    client.indexed(&submit(&client, "first.md".into(), BULK).await?).await?;
    // Those of the start before stay.
    let stack = stack.restart_with(environment("urgent=8")).await?;
    if let Err(error) = on(&stack).await {
        bail!("{error:#}\n\nits stack told:\n{}", stack.told());
    }
    stack.down().await?;
    Ok(())
}

fn environment(lanes: &str) -> Vec<(String, String)> {
    let all = [
        ("MILLRACE_UP_LANES", lanes),
        ("MILLRACE_EMBEDDER_STAGE__MAX_IN_FLIGHT", "1"),
    ];
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

async fn on(stack: &Stack) -> Result<()> {
    let client = Client::new(&stack.addresses, "lanes")?;
    client
        .indexed(&submit(&client, "added.md".into(), URGENT).await?)
        .await?;
    goes_by_weight(stack, &client).await?;
    is_for_life(stack, &client).await
}

/// What waits in one lane does not hold up another.
async fn goes_by_weight(stack: &Stack, client: &Client) -> Result<()> {
    let channel = millrace_rpc::client::channel(&stack.addresses.embedder)?;
    let mut embedder = PipelineServiceClient::new(channel);
    let stage = || "embed".to_owned();
    embedder.pause(PauseRequest { stage: stage() }).await?;
    let backlog = (0..BACKLOG).map(|n| submit(client, format!("backlog/{n}.md"), BULK));
    let backlog = try_join_all(backlog).await?;
    let urgent = (0..FEW).map(|n| submit(client, format!("urgent/{n}.md"), URGENT));
    let urgent = try_join_all(urgent).await?;
    for receipt in backlog.iter().chain(&urgent) {
        client.reaches(receipt, &[DocumentState::Parsed]).await?;
    }
    embedder.resume(ResumeRequest { stage: stage() }).await?;
    for receipt in backlog.iter().chain(&urgent) {
        client.indexed(receipt).await?;
    }
    let embedded = log::records(&stack.addresses.kafka, topics::EMBEDDED.name).await?;
    let at_ms = |prefix: &str| -> Vec<i64> {
        let of_it = |key: &[u8]| key.starts_with(format!("lanes/{prefix}/").as_bytes());
        let found = embedded
            .iter()
            .filter(|record| record.key.as_deref().is_some_and(of_it));
        found.map(|record| record.timestamp_ms).collect()
    };
    let last = at_ms("urgent")
        .into_iter()
        .max()
        .context("no urgent document was embedded")?;
    let before = at_ms("backlog").into_iter().filter(|at_ms| *at_ms < last).count();
    ensure!(
        before < BACKLOG / 2,
        "{before} of {BACKLOG} were embedded before the last of {FEW} urgent ones"
    );
    let told = embedder.get_pipeline(GetPipelineRequest {}).await?.into_inner();
    let topics: Vec<&str> = told.stages[0].partitions.iter().map(|p| p.topic.as_str()).collect();
    ensure!(
        topics.contains(&"documents.parsed.bulk"),
        "lag is told by lane: {topics:?}"
    );
    Ok(())
}

async fn is_for_life(stack: &Stack, client: &Client) -> Result<()> {
    const ID: &str = "backlog/0.md";
    let changed = send(client, ID, URGENT)
        .await
        .err()
        .context("a document changed its lane")?;
    let (code, why) = (changed.code(), reason(&changed));
    ensure!(
        code == Code::FailedPrecondition && why.as_deref() == Some("LANE_CHANGED"),
        "{changed:?}"
    );
    let unknown = send(client, "new.md", "slow")
        .await
        .err()
        .context("a lane was made up")?;
    let (code, why) = (unknown.code(), reason(&unknown));
    ensure!(
        code == Code::InvalidArgument && why.as_deref() == Some("LANE_UNKNOWN"),
        "{unknown:?}"
    );
    let update = client.submit(ID, "Another text of it.").await?;
    let document = client.indexed(&update).await?;
    ensure!(document.lane == BULK, "{document:?}");
    ensure!(in_lane(stack, BULK, ID).await? == 2 && in_lane(stack, "", ID).await? == 0);
    let deleted = client.delete(ID).await?;
    client.reaches(&deleted, &[DocumentState::Deleted]).await?;
    let again = submit(client, ID.into(), URGENT).await?;
    let document = client.indexed(&again).await?;
    ensure!(document.lane == URGENT, "{document:?}");
    ensure!(in_lane(stack, BULK, ID).await? == 3 && in_lane(stack, URGENT, ID).await? == 1);
    Ok(())
}

async fn send(client: &Client, id: &str, lane: &str) -> Result<Receipt, tonic::Status> {
    let mut request = client.request(id, format!("A note of {id}."));
    request.lane = lane.to_owned();
    client.send(request).await
}

async fn submit(client: &Client, id: String, lane: &str) -> Result<Receipt> {
    Ok(send(client, &id, lane).await?)
}

/// How many parts of a document stand in a lane's topic.
async fn in_lane(stack: &Stack, lane: &str, id: &str) -> Result<usize> {
    let topic = topics::PARSED.in_lane(&Lane::new(lane)?, Epoch::FIRST);
    let records = log::records(&stack.addresses.kafka, &topic).await?;
    let key = format!("lanes/{id}");
    let of_it = records
        .iter()
        .filter(|record| record.key.as_deref() == Some(key.as_bytes()));
    Ok(of_it.count())
}
