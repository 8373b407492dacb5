//! What a NAPT is told.
use std::time::Duration;

use super::{Forward, Inside};

/// Idle times, RFC 4787, 5382, 5508, 7857.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// UDP flow, default 300 s (RFC 4787 REQ-5).
    pub udp: Duration,
    /// TCP established, default 7440 s (RFC 5382 REQ-5).
    pub tcp_established: Duration,
    /// TCP partly open, default 240 s (RFC 5382 REQ-5, RFC 7857 §2.1).
    pub tcp_opening: Duration,
    /// TCP after both FINs or a reset, default 240 s (RFC 5382 REQ-5, RFC 7857 §2.1, §2.2).
    pub tcp_closing: Duration,
    /// ICMP query, default 60 s (RFC 5508 REQ-2).
    pub icmp: Duration,
}
impl Default for Timers {
    fn default() -> Self {
        Timers {
            udp: Duration::from_secs(300),
            tcp_established: Duration::from_secs(7440),
            tcp_opening: Duration::from_secs(240),
            tcp_closing: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
        }
    }
}

/// Who may answer to an endpoint-independent port (RFC 4787 §5, RFC 5382 §4.3). On a shared port only the very
/// endpoint of a flow may, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Anybody.
    EndpointIndependent,
    /// An address to which the home has a flow from that port.
    AddressDependent,
    /// An address and port to which the home has a flow from that port.
    AddressAndPortDependent,
}

/// A filter for each protocol (RFC 7857 §6). `None`: address-dependent where the address is shared (RFC 7599 §13),
/// else endpoint-independent (RFC 4787 REQ-8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filtering {
    /// TCP
    pub tcp: Option<Filter>,
    /// UDP
    pub udp: Option<Filter>,
}

/// When flows towards different destinations share a port (RFC 7857 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Percent of a protocol's ports, 0..=100: new inside endpoints share while fewer than this are free. 0: none
    /// ever shares; 100: all but the first do. Default 50.
    pub threshold: u8,
    /// TCP destination ports whose flows share however many are free. Default none: RFC 5382 REQ-1 to the letter.
    pub tcp: Vec<u16>,
    /// UDP destination ports whose flows share however many are free. Default none: sharing port 53 would leave
    /// fewer source ports to guess for whoever forges answers (RFC 5452 §4.5).
    pub udp: Vec<u16>,
}
impl Default for Sharing {
    fn default() -> Self {
        Sharing { threshold: 50, tcp: Vec::new(), udp: Vec::new() }
    }
}

/// All of a NAPT but its address and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaptParams<K = Inside> {
    /// Idle times.
    pub timers: Timers,
    /// Flows of TCP, and as many of UDP, 1..=1,048,576. Default 131,072. Each costs about 100 octets, reserved at
    /// the start and touched when first used.
    pub max_flows: u32,
    /// When ports are shared.
    pub sharing: Sharing,
    /// Who may send in.
    pub filtering: Filtering,
    /// Ports that are set.
    pub forwards: Vec<Forward<K>>,
}
impl Default for NaptParams {
    fn default() -> Self {
        NaptParams {
            timers: Timers::default(),
            max_flows: 131_072,
            sharing: Sharing::default(),
            filtering: Filtering::default(),
            forwards: Vec::new(),
        }
    }
}
