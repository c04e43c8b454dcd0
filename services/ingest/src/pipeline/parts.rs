//! Cutting a revision's chunks into parts.

use millrace_events::{DocumentParsed, TextChunk};

/// Most chunks of a part.
pub const MAX_PART_CHUNKS: usize = 32;
/// Most bytes of a part's chunks, their sections included.
pub const MAX_PART_BYTES: usize = 512 << 10;
/// What a chunk's numbers and lengths take, roughly.
const CHUNK_OVERHEAD_BYTES: usize = 32;

/// Parts of a revision: `whole` without its chunks, numbered, each with the chunk count of them all. A revision without
/// chunks is one part.
pub fn parts(whole: &DocumentParsed, chunks: Vec<TextChunk>) -> Vec<DocumentParsed> {
    let chunk_count = number(chunks.len());
    let mut groups: Vec<Vec<TextChunk>> = vec![Vec::new()];
    let mut bytes = 0;
    for chunk in chunks {
        let size = size_bytes(&chunk);
        let full = |group: &Vec<TextChunk>| {
            group.len() >= MAX_PART_CHUNKS || (!group.is_empty() && bytes + size > MAX_PART_BYTES)
        };
        if groups.last().is_none_or(full) {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(group) = groups.last_mut() {
            group.push(chunk);
        }
    }
    let parts = number(groups.len());
    let numbered = (0..).zip(groups);
    let part = |(part, chunks)| DocumentParsed {
        part,
        parts,
        chunk_count,
        chunks,
        ..whole.clone()
    };
    numbered.map(part).collect()
}

fn size_bytes(chunk: &TextChunk) -> usize {
    let sections: usize = chunk.section.iter().map(|s| s.len() + 2).sum();
    CHUNK_OVERHEAD_BYTES + chunk.text.len() + sections
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(count: i32, bytes: usize) -> Vec<TextChunk> {
        let chunk = |ordinal| TextChunk {
            ordinal,
            text: "x".repeat(bytes),
            ..TextChunk::default()
        };
        (0..count).map(chunk).collect()
    }

    #[test]
    fn parts_are_bounded_numbered_and_know_the_whole() {
        for (count, bytes, sizes) in [
            (0, 0, vec![0]),
            (1, 10, vec![1]),
            (32, 10, vec![32]),
            (33, 10, vec![32, 1]),
            (70, 4096, vec![32, 32, 6]),
            (5, 200 << 10, vec![2, 2, 1]),
            (2, 600 << 10, vec![1, 1]),
        ] {
            let parts = parts(&DocumentParsed::default(), chunks(count, bytes));
            assert_eq!(parts.iter().map(|p| p.chunks.len()).collect::<Vec<_>>(), sizes);
            let ordinals: Vec<i32> = parts.iter().flat_map(|p| &p.chunks).map(|c| c.ordinal).collect();
            assert_eq!(ordinals, (0..count).collect::<Vec<_>>());
            for (i, part) in parts.iter().enumerate() {
                assert_eq!(
                    (part.part, part.parts, part.chunk_count),
                    (i as i32, sizes.len() as i32, count)
                );
            }
        }
    }
}
