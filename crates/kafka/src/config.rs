//! How to reach Kafka, and the settings that the promises rest on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

/// Largest record that any client here writes or reads, in bytes: a dead letter of full size and its headers.
const MESSAGE_MAX_BYTES: &str = "9437184";

/// How to reach Kafka.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Further librdkafka properties, for example for SASL or `client.rack`. Those that the promises rest on are refused.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            properties: BTreeMap::new(),
        }
    }
}

/// Values of properties can be secrets: only their names are shown.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The property is Millrace's to set.
    #[error("kafka.properties must not set {0}: Millrace's promises rest on its value")]
    Reserved(String),
    /// The property has two names; set under both, either value could win.
    #[error("kafka.properties must not set {alias}: set {name}, which is the same property")]
    Alias {
        /// What was set.
        alias: String,
        /// What Millrace calls it.
        name: &'static str,
    },
    /// librdkafka does not take it.
    #[error("the kafka settings are not accepted")]
    Client(#[source] rdkafka::error::KafkaError),
}

/// How long a member may be silent, where the operator does not say it.
const SESSION_MS: u64 = 30_000;
/// How long it may take between two polls, and the others of its group wait for it, where the operator does not say it.
const POLL_INTERVAL_MS: u64 = 600_000;

/// How long a member with these settings may be silent.
pub(crate) fn session(member: &ClientConfig) -> Duration {
    milliseconds(member, "session.timeout.ms", SESSION_MS)
}

/// How long a member with these settings may take between two polls.
pub(crate) fn poll_interval(member: &ClientConfig) -> Duration {
    milliseconds(member, "max.poll.interval.ms", POLL_INTERVAL_MS)
}

/// What is no number the client will refuse.
fn milliseconds(client: &ClientConfig, property: &str, otherwise: u64) -> Duration {
    let told = client.get(property).and_then(|ms| ms.parse().ok());
    Duration::from_millis(told.unwrap_or(otherwise))
}

const RESERVED: [&str; 17] = [
    "acks",
    "auto.offset.reset",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "message.max.bytes",
    "message.timeout.ms",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "statistics.interval.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Second names that librdkafka has for properties that are set here, and the first ones.
const ALIASES: [(&str, &str); 4] = [
    ("compression.codec", "compression.type"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
];

impl KafkaConfig {
    fn client(&self, client_id: &str) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", client_id)
            .set("socket.keepalive.enable", "true")
            .set("allow.auto.create.topics", "false")
            // What a broker may ask clients to push would leave the process unasked.
            .set("enable.metrics.push", "false")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000");
        client
    }

    /// The operator's properties, last: they win over every value that no promise rests on.
    fn with_properties(&self, mut client: ClientConfig) -> Result<ClientConfig, ConfigError> {
        for (name, value) in &self.properties {
            if RESERVED.contains(&name.as_str()) {
                return Err(ConfigError::Reserved(name.clone()));
            }
            if let Some((alias, name)) = ALIASES.into_iter().find(|(alias, _)| alias == name) {
                let alias = alias.to_owned();
                return Err(ConfigError::Alias { alias, name });
            }
            client.set(name, value);
        }
        Ok(client)
    }

    pub(crate) fn admin(&self) -> Result<ClientConfig, ConfigError> {
        let mut client = self.client("millrace-admin");
        // Where a partition ends, not where its first open transaction begins: whoever waits until all is read that was
        // written before would wait too short.
        client.set("isolation.level", "read_uncommitted");
        self.with_properties(client)
    }

    pub(crate) fn producer(&self, client_id: &str) -> Result<ClientConfig, ConfigError> {
        self.with_properties(self.any_producer(client_id))
    }

    fn any_producer(&self, client_id: &str) -> ClientConfig {
        let mut client = self.client(client_id);
        client
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("message.max.bytes", MESSAGE_MAX_BYTES)
            .set("message.timeout.ms", "10000")
            .set("queue.buffering.max.kbytes", "65536");
        client
    }

    pub(crate) fn transactional_producer(&self, transactional_id: &str) -> Result<ClientConfig, ConfigError> {
        let mut client = self.any_producer(transactional_id);
        client
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", "15000")
            // A transaction's records are handed over in one burst and waited for.
            .set("linger.ms", "1")
            // Of each record a report would cost more than its sending.
            .set("delivery.report.only.error", "true")
            // The broker refuses the next transaction while it still writes the markers of the last. Asked again after
            // the client's 100 ms, sending offsets took 87 to 99 ms a transaction.
            .set("retry.backoff.ms", "5");
        self.with_properties(client)
    }

    fn consumer(&self, client_id: &str) -> ClientConfig {
        let mut client = self.client(client_id);
        client
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "16384")
            .set("queued.min.messages", "10000")
            .set("fetch.queue.backoff.ms", "50")
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        client
    }

    pub(crate) fn member(&self, group: &str, instance: &str) -> Result<ClientConfig, ConfigError> {
        let mut client = self.consumer(&format!("{group}.{instance}"));
        client
            .set("group.id", group)
            .set("group.instance.id", instance)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_MS.to_string())
            .set("max.poll.interval.ms", POLL_INTERVAL_MS.to_string())
            .set("auto.offset.reset", "error")
            .set("statistics.interval.ms", "1000");
        self.with_properties(client)
    }

    pub(crate) fn reader(&self, name: &str) -> Result<ClientConfig, ConfigError> {
        let mut client = self.consumer(name);
        client
            // librdkafka wants a name even where no group is joined and nothing is committed.
            .set("group.id", name)
            .set("auto.offset.reset", "earliest")
            .set("statistics.interval.ms", "200");
        self.with_properties(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_promises_rest_on_cannot_be_changed() {
        for name in RESERVED {
            let config = KafkaConfig {
                properties: [(name.to_owned(), "x".to_owned())].into(),
                ..KafkaConfig::default()
            };
            for client in [
                config.admin(),
                config.producer("p"),
                config.transactional_producer("g.a"),
                config.member("g", "a"),
                config.reader("r"),
            ] {
                assert!(matches!(client, Err(ConfigError::Reserved(n)) if n == name));
            }
        }
    }

    #[test]
    fn a_second_name_of_a_property_is_refused() {
        for (alias, name) in ALIASES {
            let config = KafkaConfig {
                properties: [(alias.to_owned(), "1".to_owned())].into(),
                ..KafkaConfig::default()
            };
            let refused = config.producer("p").unwrap_err().to_string();
            assert!(refused.contains(alias) && refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn each_client_has_the_settings_that_the_promises_rest_on() -> Result<(), ConfigError> {
        let config = KafkaConfig::default();
        let every = [
            ("allow.auto.create.topics", "false"),
            ("enable.metrics.push", "false"),
            ("socket.keepalive.enable", "true"),
        ];
        let asks = [("isolation.level", "read_uncommitted")];
        let writes = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "10000"),
        ];
        let transacts = [("transaction.timeout.ms", "15000"), ("linger.ms", "1")];
        let reads = [
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("queued.max.messages.kbytes", "16384"),
        ];
        let joins = [
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", "30000"),
            ("max.poll.interval.ms", "600000"),
            ("auto.offset.reset", "error"),
            ("statistics.interval.ms", "1000"),
            ("group.instance.id", "a"),
        ];
        let clients = [
            ("admin", config.admin()?, [&every[..], &asks, &[]]),
            ("producer", config.producer("p")?, [&every, &writes, &[]]),
            (
                "transactional",
                config.transactional_producer("g.a")?,
                [&every, &writes, &transacts],
            ),
            ("member", config.member("g", "a")?, [&every, &reads, &joins]),
            ("reader", config.reader("r")?, [&every, &reads, &[]]),
        ];
        for (client, has, wants) in clients {
            for (name, value) in wants.concat() {
                assert_eq!(has.get(name), Some(value), "{client}: {name}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_operators_properties_win() -> Result<(), ConfigError> {
        let properties = [("session.timeout.ms", "6000"), ("linger.ms", "7")];
        let config = KafkaConfig {
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..KafkaConfig::default()
        };
        assert_eq!(config.member("g", "a")?.get("session.timeout.ms"), Some("6000"));
        assert_eq!(session(&config.member("g", "a")?), Duration::from_secs(6));
        assert_eq!(config.transactional_producer("g.a")?.get("linger.ms"), Some("7"));
        assert_eq!(config.transactional_producer("g.a")?.get("retry.backoff.ms"), Some("5"));
        Ok(())
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = KafkaConfig {
            properties: [("sasl.password".to_owned(), "hunter2".to_owned())].into(),
            ..KafkaConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
