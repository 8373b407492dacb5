//! From a customer to the Internet (RFC 7599 §8.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::BrMap;
use crate::map::RuleId;
use crate::mapping::{extract, owner};
use crate::siit::{ErrorFlow, Flow};
use crate::verdict::DropReason;

/// Rule by source, whole source against source port, destination out of that rule's DMR.
#[inline(always)]
pub(super) fn packet(map: &BrMap, flow: &Flow<Ipv6Addr>) -> Result<Flow<Ipv4Addr>, DropReason> {
    let id = map.table.by_ipv6(flow.src).ok_or(DropReason::NoRule)?;
    map.rule.set(Some(id));
    let src = owner(map.table, id, flow.src, flow.src_port(), flow.kind, map.check_interface_id)?;
    let dst = outside(map, id, flow.dst)?;
    Ok(flow.between(src, dst))
}

/// The packet in error was on its way to a customer: that customer's address and port are checked inside.
/// Its reporter may be any router of the access network (RFC 6791).
pub(super) fn error(map: &BrMap, error: &ErrorFlow<Ipv6Addr>) -> Result<ErrorFlow<Ipv4Addr>, DropReason> {
    let inner = &error.inner;
    let port = inner.dst_port();
    let id = map.table.by_ipv6(inner.dst).ok_or(DropReason::NoRule)?;
    map.rule.set(Some(id));
    let customer = owner(map.table, id, inner.dst, port, inner.kind, map.check_interface_id)?;
    let sender = outside(map, id, inner.src)?;
    let told = outside(map, id, error.dst)?;
    let reporter =
        map.table.by_ipv6(error.src).and_then(|r| owner(map.table, r, error.src, port, inner.kind, true).ok());
    let substituted = reporter.is_none();
    let reporter = reporter.unwrap_or_else(|| map.pool[map.random.next_u32() as usize % map.pool.len()]);
    Ok(ErrorFlow { src: reporter, dst: told, inner: inner.between(sender, customer), substituted })
}

#[inline(always)]
fn outside(map: &BrMap, id: RuleId, addr: Ipv6Addr) -> Result<Ipv4Addr, DropReason> {
    extract(map.table.dmr(id), addr)?.ok_or(DropReason::DestinationNotOurs)
}
