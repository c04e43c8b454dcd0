//! How a part says that it serves.

use std::time::Duration;

use millrace_api::pipeline::v1::GetPipelineRequest;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_schema::Registry;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Where to ask.
#[derive(Debug, Clone)]
pub enum Probe {
    /// The broker accepts connections: its listener opens when it is ready for them.
    Broker(String),
    /// The registry answers as one.
    Registry(Registry),
    /// `grpc.health.v1` says SERVING.
    Service(Channel),
}

impl Probe {
    const EVERY: Duration = Duration::from_millis(200);
    const LIMIT: Duration = Duration::from_secs(3);

    /// Asks until the answer is yes.
    pub async fn until_serving(&self) {
        let mut again = interval(Self::EVERY);
        loop {
            again.tick().await;
            if timeout(Self::LIMIT, self.serving()).await.unwrap_or(false) {
                return;
            }
        }
    }

    async fn serving(&self) -> bool {
        match self {
            Self::Broker(address) => TcpStream::connect(address).await.is_ok(),
            Self::Registry(registry) => registry.reachable().await.is_ok(),
            Self::Service(channel) => {
                let answer = HealthClient::new(channel.clone())
                    .check(HealthCheckRequest::default())
                    .await;
                answer.is_ok_and(|a| a.get_ref().status == i32::from(ServingStatus::Serving))
            }
        }
    }

    /// Why a service is not ready yet, in its own words; nothing if it does not answer.
    pub async fn why_not(&self) -> Option<String> {
        let Self::Service(channel) = self else { return None };
        let mut client = PipelineServiceClient::new(channel.clone());
        let answer = timeout(Self::LIMIT, client.get_pipeline(GetPipelineRequest {}))
            .await
            .ok()?
            .ok()?;
        let reasons = answer.into_inner().not_ready;
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}
