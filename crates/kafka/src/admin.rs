//! Creating and describing topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic as KafkaNewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::{ConfigError, KafkaConfig};

const REQUEST: Duration = Duration::from_secs(10);

/// A call to the cluster that did not work.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The settings are not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No broker answered, or it refused.
    #[error("could not {operation}")]
    Call {
        /// What was tried.
        operation: String,
        /// What the client said.
        source: KafkaError,
    },
}

/// A topic as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
}

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
    /// Its settings, for example `cleanup.policy`.
    pub config: Vec<(String, String)>,
}

/// What a creation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    Created,
    /// It existed, and was not changed.
    Existed,
}

/// Asks the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    client: Arc<AdminClient<Context>>,
}

/// Says less of its settings: the client calls `isolation.level` one that it ignores, and asks for ends by it.
struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            _ if facility == "CONFWARN" => tracing::debug!(facility, message, "kafka admin"),
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(facility, message, "kafka admin");
            }
            _ => tracing::warn!(facility, message, "kafka admin"),
        }
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

impl Admin {
    /// Connects by itself, now and after every outage.
    pub fn new(kafka: &KafkaConfig) -> Result<Self, AdminError> {
        let client = kafka
            .admin()?
            .create_with_context(Context)
            .map_err(ConfigError::Client)?;
        Ok(Self {
            client: Arc::new(client),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: String,
        call: impl FnOnce(&AdminClient<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, AdminError> {
        let client = self.client.clone();
        let called = tokio::task::spawn_blocking(move || call(&client)).await;
        called
            .unwrap_or(Err(KafkaError::Canceled))
            .map_err(|source| AdminError::Call { operation, source })
    }

    /// Ok when a broker answers.
    pub async fn reachable(&self) -> Result<(), AdminError> {
        self.brokers().await.map(|_| ())
    }

    /// How many brokers the cluster has.
    pub async fn brokers(&self) -> Result<usize, AdminError> {
        let call = |client: &AdminClient<_>| Ok(client.inner().fetch_metadata(None, REQUEST)?.brokers().len());
        self.blocking("ask the cluster for its brokers".into(), call).await
    }

    /// All topics, internal ones included.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, AdminError> {
        let call = |client: &AdminClient<_>| {
            let metadata = client.inner().fetch_metadata(None, REQUEST)?;
            let info = |topic: &rdkafka::metadata::MetadataTopic| TopicInfo {
                name: topic.name().to_owned(),
                partitions: topic.partitions().len() as i32,
                replication: topic.partitions().first().map_or(0, |p| p.replicas().len() as i32),
            };
            Ok(metadata.topics().iter().map(info).collect())
        };
        self.blocking("list the topics".into(), call).await
    }

    /// Creates a topic, unless it exists.
    pub async fn create(&self, topic: NewTopic) -> Result<Created, AdminError> {
        let mut new = KafkaNewTopic::new(
            &topic.name,
            topic.partitions,
            TopicReplication::Fixed(topic.replication),
        );
        for (name, value) in &topic.config {
            new = new.set(name, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST))
            .operation_timeout(Some(REQUEST));
        let failed = |source| AdminError::Call {
            operation: format!("create topic {}", topic.name),
            source,
        };
        let results = self.client.create_topics([&new], &options).await.map_err(failed)?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Created::Existed),
            Some(Err((_, code))) => Err(failed(KafkaError::AdminOp(code))),
            Some(Ok(_)) | None => Ok(Created::Created),
        }
    }

    /// First offset and end of a partition: transaction markers are below it, and records of transactions that are open.
    pub async fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), AdminError> {
        let name = topic.to_owned();
        let call = move |client: &AdminClient<_>| client.inner().fetch_watermarks(&name, partition, REQUEST);
        self.blocking(format!("ask for the end of {topic}/{partition}"), call)
            .await
    }

    /// First offset and end of each of the first `partitions` partitions, as [`Admin::watermarks`] tells them.
    pub async fn ranges(&self, topic: &str, partitions: i32) -> Result<BTreeMap<i32, (i64, i64)>, AdminError> {
        let mut ranges = BTreeMap::new();
        for partition in 0..partitions {
            ranges.insert(partition, self.watermarks(topic, partition).await?);
        }
        Ok(ranges)
    }

    /// A topic's settings.
    pub async fn describe_topic_config(&self, topic: &str) -> Result<BTreeMap<String, String>, AdminError> {
        let failed = |source| AdminError::Call {
            operation: format!("describe topic {topic}"),
            source,
        };
        let options = AdminOptions::new().request_timeout(Some(REQUEST));
        let results = self
            .client
            .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
            .await;
        match results.map_err(failed)?.into_iter().next() {
            Some(Ok(resource)) => {
                let entries = resource.entries.into_iter();
                Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Some(Err(code)) => Err(failed(KafkaError::AdminOp(code))),
            None => Ok(BTreeMap::new()),
        }
    }
}
