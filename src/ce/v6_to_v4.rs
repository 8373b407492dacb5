//! From the world to the home (RFC 7599 §8.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{CeMap, protocol_of, refused};
use crate::map::Psid;
use crate::mapping::{extract, owner};
use crate::napt::{Inside, Outside, Refusal, Remote};
use crate::siit::{ErrorFlow, Flow, FlowKind};
use crate::verdict::DropReason;

/// Destination ours, source by DMR or FMR, port in our set, then back through the NAPT.
#[inline]
pub(super) fn packet(map: &CeMap, flow: &Flow<Ipv6Addr>) -> Result<Flow<Ipv4Addr>, DropReason> {
    map.rule.set(Some(map.customer.rule));
    let dst = own(map, flow.dst)?;
    let src = remote(map, flow.src, flow.src_port(), flow.kind)?;
    check_port(map, flow.dst_port(), flow.kind)?;
    let mut out = flow.between(src, dst);
    if let Some(napt) = map.napt {
        let outside = Outside { addr: dst, port: flow.dst_port };
        let remote = Remote { addr: src, port: flow.src_port };
        let proposal = napt.propose_inbound(protocol_of(flow.kind)?, outside, remote, map.now).map_err(|refusal| {
            if (refusal, flow.kind) == (Refusal::NoMapping, FlowKind::Tcp) {
                map.nobody.set(Some((outside, remote)));
            }
            refused(refusal)
        })?;
        map.proposal.set(Some(proposal));
        out = Flow { dst: proposal.inside.addr, dst_port: proposal.inside.port, ..out };
        if out.kind == FlowKind::Echo {
            out.src_port = out.dst_port;
        }
    }
    Ok(out)
}

/// The packet in error came from the home: its source is the outside end of a mapping.
pub(super) fn error(map: &CeMap, error: &ErrorFlow<Ipv6Addr>) -> Result<ErrorFlow<Ipv4Addr>, DropReason> {
    map.rule.set(Some(map.customer.rule));
    let inner = &error.inner;
    own(map, error.dst)?;
    let customer = own(map, inner.src)?;
    check_port(map, inner.src_port(), inner.kind)?;
    let peer = remote(map, inner.dst, inner.dst_port(), inner.kind)?;
    let reporter = remote(map, error.src, inner.dst_port(), inner.kind).ok();
    // A router on the way has no IPv4 address (RFC 6791 §3.2).
    let substituted = reporter.is_none();
    let reporter = reporter.unwrap_or_else(|| map.pool[map.random.next_u32() as usize % map.pool.len()]);
    let mut out = inner.between(customer, peer);
    if let Some(napt) = map.napt {
        let outside = Outside { addr: customer, port: inner.src_port };
        let remote = Remote { addr: peer, port: inner.dst_port };
        // An error neither makes nor refreshes a mapping (RFC 5508 REQ-6), so nothing is committed.
        let Inside { addr, port } =
            napt.propose_inbound(protocol_of(inner.kind)?, outside, remote, map.now).map_err(refused)?.inside;
        out = Flow { src: addr, src_port: port, ..out };
        if out.kind == FlowKind::Echo {
            out.dst_port = port;
        }
    }
    Ok(ErrorFlow { src: reporter, dst: out.src, inner: out, substituted })
}

/// The customer's IPv4 address, where `addr` is one of the customer's MAP addresses to the last octet.
#[inline]
fn own(map: &CeMap, addr: Ipv6Addr) -> Result<Ipv4Addr, DropReason> {
    let rule = map.table.get(map.customer.rule);
    let (ipv4, _) = rule.decompose(addr);
    let address = rule.compose(ipv4, map.customer.psid.unwrap_or(Psid(0)));
    let ours = map.customer.ipv4.contains(ipv4) && address.ipv6() == addr;
    if ours { Ok(ipv4) } else { Err(DropReason::DestinationNotOurs) }
}

/// The IPv4 address of whoever sent this: of the Internet by the DMR, of a neighbour by an FMR and its port.
#[inline]
fn remote(map: &CeMap, addr: Ipv6Addr, port: Option<u16>, kind: FlowKind) -> Result<Ipv4Addr, DropReason> {
    if let Some(ipv4) = extract(map.table.dmr(map.customer.rule), addr)? {
        return Ok(ipv4);
    }
    match map.table.by_ipv6(addr) {
        Some(id) if map.table.get(id).is_forwarding() => {
            map.rule.set(Some(id));
            owner(map.table, id, addr, port, kind, map.check_interface_id)
        }
        _ => Err(DropReason::SourceNotMap),
    }
}

#[inline]
fn check_port(map: &CeMap, port: Option<u16>, kind: FlowKind) -> Result<(), DropReason> {
    match port {
        Some(port) if map.customer.ports.contains(port) => Ok(()),
        Some(_) => Err(DropReason::DestinationPortOutsideSet),
        None if map.customer.psid.is_none() => Ok(()),
        None => Err(kind.portless_reason()),
    }
}
