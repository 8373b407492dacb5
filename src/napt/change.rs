//! Another address, port set or parameters while flows live: what still fits lives on, the rest ends at once.
use std::time::Duration;

use super::clock::Tick;
use super::events::{EventKind, Why};
use super::flow::{Flow, Idle, Was};
use super::ports::{Ports, Use};
use super::table::Table;
use super::{InsideKey, Napt};
use crate::map::port_set::PortSet;

/// What became of the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Flows that live on with their ports, states and idle times.
    pub kept: usize,
    /// Flows that ended: another outside address, a port that is no longer theirs, or no room.
    pub purged: usize,
}

impl std::ops::AddAssign for Replaced {
    fn add_assign(&mut self, other: Replaced) {
        self.kept += other.kept;
        self.purged += other.purged;
    }
}

impl<K: InsideKey> Napt<K> {
    /// Goes on with the address, ports and parameters of `next`, which is new and has no flow; afterwards `next` is what
    /// is to be dropped, off the data path. Nothing is allocated, but for
    /// what hosts have asked for.
    ///
    /// Where address, ports, filters and the number of flows stay, no flow is touched: idle times and sharing change at
    /// once, also for flows that idle already; forwards as `set_forwards` does it. Else flows whose outside address and
    /// port are still ours move, in time proportional to their number (`cargo bench --bench napt -- change`), and so do
    /// mappings that hosts have asked for. With less room than they need those go that are closing, then opening, then
    /// the rest, the longest idle first, and last what a host has asked to keep. The choice of
    /// ports goes on with the random numbers of before.
    pub fn replace(&mut self, next: &mut Napt<K>, now: Duration) -> Replaced {
        let now = Tick::reached(now);
        let same_address = self.addr == next.addr;
        let mut replaced = Replaced::default();
        if same_address && self.tables.iter().zip(&next.tables).all(|(table, next)| table.is_like(next)) {
            self.tables.iter_mut().zip(&mut next.tables).for_each(|(table, next)| table.retune(next));
            let before = self.live_at(now);
            self.go_on_with_forwards_of(next, now.time());
            replaced.kept = self.live_at(now);
            replaced.purged = before - replaced.kept;
            return replaced;
        }
        let asked = self.explicit.count();
        if same_address {
            next.take_over_maps(self);
        }
        for (old, new) in self.tables.iter().zip(&mut next.tables) {
            let kept = if same_address { new.take_over(old, now) } else { 0 };
            next.explicit.of(old.protocol).for_each(|(port, inside)| _ = new.pin(port, inside));
            replaced.kept += kept;
            replaced.purged += old.live(now) - kept;
        }
        next.take_over_peers(self, asked);
        for (old, new) in self.tables.iter_mut().zip(&mut next.tables) {
            old.log.now = now;
            old.note_change(new, same_address);
            std::mem::swap(&mut old.log, &mut new.log);
            new.log.move_to(next.addr);
        }
        std::mem::swap(self, next);
        std::mem::swap(&mut self.draws, &mut next.draws);
        replaced
    }

    /// Flows of all protocols that have not expired by `now`.
    pub fn live(&self, now: Duration) -> usize {
        self.live_at(Tick::reached(now))
    }

    fn live_at(&self, now: Tick) -> usize {
        self.tables.iter().map(|table| table.live(now)).sum()
    }
}

/// In the order in which they go where there is less room.
pub(super) const ORDER: [Idle; 4] = [Idle::Closing, Idle::Short, Idle::Established, Idle::Held];

impl<K: InsideKey> Table<K> {
    /// Whether the other table differs in idle times and sharing at most.
    fn is_like(&self, other: &Table<K>) -> bool {
        self.ports.set() == other.ports.set()
            && self.filter == other.filter
            && self.flows.limit() == other.flows.limit()
    }

    fn retune(&mut self, next: &mut Table<K>) {
        self.flows.set_idle_times(&next.flows);
        self.threshold = next.threshold;
        std::mem::swap(&mut self.sharing, &mut next.sharing);
    }

    fn live(&self, now: Tick) -> usize {
        let expired = |idle| self.flows.idling(idle).take_while(|(_, flow)| self.flows.is_expired(flow, now)).count();
        self.flows.len() - ORDER.map(expired).iter().sum::<usize>()
    }

    /// Takes the flows of `old` that fit here; how many. It is new, and of the same address.
    fn take_over(&mut self, old: &Table<K>, now: Tick) -> usize {
        self.begin_as(old);
        let (set, limit) = (self.ports.set(), self.flows.limit());
        let fits = |flow: &Flow<K>| !old.flows.is_expired(flow, now) && set.contains(flow.port);
        let all = || ORDER.into_iter().flat_map(|idle| old.flows.idling(idle)).filter(|(_, flow)| fits(flow));
        let surplus = if old.flows.len() > limit { all().count().saturating_sub(limit) } else { 0 };
        let mut kept = 0;
        for (_, flow) in all().skip(surplus) {
            let shared = old.index(flow).is_some_and(|index| old.ports.used(index) == Use::Shared);
            let adopted = self.adopt_unmet(&old.was(flow), shared);
            kept += usize::from(adopted.is_some());
            if let Some(id) = adopted.filter(|_| old.flows.is_held(flow)) {
                self.flows.hold(id);
            }
        }
        for (flow, waited) in old.flows.waiting() {
            if let Some((id, found)) = self.flows.between(&flow.inside, flow.remote)
                && found.port == flow.port
            {
                self.flows.put_waiting(id, waited);
            }
        }
        kept
    }

    /// Notes that no mapping of this table goes on.
    pub(super) fn note_end_of_all(&mut self) {
        let Table { ports, flows, log, .. } = self;
        if !log.is_on() {
            return;
        }
        for port in (0..ports.set().count()).filter_map(|n| ports.set().nth(n)) {
            if let Some(Use::Own(inside)) = ports.index(port).map(|index| ports.used(index)) {
                log.push(EventKind::Ended(Why::Purged), inside, port, None);
            }
        }
        let is_shared = |port| ports.index(port).is_some_and(|index| ports.used(index) == Use::Shared);
        for (_, flow) in flows.all().filter(|(_, flow)| is_shared(flow.port)) {
            log.push(EventKind::Ended(Why::Purged), flow.inside, flow.port, Some(flow.remote));
        }
    }

    /// Notes what of this table did not come along to `new`, and what is set there alone.
    fn note_change(&mut self, new: &Table<K>, same_address: bool) {
        if !self.log.is_on() {
            return;
        }
        let Table { ports, flows, log, .. } = self;
        let owner = |ports: &Ports<K>, port| match ports.index(port).map(|index| ports.used(index)) {
            Some(Use::Own(inside)) => Some(inside),
            _ => None,
        };
        let all = |set: PortSet| (0..set.count()).filter_map(move |n| set.nth(n));
        for port in all(ports.set()) {
            if let Some(inside) = owner(ports, port)
                && (!same_address || owner(&new.ports, port) != Some(inside))
            {
                log.push(EventKind::Ended(Why::Purged), inside, port, None);
            }
        }
        for (_, flow) in flows.all().filter(|(_, flow)| owner(ports, flow.port).is_none()) {
            let there = new.flows.at_port(flow.port, flow.remote);
            if !same_address || there.is_none_or(|(_, other)| other.inside != flow.inside) {
                log.push(EventKind::Ended(Why::Purged), flow.inside, flow.port, Some(flow.remote));
            }
        }
        log.move_to(new.log.addr());
        for port in all(new.ports.set()) {
            if let Some(inside) = owner(&new.ports, port)
                && (!same_address || owner(ports, port) != Some(inside))
            {
                log.push(EventKind::Made, inside, port, None);
            }
        }
    }

    fn was(&self, flow: &Flow<K>) -> Was<K> {
        let since = self.flows.since(flow);
        Was { inside: flow.inside, remote: flow.remote, port: flow.port, tcp: flow.tcp, marks: flow.marks, since }
    }
}
