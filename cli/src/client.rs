//! Reaching the services: of the local stack, found by its directory, or of a remote one, by addresses.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use millrace_api::indexer::v1::audit_service_client::AuditServiceClient;
use millrace_api::indexer::v1::search_service_client::SearchServiceClient;
use millrace_api::ingest::v1::dead_letter_service_client::DeadLetterServiceClient;
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_kafka::KafkaConfig;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::stack::state::{Addresses, Layout, State};

/// How long a call may take, where it is not a stream.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Where the services are.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Where")]
pub struct Target {
    /// Directory of the local stack
    #[arg(
        long,
        global = true,
        default_value = ".millrace",
        env = "MILLRACE_DIR",
        value_name = "DIR"
    )]
    pub dir: PathBuf,
    /// Address of ingest, for example http://127.0.0.1:7701 [default: the local stack's]
    #[arg(long, global = true, env = "MILLRACE_INGEST", value_name = "URL")]
    pub ingest: Option<String>,
    /// Address of the embedder [default: the local stack's]
    #[arg(long, global = true, env = "MILLRACE_EMBEDDER", value_name = "URL")]
    pub embedder: Option<String>,
    /// Address of the indexer [default: the local stack's]
    #[arg(long, global = true, env = "MILLRACE_INDEXER", value_name = "URL")]
    pub indexer: Option<String>,
    /// Kafka's bootstrap servers [default: the local stack's]
    #[arg(long, global = true, env = "MILLRACE_KAFKA", value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Address of the schema registry's API [default: the local stack's]
    #[arg(long, global = true, env = "MILLRACE_REGISTRY", value_name = "URL")]
    pub registry: Option<String>,
}

impl Target {
    /// The address given, or the one that the local stack keeps.
    fn address(&self, given: Option<&String>, flag: &str, kept: impl Fn(&Addresses) -> &str) -> Result<String> {
        if let Some(address) = given {
            return Ok(address.clone());
        }
        match State::load(&Layout::new(&self.dir)?)? {
            Some(state) => Ok(kept(&state.addresses).to_owned()),
            None => bail!(
                "there is no stack in {}: start one with `millrace up`, name its directory with --dir, or give {flag} \
                 for a remote one",
                self.dir.display()
            ),
        }
    }
    /// A client of ingest.
    pub fn ingest(&self) -> Result<IngestServiceClient<Channel>> {
        let address = self.address(self.ingest.as_ref(), "--ingest", |a| &a.ingest)?;
        Ok(IngestServiceClient::new(millrace_rpc::client::channel(&address)?))
    }
    /// A client of ingest's dead letters, for originals of every size.
    pub fn dead_letters(&self) -> Result<DeadLetterServiceClient<Channel>> {
        let address = self.address(self.ingest.as_ref(), "--ingest", |a| &a.ingest)?;
        Ok(DeadLetterServiceClient::new(millrace_rpc::client::channel(&address)?).max_decoding_message_size(32 << 20))
    }
    /// A client of the indexer.
    pub fn search(&self) -> Result<SearchServiceClient<Channel>> {
        let address = self.address(self.indexer.as_ref(), "--indexer", |a| &a.indexer)?;
        Ok(SearchServiceClient::new(millrace_rpc::client::channel(&address)?).max_decoding_message_size(32 << 20))
    }
    /// A client of the indexer's audits.
    pub fn audit(&self) -> Result<AuditServiceClient<Channel>> {
        let address = self.address(self.indexer.as_ref(), "--indexer", |a| &a.indexer)?;
        Ok(AuditServiceClient::new(millrace_rpc::client::channel(&address)?))
    }
    /// Clients of every instance of a service, by name: the local stack's, or the one whose address was given.
    pub fn pipelines(&self, service: &str) -> Result<Vec<(String, PipelineServiceClient<Channel>)>> {
        let (given, flag) = match service {
            "ingest" => (self.ingest.as_ref(), "--ingest"),
            "embedder" => (self.embedder.as_ref(), "--embedder"),
            _ => (self.indexer.as_ref(), "--indexer"),
        };
        let first = self.address(given, flag, |a| a.of(service).unwrap_or_default())?;
        let mut all = vec![(service.to_owned(), first)];
        if given.is_none()
            && let Some(state) = State::load(&Layout::new(&self.dir)?)?
        {
            let others = state.addresses.others.into_iter();
            all.extend(others.filter(|(part, _)| part.rsplit_once('-').is_some_and(|(name, _)| name == service)));
        }
        let client = |(name, address): (String, String)| {
            Ok((
                name,
                PipelineServiceClient::new(millrace_rpc::client::channel(&address)?),
            ))
        };
        all.into_iter().map(client).collect()
    }
    /// How Kafka is reached.
    pub fn kafka(&self) -> Result<KafkaConfig> {
        let bootstrap_servers = self.address(self.kafka.as_ref(), "--kafka", |a| &a.kafka)?;
        Ok(KafkaConfig {
            bootstrap_servers,
            ..KafkaConfig::default()
        })
    }
    /// The registry's address.
    pub fn registry_address(&self) -> Result<String> {
        self.address(self.registry.as_ref(), "--registry", |a| &a.registry)
    }
    /// The registry's address, only where it was given.
    pub fn given_registry(&self) -> Option<&String> {
        self.registry.as_ref()
    }
}

/// A request with a deadline.
pub fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    millrace_rpc::deadline::set(&mut request, limit);
    request
}

/// An error of a call, with what to do next.
pub fn explain(error: &anyhow::Error, status: &Status) -> String {
    // Contexts stand before the status; the status's own causes say the same again.
    let before = error
        .chain()
        .take_while(|cause| cause.downcast_ref::<Status>().is_none());
    let mut parts: Vec<String> = before.map(ToString::to_string).collect();
    parts.push(match millrace_rpc::error::reason(status) {
        // A service's own sentence says all; the code's description would only stand in its way.
        Some(reason) => format!("{} ({reason})", status.message()),
        None => millrace_rpc::error::describe(status),
    });
    let mut text = parts.join(": ");
    if let Some(hint) = hint(status) {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

fn hint(status: &Status) -> Option<&'static str> {
    let reason = millrace_rpc::error::reason(status);
    let from_service = reason.is_some();
    match status.code() {
        Code::NotFound if reason.as_deref() == Some("LETTER_UNKNOWN") => Some("`millrace dlq list` tells the keys"),
        Code::Unavailable if !from_service => {
            Some("nothing answers there: is the stack up? `millrace up` starts the local one")
        }
        Code::Unavailable | Code::ResourceExhausted => Some("try again in a moment"),
        Code::DeadlineExceeded => Some("it took too long: look at the logs, or try again"),
        Code::NotFound => Some("check the document id and --tenant"),
        Code::Internal | Code::Unknown => Some("the service's log says more"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_says_reason_and_what_to_do() {
        let status: Status =
            millrace_rpc::error::invalid_field("body", "BODY_NOT_UTF8", "the body is not UTF-8").status();
        let error = Err::<(), _>(status.clone()).context("a.md").unwrap_err();
        let text = explain(&error, &status);
        assert!(text.starts_with("a.md: ") && text.contains("BODY_NOT_UTF8"), "{text}");
        let away = Status::unavailable("tcp connect error");
        let text = explain(&anyhow::Error::from(away.clone()), &away);
        assert!(text.contains("millrace up"), "{text}");
    }

    #[test]
    fn without_a_stack_the_ways_out_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target {
            dir: dir.path().join("none"),
            ingest: None,
            embedder: None,
            indexer: None,
            kafka: None,
            registry: None,
        };
        let refused = target.kafka().unwrap_err().to_string();
        assert!(
            refused.contains("millrace up") && refused.contains("--kafka"),
            "{refused}"
        );
    }
}
