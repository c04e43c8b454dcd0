//! The service.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use millrace_api::ingest::v1 as api;
use millrace_api::ingest::v1::ingest_service_server::{IngestService, IngestServiceServer};
use millrace_rpc::trace;
use millrace_runtime::server::MAX_MESSAGE_BYTES;
use tonic::{Request, Response, Status};

use super::{answer, request};
use crate::accept::{Acceptor, Command, Receipt};
use crate::codec::RecordCodec;
use crate::documents::Documents;
use crate::log::{CommandLog, LogEnds};
use millrace_events::TraceContext;

/// `millrace.ingest.v1.IngestService`.
#[derive(Debug)]
pub struct Ingest<L, C, E> {
    acceptor: Arc<Acceptor<L, C>>,
    documents: Documents<E>,
}

impl<L: CommandLog, C: RecordCodec, E: LogEnds> Ingest<L, C, E> {
    /// The service, ready to be routed.
    pub fn server(acceptor: Arc<Acceptor<L, C>>, documents: Documents<E>) -> IngestServiceServer<Self> {
        IngestServiceServer::new(Self { acceptor, documents })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn accept(&self, command: Command, trace: TraceContext) -> Result<api::Receipt, Status> {
        let accepted: Result<Receipt, _> = self.acceptor.accept(command, trace).await;
        accepted
            .map(answer::receipt)
            .map_err(|error| answer::refused(&error).into())
    }
}

#[tonic::async_trait]
impl<L: CommandLog, C: RecordCodec, E: LogEnds> IngestService for Ingest<L, C, E> {
    async fn submit_document(
        &self,
        request: Request<api::SubmitDocumentRequest>,
    ) -> Result<Response<api::SubmitDocumentResponse>, Status> {
        let trace = trace::from_request(request.metadata());
        let command = request::submit(request.into_inner())?;
        let receipt = Some(self.accept(command, trace).await?);
        Ok(Response::new(api::SubmitDocumentResponse { receipt }))
    }

    async fn delete_document(
        &self,
        request: Request<api::DeleteDocumentRequest>,
    ) -> Result<Response<api::DeleteDocumentResponse>, Status> {
        let trace = trace::from_request(request.metadata());
        let command = request::delete(request.get_ref())?;
        let receipt = Some(self.accept(command, trace).await?);
        Ok(Response::new(api::DeleteDocumentResponse { receipt }))
    }

    async fn get_document(
        &self,
        request: Request<api::GetDocumentRequest>,
    ) -> Result<Response<api::GetDocumentResponse>, Status> {
        let request = request.into_inner();
        let key = request::document(&request.tenant, &request.document_id)?;
        let revision = request::revision(request.revision)?;
        let found = self.documents.get(&key, revision).await;
        let document = found.map_err(|error| answer::missing(&key, &error))?;
        let document = Some(answer::document(document));
        Ok(Response::new(api::GetDocumentResponse { document }))
    }

    type WatchDocumentStream = Pin<Box<dyn Stream<Item = Result<api::WatchDocumentResponse, Status>> + Send>>;

    async fn watch_document(
        &self,
        request: Request<api::WatchDocumentRequest>,
    ) -> Result<Response<Self::WatchDocumentStream>, Status> {
        let request = request.into_inner();
        let key = request::document(&request.tenant, &request.document_id)?;
        let revision = request::revision(request.revision)?;
        let changes = self.documents.watch(key.clone(), revision).await;
        let changes = changes.map_err(|error| answer::missing(&key, &error))?;
        let answers = changes.map(move |change| match change {
            Ok(document) => Ok(api::WatchDocumentResponse {
                document: Some(answer::document(document)),
            }),
            Err(error) => Err(answer::missing(&key, &error).into()),
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
