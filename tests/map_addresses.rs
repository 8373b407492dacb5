//! MAP addresses against strings of 128 characters `0` and `1`, put together as RFC 7597 §5.2 and §6 draw them.

use mapt::map::{Ipv4Prefix, Ipv6Prefix, Psid, Rule, RuleSpec};
use std::net::{Ipv4Addr, Ipv6Addr};

/// xorshift64*: the same in every run.
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn bits128(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// Rule IPv6 prefix | EA bits | zeros to 64 | 16 zeros, IPv4, PSID; the prefix and EA bits win over the last three.
fn address(n: usize, r: usize, o: usize, prefix: u128, ipv4: u32, psid: u16) -> Ipv6Addr {
    let ipv4 = format!("{ipv4:032b}");
    let psid = format!("{psid:016b}");
    let p = o.min(32 - r);
    let q = o - p;
    let mut text = format!("{prefix:0128b}")[..n].to_owned();
    text += &ipv4[r..r + p];
    text += &psid[16 - q..];
    let drawn = text.len();
    while text.len() < 64 {
        text.push('0');
    }
    let interface = format!("{}{ipv4}{psid}", "0".repeat(16));
    text += &interface[drawn.max(64) - 64..];
    assert_eq!(text.len(), 128);
    Ipv6Addr::from(u128::from_str_radix(&text, 2).unwrap())
}

/// RULE-2 to RULE-10, P9, P13: EA bits of any length, at any bit, behind any IPv4 prefix.
#[test]
fn every_combination_of_lengths() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut accepted, mut refused) = (0, 0);
    for r in 0..=32u8 {
        for o in 0..=48u8 {
            for n in 0..=128u8 {
                let prefix = Ipv6Prefix::truncating(random.bits128().into(), n);
                let ipv4_prefix = Ipv4Prefix::truncating((random.next() as u32).into(), r);
                let k = if o + r > 32 {
                    o + r - 32
                } else if o + r == 32 {
                    (random.next() % 17) as u8
                } else {
                    0
                };
                let explicit = (o + r == 32 && k > 0).then(|| (random.next() as u16) & ((1u32 << k) - 1) as u16);
                let rule = Rule::new(RuleSpec {
                    name: "any".into(),
                    rule_ipv6_prefix: prefix,
                    rule_ipv4_prefix: ipv4_prefix,
                    ea_len: o,
                    psid_offset: if k <= 16 { (random.next() % u64::from(17 - k).min(16)) as u8 } else { 0 },
                    psid_len: explicit.map(|_| k),
                    psid: explicit,
                    forwarding: false,
                    dmr_ipv6_prefix: None,
                });
                let covers_host_bits = o + r < 32 && n + o > 80 + r + o;
                if n + o > 128 || k > 16 || covers_host_bits {
                    assert!(rule.is_err(), "n={n} r={r} o={o}");
                    refused += 1;
                    continue;
                }
                let rule = rule.unwrap_or_else(|e| panic!("n={n} r={r} o={o}: {e:?}"));
                accepted += 1;
                assert_eq!(rule.ipv4_suffix_len(), o.min(32 - r));
                assert_eq!((rule.psid_len(), rule.sharing_ratio()), (k, 1 << k));
                assert_eq!((rule.end_user_prefix_len(), rule.ce_count()), (n + o, 1 << o));
                assert_eq!(rule.ce_ipv4_prefix_len(), (o + r).min(32));
                let compiled = rule.compile();
                assert_eq!(compiled.is_shared(), k > 0);

                let ipv4 = Ipv4Addr::from(
                    u32::from(ipv4_prefix.addr())
                        | (u64::from(random.next() as u32) & (u64::from(u32::MAX) >> r)) as u32,
                );
                let psid = explicit.unwrap_or((random.next() as u16) & ((1u32 << k) - 1) as u16);
                let bits = u128::from(prefix.addr());
                let expected = address(n.into(), r.into(), o.into(), bits, ipv4.into(), psid);
                let composed = compiled.compose(ipv4, Psid(psid)).ipv6();
                assert_eq!(composed, expected, "n={n} r={r} o={o} {ipv4} {psid}");
                assert_eq!(compiled.decompose(expected), (ipv4, Psid(psid)), "n={n} r={r} o={o} {expected}");
                assert_eq!(
                    compiled.end_user_prefix(ipv4, Psid(psid)),
                    Ipv6Prefix::truncating(expected, n + o),
                    "n={n} r={r} o={o}"
                );
                // Reading looks at the prefix and EA bits alone (P13), and at host bits where the EA bits lack them.
                if o + r >= 32 && n + o < 128 {
                    let noise = random.bits128() >> (n + o);
                    let noisy = Ipv6Addr::from(u128::from(expected) ^ noise);
                    assert_eq!(compiled.decompose(noisy), (ipv4, Psid(psid)), "n={n} r={r} o={o} {noisy}");
                }
            }
        }
    }
    assert_eq!(accepted + refused, 33 * 49 * 129);
    assert!(accepted > 90_000, "{accepted} accepted, {refused} refused");
}

/// RULE-9, P10: every host of an IPv4 prefix has its own MAP address, and is read back from it.
#[test]
fn hosts_of_an_ipv4_prefix() {
    let rule = Rule::new(RuleSpec {
        name: "prefix".into(),
        rule_ipv6_prefix: "2001:db8:4464::/48".parse().unwrap(),
        rule_ipv4_prefix: "198.51.96.0/20".parse().unwrap(),
        ea_len: 8,
        psid_offset: 6,
        psid_len: None,
        psid: None,
        forwarding: true,
        dmr_ipv6_prefix: None,
    });
    let rule = rule.unwrap().compile();
    // EA bits 0x43: the eight bits behind 198.51.6/20.
    for (ipv4, addr) in [
        ("198.51.100.48", "2001:db8:4464:4300:0:c633:6430:0"),
        ("198.51.100.57", "2001:db8:4464:4300:0:c633:6439:0"),
        ("198.51.100.63", "2001:db8:4464:4300:0:c633:643f:0"),
        ("198.51.100.64", "2001:db8:4464:4400:0:c633:6440:0"),
    ] {
        let (ipv4, addr): (Ipv4Addr, Ipv6Addr) = (ipv4.parse().unwrap(), addr.parse().unwrap());
        assert_eq!(rule.compose(ipv4, Psid(0)).ipv6(), addr);
        assert_eq!(rule.decompose(addr), (ipv4, Psid(0)));
    }
}
