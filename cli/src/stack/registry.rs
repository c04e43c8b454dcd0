//! The schema registry: Apicurio, its schemas in a file database in the stack's directory.
//!
//! The ids that it gives stand in every record of Kafka, so they must outlive it: `WRITE_DELAY=0` makes a registration
//! survive a kill right after it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::fetch::Cache;
use super::ports::Ports;
use super::process::Program;
use super::state::Layout;

/// Says how the registry is started.
pub fn prepare(layout: &Layout, cache: &Cache, java: &Path, ports: &Ports) -> Result<Program> {
    let database = layout.data("registry").join("registry");
    let envs = [
        ("QUARKUS_HTTP_HOST", "127.0.0.1".to_owned()),
        ("QUARKUS_HTTP_PORT", ports.of("registry")?.to_string()),
        ("APICURIO_STORAGE_KIND", "sql".to_owned()),
        ("APICURIO_STORAGE_SQL_KIND", "h2".to_owned()),
        (
            "APICURIO_DATASOURCE_URL",
            format!("jdbc:h2:file:{};WRITE_DELAY=0", database.display()),
        ),
        ("APICURIO_DATASOURCE_USERNAME", "sa".to_owned()),
        ("APICURIO_DATASOURCE_PASSWORD", "sa".to_owned()),
    ];
    Ok(Program {
        name: "registry".to_owned(),
        command: java.to_owned(),
        args: vec![
            "-Xmx400m".into(),
            "-XX:+UseSerialGC".into(),
            // It has little to do: starting fast is worth more than running fast.
            "-XX:TieredStopAtLevel=1".into(),
            "-XX:-UsePerfData".into(),
            // Unused by the registry: how a left-over process is recognised.
            format!("-Dmillrace.dir={}", layout.root().display()).into(),
            "-jar".into(),
            cache.registry_jar().into_os_string(),
        ],
        envs: envs.map(|(name, value)| (name.into(), value.into())).to_vec(),
        without: Vec::new(),
        layout: layout.clone(),
        stop_within: Duration::from_secs(10),
        ends_with_us: false,
    })
}
