//! `SearchService`: validation and translation around [`crate::search`].

use std::sync::Arc;
use std::time::Duration;

use millrace_api::indexer::v1::search_request::Query;
use millrace_api::indexer::v1::search_service_server::{SearchService, SearchServiceServer};
use millrace_api::indexer::v1::{Hit, SearchRequest, SearchResponse};
use millrace_events::{DocumentKey, Tenant};
use millrace_rpc::deadline;
use millrace_rpc::error::{self, Rejection, chain, invalid_field};
use tonic::{Code, Request, Response, Status};

use crate::embedder::EmbedQuery;
use crate::index::generation::{Generations, Serving};
use crate::index::{Found, IndexError};
use crate::search::{self, Wanted};

const DEFAULT_K: usize = 10;
const MAX_K: usize = 1000;
const MAX_TEXT_BYTES: usize = 8 << 10;
const MAX_DOCUMENTS: usize = 1000;
const RETRY: Duration = Duration::from_secs(1);

/// The gRPC adapter.
#[derive(Clone)]
pub struct Search {
    /// Where the collections are.
    pub generations: Generations,
    /// For queries by text.
    pub embedder: Arc<dyn EmbedQuery>,
    /// Time of a search whose caller gives none, and the most that any may have.
    pub longest: Duration,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search")
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}

impl Search {
    /// The gRPC service.
    pub fn server(self) -> SearchServiceServer<Self> {
        SearchServiceServer::new(self)
            .max_decoding_message_size(millrace_runtime::server::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }
}

/// 1000 hits of 4 KiB of text, and what surrounds them.
const MAX_ANSWER_BYTES: usize = 8 << 20;

#[tonic::async_trait]
impl SearchService for Search {
    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        let trace = millrace_rpc::trace::from_request(request.metadata());
        let within = deadline::remaining(request.extensions(), self.longest);
        let until = search::deadline(Some(within), self.longest);
        let asked = Asked::check(request.into_inner())?;
        let Some(serving) = self.generations.serving() else {
            // Nothing has been indexed yet: nothing is found.
            return Ok(Response::new(SearchResponse::default()));
        };
        let vector = match asked.query {
            Query::Vector(vector) => {
                check_dimensions(&vector.values, &serving)?;
                vector.values
            }
            Query::Text(text) => {
                let embedded = self
                    .embedder
                    .embed(text, within, trace)
                    .await
                    .map_err(embedder_failed)?;
                if embedded.model != serving.model {
                    return Err(other_model(&embedded.model.generation(), &serving.generation).into());
                }
                embedded.vector
            }
        };
        let wanted = Wanted {
            tenant: asked.tenant,
            vector,
            k: asked.k,
            min_score: asked.min_score,
            documents: asked.documents,
        };
        let answer = search::search(&*serving.index, wanted, until)
            .await
            .map_err(index_failed)?;
        Ok(Response::new(SearchResponse {
            hits: answer.hits.into_iter().map(hit).collect(),
            partial: answer.partial,
        }))
    }
}

/// A request whose fields are all acceptable.
struct Asked {
    tenant: Tenant,
    query: Query,
    k: usize,
    min_score: Option<f32>,
    documents: Vec<DocumentKey>,
}

impl Asked {
    fn check(request: SearchRequest) -> Result<Self, Status> {
        let tenant = Tenant::new(request.tenant)
            .map_err(|e| invalid_field("tenant", "INVALID_TENANT", format!("a search is of one tenant: {e}")))?;
        let k = match usize::try_from(request.k) {
            Ok(0) => DEFAULT_K,
            Ok(k) if k <= MAX_K => k,
            _ => {
                let message = format!("k is 1 to {MAX_K}, or 0 for {DEFAULT_K}; this one is {}", request.k);
                return Err(invalid_field("k", "INVALID_K", message).into());
            }
        };
        if request.min_score.is_some_and(|score| !score.is_finite()) {
            let message = "min_score is a finite number, -1 to 1";
            return Err(invalid_field("min_score", "INVALID_MIN_SCORE", message).into());
        }
        if request.document_ids.len() > MAX_DOCUMENTS {
            let given = request.document_ids.len();
            let message = format!("at most {MAX_DOCUMENTS} document ids, these are {given}");
            return Err(invalid_field("document_ids", "TOO_MANY_DOCUMENTS", message).into());
        }
        let mut documents = Vec::with_capacity(request.document_ids.len());
        for (at, id) in request.document_ids.into_iter().enumerate() {
            let key = DocumentKey::new(tenant.as_str(), id);
            let field = format!("document_ids[{at}]");
            documents.push(key.map_err(|e| invalid_field(field, "INVALID_DOCUMENT_ID", e.to_string()))?);
        }
        Ok(Self {
            query: check_query(request.query)?,
            tenant,
            k,
            min_score: request.min_score,
            documents,
        })
    }
}

fn check_query(query: Option<Query>) -> Result<Query, Status> {
    let query = query.ok_or_else(|| invalid_field("query", "QUERY_MISSING", "a search needs text or vector"))?;
    match &query {
        Query::Text(text) => check_text(text)?,
        Query::Vector(vector) => check_vector(&vector.values)?,
    }
    Ok(query)
}

fn check_text(text: &str) -> Result<(), Status> {
    if text.trim().is_empty() {
        let message = "text has at least one character that is not a space";
        return Err(invalid_field("text", "TEXT_EMPTY", message).into());
    }
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("text is at most {MAX_TEXT_BYTES} bytes, this one has {}", text.len());
        return Err(invalid_field("text", "TEXT_TOO_LONG", message).into());
    }
    Ok(())
}

fn check_vector(values: &[f32]) -> Result<(), Status> {
    if !values.iter().all(|v| v.is_finite()) {
        let message = "every value of the vector is a finite number";
        return Err(invalid_field("vector", "VECTOR_NOT_FINITE", message).into());
    }
    let squared: f32 = values.iter().map(|v| v * v).sum();
    if !squared.is_normal() {
        let message = "the vector is neither zero nor so long or short that its length cannot be told in 32 bits";
        return Err(invalid_field("vector", "VECTOR_LENGTH", message).into());
    }
    Ok(())
}

fn check_dimensions(values: &[f32], serving: &Serving) -> Result<(), Status> {
    let dimensions = serving.model.dimensions;
    if usize::try_from(dimensions).ok() == Some(values.len()) {
        return Ok(());
    }
    let (found, generation) = (values.len(), &serving.generation);
    let message = format!("vectors of {generation} have {dimensions} values, this one has {found}");
    let refused = invalid_field("vector", "VECTOR_DIMENSIONS", message).with("dimensions", dimensions);
    Err(refused.into())
}

fn other_model(embedder: &str, index: &str) -> Rejection {
    let message = format!(
        "the embedder answers with model {embedder}, the index holds {index}: search by vector, or run the embedder \
         with the model of the index"
    );
    error::failed_precondition("OTHER_MODEL", message)
        .with("embedder", embedder)
        .with("index", index)
}

/// What the embedder says of the text is the caller's to know; everything else means that it is away.
fn embedder_failed(status: Status) -> Status {
    match status.code() {
        Code::InvalidArgument => {
            let message = format!("the embedder refuses this text: {}", status.message());
            invalid_field("text", "TEXT_REFUSED", message).into()
        }
        Code::DeadlineExceeded | Code::Cancelled => status,
        _ => {
            tracing::warn!(status = error::describe(&status), "the embedder did not embed a query");
            let delay = error::retry_after(&status).unwrap_or(RETRY);
            let message = "the embedder is away, so that a text cannot be searched for now; searches by vector work";
            error::unavailable("EMBEDDER_UNAVAILABLE", message, delay).into()
        }
    }
}

fn index_failed(error: IndexError) -> Status {
    match &error {
        IndexError::Unavailable { .. } => {
            tracing::warn!(error = chain(&error), "the index did not answer a search");
            error::unavailable("INDEX_UNAVAILABLE", "the index is away", RETRY).into()
        }
        IndexError::Refused { .. } | IndexError::Unreadable { .. } => {
            error::internal("SEARCH_FAILED", chain(&error)).into()
        }
    }
}

fn hit(found: Found) -> Hit {
    Hit {
        document_id: found.document.document_id.as_str().to_owned(),
        revision: found.revision.get(),
        ordinal: found.ordinal,
        score: found.score,
        text: found.text,
        section: found.section,
        start_byte: found.start_byte,
        end_byte: found.end_byte,
    }
}

#[cfg(feature = "embedded")]
#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
