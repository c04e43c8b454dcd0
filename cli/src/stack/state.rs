//! Where a stack keeps what it has, and what it remembers from one start to the next.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::ports::Ports;

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
        for folder in ["kafka", "registry", "logs", "config", "pids"] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make the directory {}", folder.display()))?;
        }
        Ok(())
    }
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Data of a part: `kafka`, `registry`, `ingest`, `embedder`, `indexer`.
    pub fn data(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }
    /// What a part prints; the run before it is kept beside it as `.log.1`.
    pub fn log(&self, part: &str) -> PathBuf {
        self.root.join("logs").join(format!("{part}.log"))
    }
    /// A service's config file.
    pub fn config(&self, service: &str) -> PathBuf {
        self.root.join("config").join(format!("{service}.toml"))
    }
    /// The process id of a running part.
    pub fn pid(&self, part: &str) -> PathBuf {
        self.root.join("pids").join(format!("{part}.pid"))
    }
    /// Puts the logs of the last run aside, so that a log is of one run. What cannot be moved goes on growing.
    pub fn rotate_logs(&self) {
        for part in ["kafka", "registry", "ingest", "embedder", "indexer"] {
            let log = self.log(part);
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
    /// Chosen once; a port that somebody else has taken since is chosen again.
    pub ports: Ports,
    /// Where the parts listen, made from the ports.
    pub addresses: Addresses,
}

/// Where the parts of a running stack listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Bootstrap server, `host:port`.
    pub kafka: String,
    /// Confluent-compatible API, a URL.
    pub registry: String,
    /// gRPC, a URL.
    pub ingest: String,
    /// gRPC, a URL.
    pub embedder: String,
    /// gRPC, a URL.
    pub indexer: String,
}

impl Addresses {
    /// A service's address, by its name.
    pub fn of(&self, service: &str) -> &str {
        match service {
            "ingest" => &self.ingest,
            "embedder" => &self.embedder,
            _ => &self.indexer,
        }
    }
}

impl From<&Ports> for Addresses {
    fn from(ports: &Ports) -> Self {
        Self {
            kafka: format!("127.0.0.1:{}", ports.kafka),
            registry: format!("http://127.0.0.1:{}/apis/ccompat/v7", ports.registry),
            ingest: format!("http://127.0.0.1:{}", ports.ingest),
            embedder: format!("http://127.0.0.1:{}", ports.embedder),
            indexer: format!("http://127.0.0.1:{}", ports.indexer),
        }
    }
}

impl State {
    const VERSION: u32 = 1;

    /// A state for a directory without one.
    pub fn new(cluster_id: String, ports: Ports) -> Self {
        Self {
            version: Self::VERSION,
            cluster_id,
            addresses: Addresses::from(&ports),
            ports,
        }
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
        if state.version != Self::VERSION {
            bail!(
                "{} is of version {}, this millrace reads version {}; use the millrace that made it or another --dir",
                path.display(),
                state.version,
                Self::VERSION
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

    #[test]
    fn state_survives_and_says_what_is_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        assert_eq!(State::load(&layout).unwrap(), None);
        let ports = Ports {
            kafka: 1,
            controller: 2,
            registry: 3,
            ingest: 4,
            embedder: 5,
            indexer: 6,
        };
        let state = State::new("id".to_owned(), ports);
        state.save(&layout).unwrap();
        assert_eq!(State::load(&layout).unwrap(), Some(state));
        fs::write(layout.state(), "{").unwrap();
        assert!(State::load(&layout).unwrap_err().to_string().contains("delete it"));
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
