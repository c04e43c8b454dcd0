//! Ids of points in the vector index: UUIDv5, so that a replay writes the same points again.

use uuid::Uuid;

use crate::{DocumentKey, Revision};

/// Namespace of every id below. Frozen: a change would orphan every point already written.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6b8e_1c52_7f0d_5f4b_9a37_2d6c_04e1_b9f3);

/// Id of a chunk's point: of `tenant/document_id#revision/ordinal`.
pub fn chunk(document: &DocumentKey, revision: Revision, ordinal: i32) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{document}#{revision}/{ordinal}").as_bytes())
}

/// Id of a document's head: of `tenant/document_id`.
pub fn head(document: &DocumentKey) -> Uuid {
    Uuid::new_v5(&NAMESPACE, document.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn ids_are_frozen() {
        let document = DocumentKey::new("default", "README.md").unwrap();
        let revision = Revision::new(Epoch::FIRST, 42).unwrap();
        assert_eq!(head(&document).to_string(), "4bb4b0e2-ec7f-5061-a3bb-30e428172a6a");
        assert_eq!(
            chunk(&document, revision, 3).to_string(),
            "a6fdb6b2-a163-5525-a984-4bcc3221dee0"
        );
    }
}
