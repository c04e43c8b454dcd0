//! Where a stack keeps what it has, and what it remembers from one start to the next.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use millrace_events::Lane;
use serde::{Deserialize, Serialize};

use super::ports::Ports;
use super::size::{Size, of_node};

/// The folders and files of one stack: all under one directory, named here only.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout under `dir`, which need not exist yet. Paths are absolute: children run elsewhere.
    pub fn new(dir: &Path) -> Result<Self> {
        let root = std::path::absolute(dir).with_context(|| format!("{} is not a usable path", dir.display()))?;
        match root.to_str() {
            Some(text) if !text.contains(['\n', '"', '\\', ';']) => Ok(Self { root }),
            _ => bail!(
                "the directory {} has characters that Kafka's and the registry's settings cannot hold; choose another with --dir",
                root.display()
            ),
        }
    }
    /// Makes the folders.
    pub fn create(&self) -> Result<()> {
        for folder in ["registry", "logs", "config", "pids"] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make the directory {}", folder.display()))?;
        }
        Ok(())
    }
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Data of a part.
    pub fn data(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }
    /// What a part prints; the run before it is kept beside it as `.log.1`.
    pub fn log(&self, part: &str) -> PathBuf {
        self.root.join("logs").join(format!("{part}.log"))
    }
    /// Config file of an instance of a service.
    pub fn config(&self, part: &str) -> PathBuf {
        self.root.join("config").join(format!("{part}.toml"))
    }
    /// The process id of a running part.
    pub fn pid(&self, part: &str) -> PathBuf {
        self.root.join("pids").join(format!("{part}.pid"))
    }
    /// Puts the logs of the last run aside, so that a log is of one run. What cannot be moved goes on growing.
    pub fn rotate_logs(&self, size: Size) {
        for part in size.parts() {
            let log = self.log(&part);
            let _ = fs::rename(&log, log.with_extension("log.1"));
        }
    }
    /// Held by the `up` that owns the directory.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
    /// What [`State`] is kept in.
    pub fn state(&self) -> PathBuf {
        self.root.join("stack.json")
    }
}

/// Kept in `stack.json`: made at the first start, read by every later one and by the client commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Kafka's cluster id, chosen once.
    pub cluster_id: String,
    /// Chosen once.
    #[serde(flatten)]
    pub size: Size,
    /// Lanes with their weights: those of all starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<Lane, u32>,
    /// Chosen once; a port that somebody else has taken since is chosen again.
    pub ports: Ports,
    /// Where the parts listen, made from the ports.
    pub addresses: Addresses,
}

/// Where the parts of a running stack listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Bootstrap servers, `host:port` of each broker with commas between.
    pub kafka: String,
    /// Confluent-compatible API, a URL.
    pub registry: String,
    /// gRPC, a URL; of the first instance.
    pub ingest: String,
    /// gRPC, a URL; of the first instance.
    pub embedder: String,
    /// gRPC, a URL.
    pub indexer: String,
    /// Of the other instances, by part: `ingest-1`, `embedder-1`.
    #[serde(flatten)]
    pub others: BTreeMap<String, String>,
}

impl Addresses {
    /// Where a stack of this size listens.
    pub fn new(size: Size, ports: &Ports) -> Result<Self> {
        let brokers = size
            .nodes()
            .map(|id| Ok(format!("127.0.0.1:{}", ports.of(&of_node(id, "kafka"))?)));
        let brokers: Vec<_> = brokers.collect::<Result<_>>()?;
        let url = |part: &str| Ok::<_, anyhow::Error>(format!("http://127.0.0.1:{}", ports.of(part)?));
        let others = size.instances().filter(|instance| instance.number > 0);
        let others = others.map(|instance| Ok((instance.part(), url(&instance.part())?)));
        Ok(Self {
            kafka: brokers.join(","),
            registry: format!("{}/apis/ccompat/v7", url("registry")?),
            ingest: url("ingest")?,
            embedder: url("embedder")?,
            indexer: url("indexer")?,
            others: others.collect::<Result<_>>()?,
        })
    }

    /// Each broker's.
    pub fn brokers(&self) -> impl Iterator<Item = &str> {
        self.kafka.split(',')
    }

    /// Where a part listens: an instance of a service, the registry, all brokers.
    pub fn of(&self, part: &str) -> Option<&str> {
        let address = match part {
            "kafka" => &self.kafka,
            "registry" => &self.registry,
            "ingest" => &self.ingest,
            "embedder" => &self.embedder,
            "indexer" => &self.indexer,
            other => self.others.get(other)?,
        };
        Some(address)
    }
}

impl State {
    /// Of a stack that has one of each; every millrace reads it.
    const ONE_OF_EACH: u32 = 1;
    /// Of a larger one: a millrace that knows of no others would start it in part.
    const SEVERAL: u32 = 2;
    /// Of one with lanes: a millrace that knows of none would leave what is in them unread.
    const LANES: u32 = 3;

    /// A state for a directory without one.
    pub fn new(cluster_id: String, size: Size, ports: Ports) -> Result<Self> {
        Ok(Self {
            version: if size.is_smallest() {
                Self::ONE_OF_EACH
            } else {
                Self::SEVERAL
            },
            cluster_id,
            size,
            lanes: BTreeMap::new(),
            addresses: Addresses::new(size, &ports)?,
            ports,
        })
    }

    /// With lanes, if these are any.
    #[must_use]
    pub fn with_lanes(mut self, lanes: BTreeMap<Lane, u32>) -> Self {
        if !lanes.is_empty() {
            self.version = Self::LANES;
        }
        self.lanes = lanes;
        self
    }

    /// The state kept in the directory; none if there is none yet.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let state: Self = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not a stack's state; delete it to choose new ports",
                path.display()
            )
        })?;
        if !(Self::ONE_OF_EACH..=Self::LANES).contains(&state.version) {
            bail!(
                "{} is of version {}, this millrace reads versions up to {}; use the millrace that made it or another --dir",
                path.display(),
                state.version,
                Self::LANES
            );
        }
        Ok(Some(state))
    }

    /// Keeps the state: complete or not at all.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        write_whole(&layout.state(), &format!("{text}\n"))
    }
}

/// Writes a file so that a reader sees the old or the new text, never a part of it.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a millrace without brokers and replicas wrote it.
    const OF_ONE_EACH: &str = r#"{
  "version": 1,
  "cluster_id": "id",
  "ports": { "kafka": 1, "controller": 2, "registry": 3, "ingest": 4, "embedder": 5, "indexer": 6 },
  "addresses": {
    "kafka": "127.0.0.1:1",
    "registry": "http://127.0.0.1:3/apis/ccompat/v7",
    "ingest": "http://127.0.0.1:4",
    "embedder": "http://127.0.0.1:5",
    "indexer": "http://127.0.0.1:6"
  }
}"#;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        (dir, layout)
    }

    fn state(size: Size) -> State {
        let (ports, _) = Ports::choose(None, &size.listeners()).unwrap();
        State::new("id".to_owned(), size, ports).unwrap()
    }

    #[test]
    fn state_survives_and_says_what_is_wrong_with_it() {
        let (_dir, layout) = layout();
        assert_eq!(State::load(&layout).unwrap(), None);
        for (brokers, replicas) in [(1, 1), (3, 1), (1, 2), (3, 4)] {
            let state = state(Size { brokers, replicas });
            state.save(&layout).unwrap();
            assert_eq!(State::load(&layout).unwrap(), Some(state));
        }
        fs::write(layout.state(), "{").unwrap();
        assert!(State::load(&layout).unwrap_err().to_string().contains("delete it"));
        fs::write(layout.state(), OF_ONE_EACH.replace("\"version\": 1", "\"version\": 4")).unwrap();
        let refused = State::load(&layout).unwrap_err().to_string();
        assert!(refused.contains("version 4"), "{refused}");
    }

    #[test]
    fn one_of_each_is_kept_as_it_always_was() {
        let (_dir, layout) = layout();
        fs::write(layout.state(), OF_ONE_EACH).unwrap();
        let state = State::load(&layout).unwrap().unwrap();
        assert_eq!(state.size, Size::default());
        state.save(&layout).unwrap();
        let saved: serde_json::Value = serde_json::from_str(&fs::read_to_string(layout.state()).unwrap()).unwrap();
        assert_eq!(saved, serde_json::from_str::<serde_json::Value>(OF_ONE_EACH).unwrap());
    }

    #[test]
    fn a_larger_one_is_no_state_of_an_older_millrace() {
        let larger = state(Size {
            brokers: 3,
            replicas: 2,
        });
        let json = serde_json::to_value(&larger).unwrap();
        assert_eq!(
            (&json["version"], &json["brokers"], &json["replicas"]),
            (&2.into(), &3.into(), &2.into())
        );
        assert_eq!(larger.addresses.brokers().count(), 3);
        let second = larger.addresses.of("embedder-1").unwrap();
        assert_ne!(second, larger.addresses.embedder);
        assert_eq!(json["addresses"]["embedder-1"], second);
        assert_eq!(larger.addresses.of("indexer-1"), None);
    }

    #[test]
    fn one_with_lanes_is_no_state_of_an_older_millrace() {
        let with = state(Size::default()).with_lanes([(Lane::new("bulk").unwrap(), 2)].into());
        let json = serde_json::to_value(&with).unwrap();
        assert_eq!((&json["version"], &json["lanes"]["bulk"]), (&3.into(), &2.into()));
        assert_eq!(serde_json::from_value::<State>(json).unwrap(), with);
    }

    #[test]
    fn a_directory_that_settings_cannot_hold_is_refused() {
        assert!(
            Layout::new(Path::new("/tmp/a;b"))
                .unwrap_err()
                .to_string()
                .contains("--dir")
        );
    }
}
