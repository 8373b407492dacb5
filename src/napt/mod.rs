//! NAPT out of a port set. `propose` only reads, `commit` takes the port and starts the timer.
//!
//! It returns addresses and ports and never touches bytes. Mapping is endpoint-independent (RFC 4787 REQ-1) while
//! ports are plenty: an inside endpoint has one outside port per protocol, whomever it talks to. When they are few, new
//! endpoints share ports towards different destinations (RFC 7857 §3), and nobody who has a port of its own loses it.
//! State is a flow's, made by outbound packets alone. Nothing is allocated after `new`.

#[cfg(debug_assertions)]
mod audit;
mod change;
mod clock;
mod counts;
mod events;
mod explicit;
mod flow;
mod keyed;
mod list;
mod params;
mod pool;
mod ports;
mod requests;
mod saved;
mod scarcity;
mod table;
mod tcp;

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::map::port_set::PortSet;
use clock::{Tick, Ticks};
use explicit::Explicit;
use flow::{Flow, Id};
use keyed::Draws;
use scarcity::Choice;
use table::{Settings, Table};

pub use change::Replaced;
pub use events::{Event, EventKind, Past, Why};
pub use explicit::{Allowed, Changed, Forward, Mapping, Nonce, Origin};
pub use list::{FlowState, FlowView};
pub use params::{Filter, Filtering, NaptParams, Sharing, Timers};
pub use requests::{Denied, Granted, Want};
pub use saved::{Restored, SavedFlow, SavedMapping, SavedState};

/// Flows and mappings that one `handle_timeout` ends at most.
const SWEEP: usize = 256;

/// What distinguishes hosts inside: (IPv4, port) for a CE; other keys serve other members of the family.
pub trait InsideKey: Copy + Eq + Hash + std::fmt::Debug {
    /// The port or ICMP identifier in it.
    fn port(&self) -> u16;
    /// The host in it.
    fn host(&self) -> u64;
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
    fn host(&self) -> u64 {
        self.addr.to_bits().into()
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
/// Whom a flow is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// address
    pub addr: Ipv4Addr,
    /// port
    pub port: u16,
}
impl Remote {
    /// Of echo identifiers, which are the same for all (RFC 5508 REQ-1).
    const ANYBODY: Remote = Remote { addr: Ipv4Addr::UNSPECIFIED, port: 0 };
}
/// The protocols that have ports; each has the whole port set to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
    /// echo identifiers
    Icmp,
}
impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
}
/// What TCP's timers and the check of a reset need of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// SYN, ACK, FIN, RST
    pub flags: TcpFlags,
    /// sequence number
    pub seq: u32,
    /// acknowledgement number
    pub ack: u32,
    /// octets of data
    pub len: u32,
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
/// Why nothing was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// no port of the set fits, or there are too many flows
    Exhausted,
    /// nobody inside has this port
    NoMapping,
    /// whoever has this port has not asked for packets of this sender
    Filtered,
}
/// A flow that `commit` will make or refresh. It holds until the next `commit` or `handle_timeout`; committed later it
/// may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal<K> {
    /// inside
    pub inside: K,
    /// outside
    pub outside: Outside,
    remote: Remote,
    protocol: Protocol,
    flow: Proposed,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proposed {
    Existing(Id),
    New(Choice),
    /// The filter lets it in; there is no flow, and it makes none.
    Admitted,
}
/// The state of one NAPT.
pub struct Napt<K: InsideKey> {
    addr: Ipv4Addr,
    draws: Draws,
    /// By `Protocol as usize`.
    tables: [Table<K>; 3],
    explicit: Explicit<K>,
}
impl<K: InsideKey> Napt<K> {
    /// A NAPT with one outside address. `seed` keys the choice of ports and the hashing of flows; a daemon draws it
    /// at random. Idle times are kept in quarters of a second, rounded up.
    ///
    /// A port of 0-1023 is given to an inside port of 0-1023 for as long as there are such, and any other to the
    /// rest (RFC 4787 REQ-3a); of UDP an odd one to an odd one (REQ-4); port 0 is never given. Forwards that cannot be
    /// are left out, see `set_forwards`.
    pub fn new(addr: Ipv4Addr, ports: PortSet, params: &NaptParams<K>, seed: u64) -> Self {
        let NaptParams { timers, max_flows, sharing, filtering, forwards } = params;
        let filter = if ports.params().k() > 0 { Filter::AddressDependent } else { Filter::EndpointIndependent };
        let threshold = (sharing.threshold > 0).then_some(sharing.threshold);
        let table = |protocol, idle: [Duration; 3]| Settings {
            addr,
            protocol,
            ports,
            idle: idle.map(Ticks::of),
            limit: *max_flows as usize,
            filter,
            threshold,
            sharing: Vec::new(),
            seed,
        };
        let tcp = table(Protocol::Tcp, [timers.tcp_opening, timers.tcp_established, timers.tcp_closing]);
        let udp = table(Protocol::Udp, [timers.udp; 3]);
        let icmp = table(Protocol::Icmp, [timers.icmp; 3]);
        let tables = [
            Settings { filter: filtering.tcp.unwrap_or(filter), sharing: sharing.tcp.clone(), ..tcp },
            Settings { filter: filtering.udp.unwrap_or(filter), sharing: sharing.udp.clone(), ..udp },
            // A flow for each identifier, with anybody.
            Settings { filter: Filter::EndpointIndependent, threshold: None, limit: ports.count() as usize, ..icmp },
        ];
        let explicit = Explicit::new();
        let mut napt = Napt { addr, draws: Draws::new(seed), tables: tables.map(Table::new), explicit };
        napt.set_forwards(forwards, Duration::ZERO);
        napt
    }

    /// The flow an outbound packet would use at `now`. Reads only: a new flow gets the same port until a `commit` has
    /// made one. A flow that has expired and is not yet swept keeps its port.
    ///
    /// `Exhausted` where no port of the set fits, or where there are too many flows.
    #[inline(always)]
    pub fn propose_outbound(
        &self,
        protocol: Protocol,
        inside: K,
        remote: Remote,
        now: Duration,
    ) -> Result<Proposal<K>, Refusal> {
        let remote = of(protocol, remote);
        match self.table(protocol).flows.between(&inside, remote) {
            Some((id, flow)) => Ok(self.existing(protocol, id, flow)),
            None => self.propose_new(protocol, inside, remote, now),
        }
    }

    /// Whom an inbound packet of `remote` would reach at `now`. Reads only. `NoMapping` also where all flows of the
    /// port have expired, `Filtered` where it has others.
    #[inline(always)]
    pub fn propose_inbound(
        &self,
        protocol: Protocol,
        outside: Outside,
        remote: Remote,
        now: Duration,
    ) -> Result<Proposal<K>, Refusal> {
        if outside.addr != self.addr {
            return Err(Refusal::NoMapping);
        }
        let remote = of(protocol, remote);
        let flows = &self.table(protocol).flows;
        match flows.at_port(outside.port, remote) {
            Some((id, flow)) if !flows.is_expired(flow, Tick::reached(now)) => Ok(self.existing(protocol, id, flow)),
            found => self.admit(protocol, outside, remote, found.is_some(), now),
        }
    }

    /// Outbound packet on its way: makes a new flow, refreshes an old one (RFC 4787 REQ-6), but not by a TCP RST
    /// (RFC 7857 §7.1). `segment` is for TCP alone, `None` where its header is not there.
    #[inline(always)]
    pub fn commit_outbound(&mut self, proposal: Proposal<K>, segment: Option<&Segment>, now: Duration) {
        let table = &mut self.tables[proposal.protocol as usize];
        let (id, fresh) = match proposal.flow {
            Proposed::Existing(id) => match table.flows.get(id).filter(|flow| proposal.is_of(flow)) {
                Some(flow) => (id, table.flows.is_expired(flow, Tick::reached(now))),
                None => return,
            },
            Proposed::New(choice) => match table.insert(proposal.inside, proposal.remote, choice, now) {
                Some(id) => {
                    self.draws.advance();
                    (id, true)
                }
                None => return,
            },
            Proposed::Admitted => return,
        };
        table.outbound(id, segment, fresh, Tick::starting(now));
    }

    /// Inbound packet on its way: follows the state of TCP, and knows a flow as answered. What the filter let in without
    /// a flow changes nothing.
    #[inline(always)]
    pub fn commit_inbound(&mut self, proposal: Proposal<K>, segment: Option<&Segment>, now: Duration) {
        let Proposed::Existing(id) = proposal.flow else { return };
        let table = &mut self.tables[proposal.protocol as usize];
        if table.flows.get(id).is_some_and(|flow| proposal.is_of(flow)) {
            table.inbound(id, segment, Tick::starting(now));
        }
    }

    /// The outside endpoint that an inside one has towards `remote`, for the packet quoted in an outbound ICMP error.
    /// Never refreshes (RFC 5508 REQ-6); `None` also where the flow has expired.
    pub fn outside_of(&self, protocol: Protocol, inside: K, remote: Remote, now: Duration) -> Option<Outside> {
        let remote = of(protocol, remote);
        let table = self.table(protocol);
        let found = table.flows.between(&inside, remote);
        let port = match found {
            Some((_, flow)) if !table.flows.is_expired(flow, Tick::reached(now)) => flow.port,
            // What the filter let in without a flow.
            _ => {
                let port = table.ports.port(table.ports.of_inside(&inside)?)?;
                let open = self.is_open(protocol, port, remote);
                table.admit(port, remote, found.is_some(), open, Tick::reached(now)).ok()?;
                port
            }
        };
        Some(Outside { addr: self.addr, port })
    }

    /// The earliest expiry; in the past where the last `handle_timeout` had more to end than it may at once.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let flows = self.tables.iter().filter_map(|table| table.flows.next_expiry());
        flows.chain(self.explicit.next_expiry()).min().map(Tick::time)
    }

    /// Ends expired flows and mappings, at most 256 of them.
    pub fn handle_timeout(&mut self, now: Duration) {
        let mut budget = SWEEP - self.expire(now, SWEEP);
        for table in &mut self.tables {
            budget -= table.sweep(Tick::reached(now), budget);
        }
    }

    /// Outside ports of a protocol in use now, those included whose flows have expired and wait for `handle_timeout`.
    pub fn ports_in_use(&self, protocol: Protocol) -> usize {
        self.capacity(protocol) - self.table(protocol).ports.free()
    }

    /// How many of them are shared by flows of any inside endpoints.
    pub fn shared_ports(&self, protocol: Protocol) -> usize {
        self.table(protocol).ports.shared().len()
    }

    /// Flows of a protocol now, as `ports_in_use`.
    pub fn flows(&self, protocol: Protocol) -> usize {
        self.table(protocol).flows.len()
    }

    /// Who may send to a port that is not shared.
    pub fn filter(&self, protocol: Protocol) -> Filter {
        self.table(protocol).filter
    }

    /// Flows of a protocol that ended since another needed their place.
    pub fn gave_way(&self, protocol: Protocol) -> u64 {
        self.table(protocol).log.gave_way
    }

    /// The outside address.
    pub fn address(&self) -> Ipv4Addr {
        self.addr
    }

    /// The ports, port 0 among them where it is of the set.
    pub fn port_set(&self) -> PortSet {
        self.tables[0].ports.set()
    }

    /// The ports of the set without port 0.
    pub fn capacity(&self, protocol: Protocol) -> usize {
        self.table(protocol).ports.capacity()
    }

    #[inline]
    fn table(&self, protocol: Protocol) -> &Table<K> {
        &self.tables[protocol as usize]
    }

    #[inline]
    fn existing(&self, protocol: Protocol, id: Id, flow: &Flow<K>) -> Proposal<K> {
        let outside = Outside { addr: self.addr, port: flow.port };
        Proposal { inside: flow.inside, outside, remote: flow.remote, protocol, flow: Proposed::Existing(id) }
    }

    #[cold]
    fn propose_new(
        &self,
        protocol: Protocol,
        inside: K,
        remote: Remote,
        now: Duration,
    ) -> Result<Proposal<K>, Refusal> {
        let table = self.table(protocol);
        let choice = table.choose(&inside, remote, self.draws.peek(), Tick::reached(now))?;
        let port = table.ports.port(choice.index).ok_or(Refusal::Exhausted)?;
        let outside = Outside { addr: self.addr, port };
        Ok(Proposal { inside, outside, remote, protocol, flow: Proposed::New(choice) })
    }

    #[cold]
    fn admit(
        &self,
        protocol: Protocol,
        outside: Outside,
        remote: Remote,
        expired: bool,
        now: Duration,
    ) -> Result<Proposal<K>, Refusal> {
        let open = self.is_open(protocol, outside.port, remote);
        let inside = self.table(protocol).admit(outside.port, remote, expired, open, Tick::reached(now))?;
        Ok(Proposal { inside, outside, remote, protocol, flow: Proposed::Admitted })
    }
}

impl<K: InsideKey> Proposal<K> {
    /// Whether the flow is still the one that was proposed.
    #[inline]
    fn is_of(&self, flow: &Flow<K>) -> bool {
        flow.port == self.outside.port && flow.inside == self.inside && flow.remote == self.remote
    }
}

/// Whom a flow of this protocol is with.
#[inline]
fn of(protocol: Protocol, remote: Remote) -> Remote {
    if protocol == Protocol::Icmp { Remote::ANYBODY } else { remote }
}
