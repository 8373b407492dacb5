//! A packet read once: headers, transport, offload request, each checked against the others.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Flow, FlowKind};
use crate::verdict::DropReason;
use crate::wire::ip::{self, Extent, Fragment, Ipv4Header, Ipv6Header, WireError, protocol};
use crate::wire::transport::{Family, Transport, TransportError};
use crate::wire::{PacketBuf, VnetHdr};

impl From<WireError> for DropReason {
    fn from(error: WireError) -> DropReason {
        match error {
            WireError::Version => DropReason::NotIp,
            WireError::Truncated => DropReason::HeaderTruncated,
            WireError::Length => DropReason::LengthMismatch,
            WireError::HeaderChecksum => DropReason::Ipv4HeaderChecksum,
            WireError::ExtensionHeader => DropReason::ExtensionHeader,
            WireError::Fragment => DropReason::FragmentIllegal,
        }
    }
}

impl From<TransportError> for DropReason {
    fn from(error: TransportError) -> DropReason {
        match error {
            TransportError::Truncated => DropReason::HeaderTruncated,
            TransportError::Length => DropReason::LengthMismatch,
        }
    }
}

/// An IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct V4View {
    /// The header.
    pub header: Ipv4Header,
    /// The transport header.
    pub transport: Transport,
    /// The checked offload request.
    pub offload: Option<VnetHdr>,
}

/// An IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct V6View {
    /// The header and its extensions.
    pub header: Ipv6Header,
    /// The transport header.
    pub transport: Transport,
    /// The checked offload request.
    pub offload: Option<VnetHdr>,
}

impl V4View {
    /// Reads a packet to be translated.
    #[inline(always)]
    pub fn parse(packet: &PacketBuf) -> Result<V4View, DropReason> {
        let b = packet.bytes();
        let header = Ipv4Header::parse(b, Extent::Whole)?;
        let transport = transport_v4(b, &header, Extent::Whole)?;
        let offload = check_offload(packet.offload(), header.header_len, header.total_len, &transport, false)?;
        if offload.is_some() && header.fragment().is_some() {
            return Err(DropReason::OffloadMismatch);
        }
        Ok(V4View { header, transport, offload })
    }

    /// Reads a packet quoted in an ICMP error.
    pub fn parse_quoted(b: &[u8]) -> Result<V4View, DropReason> {
        let header = Ipv4Header::parse(b, Extent::Quoted)?;
        let transport = transport_v4(b, &header, Extent::Quoted)?;
        Ok(V4View { header, transport, offload: None })
    }

    /// Who talks to whom.
    #[inline(always)]
    pub fn flow(&self) -> Flow<Ipv4Addr> {
        flow(self.header.src, self.header.dst, &self.transport, self.header.protocol)
    }

    /// Octets of the largest packet on the wire: one segment of a superpacket.
    #[inline(always)]
    pub fn wire_len(&self) -> usize {
        wire_len(self.header.header_len, self.header.total_len, &self.transport, self.offload)
    }
}

impl V6View {
    /// Reads a packet to be translated.
    #[inline(always)]
    pub fn parse(packet: &PacketBuf) -> Result<V6View, DropReason> {
        let b = packet.bytes();
        let header = Ipv6Header::parse(b, Extent::Whole)?;
        let transport = transport_v6(b, &header, Extent::Whole)?;
        let offload = check_offload(packet.offload(), header.header_len, header.total_len, &transport, true)?;
        // A device cuts no packet that already is a fragment.
        if offload.is_some() && header.fragment.is_some() {
            return Err(DropReason::OffloadMismatch);
        }
        Ok(V6View { header, transport, offload })
    }

    /// Reads a packet quoted in an ICMP error.
    pub fn parse_quoted(b: &[u8]) -> Result<V6View, DropReason> {
        let header = Ipv6Header::parse(b, Extent::Quoted)?;
        let transport = transport_v6(b, &header, Extent::Quoted)?;
        Ok(V6View { header, transport, offload: None })
    }

    /// Who talks to whom.
    #[inline(always)]
    pub fn flow(&self) -> Flow<Ipv6Addr> {
        flow(self.header.src, self.header.dst, &self.transport, self.header.protocol)
    }

    /// Octets of the largest packet on the wire: one segment of a superpacket.
    #[inline(always)]
    pub fn wire_len(&self) -> usize {
        wire_len(self.header.header_len, self.header.total_len, &self.transport, self.offload)
    }

    /// The Fragment header of a packet that really is a fragment.
    #[inline(always)]
    pub fn real_fragment(&self) -> Option<Fragment> {
        self.header.fragment.filter(|f| !f.is_atomic())
    }
}

#[inline(always)]
fn transport_v4(b: &[u8], h: &Ipv4Header, extent: Extent) -> Result<Transport, DropReason> {
    if matches!(h.protocol, protocol::ICMPV6 | protocol::FRAGMENT | protocol::ROUTING | protocol::DESTINATION_OPTIONS)
        || h.protocol == protocol::HOP_BY_HOP
        || h.protocol == protocol::IGMP
    {
        return Err(DropReason::ProtocolIllegal);
    }
    behind(Family::V4, h.protocol, b, h.header_len, h.total_len, h.fragment(), extent)
}

#[inline(always)]
fn transport_v6(b: &[u8], h: &Ipv6Header, extent: Extent) -> Result<Transport, DropReason> {
    if matches!(h.protocol, protocol::ICMP | protocol::IGMP) {
        return Err(DropReason::ProtocolIllegal);
    }
    let fragment = h.fragment.filter(|f| !f.is_atomic());
    behind(Family::V6, h.protocol, b, h.header_len, h.total_len, fragment, extent)
}

#[inline(always)]
fn behind(
    family: Family,
    number: u8,
    b: &[u8],
    header_len: usize,
    total_len: usize,
    fragment: Option<Fragment>,
    extent: Extent,
) -> Result<Transport, DropReason> {
    let icmp = number == if family == Family::V4 { protocol::ICMP } else { protocol::ICMPV6 };
    if let Some(f) = fragment {
        if icmp {
            return Err(DropReason::FragmentedIcmp);
        }
        if f.offset != 0 {
            // RFC 1858 §3.2.1, RFC 3128: offset 8 could overwrite the flags or the checksum of the first one.
            let hides = number == protocol::TCP && f.offset < 20;
            return if hides { Err(DropReason::FragmentIllegal) } else { Ok(Transport::Later { ports: None }) };
        }
    }
    let rest = b.get(header_len..b.len().min(total_len)).unwrap_or(&[]);
    let parsed = Transport::parse(family, number, rest, total_len - header_len, extent, fragment.is_none());
    match parsed {
        Err(TransportError::Truncated) if fragment.is_some() => Err(DropReason::FragmentIllegal),
        other => Ok(other?),
    }
}

#[inline(always)]
fn flow<A>(src: A, dst: A, transport: &Transport, number: u8) -> Flow<A> {
    let (src_port, dst_port, kind) = match *transport {
        Transport::Tcp { src, dst, .. } => (src, dst, FlowKind::Tcp),
        Transport::Udp { src, dst, .. } => (src, dst, FlowKind::Udp),
        Transport::Echo { id, .. } => (id, id, FlowKind::Echo),
        Transport::Later { ports: Some((src, dst)) } if number == protocol::TCP => (src, dst, FlowKind::Tcp),
        Transport::Later { ports: Some((src, dst)) } if number == protocol::UDP => (src, dst, FlowKind::Udp),
        Transport::Later { .. } => (0, 0, FlowKind::Later(number)),
        Transport::IcmpError { .. } | Transport::IcmpOther { .. } | Transport::Other => (0, 0, FlowKind::Other(number)),
    };
    Flow { src, dst, src_port, dst_port, kind }
}

fn transport_header_len(transport: &Transport) -> Option<usize> {
    match *transport {
        Transport::Tcp { header_len, .. } => Some(header_len),
        Transport::Udp { .. } => Some(8),
        _ => None,
    }
}

#[inline(always)]
fn wire_len(header_len: usize, total_len: usize, transport: &Transport, offload: Option<VnetHdr>) -> usize {
    match (offload, transport_header_len(transport)) {
        (Some(o), Some(l4)) if o.is_gso() => total_len.min(header_len + l4 + usize::from(o.gso_size)),
        _ => total_len,
    }
}

/// A device may lie or be confused; what its request says must be what the packet is.
#[inline(always)]
fn check_offload(
    offload: Option<VnetHdr>,
    header_len: usize,
    total_len: usize,
    transport: &Transport,
    v6: bool,
) -> Result<Option<VnetHdr>, DropReason> {
    let Some(o) = offload else { return Ok(None) };
    let (field, gso_type) = match (transport, v6) {
        (Transport::Tcp { .. }, false) => (16, VnetHdr::GSO_TCPV4),
        (Transport::Tcp { .. }, true) => (16, VnetHdr::GSO_TCPV6),
        (Transport::Udp { .. }, _) => (6, VnetHdr::GSO_UDP_L4),
        _ => return Err(DropReason::OffloadMismatch),
    };
    let agrees = o.needs_csum()
        && usize::from(o.csum_start) == header_len
        && o.csum_offset == field
        && (!o.is_gso() || (o.gso_type & !VnetHdr::GSO_ECN == gso_type && o.gso_size > 0))
        && transport_header_len(transport).is_some_and(|l4| header_len + l4 <= total_len);
    if agrees { Ok(Some(o)) } else { Err(DropReason::OffloadMismatch) }
}

/// The source-route check of RFC 7915 §4.1.
#[inline(always)]
pub(super) fn has_source_route(b: &[u8], header: &Ipv4Header) -> bool {
    header.header_len > 20 && ip::has_unexpired_source_route(&b[20..header.header_len])
}
