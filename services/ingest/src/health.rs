//! Keeps conditions as the things are that they stand for.

use std::convert::Infallible;
use std::time::Duration;

use millrace_kafka::Admin;
use millrace_rpc::error::chain;
use millrace_runtime::readiness::Condition;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::accept::Recreated;

const PROBE: Duration = Duration::from_secs(5);

/// Holds while Kafka answers.
pub async fn follow_kafka(admin: Admin, condition: Condition, shutdown: CancellationToken) -> Result<(), Infallible> {
    let probing = async {
        let mut ticks = tokio::time::interval(PROBE);
        loop {
            ticks.tick().await;
            match admin.reachable().await {
                Ok(()) => condition.ready(),
                Err(error) => condition.not_ready(chain(&error)),
            }
        }
    };
    shutdown.run_until_cancelled(probing).await;
    Ok(())
}

/// Holds until the log was found re-created.
pub async fn follow_log(
    mut recreated: watch::Receiver<Option<Recreated>>,
    condition: Condition,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    condition.ready();
    if let Some(Ok(_)) = shutdown.run_until_cancelled(recreated.wait_for(Option::is_some)).await {
        condition.not_ready("it was re-created: nothing is accepted until it is drained and switched to a new epoch");
    }
    Ok(())
}
