//! `model.toml`: what a model directory says about itself.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ModelError;
use super::pooling::Gate;

/// The file's name in a model directory.
pub const FILE: &str = "model.toml";

/// How one vector is made of the vectors of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the text's own tokens, padding left out.
    Mean,
    /// The first token's vector.
    Cls,
}

impl Pooling {
    /// A text's vector, of what the graph gives for its row.
    pub(super) fn finish(self, row: &[f32], tokens: usize) -> Vec<f32> {
        match self {
            Self::Mean => row.iter().map(|sum| sum / tokens as f32).collect(),
            Self::Cls => row.to_vec(),
        }
    }
}

/// What a model directory says about its model. The checksum binds it to one file: another export of the same model
/// under the same name does not start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the model.
    pub id: String,
    /// Type of its weights: `f32`, `bf16`, `int8`.
    pub dtype: String,
    /// Values in a vector.
    pub dimensions: usize,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// What the model wants to be put before a query, for example `query: `.
    #[serde(default)]
    pub query_prefix: String,
    /// What the model wants to be put before a chunk of a document, for example `passage: `. Its tokens count too.
    #[serde(default)]
    pub document_prefix: String,
    /// Whether vectors are scaled to unit length.
    pub normalized: bool,
    /// Longest input in tokens, the special ones included.
    pub max_tokens: usize,
    /// sha256 of `model.onnx`, hexadecimal: the model's revision on every vector. At an endpoint nobody can check it: it
    /// says which weights are meant, and whoever has the endpoint serve others gives it another value.
    pub sha256: String,
}

impl Manifest {
    /// Reads and checks `model.toml` of a model directory.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join(FILE);
        let text = super::read(&path)?;
        let text = String::from_utf8(text).map_err(|_| invalid(&path, "it is not UTF-8"))?;
        let manifest: Self = toml::from_str(&text).map_err(|e| invalid(&path, e.message()))?;
        manifest.check().map_err(|what| invalid(&path, what))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), &'static str> {
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if self.id.is_empty() {
            Err("id is empty")
        } else if !(1..=65_536).contains(&self.dimensions) {
            Err("dimensions is not 1 to 65536")
        } else if !(3..=1 << 20).contains(&self.max_tokens) {
            Err("max_tokens is not 3 to 1048576 (two are the special ones)")
        } else if self.sha256.len() != 64 || !self.sha256.bytes().all(hex) {
            Err("sha256 is not 64 lower-case hexadecimal digits")
        } else {
            Ok(())
        }
    }

    /// The judge of its vectors.
    pub fn gate(&self) -> Gate {
        Gate {
            dimensions: self.dimensions,
            normalized: self.normalized,
        }
    }

    /// The identity stamped on every vector.
    pub fn identity(&self) -> millrace_events::Model {
        millrace_events::Model {
            id: self.id.clone(),
            revision: self.sha256.clone(),
            // `check` keeps it small.
            dimensions: i32::try_from(self.dimensions).unwrap_or(i32::MAX),
            dtype: self.dtype.clone(),
            normalized: self.normalized,
        }
    }
}

fn invalid(path: &Path, what: impl Into<String>) -> ModelError {
    ModelError::Manifest {
        path: PathBuf::from(path),
        what: what.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        id = "all-minilm-l6-v2"
        dtype = "f32"
        dimensions = 384
        pooling = "mean"
        normalized = true
        max_tokens = 512
        sha256 = "759c3cd2b7fe7e93933ad23c4c9181b7396442a2ed746ec7c1d46192c469c46e"
    "#;

    fn read(text: &str) -> Result<Manifest, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        Manifest::read(dir.path())
    }

    #[test]
    fn the_identity_names_the_generation() {
        let identity = read(GOOD).unwrap().identity();
        assert_eq!(identity.generation(), "all-minilm-l6-v2-f32-384-759c3cd2");
        assert!(identity.normalized);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (from, to, expected) in [
            ("384", "0", "dimensions"),
            ("759c", "759C", "sha256"),
            ("512", "2", "max_tokens"),
            ("\"mean\"", "\"max\"", "max"),
            ("dtype", "type", "type"),
            ("id = \"all-minilm-l6-v2\"", "id = \"\"", "id is empty"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{from} -> {to}: {error}");
        }
        let missing = Manifest::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/model.toml"), "{missing}");
    }
}
