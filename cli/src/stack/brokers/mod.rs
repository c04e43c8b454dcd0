//! The brokers: Apache Kafka, one KRaft node or three, each of them broker and controller, with its log in the stack's
//! directory.
//!
//! | | one | three |
//! |---|---|---|
//! | replicas of a record, and how many must have it | 1, 1 | 3, 2: any one may be away |
//! | voters of the quorum | itself, written into its log when that is formatted | named in the settings of each, so that one whose port has moved is found |
//!
//! [`settings`] is a node's file, [`format`] makes its log, [`alone`] is a broker without the rest of a stack.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::fetch::Cache;
use super::ports::Ports;
use super::process::Program;
use super::size::{Size, of_node};
use super::state::{Layout, write_whole};

pub mod alone;
mod format;
mod settings;

use format::Formatter;

const LOGGING: &str = include_str!("../../../../deploy/local/simplelogger.properties");

/// For a clean stop of the only node.
const STOP: Duration = Duration::from_secs(20);
/// Of several that stop together the last may wait for its leave without end: those that would have to agree have left. It
/// is killed then, and recovers its log at the next start.
const STOP_OF_SEVERAL: Duration = Duration::from_secs(10);

/// Writes each node's settings, formats its log once, and says how it is started.
pub async fn prepare(
    layout: &Layout,
    cache: &Cache,
    java: &Path,
    (size, ports): (Size, &Ports),
    cluster_id: &str,
) -> Result<Vec<Program>> {
    // simplelogger.properties is looked for on the class path.
    write_whole(&layout.root().join("config/simplelogger.properties"), LOGGING)?;
    let class_path = format!(
        "{}:{}",
        layout.root().join("config").display(),
        cache.kafka_class_path()
    );
    let formatter = Formatter {
        java,
        class_path: &class_path,
        cluster_id,
        // Three have their voters in their settings.
        standalone: size.brokers == 1,
    };
    let nodes = settings::nodes(size, ports)?;
    let mut programs = Vec::new();
    for node in &nodes {
        let name = of_node(node.id, "kafka");
        let (data, properties) = (
            layout.data(&name),
            layout.root().join(format!("config/{name}.properties")),
        );
        write_whole(&properties, &settings::properties(node, &nodes, &data))?;
        formatter.format(&data, &properties).await?;
        let mut args: Vec<_> = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp"]
            .map(Into::into)
            .to_vec();
        args.extend([
            class_path.as_str().into(),
            "kafka.Kafka".into(),
            properties.into_os_string(),
        ]);
        programs.push(Program {
            name,
            command: java.to_owned(),
            args,
            envs: Vec::new(),
            without: Vec::new(),
            layout: layout.clone(),
            stop_within: if nodes.len() > 1 { STOP_OF_SEVERAL } else { STOP },
            ends_with_us: false,
        });
    }
    Ok(programs)
}
