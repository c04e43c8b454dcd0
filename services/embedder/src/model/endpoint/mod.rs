//! A model behind an HTTP endpoint that speaks the OpenAI embeddings API: `POST {url}/embeddings`.
//!
//! - One call for a batch, one at a time, from the model's own thread. What an answer means stands in [`answer`].
//! - An endpoint that asks for patience gets it from everybody: until the time is over no call is made, not for a query
//!   and not for a canary, and whoever asks is told how long it will still take.
//! - Texts go over as they are, never their tokens: the endpoint has a tokenizer of its own. Ours has counted them.
//! - Over https:// it must show a certificate of an authority that is trusted, before it is shown the key.
//! - No error, log line or span holds a text, the key, or a sentence of the endpoint's, which may quote both.
//!
//! Rejected: redirects (the key would follow them), a proxy from the environment (the same), retries here (the stage's
//! gate and the batcher's canary know when).

mod answer;
mod client;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use millrace_runtime::settings::Secret;
use tokio::runtime::Handle;

pub use client::EndpointError;

use super::backend::{Backend, BackendError, Description, Outage, REMOTE};
use super::tokenizer::Tokens;
use client::Client;

/// How to reach an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// Address before `/embeddings`, for example `http://127.0.0.1:11434/v1` or `https://api.example.com/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Authorities (PEM) that an `https://` endpoint's certificate must come from; empty: the system's.
    pub ca_file: PathBuf,
    /// What it is shown, if anything.
    pub key: Key,
    /// Longest time for an answer, its body included.
    pub timeout: Duration,
    /// Drives the calls, which the model's thread waits for.
    pub runtime: Handle,
}

/// Where the key comes from that an endpoint is shown as a bearer token.
#[derive(Debug, Clone)]
pub enum Key {
    /// It asks for none.
    None,
    /// From the configuration.
    Given(Secret),
    /// From a file, white space around it left out.
    File(PathBuf),
}

/// A model at an endpoint.
#[derive(Debug)]
pub struct Endpoint {
    client: Client,
    model: String,
    runtime: Handle,
    dimensions: usize,
    patience_until: Option<Instant>,
}

impl Endpoint {
    /// Asks for vectors of so many values. Reads the key's file, and makes no call yet.
    pub fn new(options: EndpointOptions, dimensions: usize) -> Result<Self, EndpointError> {
        Ok(Self {
            client: Client::new(&options)?,
            model: options.model,
            runtime: options.runtime,
            dimensions,
            patience_until: None,
        })
    }
}

impl Backend for Endpoint {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        let now = Instant::now();
        if let Some(until) = self.patience_until.filter(|until| *until > now) {
            let retry_after = until - now;
            return Err(Outage::RateLimited { retry_after }.into());
        }
        let texts: Option<Vec<&str>> = inputs.iter().map(|input| input.text.as_deref()).collect();
        let texts = texts.ok_or_else(|| BackendError::Failed("the tokenizer kept no text".into()))?;
        let asked = self.client.embed(&self.model, &texts, self.dimensions);
        let answer = self.runtime.block_on(asked);
        if let Err(BackendError::Outage(Outage::RateLimited { retry_after })) = &answer {
            self.patience_until = Some(Instant::now() + *retry_after);
        }
        answer
    }

    fn describe(&self) -> Description {
        Description {
            version: self.model.clone(),
            device: REMOTE.into(),
            ..Description::of_none("openai-endpoint")
        }
    }
}
