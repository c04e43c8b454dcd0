//! The three services: this same binary, `millrace run <service>`, with a config file made from the stack's state.

use std::time::Duration;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::fetch::Cache;
use super::process::Program;
use super::state::{Layout, State, write_whole};

/// The services, in the order a document meets them.
pub const NAMES: [&str; 3] = ["ingest", "embedder", "indexer"];

/// Set for a service whose stdin is the pipe of its `up`.
pub const ENDS_WITH_STDIN: &str = "MILLRACE_ENDS_WITH_STDIN";

/// Writes a service's config file and says how it is started.
pub fn prepare(name: &'static str, layout: &Layout, cache: &Cache, state: &State) -> Result<Program> {
    let path = layout.config(name);
    let text = format!(
        "# Written by `millrace up` at each start. MILLRACE_{}_<FIELD> in the environment goes before it.\n{}",
        name.to_uppercase(),
        config(name, layout, cache, state)
    );
    write_whole(&path, &text)?;
    Ok(Program {
        name,
        command: std::env::current_exe().context("cannot find this program's own file")?,
        args: vec!["run".into(), name.into(), "--config".into(), path.into_os_string()],
        // Logs go to a file: no colours.
        envs: vec![(ENDS_WITH_STDIN, "1".into()), ("NO_COLOR", "1".into())],
        layout: layout.clone(),
        stop_within: Duration::from_secs(30),
        ends_with_us: true,
    })
}

fn config(name: &str, layout: &Layout, cache: &Cache, state: &State) -> Table {
    let text = |value: &std::path::Path| Value::String(value.to_string_lossy().into_owned());
    let table = |key: &str, value: Value| Value::Table(Table::from_iter([(key.to_owned(), value)]));
    let port = match name {
        "ingest" => state.ports.ingest,
        "embedder" => state.ports.embedder,
        _ => state.ports.indexer,
    };
    let mut config = Table::from_iter([
        ("instance".to_owned(), "local-0".into()),
        ("listen".to_owned(), format!("127.0.0.1:{port}").into()),
        (
            "kafka".to_owned(),
            table("bootstrap_servers", state.addresses.kafka.clone().into()),
        ),
        (
            "registry".to_owned(),
            table("url", state.addresses.registry.clone().into()),
        ),
    ]);
    let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
    match name {
        "ingest" => {
            set("data_dir", text(&layout.data(name)));
            set("tokenizer", text(&cache.model().join("tokenizer.json")));
        }
        "embedder" => {
            set("model", table("dir", text(&cache.model())));
            set("onnxruntime", text(&cache.onnxruntime()));
        }
        _ => {
            set("data_dir", text(&layout.data(name)));
            set("embedder", state.addresses.embedder.clone().into());
        }
    }
    config
}
