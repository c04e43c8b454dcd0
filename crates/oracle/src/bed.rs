//! What a run stands on: a stack of its own, a model behind an endpoint, a link before each instance of a service, and the
//! folder of failpoints.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use millrace_failpoints::{FOLDER, Mutant, mutants};
use millrace_testkit::size::Instance;
use millrace_testkit::{ModelEndpoint, Proxy, Size, Stack};
use tempfile::TempDir;

use crate::faults::SESSION;
use crate::model::DIMENSIONS;

/// How long the embedder waits for the endpoint: shorter than the default, so that a hang is not what takes longest.
const MODEL_ANSWERS_WITHIN: Duration = Duration::from_secs(4);

/// What a run asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// The binary that holds the stack and the services.
    pub millrace: &'w Path,
    /// Brokers and instances.
    pub size: Size,
    /// The most time that a search may have. What it may want to see is cleaned up soon afterwards.
    pub longest_search: Duration,
    /// A rule that the services are to break.
    pub mutant: Option<Mutant>,
    /// Searches take their time between two queries.
    pub slow_search: bool,
}

/// A running one.
#[derive(Debug)]
pub struct Bed {
    /// The stack.
    pub stack: Stack,
    /// What computes its vectors.
    pub model: ModelEndpoint,
    /// Each instance with its link to the brokers.
    pub links: Vec<(Instance, Proxy)>,
    /// What the services follow: see [`millrace_failpoints`].
    pub failpoints: TempDir,
}

impl Bed {
    /// Starts one, and waits until all of it serves.
    pub async fn up(wanted: &Wanted<'_>) -> Result<Self> {
        let failpoints = tempfile::Builder::new().prefix("millrace-failpoints-").tempdir()?;
        let model = ModelEndpoint::start(DIMENSIONS, None).await?;
        let (mut links, mut environment) = (Vec::new(), model.environment());
        for instance in wanted.size.instances() {
            let link = Proxy::alone(usize::from(wanted.size.brokers)).await?;
            let servers = instance.variable("KAFKA__BOOTSTRAP_SERVERS");
            environment.push((servers, link.address.clone()));
            // In quotes: a property is a text.
            let session = format!("\"{}\"", SESSION.as_millis());
            environment.push((instance.variable("KAFKA__PROPERTIES__session.timeout.ms"), session));
            let on = wanted
                .mutant
                .iter()
                .chain(wanted.slow_search.then_some(&mutants::SLOW_SEARCH));
            let on: String = on.map(|mutant| format!("{}\n", mutant.name)).collect();
            std::fs::write(failpoints.path().join(instance.service), on)?;
            links.push((instance, link));
        }
        let longest_ms = wanted.longest_search.as_millis();
        for (name, value) in [
            (FOLDER, failpoints.path().display().to_string()),
            ("MILLRACE_INDEXER_SEARCH__LONGEST_MS", longest_ms.to_string()),
            ("MILLRACE_INDEXER_SWEEP__GRACE_MS", (longest_ms + 500).to_string()),
            (
                "MILLRACE_EMBEDDER_MODEL__ENDPOINT__TIMEOUT_MS",
                MODEL_ANSWERS_WITHIN.as_millis().to_string(),
            ),
        ] {
            environment.push((name.to_owned(), value));
        }
        let mut stood = Ok(());
        let stack = Stack::up_with(wanted.millrace, wanted.size, environment, |addresses| {
            stood = links
                .iter()
                .try_for_each(|(_, link)| link.stand_before(&addresses.kafka));
        });
        let stack = stack.await?;
        stood?;
        Ok(Self {
            stack,
            model,
            links,
            failpoints,
        })
    }

    /// Instances of ingest, by part.
    pub fn ingests(&self) -> Vec<String> {
        let instances = self.links.iter().map(|(instance, _)| instance);
        let ingests = instances.filter(|instance| instance.service == "ingest");
        ingests.map(Instance::part).collect()
    }

    /// Stops it. What it leaves is kept if somebody will want to look at it.
    pub async fn down(self, keep: bool, tell: &dyn Fn(String)) {
        for line in self.stack.forgotten() {
            tell(format!("Kafka has forgotten markers: {line}"));
        }
        match self.stack.down().await {
            Ok(dir) if keep => tell(format!("journal and logs are kept in {}", dir.keep().display())),
            Ok(_) => {}
            // A verdict, or why there is none, is worth more.
            Err(error) => tell(format!("the stack did not stop cleanly: {error:#}")),
        }
    }
}
