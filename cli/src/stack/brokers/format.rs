//! A node's log before its first start.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// Kafka's storage tool, for the nodes of one cluster.
#[derive(Debug)]
pub struct Formatter<'f> {
    /// What runs it.
    pub java: &'f Path,
    /// Where it is.
    pub class_path: &'f str,
    /// The same for each node.
    pub cluster_id: &'f str,
    /// The node is the only voter.
    pub standalone: bool,
}

impl Formatter<'_> {
    /// Formats a node's log, unless it is. `meta.properties` is what formatting writes last, and no broker starts
    /// without it: a folder that lacks it holds nothing that was ever accepted.
    pub async fn format(&self, data: &Path, properties: &Path) -> Result<()> {
        if data.join("meta.properties").is_file() {
            return Ok(());
        }
        fs::create_dir_all(data)?;
        let holds_a_log = fs::read_dir(data)?
            .filter_map(Result::ok)
            .any(|e| e.path().is_dir() && !e.file_name().to_string_lossy().starts_with("__cluster_metadata"));
        if holds_a_log {
            bail!(
                "{} holds logs but no meta.properties: it was damaged; put the file back or start with another --dir",
                data.display()
            );
        }
        fs::remove_dir_all(data)?;
        fs::create_dir(data)?;
        let output = self
            .command(properties)
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

    fn command(&self, properties: &Path) -> Command {
        let mut command = Command::new(self.java);
        command
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", self.class_path])
            .args(["kafka.tools.StorageTool", "format"])
            // In one word: an id that begins with a dash, as one in 64 does, would be taken for an option.
            .arg(format!("--cluster-id={}", self.cluster_id))
            .args(self.standalone.then_some("--standalone"))
            .arg("-c")
            .arg(properties)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .process_group(0);
        command
    }
}
