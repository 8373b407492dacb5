//! IPv4 to IPv6 (RFC 7915 §4).

use std::net::Ipv6Addr;

use super::fragment::Split;
use super::view::{checksum_at, has_source_route};
use super::{AddressMap, Flow, Plan, Refusal, Translator, UdpZeroChecksum, V4View, icmp_error, is_illegal_v4};
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, adjust, adjust_partial, pseudo_v6, udp_nonzero};
use crate::wire::ip::{Fragment, be16, protocol};
use crate::wire::transport::Transport;
use crate::wire::{PacketBuf, VnetHdr};

/// Decides everything about one packet; changes nothing.
#[inline]
pub fn plan<M: AddressMap>(packet: &PacketBuf, view: &V4View, map: &M, t: &Translator) -> Result<Plan, Refusal> {
    let h = &view.header;
    let b = &packet.bytes()[..h.total_len];
    if has_source_route(b, h) {
        return Err(DropReason::SourceRoute.into());
    }
    let hop_limit = super::hop_limit(h.ttl, t)?;
    if is_illegal_v4(h.dst) {
        return Err(DropReason::DestinationIllegal.into());
    }
    match view.transport {
        Transport::IcmpError { .. } => return icmp_error::plan_v4_to_v6(b, view, hop_limit, map, t),
        Transport::IcmpOther { .. } => return Err(DropReason::IcmpType.into()),
        _ => {}
    }
    // Only an ICMP error is translated from whatever source it has (RFC 7915 §4.1).
    if is_illegal_v4(h.src) {
        return Err(DropReason::SourceIllegal.into());
    }
    let to = map.packet_v4_to_v6(&view.flow())?;
    let split = room(view, t)?;

    let copied = copied_len(&view.transport);
    let mut plan = Plan::new(h.header_len + copied, h.payload_len() - copied);
    let fragment = if split.is_some() { None } else { h.fragment() };
    put_header(&mut plan, h.tos, h.payload_len(), h.protocol, hop_limit, &to, fragment);
    let at = plan.head().len();
    plan.put(&b[h.header_len..h.header_len + copied]);
    put_transport(&mut plan, at, b, view, &to, t)?;
    plan.set_offload(view.offload.map(|o| offload(o, view, at)));
    plan.set_split(split);
    Ok(plan)
}

/// Octets of the transport header that the plan rewrites.
#[inline]
pub(super) fn copied_len(transport: &Transport) -> usize {
    match transport {
        Transport::Tcp { .. } => 20,
        Transport::Udp { .. } | Transport::Echo { .. } => 8,
        _ => 0,
    }
}

/// RFC 7915 §4.1: too big with DF is refused, too big without is cut.
#[inline]
fn room(view: &V4View, t: &Translator) -> Result<Option<Split>, Refusal> {
    let h = &view.header;
    let mtu = &t.params.mtu;
    let len = view.wire_len() as u32;
    let fragment = h.fragment();
    let growth = if fragment.is_some() { 28 } else { 20 };
    if h.df {
        if len + growth > mtu.ipv6 {
            return Err(Refusal { reason: DropReason::TooBig, detail: mtu.ipv6 - growth });
        }
        return Ok(None);
    }
    let max = mtu.lowest_ipv6.min(mtu.ipv6);
    let result = len - h.header_len as u32 + 20 + growth;
    if result <= max {
        return Ok(None);
    }
    let place = fragment.unwrap_or(Fragment { id: u32::from(h.id), offset: 0, more: false });
    Ok(Some(Split { max: max as usize, place }))
}

/// The IPv6 header of the result, with a Fragment header only where the packet is a fragment.
#[inline]
pub(super) fn put_header(
    plan: &mut Plan,
    traffic_class: u8,
    payload_len: usize,
    number: u8,
    hop_limit: u8,
    to: &Flow<Ipv6Addr>,
    fragment: Option<Fragment>,
) {
    let next = if number == protocol::ICMP { protocol::ICMPV6 } else { number };
    let mut head = [0; 40];
    head[0] = 0x60 | traffic_class >> 4;
    head[1] = traffic_class << 4;
    let extra = if fragment.is_some() { 8 } else { 0 };
    head[4..6].copy_from_slice(&((payload_len + extra) as u16).to_be_bytes());
    head[6] = if fragment.is_some() { protocol::FRAGMENT } else { next };
    head[7] = hop_limit;
    head[8..24].copy_from_slice(&to.src.octets());
    head[24..40].copy_from_slice(&to.dst.octets());
    plan.put(&head);
    if let Some(f) = fragment {
        plan.put(&[next, 0]);
        plan.put(&(f.offset as u16 | u16::from(f.more)).to_be_bytes());
        plan.put(&f.id.to_be_bytes());
    }
}

/// Ports, checksum and ICMP type of the transport header that stands at `at` in the new front.
#[inline]
fn put_transport(
    plan: &mut Plan,
    at: usize,
    b: &[u8],
    view: &V4View,
    to: &Flow<Ipv6Addr>,
    t: &Translator,
) -> Result<(), DropReason> {
    let h = &view.header;
    match view.transport {
        Transport::Udp { checksum: 0, .. } if view.offload.is_none() => {
            put_ports(plan, at, to);
            let sum = match t.params.udp_zero_checksum {
                UdpZeroChecksum::Forward => 0,
                UdpZeroChecksum::Compute if h.fragment().is_none() => udp_checksum(b, view, to),
                _ => return Err(DropReason::UdpChecksumZero),
            };
            plan.patch(at + 6, &sum.to_be_bytes());
        }
        Transport::Tcp { .. } | Transport::Udp { .. } => {
            let ports =
                Sum::ZERO.word(to.src_port).word(to.dst_port).minus(Sum::of(&b[h.header_len..h.header_len + 4]));
            put_ports(plan, at, to);
            let addresses = Sum::ZERO.ipv6(to.src, to.dst).minus(Sum::ZERO.ipv4(h.src, h.dst));
            put_checksum(plan, at, &view.transport, view.offload.is_some(), addresses, ports);
        }
        Transport::Echo { request, id } => {
            let kind = if request { 128 } else { 129 };
            let new = pseudo_v6(to.src, to.dst, h.payload_len(), protocol::ICMPV6).word(kind << 8).word(to.src_port);
            let old = Sum::ZERO.word(be16(b, h.header_len)).word(id);
            put_echo(plan, at, kind as u8, to.src_port, new.minus(old));
        }
        _ => {}
    }
    Ok(())
}

#[inline]
pub(super) fn put_ports<A>(plan: &mut Plan, at: usize, to: &Flow<A>) {
    plan.patch(at, &to.src_port.to_be_bytes());
    plan.patch(at + 2, &to.dst_port.to_be_bytes());
}

/// Adjusts a TCP or UDP checksum. A partial one holds the pseudo-header alone, which has no ports.
#[inline]
pub(super) fn put_checksum(
    plan: &mut Plan,
    at: usize,
    transport: &Transport,
    partial: bool,
    addresses: Sum,
    ports: Sum,
) {
    let Some(field) = checksum_at(transport).map(|c| at + c) else { return };
    let old = be16(plan.head(), field);
    let new = if partial {
        adjust_partial(old, addresses)
    } else {
        let sum = adjust(old, addresses.plus(ports));
        if matches!(transport, Transport::Udp { .. }) { udp_nonzero(sum) } else { sum }
    };
    plan.patch(field, &new.to_be_bytes());
}

#[inline]
pub(super) fn put_echo(plan: &mut Plan, at: usize, kind: u8, id: u16, delta: Sum) {
    let sum = adjust(be16(plan.head(), at + 2), delta);
    plan.patch(at, &[kind]);
    plan.patch(at + 2, &sum.to_be_bytes());
    plan.patch(at + 4, &id.to_be_bytes());
}

/// The checksum that an IPv4 sender left out (RFC 7915 §4.5).
fn udp_checksum(b: &[u8], view: &V4View, to: &Flow<Ipv6Addr>) -> u16 {
    let udp = &b[view.header.header_len..];
    let len = usize::from(be16(udp, 4)).min(udp.len());
    let ports = Sum::ZERO.word(to.src_port).word(to.dst_port).word(len as u16);
    let sum = pseudo_v6(to.src, to.dst, len, protocol::UDP).plus(ports).plus(Sum::of(&udp[8..len]));
    udp_nonzero(sum.checksum())
}

/// The offload request of the result; a wrong family here makes the kernel lose packets without a word.
fn offload(o: VnetHdr, view: &V4View, transport_at: usize) -> VnetHdr {
    super::translated_offload(o, view.header.header_len, transport_at, &view.transport, VnetHdr::GSO_TCPV6)
}
