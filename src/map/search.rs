//! A static map from intervals of numbers to values: the search tree under both lookups.
//!
//! Nested prefixes are flattened into disjoint intervals once; then the wanted one is the last that starts at or below
//! the number. The starts form an implicit B+ tree: blocks of one cache line, whose child is found by counting
//! the keys that are not above the number, without a branch. So a lookup costs one line for each level, whatever the
//! prefix lengths, and a level more for 16 (IPv4) or 8 (IPv6) times the rules.

/// No value.
pub(super) const NONE: u32 = u32::MAX;

/// What the tree needs to know of a key.
pub(super) trait Key: Copy + Ord {
    const ZERO: Self;
    const MAX: Self;
    /// The next number; never asked for that of `MAX`.
    fn next(self) -> Self;
    /// How many of the keys are not above `x`.
    fn count<const B: usize>(keys: &[Self; B], x: Self) -> usize;
}

impl Key for u32 {
    const ZERO: u32 = 0;
    const MAX: u32 = u32::MAX;
    fn next(self) -> u32 {
        self + 1
    }
    #[inline]
    fn count<const B: usize>(keys: &[u32; B], x: u32) -> usize {
        // Summed in the width of the keys, the loop becomes four vector comparisons.
        keys.iter().map(|&key| u32::from(key <= x)).sum::<u32>() as usize
    }
}

impl Key for u64 {
    const ZERO: u64 = 0;
    const MAX: u64 = u64::MAX;
    fn next(self) -> u64 {
        self + 1
    }
    #[inline]
    fn count<const B: usize>(keys: &[u64; B], x: u64) -> usize {
        keys.iter().map(|&key| usize::from(key <= x)).sum()
    }
}

/// An interval's first and last number, and its value.
pub(super) type Interval<K> = (K, K, u32);

/// Turns intervals that nest, or are apart, into starts and values: each value holds up to the next start.
/// `intervals` are sorted by first number, outer before inner; `base` is the value where none of them is.
pub(super) fn flatten<K: Key>(base: u32, intervals: impl IntoIterator<Item = Interval<K>>) -> Vec<(K, u32)> {
    let mut sweep = Sweep::new(base);
    for interval in intervals {
        sweep.advance(interval.0);
        sweep.enter(interval);
    }
    sweep.finish()
}

/// `flatten`, step by step.
pub(super) struct Sweep<K> {
    base: u32,
    open: Vec<(K, u32)>,
    starts: Vec<(K, u32)>,
}

impl<K: Key> Sweep<K> {
    pub(super) fn new(base: u32) -> Self {
        Sweep { base, open: Vec::new(), starts: vec![(K::ZERO, base)] }
    }
    /// The value of the innermost open interval.
    pub(super) fn value(&self) -> u32 {
        self.open.last().map_or(self.base, |&(_, value)| value)
    }
    /// Ends the intervals that lie before `first`.
    pub(super) fn advance(&mut self, first: K) {
        while let Some(&(last, _)) = self.open.last().filter(|(last, _)| *last < first) {
            self.leave(last);
        }
    }
    /// Begins an interval, after `advance` to its first number.
    pub(super) fn enter(&mut self, (first, last, value): Interval<K>) {
        self.open.push((last, value));
        self.start(first);
    }
    fn leave(&mut self, last: K) {
        self.open.pop();
        if last < K::MAX {
            self.start(last.next());
        }
    }
    fn start(&mut self, first: K) {
        self.starts.pop_if(|(start, _)| *start == first);
        if self.starts.last().is_none_or(|&(_, value)| value != self.value()) {
            self.starts.push((first, self.value()));
        }
    }
    pub(super) fn finish(mut self) -> Vec<(K, u32)> {
        while let Some(&(last, _)) = self.open.last() {
            self.leave(last);
        }
        self.starts
    }
}

/// One cache line of keys.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block<K, const B: usize>([K; B]);

/// Starts and values as an implicit B+ tree of blocks of B keys, B + 1 children.
#[derive(Debug)]
pub(super) struct Tree<K, const B: usize> {
    /// The levels, root first; a node's j-th key is the first key of its child j + 1.
    blocks: Vec<Block<K, B>>,
    /// Where each level above the leaves begins in `blocks`.
    levels: Vec<u32>,
    /// Where the leaves begin.
    leaves: usize,
    /// A value for each key of the leaves.
    values: Vec<u32>,
    /// The value of `K::MAX`: unused keys are `K::MAX`, and a lower number never counts them.
    at_max: u32,
}

pub(super) type Tree32 = Tree<u32, 16>;
pub(super) type Tree64 = Tree<u64, 8>;

impl<K: Key, const B: usize> Tree<K, B> {
    /// `starts` ascend and begin with zero.
    pub(super) fn new(mut starts: Vec<(K, u32)>) -> Self {
        let at_max = starts.last().map_or(NONE, |&(_, value)| value);
        starts.pop_if(|(start, _)| *start == K::MAX);
        let keys: Vec<K> = starts.iter().map(|&(key, _)| key).collect();
        // The first key under each node of the level.
        let mut firsts: Vec<K> = keys.chunks(B).map(|keys| keys[0]).collect();
        let mut levels: Vec<Vec<Block<K, B>>> = vec![keys.chunks(B).map(block).collect()];
        while firsts.len() > 1 {
            levels.push(firsts.chunks(B + 1).map(|children| block(&children[1..])).collect());
            firsts = firsts.chunks(B + 1).map(|children| children[0]).collect();
        }
        levels.reverse();
        let mut begins: Vec<u32> = Vec::with_capacity(levels.len());
        let mut blocks = Vec::with_capacity(levels.iter().map(Vec::len).sum());
        for level in levels {
            begins.push(blocks.len() as u32);
            blocks.extend(level);
        }
        let leaves = begins.pop().unwrap_or(0) as usize;
        let mut values: Vec<u32> = starts.iter().map(|&(_, value)| value).collect();
        values.resize(values.len().next_multiple_of(B), NONE);
        values.shrink_to_fit();
        Tree { blocks, levels: begins, leaves, values, at_max }
    }

    /// The value of the interval in which `x` lies.
    #[inline]
    pub(super) fn get(&self, x: K) -> u32 {
        if x == K::MAX {
            return self.at_max;
        }
        let mut node = 0;
        for &level in &self.levels {
            node = node * (B + 1) + K::count(&self.blocks[level as usize + node].0, x);
        }
        // A leaf was chosen because its first key is not above x, so the count is not 0.
        let place = node * B + K::count(&self.blocks[self.leaves + node].0, x) - 1;
        self.values[place]
    }

    /// Octets on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.blocks.capacity() * size_of::<Block<K, B>>() + (self.values.capacity() + self.levels.capacity()) * 4
    }
}

fn block<K: Key, const B: usize>(keys: &[K]) -> Block<K, B> {
    let mut block = Block([K::MAX; B]);
    block.0[..keys.len()].copy_from_slice(keys);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow<K: Key>(starts: &[(K, u32)], x: K) -> u32 {
        starts.iter().rfind(|(start, _)| *start <= x).expect("starts with zero").1
    }

    /// Every size around the ends of blocks and levels, asked at every start, before it and behind it.
    #[test]
    fn every_size_of_tree() {
        for n in
            (0..700u64).chain([8 * 9 * 9 - 1, 8 * 9 * 9, 8 * 9 * 9 + 1, 6560, 6561, 16 * 17 * 17, 16 * 17 * 17 + 1])
        {
            let step = (u64::MAX / (n + 1)).max(2);
            let starts: Vec<(u64, u32)> = (0..=n).map(|i| (i * step, i as u32)).collect();
            let wide = Tree64::new(starts.clone());
            let narrow: Vec<(u32, u32)> = starts.iter().map(|&(start, value)| ((start >> 32) as u32, value)).collect();
            let tree = Tree32::new(narrow.clone());
            for (i, &(start, value)) in starts.iter().enumerate() {
                assert_eq!(wide.get(start), value);
                assert_eq!(wide.get(start + 1), value);
                assert_eq!(tree.get(narrow[i].0), value);
                if i > 0 {
                    assert_eq!(wide.get(start - 1), value - 1);
                    assert_eq!(tree.get(narrow[i].0 - 1), value - 1);
                }
            }
            assert_eq!(wide.get(u64::MAX), n as u32);
            assert_eq!(wide.get(u64::MAX - 1), n as u32);
            assert_eq!(tree.get(u32::MAX), n as u32);
        }
    }

    #[test]
    fn the_last_number_is_an_interval_too() {
        let mut starts: Vec<(u32, u32)> = (0..16).map(|i| (i, i)).collect();
        starts.push((u32::MAX, 77));
        let tree = Tree32::new(starts);
        assert_eq!((tree.get(u32::MAX - 1), tree.get(u32::MAX), tree.get(15), tree.get(16)), (15, 77, 15, 15));
    }

    proptest! {
        #[test]
        fn finds_what_a_linear_search_finds(
            keys in prop::collection::btree_set(any::<u32>(), 0..400), probes in prop::collection::vec(any::<u32>(), 50)
        ) {
            let mut starts: Vec<(u32, u32)> = keys.into_iter().zip(1..).collect();
            if starts.first().is_none_or(|&(key, _)| key != 0) {
                starts.insert(0, (0, 0));
            }
            let tree = Tree32::new(starts.clone());
            let near = starts.iter().flat_map(|&(key, _)| [key, key.wrapping_sub(1), key.wrapping_add(1)]);
            for x in probes.into_iter().chain(near) {
                prop_assert_eq!(tree.get(x), slow(&starts, x));
            }
        }

        /// Prefixes of a small universe, so that they nest often.
        #[test]
        fn flattening_keeps_the_innermost(
            prefixes in prop::collection::btree_map((any::<u8>(), 0u32..=8), any::<u16>(), 0..40)
        ) {
            let mut ranges: Vec<(u8, u8, u32)> = Vec::new();
            for ((bits, len), value) in prefixes {
                let host = (0xffu32 >> len) as u8;
                let (first, last) = (bits & !host, bits | host);
                if !ranges.iter().any(|&(f, l, _)| (f, l) == (first, last)) {
                    ranges.push((first, last, value.into()));
                }
            }
            ranges.sort_by_key(|&(first, last, _)| (first, std::cmp::Reverse(last)));
            // The universe stands at the end of u32's, to reach its last number.
            let wide = |x: u8| u32::MAX - 255 + u32::from(x);
            let starts = flatten(NONE, ranges.iter().map(|&(f, l, v)| (wide(f), wide(l), v)));
            prop_assert!(starts.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
            let tree = Tree32::new(starts);
            for x in 0..=255u8 {
                let inner = ranges.iter().filter(|(f, l, _)| (*f..=*l).contains(&x)).min_by_key(|(f, l, _)| l - f);
                prop_assert_eq!(tree.get(wide(x)), inner.map_or(NONE, |&(_, _, value)| value));
            }
            prop_assert_eq!(tree.get(wide(0) - 1), NONE);
        }
    }
}
