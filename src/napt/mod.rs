//! NAPT out of a port set. `propose` only reads, `commit` takes the port and starts the timer.
//!
//! It returns addresses and ports and never touches bytes. Mapping is endpoint-independent (RFC 4787 REQ-1): an
//! inside endpoint has one outside port per protocol, whomever it talks to. Nothing is allocated after `new`.

mod clock;
mod keyed;
mod pool;
mod table;
mod tcp;

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::map::port_set::PortSet;
use clock::{Tick, Ticks};
use keyed::Draws;
use pool::{Class, PortIndex, PortPool};
use table::{Id, Idle, Mapping, Table};
use tcp::TcpState;

/// Mappings that one `handle_timeout` ends at most.
const SWEEP: usize = 256;

/// What distinguishes hosts inside: (IPv4, port) for a CE; other keys serve other members of the family.
pub trait InsideKey: Copy + Eq + Hash + std::fmt::Debug {
    /// The port or ICMP identifier in it.
    fn port(&self) -> u16;
}
/// An endpoint in the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// address
    pub addr: Ipv4Addr,
    /// port or ICMP identifier
    pub port: u16,
}
impl Hash for Inside {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.addr.to_bits()) << 16 | u64::from(self.port));
    }
}
impl InsideKey for Inside {
    #[inline]
    fn port(&self) -> u16 {
        self.port
    }
}
/// An endpoint as the Internet sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    /// address
    pub addr: Ipv4Addr,
    /// port or ICMP identifier
    pub port: u16,
}
/// The protocols that have ports; each has the whole port set to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
    /// echo identifiers
    Icmp,
}
/// The TCP flags that timers need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// SYN
    pub syn: bool,
    /// ACK
    pub ack: bool,
    /// FIN
    pub fin: bool,
    /// RST
    pub rst: bool,
}
/// Idle times, RFC 4787, 5382, 5508, 7857.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// UDP mapping, default 300 s (RFC 4787 REQ-5).
    pub udp: Duration,
    /// TCP established, default 7440 s (RFC 5382 REQ-5).
    pub tcp_established: Duration,
    /// TCP partly open or closing, default 240 s (RFC 5382 REQ-5).
    pub tcp_transitory: Duration,
    /// ICMP query, default 60 s (RFC 5508 REQ-2).
    pub icmp: Duration,
}
impl Default for Timers {
    fn default() -> Self {
        Timers {
            udp: Duration::from_secs(300),
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
        }
    }
}
/// Why no mapping was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// every port of the set is in use
    Exhausted,
    /// nobody inside has this port
    NoMapping,
}
/// A mapping that `commit` will make or refresh. It holds until the next `commit` or `handle_timeout`;
/// committed later it may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal<K> {
    /// inside
    pub inside: K,
    /// outside
    pub outside: Outside,
    protocol: Protocol,
    mapping: Proposed,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proposed {
    Existing(Id),
    New(PortIndex),
}
/// The state of one NAPT.
pub struct Napt<K: InsideKey> {
    addr: Ipv4Addr,
    draws: Draws,
    /// By `Protocol as usize`.
    tables: [Table<K>; 3],
}
impl<K: InsideKey> Napt<K> {
    /// A NAPT with one outside address. `seed` keys the choice of ports and the hashing of flows; a daemon draws it
    /// at random. Idle times are kept in quarters of a second, rounded up.
    ///
    /// A port of 0-1023 is given to an inside port of 0-1023 for as long as there are such, and any other to the
    /// rest (RFC 4787 REQ-3a); port 0 is never given.
    pub fn new(addr: Ipv4Addr, ports: PortSet, timers: Timers, seed: u64) -> Self {
        let table = |protocol| {
            let (short, long, classes) = match protocol {
                Protocol::Tcp => (timers.tcp_transitory, timers.tcp_established, true),
                Protocol::Udp => (timers.udp, timers.udp, true),
                Protocol::Icmp => (timers.icmp, timers.icmp, false),
            };
            Table::new(ports, PortPool::new(&ports, classes), [Ticks::of(short), Ticks::of(long)], seed)
        };
        Napt { addr, draws: Draws::new(seed), tables: [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].map(table) }
    }

    /// The mapping an outbound packet would use at `now`. Reads only: a new mapping gets the same port until a
    /// `commit` has taken one. An inside endpoint whose mapping has expired and is not yet swept keeps its port.
    ///
    /// `Exhausted` where every port of the set is in use.
    #[inline(always)]
    pub fn propose_outbound(&self, protocol: Protocol, inside: K, now: Duration) -> Result<Proposal<K>, Refusal> {
        match self.table(protocol).find(&inside) {
            Some((id, mapping)) => Ok(self.existing(protocol, id, mapping)),
            None => self.propose_new(protocol, inside, now),
        }
    }

    /// The mapping an inbound packet would use at `now`. Reads only. `NoMapping` also where it has expired.
    #[inline(always)]
    pub fn propose_inbound(&self, protocol: Protocol, outside: Outside, now: Duration) -> Result<Proposal<K>, Refusal> {
        if outside.addr != self.addr {
            return Err(Refusal::NoMapping);
        }
        let table = self.table(protocol);
        match table.at_port(outside.port) {
            Some((id, mapping)) if !table.is_expired(mapping, Tick::reached(now)) => {
                Ok(self.existing(protocol, id, mapping))
            }
            _ => Err(Refusal::NoMapping),
        }
    }

    /// Outbound packet on its way: takes the port of a new mapping, refreshes an old one (RFC 4787 REQ-6), but not
    /// by a TCP RST (RFC 7857 §7.1). `flags` is for TCP alone.
    #[inline(always)]
    pub fn commit_outbound(&mut self, proposal: Proposal<K>, flags: TcpFlags, now: Duration) {
        let table = &mut self.tables[proposal.protocol as usize];
        let (id, fresh) = match proposal.mapping {
            Proposed::Existing(id) => match table.get(id).filter(|mapping| proposal.is_of(mapping)) {
                Some(mapping) => (id, table.is_expired(mapping, Tick::reached(now))),
                None => return,
            },
            Proposed::New(index) => {
                match table.insert(proposal.inside, index, Tick::starting(now), Tick::reached(now)) {
                    Some(id) => {
                        self.draws.advance();
                        (id, true)
                    }
                    None => return,
                }
            }
        };
        match proposal.protocol {
            Protocol::Udp | Protocol::Icmp => table.refresh(id, Idle::Short, Tick::starting(now)),
            Protocol::Tcp => {
                let before = if fresh { TcpState::default() } else { table.tcp(id) };
                let after = before.outbound(flags);
                table.set_tcp(id, after);
                if fresh || !flags.rst || before.is_established() != after.is_established() {
                    table.refresh(id, idle_time(after), Tick::starting(now));
                }
            }
        }
    }

    /// Inbound packet on its way: follows the state of TCP. Refreshes only established TCP: elsewhere a stranger
    /// could keep a mapping alive (RFC 4787 REQ-6 leaves the choice).
    #[inline(always)]
    pub fn commit_inbound(&mut self, proposal: Proposal<K>, flags: TcpFlags, now: Duration) {
        let (Protocol::Tcp, Proposed::Existing(id)) = (proposal.protocol, proposal.mapping) else { return };
        let table = &mut self.tables[Protocol::Tcp as usize];
        if !table.get(id).is_some_and(|mapping| proposal.is_of(mapping)) {
            return;
        }
        let before = table.tcp(id);
        let after = before.inbound(flags);
        table.set_tcp(id, after);
        if after.is_established() || before.is_established() {
            table.refresh(id, idle_time(after), Tick::starting(now));
        }
    }

    /// The existing mapping of an inside endpoint, for the packet quoted in an outbound ICMP error. Never refreshes
    /// (RFC 5508 REQ-6); `None` also where the mapping has expired.
    pub fn outside_of(&self, protocol: Protocol, inside: K, now: Duration) -> Option<Outside> {
        let table = self.table(protocol);
        let (_, mapping) = table.find(&inside)?;
        (!table.is_expired(mapping, Tick::reached(now))).then_some(Outside { addr: self.addr, port: mapping.port })
    }

    /// The earliest expiry; in the past where the last `handle_timeout` had more to end than it may at once.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.tables.iter().filter_map(Table::next_expiry).min().map(Tick::time)
    }

    /// Ends expired mappings, at most 256 of them.
    pub fn handle_timeout(&mut self, now: Duration) {
        let mut budget = SWEEP;
        for table in &mut self.tables {
            budget -= table.sweep(Tick::reached(now), budget);
        }
    }

    /// Mappings of a protocol now, those included that have expired and wait for `handle_timeout`.
    pub fn mappings(&self, protocol: Protocol) -> usize {
        self.table(protocol).len()
    }

    /// How many mappings a protocol can have: the ports of the set without port 0.
    pub fn capacity(&self, protocol: Protocol) -> usize {
        self.table(protocol).capacity()
    }

    #[inline]
    fn table(&self, protocol: Protocol) -> &Table<K> {
        &self.tables[protocol as usize]
    }

    #[inline]
    fn existing(&self, protocol: Protocol, id: Id, mapping: &Mapping<K>) -> Proposal<K> {
        let outside = Outside { addr: self.addr, port: mapping.port };
        Proposal { inside: mapping.inside, outside, protocol, mapping: Proposed::Existing(id) }
    }

    #[cold]
    fn propose_new(&self, protocol: Protocol, inside: K, now: Duration) -> Result<Proposal<K>, Refusal> {
        let class = match protocol {
            Protocol::Tcp | Protocol::Udp if inside.port() < 1024 => Class::System,
            _ => Class::Dynamic,
        };
        let table = self.table(protocol);
        let index = table.choose(class, self.draws.peek(), Tick::reached(now)).ok_or(Refusal::Exhausted)?;
        let port = table.port(index).ok_or(Refusal::Exhausted)?;
        Ok(Proposal { inside, outside: Outside { addr: self.addr, port }, protocol, mapping: Proposed::New(index) })
    }
}

impl<K: InsideKey> Proposal<K> {
    /// Whether the mapping is still the one that was proposed.
    #[inline]
    fn is_of(&self, mapping: &Mapping<K>) -> bool {
        mapping.port == self.outside.port && mapping.inside == self.inside
    }
}

#[inline]
fn idle_time(tcp: TcpState) -> Idle {
    if tcp.is_established() { Idle::Long } else { Idle::Short }
}
