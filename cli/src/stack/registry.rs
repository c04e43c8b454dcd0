//! The schema registry: Apicurio, its schemas in a file database in the stack's directory.
//!
//! The ids that it gives stand in every record of Kafka, so they must outlive it: `WRITE_DELAY=0` makes a registration
//! survive a kill right after it.

use std::path::Path;
use std::time::Duration;

use super::fetch::Cache;
use super::ports::Ports;
use super::process::Program;
use super::state::Layout;

/// Says how the registry is started.
pub fn prepare(layout: &Layout, cache: &Cache, java: &Path, ports: &Ports) -> Program {
    let database = layout.data("registry").join("registry");
    Program {
        name: "registry",
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
        envs: vec![
            ("QUARKUS_HTTP_HOST", "127.0.0.1".into()),
            ("QUARKUS_HTTP_PORT", ports.registry.to_string().into()),
            ("APICURIO_STORAGE_KIND", "sql".into()),
            ("APICURIO_STORAGE_SQL_KIND", "h2".into()),
            (
                "APICURIO_DATASOURCE_URL",
                format!("jdbc:h2:file:{};WRITE_DELAY=0", database.display()).into(),
            ),
            ("APICURIO_DATASOURCE_USERNAME", "sa".into()),
            ("APICURIO_DATASOURCE_PASSWORD", "sa".into()),
        ],
        layout: layout.clone(),
        stop_within: Duration::from_secs(10),
        ends_with_us: false,
    }
}
