//! Ports and flows that are set instead of found: forwards of the configuration, and what hosts of the home ask for.
//!
//! Such a port is one inside endpoint's whatever flows there are, open to anybody or to some, and the one that its new
//! flows leave by. What comes in on it makes no state.
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::clock::{Tick, Ticks};
use super::events::Why;
use super::flow::Id;
use super::ports::Use;
use super::{Inside, InsideKey, Napt, Protocol, Remote};

/// An outside port that is always an inside endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<K = Inside> {
    /// TCP or UDP; of ICMP the port is an identifier.
    pub protocol: Protocol,
    /// Outside port, 1..=65535, in the port set.
    pub port: u16,
    /// Inside endpoint.
    pub inside: K,
}

/// What `set_forwards` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Forwards that are new.
    pub added: usize,
    /// Forwards that are no more; their flows go on.
    pub removed: usize,
    /// Flows of others that a new forward's port ended.
    pub purged: usize,
    /// Forwards that cannot be: a port outside the set, or a port or an endpoint that an earlier one has.
    pub refused: usize,
}

/// What a PCP client shows to be the owner of a mapping (RFC 6887 §11.2).
pub type Nonce = [u8; 12];

/// Who wants a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration.
    Static,
    /// A host, by PCP.
    Pcp(Nonce),
    /// A host, by NAT-PMP.
    NatPmp,
}

/// Remote endpoints that may send to a port: a prefix, and a port or all (RFC 6887 §13.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Any address of the prefix.
    pub addr: Ipv4Addr,
    /// Bits of it that count, 0..=32.
    pub prefix_len: u8,
    /// 0: every port.
    pub port: u16,
}

impl Allowed {
    fn admits(&self, remote: Remote) -> bool {
        let differ = self.addr.to_bits() ^ remote.addr.to_bits();
        differ.leading_zeros() >= u32::from(self.prefix_len) && (self.port == 0 || self.port == remote.port)
    }
}

/// An explicit mapping, for those who list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<K = Inside> {
    /// Protocol.
    pub protocol: Protocol,
    /// Inside endpoint.
    pub inside: K,
    /// Outside port.
    pub port: u16,
    /// The one remote endpoint, of a PEER mapping (RFC 6887 §12).
    pub remote: Option<Remote>,
    /// Who wants it.
    pub origin: Origin,
    /// How long it will last; `None` of a forward.
    pub remaining: Option<Duration>,
}

/// A port that is an inside endpoint's.
pub(super) struct Map<K> {
    pub(super) inside: K,
    pub(super) origin: Origin,
    pub(super) until: Option<Tick>,
    /// Nobody else may send; empty: anybody may.
    pub(super) allowed: Vec<Allowed>,
}

/// A flow that lives for as long as a host has asked for.
pub(super) struct Peer<K> {
    pub(super) inside: K,
    pub(super) remote: Remote,
    pub(super) port: u16,
    pub(super) origin: Origin,
    pub(super) until: Tick,
}

/// Which mapping a deadline is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// By protocol and outside port.
    Map(Protocol, u16),
    /// By protocol and flow.
    Peer(Protocol, Id),
}

/// What is set. Nothing here is touched for a packet but one look at a filter.
pub(super) struct Explicit<K> {
    pub(super) maps: BTreeMap<(Protocol, u16), Map<K>>,
    pub(super) peers: BTreeMap<(Protocol, Id), Peer<K>>,
    deadlines: BTreeSet<(Tick, Name)>,
    /// Mappings with a deadline, by inside host.
    hosts: BTreeMap<u64, u32>,
    /// Of them, ports of each protocol.
    leased: [usize; 3],
    /// How many went before their time.
    losses: u64,
}

impl<K: InsideKey> Explicit<K> {
    pub(super) fn new() -> Explicit<K> {
        Explicit {
            maps: BTreeMap::new(),
            peers: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            hosts: BTreeMap::new(),
            leased: [0; 3],
            losses: 0,
        }
    }

    /// When the next one expires.
    pub(super) fn next_expiry(&self) -> Option<Tick> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Mappings that hosts have asked for.
    pub(super) fn count(&self) -> usize {
        self.deadlines.len()
    }

    /// Those of one host.
    pub(super) fn of_host(&self, host: u64) -> u32 {
        self.hosts.get(&host).copied().unwrap_or(0)
    }

    /// Ports of a protocol that hosts have asked for.
    pub(super) fn leased(&self, protocol: Protocol) -> usize {
        self.leased[protocol as usize]
    }

    /// Puts a mapping in place of the one of its port.
    pub(super) fn set_map(&mut self, protocol: Protocol, port: u16, map: Map<K>) {
        self.remove_map(protocol, port);
        if let Some(until) = map.until {
            self.deadlines.insert((until, Name::Map(protocol, port)));
            *self.hosts.entry(map.inside.host()).or_default() += 1;
            self.leased[protocol as usize] += 1;
        }
        self.maps.insert((protocol, port), map);
    }

    pub(super) fn remove_map(&mut self, protocol: Protocol, port: u16) -> Option<Map<K>> {
        let map = self.maps.remove(&(protocol, port))?;
        if let Some(until) = map.until {
            self.deadlines.remove(&(until, Name::Map(protocol, port)));
            self.forget_host(map.inside.host());
            self.leased[protocol as usize] -= 1;
        }
        Some(map)
    }

    pub(super) fn set_peer(&mut self, protocol: Protocol, id: Id, peer: Peer<K>) {
        self.remove_peer(protocol, id);
        self.deadlines.insert((peer.until, Name::Peer(protocol, id)));
        *self.hosts.entry(peer.inside.host()).or_default() += 1;
        self.peers.insert((protocol, id), peer);
    }

    pub(super) fn remove_peer(&mut self, protocol: Protocol, id: Id) -> Option<Peer<K>> {
        let peer = self.peers.remove(&(protocol, id))?;
        self.deadlines.remove(&(peer.until, Name::Peer(protocol, id)));
        self.forget_host(peer.inside.host());
        Some(peer)
    }

    fn forget_host(&mut self, host: u64) {
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn audit(&self) -> super::audit::Found {
        let maps =
            self.maps.iter().filter_map(|(at, map)| Some((map.until?, Name::Map(at.0, at.1), map.inside.host())));
        let peers = self.peers.iter().map(|(at, peer)| (peer.until, Name::Peer(at.0, at.1), peer.inside.host()));
        let (mut deadlines, mut hosts, mut leased) = (BTreeSet::new(), BTreeMap::<u64, u32>::new(), [0; 3]);
        for (until, name, host) in maps.chain(peers) {
            deadlines.insert((until, name));
            *hosts.entry(host).or_default() += 1;
            if let Name::Map(protocol, _) = name {
                leased[protocol as usize] += 1;
            }
        }
        let same = (&deadlines, &hosts, leased) == (&self.deadlines, &self.hosts, self.leased);
        super::audit::ensure(same, || format!("deadlines {deadlines:?}, hosts {hosts:?}, leased {leased:?}"))
    }

    /// The ports of a protocol that were set, and for whom.
    pub(super) fn of(&self, protocol: Protocol) -> impl Iterator<Item = (u16, K)> {
        self.maps.range((protocol, 0)..=(protocol, u16::MAX)).map(|((_, port), map)| (*port, map.inside))
    }
}

impl<K: InsideKey> Napt<K> {
    /// The forwards from now on; those that were there before stay as they are, with their flows.
    ///
    /// The port of one that is gone serves the flows on it until the last has ended. A new one takes its port from
    /// whoever has it, and ends the flows there. An endpoint that has another port keeps it for the flows on it; new
    /// ones leave by the forward's, and what the endpoint asked for by PCP is gone. Takes time in proportion to the
    /// flows; not for the packet path.
    pub fn set_forwards(&mut self, forwards: &[Forward<K>], now: Duration) -> Changed {
        self.look_at_the_clock(now);
        let mut changed = Changed::default();
        let mut wanted = BTreeMap::<(Protocol, u16), K>::new();
        for forward in forwards {
            let Forward { protocol, port, inside } = *forward;
            let fits = port > 0 && self.table(protocol).ports.index(port).is_some();
            let meets = wanted.iter().any(|(at, other)| at.0 == protocol && (at.1 == port || *other == inside));
            if fits && !meets {
                wanted.insert((protocol, port), inside);
            } else {
                changed.refused += 1;
            }
        }
        let gone = |(at, map): (&(Protocol, u16), &Map<K>)| match map.origin {
            Origin::Static => wanted.get(at) != Some(&map.inside),
            // What a host has asked for gives way to a forward of the same port or endpoint.
            _ => wanted.iter().any(|(new, own)| new.0 == at.0 && (new.1 == at.1 || *own == map.inside)),
        };
        let gone: Vec<_> = self.explicit.maps.iter().filter(|at| gone(*at)).map(|(at, _)| *at).collect();
        for (protocol, port) in gone {
            let old = self.explicit.remove_map(protocol, port);
            self.tables[protocol as usize].unpin(port, Why::Purged);
            let is_static = old.is_some_and(|map| map.origin == Origin::Static);
            changed.removed += usize::from(is_static);
            self.explicit.losses += u64::from(!is_static);
        }
        wanted.retain(|at, _| !self.explicit.maps.contains_key(at));
        for protocol in Protocol::ALL {
            let table = &mut self.tables[protocol as usize];
            let ends = |port, inside| {
                let shared = table.ports.index(port).is_some_and(|index| table.ports.used(index) == Use::Shared);
                wanted.get(&(protocol, port)).is_some_and(|own| shared || *own != inside)
            };
            let ended: Vec<_> = table.flows.all().filter(|(_, f)| ends(f.port, f.inside)).map(|(id, _)| id).collect();
            changed.purged += ended.len();
            for id in ended {
                table.end(id, Why::Purged);
                self.explicit.losses += u64::from(self.explicit.remove_peer(protocol, id).is_some());
            }
        }
        for ((protocol, port), inside) in wanted {
            if self.tables[protocol as usize].pin(port, inside) {
                let map = Map { inside, origin: Origin::Static, until: None, allowed: Vec::new() };
                self.explicit.set_map(protocol, port, map);
                changed.added += 1;
            } else {
                changed.refused += 1;
            }
        }
        changed
    }

    /// The forwards of another NAPT with the same ports from now on. At once where they are the same.
    pub(super) fn go_on_with_forwards_of(&mut self, next: &Napt<K>, now: Duration) {
        if !self.forwards().eq(next.forwards()) {
            let forwards: Vec<_> = next.forwards().collect();
            self.set_forwards(&forwards, now);
        }
    }

    /// The forwards, by protocol and port.
    pub fn forwards(&self) -> impl Iterator<Item = Forward<K>> {
        let forwards = self.explicit.maps.iter().filter(|(_, map)| map.origin == Origin::Static);
        forwards.map(|(&(protocol, port), map)| Forward { protocol, port, inside: map.inside })
    }

    /// Every explicit mapping: forwards and those that hosts have asked for, by protocol and port; then PEER mappings.
    pub fn explicit(&self, now: Duration) -> impl Iterator<Item = Mapping<K>> {
        let left = move |until: Tick| until.time().saturating_sub(now);
        let maps = self.explicit.maps.iter().map(move |(&(protocol, port), map)| Mapping {
            protocol,
            inside: map.inside,
            port,
            remote: None,
            origin: map.origin,
            remaining: map.until.map(left),
        });
        let peers = self.explicit.peers.iter().map(move |(&(protocol, _), peer)| Mapping {
            protocol,
            inside: peer.inside,
            port: peer.port,
            remote: Some(peer.remote),
            origin: peer.origin,
            remaining: Some(left(peer.until)),
        });
        maps.chain(peers)
    }

    /// Until when a host has asked to keep the flow of a slot.
    pub(super) fn until(&self, protocol: Protocol, slot: usize) -> Option<Tick> {
        let id = Id::new(slot as u32 + 1)?;
        self.explicit.peers.get(&(protocol, id)).map(|peer| peer.until)
    }

    /// How many mappings that hosts have asked for went before their time, for a forward or with the address or ports:
    /// who has asked is to know (RFC 6887 §8.5).
    pub fn losses(&self) -> u64 {
        self.explicit.losses
    }

    /// Before the flows of `old` come: the ports that hosts have asked for there, where they still fit.
    pub(super) fn take_over_maps(&mut self, old: &mut Napt<K>) {
        for ((protocol, port), map) in std::mem::take(&mut old.explicit.maps) {
            let table = &mut self.tables[protocol as usize];
            let other = table.ports.of_inside(&map.inside).is_some();
            if map.until.is_some() && !other && table.pin(port, map.inside) {
                self.explicit.set_map(protocol, port, map);
            }
        }
    }

    /// After them: which of them a host has asked for, and how much was lost.
    pub(super) fn take_over_peers(&mut self, old: &mut Napt<K>, asked: usize) {
        for ((protocol, _), peer) in std::mem::take(&mut old.explicit.peers) {
            let flows = &self.table(protocol).flows;
            if let Some((id, flow)) = flows.between(&peer.inside, peer.remote)
                && flow.port == peer.port
                && flows.is_held(flow)
            {
                self.explicit.set_peer(protocol, id, peer);
            }
        }
        self.explicit.losses = old.explicit.losses + (asked - self.explicit.count()) as u64;
    }

    /// Whether a set port lets anybody of this endpoint in.
    pub(super) fn is_open(&self, protocol: Protocol, port: u16, remote: Remote) -> bool {
        let ports = &self.table(protocol).ports;
        ports.index(port).is_some_and(|index| ports.is_pinned(index))
            && self
                .explicit
                .maps
                .get(&(protocol, port))
                .is_some_and(|map| map.allowed.is_empty() || map.allowed.iter().any(|allowed| allowed.admits(remote)))
    }

    /// Ends mappings that have expired, at most `budget`; how many it ended. Their flows go on for their idle times.
    pub(super) fn expire(&mut self, now: Duration, budget: usize) -> usize {
        self.look_at_the_clock(now);
        let mut ended = 0;
        while ended < budget
            && let Some(&(at, name)) = self.explicit.deadlines.first()
            && at <= Tick::reached(now)
        {
            match name {
                Name::Map(protocol, port) => {
                    self.explicit.remove_map(protocol, port);
                    self.tables[protocol as usize].unpin(port, Why::Expired);
                }
                Name::Peer(protocol, id) => {
                    if let Some(peer) = self.explicit.remove_peer(protocol, id) {
                        self.release(protocol, id, &peer, now);
                    }
                }
            }
            ended += 1;
        }
        ended
    }

    /// Leaves a PEER's flow to its idle time.
    fn release(&mut self, protocol: Protocol, id: Id, peer: &Peer<K>, now: Duration) {
        let table = &mut self.tables[protocol as usize];
        let same = |flow: &super::Flow<K>| {
            (flow.port, flow.inside, flow.remote) == (peer.port, peer.inside, peer.remote) && table.flows.is_held(flow)
        };
        if table.flows.get(id).is_some_and(same) && !table.release(id, Tick::starting(now)) {
            table.end(id, Why::Expired);
        }
    }
}

/// When a lifetime that begins now ends.
pub(super) fn deadline(now: Duration, lifetime: Duration) -> Tick {
    Tick::starting(now).after(Ticks::of(lifetime))
}
