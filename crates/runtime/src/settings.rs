//! Sections that the configuration of every service has.

use std::fmt;
use std::path::PathBuf;

use millrace_flow::layers::Calls;
use millrace_flow::runner::Limits;
use millrace_schema::{Access, Registry, Sources};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::ConfigError;
use crate::process::ProcessError;

/// `[registry]`: the schema registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Address of its Confluent-compatible API: `http://host:port` or `https://host`, and a path if it has one.
    pub url: String,
    /// User of HTTP basic authentication, if it asks for one; Confluent Cloud's API key is one.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// A file with the password, in its place. Read at start.
    pub password_file: PathBuf,
    /// Bearer token, if it asks for one in place of a user.
    pub token: Secret,
    /// A file with the token, in its place. Read at start.
    pub token_file: PathBuf,
    /// Certificate authorities (PEM) that an `https://` registry's certificate must come from; without it the system's.
    pub ca_file: PathBuf,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8081".into(),
            user: String::new(),
            password: Secret::default(),
            password_file: PathBuf::new(),
            token: Secret::default(),
            token_file: PathBuf::new(),
            ca_file: PathBuf::new(),
        }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig")
            // An address may hold a password.
            .field("url", &Access::to(&self.url).shown())
            .field("user", &self.user)
            .field("password", &self.password)
            .field("password_file", &self.password_file)
            .field("token", &self.token)
            .field("token_file", &self.token_file)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

impl RegistryConfig {
    /// A client of the registry; connects when first used. Reads the files, and refuses what does not go together.
    pub fn connect(&self) -> Result<Registry, ProcessError> {
        let file = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let secret = |secret: &Secret| (!secret.is_empty()).then(|| secret.reveal().to_owned());
        let sources = Sources {
            user: (!self.user.is_empty()).then(|| self.user.clone()),
            password: secret(&self.password),
            password_file: file(&self.password_file),
            token: secret(&self.token),
            token_file: file(&self.token_file),
        };
        let credentials = sources
            .read()
            .map_err(|e| ConfigError::refused(&format!("registry.{}", e.key), e.why))?;
        let mut access = Access::to(&self.url).with_credentials(credentials);
        if let Some(ca_file) = file(&self.ca_file) {
            access = access.with_ca_file(ca_file);
        }
        Ok(Registry::connect(&access)?)
    }
}

/// A text that nobody may see: neither what is printed nor a configuration that is written out shows it. Empty is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The text, for whom it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { "<secret>" }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The usual error quotes what it found.
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom("must be a text in quotes"))?;
        Ok(Self(text))
    }
}

/// Name of a process that is given none: its host's, which in a StatefulSet is stable and nobody else's.
pub fn default_instance() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Longest drain, in milliseconds: with the last words of what is cut off it stays below a session of 30 s.
const MAX_DRAIN_MS: u64 = 20_000;

/// Refuses bounds of a stage, `[stage]` and `[calls]`, with which no record would ever be done, or be done twice at once.
pub fn check_stage(stage: &Limits, calls: &Calls) -> Result<(), ConfigError> {
    let rows = [
        ("stage.max_in_flight", stage.max_in_flight > 0, "no record would run"),
        (
            "stage.window_bytes",
            stage.window_bytes > 0,
            "no record would be received",
        ),
        ("calls.concurrency", calls.concurrency > 0, "no record would run"),
        (
            "calls.timeout_ms",
            calls.timeout_ms > 0,
            "no record would be done in time",
        ),
    ];
    if stage.drain_ms > MAX_DRAIN_MS {
        return Err(ConfigError::refused(
            "stage.drain_ms",
            format!("must be at most {MAX_DRAIN_MS}: the group would give the partitions away before they are drained"),
        ));
    }
    match rows.into_iter().find(|(_, usable, _)| !usable) {
        None => Ok(()),
        Some((key, _, why)) => Err(ConfigError::refused(key, format!("must be at least 1: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_registry_is_reached_as_configured_or_refused_by_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "hunter2\n").unwrap();
        let file = file.display();
        for (text, key) in [
            (String::new(), None),
            (format!("user = 'u'\npassword_file = '{file}'"), None),
            (format!("token_file = '{file}'"), None),
            ("url = 'https://registry'\ntoken = 'hunter2'".to_owned(), None),
            ("user = 'u'".to_owned(), Some("registry.user")),
            ("token_file = '/none'".to_owned(), Some("registry.token_file")),
            (
                format!("token_file = '{file}'\ntoken = 'hunter2'"),
                Some("registry.token_file"),
            ),
            (
                "url = 'https://registry'\nca_file = '/none'".to_owned(),
                Some("/none cannot be used"),
            ),
            (
                "url = 'http://a:hunter2@registry'\ntoken = 'hunter2'".to_owned(),
                Some("credentials both in the address"),
            ),
        ] {
            let config: RegistryConfig =
                figment::Figment::from(figment::providers::Serialized::defaults(RegistryConfig::default()))
                    .merge(<figment::providers::Toml as figment::providers::Format>::string(&text))
                    .extract()
                    .unwrap();
            let connected = config.connect();
            assert_eq!(connected.is_err(), key.is_some(), "{text}: {connected:?}");
            let told = |e: ProcessError| format!("{e}: {}", e.source().map(ToString::to_string).unwrap_or_default());
            let error = connected.err().map(told).unwrap_or_default();
            assert!(error.contains(key.unwrap_or_default()), "{text}: {error}");
            let shown = format!("{error}{config:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("hunter2");
        let written = serde_json::to_string(&secret).unwrap();
        assert_eq!(
            (format!("{secret:?}").as_str(), written.as_str()),
            ("<secret>", "\"<secret>\"")
        );
        assert_eq!(serde_json::from_str::<Secret>("\"hunter2\"").unwrap(), secret);
        assert_eq!(serde_json::to_string(&Secret::default()).unwrap(), "\"\"");
        let error = serde_json::from_str::<Secret>("424242").unwrap_err().to_string();
        assert!(!error.contains("424242"), "{error}");
    }

    #[test]
    fn a_stage_that_can_do_nothing_is_refused_by_its_key() {
        type Change = fn(&mut Limits, &mut Calls);
        let rows: [(Change, Option<&str>); 7] = [
            (|_, _| {}, None),
            (|stage, _| stage.max_in_flight = 0, Some("stage.max_in_flight")),
            (|stage, _| stage.window_bytes = 0, Some("stage.window_bytes")),
            (|stage, _| stage.drain_ms = 20_000, None),
            (|stage, _| stage.drain_ms = 20_001, Some("stage.drain_ms")),
            (|_, calls| calls.concurrency = 0, Some("calls.concurrency")),
            (|_, calls| calls.timeout_ms = 0, Some("calls.timeout_ms")),
        ];
        for (change, key) in rows {
            let (mut stage, mut calls) = (Limits::default(), Calls::default());
            change(&mut stage, &mut calls);
            let refused = check_stage(&stage, &calls).err().map(|e| e.to_string());
            assert_eq!(refused.is_some(), key.is_some());
            assert!(key.is_none_or(|key| refused.is_some_and(|text| text.contains(key))));
        }
    }
}
