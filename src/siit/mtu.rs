//! The MTU inside Fragmentation Needed and Packet Too Big (RFC 7915 §4.2, §5.2).

use super::Mtu;

/// RFC 1191 §7, as far down as IPv6 goes (RFC 7915 §4.2).
const PLATEAUS: [u16; 7] = [65535, 32000, 17914, 8166, 4352, 2002, 1492];
/// What the IPv6 header is longer than the IPv4 header, and with a Fragment header.
const GROWTH: u32 = 20;
const GROWTH_FRAGMENT: u32 = 28;
const IPV6_LEAST: u32 = 1280;
const IPV4_LEAST: u32 = 68;

fn growth(fragment: bool) -> u32 {
    if fragment { GROWTH_FRAGMENT } else { GROWTH }
}

/// The MTU of a Packet Too Big made of a Fragmentation Needed that says `reported` about a packet of
/// `inner_len` octets; `fragment` where that packet was a fragment.
pub fn v4_to_v6(reported: u16, inner_len: usize, fragment: bool, next_hop: &Mtu) -> u32 {
    let path = match reported {
        0 => PLATEAUS.into_iter().find(|&p| usize::from(p) < inner_len).unwrap_or(0),
        mtu => mtu,
    };
    let path = u32::from(path) + growth(fragment);
    path.min(next_hop.ipv6).min(next_hop.ipv4 + GROWTH).max(IPV6_LEAST)
}

/// The MTU of a Fragmentation Needed made of a Packet Too Big.
pub fn v6_to_v4(reported: u32, fragment: bool, next_hop: &Mtu) -> u16 {
    let path = reported.saturating_sub(growth(fragment));
    let mtu = path.min(next_hop.ipv4).min(next_hop.ipv6.saturating_sub(GROWTH)).max(IPV4_LEAST);
    mtu.min(0xffff) as u16
}
