//! What hosts of the home ask for: a port for a while (RFC 6887 §11, RFC 6886 §3.3), or a flow (RFC 6887 §12). Not the
//! packet path: these may allocate.
use std::time::Duration;

use super::clock::Tick;
use super::events::Why;
use super::explicit::{Allowed, Map, Origin, Peer, deadline};
use super::flow::Id;
use super::pool::{Class, PortIndex};
use super::ports::Use;
use super::scarcity::Choice;
use super::{InsideKey, Napt, Outside, Protocol, Remote};

/// Mappings that all hosts may ask for together.
pub(super) const MOST: usize = 16_384;
/// Filters of one mapping (RFC 6887 §13.3).
const MOST_ALLOWED: usize = 4;

/// A mapping that a host asks for.
#[derive(Clone, Debug)]
pub struct Want<K> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Inside endpoint.
    pub inside: K,
    /// `Pcp` or `NatPmp`.
    pub origin: Origin,
    /// For how long.
    pub lifetime: Duration,
    /// Outside port that it would like; 0: any.
    pub suggested: u16,
    /// That port or none (RFC 6887 §13.2).
    pub prefer_failure: bool,
    /// Filters in their order; `None` removes those before it (RFC 6887 §13.3).
    pub filters: Vec<Option<Allowed>>,
    /// Mappings that one host may have.
    pub per_host: u32,
}

/// A mapping that was made or renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Where the Internet finds it.
    pub outside: Outside,
    /// How long it will last.
    pub lifetime: Duration,
}

/// Why there is no mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The mapping is somebody else's, or the configuration's.
    NotAuthorized,
    /// No port is free, or hosts have asked for too many.
    NoResources,
    /// The host has as many as it may.
    Quota,
    /// Not with the suggested port.
    CannotProvide,
    /// More filters than there is room for.
    TooManyFilters,
}

impl<K: InsideKey> Napt<K> {
    /// The outside address.
    pub fn addr(&self) -> std::net::Ipv4Addr {
        self.addr
    }

    /// A port of its own for an inside endpoint, for a while (RFC 6887 §11.3). The port that it has stays its port. A new
    /// one is free by now: nobody loses one for it, and hosts together have at most half of a protocol's ports.
    pub fn map(&mut self, want: &Want<K>, now: Duration) -> Result<Granted, Denied> {
        self.look_at_the_clock(now);
        let Want { protocol, inside, .. } = *want;
        let table = self.table(protocol);
        let own = table.ports.of_inside(&inside).and_then(|index| table.ports.port(index));
        let old = own.and_then(|port| self.explicit.maps.get(&(protocol, port)));
        if let Some(old) = old {
            check_owner(old.origin, want.origin)?;
        }
        if want.prefer_failure && own.is_some_and(|port| port != want.suggested) {
            return Err(Denied::CannotProvide);
        }
        let allowed = filtered(old.map_or(&[], |old| &old.allowed), &want.filters)?;
        let leased = old.is_some_and(|old| old.until.is_some());
        let port = match own {
            Some(port) if old.is_some_and(|old| old.origin == Origin::Static) => {
                let outside = Outside { addr: self.addr, port };
                return Ok(Granted { outside, lifetime: want.lifetime });
            }
            Some(port) if leased => port,
            own => {
                self.check_room(want)?;
                if self.explicit.leased(protocol) >= (table.ports.capacity() / 2).max(1) {
                    return Err(Denied::NoResources);
                }
                match own {
                    Some(port) => port,
                    None => self.free_port(want)?,
                }
            }
        };
        if !leased && !self.tables[protocol as usize].pin(port, inside) {
            return Err(Denied::NoResources);
        }
        self.draws.advance();
        let until = deadline(now, want.lifetime);
        self.explicit.set_map(protocol, port, Map { inside, origin: want.origin, until: Some(until), allowed });
        Ok(self.granted(port, until, now))
    }

    /// Ends a mapping that a host has asked for; its flows go on. One that is not there is no error (RFC 6887 §15.1, RFC
    /// 6886 §3.4).
    pub fn unmap(&mut self, protocol: Protocol, inside: K, origin: Origin) -> Result<(), Denied> {
        let table = self.table(protocol);
        let Some(port) = table.ports.of_inside(&inside).and_then(|index| table.ports.port(index)) else {
            return Ok(());
        };
        let Some(old) = self.explicit.maps.get(&(protocol, port)) else { return Ok(()) };
        if old.origin == Origin::Static {
            return Err(Denied::NotAuthorized);
        }
        check_owner(old.origin, origin)?;
        self.explicit.remove_map(protocol, port);
        self.tables[protocol as usize].unpin(port, Why::Expired);
        Ok(())
    }

    /// Ends all mappings of a host that it may end; `None`: of every protocol.
    pub fn unmap_all(&mut self, protocol: Option<Protocol>, host: u64, origin: Origin) {
        let is_its = |(at, map): &(&(Protocol, u16), &Map<K>)| {
            let chosen = protocol.is_none_or(|protocol| at.0 == protocol);
            let own = map.inside.host() == host && map.origin != Origin::Static;
            chosen && own && check_owner(map.origin, origin).is_ok()
        };
        let all: Vec<_> = self.explicit.maps.iter().filter(is_its).map(|(at, _)| *at).collect();
        for (protocol, port) in all {
            self.explicit.remove_map(protocol, port);
            self.tables[protocol as usize].unpin(port, Why::Expired);
        }
    }

    /// Keeps the flow of an inside endpoint and a remote one, or makes it, for a while (RFC 6887 §12.3). It never lasts
    /// shorter than it would have. No other flow ends for it.
    pub fn peer(&mut self, want: &Want<K>, remote: Remote, now: Duration) -> Result<Granted, Denied> {
        let Want { protocol, inside, .. } = *want;
        let table = self.table(protocol);
        let known = table.flows.between(&inside, remote).map(|(id, flow)| (id, flow.port));
        if known.is_some_and(|(_, port)| want.suggested != 0 && want.suggested != port) {
            return Err(Denied::CannotProvide);
        }
        let old = known.and_then(|(id, _)| self.explicit.peers.get(&(protocol, id)));
        let old = old.filter(|old| old.inside == inside && old.remote == remote);
        let mut until = deadline(now, want.lifetime);
        match old {
            Some(old) => {
                check_owner(old.origin, want.origin)?;
                until = until.max(old.until);
            }
            None => self.check_room(want)?,
        }
        let (id, port) = match known {
            Some(known) => known,
            None => self.new_flow(want, remote, now)?,
        };
        self.tables[protocol as usize].hold(id, Tick::reached(now));
        self.explicit.set_peer(protocol, id, Peer { inside, remote, port, origin: want.origin, until });
        Ok(self.granted(port, until, now))
    }

    fn granted(&self, port: u16, until: Tick, now: Duration) -> Granted {
        Granted { outside: Outside { addr: self.addr, port }, lifetime: until.time().saturating_sub(now) }
    }

    /// Whether a host may have one mapping more.
    fn check_room(&self, want: &Want<K>) -> Result<(), Denied> {
        if self.explicit.of_host(want.inside.host()) >= want.per_host {
            return Err(Denied::Quota);
        }
        if self.explicit.count() >= MOST { Err(Denied::NoResources) } else { Ok(()) }
    }

    /// The suggested port if it is free, else another one.
    fn free_port(&self, want: &Want<K>) -> Result<u16, Denied> {
        let ports = &self.table(want.protocol).ports;
        let is_free = |index: &PortIndex| ports.used(*index) == Use::Free;
        let suggested = ports.index(want.suggested).filter(|_| want.suggested != 0).filter(is_free);
        if suggested.is_none() && want.prefer_failure {
            return Err(Denied::CannotProvide);
        }
        let other = || ports.pick(class(want.inside.port()), want.inside.port(), self.draws.peek());
        suggested.or_else(other).and_then(|index| ports.port(index)).ok_or(Denied::NoResources)
    }

    /// A flow on the endpoint's port, or on the suggested one, or wherever a packet's would stand.
    fn new_flow(&mut self, want: &Want<K>, remote: Remote, now: Duration) -> Result<(Id, u16), Denied> {
        let table = self.table(want.protocol);
        let choice = table.choose(&want.inside, remote, self.draws.peek(), Tick::reached(now));
        let mut choice = choice.map_err(|_| Denied::NoResources)?;
        let port = table.ports.port(choice.index).ok_or(Denied::NoResources)?;
        if want.suggested != 0 && want.suggested != port {
            choice = table.suggested(&want.inside, remote, want.suggested).ok_or(Denied::CannotProvide)?;
        }
        if choice.victim.is_some() {
            return Err(Denied::NoResources);
        }
        let Choice { index, .. } = choice;
        let table = &mut self.tables[want.protocol as usize];
        let port = table.ports.port(index).ok_or(Denied::NoResources)?;
        let id = table.insert(want.inside, remote, choice, now).ok_or(Denied::NoResources)?;
        self.draws.advance();
        Ok((id, port))
    }
}

/// The class of port that an inside one asks for (RFC 4787 REQ-3a).
fn class(inside: u16) -> Class {
    if inside < 1024 { Class::System } else { Class::Dynamic }
}

/// A PCP mapping is its nonce's; one by NAT-PMP is the host's, and the host may go over to PCP (RFC 6887 §11.3, §A).
fn check_owner(old: Origin, new: Origin) -> Result<(), Denied> {
    match (old, new) {
        (Origin::Pcp(old), Origin::Pcp(new)) if old == new => Ok(()),
        (Origin::Pcp(_), _) => Err(Denied::NotAuthorized),
        _ => Ok(()),
    }
}

/// Filters after those of a request.
fn filtered(old: &[Allowed], new: &[Option<Allowed>]) -> Result<Vec<Allowed>, Denied> {
    let mut all = old.to_vec();
    for filter in new {
        match filter {
            None => all.clear(),
            Some(filter) if all.contains(filter) => {}
            Some(_) if all.len() == MOST_ALLOWED => return Err(Denied::TooManyFilters),
            Some(filter) => all.push(*filter),
        }
    }
    Ok(all)
}
