//! Octets of held fragments in chunks of one block: nothing is allocated while packets pass.

use super::Piece;
use crate::wire::PacketBuf;

/// Octets of a chunk: a fragment of 1,500 octets takes three.
const CHUNK: usize = 512;
const NONE: u16 = u16::MAX;

/// Chunks, and how they hang together.
pub(super) struct Store {
    octets: Box<[u8]>,
    /// The next chunk of the same fragment, or of the free list.
    next: Box<[u16]>,
    /// By first chunk: what the fragment is.
    heads: Box<[Head]>,
    free: u16,
    free_count: u16,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    what: Taken,
    /// The first chunk of the packet's next held fragment.
    after: u16,
}

/// The held fragments of one packet, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    first: u16,
    last: u16,
    /// Chunks in all of them.
    pub(super) chunks: u16,
    /// How many there are.
    pub(super) count: u16,
}

impl Line {
    pub(super) const EMPTY: Line = Line { first: NONE, last: NONE, chunks: 0, count: 0 };
}

/// What a held fragment is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// Octets of the whole packet.
    pub(super) octets: u32,
    /// As in `Piece`.
    pub(super) offset: u32,
    /// As in `Piece`.
    pub(super) len: u32,
    /// As in `Piece`.
    pub(super) more: bool,
}

pub(super) fn chunks_of(len: usize) -> usize {
    len.div_ceil(CHUNK).max(1)
}

impl Store {
    pub(super) fn new(octets: u32) -> Store {
        let chunks = (octets as usize / CHUNK).min(usize::from(NONE - 1));
        Store {
            octets: vec![0; chunks * CHUNK].into_boxed_slice(),
            next: (0..chunks).map(|i| if i + 1 < chunks { i as u16 + 1 } else { NONE }).collect(),
            heads: vec![Head { what: Taken::default(), after: NONE }; chunks].into_boxed_slice(),
            free: if chunks > 0 { 0 } else { NONE },
            free_count: chunks as u16,
        }
    }

    pub(super) fn free(&self) -> usize {
        usize::from(self.free_count)
    }

    pub(super) fn capacity(&self) -> usize {
        self.next.len()
    }

    pub(super) fn used_octets(&self) -> u64 {
        ((self.capacity() - self.free()) * CHUNK) as u64
    }

    /// Puts a fragment at the end of `line`; `false`, and nothing done, where it does not fit.
    pub(super) fn put(&mut self, line: &mut Line, packet: &[u8], piece: &Piece) -> bool {
        let chunks = chunks_of(packet.len());
        if chunks > self.free() {
            return false;
        }
        let first = self.free;
        let mut at = first;
        let mut last = first;
        for part in packet.chunks(CHUNK) {
            let from = usize::from(at) * CHUNK;
            self.octets[from..from + part.len()].copy_from_slice(part);
            last = at;
            at = self.next[usize::from(at)];
        }
        self.free = self.next[usize::from(last)];
        self.next[usize::from(last)] = NONE;
        self.free_count -= chunks as u16;
        let Piece { offset, len, more, .. } = *piece;
        let what = Taken { octets: packet.len() as u32, offset, len, more };
        self.heads[usize::from(first)] = Head { what, after: NONE };
        match line.last {
            NONE => line.first = first,
            last => self.heads[usize::from(last)].after = first,
        }
        line.last = first;
        line.chunks += chunks as u16;
        line.count += 1;
        true
    }

    /// Takes the oldest fragment of `line`, with its octets where `out` is given.
    pub(super) fn take(&mut self, line: &mut Line, out: Option<&mut PacketBuf>) -> Option<Taken> {
        if line.first == NONE {
            return None;
        }
        let first = line.first;
        let head = self.heads[usize::from(first)];
        let octets = head.what.octets as usize;
        let chunks = chunks_of(octets);
        if let Some(out) = out {
            out.set(&[]);
            let (mut at, mut rest) = (first, octets);
            while rest > 0 {
                let (from, part) = (usize::from(at) * CHUNK, rest.min(CHUNK));
                out.push(&self.octets[from..from + part]);
                rest -= part;
                at = self.next[usize::from(at)];
            }
        }
        let mut last = first;
        for _ in 1..chunks {
            last = self.next[usize::from(last)];
        }
        self.next[usize::from(last)] = self.free;
        self.free = first;
        self.free_count += chunks as u16;
        line.first = head.after;
        if line.first == NONE {
            line.last = NONE;
        }
        line.chunks -= chunks as u16;
        line.count -= 1;
        Some(head.what)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Key;
    use super::*;
    use crate::verdict::Direction;
    use std::collections::VecDeque;

    /// Against queues of vectors: what goes in comes out, in order, and no chunk is lost.
    #[test]
    fn lines_are_queues_and_chunks_come_back() {
        let mut store = Store::new(40 * 512 + 100);
        assert_eq!(store.capacity(), 40);
        let mut lines = [Line::EMPTY; 3];
        let mut model: [VecDeque<Vec<u8>>; 3] = Default::default();
        let mut x = 1u32;
        let mut out = PacketBuf::new();
        let key = Key { direction: Direction::V4ToV6, src: 1, dst: 2, id: 3, protocol: 17 };
        for step in 0..20_000u32 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let l = (x >> 8) as usize % 3;
            if x >> 31 == 0 {
                let packet: Vec<u8> = (0..(x >> 10) as usize % 3000 + 1).map(|i| (i as u32 ^ step) as u8).collect();
                let fits = store.free() >= chunks_of(packet.len());
                let piece = Piece { key, group: 0, offset: step, len: step + 1, more: step % 2 == 0 };
                assert_eq!(store.put(&mut lines[l], &packet, &piece), fits);
                if fits {
                    model[l].push_back(packet);
                }
            } else {
                let taken = store.take(&mut lines[l], Some(&mut out));
                let expected = model[l].pop_front();
                assert_eq!(taken.map(|_| out.bytes().to_vec()), expected);
                assert_eq!(taken.map(|t| t.octets as usize), expected.map(|p| p.len()));
            }
            assert_eq!(lines[l].count as usize, model[l].len());
            let used: usize = model.iter().flatten().map(|p| chunks_of(p.len())).sum();
            assert_eq!(store.free() + used, 40);
        }
    }
}
