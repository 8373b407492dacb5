//! Longest match by IPv6: a tree over the high 64 bits, and where prefixes are longer, a second one over the low ones.

use super::Ipv6Prefix;
use super::search::{Interval, NONE, Sweep, Tree32, Tree64, flatten};
use std::net::Ipv6Addr;

/// Marks a value of the high tree as an index into `lows`.
const LOW: u32 = 1 << 31;
/// Up to so many starts a sorted list takes less room than a tree and is as fast.
const SMALL: usize = 32;

/// IPv6 prefixes, all different, and the values they lead to.
#[derive(Debug)]
pub(super) struct Ipv6Map {
    high: High,
    lows: Vec<Low>,
    /// Starts and values of the small low maps, one behind the other.
    starts: Vec<u64>,
    values: Vec<u32>,
    trees: Vec<Tree64>,
}

/// The tree over the high 64 bits. The rules of one operator mostly start within 2^32 steps of some size: then keys of
/// 32 bits do, and the leaves take two thirds of the room.
#[derive(Debug)]
enum High {
    /// Keys are the steps of 2^shift from `base` on.
    Narrow {
        shift: u32,
        base: u64,
        tree: Tree32,
    },
    Wide(Tree64),
}

impl High {
    fn new(starts: Vec<(u64, u32)>) -> Self {
        // The first start is 0 and stands for what is below the second.
        let all = starts.iter().skip(1).fold(0, |all, &(start, _)| all | start);
        let shift = all.trailing_zeros().min(63);
        let first = starts.get(1).map_or(0, |&(start, _)| start >> shift);
        let base = first.saturating_sub(1);
        let last = starts.last().map_or(0, |&(start, _)| start >> shift);
        // The greatest key is that of all that is further away.
        if first == 0 && starts.len() > 1 || last - base >= u64::from(u32::MAX) {
            return High::Wide(Tree64::new(starts));
        }
        let key = |start: u64| ((start >> shift).saturating_sub(base)) as u32;
        High::Narrow { shift, base, tree: Tree32::new(starts.into_iter().map(|(start, v)| (key(start), v)).collect()) }
    }

    #[inline(always)]
    fn get(&self, x: u64) -> u32 {
        match self {
            High::Narrow { shift, base, tree } => {
                tree.get((x >> shift).saturating_sub(*base).min(u64::from(u32::MAX)) as u32)
            }
            High::Wide(tree) => tree.get(x),
        }
    }

    fn heap_size(&self) -> usize {
        match self {
            High::Narrow { tree, .. } => tree.heap_size(),
            High::Wide(tree) => tree.heap_size(),
        }
    }
}

/// What follows in the low 64 bits of one high half.
#[derive(Clone, Copy, Debug)]
enum Low {
    List { start: u32, len: u32 },
    Tree(u32),
}

impl Ipv6Map {
    /// Values are below 2^31.
    pub(super) fn new(prefixes: impl IntoIterator<Item = (Ipv6Prefix, u32)>) -> Self {
        let mut prefixes: Vec<(Ipv6Prefix, u32)> = prefixes.into_iter().collect();
        // By address, then the shorter first: outer before inner.
        prefixes.sort_unstable_by_key(|&(prefix, _)| prefix);
        let mut map = Ipv6Map {
            high: High::new(vec![(0, NONE)]),
            lows: Vec::new(),
            starts: Vec::new(),
            values: Vec::new(),
            trees: Vec::new(),
        };
        let mut sweep: Sweep<u64> = Sweep::new(NONE);
        let long_in = |prefix: &Ipv6Prefix| (prefix.prefix_len() > 64).then(|| high(prefix.addr()));
        for group in prefixes.chunk_by(|(a, _), (b, _)| long_in(a).is_some() && long_in(a) == long_in(b)) {
            let Some(&(prefix, value)) = group.first() else { continue };
            let first = high(prefix.addr());
            sweep.advance(first);
            if prefix.prefix_len() <= 64 {
                sweep.enter((first, high(prefix.last_addr()), value));
            } else {
                let low = |&(prefix, value): &(Ipv6Prefix, u32)| -> Interval<u64> {
                    (u128::from(prefix.addr()) as u64, u128::from(prefix.last_addr()) as u64, value)
                };
                let low = map.add_low(flatten(sweep.value(), group.iter().map(low)));
                sweep.enter((first, first, LOW | low));
            }
        }
        map.high = High::new(sweep.finish());
        map
    }

    fn add_low(&mut self, starts: Vec<(u64, u32)>) -> u32 {
        if starts.len() <= SMALL {
            self.lows.push(Low::List { start: self.starts.len() as u32, len: starts.len() as u32 });
            self.starts.extend(starts.iter().map(|&(start, _)| start));
            self.values.extend(starts.iter().map(|&(_, value)| value));
        } else {
            self.lows.push(Low::Tree(self.trees.len() as u32));
            self.trees.push(Tree64::new(starts));
        }
        self.lows.len() as u32 - 1
    }

    /// The value of the longest prefix that covers `addr`. Where none does, `NONE` or the value of another prefix: the
    /// caller has to ask that prefix.
    #[inline(always)]
    pub(super) fn get(&self, addr: Ipv6Addr) -> u32 {
        let value = self.high.get(high(addr));
        if value & LOW == 0 || value == NONE { value } else { self.in_low(value & !LOW, u128::from(addr) as u64) }
    }

    fn in_low(&self, low: u32, x: u64) -> u32 {
        match self.lows[low as usize] {
            Low::Tree(tree) => self.trees[tree as usize].get(x),
            Low::List { start, len } => {
                let (start, len) = (start as usize, len as usize);
                let above = self.starts[start..start + len].partition_point(|&key| key <= x);
                self.values[start + above - 1]
            }
        }
    }

    /// Octets on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.high.heap_size()
            + self.lows.capacity() * size_of::<Low>()
            + self.starts.capacity() * 8
            + self.values.capacity() * 4
            + self.trees.iter().map(|tree| size_of::<Tree64>() + tree.heap_size()).sum::<usize>()
    }
}

#[inline(always)]
fn high(addr: Ipv6Addr) -> u64 {
    (u128::from(addr) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn slow(prefixes: &BTreeMap<Ipv6Prefix, u32>, addr: Ipv6Addr) -> u32 {
        (prefixes.iter().filter(|(prefix, _)| prefix.contains(addr)))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map_or(NONE, |(_, &value)| value)
    }

    /// Few different octets, lengths from 0 to 128: prefixes nest, touch, and reach both ends.
    fn prefix() -> impl Strategy<Value = Ipv6Prefix> {
        let octet = prop::sample::select(vec![0u8, 0, 0, 1, 0x80, 0xff, 0xff]);
        (prop::array::uniform16(octet), 0u8..=128).prop_map(|(octets, len)| Ipv6Prefix::truncating(octets.into(), len))
    }

    fn check(prefixes: &BTreeMap<Ipv6Prefix, u32>, probes: impl Iterator<Item = u128>) {
        let map = Ipv6Map::new(prefixes.iter().map(|(&prefix, &value)| (prefix, value)));
        for addr in probes.map(Ipv6Addr::from) {
            let found = map.get(addr);
            let covers = prefixes.iter().any(|(prefix, &value)| value == found && prefix.contains(addr));
            let found = if covers { found } else { NONE };
            assert_eq!(found, slow(prefixes, addr), "{addr} in {prefixes:?}");
        }
    }

    /// First and last address of each prefix, and their neighbours.
    fn edges(prefixes: &BTreeMap<Ipv6Prefix, u32>) -> Vec<u128> {
        let ends = |p: &Ipv6Prefix| [u128::from(p.addr()), u128::from(p.last_addr())];
        let mut edges: Vec<u128> = prefixes.keys().flat_map(ends).collect();
        edges.extend([0, u128::MAX]);
        edges.iter().flat_map(|&edge| [edge, edge.wrapping_sub(1), edge.wrapping_add(1)]).collect()
    }

    #[test]
    fn nothing_and_everything() {
        check(&BTreeMap::new(), [0, 1, u128::MAX].into_iter());
        let all = BTreeMap::from([("::/0".parse().unwrap(), 5)]);
        check(&all, edges(&all).into_iter());
    }

    /// More low starts than a list holds, beside a /64 and under a /0.
    #[test]
    fn many_prefixes_in_one_high_half() {
        for n in [1, 15, 16, 17, 33, 300] {
            let mut prefixes: BTreeMap<Ipv6Prefix, u32> =
                (0..n).map(|i| (Ipv6Prefix::truncating((i << 64 | i << 40).into(), 88), i as u32)).collect();
            prefixes
                .extend((0..n).map(|i| (Ipv6Prefix::truncating((7 << 64 | i << 9).into(), 119), 100_000 + i as u32)));
            prefixes.insert("::/0".parse().unwrap(), 200_000);
            prefixes.insert("0:0:0:7::/64".parse().unwrap(), 200_001);
            prefixes.insert("0:0:0:7:ffff:ffff:ffff:ffff/128".parse().unwrap(), 200_002);
            check(&prefixes, edges(&prefixes).into_iter());
        }
    }

    proptest! {
        #[test]
        fn longest_match(
            prefixes in prop::collection::btree_set(prefix(), 0..60),
            probes in prop::collection::vec(any::<u128>(), 20),
        ) {
            let prefixes = prefixes.into_iter().zip(0..).collect();
            check(&prefixes, edges(&prefixes).into_iter().chain(probes));
        }
    }
}
