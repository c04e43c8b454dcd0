//! Pooling as the last nodes of the graph, so that the device gives one vector a text and not one a token: of a batch of 16,384
//! tokens 200 KiB are copied and not 25 MiB.
//!
//! A message of protobuf that is parsed is the merge of all that its bytes say. So the nodes are a model of their own with
//! nothing else in it, whose bytes stand behind those of the real one: whatever that has, it is neither decoded nor changed.
//! Operators are those whose form is the same in every opset from 5 on.

use prost::Message;

use super::{HIDDEN, MASK};
use crate::model::manifest::Pooling;

/// The output with a vector for each row: the sum over its tokens where pooling is a mean, since rows know their lengths.
pub(in crate::model) const POOLED: &str = "millrace_pooled";

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const ATTRIBUTE_INT: i32 = 2;

// Of onnx.proto3, the fields that are needed.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
}

fn node(op: &str, input: [&str; 2], output: &str, attribute: Option<(&str, i64)>) -> Node {
    Node {
        input: input
            .into_iter()
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        output: vec![output.into()],
        name: format!("{output}_of"),
        op_type: op.into(),
        attribute: attribute
            .map(|(name, i)| Attribute {
                name: name.into(),
                i,
                r#type: ATTRIBUTE_INT,
            })
            .into_iter()
            .collect(),
    }
}

fn numbers(name: &str, values: &[i64], dims: &[i64]) -> Tensor {
    Tensor {
        dims: dims.to_vec(),
        data_type: INT64,
        int64_data: values.to_vec(),
        name: name.into(),
    }
}

/// A model's bytes with pooling at their end.
pub(super) fn with_pooling(model: &[u8], pooling: Pooling) -> Vec<u8> {
    let (node, initializer) = match pooling {
        // [rows, width, d] -> [rows, d]
        Pooling::Cls => (
            vec![node("Gather", [HIDDEN, "millrace_first"], POOLED, Some(("axis", 1)))],
            vec![numbers("millrace_first", &[0], &[])],
        ),
        // [rows, 1, width] x [rows, width, d] -> [rows, 1, d] -> [rows, d]; in a shape 0 means as it is, -1 the rest.
        Pooling::Mean => (
            vec![
                node("Cast", [MASK, ""], "millrace_mask", Some(("to", i64::from(FLOAT)))),
                node("Reshape", ["millrace_mask", "millrace_as_row"], "millrace_row", None),
                node("MatMul", ["millrace_row", HIDDEN], "millrace_sum", None),
                node("Reshape", ["millrace_sum", "millrace_as_vector"], POOLED, None),
            ],
            vec![
                numbers("millrace_as_row", &[0, 1, -1], &[3]),
                numbers("millrace_as_vector", &[0, -1], &[2]),
            ],
        ),
    };
    let tail = Model {
        graph: Some(Graph {
            node,
            initializer,
            output: vec![ValueInfo {
                name: POOLED.into(),
                r#type: Some(Type {
                    tensor: Some(TensorType { elem_type: FLOAT }),
                }),
            }],
        }),
    };
    [model, &tail.encode_to_vec()].concat()
}
