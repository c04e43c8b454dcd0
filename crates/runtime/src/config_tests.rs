use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    instance: String,
    data_dir: Option<String>,
    kafka: Kafka,
    open: Open,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Kafka {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
}

/// Not marked to refuse what it does not know: `load` does it all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Open {
    size: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: "local-0".into(),
            data_dir: None,
            kafka: Kafka::default(),
            open: Open { size: 1 },
        }
    }
}

impl Default for Open {
    fn default() -> Self {
        Self { size: 7 }
    }
}

#[derive(Serialize, Default)]
struct Flags {
    instance: Option<String>,
    kafka: KafkaFlags,
}

#[derive(Serialize, Default)]
struct KafkaFlags {
    bootstrap_servers: Option<String>,
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn env(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn refusal(text: &str, variables: &[(&str, &str)]) -> (String, String) {
    let file = file(text);
    let error = load_from::<Config>("ingest", Some(file.path()), env(variables), ()).unwrap_err();
    assert_eq!(error.exit_code(), 64);
    (error.to_string(), file.path().display().to_string())
}

#[test]
fn later_sources_win() {
    let file = file("instance = 'file'\n[kafka]\nbootstrap_servers = 'file:1'\n[open]\nsize = 2\n");
    let variables = [
        ("MILLRACE_INGEST_KAFKA__BOOTSTRAP_SERVERS", "env:2"),
        ("MILLRACE_INDEXER_INSTANCE", "other"),
        ("MILLRACE_PROFILE", "dev"),
    ];
    let mut flags = Flags::default();
    let config: Config = load_from("ingest", Some(file.path()), env(&variables), &flags).unwrap();
    assert_eq!(
        (
            config.instance.as_str(),
            config.kafka.bootstrap_servers.as_str(),
            config.open.size
        ),
        ("file", "env:2", 2)
    );
    flags.kafka.bootstrap_servers = Some("flag:3".into());
    let config: Config = load_from("ingest", Some(file.path()), env(&variables), &flags).unwrap();
    assert_eq!(
        (config.instance.as_str(), config.kafka.bootstrap_servers.as_str()),
        ("file", "flag:3")
    );
    let defaults: Config = load_from("ingest", None, env(&[]), ()).unwrap();
    assert_eq!(defaults, Config::default());
}

#[test]
fn a_text_from_the_environment_stays_a_text() {
    let variables = [
        ("MILLRACE_INGEST_INSTANCE", "007"),
        ("MILLRACE_INGEST_OPEN__SIZE", "9"),
        ("MILLRACE_INGEST_DATA_DIR", "/x"),
    ];
    let config: Config = load_from("ingest", None, env(&variables), ()).unwrap();
    assert_eq!(
        (config.instance.as_str(), config.open.size, config.data_dir.as_deref()),
        ("007", 9, Some("/x"))
    );
}

#[test]
fn a_map_takes_keys_of_its_own() {
    let file = file("[kafka.properties]\n'security.protocol' = 'plaintext'\n");
    let config: Config = load_from("ingest", Some(file.path()), env(&[]), ()).unwrap();
    assert_eq!(config.kafka.properties["security.protocol"], "plaintext");
}

#[test]
fn an_unknown_key_is_refused_with_its_source() {
    for (text, key) in [
        ("instanse = 'x'", "`instanse`"),
        ("[kafka]\nservers = 'x'", "`kafka.servers`"),
        ("[open]\nextra = 1", "`open.extra`"),
    ] {
        let (error, path) = refusal(text, &[]);
        assert!(
            error.contains(&path) && error.contains(key) && error.contains("no such key"),
            "{error}"
        );
    }
    let (error, _) = refusal("", &[("MILLRACE_INGEST_KAFKA__SERVERS", "x")]);
    assert!(
        error.contains("environment variable MILLRACE_INGEST_KAFKA__SERVERS") && error.contains("`kafka.servers`"),
        "{error}"
    );
}

#[test]
fn a_wrong_value_is_refused_with_its_source() {
    let (error, path) = refusal("[open]\nsize = 'big'", &[]);
    assert!(
        error.contains(&path) && error.contains("`open.size`") && error.contains("\"big\""),
        "{error}"
    );
    let (error, _) = refusal("", &[("MILLRACE_INGEST_OPEN__SIZE", "big")]);
    assert!(
        error.contains("environment variable MILLRACE_INGEST_OPEN__SIZE") && error.contains("`open.size`"),
        "{error}"
    );
    let (error, path) = refusal("instance = \n", &[]);
    assert!(error.contains(&path), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load_from::<Config>("ingest", Some(Path::new("/nowhere/ingest.toml")), env(&[]), ()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/ingest.toml"), "{error}");
}

#[test]
fn a_services_own_rule_reads_the_same() {
    let error = ConfigError::refused("max_chunk_tokens", "1 to 510, this is 0");
    assert_eq!(
        error.to_string(),
        "the configuration cannot be used: `max_chunk_tokens`: 1 to 510, this is 0"
    );
}
