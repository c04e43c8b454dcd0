use super::*;
use crate::model::Choice;
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
    let openvino =
        "model.backends = ['openvino']\nmodel.openvino = { library = '/libopenvino_c.so.2641', precision = 'bf16' }";
    let given = |more: &str| -> Config {
        let rest = WRITTEN.replace("onnxruntime", "# onnxruntime");
        toml::from_str(&format!("{more}\n{openvino}\n{rest}")).unwrap()
    };
    let config = given("model.own_process = ['openvino']");
    config.check().unwrap();
    assert_eq!(config.model.openvino.precision, Precision::Bf16);
    let both = openvino.replace("['openvino']", "['openvino', 'cpu']");
    let both: Config = toml::from_str(&format!("{both}\n{}", WRITTEN.replace("onnxruntime", "# onnxruntime"))).unwrap();
    assert!(both.check().unwrap_err().to_string().contains("onnxruntime"));
    assert!(toml::from_str::<Config>("model.openvino.precision = 'int8'").is_err());
}

/// Says the key.
fn is_refused(written: &str, key: &str) {
    let config: Config = toml::from_str(written).unwrap();
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains(key), "{key}: {error}");
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
        is_refused(&format!("{WRITTEN}{}", REMOTE.replacen(from, to, 1)), key);
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
        is_refused(&WRITTEN.replacen(from, to, 1), key);
    }
}

#[test]
fn the_shipped_file_is_usable_and_says_the_defaults() {
    let shipped: Config = toml::from_str(include_str!("../../embedder.toml")).unwrap();
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
