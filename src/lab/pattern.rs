//! Octets that are never the same twice, so that a lost, doubled, moved or changed one is noticed. A capture or
//! a checksum would not do: between namespaces nobody computes TCP checksums.

/// Octets made at a time.
pub const BLOCK: usize = 64 * 1024;

/// Makes the pattern from its beginning (SplitMix64).
#[derive(Clone, Debug)]
pub struct Source {
    state: u64,
    block: Vec<u8>,
}

impl Source {
    /// At offset 0.
    pub fn new() -> Self {
        Source { state: 0, block: vec![0; BLOCK] }
    }

    /// The next [`BLOCK`] octets.
    pub fn next_block(&mut self) -> &[u8] {
        for word in self.block.chunks_exact_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        &self.block
    }
}

impl Default for Source {
    fn default() -> Self {
        Source::new()
    }
}

/// Compares what arrives with the pattern.
#[derive(Clone, Debug)]
pub struct Verifier {
    source: Source,
    used: usize,
    offset: u64,
}

impl Verifier {
    /// At offset 0.
    pub fn new() -> Self {
        Verifier { source: Source::new(), used: BLOCK, offset: 0 }
    }

    /// Takes the next octets; `Err` is the offset of the first wrong one.
    pub fn take(&mut self, mut octets: &[u8]) -> Result<(), u64> {
        while !octets.is_empty() {
            if self.used == BLOCK {
                self.source.next_block();
                self.used = 0;
            }
            let expected = &self.source.block[self.used..];
            let count = expected.len().min(octets.len());
            if octets[..count] != expected[..count] {
                let same = octets.iter().zip(expected).take_while(|(a, b)| a == b).count();
                return Err(self.offset + same as u64);
            }
            self.used += count;
            self.offset += count as u64;
            octets = &octets[count..];
        }
        Ok(())
    }

    /// Octets that were right so far.
    pub fn verified(&self) -> u64 {
        self.offset
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Verifier::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(blocks: usize) -> Vec<u8> {
        let mut source = Source::new();
        (0..blocks).flat_map(|_| source.next_block().to_vec()).collect()
    }

    #[test]
    fn the_pattern_is_recognised_in_pieces_of_any_size() {
        let octets = text(3);
        let mut verifier = Verifier::new();
        let mut rest = &octets[..];
        for size in [1, 7, 1448, 65_535, 3, 65_536].into_iter().cycle() {
            let (piece, more) = rest.split_at(size.min(rest.len()));
            verifier.take(piece).unwrap();
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(verifier.verified(), octets.len() as u64);
    }

    #[test]
    fn any_harm_is_found_at_its_offset() {
        let good = text(2);
        let mut flipped = good.clone();
        flipped[70_001] ^= 1;
        assert_eq!(Verifier::new().take(&flipped), Err(70_001));
        let mut moved = good.clone();
        moved.remove(70_000);
        assert!(Verifier::new().take(&moved).is_err_and(|at| (70_000..70_004).contains(&at)));
        let mut swapped = good.clone();
        swapped[..2 * 1448].rotate_left(1448);
        assert!(Verifier::new().take(&swapped).is_err());
    }
}
