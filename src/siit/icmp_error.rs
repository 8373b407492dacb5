//! ICMP errors, with the packet that they quote (RFC 7915 §4.2, §4.3, §5.2, §5.3).

use super::icmp::{self, Field};
use super::v4_to_v6::{checksum, put_echo, put_tcp, put_udp};
use super::v6_to_v4::Ident;
use super::{
    AddressMap, ErrorFlow, Flow, Plan, Refusal, Translator, V4View, V6View, is_illegal_v4, mtu, v4_to_v6, v6_to_v4,
};
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::ip::{be16, protocol};
use crate::wire::transport::Transport;

/// RFC 4443 §2.4 (c).
const ICMPV6_MAX: usize = 1280;
/// RFC 1812 §4.3.2.3.
const ICMPV4_MAX: usize = 576;
const ICMP_HEADER: usize = 8;

/// An ICMPv4 error to ICMPv6. `b` is the whole packet.
pub fn plan_v4_to_v6<M: AddressMap>(
    b: &[u8],
    view: &V4View,
    hop_limit: u8,
    map: &M,
    t: &Translator,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let Transport::IcmpError { kind, code } = view.transport else { return Err(DropReason::IcmpType.into()) };
    let h = &view.header;
    let message = &b[h.header_len..];
    let translated = icmp::error_v4_to_v6(kind, code, message[4]).ok_or(DropReason::IcmpType)?;
    // A wrong checksum must not come out right (RFC 5508 REQ-3a).
    if !Sum::of(message).is_valid() {
        return Err(DropReason::IcmpChecksum.into());
    }
    let quoted = datagram(&message[ICMP_HEADER..], usize::from(message[5]) * 4);
    let inner = V4View::parse_quoted(quoted).map_err(|_| DropReason::IcmpInner)?;
    refuse_icmp_inside(&inner.transport)?;
    let to = map.error_v4_to_v6(&ErrorFlow { src: h.src, dst: h.dst, inner: inner.flow() })?;

    let ih = &inner.header;
    let quoted = &quoted[..quoted.len().min(ih.total_len)];
    let copied = copied_len(&inner.transport, quoted.len() - ih.header_len);
    let headers = 40 + ICMP_HEADER + 40 + if ih.fragment().is_some() { 8 } else { 0 } + copied;
    let tail = &quoted[ih.header_len + copied..];
    let tail = &tail[..tail.len().min(ICMPV6_MAX - headers)];
    let strip = h.header_len + ICMP_HEADER + ih.header_len + copied;
    plan.start(strip, tail.len());

    let outer = to.inner.between(to.src, to.dst);
    let len = headers - 40 + tail.len();
    v4_to_v6::put_header(plan, h.tos, len, protocol::ICMPV6, hop_limit, &outer, None);
    let field = match translated.field {
        Field::Unused => 0,
        Field::Pointer(at) => u32::from(at),
        Field::Mtu => mtu::v4_to_v6(be16(message, 6), ih.total_len, ih.fragment().is_some(), &t.params.mtu),
    };
    put_icmp(plan, translated.kind, translated.code, field);
    v4_to_v6::put_header(plan, ih.tos, ih.payload_len(), ih.protocol, ih.ttl, &to.inner, ih.fragment());
    let addresses = Sum::ZERO.ipv6(to.inner.src, to.inner.dst).minus(Sum::ZERO.ipv4(ih.src, ih.dst));
    let pseudo = pseudo_v6(to.inner.src, to.inner.dst, ih.payload_len(), protocol::ICMPV6);
    let segment = &quoted[ih.header_len..ih.header_len + copied];
    let [request, reply] = [128, 129];
    put_inner_transport(plan, segment, &inner.transport, &to.inner, addresses, pseudo, [request, reply]);

    let sum = pseudo_v6(to.src, to.dst, len, protocol::ICMPV6).plus(Sum::of(&plan.head()[40..])).plus(Sum::of(tail));
    plan.patch(42, sum.checksum().to_be_bytes());
    Ok(())
}

/// An ICMPv6 error to ICMPv4. `b` is the whole packet.
pub fn plan_v6_to_v4<M: AddressMap>(
    b: &[u8],
    view: &V6View,
    hop_limit: u8,
    map: &M,
    t: &Translator,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let Transport::IcmpError { kind, code } = view.transport else { return Err(DropReason::IcmpType.into()) };
    let h = &view.header;
    let message = &b[h.header_len..];
    let word = u32::from(be16(message, 4)) << 16 | u32::from(be16(message, 6));
    let translated = icmp::error_v6_to_v4(kind, code, word).ok_or(DropReason::IcmpType)?;
    if !pseudo_v6(h.src, h.dst, message.len(), protocol::ICMPV6).plus(Sum::of(message)).is_valid() {
        return Err(DropReason::IcmpChecksum.into());
    }
    // Only these two have the length attribute (RFC 4884 §4.4, §4.5).
    let attribute = if matches!(kind, 1 | 3) { usize::from(message[4]) * 8 } else { 0 };
    let quoted = datagram(&message[ICMP_HEADER..], attribute);
    let inner = V6View::parse_quoted(quoted).map_err(|_| DropReason::IcmpInner)?;
    refuse_icmp_inside(&inner.transport)?;
    let to = map.error_v6_to_v4(&ErrorFlow { src: h.src, dst: h.dst, inner: inner.flow() })?;
    if is_illegal_v4(to.dst) {
        return Err(DropReason::DestinationIllegal.into());
    }

    let ih = &inner.header;
    if ih.payload_len() + 20 > 65_535 {
        return Err(DropReason::IcmpInner.into());
    }
    let quoted = &quoted[..quoted.len().min(ih.total_len)];
    let copied = copied_len(&inner.transport, quoted.len() - ih.header_len);
    let headers = 20 + ICMP_HEADER + 20 + copied;
    let tail = &quoted[ih.header_len + copied..];
    // The least MTU of IPv4, 68, has room for all of them.
    let max = ICMPV4_MAX.min(t.params.mtu.ipv4 as usize);
    let tail = &tail[..tail.len().min(max.saturating_sub(headers))];
    let strip = h.header_len + ICMP_HEADER + ih.header_len + copied;
    plan.start(strip, tail.len());

    let outer = to.inner.between(to.src, to.dst);
    let len = headers - 20 + tail.len();
    v6_to_v4::put_header(plan, h.traffic_class, len, protocol::ICMP, hop_limit, &outer, Ident::fresh(t));
    let field = match translated.field {
        Field::Unused => 0,
        Field::Pointer(at) => u32::from(at) << 24,
        Field::Mtu => u32::from(mtu::v6_to_v4(word, ih.fragment.is_some(), &t.params.mtu)),
    };
    put_icmp(plan, translated.kind, translated.code, field);
    v6_to_v4::put_header(
        plan,
        ih.traffic_class,
        ih.payload_len(),
        ih.protocol,
        ih.hop_limit,
        &to.inner,
        Ident::of(&inner, t),
    );
    let addresses = Sum::ZERO.ipv4(to.inner.src, to.inner.dst).minus(Sum::ZERO.ipv6(ih.src, ih.dst));
    let pseudo = Sum::ZERO.minus(pseudo_v6(ih.src, ih.dst, ih.payload_len(), protocol::ICMPV6));
    let segment = &quoted[ih.header_len..ih.header_len + copied];
    put_inner_transport(plan, segment, &inner.transport, &to.inner, addresses, pseudo, [8, 0]);

    let sum = Sum::of(&plan.head()[20..]).plus(Sum::of(tail));
    plan.patch(22, sum.checksum().to_be_bytes());
    Ok(())
}

/// The quoted datagram, without an RFC 4884 extension behind it.
fn datagram(quoted: &[u8], attribute: usize) -> &[u8] {
    if attribute == 0 { quoted } else { &quoted[..attribute.min(quoted.len())] }
}

/// RFC 7915 §4.3, §5.3: the packet in error is translated once, and never an error itself.
fn refuse_icmp_inside(transport: &Transport) -> Result<(), DropReason> {
    match transport {
        Transport::IcmpError { .. } | Transport::IcmpOther { .. } => Err(DropReason::IcmpInner),
        _ => Ok(()),
    }
}

/// Octets of the quoted transport header that are rewritten: what there is of it.
fn copied_len(transport: &Transport, there: usize) -> usize {
    v4_to_v6::copied_len(transport).min(there)
}

fn put_icmp(plan: &mut Plan, kind: u8, code: u8, field: u32) {
    plan.put(&[kind, code, 0, 0]);
    plan.put(&field.to_be_bytes());
}

/// Ports, identifier, type and, as far as it is quoted, the checksum of the packet in error.
fn put_inner_transport<A>(
    plan: &mut Plan,
    segment: &[u8],
    transport: &Transport,
    to: &Flow<A>,
    addresses: Sum,
    pseudo: Sum,
    echo: [u8; 2],
) {
    match *transport {
        Transport::Tcp { .. } if segment.len() >= 20 => put_tcp(plan, segment, to, addresses, false),
        // The quote ends before the header does, often before its checksum.
        Transport::Tcp { .. } => {
            let at = plan.head().len();
            plan.put(segment);
            plan.patch(at, to.src_port.to_be_bytes());
            plan.patch(at + 2, to.dst_port.to_be_bytes());
            if segment.len() >= 18 {
                let sum = checksum(segment, be16(segment, 16), to, addresses, false);
                plan.patch(at + 16, sum.to_be_bytes());
            }
        }
        // The sender had left the checksum out; it is quoted as it was sent.
        Transport::Udp { checksum: 0, .. } => {
            put_udp(plan, segment, to, addresses, false);
            plan.patch(plan.head().len() - 2, [0, 0]);
        }
        Transport::Udp { .. } => put_udp(plan, segment, to, addresses, false),
        Transport::Echo { request, .. } => {
            put_echo(plan, segment, if request { echo[0] } else { echo[1] }, to.src_port, pseudo);
        }
        _ => plan.put(segment),
    }
}
