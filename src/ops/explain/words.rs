//! The arithmetic of ports and addresses in words, with its numbers (RFC 7597 §5, RFC 7599 §5.1).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::map::{Dmr, Ipv6Prefix, PortParams, PortSet, Psid, Rule, RuleId, RuleTable};
use crate::ops::text;

/// Ranges of a port set that a sentence shows.
const MOST_RANGES: usize = 4;

/// `52 (0x34)`.
pub(super) fn psid(psid: Psid) -> String {
    format!("{0} ({0:#x})", psid.0)
}

/// `` rule `metro-east` (2001:db8::/40, 192.0.2.0/24, 16 EA bits) ``.
pub(super) fn rule(rule: &Rule) -> String {
    let spec = rule.spec();
    format!("rule `{}` ({}, {}, {} EA bits)", spec.name, spec.rule_ipv6_prefix, spec.rule_ipv4_prefix, spec.ea_len)
}

/// The rule of an id in this table.
pub(super) fn rule_of(table: &RuleTable, id: RuleId) -> &Rule {
    &table.rules()[id.0 as usize]
}

/// A | PSID | j of a port, and whose it is (RFC 7597 §5.1).
pub(super) fn port(params: PortParams, port: u16, word: &str) -> String {
    let (a, k, m) = (params.a(), params.k(), params.m());
    let wide = u32::from(port);
    let (high, own, low) = (wide >> (16 - a), (wide >> m) & ((1 << k) - 1), wide & ((1 << m) - 1));
    let split = format!("A {high} ({a} bits) | PSID {own} ({k} bits) | {low} ({m} bits)");
    if a > 0 && high == 0 {
        let last = (1u32 << (16 - a)) - 1;
        return format!("{word} {port} is {split}: A is 0, and nobody owns 0-{last}");
    }
    format!("{word} {port} is {split}: it belongs to PSID {}", psid(Psid(own as u16)))
}

/// `1232-1235, 2256-2259, … (252 ports in 63 ranges)`.
pub(super) fn port_set(ports: &PortSet) -> String {
    if *ports == PortSet::ALL {
        return "all ports".into();
    }
    let shown: Vec<String> = (ports.ranges().take(MOST_RANGES))
        .map(|r| if r.start() == r.end() { r.start().to_string() } else { format!("{}-{}", r.start(), r.end()) })
        .collect();
    let count = ports.range_count();
    if count as usize <= MOST_RANGES {
        return format!("{} ({})", shown.join(", "), text::counted(ports.count() as usize, "port"));
    }
    format!("{}, … ({} ports in {count} ranges)", shown.join(", "), ports.count())
}

/// The EA bits of an address under a rule, and what they carry (RFC 7597 §5.2).
pub(super) fn ea_bits(rule: &Rule, addr: Ipv6Addr) -> String {
    let spec = rule.spec();
    let (n, o) = (u32::from(spec.rule_ipv6_prefix.prefix_len()), u32::from(spec.ea_len));
    let p = u32::from(rule.ipv4_suffix_len());
    let (q, ipv4) = (o - p, rule.compile().decompose(addr).0);
    let explicit = rule.explicit_psid().map(|own| format!(", PSID {} by the rule", psid(own))).unwrap_or_default();
    if o == 0 {
        return format!("it has no EA bits: IPv4 address {ipv4}{explicit}");
    }
    let ea = (addr.to_bits() << n) >> (128 - o);
    let mut parts = Vec::new();
    if p > 0 {
        parts.push(format!("IPv4 suffix {} ({p} bits)", ea >> q));
    }
    if q > 0 {
        let own = ea & ((1 << q) - 1);
        parts.push(format!("PSID {own} ({own:#x}, {q} bits)"));
    }
    let host = if rule.ce_ipv4_prefix_len() < 32 { " with the host bits of the interface id" } else { "" };
    let parts = parts.join(" and ");
    format!("EA bits {n}-{} are {ea:#x}: {parts}, so IPv4 address {ipv4}{host}{explicit}", n + o - 1)
}

/// Which fields of a MAP address differ, with what was found and what was expected (RFC 7597 §6).
pub(super) fn difference(rule: &Rule, found: Ipv6Addr, expected: Ipv6Addr) -> String {
    let end = u32::from(rule.end_user_prefix_len());
    let cut = |addr: Ipv6Addr, from: u32, to: u32| (addr.to_bits() << from) >> (128 - (to - from));
    let fields = [
        (end.min(64), 64, "subnet id"),
        (64, 80, "first 16 bits of the interface id"),
        (80, 112, "IPv4 address of the interface id"),
        (112, 128, "PSID of the interface id"),
    ];
    let mut parts = Vec::new();
    for (from, to, name) in fields {
        // Prefix and EA bits overwrite what they reach into.
        let from = from.max(end.min(to));
        if from >= to || cut(found, from, to) == cut(expected, from, to) {
            continue;
        }
        let (is, should) = (cut(found, from, to), cut(expected, from, to));
        let show = |value: u128| match to {
            112 if from == 80 => Ipv4Addr::from(value as u32).to_string(),
            _ => format!("{value:#x}"),
        };
        parts.push(format!("the {name} (bits {from}-{}) is {} instead of {}", to - 1, show(is), show(should)));
    }
    parts.join(", ")
}

/// `2001:db8:12:4500::/56`, the End-user prefix of whoever owns an address and port.
pub(super) fn owner(table: &RuleTable, ipv4: Ipv4Addr, port: Option<u16>) -> Option<(Ipv6Prefix, Ipv6Addr)> {
    let (id, address) = table.by_ipv4(ipv4, port).ok()?;
    let len = rule_of(table, id).end_user_prefix_len();
    Some((Ipv6Prefix::truncating(address.ipv6(), len), address.ipv6()))
}

/// The DMR and what it makes of an IPv4 address (RFC 6052 §2.2).
pub(super) fn embedded(dmr: &Dmr, ipv4: Ipv4Addr) -> String {
    format!("the DMR {} embeds {ipv4} as {} (RFC 6052 §2.2)", dmr.prefix(), dmr.embed(ipv4))
}

/// The rules whose IPv4 prefix is the longest that covers an address.
pub(super) fn covering(table: &RuleTable, ipv4: Ipv4Addr) -> Vec<&Rule> {
    let covers = |rule: &&Rule| rule.spec().rule_ipv4_prefix.contains(ipv4);
    let len = |rule: &&Rule| rule.spec().rule_ipv4_prefix.prefix_len();
    let longest = table.rules().iter().filter(covers).map(|rule| len(&rule)).max();
    table.rules().iter().filter(covers).filter(|rule| Some(len(rule)) == longest).collect()
}
