//! A model compiled for the processor, and batches through it.

use openvino::{
    CompiledModel, Core, DeviceType, ElementType, InferRequest, InferenceError, Model, PropertyKey, RwPropertyKey,
    Shape, Tensor,
};

use super::proof::{Compile, Embed};
use super::streams::{self, Stream};
use super::{OpenVinoOptions, Precision};
use crate::model::Manifest;
use crate::model::graph::{Graph, POOLED, Steps, with_pooling};
use crate::model::tokenizer::Tokens;

const CPU: DeviceType<'static> = DeviceType::CPU;

/// How many kernels each stream keeps for the shapes that they were made for. Our shapes are many, as batches have rows: with the
/// 5,000 that it keeps unless told, MiniLM takes 0.8 MiB more for each new shape (1.5 GiB after 1,500), and is no faster.
const KERNELS: (&str, &str) = ("CPU_RUNTIME_CACHE_CAPACITY", "32");

/// Rows from so many tokens on are padded to a multiple of so many: a kernel is made for each new shape, and those that come again
/// have theirs. Of texts of 100 to 250 tokens it computes 6 % more a second than of rows as wide as the longest. That is an eighth
/// more than a batch's budget at most; with 32, and with short texts, it would be more than it gains.
const STEPS: &Steps = &[(128, 16), (64, 8)];

/// A wait has to have an end here. Who hangs is given up long before, by whoever called.
const FOREVER_MS: i64 = 24 * 3600 * 1000;

/// A model that has been read, to be compiled in one precision or another.
pub(super) struct Compiler {
    core: Core,
    model: Model,
    graph: Graph,
}

/// A compiled model.
pub(super) struct Session {
    // Before what it was made of: they are dropped in this order.
    streams: Vec<Request>,
    _compiled: CompiledModel,
    precision: Precision,
}

/// One of the requests that a compiled model computes at once.
struct Request {
    request: InferRequest,
    graph: Graph,
}

fn said(error: InferenceError) -> String {
    error.to_string()
}

impl Compiler {
    /// Reads a model's bytes. The library has been loaded.
    pub(super) fn new(model: &[u8], manifest: &Manifest, options: &OpenVinoOptions) -> Result<Self, String> {
        let mut core = Core::new().map_err(|e| e.to_string())?;
        let (threads, streams) = (options.threads.to_string(), options.streams.to_string());
        let properties = [
            (RwPropertyKey::NumStreams, &*streams),
            (RwPropertyKey::InferenceNumThreads, &*threads),
            // Others on the machine want the cores too.
            (RwPropertyKey::HintEnableCpuPinning, "NO"),
            (RwPropertyKey::Other(KERNELS.0.into()), KERNELS.1),
        ];
        core.set_properties(&CPU, properties).map_err(said)?;
        let model = core.read_model_from_buffer(&with_pooling(model, manifest), None);
        let model = model.map_err(said)?;
        let (inputs, outputs) = names(&model).map_err(said)?;
        let graph = Graph::new(manifest, options.pad_id, &inputs, &outputs)?;
        Ok(Self { core, model, graph })
    }
}

impl Compile for Compiler {
    type Session = Session;

    fn has(&self, precision: Precision) -> Result<bool, String> {
        let list = self.core.get_property(&CPU, &PropertyKey::DeviceCapabilities);
        let list = list.map_err(said)?;
        let mut words = list.split(|c: char| !c.is_ascii_alphanumeric());
        Ok(words.any(|word| word.eq_ignore_ascii_case(precision.name())))
    }

    fn compile(&mut self, precision: Precision) -> Result<Session, String> {
        let key = RwPropertyKey::HintInferencePrecision;
        self.core.set_property(&CPU, &key, precision.name()).map_err(said)?;
        let mut compiled = self.core.compile_model(&self.model, CPU).map_err(said)?;
        let found = compiled.get_property(&key.into()).map_err(said)?.into_owned();
        if found != precision.name() {
            return Err(format!(
                "told to compute in {}, it computes in {found}",
                precision.name()
            ));
        }
        // Fewer than it was told where it leaves out threads, as those that share a core with another.
        let found = compiled
            .get_property(&PropertyKey::Rw(RwPropertyKey::NumStreams))
            .map_err(said)?;
        let streams = found.parse().map_err(|_| format!("it has {found:?} streams"))?;
        let request = |_| {
            Ok(Request {
                request: compiled.create_infer_request().map_err(said)?,
                graph: self.graph.clone(),
            })
        };
        Ok(Session {
            streams: (0..usize::max(streams, 1))
                .map(request)
                .collect::<Result<_, String>>()?,
            _compiled: compiled,
            precision,
        })
    }
}

fn names(model: &Model) -> Result<(Vec<String>, Vec<String>), InferenceError> {
    let inputs = (0..model.get_inputs_len()?).map(|at| model.get_input_by_index(at)?.get_name());
    let outputs = (0..model.get_outputs_len()?).map(|at| model.get_output_by_index(at)?.get_name());
    Ok((inputs.collect::<Result<_, _>>()?, outputs.collect::<Result<_, _>>()?))
}

impl Session {
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// How many it has.
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }
}

impl Embed for Session {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, String> {
        streams::embed(&mut self.streams, inputs)
    }
}

impl Stream for Request {
    fn begin(&mut self, inputs: &[&Tokens]) -> Result<(), String> {
        let rows = self.graph.rows(inputs, STEPS);
        let shape = Shape::new(&rows.shape.map(|n| n as i64)).map_err(said)?;
        for (name, values) in self.graph.inputs(&rows) {
            let mut tensor = Tensor::new(ElementType::I64, &shape).map_err(said)?;
            tensor.get_data_mut().map_err(said)?.copy_from_slice(values);
            self.request.set_tensor(name, &tensor).map_err(said)?;
        }
        self.request.infer_async().map_err(said)
    }

    fn end(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, String> {
        self.request.wait(FOREVER_MS).map_err(said)?;
        let pooled = self.request.get_tensor(POOLED).map_err(said)?;
        // The bindings cast to what they are told.
        let found = pooled.get_element_type().map_err(said)?;
        if found != ElementType::F32 {
            return Err(format!("the vectors are {found} instead of f32"));
        }
        let shape = pooled.get_shape().map_err(said)?;
        let values = pooled.get_data().map_err(said)?;
        self.graph.vectors(inputs, shape.get_dimensions(), values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::padded;

    #[test]
    fn rows_are_padded_by_an_eighth_at_most() {
        for (longest, width) in [(1, 1), (63, 63), (64, 64), (65, 72), (128, 128), (129, 144), (501, 512)] {
            assert_eq!(padded(longest, STEPS), width, "{longest}");
        }
        assert!((1..2000).all(|longest| padded(longest, STEPS) - longest <= longest / 8));
    }
}
