//! What the engine's errors mean.

use qdrant_edge::OperationError;

use crate::index::IndexError;

/// | the engine says | error |
/// |---|---|
/// | the vector, the payload or the question is wrong | Refused: the same call never works |
/// | its storage failed, is inconsistent or full; out of memory, out of time, cancelled | Unavailable: the same call may work later |
pub(super) fn from_engine(operation: &'static str) -> impl Fn(OperationError) -> IndexError {
    move |error| {
        let message = error.to_string();
        match error {
            OperationError::WrongVectorDimension { .. }
            | OperationError::MalformedVectorBlob { .. }
            | OperationError::MalformedPayloadBlob { .. }
            | OperationError::VectorNameNotExists { .. }
            | OperationError::ValidationError { .. }
            | OperationError::TypeError { .. }
            | OperationError::TypeInferenceError { .. }
            | OperationError::VariableTypeError { .. }
            | OperationError::NonFiniteNumber { .. }
            | OperationError::WrongSparse
            | OperationError::WrongMulti
            | OperationError::MissingRangeIndexForOrderBy { .. }
            | OperationError::MissingMapIndexForFacet { .. } => IndexError::Refused { operation, message },
            OperationError::PointIdError { .. }
            | OperationError::ServiceError { .. }
            | OperationError::InconsistentStorage { .. }
            | OperationError::FileNotFound { .. }
            | OperationError::OutOfMemory { .. }
            | OperationError::Cancelled { .. }
            | OperationError::Timeout { .. }
            | OperationError::OutOfAppendableCapacity { .. } => IndexError::Unavailable { operation, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row for each kind of error of the engine.
    #[test]
    fn each_error_of_the_engine_is_refused_or_may_pass() {
        let text = || String::from("x");
        let refused = [
            OperationError::WrongVectorDimension {
                expected_dim: 3,
                received_dim: 2,
            },
            OperationError::MalformedVectorBlob { description: text() },
            OperationError::MalformedPayloadBlob { description: text() },
            OperationError::ValidationError { description: text() },
            OperationError::NonFiniteNumber { expression: text() },
            OperationError::WrongSparse,
            OperationError::WrongMulti,
            OperationError::MissingRangeIndexForOrderBy { key: text() },
            OperationError::MissingMapIndexForFacet { key: text() },
        ];
        for error in refused {
            let told = from_engine("write points")(error);
            assert!(matches!(told, IndexError::Refused { .. }), "{told}");
        }
        let may_pass = [
            OperationError::service_error_light("disk full"),
            OperationError::InconsistentStorage { description: text() },
            OperationError::FileNotFound { path: "x".into() },
            OperationError::OutOfMemory {
                description: text(),
                free: 0,
            },
            OperationError::Cancelled { description: text() },
            OperationError::Timeout { description: text() },
            OperationError::OutOfAppendableCapacity {
                max_segment_size_bytes: 1,
            },
        ];
        for error in may_pass {
            let told = from_engine("write points")(error);
            assert!(matches!(told, IndexError::Unavailable { .. }), "{told}");
        }
    }
}
