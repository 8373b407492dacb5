//! How many flows there are of a kind, in O(1) whoever opens how many: from a port to an address, which is what
//! address-dependent filtering asks, and on shared ports to a remote endpoint, which tells whether one is left for it.
use std::net::Ipv4Addr;

use super::Remote;
use super::keyed::KeyedHash;

/// A kind, and how many flows are of it; 0 in an empty cell.
#[derive(Clone, Copy)]
struct Cell {
    key: u64,
    flows: u32,
}

/// From this port to any port of this address.
#[inline]
pub(super) fn to_address(port: u16, addr: Ipv4Addr) -> u64 {
    u64::from(addr.to_bits()) << 16 | u64::from(port)
}

/// From any port to this endpoint.
#[inline]
pub(super) fn to_remote(remote: Remote) -> u64 {
    to_address(remote.port, remote.addr)
}

/// Open addressing at most half full, so that a probe ends soon.
pub(super) struct Counts {
    /// Keys and counts apart: both are plain numbers, so that the kernel's zero pages serve until they are written.
    keys: Vec<u64>,
    flows: Vec<u32>,
    hash: KeyedHash,
}

impl Counts {
    /// Room for `limit` flows; 0 for none.
    pub(super) fn new(limit: usize, seed: u64) -> Counts {
        let cells = if limit == 0 { 0 } else { (limit * 2).next_power_of_two() };
        Counts { keys: vec![0; cells], flows: vec![0; cells], hash: KeyedHash::new(seed) }
    }

    /// Flows of this kind.
    pub(super) fn count(&self, key: u64) -> u32 {
        if self.keys.is_empty() { 0 } else { self.cell(self.find(key)).flows }
    }

    /// One flow more.
    pub(super) fn add(&mut self, key: u64) {
        if self.keys.is_empty() {
            return;
        }
        let at = self.find(key);
        self.keys[at] = key;
        self.flows[at] += 1;
    }

    /// One flow less.
    pub(super) fn remove(&mut self, key: u64) {
        if self.keys.is_empty() {
            return;
        }
        let at = self.find(key);
        match self.flows[at] {
            0 => {}
            1 => self.empty(at),
            flows => self.flows[at] = flows - 1,
        }
    }

    /// Whether these are the kinds that there are.
    #[cfg(debug_assertions)]
    pub(super) fn audit(&self, kinds: &std::collections::BTreeMap<u64, u32>) -> super::audit::Found {
        let wrong = kinds.iter().find(|(key, flows)| self.count(**key) != **flows);
        super::audit::ensure(wrong.is_none(), || format!("{wrong:?} is not what was counted"))?;
        let cells = self.flows.iter().filter(|flows| **flows > 0).count();
        super::audit::ensure(cells == kinds.len(), || format!("{cells} kinds, {} there are", kinds.len()))
    }

    fn cell(&self, at: usize) -> Cell {
        Cell { key: self.keys[at], flows: self.flows[at] }
    }

    fn home(&self, key: u64) -> usize {
        self.hash.hash(&key) as usize & (self.keys.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.keys.len() - 1)
    }

    /// The cell of this key, or the empty one where it would stand.
    fn find(&self, key: u64) -> usize {
        let mut at = self.home(key);
        loop {
            let cell = self.cell(at);
            if cell.flows == 0 || cell.key == key {
                return at;
            }
            at = self.after(at);
        }
    }

    /// Empties a cell and moves up what probed past it.
    fn empty(&mut self, mut hole: usize) {
        let mut at = hole;
        loop {
            at = self.after(at);
            let cell = self.cell(at);
            if cell.flows == 0 {
                break;
            }
            let distance = |from: usize| at.wrapping_sub(from) & (self.keys.len() - 1);
            if distance(self.home(cell.key)) >= distance(hole) {
                (self.keys[hole], self.flows[hole]) = (cell.key, cell.flows);
                hole = at;
            }
        }
        self.flows[hole] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_counts_as_a_map_does() {
        let mut counts = Counts::new(64, 9);
        let mut model = HashMap::<(u16, Ipv4Addr), u32>::new();
        let mut x = 1u64;
        for _ in 0..20_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (port, addr) = ((x >> 40) as u16 % 8, Ipv4Addr::from(0x0a00_0000 + (x >> 50) as u32 % 16));
            let live: u32 = model.values().sum();
            if x >> 63 == 0 && live < 64 {
                counts.add(to_address(port, addr));
                *model.entry((port, addr)).or_default() += 1;
            } else if let Some(n) = model.get_mut(&(port, addr)).filter(|n| **n > 0) {
                counts.remove(to_address(port, addr));
                *n -= 1;
            }
            for (key, n) in &model {
                assert_eq!(counts.count(to_address(key.0, key.1)), *n);
            }
        }
        assert!(model.len() > 100);
    }
}
