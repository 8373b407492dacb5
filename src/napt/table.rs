//! One protocol: its flows, and the ports on which they stand.
//!
//! A whole address costs 1.5 MB a protocol beside its flows, a set of 252 ports 6 KB.
use std::net::Ipv4Addr;
use std::time::Duration;

use super::clock::{Tick, Ticks};
use super::counts::{Counts, to_address, to_remote};
use super::events::{EventKind, Log, Why};
use super::flow::{Flow, Flows, IDLES, Id, Idle, Was};
use super::params::Filter;
use super::pool::{PortIndex, PortPool};
use super::ports::{Ports, Use};
use super::scarcity::Choice;
use super::tcp::{Marks, TcpState};
use super::{InsideKey, Protocol, Refusal, Remote, SWEEP, Segment};
use crate::map::port_set::PortSet;

/// What a table is told.
pub(super) struct Settings {
    pub(super) addr: Ipv4Addr,
    pub(super) protocol: Protocol,
    pub(super) ports: PortSet,
    /// By `Idle`.
    pub(super) idle: [Ticks; IDLES],
    pub(super) limit: usize,
    pub(super) filter: Filter,
    /// Percent of ports that are to be free; `None`: flows never share.
    pub(super) threshold: Option<u8>,
    /// Destination ports whose flows share in any case.
    pub(super) sharing: Vec<u16>,
    pub(super) seed: u64,
}

pub(super) struct Table<K> {
    pub(super) addr: Ipv4Addr,
    pub(super) protocol: Protocol,
    pub(super) flows: Flows<K>,
    pub(super) ports: Ports<K>,
    pub(super) threshold: Option<u8>,
    pub(super) sharing: Vec<u16>,
    pub(super) filter: Filter,
    pub(super) permits: Counts,
    /// Flows on shared ports by remote endpoint.
    pub(super) sharers: Counts,
    pub(super) log: Log<K>,
    /// Counts insertions and endings: a choice holds until the next one.
    version: u64,
}

impl<K: InsideKey> Table<K> {
    pub(super) fn new(of: Settings) -> Table<K> {
        let ported = of.protocol != Protocol::Icmp;
        let pool = PortPool::new(&of.ports, ported, of.protocol == Protocol::Udp);
        let sharers = if ported { of.limit } else { 0 };
        let permits = if of.filter == Filter::AddressDependent { of.limit } else { 0 };
        Table {
            addr: of.addr,
            protocol: of.protocol,
            flows: Flows::new(of.limit, of.idle, of.seed),
            ports: Ports::new(of.ports, pool, of.seed),
            threshold: of.threshold,
            sharing: of.sharing,
            filter: of.filter,
            permits: Counts::new(permits, of.seed),
            sharers: Counts::new(sharers, of.seed),
            log: Log::new(of.addr, of.protocol),
            version: 0,
        }
    }

    /// Hashes and counts time as another table of this protocol does, whose flows it is to take; no choice of that one
    /// is good here. For a new table.
    pub(super) fn begin_as(&mut self, other: &Table<K>) {
        self.flows.begin_as(&other.flows);
        self.version = other.version.wrapping_add(1);
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether somebody who has no flow of its own may send to a port; `expired` is its flow that ought to be gone, and a
    /// pinned port may be `open` to it. Other flows that ought to be gone count for nothing either, as many as one
    /// `handle_timeout` would have ended.
    pub(super) fn admit(&self, port: u16, remote: Remote, expired: bool, open: bool, now: Tick) -> Result<K, Refusal> {
        let index = self.ports.index(port).ok_or(Refusal::NoMapping)?;
        let pinned = self.ports.is_pinned(index);
        let gone = |counts: &dyn Fn(&Flow<K>) -> bool| {
            let flows = self.flows.expired(now).take(SWEEP);
            let found = flows.filter(|(_, flow)| flow.port == port && counts(flow)).count() as u32;
            found.max(u32::from(expired))
        };
        if !pinned && self.ports.flows(index) <= gone(&|_| true) {
            return Err(Refusal::NoMapping);
        }
        let Use::Own(inside) = self.ports.used(index) else { return Err(Refusal::Filtered) };
        let admitted = match self.filter {
            _ if pinned => open,
            Filter::EndpointIndependent => true,
            Filter::AddressDependent => {
                let permits = self.permits.count(to_address(port, remote.addr));
                permits > gone(&|flow| flow.remote.addr == remote.addr)
            }
            Filter::AddressAndPortDependent => false,
        };
        if admitted { Ok(inside) } else { Err(Refusal::Filtered) }
    }

    /// A new flow as chosen. `None`, and nothing changed, where the choice is no longer good.
    pub(super) fn insert(&mut self, inside: K, remote: Remote, choice: Choice, now: Duration) -> Option<Id> {
        if choice.version != self.version {
            return None;
        }
        self.log.now = Tick::reached(now);
        if let Some(victim) = choice.victim {
            self.end(victim, Why::GaveWay);
            self.log.gave_way += 1;
        }
        let was_free = self.ports.used(choice.index) == Use::Free;
        let used = if choice.shared { Use::Shared } else { Use::Own(inside) };
        let port = self.ports.port(choice.index)?;
        if !self.ports.add_flow(choice.index, used) {
            return None;
        }
        let Some(id) = self.flows.insert(inside, remote, port, Tick::starting(now)) else {
            self.ports.remove_flow(choice.index);
            return None;
        };
        self.count_in(port, remote, used);
        if self.log.is_on() && (choice.shared || was_free) {
            self.log.push(EventKind::Made, inside, port, choice.shared.then_some(remote));
        }
        Some(id)
    }

    /// A flow as it was in another table, on an own port of its inside endpoint or on a shared one. `None`, and
    /// nothing changed, where its port is not of the set or serves others, where its ends have a flow, and where there
    /// is no room. An endpoint with a pinned port may have another one as well; what is pinned is then pinned again.
    pub(super) fn adopt(&mut self, was: &Was<K>, shared: bool) -> Option<Id> {
        let meets = self.flows.at_port(was.port, was.remote).or_else(|| self.flows.between(&was.inside, was.remote));
        if meets.is_some() { None } else { self.adopt_unmet(was, shared) }
    }

    /// The same for a flow whose ends have none here, as those of one table have not.
    pub(super) fn adopt_unmet(&mut self, was: &Was<K>, shared: bool) -> Option<Id> {
        let index = self.ports.index(was.port)?;
        let used = if shared { Use::Shared } else { Use::Own(was.inside) };
        if self.flows.is_full() || !self.ports.add_flow(index, used) {
            return None;
        }
        let Some(id) = self.flows.insert_as(was, self.is_for_one(index)) else {
            self.ports.remove_flow(index);
            return None;
        };
        self.count_in(was.port, was.remote, used);
        Some(id)
    }

    fn count_in(&mut self, port: u16, remote: Remote, used: Use<K>) {
        self.permits.add(to_address(port, remote.addr));
        if used == Use::Shared {
            self.sharers.add(to_remote(remote));
        }
        self.version += 1;
    }

    #[inline]
    fn refresh(&mut self, id: Id, idle: Idle, since: Tick) {
        let alone = idle == Idle::Closing && self.is_alone(id);
        self.flows.refresh(id, idle, since, alone);
    }

    /// Whether a flow's end frees a port of its own.
    fn is_alone(&self, id: Id) -> bool {
        let index = self.flows.get(id).and_then(|flow| self.index(flow));
        index.is_some_and(|index| self.is_for_one(index))
    }

    fn is_for_one(&self, index: PortIndex) -> bool {
        let ports = &self.ports;
        ports.flows(index) == 1 && !ports.is_pinned(index) && ports.used(index) != Use::Shared
    }

    /// What a packet from the home does to a flow; `fresh`: it is new, or had expired.
    #[inline]
    pub(super) fn outbound(&mut self, id: Id, segment: Option<&Segment>, fresh: bool, since: Tick) {
        if fresh {
            self.flows.begin_again(id);
        }
        let (before, mut marks) = if fresh { Default::default() } else { self.flows.tcp(id) };
        match (self.protocol, segment) {
            (Protocol::Tcp, Some(segment)) => {
                let after = before.outbound(&mut marks, segment);
                // Neither an RST (RFC 7857 §7.1) nor a state that stays refreshes.
                if fresh || !segment.flags.rst || after.idle() != before.idle() {
                    self.refresh(id, after.idle(), since);
                }
                self.flows.set_tcp(id, after, marks, is_half_open(after));
            }
            (Protocol::Tcp, None) => {
                self.refresh(id, before.idle(), since);
                self.flows.set_tcp(id, before, marks, is_half_open(before));
            }
            (Protocol::Udp, _) => {
                self.refresh(id, TcpState::default().idle(), since);
                self.flows.set_tcp(id, before, marks, before != TcpState::ANSWERED);
            }
            (Protocol::Icmp, _) => self.refresh(id, TcpState::default().idle(), since),
        }
    }

    /// What a packet from the Internet does to a flow. It refreshes established TCP alone: elsewhere a stranger could
    /// keep a flow alive (RFC 4787 REQ-6 leaves the choice).
    #[inline]
    pub(super) fn inbound(&mut self, id: Id, segment: Option<&Segment>, since: Tick) {
        let (before, mut marks) = self.flows.tcp(id);
        match (self.protocol, segment) {
            (Protocol::Tcp, Some(segment)) => {
                let after = before.inbound(&mut marks, segment);
                if after.is_established() && !segment.flags.rst || after.idle() != before.idle() {
                    self.refresh(id, after.idle(), since);
                }
                self.flows.set_tcp(id, after, marks, is_half_open(after));
            }
            (Protocol::Tcp, None) if before.is_established() => self.refresh(id, before.idle(), since),
            (Protocol::Udp, _) if before != TcpState::ANSWERED => {
                self.flows.set_tcp(id, TcpState::ANSWERED, Marks::default(), false);
            }
            _ => {}
        }
    }

    /// Ends flows that have expired, at most `budget`; how many it ended.
    pub(super) fn sweep(&mut self, now: Tick, budget: usize) -> usize {
        let mut ended = 0;
        self.log.now = now;
        while ended < budget
            && let Some((id, _)) = self.flows.next_expired(now)
        {
            self.end(id, Why::Expired);
            ended += 1;
        }
        ended
    }

    /// Makes a port an inside endpoint's whatever flows there are; `false`, and nothing changed, where flows of others
    /// are on it.
    pub(super) fn pin(&mut self, port: u16, inside: K) -> bool {
        let Some(index) = self.ports.index(port) else { return false };
        let was_free = self.ports.used(index) == Use::Free;
        let pinned = self.pin_unnoted(port, inside);
        if pinned && was_free {
            self.log.push(EventKind::Made, inside, port, None);
        }
        pinned
    }

    /// The same where it is no event: it was so before.
    pub(super) fn pin_unnoted(&mut self, port: u16, inside: K) -> bool {
        let pinned = self.ports.index(port).is_some_and(|index| self.ports.pin(index, inside));
        self.version += u64::from(pinned);
        pinned
    }

    /// The inverse: the last flow frees the port.
    pub(super) fn unpin(&mut self, port: u16, why: Why) {
        if let Some(index) = self.ports.index(port) {
            let used = self.ports.used(index);
            self.ports.unpin(index);
            self.version += 1;
            self.note_end(index, used, port, None, why);
        }
    }

    pub(super) fn end(&mut self, id: Id, why: Why) {
        let inside = self.flows.get(id).map(|flow| flow.inside);
        let (port, remote) = self.flows.remove(id);
        self.permits.remove(to_address(port, remote.addr));
        if let Some(index) = self.ports.index(port) {
            let used = self.ports.used(index);
            if used == Use::Shared {
                self.sharers.remove(to_remote(remote));
            }
            self.ports.remove_flow(index);
            self.note_end(index, used, port, inside.map(|inside| (inside, remote)), why);
        }
        self.version += 1;
    }

    /// A flow less on a port that was used so.
    fn note_end(&mut self, index: PortIndex, used: Use<K>, port: u16, flow: Option<(K, Remote)>, why: Why) {
        if !self.log.is_on() {
            return;
        }
        match (used, flow) {
            (Use::Shared, Some((inside, remote))) => {
                self.log.push(EventKind::Ended(why), inside, port, Some(remote));
            }
            (Use::Own(inside), _) if self.ports.used(index) == Use::Free => {
                self.log.push(EventKind::Ended(why), inside, port, None);
            }
            _ => {}
        }
    }

    /// Leaves a flow that was held to its idle time, which starts afresh; `false` where that is over.
    pub(super) fn release(&mut self, id: Id, since: Tick) -> bool {
        let lives = self.flows.release(id, since, self.is_alone(id));
        if self.waits(self.flows.tcp(id).0) {
            self.flows.put_waiting(id, 0);
        }
        lives
    }

    /// Keeps a flow whatever its idle time; one that is over begins anew.
    pub(super) fn hold(&mut self, id: Id, now: Tick) {
        if self.flows.get(id).is_some_and(|flow| self.flows.is_expired(flow, now)) {
            self.flows.set_tcp(id, TcpState::default(), Marks::default(), false);
        }
        self.flows.hold(id);
    }

    /// The port on which a flow stands.
    pub(super) fn index(&self, flow: &Flow<K>) -> Option<PortIndex> {
        self.ports.index(flow.port)
    }
}

impl<K: InsideKey> Table<K> {
    /// Whether nobody has answered a flow of this state.
    pub(super) fn waits(&self, tcp: TcpState) -> bool {
        match self.protocol {
            Protocol::Tcp => is_half_open(tcp),
            Protocol::Udp => tcp != TcpState::ANSWERED,
            Protocol::Icmp => false,
        }
    }
}

fn is_half_open(tcp: TcpState) -> bool {
    !tcp.is_established() && !tcp.is_closing()
}
