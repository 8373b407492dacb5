//! IPv4 to IPv6 (RFC 7915 §4).

use std::net::Ipv6Addr;

use super::fragment::Split;
use super::mss;
use super::params::traffic_class;
use super::view::has_source_route;
use super::{
    AddressMap, Flow, Plan, Refusal, Translator, UdpZeroChecksum, V4View, icmp_error, is_illegal_v4, translated_offload,
};
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, adjust, adjust_partial, pseudo_v6, udp_nonzero};
use crate::wire::ip::{Fragment, be16, protocol};
use crate::wire::transport::Transport;
use crate::wire::{PacketBuf, VnetHdr};

/// Decides everything about one packet; changes nothing.
#[inline(always)]
pub fn plan<M: AddressMap>(
    packet: &PacketBuf,
    view: &V4View,
    map: &M,
    t: &Translator,
    plan: &mut Plan,
) -> Result<(), Refusal> {
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
        Transport::IcmpError { .. } => return icmp_error::plan_v4_to_v6(b, view, hop_limit, map, t, plan),
        Transport::IcmpOther { .. } => return Err(DropReason::IcmpType.into()),
        _ => {}
    }
    // Only an ICMP error is translated from whatever source it has (RFC 7915 §4.1).
    if is_illegal_v4(h.src) {
        return Err(DropReason::SourceIllegal.into());
    }
    let to = map.packet_v4_to_v6(&view.flow())?;
    let split = room(view, t)?;

    let copied = copied_len(&view.transport, h.protocol, h.payload_len());
    plan.start(h.header_len + copied, h.payload_len() - copied);
    let fragment = if split.is_some() { None } else { h.fragment() };
    let class = traffic_class(h.tos, t.params.dscp_v4_to_v6);
    put_header(plan, class, h.payload_len(), h.protocol, hop_limit, &to, fragment);
    let at = plan.head().len();
    put_transport(plan, b, view, &to, t)?;
    if let Transport::Tcp { flags, header_len, .. } = view.transport
        && flags & mss::SYN != 0
    {
        mss::clamp(plan, at, &b[h.header_len..], header_len, &t.params, view.offload.is_some());
    }
    if let Some(o) = view.offload {
        // A wrong family here makes the kernel lose packets without a word.
        plan.set_offload(Some(translated_offload(o, h.header_len, at, &view.transport, VnetHdr::GSO_TCPV6)));
    }
    plan.set_split(split);
    Ok(())
}

/// Octets of the transport header that the plan rewrites, options of TCP aside; `there` are so many.
#[inline(always)]
pub(super) fn copied_len(transport: &Transport, number: u8, there: usize) -> usize {
    match transport {
        Transport::Tcp { .. } => 20,
        Transport::Udp { .. } | Transport::Echo { .. } => 8,
        Transport::Other if has_checksum(number) && there >= 8 => 8,
        _ => 0,
    }
}

/// Protocols without port for us whose checksum covers the pseudo-header (RFC 4340 §9.1, RFC 3828 §3.1).
#[inline(always)]
fn has_checksum(number: u8) -> bool {
    matches!(number, protocol::DCCP | protocol::UDP_LITE)
}

/// RFC 7915 §4.1: too big with DF is refused, too big without is cut, unless it is an echo.
#[inline(always)]
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
    // Nobody translates fragmented ICMP (RFC 7915 §1.2): cut here, an echo would be lost at the next translator.
    if let Transport::Echo { .. } = view.transport {
        return if result <= mtu.ipv6 { Ok(None) } else { Err(DropReason::FragmentedIcmp.into()) };
    }
    let place = fragment.unwrap_or(Fragment { id: u32::from(h.id), offset: 0, more: false });
    Ok(Some(Split { max: max as usize, place }))
}

/// The IPv6 header of the result, with a Fragment header only where the packet is a fragment.
#[inline(always)]
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
    let extra = if fragment.is_some() { 8 } else { 0 };
    let mut head = [0; 40];
    head[0] = 0x60 | traffic_class >> 4;
    head[1] = traffic_class << 4;
    head[4..6].copy_from_slice(&((payload_len + extra) as u16).to_be_bytes());
    head[6] = if fragment.is_some() { protocol::FRAGMENT } else { next };
    head[7] = hop_limit;
    head[8..24].copy_from_slice(&to.src.octets());
    head[24..40].copy_from_slice(&to.dst.octets());
    plan.put_array(&head);
    if let Some(f) = fragment {
        plan.put(&[next, 0]);
        plan.put(&(f.offset as u16 | u16::from(f.more)).to_be_bytes());
        plan.put(&f.id.to_be_bytes());
    }
}

/// Ports, checksum and ICMP type: the transport header, at the end of the new front.
#[inline(always)]
fn put_transport(
    plan: &mut Plan,
    b: &[u8],
    view: &V4View,
    to: &Flow<Ipv6Addr>,
    t: &Translator,
) -> Result<(), DropReason> {
    let h = &view.header;
    let old = &b[h.header_len..];
    let partial = view.offload.is_some();
    let addresses = || Sum::ZERO.ipv6(to.src, to.dst).minus(Sum::ZERO.ipv4(h.src, h.dst));
    match view.transport {
        Transport::Tcp { .. } => put_tcp(plan, old, to, addresses(), partial),
        Transport::Udp { checksum: 0, dst, .. } if !partial => {
            let sum = match t.params.udp_zero_checksum {
                _ if t.params.forwards_zero_checksum(dst) => 0,
                UdpZeroChecksum::Compute if h.fragment().is_none() => udp_checksum(old, to),
                _ => return Err(DropReason::UdpChecksumZero),
            };
            put_udp(plan, old, to, Sum::ZERO, true);
            plan.patch(plan.head().len() - 2, sum.to_be_bytes());
        }
        Transport::Udp { .. } => put_udp(plan, old, to, addresses(), partial),
        Transport::Echo { request, .. } => {
            let pseudo = pseudo_v6(to.src, to.dst, h.payload_len(), protocol::ICMPV6);
            put_echo(plan, old, if request { 128 } else { 129 }, to.src_port, pseudo);
        }
        Transport::Other => put_other(plan, h.protocol, old, addresses),
        _ => {}
    }
    Ok(())
}

/// A TCP header with the ports of `to`.
#[inline(always)]
pub(super) fn put_tcp<A>(plan: &mut Plan, old: &[u8], to: &Flow<A>, addresses: Sum, partial: bool) {
    let Some(old) = old.first_chunk::<20>() else { return };
    let mut new = *old;
    put_ports(&mut new, to);
    let sum = checksum(old, be16(old, 16), to, addresses, partial);
    new[16..18].copy_from_slice(&sum.to_be_bytes());
    plan.put_array(&new);
}

/// A UDP header with the ports of `to`.
#[inline(always)]
pub(super) fn put_udp<A>(plan: &mut Plan, old: &[u8], to: &Flow<A>, addresses: Sum, partial: bool) {
    let Some(old) = old.first_chunk::<8>() else { return };
    let mut new = *old;
    put_ports(&mut new, to);
    let sum = checksum(old, be16(old, 6), to, addresses, partial);
    let sum = if partial { sum } else { udp_nonzero(sum) };
    new[6..8].copy_from_slice(&sum.to_be_bytes());
    plan.put_array(&new);
}

/// An echo header of another type and identifier; `pseudo` is what the pseudo-headers add.
#[inline(always)]
pub(super) fn put_echo(plan: &mut Plan, old: &[u8], kind: u8, id: u16, pseudo: Sum) {
    let Some(old) = old.first_chunk::<8>() else { return };
    let mut new = *old;
    new[0] = kind;
    new[4..6].copy_from_slice(&id.to_be_bytes());
    let gone = Sum::ZERO.word(be16(old, 0)).word(be16(old, 4));
    let sum = adjust(be16(old, 2), pseudo.word(be16(&new, 0)).word(id).minus(gone));
    new[2..4].copy_from_slice(&sum.to_be_bytes());
    plan.put_array(&new);
}

/// What has a checksum of a protocol without port for us: nothing, or 8 octets (RFC 7915 §4.5, §5.5).
#[inline(always)]
pub(super) fn put_other(plan: &mut Plan, number: u8, old: &[u8], addresses: impl FnOnce() -> Sum) {
    let Some(old) = old.first_chunk::<8>().filter(|_| has_checksum(number)) else { return };
    let mut new = *old;
    let sum = match (number, be16(old, 6)) {
        // It knows no packet without checksum: a zero is wrong, and stays so.
        (protocol::UDP_LITE, 0) => 0,
        (protocol::UDP_LITE, sum) => udp_nonzero(adjust(sum, addresses())),
        (_, sum) => adjust(sum, addresses()),
    };
    new[6..8].copy_from_slice(&sum.to_be_bytes());
    plan.put_array(&new);
}

#[inline(always)]
pub(super) fn put_ports<A>(new: &mut [u8], to: &Flow<A>) {
    new[0..2].copy_from_slice(&to.src_port.to_be_bytes());
    new[2..4].copy_from_slice(&to.dst_port.to_be_bytes());
}

/// A TCP or UDP checksum by difference. A partial one holds the pseudo-header alone, which has no ports.
#[inline(always)]
pub(super) fn checksum<A>(old: &[u8], field: u16, to: &Flow<A>, addresses: Sum, partial: bool) -> u16 {
    if partial {
        return adjust_partial(field, addresses);
    }
    let ports = Sum::ZERO.word(to.src_port).word(to.dst_port);
    adjust(field, addresses.plus(ports).minus(Sum::ZERO.word(be16(old, 0)).word(be16(old, 2))))
}

/// The checksum that an IPv4 sender left out (RFC 7915 §4.5).
fn udp_checksum(udp: &[u8], to: &Flow<Ipv6Addr>) -> u16 {
    let len = usize::from(be16(udp, 4)).min(udp.len());
    let ports = Sum::ZERO.word(to.src_port).word(to.dst_port).word(len as u16);
    let sum = pseudo_v6(to.src, to.dst, len, protocol::UDP).plus(ports).plus(Sum::of(&udp[8..len]));
    udp_nonzero(sum.checksum())
}
