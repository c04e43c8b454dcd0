//! What others use, on the same broker: compiled and run as the README beside them says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::output::Progress;
use crate::stack::fetch::Cache;
use crate::stack::needs;

/// Why a peer's figure is not there.
pub const NONE: &str = "peers run only with --peers DIR, a folder with parallel-consumer/ and java-loop/";

const LIMIT: Duration = Duration::from_secs(600);

/// Compiled, ready to run.
#[derive(Debug)]
pub struct Peers {
    java: PathBuf,
    bootstrap: String,
    parallel_consumer: String,
    java_loop: String,
    prose: PathBuf,
    _dir: TempDir,
}

#[derive(Debug, Deserialize)]
struct Round {
    to_all_committed_s: f64,
    order_violations: u64,
    tx_outputs: i64,
}

#[derive(Debug, Deserialize)]
struct Loop {
    n: u64,
    rate: f64,
}

impl Peers {
    /// Fetches what they need through Maven and compiles them, into a temporary directory.
    pub async fn prepare(peers: &Path, cache: &Cache, bootstrap: &str, progress: &Progress) -> Result<Self> {
        let step = progress.step("peers");
        let (java, dir) = (needs::java().await?, TempDir::with_prefix("millrace-peers-")?);
        needs::maven().await?;
        let javac = java.with_file_name("javac");
        let javac = if javac.is_file() { javac } else { "javac".into() };
        let peers = std::path::absolute(peers)?;
        step.say("fetching Parallel Consumer through Maven");
        let jars = dir.path().join("jars");
        let mut maven = Command::new("mvn");
        maven
            .args(["-B", "-q", "-f"])
            .arg(peers.join("parallel-consumer/pom.xml"))
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", jars.display()));
        said(maven, "mvn").await?;
        step.say("compiling");
        let (classes, loop_classes) = (dir.path().join("parallel-consumer"), dir.path().join("java-loop"));
        let jars = format!("{}/*", jars.display());
        cache.fill_broker(progress).await?;
        let kafka = cache.kafka_class_path();
        for (source, libraries, classes) in [
            ("parallel-consumer/PC.java", &jars, &classes),
            ("java-loop/CTP.java", &kafka, &loop_classes),
        ] {
            let mut compile = Command::new(&javac);
            compile
                .args(["-nowarn", "-cp", libraries, "-d"])
                .arg(classes)
                .arg(peers.join(source));
            said(compile, "javac").await?;
        }
        step.done("compiled");
        Ok(Self {
            java,
            bootstrap: bootstrap.to_owned(),
            parallel_consumer: format!("{}:{jars}", classes.display()),
            java_loop: format!("{}:{kafka}", loop_classes.display()),
            prose: dir.path().join("prose"),
            _dir: dir,
        })
    }

    /// Parallel Consumer with a transactional producer, rounds one after another in one process: seconds of each from
    /// the first record to all committed.
    pub async fn parallel_consumer(&self, rounds: usize, records: u64) -> Result<Vec<f64>> {
        let rounds = rounds.to_string();
        let lines: Vec<Round> = self
            .run(&self.parallel_consumer, &["PC", "KEY", "TX", "0", &rounds])
            .await?;
        if let Some(wrong) = lines.iter().find(|round| {
            round.tx_outputs != records as i64 || round.order_violations > 0 || round.to_all_committed_s < 0.0
        }) {
            bail!("Parallel Consumer did not do the same work: {wrong:?}");
        }
        Ok(lines.iter().map(|round| round.to_all_committed_s).collect())
    }

    /// Java's client on one thread, a transaction every 100 ms: records a second.
    pub async fn java_loop(&self, (records, from, to): (u64, usize, usize), prose: &[u8]) -> Result<f64> {
        fs::write(&self.prose, prose)?;
        let arguments = [records.to_string(), from.to_string(), to.to_string()];
        let [records_text, from, to] = &arguments;
        let lines: Vec<Loop> = self
            .run(&self.java_loop, &["CTP", records_text, from, to, "100"])
            .await?;
        match lines.first() {
            Some(line) if line.n == records => Ok(line.rate),
            other => bail!("Java's loop did not do the same work: {other:?}"),
        }
    }

    async fn run<T: DeserializeOwned>(&self, class_path: &str, arguments: &[&str]) -> Result<Vec<T>> {
        let mut java = Command::new(&self.java);
        java.args(["-cp", class_path])
            .args(arguments)
            .env("BROKER", &self.bootstrap)
            .env("PROSE", &self.prose);
        let text = said(java, arguments[0]).await?;
        let lines = text.lines().filter(|line| line.starts_with('{'));
        let parsed: Result<Vec<T>, _> = lines.map(serde_json::from_str).collect();
        parsed.with_context(|| format!("{} says something else", arguments[0]))
    }
}

async fn said(mut command: Command, name: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, output)
        .await
        .with_context(|| format!("{name} takes too long"))?;
    let output = output.with_context(|| format!("cannot run {name}"))?;
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        bail!("{name}: {}: {}{}", output.status, text.trim(), errors.trim());
    }
    Ok(text.into_owned())
}
