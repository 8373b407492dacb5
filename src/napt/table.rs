//! The mappings of one protocol: found by inside key and by outside port, ended in the order in which they idle.
//!
//! A mapping's number never changes while it lives. A full set costs 32 octets a mapping and 12 a port
//! beside them, all reserved at the start: a whole address 3 MB a protocol, a set of 252 ports 11 KB.
use std::num::NonZeroU32;

use super::clock::{Tick, Ticks};
use super::keyed::KeyedHash;
use super::pool::{Class, PortIndex, PortPool};
use super::tcp::TcpState;
use super::{Inside, InsideKey};
use crate::map::port_set::PortSet;

/// The number of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(NonZeroU32);

impl Id {
    fn of_slot(slot: usize) -> Option<Id> {
        u32::try_from(slot + 1).ok().and_then(NonZeroU32::new).map(Id)
    }

    #[inline]
    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Which idle time a mapping has; a list for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Idle {
    /// UDP, ICMP, and TCP that is opening or closing.
    Short = 0,
    /// TCP established.
    Long = 1,
}

/// One mapping.
pub(super) struct Mapping<K> {
    pub(super) inside: K,
    /// 0 in a vacant slot.
    pub(super) port: u16,
    tcp: TcpState,
    idle: Idle,
    /// The next mapping of the bucket, or the next free slot.
    chain: Option<Id>,
    older: Option<Id>,
    newer: Option<Id>,
    /// When its idle time began.
    since: Tick,
}

// Two to a cache line: what a lookup finds is all that a refresh needs.
const _: () = assert!(size_of::<Mapping<Inside>>() == 32);

/// Mappings of one idle time, the longest idle first.
#[derive(Clone, Copy)]
struct List {
    oldest: Option<Id>,
    newest: Option<Id>,
    idle: Ticks,
}

pub(super) struct Table<K> {
    ports: PortSet,
    pool: PortPool,
    hash: KeyedHash,
    slots: Vec<Mapping<K>>,
    vacant: Option<Id>,
    live: usize,
    /// By hash, a power of two of them.
    buckets: Vec<Option<Id>>,
    /// By index of the outside port.
    by_port: Vec<Option<Id>>,
    lists: [List; 2],
}

impl<K: InsideKey> Table<K> {
    /// `idle`: the short and the long idle time.
    pub(super) fn new(ports: PortSet, pool: PortPool, idle: [Ticks; 2], seed: u64) -> Table<K> {
        Table {
            ports,
            hash: KeyedHash::new(seed),
            slots: Vec::with_capacity(pool.capacity()),
            vacant: None,
            live: 0,
            buckets: vec![None; pool.capacity().max(1).next_power_of_two()],
            by_port: vec![None; ports.count() as usize],
            lists: idle.map(|idle| List { oldest: None, newest: None, idle }),
            pool,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn capacity(&self) -> usize {
        self.pool.capacity()
    }

    #[inline]
    pub(super) fn get(&self, id: Id) -> Option<&Mapping<K>> {
        self.slots.get(id.slot())
    }

    /// The mapping of an inside key, expired or not.
    #[inline]
    pub(super) fn find(&self, inside: &K) -> Option<(Id, &Mapping<K>)> {
        let mut next = self.buckets[self.bucket(inside)];
        while let Some(id) = next {
            let mapping = &self.slots[id.slot()];
            if mapping.inside == *inside {
                return Some((id, mapping));
            }
            next = mapping.chain;
        }
        None
    }

    /// The mapping that has a port, expired or not.
    #[inline]
    pub(super) fn at_port(&self, port: u16) -> Option<(Id, &Mapping<K>)> {
        let index = self.ports.index_of(port)?;
        let id = (*self.by_port.get(index as usize)?)?;
        Some((id, &self.slots[id.slot()]))
    }

    /// Whether a mapping's idle time is over at `now`.
    #[inline]
    pub(super) fn is_expired(&self, mapping: &Mapping<K>, now: Tick) -> bool {
        self.deadline(mapping) <= now
    }

    #[inline]
    fn deadline(&self, mapping: &Mapping<K>) -> Tick {
        mapping.since.after(self.lists[mapping.idle as usize].idle)
    }

    /// A port for a new mapping: a free one, else that of a mapping which has expired and waits for its sweep.
    pub(super) fn choose(&self, class: Class, draw: u64, now: Tick) -> Option<PortIndex> {
        self.pool.pick(class, draw).or_else(|| {
            let expired = |list: &List| {
                let mapping = &self.slots[list.oldest?.slot()];
                if self.is_expired(mapping, now) { self.index(mapping.port) } else { None }
            };
            self.lists.iter().find_map(expired)
        })
    }

    /// The port with this index.
    pub(super) fn port(&self, index: PortIndex) -> Option<u16> {
        self.ports.nth(u32::from(index))
    }

    fn index(&self, port: u16) -> Option<PortIndex> {
        self.ports.index_of(port).map(|index| index as PortIndex)
    }

    /// A new mapping. `None`, and nothing changed, where the key has one already or the port is not to be had.
    pub(super) fn insert(&mut self, inside: K, index: PortIndex, since: Tick, now: Tick) -> Option<Id> {
        let port = self.port(index)?;
        if self.find(&inside).is_some() {
            return None;
        }
        if let Some(holder) = self.by_port[usize::from(index)] {
            if !self.is_expired(&self.slots[holder.slot()], now) {
                return None;
            }
            self.end(holder);
        }
        if !self.pool.take(index) {
            return None;
        }
        let bucket = self.bucket(&inside);
        let mapping = Mapping {
            inside,
            port,
            tcp: TcpState::default(),
            idle: Idle::Short,
            chain: self.buckets[bucket],
            older: None,
            newer: None,
            since,
        };
        let id = match self.vacant {
            Some(id) => {
                let slot = &mut self.slots[id.slot()];
                self.vacant = slot.chain;
                *slot = mapping;
                id
            }
            None => {
                let id = Id::of_slot(self.slots.len())?;
                self.slots.push(mapping);
                id
            }
        };
        self.live += 1;
        self.buckets[bucket] = Some(id);
        self.by_port[usize::from(index)] = Some(id);
        self.append(id);
        Some(id)
    }

    /// Starts the idle time of a mapping afresh.
    #[inline]
    pub(super) fn refresh(&mut self, id: Id, idle: Idle, since: Tick) {
        let mapping = &self.slots[id.slot()];
        if mapping.since == since && mapping.idle == idle {
            return;
        }
        self.requeue(id, idle, since);
    }

    #[inline(never)]
    fn requeue(&mut self, id: Id, idle: Idle, since: Tick) {
        self.unlink(id);
        let mapping = &mut self.slots[id.slot()];
        mapping.since = since;
        mapping.idle = idle;
        self.append(id);
    }

    #[inline]
    pub(super) fn tcp(&self, id: Id) -> TcpState {
        self.slots[id.slot()].tcp
    }

    #[inline]
    pub(super) fn set_tcp(&mut self, id: Id, tcp: TcpState) {
        self.slots[id.slot()].tcp = tcp;
    }

    /// Ends mappings that have expired, at most `budget`; how many it ended.
    pub(super) fn sweep(&mut self, now: Tick, budget: usize) -> usize {
        let mut ended = 0;
        for list in 0..self.lists.len() {
            while ended < budget
                && let Some(id) = self.lists[list].oldest
                && self.is_expired(&self.slots[id.slot()], now)
            {
                self.end(id);
                ended += 1;
            }
        }
        ended
    }

    /// When the next mapping expires.
    pub(super) fn next_expiry(&self) -> Option<Tick> {
        self.lists.iter().filter_map(|list| Some(self.deadline(&self.slots[list.oldest?.slot()]))).min()
    }

    fn end(&mut self, id: Id) {
        self.unlink(id);
        let mapping = &self.slots[id.slot()];
        let (port, rest) = (mapping.port, mapping.chain);
        let bucket = self.bucket(&mapping.inside);
        if self.buckets[bucket] == Some(id) {
            self.buckets[bucket] = rest;
        } else {
            let mut next = self.buckets[bucket];
            while let Some(before) = next {
                let link = &mut self.slots[before.slot()].chain;
                if *link == Some(id) {
                    *link = rest;
                    break;
                }
                next = *link;
            }
        }
        if let Some(index) = self.index(port) {
            self.by_port[usize::from(index)] = None;
            self.pool.give(index);
        }
        let mapping = &mut self.slots[id.slot()];
        mapping.port = 0;
        mapping.chain = self.vacant;
        self.vacant = Some(id);
        self.live -= 1;
    }

    #[inline]
    fn bucket(&self, inside: &K) -> usize {
        self.hash.hash(inside) as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn append(&mut self, id: Id) {
        let list = &mut self.lists[self.slots[id.slot()].idle as usize];
        let newest = list.newest.replace(id);
        match newest {
            Some(before) => self.slots[before.slot()].newer = Some(id),
            None => list.oldest = Some(id),
        }
        let mapping = &mut self.slots[id.slot()];
        mapping.older = newest;
        mapping.newer = None;
    }

    #[inline]
    fn unlink(&mut self, id: Id) {
        let mapping = &self.slots[id.slot()];
        let (older, newer) = (mapping.older, mapping.newer);
        let list = &mut self.lists[mapping.idle as usize];
        match older {
            Some(older) => self.slots[older.slot()].newer = newer,
            None => list.oldest = newer,
        }
        match newer {
            Some(newer) => self.slots[newer.slot()].older = older,
            None => list.newest = older,
        }
    }
}
