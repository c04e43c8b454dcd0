//! `DeadLetterService` on the wire.

mod answer;
mod request;

use std::pin::Pin;

use futures::{Stream, StreamExt};
use millrace_api::ingest::v1 as api;
use millrace_api::ingest::v1::dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer};
use millrace_events::topics::MAX_DEAD_LETTER_BYTES;
use millrace_runtime::server::MAX_MESSAGE_BYTES;
use tonic::{Request, Response, Status};

use crate::codec::RecordCodec;
use crate::letters::DeadLetters;
use crate::letters::log::LetterLog;

/// `millrace.ingest.v1.DeadLetterService`.
#[derive(Debug)]
pub struct Letters<L, C>(DeadLetters<L, C>);

impl<L: LetterLog, C: RecordCodec> Letters<L, C> {
    /// The service, ready to be routed.
    pub fn server(letters: DeadLetters<L, C>) -> DeadLetterServiceServer<Self> {
        DeadLetterServiceServer::new(Self(letters))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            // An original of full size.
            .max_encoding_message_size(MAX_DEAD_LETTER_BYTES + MAX_MESSAGE_BYTES)
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<L: LetterLog, C: RecordCodec> DeadLetterService for Letters<L, C> {
    async fn list_dead_letters(
        &self,
        request: Request<api::ListDeadLettersRequest>,
    ) -> Result<Response<api::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let filter = request::filter(request.filter)?;
        let (size, after) = (
            request::page_size(request.page_size)?,
            request::mark(&request.page_token)?,
        );
        let page = self.0.list(filter, after, size).await.map_err(answer::refused)?;
        Ok(Response::new(answer::page(page)))
    }

    async fn summarize_dead_letters(
        &self,
        request: Request<api::SummarizeDeadLettersRequest>,
    ) -> Result<Response<api::SummarizeDeadLettersResponse>, Status> {
        let filter = request::filter(request.into_inner().filter)?;
        let counts = self.0.summary(filter).await.map_err(answer::refused)?;
        let counts = counts.into_iter().map(answer::count).collect();
        Ok(Response::new(api::SummarizeDeadLettersResponse { counts }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<api::GetDeadLetterRequest>,
    ) -> Result<Response<api::GetDeadLetterResponse>, Status> {
        let request = request.into_inner();
        let key = request::key("key", &request.key)?;
        let (letter, buried) = self.0.get(key).await.map_err(answer::refused)?;
        let original = buried.filter(|buried| !crate::letters::original::is_omitted(buried));
        Ok(Response::new(api::GetDeadLetterResponse {
            letter: Some(answer::letter(letter)),
            original: original.map(|buried| answer::original(&buried, request.with_original)),
        }))
    }

    type RedriveDeadLettersStream = Answers<api::RedriveDeadLettersResponse>;

    async fn redrive_dead_letters(
        &self,
        request: Request<api::RedriveDeadLettersRequest>,
    ) -> Result<Response<Self::RedriveDeadLettersStream>, Status> {
        let order = request::redrive(request.into_inner())?;
        let told = self.0.order(order).map_err(answer::refused)?;
        let answers = told.map(|told| told.map(answer::redriven).map_err(answer::refused));
        Ok(Response::new(answers.boxed()))
    }

    type DiscardDeadLettersStream = Answers<api::DiscardDeadLettersResponse>;

    async fn discard_dead_letters(
        &self,
        request: Request<api::DiscardDeadLettersRequest>,
    ) -> Result<Response<Self::DiscardDeadLettersStream>, Status> {
        let order = request::discard(request.into_inner())?;
        let told = self.0.order(order).map_err(answer::refused)?;
        let answers = told.map(|told| told.map(answer::discarded).map_err(answer::refused));
        Ok(Response::new(answers.boxed()))
    }
}
