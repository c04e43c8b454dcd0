//! Whether this build's decoder reads all that can be written with a schema: tried on samples of it.
//!
//! The rules of schema resolution are not asked here ([Avro's](https://avro.apache.org/docs/1.12.0/specification/#schema-resolution)
//! allow more than our decoder does: it reads no `int` where it wants a `long`). What is decoded here is decoded by what
//! decodes records.

use apache_avro::Schema;

use crate::records;
use crate::samples::{SampleError, samples};
use crate::topics::Topic;
use crate::wire::WireError;

/// Why records of a schema cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The topic carries raw bytes.
    #[error("{topic} carries raw bytes: there is no record to decode")]
    NoRecord {
        /// The topic.
        topic: &'static str,
    },
    /// The schema says what no sample can be made of.
    #[error("its records have no bound")]
    Sample(#[from] SampleError),
    /// A sample is not decoded.
    #[error("the decoder of {topic} does not read it")]
    Decode {
        /// The topic.
        topic: &'static str,
        /// What the decoder said.
        source: WireError,
    },
}

/// Decodes a sample of each thing that `writer` can say, as the record of a topic.
pub fn prove(topic: &Topic, writer: &Schema) -> Result<(), ProofError> {
    let topic = topic.name;
    for body in samples(writer)? {
        let read = records::reads(topic, writer, &body).ok_or(ProofError::NoRecord { topic })?;
        read.map_err(|source| ProofError::Decode { topic, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics;

    #[test]
    fn every_topic_reads_its_own_schema_and_no_other() {
        let with_schema = topics::ALL.iter().filter_map(|topic| Some((topic, topic.schema?)));
        let parsed: Vec<_> = with_schema.map(|(t, s)| (t, Schema::parse_str(s).unwrap())).collect();
        for (topic, _) in &parsed {
            for (other, schema) in &parsed {
                let proof = prove(topic, schema);
                assert_eq!(
                    proof.is_ok(),
                    topic == other,
                    "{} as {}: {proof:?}",
                    other.name,
                    topic.name
                );
            }
        }
        assert!(matches!(
            prove(&topics::DLQ, &Schema::Bytes),
            Err(ProofError::NoRecord { .. })
        ));
    }

    /// `fields` in place of the fields that a status must have.
    fn status(fields: &str) -> Schema {
        let schema =
            format!(r#"{{"type":"record","name":"DocumentStatus","namespace":"millrace.events","fields":[{fields}]}}"#);
        Schema::parse_str(&schema).unwrap()
    }

    #[test]
    fn what_resolution_allows_and_the_decoder_does_not_is_found() {
        let (tenant, id) = (
            r#"{"name":"tenant","type":"string"}"#,
            r#"{"name":"document_id","type":"string"}"#,
        );
        let more = r#"{"name":"more","type":{"type":"map","values":["null","double"]}}"#;
        let revision = |of: &str| format!(r#"{{"name":"revision","type":{of}}}"#);
        for (fields, readable) in [
            (vec![tenant, id, &revision(r#""long""#)], true),
            (vec![tenant, id, &revision(r#""long""#), more], true),
            // An int where a long is wanted.
            (vec![tenant, id, &revision(r#""int""#)], false),
            // Only some records would fail.
            (vec![tenant, id, &revision(r#"["null","long"]"#)], false),
            (vec![tenant, id, &revision(r#"{"type":"array","items":"long"}"#)], false),
        ] {
            let proof = prove(&topics::STATUS, &status(&fields.join(",")));
            assert_eq!(proof.is_ok(), readable, "{fields:?}: {proof:?}");
        }
        let list =
            r#"{"name":"list","type":{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}}"#;
        let proof = prove(
            &topics::STATUS,
            &status(&[tenant, id, &revision(r#""long""#), list].join(",")),
        );
        assert!(
            matches!(proof, Err(ProofError::Sample(SampleError::Recursive { .. }))),
            "{proof:?}"
        );
    }
}
