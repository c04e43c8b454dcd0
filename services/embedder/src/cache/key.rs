//! What a vector is found by: all that it depends on, hashed.

use std::io::{Read, Write};

use foyer::Code;
use sha2::{Digest, Sha256};

use crate::model::manifest::Pooling;
use crate::model::{Manifest, Tokenizer};

/// Raised when the same key would mean another vector.
const VERSION: u64 = 1;

/// Of a model and a text: sha256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// What all vectors of a model depend on, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed([u8; 32]);

impl Seed {
    /// Of a model as its folder has it. Each part has its length before it: none reads as the next one's beginning.
    pub(super) fn of(manifest: &Manifest, tokenizer: &Tokenizer) -> Self {
        let number = |number: usize| (number as u64).to_le_bytes();
        let pooling: &[u8] = match manifest.pooling {
            Pooling::Mean => b"mean",
            Pooling::Cls => b"cls",
        };
        let parts: [&[u8]; 11] = [
            &VERSION.to_le_bytes(),
            manifest.id.as_bytes(),
            manifest.dtype.as_bytes(),
            &number(manifest.dimensions),
            manifest.sha256.as_bytes(),
            pooling,
            &[u8::from(manifest.normalized)],
            manifest.query_prefix.as_bytes(),
            manifest.document_prefix.as_bytes(),
            &number(manifest.max_tokens),
            tokenizer.sha256(),
        ];
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(number(part.len()));
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub(super) fn key(&self, prefix: &str, text: &str) -> Key {
        let mut hash = Sha256::new_with_prefix(self.0);
        hash.update((prefix.len() as u64).to_le_bytes());
        hash.update(prefix);
        hash.update(text);
        Key(hash.finalize().into())
    }
}

impl Code for Key {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        writer.write_all(&self.0).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let mut key = [0; 32];
        reader.read_exact(&mut key).map_err(foyer::Error::io_error)?;
        Ok(Self(key))
    }

    fn estimated_size(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::batch::fake::manifest;
    use crate::model::tokenizer;

    /// Of a text, for a fake model.
    pub(crate) fn key(text: &str) -> Key {
        Seed::of(&manifest(), &tokenizer::tests::trapped(16)).key("", text)
    }

    /// A row for each thing that a vector depends on.
    #[test]
    fn whatever_changes_a_vector_changes_its_key() {
        let trapped = tokenizer::tests::trapped(16);
        let changed = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest
        };
        let manifests = [
            manifest(),
            changed(|m| m.id = "other".into()),
            changed(|m| m.dtype = "bf16".into()),
            changed(|m| m.dimensions = 3),
            changed(|m| m.sha256 = "1".repeat(64)),
            changed(|m| m.pooling = Pooling::Cls),
            changed(|m| m.normalized = true),
            changed(|m| m.query_prefix = "p".into()),
            changed(|m| m.document_prefix = "p".into()),
            changed(|m| m.max_tokens = 15),
        ];
        let mut keys: HashSet<Key> = manifests.iter().map(|m| Seed::of(m, &trapped).key("", "a")).collect();
        let seed = Seed::of(&manifest(), &trapped);
        keys.extend([seed.key("", "b"), seed.key("b", "a"), seed.key("ba", "")]);
        let other = tokenizer::tests::read(&tokenizer::tests::TRAPPED.replace("[UNK]", "[?]"), 16);
        keys.insert(Seed::of(&manifest(), &other).key("", "a"));
        assert_eq!(keys.len(), manifests.len() + 4);
        assert_eq!(seed.key("", "a"), key("a"));
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = key("a");
        let mut bytes = Vec::new();
        key.encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), key.estimated_size());
        assert_eq!(Key::decode(&mut &bytes[..]).unwrap(), key);
    }
}
