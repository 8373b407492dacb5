//! IPv6 to IPv4 (RFC 7915 §5).

use std::net::Ipv4Addr;

use super::fragment::Split;
use super::mss;
use super::params::traffic_class;
use super::v4_to_v6::{copied_len, put_echo, put_other, put_tcp, put_udp};
use super::{
    AddressMap, Flow, Plan, Refusal, Translator, V6View, icmp_error, is_illegal_v4, is_illegal_v6, translated_offload,
};
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::ip::{Fragment, protocol};
use crate::wire::transport::Transport;
use crate::wire::{PacketBuf, VnetHdr};

/// Up to this length the result may be fragmented on its way (RFC 7915 §5.1).
const DF_CLEAR_MAX: usize = 1260;
const IPV6_LEAST: usize = 1280;

/// Decides everything about one packet; changes nothing.
#[inline(always)]
pub fn plan<M: AddressMap>(
    packet: &PacketBuf,
    view: &V6View,
    map: &M,
    t: &Translator,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let h = &view.header;
    let b = &packet.bytes()[..h.total_len];
    if let Some(at) = h.segments_left_at {
        return Err(Refusal { reason: DropReason::RoutingHeader, detail: at as u32 });
    }
    let hop_limit = super::hop_limit(h.hop_limit, t)?;
    if is_illegal_v6(h.src) {
        return Err(DropReason::SourceIllegal.into());
    }
    match view.transport {
        Transport::IcmpError { .. } => return icmp_error::plan_v6_to_v4(b, view, hop_limit, map, t, plan),
        Transport::IcmpOther { .. } => return Err(DropReason::IcmpType.into()),
        Transport::Udp { checksum: 0, dst, .. } if view.offload.is_none() && !t.params.forwards_zero_checksum(dst) => {
            return Err(DropReason::UdpChecksumZero.into());
        }
        _ => {}
    }
    let to = map.packet_v6_to_v4(&view.flow())?;
    if is_illegal_v4(to.dst) {
        return Err(DropReason::DestinationIllegal.into());
    }
    if is_illegal_v4(to.src) {
        return Err(DropReason::SourceIllegal.into());
    }
    let split = room(view, t)?;

    let copied = copied_len(&view.transport, h.protocol, h.payload_len());
    plan.start(h.header_len + copied, h.payload_len() - copied);
    let tos = traffic_class(h.traffic_class, t.params.dscp_v6_to_v4);
    put_header(plan, tos, h.payload_len(), h.protocol, hop_limit, &to, Ident::of(view, t));
    let at = plan.head().len();
    put_transport(plan, b, view, &to);
    if let Transport::Tcp { flags, header_len, .. } = view.transport
        && flags & mss::SYN != 0
    {
        mss::clamp(plan, at, &b[h.header_len..], header_len, &t.params, view.offload.is_some());
    }
    if let Some(o) = view.offload {
        plan.set_offload(Some(translated_offload(o, h.header_len, at, &view.transport, VnetHdr::GSO_TCPV4)));
    }
    plan.set_split(split);
    Ok(())
}

/// RFC 7915 §1.4, §5.1.1: too big is refused, unless no IPv6 link has to carry so little.
#[inline(always)]
fn room(view: &V6View, t: &Translator) -> Result<Option<Split>, Refusal> {
    let h = &view.header;
    let total = h.payload_len() + 20;
    if total > 65_535 {
        return Err(DropReason::TooLongForIpv4.into());
    }
    let max = t.params.mtu.ipv4 as usize;
    let len = view.wire_len();
    if len - h.header_len + 20 <= max {
        return Ok(None);
    }
    if len > IPV6_LEAST {
        let detail = (max + 20).max(IPV6_LEAST) as u32;
        return Err(Refusal { reason: DropReason::TooBig, detail });
    }
    let place = view.real_fragment().unwrap_or(Fragment { id: 0, offset: 0, more: false });
    Ok(Some(Split { max, place }))
}

/// Identification, flags and offset of an IPv4 header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ident {
    id: u16,
    flags: u16,
}

impl Ident {
    /// The two columns of RFC 7915 §5.1 and §5.1.1.
    #[inline(always)]
    pub(super) fn of(view: &V6View, t: &Translator) -> Ident {
        match view.header.fragment {
            Some(f) => {
                let more = if f.more { 0x2000 } else { 0 };
                Ident { id: f.id as u16, flags: (f.offset / 8) as u16 | more }
            }
            None => {
                let len = view.wire_len() - view.header.header_len + 20;
                let flags = if len > DF_CLEAR_MAX { 0x4000 } else { 0 };
                Ident { id: t.random.identification(), flags }
            }
        }
    }

    /// A short packet of its own.
    pub(super) fn fresh(t: &Translator) -> Ident {
        Ident { id: t.random.identification(), flags: 0 }
    }
}

/// The IPv4 header of the result, with its checksum.
#[inline(always)]
pub(super) fn put_header(
    plan: &mut Plan,
    tos: u8,
    payload_len: usize,
    number: u8,
    ttl: u8,
    to: &Flow<Ipv4Addr>,
    ident: Ident,
) {
    let mut head = [0; 20];
    head[0] = 0x45;
    head[1] = tos;
    head[2..4].copy_from_slice(&((payload_len + 20) as u16).to_be_bytes());
    head[4..6].copy_from_slice(&ident.id.to_be_bytes());
    head[6..8].copy_from_slice(&ident.flags.to_be_bytes());
    head[8] = ttl;
    head[9] = if number == protocol::ICMPV6 { protocol::ICMP } else { number };
    head[12..16].copy_from_slice(&to.src.octets());
    head[16..20].copy_from_slice(&to.dst.octets());
    let sum = Sum::of_array(&head).checksum();
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    plan.put_array(&head);
}

/// Ports, checksum and ICMP type: the transport header, at the end of the new front.
#[inline(always)]
fn put_transport(plan: &mut Plan, b: &[u8], view: &V6View, to: &Flow<Ipv4Addr>) {
    let h = &view.header;
    let old = &b[h.header_len..];
    let partial = view.offload.is_some();
    let addresses = || Sum::ZERO.ipv4(to.src, to.dst).minus(Sum::ZERO.ipv6(h.src, h.dst));
    match view.transport {
        Transport::Tcp { .. } => put_tcp(plan, old, to, addresses(), partial),
        // IPv4 takes it without (RFC 768).
        Transport::Udp { checksum: 0, .. } if !partial => put_udp(plan, old, to, Sum::ZERO, true),
        Transport::Udp { .. } => put_udp(plan, old, to, addresses(), partial),
        Transport::Echo { request, .. } => {
            let pseudo = Sum::ZERO.minus(pseudo_v6(h.src, h.dst, h.payload_len(), protocol::ICMPV6));
            put_echo(plan, old, if request { 8 } else { 0 }, to.src_port, pseudo);
        }
        Transport::Other => put_other(plan, h.protocol, old, addresses),
        _ => {}
    }
}
