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
/// Documents of the lane that is to wait.
const BACKLOG: usize = 60;

pub async fn a_lane_goes_by_its_weight_and_is_for_life(_: &mut Option<Stack>) -> Result<()> {
    let environment = [
        ("MILLRACE_UP_LANES", "bulk,urgent=8"),
        ("MILLRACE_EMBEDDER_STAGE__MAX_IN_FLIGHT", "1"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let millrace = Path::new(env!("CARGO_BIN_EXE_millrace"));
    let stack = Stack::up_with(millrace, Size::default(), environment.into(), |_| ()).await?;
    if let Err(error) = on(&stack).await {
        bail!("{error:#}\n\nits stack told:\n{}", stack.told());
    }
    stack.down().await?;
    Ok(())
}

async fn on(stack: &Stack) -> Result<()> {
    let client = Client::new(&stack.addresses, "lanes")?;
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
    let urgent = submit(client, "urgent.md".into(), URGENT).await?;
    for receipt in backlog.iter().chain([&urgent]) {
        client.reaches(receipt, &[DocumentState::Parsed]).await?;
    }
    embedder.resume(ResumeRequest { stage: stage() }).await?;
    for receipt in backlog.iter().chain([&urgent]) {
        client.indexed(receipt).await?;
    }
    let embedded = log::records(&stack.addresses.kafka, topics::EMBEDDED.name).await?;
    let key = Some(&b"lanes/urgent.md"[..]);
    let at_ms = embedded.iter().find(|record| record.key.as_deref() == key);
    let at_ms = at_ms.context("the urgent document was not embedded")?.timestamp_ms;
    let before = embedded.iter().filter(|record| record.timestamp_ms < at_ms).count();
    ensure!(
        before < BACKLOG / 2,
        "{before} parts were embedded before the urgent one"
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
