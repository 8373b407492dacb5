//! Stateless translation by RFC 7915: a plan that only reads, then an `apply` that cannot fail.
//!
//! Addresses and ports come through [`AddressMap`]; MAP rules are one such map.

pub mod fragment;
pub mod icmp;
pub mod icmp_error;
mod mss;
pub mod mtu;
pub mod params;
pub mod plan;
pub mod v4_to_v6;
pub mod v6_to_v4;
pub mod view;

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::verdict::DropReason;
use crate::wire::VnetHdr;
use crate::wire::ip::protocol;
use crate::wire::transport::Transport;

pub use params::{MssClamp, Mtu, PortList, TranslationParams, UdpZeroChecksum};
pub use plan::Plan;
pub use view::{V4View, V6View};

/// What a flow's port fields mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowKind {
    /// TCP ports.
    Tcp,
    /// UDP ports.
    Udp,
    /// An ICMP echo identifier, in both port fields.
    Echo,
    /// A protocol without ports; both fields are 0.
    Other(u8),
    /// A later fragment of this protocol; both fields are 0.
    Later(u8),
}

impl FlowKind {
    /// Whether the port fields mean something.
    #[inline(always)]
    pub fn has_ports(self) -> bool {
        matches!(self, FlowKind::Tcp | FlowKind::Udp | FlowKind::Echo)
    }

    /// Why a flow of this kind cannot reach a shared address.
    pub fn portless_reason(self) -> DropReason {
        match self {
            FlowKind::Later(protocol::TCP | protocol::UDP) => DropReason::FragmentWithoutPort,
            _ => DropReason::ProtocolWithoutPort,
        }
    }
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, or echo identifier.
    pub src_port: u16,
    /// Destination port, or echo identifier.
    pub dst_port: u16,
    /// What the ports mean.
    pub kind: FlowKind,
}

impl<A> Flow<A> {
    /// The source port, where there is one.
    #[inline(always)]
    pub fn src_port(&self) -> Option<u16> {
        self.kind.has_ports().then_some(self.src_port)
    }

    /// The destination port, where there is one.
    #[inline(always)]
    pub fn dst_port(&self) -> Option<u16> {
        self.kind.has_ports().then_some(self.dst_port)
    }

    /// The same flow between other addresses.
    #[inline(always)]
    pub fn between<B>(&self, src: B, dst: B) -> Flow<B> {
        Flow { src, dst, src_port: self.src_port, dst_port: self.dst_port, kind: self.kind }
    }
}

/// An ICMP error: its own addresses, and the flow of the packet it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFlow<A> {
    /// Who reports.
    pub src: A,
    /// Who is told.
    pub dst: A,
    /// The packet in error; it travelled the other way.
    pub inner: Flow<A>,
    /// Whether `src` stands for a reporter that has no address of this family (RFC 6791 §3.2).
    pub substituted: bool,
}

/// The address strategy: which address and port of the other family stand for these.
///
/// It only reads; a refusal is the drop reason of the packet.
pub trait AddressMap {
    /// A packet that came as IPv4.
    fn packet_v4_to_v6(&self, flow: &Flow<Ipv4Addr>) -> Result<Flow<Ipv6Addr>, DropReason>;
    /// A packet that came as IPv6.
    fn packet_v6_to_v4(&self, flow: &Flow<Ipv6Addr>) -> Result<Flow<Ipv4Addr>, DropReason>;
    /// An ICMPv4 error and what it quotes.
    fn error_v4_to_v6(&self, error: &ErrorFlow<Ipv4Addr>) -> Result<ErrorFlow<Ipv6Addr>, DropReason>;
    /// An ICMPv6 error and what it quotes.
    fn error_v6_to_v4(&self, error: &ErrorFlow<Ipv6Addr>) -> Result<ErrorFlow<Ipv4Addr>, DropReason>;
}

/// Why there is no plan, with the number that the ICMP answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The drop reason.
    pub reason: DropReason,
    /// The MTU of a Packet Too Big, the pointer of a Parameter Problem, else 0.
    pub detail: u32,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Refusal {
        Refusal { reason, detail: 0 }
    }
}

/// Pseudo-random numbers for identifications and for the choice from a pool (xorshift64*).
#[derive(Debug)]
pub struct Randomness(Cell<u64>);

impl Randomness {
    /// Every seed gives a sequence of its own.
    pub fn new(seed: u64) -> Randomness {
        // splitmix64 spreads near seeds and avoids the fixed point 0.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Randomness(Cell::new((z ^ (z >> 31)) | 1))
    }

    /// The next 32 bits.
    #[inline(always)]
    pub fn next_u32(&self) -> u32 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// An IPv4 Identification; never 0, which some stacks take for "none".
    #[inline(always)]
    pub fn identification(&self) -> u16 {
        ((self.next_u32() >> 16) as u16).max(1)
    }
}

/// What every translation is given beside the packet.
#[derive(Debug)]
pub struct Translator {
    /// Configuration.
    pub params: TranslationParams,
    /// Identifications.
    pub random: Randomness,
}

/// IPv4 addresses that may never be a source of a packet to be forwarded (RFC 1812 §5.3.7, RFC 3927 §7).
#[inline(always)]
pub fn is_illegal_v4(a: Ipv4Addr) -> bool {
    let bits = u32::from(a);
    let first = bits >> 24;
    first == 0 || first == 127 || first >= 224 || bits >> 16 == 0xa9fe
}

/// IPv6 addresses that may never be a source of a packet to be forwarded (RFC 4291 §2.5.2, §2.5.3, §2.7).
#[inline(always)]
pub fn is_illegal_v6(a: Ipv6Addr) -> bool {
    let bits = u128::from(a);
    bits <= 1 || bits >> 120 == 0xff || bits >> 118 == 0x3fa
}

/// TTL or hop limit of the result. The kernel decrements it when it routes into the TUN and out of it again.
#[inline(always)]
fn hop_limit(value: u8, t: &Translator) -> Result<u8, DropReason> {
    match (t.params.decrement_hop_limit, value) {
        (false, value) => Ok(value),
        (true, 0 | 1) => Err(DropReason::HopLimit),
        (true, value) => Ok(value - 1),
    }
}

/// The offload request behind a header of another length and family.
fn translated_offload(o: VnetHdr, old_at: usize, new_at: usize, transport: &Transport, tcp: u8) -> VnetHdr {
    let moved = |at: u16| (usize::from(at) + new_at).saturating_sub(old_at) as u16;
    let gso_type = match transport {
        Transport::Tcp { .. } if o.is_gso() => tcp | (o.gso_type & VnetHdr::GSO_ECN),
        _ => o.gso_type,
    };
    let hdr_len = match transport {
        Transport::Tcp { header_len, .. } => (new_at + header_len) as u16,
        _ => (new_at + 8) as u16,
    };
    VnetHdr { flags: VnetHdr::NEEDS_CSUM, gso_type, hdr_len, csum_start: moved(o.csum_start), ..o }
}
