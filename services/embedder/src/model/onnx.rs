//! The ONNX Runtime in this process, loaded from the library that the configuration names.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::backend::{Backend, BackendError, Description};
use super::tokenizer::Tokens;
use super::{ModelError, pooling};

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";
const HIDDEN: &str = "last_hidden_state";

/// A model on the ONNX Runtime's CPU provider.
pub struct OnnxBackend {
    session: Session,
    version: String,
    threads: usize,
    dimensions: usize,
    pad_id: i64,
    takes_types: bool,
}

/// What the session needs to know besides the model's bytes.
#[derive(Debug, Clone)]
pub struct OnnxOptions {
    /// The runtime's shared library.
    pub library: PathBuf,
    /// Threads to compute with.
    pub threads: usize,
    /// Values in a vector.
    pub dimensions: usize,
    /// Token that fills rows of a batch.
    pub pad_id: u32,
}

impl OnnxBackend {
    /// Loads the runtime and makes a session of a model's bytes (bytes and not a path: what was verified is what runs).
    pub fn new(model: &[u8], options: OnnxOptions) -> Result<Self, ModelError> {
        let environment = environment(&options.library)?;
        let refused = |what: String| ModelError::Session { what };
        let session = Session::builder(&environment)
            .map_err(|e| refused(e.to_string()))?
            .with_log_level(LogLevel::Warning)
            .map_err(|e| refused(e.to_string()))?
            .with_intra_threads(options.threads)
            .map_err(|e| refused(e.to_string()))?
            // Patterns are kept for every shape ever seen, and our shapes are as many as texts have lengths.
            .with_memory_pattern(false)
            .map_err(|e| refused(e.to_string()))?
            .commit_from_memory(model)
            .map_err(|e| refused(e.to_string()))?;
        let takes_types = check_signature(&session)?;
        Ok(Self {
            session,
            version: ort::util::probe(&options.library).map_or_else(|| "unknown".into(), |minor| format!("1.{minor}")),
            threads: options.threads,
            dimensions: options.dimensions,
            pad_id: i64::from(options.pad_id),
            takes_types,
        })
    }

    fn run(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, ort::Error> {
        let width = inputs.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        if width == 0 {
            return Ok(Vec::new());
        }
        let cells = inputs.len() * width;
        let (mut ids, mut mask, mut types): (Vec<i64>, _, _) =
            (vec![self.pad_id; cells], vec![0i64; cells], vec![0i64; cells]);
        for (row, tokens) in inputs.iter().enumerate() {
            let start = row * width;
            for (at, (id, segment)) in tokens.ids.iter().zip(&tokens.types).enumerate() {
                ids[start + at] = i64::from(*id);
                mask[start + at] = 1;
                types[start + at] = i64::from(*segment);
            }
        }
        let shape = [inputs.len(), width];
        let mut values: Vec<(&str, SessionInputValue<'_>)> = vec![
            (IDS, TensorRef::from_array_view((shape, ids.as_slice()))?.into()),
            (MASK, TensorRef::from_array_view((shape, mask.as_slice()))?.into()),
        ];
        if self.takes_types {
            values.push((TYPES, TensorRef::from_array_view((shape, types.as_slice()))?.into()));
        }
        let outputs = self.session.run(values)?;
        let (found, hidden) = outputs[HIDDEN].try_extract_tensor::<f32>()?;
        let expected = [inputs.len(), width, self.dimensions].map(|n| n as i64);
        if found[..] != expected {
            return Err(ort::Error::new(format!(
                "{HIDDEN} has the shape {found:?} instead of {expected:?}"
            )));
        }
        Ok(pooling::mean(hidden, width, self.dimensions, inputs))
    }
}

impl Backend for OnnxBackend {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        self.run(inputs).map_err(|e| BackendError::Failed(e.to_string()))
    }

    fn describe(&self) -> Description {
        Description {
            name: "onnxruntime",
            version: self.version.clone(),
            device: "cpu",
            threads: self.threads,
        }
    }
}

/// The runtime of this process. It allows one environment and one library, so both are kept.
fn environment(library: &Path) -> Result<Environment, ModelError> {
    static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);
    let refused = |what: String| ModelError::Runtime {
        library: library.to_owned(),
        what,
    };
    let path = std::path::absolute(library).map_err(|e| refused(e.to_string()))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*loaded {
        Some((first, environment)) if *first == path => Ok(environment.clone()),
        Some((first, _)) => Err(refused(format!("this process has already loaded {}", first.display()))),
        None => {
            let environment = ort::init_from(&path)
                .map_err(|e| refused(e.to_string()))?
                .with_name("millrace")
                .with_telemetry(false)
                .build()
                .map_err(|e| refused(e.to_string()))?;
            environment.set_log_level(LogLevel::Warning);
            *loaded = Some((path, environment.clone()));
            Ok(environment)
        }
    }
}

/// Whether the session takes and gives what we mean; tells if it wants token types.
fn check_signature(session: &Session) -> Result<bool, ModelError> {
    let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|o| o.name().to_owned()).collect::<Vec<_>>();
    let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
    let known = |name: &String| [IDS, MASK, TYPES].contains(&name.as_str());
    let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
    if inputs.iter().all(known) && has(&inputs, IDS) && has(&inputs, MASK) && has(&outputs, HIDDEN) {
        Ok(has(&inputs, TYPES))
    } else {
        Err(ModelError::Session {
            what: format!(
                "the model takes {inputs:?} and gives {outputs:?}; expected were {IDS}, {MASK}, {TYPES} and {HIDDEN}: \
                 another export of the model?"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let options = OnnxOptions {
            library: "/nowhere/libonnxruntime.so".into(),
            threads: 1,
            dimensions: 2,
            pad_id: 0,
        };
        let error = OnnxBackend::new(b"", options).err().unwrap().to_string();
        assert!(error.contains("/nowhere/libonnxruntime.so"), "{error}");
    }
}
