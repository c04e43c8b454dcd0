//! Vectors for queries, from the embedder's Embed RPC.

use std::time::Duration;

use futures::future::BoxFuture;
use millrace_api::embedder::v1::EmbedRequest;
use millrace_api::embedder::v1::embedder_service_client::EmbedderServiceClient;
use millrace_events::{Model, TraceContext};
use millrace_rpc::span::{ClientSpanLayer, ClientSpans};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tower::Layer as _;

/// A query's vector and the model that computed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// As many values as the model's dimensions.
    pub vector: Vec<f32>,
    /// The model.
    pub model: Model,
}

/// Embeds a query within a time; a seam for tests.
pub trait EmbedQuery: Send + Sync + 'static {
    /// One text's vector.
    fn embed(&self, text: String, within: Duration, trace: TraceContext) -> BoxFuture<'_, Result<Embedded, Status>>;
}

/// The embedder service.
#[derive(Debug, Clone)]
pub struct EmbedderClient(EmbedderServiceClient<ClientSpans<Channel>>);

impl EmbedderClient {
    /// Over a channel to `address` that connects when first used.
    pub fn new(channel: Channel, address: &str) -> Self {
        Self(EmbedderServiceClient::new(ClientSpanLayer::to(address).layer(channel)))
    }
}

impl EmbedQuery for EmbedderClient {
    fn embed(&self, text: String, within: Duration, trace: TraceContext) -> BoxFuture<'_, Result<Embedded, Status>> {
        let mut client = self.0.clone();
        Box::pin(async move {
            let mut request = Request::new(EmbedRequest { texts: vec![text] });
            millrace_rpc::deadline::set(&mut request, within);
            millrace_rpc::trace::inject(&trace, request.metadata_mut());
            let answer = client
                .embed(request)
                .await
                .map_err(millrace_rpc::deadline::named)?
                .into_inner();
            let model = answer.model.unwrap_or_default();
            let mut embeddings = answer.embeddings;
            match embeddings.pop() {
                Some(embedding) if embeddings.is_empty() => Ok(Embedded {
                    vector: embedding.values,
                    model: Model {
                        id: model.id,
                        revision: model.revision,
                        dimensions: model.dimensions,
                        dtype: model.dtype,
                        normalized: model.normalized,
                    },
                }),
                _ => Err(Status::internal("the embedder did not answer one text with one vector")),
            }
        })
    }
}
