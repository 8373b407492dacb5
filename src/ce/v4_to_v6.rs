//! From the home to the world (RFC 7599 §8.1).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{CeMap, protocol_of, refused};
use crate::map::{Psid, Unmapped};
use crate::mapping::embed;
use crate::napt::{Inside, Remote};
use crate::siit::{ErrorFlow, Flow, FlowKind};
use crate::verdict::DropReason;

/// NAPT44 into the port set, the source by the BMR, the destination by an FMR or the DMR.
#[inline]
pub(super) fn packet(map: &CeMap, flow: &Flow<Ipv4Addr>) -> Result<Flow<Ipv6Addr>, DropReason> {
    map.rule.set(Some(map.customer.rule));
    let mut out = match map.napt {
        Some(_) => outbound(map, flow)?,
        None => *flow,
    };
    check_source(map, &out)?;
    if out.kind == FlowKind::Echo {
        out.dst_port = out.src_port;
    }
    // Without its port it would go to the BR, where the first one of a neighbour's packet never passes.
    let waits = out.kind.portless_reason() == DropReason::FragmentWithoutPort && !out.kind.has_ports();
    if waits && matches!(map.table.by_ipv4(out.dst, None), Err(Unmapped::PortNeeded)) {
        return Err(DropReason::FragmentWithoutPort);
    }
    let dst = destination(map, out.dst, out.dst_port())?;
    Ok(out.between(own(map, out.src), dst))
}

/// The packet in error came from outside: its destination is the inside end of a mapping.
pub(super) fn error(map: &CeMap, error: &ErrorFlow<Ipv4Addr>) -> Result<ErrorFlow<Ipv6Addr>, DropReason> {
    map.rule.set(Some(map.customer.rule));
    let mut inner = error.inner;
    let mut reporter = error.src;
    if let Some(napt) = map.napt {
        let inside = Inside { addr: inner.dst, port: inner.dst_port };
        let remote = Remote { addr: inner.src, port: inner.src_port };
        let outside = napt.outside_of(protocol_of(inner.kind)?, inside, remote, map.now);
        let outside = outside.ok_or(DropReason::NaptNoMapping)?;
        inner.dst = outside.addr;
        inner.dst_port = outside.port;
        if inner.kind == FlowKind::Echo {
            inner.src_port = outside.port;
        }
        // RFC 5508 REQ-5: behind a NAPT everybody reports as the NAPT.
        reporter = outside.addr;
    }
    // A router of the home with an address of no meaning outside speaks for the host that it could not reach.
    if !map.customer.ipv4.contains(reporter) {
        reporter = inner.dst;
    }
    // It is written with the customer's own bits, so it must be the customer's.
    let src_port = inner.dst_port;
    check_source(map, &Flow { src: inner.dst, dst: error.dst, kind: inner.kind, src_port, dst_port: 0 })?;
    let peer = destination(map, inner.src, inner.src_port())?;
    let told = destination(map, error.dst, inner.src_port())?;
    let inner = inner.between(peer, own(map, inner.dst));
    Ok(ErrorFlow { src: own(map, reporter), dst: told, inner, substituted: false })
}

/// The flow with the outside address and port that its mapping has, or would get.
#[inline]
fn outbound(map: &CeMap, flow: &Flow<Ipv4Addr>) -> Result<Flow<Ipv4Addr>, DropReason> {
    let Some(napt) = map.napt else { return Ok(*flow) };
    let inside = Inside { addr: flow.src, port: flow.src_port };
    let remote = Remote { addr: flow.dst, port: flow.dst_port };
    let proposal = napt.propose_outbound(protocol_of(flow.kind)?, inside, remote, map.now).map_err(refused)?;
    map.proposal.set(Some(proposal));
    Ok(Flow { src: proposal.outside.addr, src_port: proposal.outside.port, ..*flow })
}

/// Nothing leaves with an address or a port that is not the customer's (RFC 7599 §8.1), whoever chose it.
#[inline]
fn check_source(map: &CeMap, out: &Flow<Ipv4Addr>) -> Result<(), DropReason> {
    if !map.customer.ipv4.contains(out.src) {
        return Err(DropReason::SourceNotOurs);
    }
    match out.src_port() {
        Some(port) if map.customer.ports.contains(port) => Ok(()),
        Some(_) => Err(DropReason::SourceNotOurs),
        None if map.customer.psid.is_none() => Ok(()),
        None => Err(out.kind.portless_reason()),
    }
}

/// The MAP address of one of the customer's IPv4 addresses.
#[inline]
fn own(map: &CeMap, ipv4: Ipv4Addr) -> Ipv6Addr {
    map.table.get(map.customer.rule).compose(ipv4, map.customer.psid.unwrap_or(Psid(0))).ipv6()
}

/// A neighbour's MAP address where a Forwarding Mapping Rule knows one, else the BR.
#[inline]
fn destination(map: &CeMap, ipv4: Ipv4Addr, port: Option<u16>) -> Result<Ipv6Addr, DropReason> {
    match map.table.by_ipv4(ipv4, port) {
        Ok((id, address)) if map.table.get(id).is_forwarding() => {
            map.rule.set(Some(id));
            Ok(address.ipv6())
        }
        // What no FMR maps, the BR judges.
        _ => embed(map.table.dmr(map.customer.rule), ipv4),
    }
}
