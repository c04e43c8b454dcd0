//! Configuration of the embedder: file, environment `MILLRACE_EMBEDDER_…`, flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use millrace_events::Lane;
use millrace_flow::layers::Calls;
use millrace_flow::runner::Limits;
use millrace_kafka::KafkaConfig;
use millrace_runtime::config::ConfigError;
use millrace_runtime::settings::{RegistryConfig, Secret, check_stage, default_instance};
use millrace_runtime::telemetry::{Log, Traces};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::batch::{BatchLimits, MOST_WEIGHT};
use crate::cache::CacheOptions;
use crate::model::endpoint::{EndpointOptions, Key};
use crate::model::onnx::Gpu;
use crate::model::openvino::OpenVino;
use crate::model::{Choice, Plan};

/// What an embedder needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stable name of this process: member of the consumer group, part of the transactional id. One process a name.
    pub instance: String,
    /// Address of the gRPC server; port 0 takes a free one.
    pub listen: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`; port 0 takes a free one.
    pub http: String,
    /// Address of `/v1/embeddings`, as OpenAI's clients ask for it; port 0 takes a free one. Empty: it is not served.
    pub openai: String,
    /// The ONNX runtime's shared library. Not needed where the model runs at an endpoint, or on OpenVINO alone.
    pub onnxruntime: PathBuf,
    /// The model.
    pub model: ModelConfig,
    /// How texts share the model.
    pub batch: BatchLimits,
    /// Lanes of documents, and what they weigh.
    pub lanes: Lanes,
    /// Vectors that were computed before.
    pub cache: CacheOptions,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// Bounds of the stage.
    pub stage: Limits,
    /// How its records are worked on.
    pub calls: Calls,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
}

/// `[lanes]`: documents of a lane stand in a topic of their own and are embedded by its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lanes {
    /// Weight of documents that are in no lane.
    pub base: u32,
    /// Weight of each lane: all that ingest knows.
    pub weights: BTreeMap<Lane, u32>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            base: 1,
            weights: BTreeMap::new(),
        }
    }
}

impl Lanes {
    /// Each lane with its weight, the base lane first.
    pub fn all(&self) -> impl Iterator<Item = (Lane, u32)> {
        let named = self.weights.iter().map(|(lane, weight)| (lane.clone(), *weight));
        std::iter::once((Lane::BASE, self.base)).chain(named)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.weights.contains_key(&Lane::BASE) {
            return Err(ConfigError::refused(
                "lanes.weights",
                "has an empty name: the base lane's weight is lanes.base",
            ));
        }
        match self.all().find(|(_, weight)| !(1..=MOST_WEIGHT).contains(weight)) {
            None => Ok(()),
            Some((lane, weight)) => {
                let message = format!("lane {lane} has weight {weight}: a weight is 1 to {MOST_WEIGHT}");
                Err(ConfigError::refused("lanes", &message))
            }
        }
    }
}

/// As Linux has it.
const MOST_NICE: u8 = 19;

/// Where the model is and how it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Folder with model.onnx, tokenizer.json and model.toml. At an endpoint, model.onnx is not needed, and the sha256 of
    /// model.toml says which weights the endpoint is meant to have: it is stamped on every vector as the model's revision.
    pub dir: PathBuf,
    /// What runs the model, the preferred one first: the next stands in while one before it does not work. Empty: the
    /// endpoint where one is configured, else the processor.
    pub backends: Vec<Choice>,
    /// Threads of the processor to compute with; without it as many as the machine offers.
    pub threads: Option<usize>,
    /// How much backends on the processor give way to whatever else wants it: what the nice value of their threads is raised by,
    /// 0 to 19.
    pub nice: u8,
    /// Backends whose session is in a process of its own, so that a driver's crash is not the embedder's.
    pub own_process: Vec<Choice>,
    /// Longest time for one batch, but at an endpoint. A backend that takes longer hangs: it is given up and made anew.
    pub batch_timeout_ms: u64,
    /// The GPU, for the backend `cuda`.
    pub gpu: GpuConfig,
    /// OpenVINO, for the backend `openvino`.
    pub openvino: OpenVino,
    /// The endpoint, for the backend `endpoint`.
    pub endpoint: EndpointConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            backends: Vec::new(),
            threads: None,
            nice: 10,
            own_process: vec![Choice::Cuda],
            batch_timeout_ms: 60_000,
            gpu: GpuConfig::default(),
            openvino: OpenVino::default(),
            endpoint: EndpointConfig::default(),
        }
    }
}

/// `[model.gpu]`: a GPU of this machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuConfig {
    /// Its number.
    pub device: i32,
    /// Memory of it that the model may take, in MiB; 0: what there is.
    pub memory_limit_mib: usize,
}

/// `[model.endpoint]`: an endpoint that speaks the OpenAI embeddings API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// Address before `/embeddings`, for example `http://127.0.0.1:11434/v1` or `https://api.example.com/v1`. Empty: there is none.
    pub url: String,
    /// Certificate authorities (PEM) that an `https://` endpoint's certificate must come from; without it the system's.
    pub ca_file: PathBuf,
    /// The model's name there.
    pub model: String,
    /// The key that it is shown as a bearer token, if it asks for one.
    pub api_key: Secret,
    /// A file with the key, in its place.
    pub api_key_file: PathBuf,
    /// Longest time for an answer.
    pub timeout_ms: u64,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            ca_file: PathBuf::new(),
            model: String::new(),
            api_key: Secret::default(),
            api_key_file: PathBuf::new(),
            // A process that stops waits for the call under way: below the time that it is given for that.
            timeout_ms: 20_000,
        }
    }
}

impl EndpointConfig {
    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// Refuses what cannot work. A call takes no longer than the work on the record that waits for it.
    fn check(&self, longest_ms: u64) -> Result<(), ConfigError> {
        let https = self.url.starts_with("https://");
        let keys = [!self.api_key.is_empty(), !self.api_key_file.as_os_str().is_empty()];
        let timeout = format!("must be 1 to calls.timeout_ms ({longest_ms})");
        let rows = [
            (
                "url",
                https || self.url.starts_with("http://"),
                "must begin with http:// or https://",
            ),
            (
                "ca_file",
                https || self.ca_file.as_os_str().is_empty(),
                "must be left out where the url does not begin with https://",
            ),
            (
                "url",
                !self.url.contains('@'),
                "must hold no user or password: api_key is for those",
            ),
            (
                "model",
                !self.model.is_empty(),
                "must be the model's name at the endpoint",
            ),
            (
                "api_key_file",
                keys != [true, true],
                "must be left out where api_key is given",
            ),
            (
                "timeout_ms",
                (1..=longest_ms).contains(&self.timeout_ms),
                timeout.as_str(),
            ),
        ];
        match rows.into_iter().find(|(_, usable, _)| !usable) {
            None => Ok(()),
            Some((key, _, why)) => Err(ConfigError::refused(&format!("model.endpoint.{key}"), why)),
        }
    }

    /// How to reach it; its calls are driven by this runtime.
    pub fn options(&self, runtime: Handle) -> EndpointOptions {
        let key = match &self.api_key {
            given if !given.is_empty() => Key::Given(given.clone()),
            _ if self.api_key_file.as_os_str().is_empty() => Key::None,
            _ => Key::File(self.api_key_file.clone()),
        };
        EndpointOptions {
            url: self.url.clone(),
            model: self.model.clone(),
            ca_file: self.ca_file.clone(),
            key,
            timeout: Duration::from_millis(self.timeout_ms),
            runtime,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: default_instance(),
            listen: "127.0.0.1:7702".into(),
            http: "127.0.0.1:7712".into(),
            openai: String::new(),
            onnxruntime: PathBuf::new(),
            model: ModelConfig::default(),
            batch: BatchLimits::default(),
            lanes: Lanes::default(),
            cache: CacheOptions::default(),
            kafka: KafkaConfig::default(),
            registry: RegistryConfig::default(),
            // Parts in flight beyond what fills batches only wait inside, and are thrown away by a shutdown.
            stage: Limits {
                max_in_flight: 64,
                ..Limits::default()
            },
            calls: Calls {
                concurrency: 64,
                ..Calls::default()
            },
            log: Log::default(),
            traces: Traces::default(),
        }
    }
}

impl Config {
    /// Refuses what cannot work, naming the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refused = |key: &str, message: &str| Err(ConfigError::refused(key, message));
        if self.instance.is_empty() {
            return refused("instance", "must be a name that no other embedder has");
        }
        if self.model.dir.as_os_str().is_empty() {
            return refused(
                "model.dir",
                "must be the folder of model.onnx, tokenizer.json and model.toml",
            );
        }
        let endpoint = self.model.endpoint.is_set();
        self.model.check_backends()?;
        if self.model.backends().contains(&Choice::OpenVino) && !self.model.openvino.is_set() {
            return refused(
                "model.openvino.library",
                "must be the path of libopenvino_c.so: PyPI's wheel `openvino` has it in openvino/libs, OpenVINO's archives in \
                 runtime/lib",
            );
        }
        if self.model.backends().iter().any(|choice| choice.is_onnx()) && self.onnxruntime.as_os_str().is_empty() {
            return refused("onnxruntime", "must be the path of libonnxruntime");
        }
        // A backend may hang twice before another one stands in for it.
        let longest = self.calls.timeout_ms / 3;
        if !(1..=longest).contains(&self.model.batch_timeout_ms) {
            return refused(
                "model.batch_timeout_ms",
                &format!("must be 1 to a third of calls.timeout_ms ({longest})"),
            );
        }
        if self.model.threads == Some(0) {
            return refused(
                "model.threads",
                "must be at least 1, or left out for all of the machine",
            );
        }
        if self.model.nice > MOST_NICE {
            return refused("model.nice", &format!("must be 0 to {MOST_NICE}"));
        }
        if self.model.openvino.streams == Some(0) {
            return refused("model.openvino.streams", "must be at least 1, or left out");
        }
        if self
            .model
            .openvino
            .streams
            .is_some_and(|streams| streams > self.batch.max_batch_texts)
        {
            let why = "must not be above batch.max_batch_texts: the others would have nothing to do";
            return refused("model.openvino.streams", why);
        }
        check_stage(&self.stage, &self.calls)?;
        self.lanes.check()?;
        if endpoint {
            self.model.endpoint.check(self.calls.timeout_ms)?;
        }
        self.cache
            .check()
            .map_err(|(key, why)| ConfigError::refused(key, &why))?;
        self.batch
            .check()
            .map_err(|message| ConfigError::refused("batch", message))
    }

    /// What runs the model; calls to an endpoint are driven by this runtime.
    pub fn plan(&self, runtime: Handle) -> Plan {
        let model = &self.model;
        Plan {
            dir: model.dir.clone(),
            backends: model.backends(),
            onnxruntime: self.onnxruntime.clone(),
            threads: model.threads,
            nice: model.nice,
            gpu: Gpu {
                device: model.gpu.device,
                memory_limit: Some(model.gpu.memory_limit_mib << 20).filter(|bytes| *bytes > 0),
            },
            openvino: model.openvino.clone(),
            own_process: model.own_process.clone(),
            program: this_program(),
            endpoint: model.endpoint.is_set().then(|| model.endpoint.options(runtime)),
            call_limit: Duration::from_millis(model.batch_timeout_ms),
        }
    }
}

/// The program that runs, also when its file was replaced since it was started.
fn this_program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    match running.exists() {
        true => running,
        false => std::env::current_exe().unwrap_or_default(),
    }
}

impl ModelConfig {
    /// What runs the model, what was left out filled in.
    fn backends(&self) -> Vec<Choice> {
        match (&self.backends[..], self.endpoint.is_set()) {
            ([], true) => vec![Choice::Endpoint],
            ([], false) => vec![Choice::Cpu],
            (given, _) => given.to_vec(),
        }
    }

    /// Refuses a list of backends that contradicts itself or the endpoint.
    fn check_backends(&self) -> Result<(), ConfigError> {
        let backends = self.backends();
        let count = |choice: Choice| backends.iter().filter(|other| **other == choice).count();
        let auto = count(Choice::Auto);
        let local = backends.iter().filter(|choice| choice.is_local()).count() - auto;
        let once = backends.iter().all(|choice| count(*choice) == 1);
        let rows = [
            (once, "names a backend twice"),
            (
                self.own_process
                    .iter()
                    .all(|choice| matches!(choice, Choice::Cuda | Choice::Cpu | Choice::OpenVino)),
                "is cuda, cpu, openvino or endpoint; model.own_process is cuda, cpu or openvino",
            ),
            (
                auto == 0 || local == 0,
                "names `auto` beside backends that it chooses from",
            ),
            (
                (count(Choice::Endpoint) == 1) == self.endpoint.is_set(),
                "must name `endpoint` if, and only if, model.endpoint.url is given",
            ),
        ];
        match rows.into_iter().find(|(usable, _)| !usable) {
            None => Ok(()),
            Some((_, why)) => Err(ConfigError::refused("model.backends", why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::openvino::Precision;

    /// As `millrace up` writes it.
    const WRITTEN: &str = r#"
        instance = "local-0"
        listen = "127.0.0.1:0"
        onnxruntime = "/cache/libonnxruntime.so"
        model.dir = "/cache/model"
        kafka.bootstrap_servers = "127.0.0.1:19092"
        registry.url = "http://127.0.0.1:18081"
    "#;

    #[test]
    fn the_shortest_file_is_enough() {
        let config: Config = toml::from_str(WRITTEN).unwrap();
        config.check().unwrap();
        assert_eq!(
            (config.stage.max_in_flight, config.model.backends()),
            (64, vec![Choice::Cpu])
        );
    }

    #[test]
    fn lanes_have_weights() {
        let given = |lanes: &str| toml::from_str::<Config>(&format!("{WRITTEN}\n[lanes]\n{lanes}"));
        let config = given("base = 2\nweights = { bulk = 1, urgent = 8 }").unwrap();
        config.check().unwrap();
        let all: Vec<_> = config
            .lanes
            .all()
            .map(|(lane, weight)| (lane.to_string(), weight))
            .collect();
        let expected = [("base", 2), ("bulk", 1), ("urgent", 8)];
        assert_eq!(all, expected.map(|(name, weight)| (name.to_owned(), weight)));
        assert!(
            given("weights = { Bulk = 1 }")
                .unwrap_err()
                .to_string()
                .contains("a lane is")
        );
        for bad in ["base = 0", "weights = { bulk = 1001 }", "weights = { '' = 1 }"] {
            let error = given(bad).unwrap().check().unwrap_err().to_string();
            assert!(error.contains("lanes"), "{bad}: {error}");
        }
    }

    /// Added to what `millrace up` writes, by the environment or a file.
    const REMOTE: &str = r#"
        [model.endpoint]
        url = "http://127.0.0.1:11434/v1"
        model = "all-minilm"
        api_key = "hunter2"
    "#;

    fn remote() -> String {
        format!("{}{REMOTE}", WRITTEN.replace("onnxruntime", "# onnxruntime"))
    }

    #[test]
    fn an_endpoint_needs_no_runtime_and_shows_no_key() {
        let config: Config = toml::from_str(&remote()).unwrap();
        config.check().unwrap();
        let shown = format!("{config:?}{}", toml::to_string(&config).unwrap());
        assert!(shown.contains("11434") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(config.model.backends(), [Choice::Endpoint]);
        let local: Config = toml::from_str(WRITTEN).unwrap();
        assert!(!local.model.endpoint.is_set());
    }

    #[test]
    fn a_list_of_backends_is_taken_in_its_order() {
        let given = format!("model.backends = ['cuda', 'cpu', 'endpoint']\n{}", remote());
        let given = given.replace("# onnxruntime", "onnxruntime");
        let config: Config = toml::from_str(&given).unwrap();
        config.check().unwrap();
        assert_eq!(config.model.backends(), [Choice::Cuda, Choice::Cpu, Choice::Endpoint]);
        let left_out: Config = toml::from_str(&given.replace(", 'endpoint'", "")).unwrap();
        assert!(left_out.check().unwrap_err().to_string().contains("model.backends"));
    }

    #[test]
    fn openvino_needs_its_library_and_no_other() {
        let openvino = "model.backends = ['openvino']\nmodel.openvino = { library = '/libopenvino_c.so.2641', precision = 'bf16' }";
        let given = |more: &str| -> Config {
            let rest = WRITTEN.replace("onnxruntime", "# onnxruntime");
            toml::from_str(&format!("{more}\n{openvino}\n{rest}")).unwrap()
        };
        let config = given("model.own_process = ['openvino']");
        config.check().unwrap();
        assert_eq!(config.model.openvino.precision, Precision::Bf16);
        let both = openvino.replace("['openvino']", "['openvino', 'cpu']");
        let both: Config =
            toml::from_str(&format!("{both}\n{}", WRITTEN.replace("onnxruntime", "# onnxruntime"))).unwrap();
        assert!(both.check().unwrap_err().to_string().contains("onnxruntime"));
        assert!(toml::from_str::<Config>("model.openvino.precision = 'int8'").is_err());
    }

    /// What the environment says is taken as it stands: a key of digits stays a text.
    #[test]
    fn an_endpoint_is_configured_by_the_environment() {
        let variables = [
            ("URL", "http://127.0.0.1:1/v1"),
            ("MODEL", "7"),
            ("API_KEY", "007"),
            ("TIMEOUT_MS", "900"),
        ];
        let variables =
            variables.map(|(key, value)| (format!("MILLRACE_EMBEDDER_MODEL__ENDPOINT__{key}"), value.to_owned()));
        let config: Config = millrace_runtime::config::load_from("embedder", None, variables, ()).unwrap();
        let endpoint = config.model.endpoint;
        assert!(endpoint.is_set());
        assert_eq!((endpoint.model.as_str(), endpoint.timeout_ms), ("7", 900));
        assert_eq!(endpoint.api_key.reveal(), "007");
    }

    #[test]
    fn an_endpoint_that_cannot_work_is_named() {
        for (from, to, key) in [
            ("http://", "ftp://", "model.endpoint.url"),
            ("api_key", "ca_file = \"/ca.pem\"\napi_key", "model.endpoint.ca_file"),
            ("http://", "http://me:pass@", "model.endpoint.url"),
            ("all-minilm", "", "model.endpoint.model"),
            (
                "api_key",
                "api_key_file = \"/key\"\napi_key",
                "model.endpoint.api_key_file",
            ),
            ("api_key", "timeout_ms = 0\napi_key", "model.endpoint.timeout_ms"),
            ("api_key", "timeout_ms = 300001\napi_key", "model.endpoint.timeout_ms"),
        ] {
            let config: Config = toml::from_str(&format!("{WRITTEN}{}", REMOTE.replacen(from, to, 1))).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (from, to, key) in [
            ("local-0", "", "instance"),
            ("/cache/model", "", "model.dir"),
            ("/cache/libonnxruntime.so", "", "onnxruntime"),
            (
                "model.dir",
                "model.backends = ['cpu', 'cpu']\nmodel.dir",
                "model.backends",
            ),
            (
                "model.dir",
                "model.backends = ['auto', 'cpu']\nmodel.dir",
                "model.backends",
            ),
            (
                "model.dir",
                "model.backends = ['endpoint', 'cpu']\nmodel.dir",
                "model.backends",
            ),
            (
                "model.dir",
                "model.batch_timeout_ms = 100001\nmodel.dir",
                "model.batch_timeout_ms",
            ),
            ("model.dir", "model.threads = 0\nmodel.dir", "model.threads"),
            ("model.dir", "model.nice = 20\nmodel.dir", "model.nice"),
            (
                "model.dir",
                "model.openvino.streams = 0\nmodel.dir",
                "model.openvino.streams",
            ),
            (
                "model.dir",
                "batch.max_batch_texts = 2\nmodel.openvino.streams = 3\nmodel.dir",
                "model.openvino.streams",
            ),
            (
                "model.dir",
                "model.backends = ['openvino', 'cpu']\nmodel.dir",
                "model.openvino.library",
            ),
            (
                "model.dir",
                "model.backends = ['auto', 'openvino']\nmodel.openvino.library = '/ov.so'\nmodel.dir",
                "model.backends",
            ),
            (
                "registry.url",
                "stage.max_in_flight = 0\nregistry.url",
                "stage.max_in_flight",
            ),
            ("registry.url", "calls.timeout_ms = 0\nregistry.url", "calls.timeout_ms"),
            (
                "registry.url",
                "batch.queue_requests = 0\nregistry.url",
                "batch.queue_requests",
            ),
            ("registry.url", "cache.max_mib = 63\nregistry.url", "cache.max_mib"),
            ("registry.url", "cache.max_mib = 131073\nregistry.url", "cache.max_mib"),
            ("registry.url", "cache.memory_mib = 0\nregistry.url", "cache.memory_mib"),
            (
                "registry.url",
                "cache.memory_mib = 1025\nregistry.url",
                "cache.memory_mib",
            ),
        ] {
            let config: Config = toml::from_str(&WRITTEN.replacen(from, to, 1)).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn the_shipped_file_is_usable_and_says_the_defaults() {
        let shipped: Config = toml::from_str(include_str!("../embedder.toml")).unwrap();
        shipped.check().unwrap();
        let defaults = Config {
            onnxruntime: shipped.onnxruntime.clone(),
            model: ModelConfig {
                dir: shipped.model.dir.clone(),
                ..ModelConfig::default()
            },
            ..Config::default()
        };
        assert_eq!(toml::to_string(&shipped).unwrap(), toml::to_string(&defaults).unwrap());
    }

    #[test]
    fn a_typo_is_refused() {
        assert!(toml::from_str::<Config>("modle.dir = 'x'").is_err());
    }
}
