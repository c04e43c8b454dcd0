//! The services as another team's client sees them.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_api::indexer::v1::search_request::Query;
use millrace_api::indexer::v1::search_service_client::SearchServiceClient;
use millrace_api::indexer::v1::{Hit, SearchRequest, SearchResponse};
use millrace_api::ingest::v1::ingest_service_client::IngestServiceClient;
use millrace_api::ingest::v1::{
    DeleteDocumentRequest, Document, DocumentState, GetDocumentRequest, Receipt, SubmitDocumentRequest,
};
use millrace_events::topics::PARTITIONS;
use millrace_kafka::partitioner::partition_for;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::poll;
use crate::stack::Addresses;

/// Longest wait for a document on two cores, kills of services included.
pub const INDEXED_WITHIN: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(30);

/// Whether a call may be made again: nothing was done, or the outcome is not known, because a part was away.
pub fn is_for_now(status: &Status) -> bool {
    use Code::{Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    match status.code() {
        // A connection that breaks under a call says UNKNOWN, or CANCELLED where the call had not left yet.
        Unavailable | Unknown | Cancelled | DeadlineExceeded | ResourceExhausted => true,
        // Or INTERNAL, with its cause at hand: what a service answers has none.
        Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

/// The first of these names whose document lives on a partition.
pub fn name_on(partition: i32, tenant: &str, name: impl Fn(u32) -> String) -> Option<String> {
    let lives = |name: &String| partition_for(format!("{tenant}/{name}").as_bytes(), PARTITIONS) == partition;
    (0..).map(name).find(lives)
}

/// A client of one tenant.
#[derive(Debug, Clone)]
pub struct Client {
    tenant: String,
    ingest: IngestServiceClient<Channel>,
    search: SearchServiceClient<Channel>,
}

impl Client {
    /// Connects when first used.
    pub fn new(addresses: &Addresses, tenant: &str) -> Result<Self> {
        Self::through("ingest", addresses, tenant)
    }

    /// As [`Client::new`], through that instance of ingest.
    pub fn through(ingest: &str, addresses: &Addresses, tenant: &str) -> Result<Self> {
        Ok(Self {
            tenant: tenant.to_owned(),
            ingest: IngestServiceClient::new(millrace_rpc::client::channel(addresses.of(ingest)?)?),
            search: SearchServiceClient::new(millrace_rpc::client::channel(&addresses.indexer)?),
        })
    }

    /// A request to submit Markdown.
    pub fn request(&self, id: &str, body: impl Into<Vec<u8>>) -> SubmitDocumentRequest {
        SubmitDocumentRequest {
            tenant: self.tenant.clone(),
            document_id: id.to_owned(),
            body: body.into(),
            media_type: "text/markdown".into(),
            request_id: String::new(),
            lane: String::new(),
        }
    }

    /// Sends a submission as it is.
    pub async fn send(&self, request: SubmitDocumentRequest) -> Result<Receipt, Status> {
        let answer = self.ingest.clone().submit_document(within(request)).await?;
        answer
            .into_inner()
            .receipt
            .ok_or_else(|| Status::internal("no receipt"))
    }

    /// Submits Markdown.
    pub async fn submit(&self, id: &str, body: impl Into<Vec<u8>>) -> Result<Receipt> {
        self.send(self.request(id, body))
            .await
            .with_context(|| format!("submit {id}"))
    }

    /// Sends a deletion, with a request id or an empty one.
    pub async fn send_delete(&self, id: &str, request_id: &str) -> Result<Receipt, Status> {
        let request = DeleteDocumentRequest {
            tenant: self.tenant.clone(),
            document_id: id.to_owned(),
            request_id: request_id.to_owned(),
        };
        let answer = self.ingest.clone().delete_document(within(request)).await?;
        answer
            .into_inner()
            .receipt
            .ok_or_else(|| Status::internal("no receipt"))
    }

    /// Deletes.
    pub async fn delete(&self, id: &str) -> Result<Receipt> {
        self.send_delete(id, "").await.with_context(|| format!("delete {id}"))
    }

    /// State of a revision, 0 for the latest; none while nothing is known, or while ingest is away.
    pub async fn get(&self, id: &str, revision: i64) -> Result<Option<Document>> {
        let request = GetDocumentRequest {
            tenant: self.tenant.clone(),
            document_id: id.to_owned(),
            revision,
        };
        match self.ingest.clone().get_document(within(request)).await {
            Ok(answer) => Ok(answer.into_inner().document),
            Err(status) if status.code() == Code::NotFound || is_for_now(&status) => Ok(None),
            Err(status) => Err(status).with_context(|| format!("get {id}")),
        }
    }

    /// Waits until a revision has one of these states.
    pub async fn reaches(&self, receipt: &Receipt, states: &[DocumentState]) -> Result<Document> {
        let what = format!("{} revision {} to be {states:?}", receipt.document_id, receipt.revision);
        poll::until(&what, INDEXED_WITHIN, async || {
            let document = self.get(&receipt.document_id, receipt.revision).await?;
            Ok(match document {
                Some(document) if states.contains(&document.state()) => Ok(document),
                other => Err(other),
            })
        })
        .await
    }

    /// Waits until a revision is INDEXED.
    pub async fn indexed(&self, receipt: &Receipt) -> Result<Document> {
        self.reaches(receipt, &[DocumentState::Indexed]).await
    }

    /// Searches by text, within these documents (all when empty).
    pub async fn find(&self, text: &str, k: i32, documents: &[&str]) -> Result<Vec<Hit>, Status> {
        let request = SearchRequest {
            tenant: self.tenant.clone(),
            query: Some(Query::Text(text.to_owned())),
            k,
            min_score: None,
            document_ids: documents.iter().map(|id| (*id).to_owned()).collect(),
        };
        Ok(self.search.clone().search(within(request)).await?.into_inner().hits)
    }

    /// As [`Client::find`], through a restart of the indexer or the embedder.
    pub async fn find_through(&self, text: &str, k: i32, documents: &[&str]) -> Result<Vec<Hit>> {
        poll::until("a search to be answered", INDEXED_WITHIN, async || {
            match self.find(text, k, documents).await {
                Ok(hits) => Ok(Ok(hits)),
                Err(status) if is_for_now(&status) => Ok(Err(status)),
                Err(status) => Err(status.into()),
            }
        })
        .await
    }

    /// Searches as it is.
    pub async fn search(&self, request: SearchRequest) -> Result<Vec<Hit>, Status> {
        Ok(self.answer(request).await?.hits)
    }

    /// Searches as it is, and gives all of the answer.
    pub async fn answer(&self, request: SearchRequest) -> Result<SearchResponse, Status> {
        Ok(self.search.clone().search(within(request)).await?.into_inner())
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    millrace_rpc::deadline::set(&mut request, CALL);
    request
}
