//! When the faults have ended: until everything is finished, and what is left then.

use std::time::{Duration, Instant};

use anyhow::Result;
use millrace_api::ingest::v1::Receipt;
use millrace_testkit::Stack;

use crate::client::Client;
use crate::evidence::{self, Evidence};
use crate::verdict::{judge, points};

/// More than any letter of a run is redriven.
pub(crate) const REDRIVES: i32 = 1000;
/// Between two looks at the topics.
const AGAIN: Duration = Duration::from_millis(500);

/// Waits until every command has a final status, the letters that can be redriven among them, and the last markers are
/// written; or until patience ends: the verdict names what is missing. Whether a fresh document passed, and how many letters
/// were redriven.
pub async fn finished(
    stack: &Stack,
    client: &Client,
    fresh: &Receipt,
    patience: Duration,
) -> Result<(Result<(), String>, i64)> {
    let finished = async {
        let (began, mut redriven) = (Instant::now(), 0);
        while began.elapsed() < patience {
            let now = judge(&evidence::topics(&stack.addresses, client.journal()).await?);
            let waits_for = ["never_finished", "unannounced", "lost"];
            if waits_for.iter().all(|kind| now.examples(kind).is_empty()) {
                break;
            }
            redriven += client.redrive(REDRIVES).await?;
            tokio::time::sleep(AGAIN).await;
        }
        anyhow::Ok(redriven)
    };
    let passed = async {
        Ok(match tokio::time::timeout(patience, client.indexed(fresh)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("a fresh document: {error:#}")),
            Err(_) => Err("a fresh document was not INDEXED in time".to_owned()),
        })
    };
    tokio::try_join!(passed, finished)
}

/// All that can be read when nothing goes on any more. Clean-ups are waited for so long: points that nobody owns then are
/// the audit's finding too.
pub async fn evidence(stack: &Stack, client: &Client, documents: &[String], clean_up: Duration) -> Result<Evidence> {
    let mut evidence = evidence::topics(&stack.addresses, client.journal()).await?;
    evidence.index = evidence::index(client, documents).await?;
    evidence.deaths = deaths(stack)?;
    let (began, expected) = (Instant::now(), points(&evidence));
    loop {
        let (found, held) = client.audit().await?;
        let over = began.elapsed() >= clean_up;
        if !over && (held != expected || !found.is_empty()) {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        evidence.audit = found;
        if held != expected && !clean_up.is_zero() {
            let left = format!("{held} points when every clean-up should be over, expected were {expected}");
            evidence.audit.push(left);
        }
        return Ok(evidence);
    }
}

/// Ends of services that `up` told of and no fault causes: those are by SIGKILL, or clean.
fn deaths(stack: &Stack) -> Result<Vec<String>> {
    let told = std::fs::read_to_string(stack.dir().join("up.log"))?;
    let instances = stack.size.instances();
    let of_service = |line: &&str| {
        instances
            .iter()
            .any(|instance| line.starts_with(&format!("{} died", instance.part())))
    };
    let by_fault = |line: &&str| line.contains("(killed by signal 9)") || line.contains("(exit code 0)");
    let deaths = told.lines().filter(of_service).filter(|line| !by_fault(line));
    Ok(deaths.map(str::to_owned).collect())
}
