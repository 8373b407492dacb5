//! NAPT out of a port set. `propose` only reads, `commit` takes the port and starts the timer.
//!
//! It returns addresses and ports and never touches bytes.
use crate::map::port_set::PortSet;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What distinguishes hosts inside: (IPv4, port) for a CE; other keys serve other members of the family.
pub trait InsideKey: Copy + Eq + Hash + std::fmt::Debug {
    /// The port or ICMP identifier in it.
    fn port(&self) -> u16;
}
/// An endpoint in the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inside {
    /// address
    pub addr: Ipv4Addr,
    /// port or ICMP identifier
    pub port: u16,
}
impl InsideKey for Inside {
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
/// A mapping that `commit` will make or refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal<K> {
    /// inside
    pub inside: K,
    /// outside
    pub outside: Outside,
    protocol: Protocol,
}
/// The state of one NAPT.
pub struct Napt<K: InsideKey> {
    _k: std::marker::PhantomData<K>,
}
impl<K: InsideKey> Napt<K> {
    /// A NAPT with one outside address. `seed` keys the choice of ports.
    pub fn new(_addr: Ipv4Addr, _ports: PortSet, _timers: Timers, _seed: u64) -> Self {
        todo!()
    }
    /// The mapping an outbound packet would use at `now`: an expired one is absent even before its sweep. Reads only.
    #[inline]
    pub fn propose_outbound(&self, _protocol: Protocol, _inside: K, _now: Duration) -> Result<Proposal<K>, Refusal> {
        todo!()
    }
    /// The mapping an inbound packet would use. Reads only.
    #[inline]
    pub fn propose_inbound(
        &self,
        _protocol: Protocol,
        _outside: Outside,
        _now: Duration,
    ) -> Result<Proposal<K>, Refusal> {
        todo!()
    }
    /// Outbound packet on its way: takes the port of a new mapping, refreshes an old one.
    #[inline]
    pub fn commit_outbound(&mut self, _proposal: Proposal<K>, _flags: TcpFlags, _now: Duration) {}
    /// Inbound packet on its way: follows TCP state; refreshes only what RFC 4787 REQ-6 allows.
    #[inline]
    pub fn commit_inbound(&mut self, _proposal: Proposal<K>, _flags: TcpFlags, _now: Duration) {}
    /// The existing mapping of an inside endpoint, for the packet quoted in an outbound ICMP error. Never refreshes.
    pub fn outside_of(&self, _protocol: Protocol, _inside: K, _now: Duration) -> Option<Outside> {
        todo!()
    }
    /// The earliest expiry.
    pub fn poll_timeout(&self) -> Option<Duration> {
        todo!()
    }
    /// Ends up to a bounded number of expired mappings.
    pub fn handle_timeout(&mut self, _now: Duration) {
        todo!()
    }
    /// Mappings of a protocol now.
    pub fn mappings(&self, _protocol: Protocol) -> usize {
        todo!()
    }
}
