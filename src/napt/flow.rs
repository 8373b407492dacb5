//! The flows of one protocol: found by (inside, remote) and by (outside port, remote), ended in the order in which
//! they idle.
//!
//! A flow's number never changes while it lives. Slots and buckets are reserved at the start and touched when used.
#[cfg(debug_assertions)]
mod audit;
mod beside;

use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;

use super::clock::{Tick, Ticks};
use super::keyed::KeyedHash;
use super::tcp::{Marks, TcpState};
use super::{Inside, InsideKey, Remote};
use beside::{Among, Beside, CLOSED_PER_BUCKET, HOSTS};

/// The number of a flow, from 1.
pub(super) type Id = NonZeroU32;

fn slot(id: Id) -> usize {
    id.get() as usize - 1
}

/// Which idle time a flow has; a list for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Idle {
    /// UDP, ICMP, and TCP that is opening.
    Short = 0,
    /// TCP established.
    Established = 1,
    /// TCP after both FINs or a reset.
    Closing = 2,
    /// For as long as somebody has asked for.
    Held = 3,
}
/// Those with a time.
pub(super) const IDLES: usize = 3;

/// One flow.
pub(super) struct Flow<K> {
    pub(super) inside: K,
    pub(super) remote: Remote,
    /// 0 in a vacant slot.
    pub(super) port: u16,
    pub(super) tcp: TcpState,
    idle: Idle,
    among: Among,
    /// How many ticks it had waited when its idle time last began; at most 4.5 hours.
    waited: u16,
    /// The next flow of the outbound bucket, or the next vacant slot.
    outbound: Option<Id>,
    inbound: Option<Id>,
    older: Option<Id>,
    newer: Option<Id>,
    /// In the list that `among` says.
    beside_older: Option<Id>,
    beside_newer: Option<Id>,
    /// When its idle time began, in ticks since the table's first.
    since: u32,
    pub(super) marks: Marks,
}

impl<K> Flow<K> {
    #[inline]
    fn is_waiting(&self) -> bool {
        self.among == Among::Unanswered
    }
}

// A cache line: what a lookup finds is all that a refresh needs.
const _: () = assert!(size_of::<Flow<Inside>>() == 64);

/// What a flow was in another table.
pub(super) struct Was<K> {
    pub(super) inside: K,
    pub(super) remote: Remote,
    pub(super) port: u16,
    pub(super) tcp: TcpState,
    pub(super) marks: Marks,
    pub(super) since: Tick,
}

#[derive(Clone, Copy)]
struct List {
    oldest: Option<Id>,
    newest: Option<Id>,
    idle: Ticks,
}

pub(super) struct Flows<K> {
    slots: Vec<Flow<K>>,
    limit: usize,
    vacant: Option<Id>,
    live: usize,
    hash: KeyedHash,
    outbound: Vec<Option<Id>>,
    inbound: Vec<Option<Id>>,
    lists: [List; IDLES + 1],
    /// Flows that nobody has answered, by inside host.
    hosts: Vec<Beside>,
    /// Closed ones, by remote endpoint.
    closed: Vec<Beside>,
    /// Closed ones that were alone on a port of their own.
    alone: Beside,
    base: Option<Tick>,
}

/// Both ends of a flow as one key.
struct Ends<'a, K>(&'a K, Remote);
impl<K: Hash> Hash for Ends<'_, K> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        state.write_u64(at_port(0, self.1));
    }
}

#[inline]
fn at_port(port: u16, remote: Remote) -> u64 {
    u64::from(remote.addr.to_bits()) << 32 | u64::from(remote.port) << 16 | u64::from(port)
}

impl<K: InsideKey> Flows<K> {
    /// Room for `limit` flows; the idle times by `Idle`.
    pub(super) fn new(limit: usize, idle: [Ticks; IDLES], seed: u64) -> Flows<K> {
        let buckets = limit.max(1).next_power_of_two();
        Flows {
            slots: Vec::with_capacity(limit),
            limit,
            vacant: None,
            live: 0,
            hash: KeyedHash::new(seed),
            outbound: vec![None; buckets],
            inbound: vec![None; buckets],
            lists: [idle[0], idle[1], idle[2], Ticks::FOREVER].map(|idle| List { oldest: None, newest: None, idle }),
            hosts: vec![Beside::default(); HOSTS],
            closed: vec![Beside::default(); (limit / CLOSED_PER_BUCKET).max(1).next_power_of_two()],
            alone: Beside::default(),
            base: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_full(&self) -> bool {
        self.live >= self.limit
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Slots that have been touched.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The flow of a slot, counted from 0; `None` in a vacant one.
    pub(super) fn in_slot(&self, n: usize) -> Option<&Flow<K>> {
        self.slots.get(n).filter(|flow| flow.port != 0)
    }

    /// Takes over the idle times and nothing else: the order within a list stays.
    pub(super) fn set_idle_times(&mut self, of: &Flows<K>) {
        for (list, new) in self.lists.iter_mut().zip(&of.lists) {
            list.idle = new.idle;
        }
    }

    /// Hashes and counts time as another table does, so that its flows keep their order. For an empty table.
    pub(super) fn begin_as(&mut self, other: &Flows<K>) {
        self.hash = other.hash;
        self.base = other.base;
    }

    /// Counts time from `first` on. For an empty table.
    pub(super) fn begin_at(&mut self, first: Tick) {
        self.base = Some(first);
    }

    #[inline]
    pub(super) fn get(&self, id: Id) -> Option<&Flow<K>> {
        self.slots.get(slot(id))
    }

    /// The flow between two endpoints, expired or not.
    #[inline]
    pub(super) fn between(&self, inside: &K, remote: Remote) -> Option<(Id, &Flow<K>)> {
        let mut next = self.outbound[self.outbound_bucket(inside, remote)];
        while let Some(id) = next {
            let flow = &self.slots[slot(id)];
            if flow.inside == *inside && flow.remote == remote {
                return Some((id, flow));
            }
            next = flow.outbound;
        }
        None
    }

    /// The flow of an outside port with a remote endpoint, expired or not.
    #[inline]
    pub(super) fn at_port(&self, port: u16, remote: Remote) -> Option<(Id, &Flow<K>)> {
        let mut next = self.inbound[self.inbound_bucket(port, remote)];
        while let Some(id) = next {
            let flow = &self.slots[slot(id)];
            if flow.port == port && flow.remote == remote {
                return Some((id, flow));
            }
            next = flow.inbound;
        }
        None
    }

    /// Whether a flow's idle time is over at `now`.
    #[inline]
    pub(super) fn is_expired(&self, flow: &Flow<K>, now: Tick) -> bool {
        self.deadline(flow) <= now
    }

    #[inline]
    pub(super) fn deadline(&self, flow: &Flow<K>) -> Tick {
        self.since(flow).after(self.lists[flow.idle as usize].idle)
    }

    /// When a flow of this idle time ends.
    pub(super) fn end(&self, idle: Idle, since: Tick) -> Tick {
        since.after(self.lists[idle as usize].idle)
    }

    /// When a flow's idle time began.
    #[inline]
    pub(super) fn since(&self, flow: &Flow<K>) -> Tick {
        self.base.unwrap_or_default().plus(flow.since)
    }

    /// A new flow on a port. `None` where there is no room.
    pub(super) fn insert(&mut self, inside: K, remote: Remote, port: u16, since: Tick) -> Option<Id> {
        let since = since.since(*self.base.get_or_insert(since));
        let (out, back) = (self.outbound_bucket(&inside, remote), self.inbound_bucket(port, remote));
        let flow = Flow {
            inside,
            remote,
            port,
            tcp: TcpState::default(),
            idle: Idle::Short,
            among: Among::Nobody,
            waited: 0,
            outbound: self.outbound[out],
            inbound: self.inbound[back],
            older: None,
            newer: None,
            beside_older: None,
            beside_newer: None,
            since,
            marks: Marks::default(),
        };
        let id = match self.vacant {
            Some(id) => {
                let place = &mut self.slots[slot(id)];
                self.vacant = place.outbound;
                *place = flow;
                id
            }
            None if self.slots.len() < self.limit => {
                self.slots.push(flow);
                Id::new(self.slots.len() as u32)?
            }
            None => return None,
        };
        self.live += 1;
        self.outbound[out] = Some(id);
        self.inbound[back] = Some(id);
        self.append(id, false);
        Some(id)
    }

    /// A flow as it was elsewhere. Those of one idle time come in the order in which they have idled, the longest
    /// first; `put_waiting` follows for those that wait. `alone`: on a port of its own, as far as is known.
    pub(super) fn insert_as(&mut self, was: &Was<K>, alone: bool) -> Option<Id> {
        let id = self.insert(was.inside, was.remote, was.port, was.since)?;
        let flow = &mut self.slots[slot(id)];
        (flow.tcp, flow.marks) = (was.tcp, was.marks);
        let since = flow.since;
        if was.tcp.idle() != Idle::Short {
            self.requeue(id, was.tcp.idle(), since, alone);
        }
        Some(id)
    }

    /// Starts the idle time of a flow afresh; `alone` is for one that is closed.
    #[inline]
    pub(super) fn refresh(&mut self, id: Id, idle: Idle, since: Tick, alone: bool) {
        let since = since.since(self.base.unwrap_or_default());
        let flow = &self.slots[slot(id)];
        if flow.since == since && flow.idle == idle {
            return;
        }
        self.requeue(id, idle, since, alone);
    }

    #[inline(never)]
    fn requeue(&mut self, id: Id, idle: Idle, since: u32, alone: bool) {
        if self.is_held(&self.slots[slot(id)]) {
            self.slots[slot(id)].since = since;
            return;
        }
        let flow = &mut self.slots[slot(id)];
        let more = u16::try_from(since.saturating_sub(flow.since)).unwrap_or(u16::MAX);
        flow.waited = flow.waited.saturating_add(more);
        self.move_to(id, idle, since, alone);
    }

    fn move_to(&mut self, id: Id, idle: Idle, since: u32, alone: bool) {
        self.unlink(id);
        if idle == Idle::Closing {
            self.leave(id);
        }
        let flow = &mut self.slots[slot(id)];
        flow.since = since;
        flow.idle = idle;
        self.append(id, alone);
    }

    /// Whether a flow lives until `release`, whatever idle time it has.
    #[inline]
    pub(super) fn is_held(&self, flow: &Flow<K>) -> bool {
        flow.idle == Idle::Held
    }

    /// Keeps a flow until `release`. Nobody waits for an answer of it.
    pub(super) fn hold(&mut self, id: Id) {
        self.leave(id);
        let since = self.slots[slot(id)].since;
        self.move_to(id, Idle::Held, since, false);
    }

    /// The inverse of `hold`; `false` where the flow's idle time is over. Else it starts afresh.
    pub(super) fn release(&mut self, id: Id, now: Tick, alone: bool) -> bool {
        let flow = &self.slots[slot(id)];
        let (idle, since) = (flow.tcp.idle(), now.since(self.base.unwrap_or_default()));
        let lives = now < self.since(flow).after(self.lists[idle as usize].idle);
        self.move_to(id, idle, since, alone);
        lives
    }

    #[inline]
    pub(super) fn tcp(&self, id: Id) -> (TcpState, Marks) {
        let flow = &self.slots[slot(id)];
        (flow.tcp, flow.marks)
    }

    /// `waiting`: nobody has answered it; if somebody had, then its idle time begins now.
    #[inline]
    pub(super) fn set_tcp(&mut self, id: Id, tcp: TcpState, marks: Marks, waiting: bool) {
        let flow = &mut self.slots[slot(id)];
        flow.tcp = tcp;
        flow.marks = marks;
        let waiting = waiting && flow.idle != Idle::Held;
        if flow.is_waiting() != waiting {
            self.set_waiting(id, waiting);
        }
    }

    /// Every flow, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (Id, &Flow<K>)> {
        let numbered = (1..).map_while(Id::new).zip(&self.slots);
        numbered.filter(|(_, flow)| flow.port != 0)
    }

    /// Flows of an idle time, the longest idle first.
    pub(super) fn idling(&self, idle: Idle) -> impl Iterator<Item = (Id, &Flow<K>)> {
        self.chain(self.lists[idle as usize].oldest, |flow| flow.newer)
    }

    fn chain(&self, first: Option<Id>, next: fn(&Flow<K>) -> Option<Id>) -> impl Iterator<Item = (Id, &Flow<K>)> {
        let with = |id: Option<Id>| id.map(|id| (id, &self.slots[slot(id)]));
        std::iter::successors(with(first), move |(_, flow)| with(next(flow)))
    }

    /// When the next flow expires.
    pub(super) fn next_expiry(&self) -> Option<Tick> {
        self.lists[..IDLES].iter().filter_map(|list| Some(self.deadline(&self.slots[slot(list.oldest?)]))).min()
    }

    /// Flows that have expired and are not yet swept.
    pub(super) fn expired(&self, now: Tick) -> impl Iterator<Item = (Id, &Flow<K>)> {
        let of = move |idle| self.idling(idle).take_while(move |(_, flow)| self.is_expired(flow, now));
        [Idle::Short, Idle::Established, Idle::Closing].into_iter().flat_map(of)
    }

    /// The flow that has expired longest ago, by one of the idle times.
    pub(super) fn next_expired(&self, now: Tick) -> Option<(Id, &Flow<K>)> {
        let oldest = |list: &List| list.oldest.map(|id| (id, &self.slots[slot(id)]));
        self.lists.iter().filter_map(oldest).find(|(_, flow)| self.is_expired(flow, now))
    }

    /// Takes a flow out; its port and remote endpoint.
    pub(super) fn remove(&mut self, id: Id) -> (u16, Remote) {
        self.unlink(id);
        self.leave(id);
        let flow = &self.slots[slot(id)];
        let (port, remote) = (flow.port, flow.remote);
        let (out, back) = (self.outbound_bucket(&flow.inside, remote), self.inbound_bucket(port, remote));
        let (rest_out, rest_back) = (flow.outbound, flow.inbound);
        if self.outbound[out] == Some(id) {
            self.outbound[out] = rest_out;
        } else {
            let mut next = self.outbound[out];
            while let Some(before) = next {
                let link = &mut self.slots[slot(before)].outbound;
                if *link == Some(id) {
                    *link = rest_out;
                    break;
                }
                next = *link;
            }
        }
        if self.inbound[back] == Some(id) {
            self.inbound[back] = rest_back;
        } else {
            let mut next = self.inbound[back];
            while let Some(before) = next {
                let link = &mut self.slots[slot(before)].inbound;
                if *link == Some(id) {
                    *link = rest_back;
                    break;
                }
                next = *link;
            }
        }
        let flow = &mut self.slots[slot(id)];
        flow.port = 0;
        flow.outbound = self.vacant;
        self.vacant = Some(id);
        self.live -= 1;
        (port, remote)
    }

    #[inline]
    fn outbound_bucket(&self, inside: &K, remote: Remote) -> usize {
        self.hash.hash(&Ends(inside, remote)) as usize & (self.outbound.len() - 1)
    }

    #[inline]
    fn inbound_bucket(&self, port: u16, remote: Remote) -> usize {
        self.hash.hash(&at_port(port, remote)) as usize & (self.inbound.len() - 1)
    }

    #[inline]
    fn append(&mut self, id: Id, alone: bool) {
        if self.slots[slot(id)].idle == Idle::Closing {
            self.join(id, if alone { Among::Alone } else { Among::Closed });
        }
        let list = &mut self.lists[self.slots[slot(id)].idle as usize];
        let newest = list.newest.replace(id);
        match newest {
            Some(before) => self.slots[slot(before)].newer = Some(id),
            None => list.oldest = Some(id),
        }
        let flow = &mut self.slots[slot(id)];
        flow.older = newest;
        flow.newer = None;
    }

    #[inline]
    fn unlink(&mut self, id: Id) {
        if self.slots[slot(id)].idle == Idle::Closing {
            self.leave(id);
        }
        let flow = &self.slots[slot(id)];
        let (older, newer) = (flow.older, flow.newer);
        let list = &mut self.lists[flow.idle as usize];
        match older {
            Some(older) => self.slots[slot(older)].newer = newer,
            None => list.oldest = newer,
        }
        match newer {
            Some(newer) => self.slots[slot(newer)].older = older,
            None => list.newest = older,
        }
    }
}
