//! The services: this same binary, `millrace run <service>`, each instance with a config file made from the stack's state.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Options;
use super::fetch::Cache;
use super::process::Program;
use super::size::{Instance, http_of};
use super::state::{Layout, State, write_whole};
use crate::traces;

/// Set for a service whose stdin is the pipe of its `up`.
pub const ENDS_WITH_STDIN: &str = "MILLRACE_ENDS_WITH_STDIN";

/// Writes an instance's config file and says how it is started: from this program's file, or the one that the options name,
/// which is looked up at each start.
pub fn prepare(
    instance: &Instance,
    layout: &Layout,
    cache: &Cache,
    state: &State,
    options: &Options,
) -> Result<Program> {
    let (name, service) = (instance.part(), instance.service);
    let path = layout.config(&name);
    let text = format!(
        "# Written by `millrace up` at each start. MILLRACE_{}_<FIELD> in the environment goes before it.\n{}",
        service.to_uppercase(),
        config(instance, layout, cache, state, options.remembers)?
    );
    write_whole(&path, &text)?;
    let (mut envs, without) = own_variables(instance, std::env::vars_os());
    // Logs go to a file: no colours.
    envs.extend([(ENDS_WITH_STDIN.into(), "1".into()), ("NO_COLOR".into(), "1".into())]);
    let command = match options.programs.get(service) {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("cannot find this program's own file")?,
    };
    Ok(Program {
        name,
        command,
        args: vec!["run".into(), service.into(), "--config".into(), path.into_os_string()],
        envs,
        without,
        layout: layout.clone(),
        stop_within: Duration::from_secs(30),
        ends_with_us: true,
    })
}

/// Whether the services send their traces to this `up`: not where the environment names another receiver.
pub fn sends_here() -> bool {
    millrace_runtime::telemetry::traces::named_by_environment().is_none()
}

/// `MILLRACE_<SERVICE>_<NUMBER>_<FIELD>` is for one instance alone, and before what all of them are told: its variables as
/// it reads them, and those that it must not see.
fn own_variables(
    instance: &Instance,
    all: impl Iterator<Item = (OsString, OsString)>,
) -> (Vec<(OsString, OsString)>, Vec<OsString>) {
    let prefix = format!("MILLRACE_{}_", instance.service.to_uppercase());
    let (mut own, mut numbered) = (Vec::new(), Vec::new());
    for (name, value) in all {
        let field = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let Some((number, field)) = field.and_then(|field| field.split_once('_')) else {
            continue;
        };
        let Ok(number) = number.parse::<u16>() else {
            continue;
        };
        if number == instance.number {
            own.push((format!("{prefix}{field}").into(), value));
        }
        numbered.push(name);
    }
    (own, numbered)
}

fn config(instance: &Instance, layout: &Layout, cache: &Cache, state: &State, remembers: bool) -> Result<Table> {
    let text = |value: &Path| Value::String(value.to_string_lossy().into_owned());
    let table = |key: &str, value: Value| Value::Table(Table::from_iter([(key.to_owned(), value)]));
    let part = instance.part();
    let (port, http) = (state.ports.of(&part)?, state.ports.of(&http_of(&part))?);
    let mut config = Table::from_iter([
        ("instance".to_owned(), instance.name().into()),
        ("listen".to_owned(), format!("127.0.0.1:{port}").into()),
        ("http".to_owned(), format!("127.0.0.1:{http}").into()),
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
    if sends_here() {
        let port = state.ports.of(traces::PART)?;
        set("traces", table("endpoint", format!("http://127.0.0.1:{port}").into()));
    }
    match instance.service {
        "ingest" => {
            let lanes = state.lanes.keys().map(|lane| lane.as_str().into());
            set("lanes", table("names", Value::Array(lanes.collect())));
            set("data_dir", text(&layout.data(&part)));
            set("tokenizer", text(&cache.model().join("tokenizer.json")));
        }
        "embedder" => {
            let lanes = state.lanes.iter();
            let weights = lanes.map(|(lane, weight)| (lane.as_str().to_owned(), i64::from(*weight).into()));
            set("lanes", table("weights", Value::Table(weights.collect())));
            set("model", table("dir", text(&cache.model())));
            if remembers {
                set("cache", table("dir", text(&layout.data(&part).join("cache"))));
            }
            set("onnxruntime", text(&cache.onnxruntime()));
        }
        _ => {
            set("data_dir", text(&layout.data(&part)));
            // One is enough to embed queries; the others embed documents.
            set("embedder", state.addresses.embedder.clone().into());
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_with_a_number_is_for_that_instance_alone() {
        let set = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let all = [
            set("MILLRACE_EMBEDDER_LOG__FORMAT", "json"),
            set("MILLRACE_EMBEDDER_0_LISTEN", "a"),
            set("MILLRACE_EMBEDDER_1_LISTEN", "b"),
            set("MILLRACE_EMBEDDER_1_KAFKA__BOOTSTRAP_SERVERS", "c"),
            set("MILLRACE_INGEST_1_LISTEN", "d"),
        ];
        let second = Instance {
            service: "embedder",
            number: 1,
        };
        let (own, without) = own_variables(&second, all.iter().cloned());
        assert_eq!(
            own,
            [
                set("MILLRACE_EMBEDDER_LISTEN", "b"),
                set("MILLRACE_EMBEDDER_KAFKA__BOOTSTRAP_SERVERS", "c")
            ]
        );
        let numbered: Vec<_> = all[1..4].iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(without, numbered);
    }
}
