//! What each port of the set is used for: free, one inside endpoint's, or shared by flows.
use super::InsideKey;
use super::keyed::KeyedHash;
use super::pool::{Class, PortIndex, PortPool};
use crate::map::port_set::PortSet;

/// What a port is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use<K> {
    Free,
    /// Endpoint-independent: all flows of this inside endpoint (RFC 4787 REQ-1).
    Own(K),
    /// Flows of any endpoints, each towards another destination (RFC 7857 §3).
    Shared,
}

struct Port<K> {
    used: Use<K>,
    /// How many, and whether it is `PINNED`.
    flows: u32,
    /// Of an own port: the next of its bucket, plus one. Of a shared one: its place among them.
    link: u32,
}

/// Among the flows of a port: it stays in use without any.
const PINNED: u32 = 1 << 31;

pub(super) struct Ports<K> {
    set: PortSet,
    pool: PortPool,
    hash: KeyedHash,
    ports: Vec<Port<K>>,
    /// Own ports by inside endpoint: index plus one, 0 for none. A power of two of them.
    buckets: Vec<u32>,
    shared: Vec<PortIndex>,
}

impl<K: InsideKey> Ports<K> {
    pub(super) fn new(set: PortSet, pool: PortPool, seed: u64) -> Ports<K> {
        let count = set.count() as usize;
        Ports {
            set,
            pool,
            hash: KeyedHash::new(seed),
            ports: (0..count).map(|_| Port { used: Use::Free, flows: 0, link: 0 }).collect(),
            buckets: vec![0; count.next_power_of_two()],
            shared: Vec::with_capacity(count),
        }
    }

    pub(super) fn set(&self) -> PortSet {
        self.set
    }

    pub(super) fn capacity(&self) -> usize {
        self.pool.capacity()
    }

    pub(super) fn free(&self) -> usize {
        self.pool.len()
    }

    pub(super) fn pick(&self, class: Class, like: u16, draw: u64) -> Option<PortIndex> {
        self.pool.pick(class, like, draw)
    }

    /// Shared ports, in no order.
    pub(super) fn shared(&self) -> &[PortIndex] {
        &self.shared
    }

    pub(super) fn port(&self, index: PortIndex) -> Option<u16> {
        self.set.nth(u32::from(index))
    }

    #[inline]
    pub(super) fn index(&self, port: u16) -> Option<PortIndex> {
        self.set.index_of(port).map(|index| index as PortIndex)
    }

    #[inline]
    pub(super) fn used(&self, index: PortIndex) -> Use<K> {
        self.ports[usize::from(index)].used
    }

    #[inline]
    pub(super) fn flows(&self, index: PortIndex) -> u32 {
        self.ports[usize::from(index)].flows & !PINNED
    }

    #[inline]
    pub(super) fn is_pinned(&self, index: PortIndex) -> bool {
        self.ports[usize::from(index)].flows & PINNED != 0
    }

    /// The endpoint-independent port of an inside endpoint; the pinned one before another that still has flows.
    pub(super) fn of_inside(&self, inside: &K) -> Option<PortIndex> {
        let mut next = self.buckets[self.bucket(inside)];
        while next != 0 {
            let index = (next - 1) as PortIndex;
            let port = &self.ports[usize::from(index)];
            if port.used == Use::Own(*inside) {
                return Some(index);
            }
            next = port.link;
        }
        None
    }

    /// A flow more on a port; takes a free one for `used`. `false`, and nothing changed, where the port is used
    /// otherwise.
    pub(super) fn add_flow(&mut self, index: PortIndex, used: Use<K>) -> bool {
        let found = self.used(index);
        if found == Use::Free {
            if used == Use::Free || !self.pool.take(index) {
                return false;
            }
            let link = match used {
                Use::Own(inside) => {
                    let bucket = self.bucket(&inside);
                    std::mem::replace(&mut self.buckets[bucket], u32::from(index) + 1)
                }
                _ => {
                    self.shared.push(index);
                    self.shared.len() as u32 - 1
                }
            };
            self.ports[usize::from(index)] = Port { used, flows: 1, link };
            return true;
        }
        if found != used {
            return false;
        }
        self.ports[usize::from(index)].flows += 1;
        true
    }

    /// A flow less on a port; the last one frees it.
    pub(super) fn remove_flow(&mut self, index: PortIndex) {
        let flows = &mut self.ports[usize::from(index)].flows;
        *flows = *flows & PINNED | (*flows & !PINNED).saturating_sub(1);
        self.free_if_unused(index);
    }

    /// Keeps a port for an inside endpoint, with flows or without. `false`, and nothing changed, where it is in use
    /// otherwise.
    pub(super) fn pin(&mut self, index: PortIndex, inside: K) -> bool {
        match self.used(index) {
            Use::Free if self.add_flow(index, Use::Own(inside)) => self.ports[usize::from(index)].flows = PINNED,
            Use::Own(own) if own == inside => {
                // To the head of its bucket, where it is found before another port of this endpoint.
                let link = self.ports[usize::from(index)].link;
                self.unchain(&inside, index, link);
                let bucket = self.bucket(&inside);
                let rest = std::mem::replace(&mut self.buckets[bucket], u32::from(index) + 1);
                let port = &mut self.ports[usize::from(index)];
                port.link = rest;
                port.flows |= PINNED;
            }
            _ => return false,
        }
        true
    }

    /// The inverse of `pin`; a port without flows is free then.
    pub(super) fn unpin(&mut self, index: PortIndex) {
        self.ports[usize::from(index)].flows &= !PINNED;
        self.free_if_unused(index);
    }

    fn free_if_unused(&mut self, index: PortIndex) {
        let port = &mut self.ports[usize::from(index)];
        if port.flows > 0 {
            return;
        }
        let (used, link) = (std::mem::replace(&mut port.used, Use::Free), port.link);
        match used {
            Use::Free => return,
            Use::Own(inside) => self.unchain(&inside, index, link),
            Use::Shared => {
                self.shared.swap_remove(link as usize);
                if let Some(&moved) = self.shared.get(link as usize) {
                    self.ports[usize::from(moved)].link = link;
                }
            }
        }
        self.pool.give(index);
    }

    fn unchain(&mut self, inside: &K, index: PortIndex, rest: u32) {
        let this = u32::from(index) + 1;
        let bucket = self.bucket(inside);
        let mut at = self.buckets[bucket];
        if at == this {
            self.buckets[bucket] = rest;
            return;
        }
        while at != 0 {
            let link = &mut self.ports[(at - 1) as usize].link;
            if *link == this {
                *link = rest;
                return;
            }
            at = *link;
        }
    }

    #[inline]
    fn bucket(&self, inside: &K) -> usize {
        self.hash.hash(inside) as usize & (self.buckets.len() - 1)
    }
}
