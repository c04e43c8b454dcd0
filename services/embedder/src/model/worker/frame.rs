//! What goes between an embedder and its worker.

use std::io::{self, Read, Write};

use prost::Message;

use crate::model::tokenizer::Tokens;

/// More than any batch; a length beyond it is no length.
const MAX_FRAME_BYTES: usize = 1 << 30;

/// The first frame.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Start {
    #[prost(string, tag = "1")]
    pub(super) dir: String,
    #[prost(string, tag = "2")]
    pub(super) sha256: String,
    #[prost(string, tag = "3")]
    pub(super) library: String,
    /// None: the processor.
    #[prost(message, optional, tag = "4")]
    pub(super) gpu: Option<Gpu>,
    #[prost(uint64, tag = "5")]
    pub(super) threads: u64,
    #[prost(uint32, tag = "6")]
    pub(super) pad_id: u32,
    /// None: the ONNX Runtime.
    #[prost(message, optional, tag = "7")]
    pub(super) openvino: Option<OpenVino>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OpenVino {
    /// By its name.
    #[prost(string, tag = "1")]
    pub(super) precision: String,
    /// What it is proven with.
    #[prost(message, optional, tag = "2")]
    pub(super) proof: Option<Batch>,
    #[prost(uint64, tag = "3")]
    pub(super) streams: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Gpu {
    #[prost(int32, tag = "1")]
    pub(super) device: i32,
    #[prost(uint64, optional, tag = "2")]
    pub(super) memory_limit: Option<u64>,
}

/// Every other one: rows behind each other. Numbers are four bytes each, as the machine has
/// them: both ends are on one.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Batch {
    #[prost(uint32, repeated, tag = "1")]
    lengths: Vec<u32>,
    #[prost(bytes = "vec", tag = "2")]
    ids: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    types: Vec<u8>,
}

/// From the worker, one for each frame.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    /// Why it failed.
    #[prost(string, tag = "2")]
    pub(super) text: String,
    #[prost(uint32, tag = "3")]
    dimensions: u32,
    /// Vectors behind each other.
    #[prost(bytes = "vec", tag = "4")]
    values: Vec<u8>,
    /// What was made.
    #[prost(message, optional, tag = "5")]
    pub(super) made: Option<Made>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Made {
    /// The runtime's.
    #[prost(string, tag = "1")]
    pub(super) version: String,
    /// By its name.
    #[prost(string, tag = "2")]
    pub(super) precision: String,
    /// Why it is not the one that was told.
    #[prost(string, optional, tag = "3")]
    pub(super) fell_back: Option<String>,
    #[prost(uint64, tag = "4")]
    pub(super) streams: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    /// The session cannot be made.
    Refused = 0,
    Made = 1,
    Vectors = 2,
    Failed = 3,
    TooLarge = 4,
}

impl Batch {
    pub(super) fn of(inputs: &[&Tokens]) -> Self {
        let mut batch = Self::default();
        for tokens in inputs {
            // A text has at most some thousand tokens.
            batch.lengths.push(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
            batch.ids.extend_from_slice(bytemuck::cast_slice(&tokens.ids));
            batch.types.extend_from_slice(bytemuck::cast_slice(&tokens.types));
        }
        batch
    }

    pub(super) fn into_tokens(self) -> Vec<Tokens> {
        let (ids, types) = (words(&self.ids), words(&self.types));
        let mut start = 0;
        let mut row = |length: u32| {
            let end = (start + length as usize).min(ids.len()).min(types.len());
            let of = start.min(end)..end;
            start = end;
            Tokens {
                ids: ids[of.clone()].into(),
                types: types[of].into(),
                text: None,
            }
        };
        self.lengths.into_iter().map(&mut row).collect()
    }
}

impl Answer {
    pub(super) fn told(kind: Kind, text: String) -> Self {
        Self {
            kind: kind.into(),
            text,
            ..Self::default()
        }
    }

    pub(super) fn made(made: Made) -> Self {
        Self {
            kind: Kind::Made.into(),
            made: Some(made),
            ..Self::default()
        }
    }

    pub(super) fn vectors(vectors: &[Vec<f32>]) -> Self {
        let dimensions = vectors.first().map_or(0, Vec::len);
        let mut values = Vec::with_capacity(4 * dimensions * vectors.len());
        for vector in vectors {
            values.extend_from_slice(bytemuck::cast_slice(vector));
        }
        Self {
            kind: Kind::Vectors.into(),
            dimensions: u32::try_from(dimensions).unwrap_or(u32::MAX),
            values,
            ..Self::default()
        }
    }

    pub(super) fn into_vectors(self) -> Vec<Vec<f32>> {
        let bytes = 4 * (self.dimensions as usize).max(1);
        self.values.chunks(bytes).map(words).collect()
    }
}

/// Bytes of a frame stand wherever they do: they are copied to where words may.
fn words<W: bytemuck::AnyBitPattern + bytemuck::NoUninit>(bytes: &[u8]) -> Vec<W> {
    bytemuck::pod_collect_to_vec(bytes)
}

pub(super) fn write(message: &impl Message, to: &mut impl Write) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

pub(super) fn read<M: Message + Default>(from: &mut impl Read) -> io::Result<M> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::other(format!("a frame of {length} bytes is none")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    M::decode(&bytes[..]).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_as_it_was() {
        let tokens = |ids: &[u32]| Tokens {
            ids: ids.into(),
            types: vec![1; ids.len()].into(),
            text: None,
        };
        let rows = [tokens(&[1, 2, 3]), tokens(&[9])];
        let mut wire = Vec::new();
        write(&Batch::of(&rows.iter().collect::<Vec<_>>()), &mut wire).unwrap();
        assert_eq!(read::<Batch>(&mut &wire[..]).unwrap().into_tokens(), rows);
    }

    #[test]
    fn vectors_arrive_as_they_were() {
        let vectors = vec![vec![1.0, 2.0], vec![-3.5, 0.0]];
        let mut wire = Vec::new();
        write(&Answer::vectors(&vectors), &mut wire).unwrap();
        let answer: Answer = read(&mut &wire[..]).unwrap();
        assert_eq!((answer.kind(), answer.into_vectors()), (Kind::Vectors, vectors));
    }

    #[test]
    fn what_is_cut_off_or_no_frame_is_an_error() {
        let mut wire = Vec::new();
        write(&Answer::told(Kind::Failed, "why".into()), &mut wire).unwrap();
        for cut in 0..wire.len() {
            assert!(read::<Answer>(&mut &wire[..cut]).is_err(), "{cut}");
        }
        assert!(read::<Answer>(&mut &[0xff; 8][..]).is_err());
    }
}
