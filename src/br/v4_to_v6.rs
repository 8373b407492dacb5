//! From the Internet to a customer (RFC 7599 §8.4).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::BrMap;
use crate::mapping::{embed, reason_of};
use crate::siit::{ErrorFlow, Flow, FlowKind};
use crate::verdict::DropReason;

/// Rule by destination, PSID by destination port (the identifier of an echo), source into the DMR.
#[inline(always)]
pub(super) fn packet(map: &BrMap, flow: &Flow<Ipv4Addr>) -> Result<Flow<Ipv6Addr>, DropReason> {
    let dst = customer(map, flow.dst, flow.dst_port(), flow.kind)?;
    let src = outside(map, flow.src)?;
    Ok(flow.between(src, dst))
}

/// The packet in error came from the customer: its source port says from which one (RFC 7599 §9, our reading).
pub(super) fn error(map: &BrMap, error: &ErrorFlow<Ipv4Addr>) -> Result<ErrorFlow<Ipv6Addr>, DropReason> {
    let inner = &error.inner;
    let told = customer(map, error.dst, inner.src_port(), inner.kind)?;
    let sender = customer(map, inner.src, inner.src_port(), inner.kind)?;
    let reporter = outside(map, error.src)?;
    let target = outside(map, inner.dst)?;
    Ok(ErrorFlow { src: reporter, dst: told, inner: inner.between(sender, target), substituted: false })
}

/// The MAP address that owns this IPv4 address and port.
#[inline(always)]
fn customer(map: &BrMap, ipv4: Ipv4Addr, port: Option<u16>, kind: FlowKind) -> Result<Ipv6Addr, DropReason> {
    let (id, address) = map.table.by_ipv4(ipv4, port).map_err(|unmapped| reason_of(unmapped, kind))?;
    map.rule.set(Some(id));
    Ok(address.ipv6())
}

/// An address of the Internet in the DMR of the customer's rule.
#[inline(always)]
fn outside(map: &BrMap, ipv4: Ipv4Addr) -> Result<Ipv6Addr, DropReason> {
    let id = map.rule.get().ok_or(DropReason::NoRule)?;
    embed(map.table.dmr(id), ipv4)
}
