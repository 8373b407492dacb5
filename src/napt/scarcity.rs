//! Which port a new flow gets: an own one while there are many, a shared one while there are few, and where none fits
//! that of a flow which is over, or which nobody has answered.
use super::clock::{Tick, Ticks};
use super::counts::to_remote;
use super::flow::{Flow, Id, Idle};
use super::pool::{Class, PortIndex};
use super::ports::Use;
use super::table::Table;
use super::{InsideKey, Protocol, Refusal, Remote};

/// Shared ports drawn, of which the least loaded is taken.
const DRAWS: u64 = 8;
/// Shared ports looked at one after another where no draw fits.
const WALK: usize = 256;
/// Flows on a shared port before another free one is made shared.
const LOAD: u32 = 4;
/// Flows of a list looked at for one that may give way.
const LOOKED_AT: usize = 32;
/// A connection that both ends have closed gives way after this.
const CLOSED: Ticks = Ticks::seconds(1);
/// One that nobody has answered, after this.
const UNANSWERED: Ticks = Ticks::seconds(10);

/// The port of a new flow. It holds for one version of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) index: PortIndex,
    pub(super) shared: bool,
    /// The flow that ends for it.
    pub(super) victim: Option<Id>,
    pub(super) version: u64,
}

impl<K: InsideKey> Table<K> {
    /// Where a new flow would stand. Reads only.
    pub(super) fn choose(&self, inside: &K, remote: Remote, draw: u64, now: Tick) -> Result<Choice, Refusal> {
        if let Some(index) = self.ports.of_inside(inside) {
            return self.with_room(index, false, now);
        }
        let class = match self.protocol {
            Protocol::Tcp | Protocol::Udp if inside.port() < 1024 => Class::System,
            _ => Class::Dynamic,
        };
        let free = self.ports.pick(class, inside.port(), draw);
        let shares = self.shares(remote);
        if !shares && let Some(index) = free {
            return self.with_room(index, false, now);
        }
        if shares {
            // Each flow to `remote` has a shared port of its own.
            let left = (self.sharers.count(to_remote(remote)) as usize) < self.ports.shared().len();
            let drawn = if left { self.draw_shared(remote, draw) } else { None };
            if let Some((index, load)) = drawn
                && (load < LOAD || free.is_none())
            {
                return self.with_room(index, true, now);
            }
            let unused = free.or_else(|| if left { self.unused_shared(remote, draw) } else { None });
            if let Some(index) = unused {
                return self.with_room(index, true, now);
            }
        }
        let victim = self.port_victim(remote, shares, now);
        // Those at the heads of the lists may all be towards elsewhere: then a few ports by their flow to `remote`.
        let victim =
            victim.or_else(|| if shares && self.any_over(now) { self.over_on_shared(remote, draw, now) } else { None });
        let victim = victim.ok_or(Refusal::Exhausted)?;
        let index = self.flows.get(victim).and_then(|flow| self.index(flow)).ok_or(Refusal::Exhausted)?;
        let shared = self.ports.used(index) == Use::Shared && self.ports.flows(index) > 1 || shares;
        Ok(Choice { index, shared, victim: Some(victim), version: self.version() })
    }

    /// A new flow on a port that somebody names, if it may stand there: a free one, or a shared one.
    pub(super) fn suggested(&self, inside: &K, remote: Remote, port: u16) -> Option<Choice> {
        let index = self.ports.index(port).filter(|_| port != 0)?;
        let shared = match self.ports.used(index) {
            Use::Free => false,
            Use::Shared => (self.threshold.is_some() && self.is_unused(index, remote)).then_some(true)?,
            Use::Own(_) => return None,
        };
        let fits = self.ports.of_inside(inside).is_none() && !self.flows.is_full();
        fits.then_some(Choice { index, shared, victim: None, version: self.version() })
    }

    /// Whether a new inside endpoint towards this destination shares its port.
    fn shares(&self, remote: Remote) -> bool {
        self.threshold.is_some_and(|percent| {
            let few = self.ports.free() * 100 < self.ports.capacity() * usize::from(percent);
            few || self.sharing.contains(&remote.port)
        })
    }

    /// The least loaded of a few shared ports that have no flow with this remote endpoint.
    fn draw_shared(&self, remote: Remote, draw: u64) -> Option<(PortIndex, u32)> {
        let shared = self.ports.shared();
        let draws = (1..=DRAWS).filter_map(|n| shared.get(scale(mix(draw, n), shared.len())));
        draws
            .map(|&index| (index, self.ports.flows(index)))
            .filter(|(index, _)| self.is_unused(*index, remote))
            .min_by_key(|(_, load)| *load)
    }

    /// A shared port without a flow to this remote endpoint, out of a few.
    fn unused_shared(&self, remote: Remote, draw: u64) -> Option<PortIndex> {
        self.few_shared(draw).find(|index| self.is_unused(*index, remote))
    }

    /// Whether any flow is over at all: mostly none is while a flood is refused, and the walk over ports is spared.
    fn any_over(&self, now: Tick) -> bool {
        let waiting = || self.flows.waiting_longest(now, UNANSWERED).next().is_some();
        self.flows.next_expired(now).is_some()
            || self.closed(now).next().is_some()
            || self.protocol == Protocol::Tcp && waiting()
    }

    /// A flow to this remote endpoint that is over, on one of a few shared ports.
    fn over_on_shared(&self, remote: Remote, draw: u64, now: Tick) -> Option<Id> {
        let ports = self.few_shared(draw).filter_map(|index| self.ports.port(index));
        let mut flows = ports.filter_map(|port| self.flows.at_port(port, remote));
        flows.find(|(_, flow)| self.is_over(flow, now)).map(|(id, _)| id)
    }

    fn few_shared(&self, draw: u64) -> impl Iterator<Item = PortIndex> {
        let shared = self.ports.shared();
        let start = scale(mix(draw, 0), shared.len());
        shared.iter().cycle().skip(start).take(shared.len().min(WALK)).copied()
    }

    /// Whether a flow has expired, or may give way to a new one.
    fn is_over(&self, flow: &Flow<K>, now: Tick) -> bool {
        let closed = self.is_closed(flow, now);
        let unanswered = self.protocol == Protocol::Tcp && self.flows.has_waited(flow, now, UNANSWERED);
        self.flows.is_expired(flow, now) || (closed || unanswered) && !self.flows.is_held(flow)
    }

    fn is_unused(&self, index: PortIndex, remote: Remote) -> bool {
        let port = self.ports.port(index).filter(|port| !self.is_itself(*port, remote));
        port.is_some_and(|port| self.flows.at_port(port, remote).is_none())
    }

    /// Whether a flow from this port would come back as its own answer, instead of reaching who else is on the port.
    fn is_itself(&self, port: u16, remote: Remote) -> bool {
        remote == Remote { addr: self.addr, port }
    }

    /// The choice, with a flow to end where the table of flows is full.
    fn with_room(&self, index: PortIndex, shared: bool, now: Tick) -> Result<Choice, Refusal> {
        let victim = if self.flows.is_full() { Some(self.slot_victim(now).ok_or(Refusal::Exhausted)?) } else { None };
        Ok(Choice { index, shared, victim, version: self.version() })
    }

    /// A flow whose end makes room in a full table: the longest expired, the longest closed, else the longest
    /// unanswered of the inside host that holds most of those.
    fn slot_victim(&self, now: Tick) -> Option<Id> {
        self.flows
            .next_expired(now)
            .or_else(|| self.closed(now).next())
            .or_else(|| self.flows.waiting_longest(now, UNANSWERED).next())
            .map(|(id, _)| id)
    }

    /// A flow whose end leaves its port to a new one towards `remote`, in the same order.
    fn port_victim(&self, remote: Remote, shares: bool, now: Tick) -> Option<Id> {
        let fits = |(_, flow): &(Id, &Flow<K>)| self.leaves_its_port(flow, remote);
        let expired = [Idle::Short, Idle::Established, Idle::Closing].into_iter().find_map(|idle| {
            let expired = self.flows.idling(idle).take_while(|(_, flow)| self.flows.is_expired(flow, now));
            expired.take(LOOKED_AT).find(fits)
        });
        let found = expired.or_else(|| self.closed_victim(remote, shares, now)).or_else(|| {
            // A UDP mapping lives for its time (RFC 4787 REQ-5), answered or not.
            let waiting = (self.protocol == Protocol::Tcp).then(|| self.flows.waiting_longest(now, UNANSWERED));
            waiting?.take(LOOKED_AT).find(fits)
        });
        found.map(|(id, _)| id)
    }

    /// The longest closed of those that leave their port: to `remote` on a shared one, or alone on its own.
    fn closed_victim(&self, remote: Remote, shares: bool, now: Tick) -> Option<(Id, &Flow<K>)> {
        let fits = |(_, flow): &(Id, &Flow<K>)| self.leaves_its_port(flow, remote);
        let same = if shares {
            let beside = self.flows.closed_beside(remote).take_while(|(_, flow)| self.is_closed(flow, now));
            beside.take(LOOKED_AT).find(|(id, flow)| flow.remote == remote && fits(&(*id, flow)))
        } else {
            None
        };
        let alone = self.flows.closed_alone().take_while(|(_, flow)| self.is_closed(flow, now));
        let alone = alone.take(LOOKED_AT).find(fits);
        let longest = same.into_iter().chain(alone).min_by_key(|(_, flow)| self.flows.since(flow));
        // Who was not alone when it closed may be by now.
        let before = longest.map(|(_, flow)| self.flows.since(flow));
        let older = |(_, flow): &(Id, &Flow<K>)| before.is_none_or(|before| self.flows.since(flow) < before);
        self.closed(now).take_while(older).take(LOOKED_AT).find(fits).or(longest)
    }

    /// TCP that has been closed for a while, the longest first.
    fn closed(&self, now: Tick) -> impl Iterator<Item = (Id, &Flow<K>)> {
        let closed = self.flows.idling(Idle::Closing);
        closed.take_while(move |(_, flow)| self.is_closed(flow, now))
    }

    /// Whether TCP has been closed for long enough to give way.
    fn is_closed(&self, flow: &Flow<K>, now: Tick) -> bool {
        flow.tcp.is_closing() && self.flows.since(flow).after(CLOSED) <= now
    }

    fn leaves_its_port(&self, flow: &Flow<K>, remote: Remote) -> bool {
        self.index(flow).is_some_and(|index| {
            let alone = self.ports.flows(index) == 1 && !self.ports.is_pinned(index);
            alone || self.threshold.is_some() && self.ports.used(index) == Use::Shared && flow.remote == remote
        })
    }
}

/// Number `n` of those that follow from a draw (splitmix64).
fn mix(draw: u64, n: u64) -> u64 {
    let mut z = draw.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The draw as a place among `len`.
fn scale(draw: u64, len: usize) -> usize {
    ((u128::from(draw) * len as u128) >> 64) as usize
}
