//! This program in a process of its own, that runs a stage and nothing else: to be killed, or to be weighed.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use millrace_flow::runner::Limits;
use millrace_kafka::KafkaConfig;
use millrace_kafka::yardstick::{LoopConfig, bare_loop};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::stages::{self, Echo, Running, Setup, Stalled, Text};
use crate::output;

/// What the child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A stage that does nothing.
    Echo,
    /// The bare loop.
    Loop,
    /// A stage whose records never finish.
    Stalled,
}

/// Its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Child {
    /// What it runs
    #[arg(value_enum)]
    pub kind: Kind,
    /// The broker
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Consumer group
    #[arg(long)]
    pub group: String,
    /// Topic to read
    #[arg(long)]
    pub input: String,
    /// Topic to write
    #[arg(long)]
    pub output: String,
    /// Stands at the end of each output
    #[arg(long)]
    pub mark: u32,
}

/// How a child reaches Kafka.
#[derive(Debug, Clone, clap::Args)]
pub struct KafkaArgs {
    #[arg(long)]
    bootstrap: String,
    #[arg(long, value_parser = property)]
    set: Vec<(String, String)>,
}

impl KafkaArgs {
    fn config(&self) -> KafkaConfig {
        KafkaConfig {
            bootstrap_servers: self.bootstrap.clone(),
            properties: self.set.iter().cloned().collect(),
        }
    }
}

impl From<&KafkaConfig> for KafkaArgs {
    fn from(kafka: &KafkaConfig) -> Self {
        Self {
            bootstrap: kafka.bootstrap_servers.clone(),
            set: kafka.properties.clone().into_iter().collect(),
        }
    }
}

/// `name=value`.
pub fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has no `=`: give NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

const INSTANCE: &str = "0";

/// Runs until it is killed, or until whoever started it is gone.
pub async fn run(child: Child) -> Result<()> {
    end_with_stdin()?;
    let kafka = child.kafka.config();
    let setup = Setup {
        group: child.group.clone(),
        instance: INSTANCE.into(),
        input: child.input.clone(),
        limits: Limits::default(),
    };
    let text = Text::Mark(child.mark);
    match child.kind {
        Kind::Loop => {
            let config = LoopConfig {
                group: child.group,
                instance: INSTANCE.into(),
                input: child.input,
                output: child.output,
                records: None,
            };
            let transform = move |input: &[u8], value: &mut Vec<u8>| *value = text.write(input);
            tokio::task::spawn_blocking(move || bare_loop(&kafka, &config, transform)).await??;
            Ok(())
        }
        Kind::Echo => {
            let service = Echo {
                topic: child.output.as_str().into(),
                text: Some(text),
                first: Default::default(),
            };
            Err(stages::start(&kafka, &setup, service).ended().await)
        }
        Kind::Stalled => tell(stages::start(&kafka, &setup, Stalled)).await,
    }
}

/// Says on stdout, again and again, what the stage holds.
async fn tell(mut stage: Running) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let mut progress = stage.progress.clone();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            error = stage.ended() => return Err(error),
        }
        let held = progress.borrow_and_update().clone();
        output::json(&json!({"records": held.window_records, "bytes": held.window_bytes}));
    }
}

fn end_with_stdin() -> Result<()> {
    let wait = || {
        let mut byte = [0];
        while matches!(std::io::stdin().lock().read(&mut byte), Ok(1..)) {}
        std::process::exit(1);
    };
    std::thread::Builder::new().name("stdin".into()).spawn(wait)?;
    Ok(())
}

/// A child that runs. Killed when dropped, and when this process is.
#[derive(Debug)]
pub struct Process {
    child: tokio::process::Child,
    said: Lines<BufReader<ChildStdout>>,
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts this program again as a child.
    pub fn start(child: &Child) -> Result<Self> {
        let kind = match child.kind {
            Kind::Echo => "echo",
            Kind::Loop => "loop",
            Kind::Stalled => "stalled",
        };
        let mut process = Command::new(std::env::current_exe().context("cannot find this program's own file")?)
            .args(["bench", "child", kind])
            .args(["--bootstrap", &child.kafka.bootstrap, "--group", &child.group])
            .args(
                child
                    .kafka
                    .set
                    .iter()
                    .flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")]),
            )
            .args(["--input", &child.input, "--output", &child.output])
            .args(["--mark", &child.mark.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start this program again")?;
        let stdout = process
            .stdout
            .take()
            .ok_or_else(|| anyhow!("the child has no stdout"))?;
        Ok(Self {
            _stdin: process.stdin.take(),
            said: BufReader::new(stdout).lines(),
            child: process,
        })
    }

    /// Its id.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next line that it says.
    pub async fn said(&mut self) -> Result<String> {
        self.said
            .next_line()
            .await?
            .ok_or_else(|| anyhow!("the child has ended"))
    }

    /// SIGKILL, and its end.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it ends by itself, which it should not.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => anyhow!("the child ended by itself: {status}"),
            Err(error) => error.into(),
        }
    }
}
