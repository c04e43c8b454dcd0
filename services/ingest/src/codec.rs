//! The seam to the wire format: records to bytes and back, with the registry behind it in production.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use millrace_events::Record;
use millrace_flow::Failure;
use millrace_runtime::codec::Codec;
use tokio::sync::SetOnce;

/// Writes and reads the values of topics.
pub trait RecordCodec: Clone + Send + Sync + 'static {
    /// A record in the wire format.
    fn encode<R: Record>(&self, record: &R) -> Result<Bytes, Failure>;
    /// A record from its wire format. `Away` while the registry is, `Config` for a version that this build cannot read.
    fn decode<R: Record>(&self, value: &[u8]) -> impl Future<Output = Result<R, Failure>> + Send;
}

/// The registry's codec, once it is connected: requests are answered before that. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LateCodec(Arc<SetOnce<Codec>>);

impl LateCodec {
    /// Connected, from now on.
    pub fn set(&self, codec: Codec) {
        // Set once; a second one would be the same.
        let _ = self.0.set(codec);
    }
    /// Returns once it is connected.
    pub async fn connected(&self) {
        self.0.wait().await;
    }
    fn get(&self) -> Result<&Codec, Failure> {
        self.0.get().ok_or_else(|| Failure::Transient {
            reason: "REGISTRY_UNAVAILABLE",
            message: "the schema registry has not answered yet".into(),
        })
    }
}

impl RecordCodec for LateCodec {
    fn encode<R: Record>(&self, record: &R) -> Result<Bytes, Failure> {
        self.get()?.encode(record)
    }
    async fn decode<R: Record>(&self, value: &[u8]) -> Result<R, Failure> {
        self.get()?.decode(value).await
    }
}

/// The wire format with the built-in schemas, and no registry.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offline;

#[cfg(test)]
impl RecordCodec for Offline {
    fn encode<R: Record>(&self, record: &R) -> Result<Bytes, Failure> {
        let schema = apache_avro::Schema::parse_str(R::TOPIC.schema.unwrap()).unwrap();
        Ok(
            millrace_events::wire::encode(record, &schema, millrace_events::wire::SchemaId(1))
                .unwrap()
                .into(),
        )
    }
    async fn decode<R: Record>(&self, value: &[u8]) -> Result<R, Failure> {
        let schema = apache_avro::Schema::parse_str(R::TOPIC.schema.unwrap()).unwrap();
        let invalid = |error: millrace_events::wire::WireError| Failure::Invalid {
            reason: "UNREADABLE_RECORD",
            message: error.to_string(),
        };
        let (id, body) = millrace_events::wire::split(value).map_err(invalid)?;
        millrace_events::wire::decode(body, &schema, id).map_err(invalid)
    }
}
