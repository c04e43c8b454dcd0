//! The model's graph, as every runtime of this machine runs it: what it takes, what it gives, and pooling at its end.

mod tail;

use super::manifest::{Manifest, Pooling};
use super::tokenizer::Tokens;

pub(super) use tail::POOLED;

pub(super) const IDS: &str = "input_ids";
pub(super) const MASK: &str = "attention_mask";
pub(super) const TYPES: &str = "token_type_ids";
pub(super) const HIDDEN: &str = "last_hidden_state";

/// A model's bytes with pooling at their end: another output, [`POOLED`], has one vector a row.
pub(super) fn with_pooling(model: &[u8], manifest: &Manifest) -> Vec<u8> {
    tail::with_pooling(model, manifest.pooling)
}

/// What is known of a graph that a runtime has read.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    pooling: Pooling,
    dimensions: usize,
    pad_id: i64,
    max_tokens: usize,
    takes_types: bool,
}

/// Tokens that rows are padded to a multiple of, the first of `(from so many tokens on, multiple)` that a row is long enough for;
/// none: rows are as wide as the longest text.
pub(super) type Steps = [(usize, usize)];

/// Texts of one batch, each a row, all as wide.
pub(super) struct Rows {
    /// Rows and tokens of each.
    pub(super) shape: [usize; 2],
    ids: Vec<i64>,
    mask: Vec<i64>,
    types: Vec<i64>,
}

impl Graph {
    /// Checks that the graph takes and gives what we mean.
    pub(super) fn new(manifest: &Manifest, pad_id: u32, inputs: &[String], outputs: &[String]) -> Result<Self, String> {
        let known = |name: &String| [IDS, MASK, TYPES].contains(&name.as_str());
        let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
        if !(inputs.iter().all(known) && has(inputs, IDS) && has(inputs, MASK) && has(outputs, HIDDEN)) {
            return Err(format!(
                "the model takes {inputs:?} and gives {outputs:?}; expected were {IDS}, {MASK}, {TYPES} and {HIDDEN}: \
                 another export of the model?"
            ));
        }
        Ok(Self {
            pooling: manifest.pooling,
            dimensions: manifest.dimensions,
            pad_id: i64::from(pad_id),
            max_tokens: manifest.max_tokens,
            takes_types: has(inputs, TYPES),
        })
    }

    /// The texts as rows, all as wide as the longest and padded on by these steps, but not beyond what the model takes.
    pub(super) fn rows(&self, inputs: &[&Tokens], steps: &Steps) -> Rows {
        let longest = inputs.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let width = padded(longest, steps).min(self.max_tokens.max(longest));
        let cells = inputs.len() * width;
        let (mut ids, mut mask, mut types) = (vec![self.pad_id; cells], vec![0; cells], vec![0; cells]);
        for (row, tokens) in inputs.iter().enumerate() {
            let start = row * width;
            for (at, (id, segment)) in tokens.ids.iter().zip(&tokens.types).enumerate() {
                ids[start + at] = i64::from(*id);
                mask[start + at] = 1;
                types[start + at] = i64::from(*segment);
            }
        }
        Rows {
            shape: [inputs.len(), width],
            ids,
            mask,
            types,
        }
    }

    /// What the graph takes of these rows, by name.
    pub(super) fn inputs<'a>(&self, rows: &'a Rows) -> impl Iterator<Item = (&'static str, &'a [i64])> {
        let types = self.takes_types.then_some((TYPES, &rows.types[..]));
        [(IDS, &rows.ids[..]), (MASK, &rows.mask[..])].into_iter().chain(types)
    }

    /// The vectors of these texts, of what the graph gave as [`POOLED`].
    pub(super) fn vectors(&self, inputs: &[&Tokens], shape: &[i64], pooled: &[f32]) -> Result<Vec<Vec<f32>>, String> {
        let expected = [inputs.len(), self.dimensions].map(|n| n as i64);
        if shape != expected || pooled.len() != inputs.len() * self.dimensions {
            return Err(format!("the vectors have the shape {shape:?} instead of {expected:?}"));
        }
        let rows = inputs.iter().zip(pooled.chunks_exact(self.dimensions));
        Ok(rows
            .map(|(tokens, row)| self.pooling.finish(row, tokens.len()))
            .collect())
    }
}

/// A row's tokens with padding by these steps.
pub(super) fn padded(longest: usize, steps: &Steps) -> usize {
    let step = steps.iter().find(|(from, _)| longest >= *from);
    longest.next_multiple_of(step.map_or(1, |(_, multiple)| *multiple))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::fake::manifest;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn tokens(ids: &[u32]) -> Tokens {
        Tokens {
            ids: ids.into(),
            types: vec![0; ids.len()].into(),
            text: None,
        }
    }

    #[test]
    fn rows_are_padded_and_masked() {
        let graph = Graph::new(&manifest(), 9, &names(&[IDS, MASK]), &names(&[HIDDEN])).unwrap();
        let (long, short) = (tokens(&[1, 2, 3]), tokens(&[4]));
        let rows = graph.rows(&[&long, &short], &[]);
        let inputs: Vec<_> = graph.inputs(&rows).collect();
        assert_eq!(rows.shape, [2, 3]);
        assert_eq!(
            inputs,
            [(IDS, &[1, 2, 3, 4, 9, 9][..]), (MASK, &[1, 1, 1, 1, 0, 0][..])]
        );
        // The sum over the tokens becomes their mean.
        let vectors = graph.vectors(&[&long, &short], &[2, 2], &[3.0, 6.0, 3.0, 6.0]);
        assert_eq!(vectors.unwrap(), [[1.0, 2.0], [3.0, 6.0]]);
        assert!(graph.vectors(&[&long], &[1, 3], &[0.0; 3]).is_err());
    }

    #[test]
    fn rows_are_padded_on_by_steps_but_not_beyond_what_the_model_takes() {
        for (max_tokens, longest, width) in [
            (510, 3, 3),
            (510, 4, 4),
            (510, 5, 8),
            (510, 129, 144),
            (500, 500, 500),
            (510, 501, 510),
            (510, 600, 600),
        ] {
            let manifest = Manifest {
                max_tokens,
                ..manifest()
            };
            let graph = Graph::new(&manifest, 9, &names(&[IDS, MASK]), &names(&[HIDDEN])).unwrap();
            let text = tokens(&vec![1; longest]);
            let rows = graph.rows(&[&text], &[(128, 16), (4, 4)]);
            assert_eq!(rows.shape, [1, width], "{longest} of {max_tokens}");
        }
    }

    #[test]
    fn another_export_is_refused() {
        for (inputs, outputs) in [
            (&[IDS, MASK, "pixels"][..], &[HIDDEN][..]),
            (&[IDS], &[HIDDEN]),
            (&[IDS, MASK], &["logits"]),
        ] {
            let refused = Graph::new(&manifest(), 0, &names(inputs), &names(outputs)).unwrap_err();
            assert!(refused.contains("another export"), "{refused}");
        }
    }
}
