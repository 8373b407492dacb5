//! ICMP errors, with the packet that they quote (RFC 7915 §4.2, §4.3, §5.2, §5.3).

use std::net::Ipv6Addr;

use super::icmp::{self, Field};
use super::params::traffic_class;
use super::plan::{Behind, OWN};
use super::v4_to_v6::{checksum, put_echo, put_other, put_tcp, put_udp};
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
/// RFC 4884 §3: the least quote in front of an extension.
const QUOTE_LEAST: usize = 128;

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
    let (quoted, extension) = datagram(message, usize::from(message[5]) * 4);
    let inner = V4View::parse_quoted(quoted).map_err(|_| DropReason::IcmpInner)?;
    refuse_icmp_inside(&inner.transport)?;
    let to = map.error_v4_to_v6(&ErrorFlow { src: h.src, dst: h.dst, inner: inner.flow(), substituted: false })?;

    let ih = &inner.header;
    let quoted = &quoted[..quoted.len().min(ih.total_len)];
    let copied = copied_len(&inner.transport, ih.protocol, quoted.len() - ih.header_len);
    let front = 40 + if ih.fragment().is_some() { 8 } else { 0 } + copied;
    let tail = &quoted[ih.header_len + copied..];
    // RFC 4884 §4.6: no other type has a place for the attribute.
    let extension = if matches!(translated.kind, 1 | 3) { extension } else { &[] };
    let place = Place::of(front, tail.len(), extension.len(), ICMPV6_MAX - 40 - ICMP_HEADER, 8);
    let tail = &tail[..place.tail];
    plan.start(h.header_len + ICMP_HEADER + ih.header_len + copied, tail.len());
    let extension = if place.attribute > 0 { extension } else { &[] };
    if place.attribute > 0 {
        plan.set_behind(Behind::Moved { pad: place.pad, from: b.len() - extension.len(), len: extension.len() });
    }

    let outer = to.inner.between(to.src, to.dst);
    let len = ICMP_HEADER + front + tail.len() + place.pad + extension.len();
    v4_to_v6::put_header(
        plan,
        traffic_class(h.tos, t.params.dscp_v4_to_v6),
        len,
        protocol::ICMPV6,
        hop_limit,
        &outer,
        None,
    );
    let field = match translated.field {
        Field::Unused => u32::from(place.attribute) << 24,
        Field::Pointer(at) => u32::from(at),
        Field::Mtu => mtu::v4_to_v6(be16(message, 6), ih.total_len, ih.fragment().is_some(), &t.params.mtu),
    };
    put_icmp(plan, translated.kind, translated.code, field);
    v4_to_v6::put_header(plan, ih.tos, ih.payload_len(), ih.protocol, ih.ttl, &to.inner, ih.fragment());
    let addresses = Sum::ZERO.ipv6(to.inner.src, to.inner.dst).minus(Sum::ZERO.ipv4(ih.src, ih.dst));
    let pseudo = pseudo_v6(to.inner.src, to.inner.dst, ih.payload_len(), protocol::ICMPV6);
    let segment = &quoted[ih.header_len..ih.header_len + copied];
    let [request, reply] = [128, 129];
    put_inner_transport(plan, segment, (&inner.transport, ih.protocol), &to.inner, addresses, pseudo, [request, reply]);

    let body = Sum::of(&plan.head()[40..]).plus(Sum::of(tail)).plus(Sum::of(extension));
    let sum = pseudo_v6(to.src, to.dst, len, protocol::ICMPV6).plus(body);
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
    let (quoted, extension) = datagram(message, attribute);
    let inner = V6View::parse_quoted(quoted).map_err(|_| DropReason::IcmpInner)?;
    refuse_icmp_inside(&inner.transport)?;
    let to = map.error_v6_to_v4(&ErrorFlow { src: h.src, dst: h.dst, inner: inner.flow(), substituted: false })?;
    if is_illegal_v4(to.dst) {
        return Err(DropReason::DestinationIllegal.into());
    }

    let ih = &inner.header;
    if ih.payload_len() + 20 > 65_535 {
        return Err(DropReason::IcmpInner.into());
    }
    let quoted = &quoted[..quoted.len().min(ih.total_len)];
    let copied = copied_len(&inner.transport, ih.protocol, quoted.len() - ih.header_len);
    let front = 20 + copied;
    let tail = &quoted[ih.header_len + copied..];
    // The least MTU of IPv4, 68, has room for all headers.
    let max = ICMPV4_MAX.min(t.params.mtu.ipv4 as usize) - 20 - ICMP_HEADER;
    let names_reporter = t.params.rfc5837_object && to.substituted && extension.is_empty() && matches!(kind, 1 | 3);
    let own = names_reporter.then(|| interface_information(h.src));
    let extension = own.as_ref().map_or(extension, |own| &own[..]);
    let place = Place::of(front, tail.len(), extension.len(), max, 4);
    let tail = &tail[..place.tail];
    plan.start(h.header_len + ICMP_HEADER + ih.header_len + copied, tail.len());
    let extension = if place.attribute > 0 { extension } else { &[] };
    match own {
        _ if place.attribute == 0 => {}
        Some(bytes) => plan.set_behind(Behind::Own { pad: place.pad, bytes }),
        None => {
            plan.set_behind(Behind::Moved { pad: place.pad, from: b.len() - extension.len(), len: extension.len() });
        }
    }

    let outer = to.inner.between(to.src, to.dst);
    let len = ICMP_HEADER + front + tail.len() + place.pad + extension.len();
    let tos = traffic_class(h.traffic_class, t.params.dscp_v6_to_v4);
    v6_to_v4::put_header(plan, tos, len, protocol::ICMP, hop_limit, &outer, Ident::fresh(t));
    let field = match translated.field {
        Field::Unused => u32::from(place.attribute) << 16,
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
    put_inner_transport(plan, segment, (&inner.transport, ih.protocol), &to.inner, addresses, pseudo, [8, 0]);

    let sum = Sum::of(&plan.head()[20..]).plus(Sum::of(tail)).plus(Sum::of(extension));
    plan.patch(22, sum.checksum().to_be_bytes());
    Ok(())
}

/// The quoted datagram, and the RFC 4884 extension behind it. An attribute that says more than is there says nothing.
fn datagram(message: &[u8], attribute: usize) -> (&[u8], &[u8]) {
    let quoted = &message[ICMP_HEADER..];
    if attribute == 0 || attribute >= quoted.len() { (quoted, &[]) } else { quoted.split_at(attribute) }
}

/// How quote and extension share an ICMP error.
struct Place {
    /// Octets of the packet that stay behind the front of the quote.
    tail: usize,
    /// Zeros behind them.
    pad: usize,
    /// RFC 4884 §4.1, §4.4: words of the quote, zeros included; 0 where there is no extension.
    attribute: u8,
}

impl Place {
    /// Of a quote with `front` new octets and `tail` old ones, in `max` octets behind the ICMP header; `word` is
    /// what the attribute counts. An extension has the quote cut, to 128 octets at the least; what still does not
    /// fit is left out (RFC 4884 §3).
    fn of(front: usize, tail: usize, extension: usize, max: usize, word: usize) -> Place {
        let room = max.saturating_sub(extension) / word * word;
        if extension == 0 || room < QUOTE_LEAST {
            return Place { tail: tail.min(max.saturating_sub(front)), pad: 0, attribute: 0 };
        }
        let quote = (front + tail).next_multiple_of(word).max(QUOTE_LEAST).min(room);
        let tail = tail.min(quote - front);
        Place { tail, pad: quote - front - tail, attribute: (quote / word) as u8 }
    }
}

/// An extension with the address of a reporter that IPv4 cannot name (RFC 6791 §4): RFC 4884 §7's header, and RFC
/// 5837 §4's Interface Information Object of an incoming interface, which has an address and nothing else.
fn interface_information(reporter: Ipv6Addr) -> [u8; OWN] {
    let mut b = [0; OWN];
    b[0] = 0x20;
    // Length 24, class 2, C-Type "IP address"; then the address family of IPv6, 2, and two octets reserved.
    b[4..12].copy_from_slice(&[0, 24, 2, 0x04, 0, 2, 0, 0]);
    b[12..].copy_from_slice(&reporter.octets());
    let sum = Sum::of_array(&b).checksum();
    b[2..4].copy_from_slice(&sum.to_be_bytes());
    b
}

/// RFC 7915 §4.3, §5.3: the packet in error is translated once, and never an error itself.
fn refuse_icmp_inside(transport: &Transport) -> Result<(), DropReason> {
    match transport {
        Transport::IcmpError { .. } | Transport::IcmpOther { .. } => Err(DropReason::IcmpInner),
        _ => Ok(()),
    }
}

/// Octets of the quoted transport header that are rewritten: what there is of it.
fn copied_len(transport: &Transport, number: u8, there: usize) -> usize {
    v4_to_v6::copied_len(transport, number, there).min(there)
}

fn put_icmp(plan: &mut Plan, kind: u8, code: u8, field: u32) {
    plan.put(&[kind, code, 0, 0]);
    plan.put(&field.to_be_bytes());
}

/// Ports, identifier, type and, as far as it is quoted, the checksum of the packet in error.
fn put_inner_transport<A>(
    plan: &mut Plan,
    segment: &[u8],
    (transport, number): (&Transport, u8),
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
        _ => put_other(plan, number, segment, || addresses),
    }
}
