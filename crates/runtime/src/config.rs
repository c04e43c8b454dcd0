//! Configuration: defaults < file < environment < flags.
//!
//! The environment of service `ingest` is `MILLRACE_INGEST_<FIELD>`, with `__` for a step down:
//! `MILLRACE_INGEST_KAFKA__BOOTSTRAP_SERVERS` is `kafka.bootstrap_servers`. Where the default is a text, the variable is
//! taken as it stands; elsewhere it is read as a TOML-like value (`8`, `true`, `[1, 2]`).
//!
//! A key that nothing reads is refused wherever it came from: a typo must not become a silent default.

use std::fmt;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Exit code of a process whose configuration is wrong.
pub const EXIT_CODE: u8 = 64;

/// Why a process does not start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Values that cannot be used; each names its key and where it came from.
    #[error("the configuration cannot be used:{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, for example `kafka.bootstrap_servers`; empty for the whole.
    pub key: String,
    /// Where the value came from: a file, an environment variable, the flags.
    pub source: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.source.is_empty() {
            write!(f, "{}: ", self.source)?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl ConfigError {
    /// For the relations that a service checks itself: a key and what is wrong with its value.
    pub fn refused(key: &str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem {
            key: key.to_owned(),
            source: String::new(),
            message: message.into(),
        }])
    }
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        EXIT_CODE
    }
}

fn lines(problems: &[Problem]) -> String {
    match problems {
        [one] => format!(" {one}"),
        several => several.iter().map(|p| format!("\n  {p}")).collect(),
    }
}

/// Loads the configuration of a service.
///
/// `flags` serializes to the same shape as `C`; what is `None` in it is not set. `()` for none.
pub fn load<C>(service: &str, file: Option<&Path>, flags: impl Serialize) -> Result<C, ConfigError>
where
    C: Default + Serialize + DeserializeOwned,
{
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    load_from(service, file, environment, flags)
}

/// As [`load`], with the environment given.
pub fn load_from<C>(
    service: &str,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: impl Serialize,
) -> Result<C, ConfigError>
where
    C: Default + Serialize + DeserializeOwned,
{
    let defaults = Value::serialize(C::default()).map_err(|e| invalid(e, ""))?;
    let mut figment = Figment::from(Serialized::defaults(C::default()));
    if let Some(path) = file {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        std::fs::read_to_string(path).map_err(unreadable)?;
        figment = figment.merge(Toml::file_exact(path));
    }
    let prefix = format!("MILLRACE_{}_", service.to_uppercase().replace('-', "_"));
    for (name, text) in environment {
        if let Some(field) = name.strip_prefix(&prefix) {
            figment = figment.merge(variable(&name, field, &text, &defaults));
        }
    }
    let flags = Value::serialize(flags).map_err(|e| invalid(e, "flags"))?;
    if let Some(set) = without_empty(flags).and_then(Value::into_dict) {
        figment = figment.merge(Source {
            name: "flags".to_owned(),
            dict: set,
        });
    }
    refuse_unread::<C>(&figment)?;
    figment.extract().map_err(|e| invalid(e, ""))
}

/// A provider whose name says where its values came from.
struct Source {
    name: String,
    dict: Dict,
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

fn variable(name: &str, field: &str, text: &str, defaults: &Value) -> Source {
    let keys: Vec<String> = field.split("__").map(str::to_lowercase).collect();
    let default = keys.iter().try_fold(defaults, |value, key| value.as_dict()?.get(key));
    let value = match default {
        Some(Value::String(..)) => Value::from(text),
        // `parse` has no error: what is nothing else is a text.
        _ => text.parse().unwrap_or_else(|_| Value::from(text)),
    };
    let nested = keys
        .into_iter()
        .rev()
        .fold(value, |value, key| Dict::from([(key, value)]).into());
    Source {
        name: format!("environment variable {name}"),
        dict: nested.into_dict().unwrap_or_default(),
    }
}

fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Empty(..) => None,
        Value::Dict(tag, dict) => {
            let set: Dict = dict
                .into_iter()
                .filter_map(|(k, v)| Some((k, without_empty(v)?)))
                .collect();
            (!set.is_empty()).then_some(Value::Dict(tag, set))
        }
        other => Some(other),
    }
}

/// Refuses keys that `C` does not read, whether or not its types are marked to do so.
fn refuse_unread<C: DeserializeOwned>(figment: &Figment) -> Result<(), ConfigError> {
    let values: serde_json::Value = figment.extract().map_err(|e| invalid(e, ""))?;
    let mut unread = Vec::new();
    // An error here comes again, with its source, from figment's own reading.
    let _ = serde_ignored::deserialize::<_, _, C>(values, |path| unread.push(path.to_string()));
    if unread.is_empty() {
        return Ok(());
    }
    let problem = |key: String| Problem {
        source: figment.find_metadata(&key).map(origin).unwrap_or_default(),
        message: "no such key".to_owned(),
        key,
    };
    Err(ConfigError::Invalid(unread.into_iter().map(problem).collect()))
}

fn invalid(error: figment::Error, fallback: &str) -> ConfigError {
    ConfigError::Invalid(error.into_iter().map(|e| problem(&e, fallback)).collect())
}

fn problem(error: &figment::Error, fallback: &str) -> Problem {
    let mut path = error.path.clone();
    let message = match &error.kind {
        Kind::UnknownField(name, known) => {
            if path.last() != Some(name) {
                path.push(name.clone());
            }
            format!("no such key; known here: {}", known.join(", "))
        }
        Kind::MissingField(name) => {
            path.push(name.to_string());
            "must be set".to_owned()
        }
        kind => kind.to_string(),
    };
    Problem {
        key: path.join("."),
        source: error.metadata.as_ref().map_or_else(|| fallback.to_owned(), origin),
        message,
    }
}

fn origin(metadata: &Metadata) -> String {
    match metadata.source.as_ref().and_then(|s| s.file_path()) {
        Some(path) => path.display().to_string(),
        None => metadata.name.to_string(),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
