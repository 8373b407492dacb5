//! What both roles ask the rule table, with drop reasons for answers.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::map::{Dmr, RuleId, RuleTable, Unmapped};
use crate::siit::FlowKind;
use crate::verdict::{Direction, DropReason};

/// The drop reason of a lookup that led nowhere.
pub fn reason_of(unmapped: Unmapped, kind: FlowKind) -> DropReason {
    match unmapped {
        Unmapped::NoRule => DropReason::NoRule,
        Unmapped::PortExcluded => DropReason::PortExcluded,
        Unmapped::PsidUnassigned => DropReason::PsidUnassigned,
        Unmapped::PortNeeded => kind.portless_reason(),
    }
}

/// Whether the customer's address in a packet is shared, so that only a port says whose it is.
pub fn needs_port(table: &RuleTable, direction: Direction, src: u128, dst: u128) -> bool {
    match direction {
        Direction::V4ToV6 => {
            let dst = Ipv4Addr::from_bits(dst as u32);
            matches!(table.by_ipv4(dst, None), Err(Unmapped::PortNeeded))
        }
        Direction::V6ToV4 => table.by_ipv6(Ipv6Addr::from_bits(src)).is_some_and(|id| table.get(id).is_shared()),
    }
}

/// The IPv4 address for which a customer's IPv6 address stands, if it may use `port` (RFC 7599 §8.2, §8.3).
///
/// With `whole`, the address must be the one that the rule writes for this IPv4 address and port, octet by octet.
/// A more specific rule that owns the IPv4 address and port wins over this one, so that nobody speaks for it.
#[inline(always)]
pub fn owner(
    table: &RuleTable,
    id: RuleId,
    addr: Ipv6Addr,
    port: Option<u16>,
    kind: FlowKind,
    whole: bool,
) -> Result<Ipv4Addr, DropReason> {
    let rule = table.get(id);
    let (ipv4, psid) = rule.decompose(addr);
    if rule.is_shared() {
        let port = port.ok_or(kind.portless_reason())?;
        match rule.psid_of(port) {
            None => return Err(DropReason::PortExcluded),
            Some(p) if p != psid => return Err(DropReason::PortOutsideSet),
            Some(_) => {}
        }
    }
    if whole && rule.compose(ipv4, psid).ipv6() != addr {
        return Err(DropReason::SourceMismatch);
    }
    if table.owns_ipv4(id, ipv4) { Ok(ipv4) } else { Err(DropReason::SourceMismatch) }
}

/// The IPv6 address that stands for an IPv4 address of the Internet (RFC 7599 §5.1, RFC 6052 §3.1).
#[inline(always)]
pub fn embed(dmr: &Dmr, ipv4: Ipv4Addr) -> Result<Ipv6Addr, DropReason> {
    check_global(dmr, ipv4)?;
    Ok(dmr.embed(ipv4))
}

/// The IPv4 address inside a DMR address; `None` outside the DMR prefix.
#[inline(always)]
pub fn extract(dmr: &Dmr, addr: Ipv6Addr) -> Result<Option<Ipv4Addr>, DropReason> {
    let Some(ipv4) = dmr.extract(addr) else { return Ok(None) };
    check_global(dmr, ipv4)?;
    Ok(Some(ipv4))
}

#[inline(always)]
fn check_global(dmr: &Dmr, ipv4: Ipv4Addr) -> Result<(), DropReason> {
    if dmr.is_well_known() && !is_global(ipv4) { Err(DropReason::AddressNotGlobal) } else { Ok(()) }
}

/// Not in IANA's special-purpose registry as "not globally reachable" (RFC 6890 and its updates).
fn is_global(a: Ipv4Addr) -> bool {
    let o = a.octets();
    let shared = o[0] == 100 && o[1] & 0xc0 == 64;
    let protocol_assignments = o[0] == 192 && o[1] == 0 && o[2] == 0 && !matches!(o[3], 9 | 10);
    let benchmarking = o[0] == 198 && o[1] & 0xfe == 18;
    !(o[0] == 0
        || a.is_private()
        || shared
        || a.is_loopback()
        || a.is_link_local()
        || protocol_assignments
        || a.is_documentation()
        || benchmarking
        || o[0] >= 224)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_global_addresses_of_the_iana_registry() {
        for text in [
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!is_global(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "192.0.0.9", "192.0.1.1", "198.20.0.1"] {
            assert!(is_global(text.parse().unwrap()), "{text}");
        }
    }
}
