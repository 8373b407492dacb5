//! A static map from intervals of numbers to values: the search tree under both lookups.
//!
//! Nested prefixes are flattened into disjoint intervals once; then the wanted one is the last that starts at or below
//! the number. The starts form an implicit B+ tree: 15 keys to a node and 16 children, leaves of one cache line that
//! hold keys and values, and no branch in a node. So a lookup costs one line of a leaf, whatever the prefix lengths,
//! and one small node more for 16 times the rules.

/// No value.
pub(super) const NONE: u32 = u32::MAX;

/// What the tree needs to know of a key.
pub(super) trait Key: Copy + Ord {
    const ZERO: Self;
    const MAX: Self;
    /// The next number; never asked for that of `MAX`.
    fn next(self) -> Self;
}

impl Key for u32 {
    const ZERO: u32 = 0;
    const MAX: u32 = u32::MAX;
    fn next(self) -> u32 {
        self + 1
    }
}

impl Key for u64 {
    const ZERO: u64 = 0;
    const MAX: u64 = u64::MAX;
    fn next(self) -> u64 {
        self + 1
    }
}

/// An interval's first and last number, and its value.
pub(super) type Interval<K> = (K, K, u32);

/// Turns intervals that nest, or are apart, into starts and values: each value holds up to the next start, except that
/// a gap in which nothing holds has no start of its own. Who looks a number up there finds the interval before it, and
/// has to ask whether it holds the number.
///
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
        let value = self.value();
        if self.starts.last().is_none_or(|&(_, before)| before != value && value != NONE) {
            self.starts.push((first, value));
        }
    }
    pub(super) fn finish(mut self) -> Vec<(K, u32)> {
        while let Some(&(last, _)) = self.open.last() {
            self.leave(last);
        }
        self.starts
    }
}

/// How many of the ascending keys are not above `x`, without a branch: F of them divide the others into F + 1 groups
/// of G; the first comparisons find the group, the others the place in it.
#[inline(always)]
fn count<K: Key, const F: usize, const G: usize>(keys: &[K], x: K) -> usize {
    let mut place = 0;
    for fence in 1..=F {
        place += usize::from(keys[fence * (G + 1) - 1] <= x) * (G + 1);
    }
    let group = &keys[place..place + G];
    for key in group {
        place += usize::from(*key <= x);
    }
    place
}

const NODE: usize = 15;
const CHILDREN: usize = NODE + 1;

/// The j-th key is the first key of child j + 1.
type Node<K> = [K; NODE];

/// One cache line: L keys, L values.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Leaf<K, const L: usize> {
    keys: [K; L],
    values: [u32; L],
}

/// Starts and values as an implicit B+ tree. F and L are the shape of its leaves, L = F + (F + 1) * 2.
#[derive(Debug)]
pub(super) struct Tree<K, const F: usize, const L: usize> {
    /// The levels above the leaves, root first.
    nodes: Vec<Node<K>>,
    /// Where each of them begins in `nodes`.
    levels: Vec<u32>,
    leaves: Vec<Leaf<K, L>>,
    /// The value of `K::MAX`: unused keys are `K::MAX`, and a lower number never counts them.
    at_max: u32,
}

pub(super) type Tree32 = Tree<u32, 2, 8>;
pub(super) type Tree64 = Tree<u64, 1, 5>;

impl<K: Key, const F: usize, const L: usize> Tree<K, F, L> {
    const ONE_LINE: () = assert!(L == F + (F + 1) * 2 && size_of::<Leaf<K, L>>() == 64);

    /// `starts` ascend and begin with zero.
    pub(super) fn new(mut starts: Vec<(K, u32)>) -> Self {
        const { Self::ONE_LINE };
        let at_max = starts.last().map_or(NONE, |&(_, value)| value);
        starts.pop_if(|(start, _)| *start == K::MAX);
        let leaves: Vec<Leaf<K, L>> = starts.chunks(L).map(leaf).collect();
        // The first key under each node of a level.
        let mut firsts: Vec<K> = leaves.iter().map(|leaf| leaf.keys[0]).collect();
        let mut upwards: Vec<Vec<Node<K>>> = Vec::new();
        while firsts.len() > 1 {
            upwards.push(firsts.chunks(CHILDREN).map(node).collect());
            firsts = firsts.chunks(CHILDREN).map(|children| children[0]).collect();
        }
        let mut levels = Vec::with_capacity(upwards.len());
        let mut nodes = Vec::with_capacity(upwards.iter().map(Vec::len).sum());
        for level in upwards.into_iter().rev() {
            levels.push(nodes.len() as u32);
            nodes.extend(level);
        }
        Tree { nodes, levels, leaves, at_max }
    }

    /// The value of the last interval that starts at or below `x`.
    #[inline(always)]
    pub(super) fn get(&self, x: K) -> u32 {
        if x == K::MAX {
            return self.at_max;
        }
        let mut node = 0;
        for &level in &self.levels {
            node = node * CHILDREN + count::<K, 3, 3>(&self.nodes[level as usize + node], x);
        }
        let leaf = &self.leaves[node];
        // The leaf was chosen because its first key is not above x, so the count is not 0.
        leaf.values[count::<K, F, 2>(&leaf.keys, x) - 1]
    }

    /// Octets on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<K>>()
            + self.levels.capacity() * 4
            + self.leaves.capacity() * size_of::<Leaf<K, L>>()
    }
}

fn node<K: Key>(children: &[K]) -> Node<K> {
    let mut node = [K::MAX; NODE];
    node[..children.len() - 1].copy_from_slice(&children[1..]);
    node
}

fn leaf<K: Key, const L: usize>(starts: &[(K, u32)]) -> Leaf<K, L> {
    let mut leaf = Leaf { keys: [K::MAX; L], values: [NONE; L] };
    for (place, &(key, value)) in starts.iter().enumerate() {
        leaf.keys[place] = key;
        leaf.values[place] = value;
    }
    leaf
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
        for n in (0..700u64).chain([
            5 * 256 - 2,
            5 * 256 - 1,
            5 * 256,
            8 * 256 - 1,
            8 * 256,
            5 * 4096,
            8 * 4096 - 1,
            8 * 4096,
        ]) {
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
                let before = ranges.iter().filter(|(_, l, _)| *l < x).max_by_key(|(f, l, _)| (*l, *f));
                prop_assert_eq!(tree.get(wide(x)), inner.or(before).map_or(NONE, |&(_, _, value)| value));
            }
            prop_assert_eq!(tree.get(wide(0) - 1), NONE);
            let gaps = flatten(NONE, []);
            prop_assert_eq!(gaps, vec![(0u32, NONE)]);
        }
    }
}
