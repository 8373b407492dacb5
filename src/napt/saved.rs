//! Flows out of one process and into the next.
use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use super::change::ORDER;
use super::clock::Tick;
use super::explicit::{Allowed, Map, Origin, Peer};
use super::flow::{Flow, Was};
use super::ports::Use;
use super::requests::MOST;
use super::table::Table;
use super::tcp::{Marks, TcpState};
use super::{Inside, InsideKey, Napt, Protocol, Remote};

/// How long at most a flow is said to have idled or waited: a week, longer than which none idles unless a host has asked
/// for it.
const IDLE: Duration = Duration::from_secs(604_800);

/// A flow as it was when it was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedFlow<K = Inside> {
    /// TCP, UDP, or an echo identifier.
    pub protocol: Protocol,
    /// In the home.
    pub inside: K,
    /// Outside port.
    pub port: u16,
    /// Whom it is with; `None` for an echo identifier, and for nothing else.
    pub remote: Option<Remote>,
    /// Whether the outside port serves flows of other endpoints too.
    pub shared: bool,
    /// How far it is.
    pub state: SavedState,
    /// Since its idle time began.
    pub idle: Duration,
    /// Since when nobody has answered it; `None` where somebody has.
    pub waited: Option<Duration>,
}

/// A mapping that a host had asked for, when it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMapping<K = Inside> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// In the home.
    pub inside: K,
    /// Outside port.
    pub port: u16,
    /// The one remote endpoint, of a PEER mapping (RFC 6887 §12).
    pub remote: Option<Remote>,
    /// Who had asked; not the configuration.
    pub origin: Origin,
    /// For how long yet.
    pub lifetime: Duration,
    /// Nobody else may send; empty: anybody may. Of a PEER mapping empty.
    pub allowed: Vec<Allowed>,
}

/// What is known of a connection: what has been seen of both sides, and four sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    tcp: TcpState,
    marks: Marks,
}

impl SavedState {
    /// From the numbers of `numbers`; `None` where the first has bits without a meaning.
    pub fn new(numbers: [u32; 5]) -> Option<SavedState> {
        let [bits, marks @ ..] = numbers;
        Some(SavedState { tcp: TcpState::from_bits(bits)?, marks: Marks::from_numbers(marks) })
    }

    /// What has been seen as bits, and the sequence numbers.
    pub fn numbers(&self) -> [u32; 5] {
        let [a, b, c, d] = self.marks.numbers();
        [self.tcp.bits(), a, b, c, d]
    }
}

/// What became of saved flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Live again.
    pub taken: usize,
    /// Their idle time ended meanwhile.
    pub expired: usize,
    /// Their port is not of the set or serves others, their ends have a flow already, there is no room, or they make no
    /// sense.
    pub refused: usize,
    /// Of what hosts had asked for.
    pub mappings: usize,
}

impl<K: InsideKey> Napt<K> {
    /// Shows every flow that has not expired by `now`.
    pub fn save(&self, now: Duration, each: &mut dyn FnMut(&SavedFlow<K>)) {
        for table in &self.tables {
            for idle in ORDER {
                let lives = |flow: &Flow<K>| !table.flows.is_expired(flow, Tick::reached(now));
                let live = table.flows.idling(idle).filter(|(_, flow)| lives(flow));
                live.for_each(|(_, flow)| each(&table.saved(flow, now)));
            }
        }
    }

    /// What hosts have asked for and has not expired by `now`.
    pub fn save_mappings(&self, now: Duration) -> Vec<SavedMapping<K>> {
        let left = |until: Tick| until.time().saturating_sub(now);
        let maps = self.explicit.maps.iter().filter_map(|(&(protocol, port), map)| {
            let Map { inside, origin, until, ref allowed } = *map;
            let (lifetime, allowed) = (left(until?), allowed.clone());
            Some(SavedMapping { protocol, inside, port, remote: None, origin, lifetime, allowed })
        });
        let peers = self.explicit.peers.iter().map(|(&(protocol, _), peer)| {
            let Peer { inside, remote, port, origin, until } = *peer;
            let (remote, lifetime, allowed) = (Some(remote), left(until), Vec::new());
            SavedMapping { protocol, inside, port, remote, origin, lifetime, allowed }
        });
        maps.chain(peers).filter(|mapping| !mapping.lifetime.is_zero()).collect()
    }

    /// Flows and mappings that there can be at most.
    pub fn most_saved(&self) -> usize {
        self.tables.iter().map(|table| table.flows.limit()).sum::<usize>() + MOST
    }

    /// Takes flows that were saved `away` ago; they go on idling where they were, plus that time, and what hosts had
    /// asked for lasts as long as it would have. Their outside address was this NAPT's: who calls has compared it.
    /// Everything else is checked one by one.
    ///
    /// For a NAPT without flows; another one takes none. `now` is to be a week at least, the longest idle time, so that
    /// they can have begun to idle before. The slice is put into another order. Not for the packet path.
    pub fn restore(
        &mut self,
        flows: &mut [SavedFlow<K>],
        mappings: &[SavedMapping<K>],
        away: Duration,
        now: Duration,
    ) -> Restored {
        if self.tables.iter().any(|table| table.flows.len() > 0) {
            return Restored { refused: flows.len(), ..Restored::default() };
        }
        let (clock, now) = (now, Tick::reached(now));
        let left = |mapping: &SavedMapping<K>| mapping.lifetime.checked_sub(away).filter(|left| !left.is_zero());
        let sound = |m: &&SavedMapping<K>| m.origin != Origin::Static && m.protocol != Protocol::Icmp;
        let of_kind = |peer: bool| mappings.iter().filter(sound).filter(move |m| m.remote.is_some() == peer);
        let asked = of_kind(true).filter(|m| left(m).is_some());
        let held: HashSet<_> = asked.map(|m| (m.protocol, m.inside, m.remote, m.port)).collect();
        let mut restored = Restored::default();
        for mapping in of_kind(false) {
            let SavedMapping { protocol, inside, port, origin, ref allowed, .. } = *mapping;
            let Some(left) = left(mapping) else { continue };
            let table = &mut self.tables[protocol as usize];
            if table.ports.of_inside(&inside).is_none() && port > 0 && table.pin_unnoted(port, inside) {
                let until = Some(Tick::starting(clock + left));
                self.explicit.set_map(protocol, port, Map { inside, origin, until, allowed: allowed.clone() });
                restored.mappings += 1;
            }
        }
        flows.sort_unstable_by_key(|flow| Reverse(flow.idle));
        // Rounded up as every beginning is: nothing ends early.
        let begin = |idle: Duration| Tick::starting(clock.saturating_sub(idle.saturating_add(away)));
        if let Some(first) = flows.first() {
            self.tables.iter_mut().for_each(|table| table.flows.begin_at(begin(first.idle)));
        }
        for flow in flows.iter() {
            let table = &mut self.tables[flow.protocol as usize];
            let Some(was) = flow.was(begin(flow.idle)) else {
                restored.refused += 1;
                continue;
            };
            let held = held.contains(&(flow.protocol, flow.inside, flow.remote, flow.port));
            if !held && table.flows.end(was.tcp.idle(), was.since) <= now {
                restored.expired += 1;
            } else if table.adopt(&was, flow.shared).is_some() {
                restored.taken += 1;
            } else {
                restored.refused += 1;
            }
        }
        // What idles waits at least as long.
        let waited = |flow: &SavedFlow<K>| flow.waited.unwrap_or_default().max(flow.idle);
        flows.sort_unstable_by_key(|flow| Reverse(waited(flow)));
        for flow in flows.iter() {
            let table = &mut self.tables[flow.protocol as usize];
            if let Some(remote) = flow.remote
                && let Some((id, found)) = table.flows.between(&flow.inside, remote)
                && found.port == flow.port
                && table.waits(found.tcp)
            {
                let before = begin(flow.idle).since(begin(waited(flow)));
                table.flows.put_waiting(id, u16::try_from(before).unwrap_or(u16::MAX));
            }
        }
        for mapping in of_kind(true) {
            let SavedMapping { protocol, inside, port, remote, origin, .. } = *mapping;
            let flows = &mut self.tables[protocol as usize].flows;
            if let (Some(left), Some(remote)) = (left(mapping), remote)
                && let Some((id, flow)) = flows.between(&inside, remote)
                && flow.port == port
                && !flows.is_held(flow)
            {
                flows.hold(id);
                let until = Tick::starting(clock + left);
                self.explicit.set_peer(protocol, id, Peer { inside, remote, port, origin, until });
                restored.mappings += 1;
            }
        }
        for table in &mut self.tables {
            self.explicit.of(table.protocol).for_each(|(port, inside)| _ = table.pin_unnoted(port, inside));
        }
        restored
    }
}

impl<K: InsideKey> SavedFlow<K> {
    fn was(&self, since: Tick) -> Option<Was<K>> {
        let SavedFlow { inside, port, state: SavedState { tcp, marks }, .. } = *self;
        let remote = match (self.protocol, self.remote) {
            (Protocol::Icmp, None) if tcp == TcpState::default() => Remote::ANYBODY,
            (Protocol::Udp, Some(remote)) if tcp == TcpState::default() || tcp == TcpState::ANSWERED => remote,
            (Protocol::Tcp, Some(remote)) => remote,
            _ => return None,
        };
        Some(Was { inside, remote, port, tcp, marks, since })
    }
}

impl<K: InsideKey> Table<K> {
    fn saved(&self, flow: &Flow<K>, now: Duration) -> SavedFlow<K> {
        let echo = self.protocol == Protocol::Icmp;
        SavedFlow {
            protocol: self.protocol,
            inside: flow.inside,
            port: flow.port,
            remote: (!echo).then_some(flow.remote),
            shared: self.index(flow).is_some_and(|index| self.ports.used(index) == Use::Shared),
            state: SavedState { tcp: flow.tcp, marks: flow.marks },
            idle: now.saturating_sub(self.flows.since(flow).time()).min(IDLE),
            waited: self.flows.waited(flow, now).map(|waited| waited.min(IDLE)),
        }
    }
}
