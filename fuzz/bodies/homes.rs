//! The homes of `ce.rs`, and what RFC 7597 makes of their prefixes.

use mapt::map::RuleSpec;

use super::engine::rules;

/// A customer as RFC 7597 writes it.
#[derive(Clone, Copy)]
pub(super) struct Customer {
    pub end_user: Option<&'static str>,
    /// The first 64 bits of the MAP address.
    pub head: [u8; 8],
    pub addr: [u8; 4],
    /// PSID offset, PSID length, PSID.
    pub ports: (u8, u8, u16),
    pub napt: bool,
    /// Whether there is one address and no prefix.
    pub alone: bool,
}

impl Customer {
    /// RFC 7597 §5.1.
    pub fn has(&self, port: u16) -> bool {
        let ((a, k, psid), port) = (self.ports, u32::from(port));
        (a == 0 || port >> (16 - a) != 0) && (port >> (16 - a - k)) & ((1 << k) - 1) == u32::from(psid)
    }

    /// RFC 7597 §6.
    pub fn map_address(&self) -> [u8; 16] {
        let mut map = [0; 16];
        map[..8].copy_from_slice(&self.head);
        map[10..14].copy_from_slice(&self.addr);
        map[14..].copy_from_slice(&self.ports.2.to_be_bytes());
        map
    }

    /// Some port of the set, counted round.
    pub fn nth(&self, n: u32) -> u16 {
        let (a, k, psid) = self.ports;
        let m = 16 - a - k;
        let (first, runs) = if a == 0 { (0, 1) } else { (1, (1u32 << a) - 1) };
        let n = n % (runs << m);
        (((n >> m) + first) << (16 - a) | u32::from(psid) << m | n & ((1 << m) - 1)) as u16
    }
}

/// The rules of `engine.rs`, and homes with few ports or unusual ones; one has now these, now those.
pub(super) fn ce_rules(customer: &Customer) -> Vec<RuleSpec> {
    let one = |v6: &str, v4: &str, (a, k, psid): (u8, u8, u16)| RuleSpec {
        name: v6.into(),
        rule_ipv6_prefix: v6.parse().expect("ours"),
        rule_ipv4_prefix: v4.parse().expect("ours"),
        ea_len: 0,
        psid_offset: a,
        psid_len: Some(k),
        psid: Some(psid),
        forwarding: true,
        dmr_ipv6_prefix: None,
    };
    let ports = if customer.addr == [203, 0, 113, 65] { customer.ports } else { (3, 13, 0x34) };
    let mut all = rules();
    all.extend([
        one("2001:db8:9000::/56", "203.0.113.65/32", ports),
        one("2001:db8:9100::/56", "203.0.113.66/32", (4, 12, 0x34)),
        one("2001:db8:9200::/56", "203.0.113.67/32", (0, 12, 0)),
        one("2001:db8:9300::/56", "203.0.113.68/32", (0, 5, 0)),
        one("2001:db8:9400::/56", "203.0.113.69/32", (2, 14, 0x1234)),
        one("2001:db8:9500::/56", "203.0.113.70/32", (0, 16, 0x2000)),
    ]);
    all
}

/// A whole address, or a prefix, behind NAPT.
const WHOLE: u8 = 200;
const PREFIX: u8 = 201;

/// Whose CE it may be: 0 to 7 at the start, every one later.
pub(super) fn customers(n: u8) -> Customer {
    let of = |end_user: &'static str, at: [u8; 4], addr, ports| {
        let head = [0x20, 1, 0x0d, 0xb8, at[0], at[1], at[2], at[3]];
        Customer { end_user: Some(end_user), head, addr, ports, napt: true, alone: true }
    };
    let whole = of("2001:db8:4012::/48", [0x40, 0x12, 0, 0], [198, 51, 100, 0x12], (0, 0, 0));
    let prefix = of("2001:db8:6000::/48", [0x60, 0, 0, 0], [203, 0, 113, 0], (0, 0, 0));
    // Tables of many ports take long to make: few octets ask for them.
    let n = if n >= 14 && n != WHOLE && n != PREFIX { n % 4 } else { n };
    match n {
        1 => of("2001:db8:9000::/56", [0x90, 0, 0, 0], [203, 0, 113, 65], (3, 13, 0x34)),
        2 => of("2001:db8:9100::/56", [0x91, 0, 0, 0], [203, 0, 113, 66], (4, 12, 0x34)),
        3 => Customer { napt: false, ..whole },
        4 => of("2001:db8:5012:3000::/52", [0x50, 0x12, 0x30, 0], [198, 51, 101, 0x12], (0, 4, 3)),
        5 => Customer { napt: false, alone: false, ..prefix },
        6 => of("2001:db8:7000::/56", [0x70, 0, 0, 0], [203, 0, 113, 64], (4, 8, 0x21)),
        7 => Customer { end_user: None, napt: false, alone: false, ..whole },
        WHOLE => whole,
        PREFIX => Customer { alone: false, ..prefix },
        8 => of("2001:db8:9000::/56", [0x90, 0, 0, 0], [203, 0, 113, 65], (3, 12, 0x1a)),
        9 => of("2001:db8:9000::/56", [0x90, 0, 0, 0], [203, 0, 113, 65], (3, 13, 0x35)),
        10 => of("2001:db8:9200::/56", [0x92, 0, 0, 0], [203, 0, 113, 67], (0, 12, 0)),
        11 => of("2001:db8:9300::/56", [0x93, 0, 0, 0], [203, 0, 113, 68], (0, 5, 0)),
        12 => of("2001:db8:9400::/56", [0x94, 0, 0, 0], [203, 0, 113, 69], (2, 14, 0x1234)),
        13 => of("2001:db8:9500::/56", [0x95, 0, 0, 0], [203, 0, 113, 70], (0, 16, 0x2000)),
        _ => of("2001:db8:12:3400::/56", [0, 0x12, 0x34, 0], [192, 0, 2, 0x12], (6, 8, 0x34)),
    }
}
