//! The broker: Apache Kafka, one KRaft node with its log in the stack's directory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::fetch::Cache;
use super::ports::Ports;
use super::process::Program;
use super::state::{Layout, write_whole};

const TEMPLATE: &str = include_str!("../../../deploy/local/kafka.properties");
const LOGGING: &str = include_str!("../../../deploy/local/simplelogger.properties");

/// Writes the broker's settings, formats its log once, and says how it is started.
pub async fn prepare(layout: &Layout, cache: &Cache, java: &Path, ports: &Ports, cluster_id: &str) -> Result<Program> {
    let properties = layout.root().join("config/kafka.properties");
    let settings = TEMPLATE
        .replace("@DATA@", &layout.data("kafka").to_string_lossy())
        .replace("@BROKER_PORT@", &ports.kafka.to_string())
        .replace("@CONTROLLER_PORT@", &ports.controller.to_string());
    write_whole(&properties, &settings)?;
    // simplelogger.properties is looked for on the class path.
    write_whole(&layout.root().join("config/simplelogger.properties"), LOGGING)?;
    let class_path = format!(
        "{}:{}",
        layout.root().join("config").display(),
        cache.kafka_class_path()
    );
    format(layout, java, &class_path, &properties, cluster_id).await?;
    let mut args: Vec<_> = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp"]
        .map(Into::into)
        .to_vec();
    args.extend([class_path.into(), "kafka.Kafka".into(), properties.into_os_string()]);
    Ok(Program {
        name: "kafka",
        command: java.to_owned(),
        args,
        envs: Vec::new(),
        layout: layout.clone(),
        stop_within: Duration::from_secs(20),
        ends_with_us: false,
    })
}

/// `meta.properties` is what formatting writes last, and no broker starts without it: a folder that lacks it holds
/// nothing that was ever accepted.
async fn format(layout: &Layout, java: &Path, class_path: &str, properties: &Path, cluster_id: &str) -> Result<()> {
    let data = layout.data("kafka");
    if data.join("meta.properties").is_file() {
        return Ok(());
    }
    let holds_a_log = fs::read_dir(&data)?
        .filter_map(Result::ok)
        .any(|e| e.path().is_dir() && !e.file_name().to_string_lossy().starts_with("__cluster_metadata"));
    if holds_a_log {
        bail!(
            "{} holds logs but no meta.properties: it was damaged; put the file back or start with another --dir",
            data.display()
        );
    }
    fs::remove_dir_all(&data)?;
    fs::create_dir(&data)?;
    let output = Command::new(java)
        .args([
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            class_path,
            "kafka.tools.StorageTool",
            "format",
        ])
        // In one word: an id that begins with a dash, as one in 64 does, would be taken for an option.
        .args([&format!("--cluster-id={cluster_id}"), "--standalone", "-c"])
        .arg(properties)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .output()
        .await
        .context("cannot run Kafka's storage tool")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(if output.stderr.is_empty() {
            &output.stdout
        } else {
            &output.stderr
        });
        bail!("Kafka's storage tool cannot format {}: {}", data.display(), said.trim());
    }
    Ok(())
}
