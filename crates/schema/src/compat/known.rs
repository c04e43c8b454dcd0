//! What is known of pairs of types, and a hash for them that costs less than a comparison.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::avro::NodeId;

/// A map by reader's and writer's type.
pub(super) type ByPair<T> = HashMap<(NodeId, NodeId), T, BuildHasherDefault<PairHasher>>;

/// Multiplies. The numbers are positions in a schema: nobody outside chooses them so that many fall together at will, and
/// work is bounded by steps.
#[derive(Default)]
pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0.rotate_left(32) ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
