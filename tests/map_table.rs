//! `RuleTable` against linear searches: nested prefixes, both /0, /32 and /128, 1:1 groups, 100,000 rules.

use mapt::map::{Dmr, Ipv4Prefix, Ipv6Prefix, MapAddress, Psid, Rule, RuleId, RuleSpec, RuleTable, Unmapped};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

fn dmr(text: &str) -> Dmr {
    Dmr::new(text.parse().unwrap()).unwrap()
}

fn spec(ipv6: Ipv6Prefix, ipv4: Ipv4Prefix, ea_len: u8) -> RuleSpec {
    RuleSpec {
        name: String::new(),
        rule_ipv6_prefix: ipv6,
        rule_ipv4_prefix: ipv4,
        ea_len,
        psid_offset: 6,
        psid_len: None,
        psid: None,
        forwarding: true,
        dmr_ipv6_prefix: None,
    }
}

/// The specs as a table, those left out that exclude each other; a linear search for each lookup.
struct Slow {
    rules: Vec<Rule>,
}

impl Slow {
    fn new(specs: impl IntoIterator<Item = RuleSpec>) -> Self {
        let mut rules: Vec<Rule> = Vec::new();
        let mut ipv6 = HashSet::new();
        let mut ipv4: HashMap<Ipv4Prefix, (u8, u8, HashSet<Option<Psid>>)> = HashMap::new();
        for mut spec in specs {
            spec.name = format!("rule-{}", rules.len());
            let Ok(rule) = Rule::new(spec) else { continue };
            let s = rule.spec();
            let (a, k, psids) =
                ipv4.entry(s.rule_ipv4_prefix).or_insert((s.psid_offset, rule.psid_len(), HashSet::new()));
            let goes_with = psids.is_empty() || (!psids.contains(&None) && rule.explicit_psid().is_some());
            if (*a, *k) != (s.psid_offset, rule.psid_len()) || !goes_with || psids.contains(&rule.explicit_psid()) {
                continue;
            }
            if ipv6.insert(s.rule_ipv6_prefix) {
                psids.insert(rule.explicit_psid());
                rules.push(rule);
            }
        }
        Slow { rules }
    }

    fn table(&self) -> RuleTable {
        // No prefix here covers the DMR.
        RuleTable::new(self.rules.clone(), Some(dmr("6464:6464::/32"))).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn by_ipv6(&self, addr: Ipv6Addr) -> Option<RuleId> {
        let mut best: Option<(u8, u32)> = None;
        for (id, rule) in (0..).zip(&self.rules) {
            let prefix = rule.spec().rule_ipv6_prefix;
            if prefix.contains(addr) && best.is_none_or(|(len, _)| len < prefix.prefix_len()) {
                best = Some((prefix.prefix_len(), id));
            }
        }
        best.map(|(_, id)| RuleId(id))
    }

    fn by_ipv4(&self, ipv4: Ipv4Addr, port: Option<u16>) -> Result<(RuleId, MapAddress), Unmapped> {
        let covering = |rule: &&Rule| rule.spec().rule_ipv4_prefix.contains(ipv4);
        let len = |rule: &Rule| rule.spec().rule_ipv4_prefix.prefix_len();
        let Some(longest) = self.rules.iter().filter(covering).map(len).max() else { return Err(Unmapped::NoRule) };
        let mut result = Err(Unmapped::PsidUnassigned);
        for (id, rule) in (0..).zip(&self.rules).filter(|(_, rule)| covering(rule) && len(rule) == longest) {
            let psid = match (rule.port_params(), port) {
                (None, _) => Psid(0),
                (Some(_), None) => return Err(Unmapped::PortNeeded),
                // RFC 7597 §B.1: PSID = floor((P mod R * M) / M).
                (Some(params), Some(port)) => {
                    let (port, r, m) = (u32::from(port), 1 << params.k(), 1 << params.m());
                    if params.a() > 0 && port / (r * m) == 0 {
                        return Err(Unmapped::PortExcluded);
                    }
                    Psid((port % (r * m) / m) as u16)
                }
            };
            if rule.explicit_psid().is_none_or(|own| own == psid) {
                result = Ok((RuleId(id), rule.compile().compose(ipv4, psid)));
            }
        }
        result
    }

    /// First and last address of every prefix, their neighbours, and both ends.
    fn edges(&self) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
        let (mut ipv4, mut ipv6) = (vec![0, u32::MAX], vec![0, u128::MAX]);
        for rule in &self.rules {
            let (p4, p6) = (rule.spec().rule_ipv4_prefix, rule.spec().rule_ipv6_prefix);
            ipv4.extend([u32::from(p4.addr()), u32::from(p4.last_addr())]);
            ipv6.extend([u128::from(p6.addr()), u128::from(p6.last_addr())]);
        }
        (
            ipv4.iter().flat_map(|&x| [x, x.wrapping_sub(1), x.wrapping_add(1)]).map(Ipv4Addr::from).collect(),
            ipv6.iter().flat_map(|&x| [x, x.wrapping_sub(1), x.wrapping_add(1)]).map(Ipv6Addr::from).collect(),
        )
    }

    fn check_edges(&self, ports: &[u16]) {
        let table = self.table();
        let (ipv4, ipv6) = self.edges();
        for addr in ipv6 {
            assert_eq!(table.by_ipv6(addr), self.by_ipv6(addr), "{addr} in {:#?}", self.rules);
        }
        for ipv4 in ipv4 {
            for port in ports.iter().copied().map(Some).chain([None]) {
                let found = table.by_ipv4(ipv4, port);
                assert_eq!(found, self.by_ipv4(ipv4, port), "{ipv4} {port:?} in {:#?}", self.rules);
            }
            let covering = |rule: &Rule| rule.spec().rule_ipv4_prefix.contains(ipv4);
            let len = |rule: &Rule| rule.spec().rule_ipv4_prefix.prefix_len();
            let longest = self.rules.iter().filter(|rule| covering(rule)).map(len).max();
            for (id, rule) in (0..).zip(&self.rules) {
                let owns = covering(rule) && Some(len(rule)) == longest;
                assert_eq!(table.owns_ipv4(RuleId(id), ipv4), owns, "{ipv4}, {id} in {:#?}", self.rules);
            }
        }
    }
}

/// Few different octets, so that prefixes nest, touch, and reach both ends.
fn octet() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![0u8, 0, 1, 0x80, 0xff, 0xff])
}

fn ipv4_prefix() -> impl Strategy<Value = Ipv4Prefix> {
    (prop::array::uniform4(octet()), prop_oneof![0u8..=32, Just(32)])
        .prop_map(|(octets, len)| Ipv4Prefix::truncating(octets.into(), len))
}

fn ipv6_prefix() -> impl Strategy<Value = Ipv6Prefix> {
    // At least 8 bits, so that none covers the DMR, whose octet is not among these.
    (prop::array::uniform16(octet()), prop_oneof![8u8..=128, 40u8..=64, Just(128)])
        .prop_map(|(octets, len)| Ipv6Prefix::truncating(octets.into(), len))
}

fn any_spec() -> impl Strategy<Value = RuleSpec> {
    let explicit = prop::option::of((1u8..=3, 0u16..8));
    let offset = prop::sample::select(vec![0u8, 4, 6, 6, 6, 6]);
    (ipv6_prefix(), ipv4_prefix(), 0u8..=48, offset, explicit).prop_map(|(ipv6, ipv4, ea, psid_offset, explicit)| {
        let room = (128 - ipv6.prefix_len()).min(48 - psid_offset - ipv4.prefix_len());
        let ea_len = if explicit.is_some() { 32 - ipv4.prefix_len() } else { ea }.min(room);
        let explicit = explicit.filter(|_| ea_len + ipv4.prefix_len() == 32);
        let psid = explicit.map(|(k, psid)| psid & ((1 << k) - 1));
        RuleSpec { psid_offset, psid_len: explicit.map(|(k, _)| k), psid, ..spec(ipv6, ipv4, ea_len) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// P11, P53: both lookups are longest match, and a nested rule is not fallen through from.
    #[test]
    fn as_a_linear_search(specs in prop::collection::vec(any_spec(), 0..50), ports in prop::array::uniform3(any::<u16>())) {
        Slow::new(specs).check_edges(&[ports[0], ports[1], ports[2], 80, 1024]);
    }

    /// RULE-18, P56: 1:1 rules, sparse and dense, in groups of any PSID length.
    #[test]
    fn groups_by_psid(
        k in 1u8..=16, psids in prop::collection::vec(any::<u16>(), 1..70), a in 0u8..=6, hosts in 1u32..4, ports in prop::collection::vec(any::<u16>(), 20)
    ) {
        let a = a.min(16 - k);
        let rules = psids.iter().zip(0u32..).map(|(psid, i)| RuleSpec {
            psid_offset: a,
            psid_len: Some(k),
            psid: Some(psid & ((1u32 << k) - 1) as u16),
            ..spec(
                Ipv6Prefix::truncating((0x2001_0db8_u128 << 96 | u128::from(i) << 72).into(), 56),
                Ipv4Prefix::truncating((0xc000_0200 + i % hosts).into(), 32),
                0,
            )
        });
        let slow = Slow::new(rules);
        // A port of every PSID that is assigned, too.
        let m = 16 - a - k;
        let own = psids.iter().map(|psid| (0x8000 | (u32::from(psid & ((1u32 << k) - 1) as u16) << m)) as u16);
        let ports: Vec<u16> = ports.into_iter().chain(own).collect();
        slow.check_edges(&ports);
    }
}

#[test]
fn an_empty_table() {
    for dmr in [None, Some(dmr("2001:db8:ffff::/64"))] {
        let table = RuleTable::new(Vec::new(), dmr).unwrap();
        for addr in [0, 1, u128::MAX, 0x2001_0db8 << 96].map(Ipv6Addr::from) {
            assert_eq!(table.by_ipv6(addr), None);
            assert_eq!(table.by_dmr(addr), None);
        }
        for ipv4 in [0, 1, u32::MAX].map(Ipv4Addr::from) {
            assert_eq!(table.by_ipv4(ipv4, Some(5000)), Err(Unmapped::NoRule));
        }
        assert_eq!(table.dmrs().first(), dmr.as_ref());
        assert_eq!(table.set_dmr(), dmr.as_ref());
    }
}

/// Lengths 0 in both families beside the longest.
#[test]
fn the_shortest_and_the_longest_prefix() {
    let rules = [
        ("::/0", "0.0.0.0/0", 8),
        ("::/128", "0.0.0.0/32", 0),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "255.255.255.255/32", 0),
        ("2001:db8::/64", "192.0.2.1/32", 0),
        ("2001:db8::1/128", "192.0.2.2/32", 0),
    ];
    let rules: Vec<RuleSpec> = rules.map(|(v6, v4, ea)| spec(v6.parse().unwrap(), v4.parse().unwrap(), ea)).into();
    for skip in 0..=rules.len() {
        let some = rules.iter().enumerate().filter(|(place, _)| *place != skip).map(|(_, rule)| rule.clone());
        let slow = Slow::new(some);
        assert_eq!(slow.rules.len(), 5 - usize::from(skip < 5));
        slow.check_edges(&[80, 5353]);
    }
}

/// P53 with P52: a /48 in a /36 in a /32, none of whose nibbles is a byte.
#[test]
fn nested_rules_by_hand() {
    let rules = [
        ("2001:db8::/32", "10.0.0.0/8", 24),
        ("2001:db8:f000::/36", "10.1.0.0/16", 20),
        ("2001:db8:fa50::/44", "10.1.128.0/20", 12),
    ];
    let rules = rules.map(|(v6, v4, ea)| spec(v6.parse().unwrap(), v4.parse().unwrap(), ea));
    let slow = Slow::new(rules);
    assert_eq!(slow.rules.len(), 3);
    let table = slow.table();
    for (addr, rule) in [
        ("2001:db8:efff::1", Some(0)),
        ("2001:db8:f000::", Some(1)),
        ("2001:db8:fa4f:ffff::", Some(1)),
        ("2001:db8:fa50::", Some(2)),
        ("2001:db8:fa5f:ffff:ffff:ffff:ffff:ffff", Some(2)),
        ("2001:db8:fa60::", Some(1)),
        ("2001:db9::", None),
    ] {
        assert_eq!(table.by_ipv6(addr.parse().unwrap()), rule.map(RuleId), "{addr}");
    }
    for (ipv4, rule) in
        [("10.0.255.255", 0), ("10.1.0.0", 1), ("10.1.128.0", 2), ("10.1.143.255", 2), ("10.1.144.0", 1)]
    {
        assert_eq!(table.by_ipv4(ipv4.parse().unwrap(), Some(5353)).map(|(id, _)| id), Ok(RuleId(rule)), "{ipv4}");
    }
    assert_eq!(table.by_ipv4("11.0.0.0".parse().unwrap(), Some(5353)), Err(Unmapped::NoRule));
    slow.check_edges(&[80, 5353]);
}

/// PORT-11, P3: ports with A = 0 count where the address is shared, and nowhere else.
#[test]
fn ports_of_shared_and_unshared_addresses() {
    let rules = [("2001:db8:1::/48", "192.0.2.0/24", 8), ("2001:db8:2::/48", "198.51.100.0/24", 16)];
    let slow = Slow::new(rules.map(|(v6, v4, ea)| spec(v6.parse().unwrap(), v4.parse().unwrap(), ea)));
    let table = slow.table();
    let full: Ipv4Addr = "192.0.2.18".parse().unwrap();
    let shared: Ipv4Addr = "198.51.100.18".parse().unwrap();
    let own = table.by_ipv4(full, None).unwrap();
    assert_eq!(own.1.ipv6(), "2001:db8:1:1200:0:c000:212:0".parse::<Ipv6Addr>().unwrap());
    for port in [0, 80, 1023, 1024, 65535] {
        assert_eq!(table.by_ipv4(full, Some(port)), Ok(own));
    }
    assert_eq!(table.by_ipv4(shared, None), Err(Unmapped::PortNeeded));
    for port in [0, 80, 1023] {
        assert_eq!(table.by_ipv4(shared, Some(port)), Err(Unmapped::PortExcluded));
    }
    let (id, addr) = table.by_ipv4(shared, Some(1232)).unwrap();
    assert_eq!((id, addr.to_string()), (RuleId(1), "2001:db8:2:1234:0:c633:6412:34".into()));
}

/// P12: many DMRs, nested ones too; a rule's own comes before the set's.
#[test]
fn many_dmrs() {
    let own = ["2001:db8:fff0::/48", "2001:db8:fff0:1::/64", "2001:db8:fff0:1:0:1::/96", "2001:db8:fff0::/48"].map(dmr);
    let rules = own.iter().zip(0u128..).map(|(&dmr, i)| RuleSpec {
        name: format!("rule-{i}"),
        dmr_ipv6_prefix: Some(dmr),
        ..spec(
            Ipv6Prefix::truncating((0x2001_0db8_u128 << 96 | i << 80).into(), 48),
            Ipv4Prefix::truncating((0xc000_0200 + ((i as u32) << 8)).into(), 24),
            16,
        )
    });
    let mut rules: Vec<Rule> = rules.map(|spec| Rule::new(spec).unwrap()).collect();
    let plain = RuleSpec {
        name: "plain".into(),
        ..spec("2001:db8:8::/48".parse().unwrap(), "198.51.100.0/24".parse().unwrap(), 16)
    };
    rules.push(Rule::new(plain).unwrap());
    let set = dmr("64:ff9b:1::/48");
    let table = RuleTable::new(rules, Some(set)).unwrap();
    assert_eq!(table.dmrs(), [set, own[0], own[1], own[2]]);
    for (id, dmr) in (0..).zip([own[0], own[1], own[2], own[0], set]) {
        assert_eq!(*table.dmr(RuleId(id)), dmr);
    }
    let ipv4: Ipv4Addr = "203.0.113.77".parse().unwrap();
    for dmr in [set, own[0], own[1], own[2]] {
        let addr = dmr.embed(ipv4);
        let slow =
            table.dmrs().iter().filter(|dmr| dmr.prefix().contains(addr)).max_by_key(|dmr| dmr.prefix().prefix_len());
        assert_eq!(table.by_dmr(addr), slow.map(|dmr| (dmr, dmr.extract(addr).unwrap())), "{addr}");
    }
    assert_eq!(table.by_dmr("2001:db8:fff1::".parse().unwrap()), None);
    assert_eq!(table.by_dmr("64:ff9b:2::".parse().unwrap()), None);
}

/// xorshift64*: the same in every run.
struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(n)) >> 64) as u64
    }
}

/// 100,000 rules: 256 CEs to an address by EA bits; 1:1 rules of 256 PSIDs; nested ones; /128 ones in one /64.
#[test]
fn a_hundred_thousand_rules() {
    const N: u64 = 100_000;
    let ipv6 = |high: u64, len| Ipv6Prefix::truncating((u128::from(0x2a00_u64 << 48 | high) << 64).into(), len);
    let ipv4 = |offset: u64, len| Ipv4Prefix::truncating((0x0b00_0000 + offset as u32).into(), len);
    let one_to_one =
        |i: u64, ipv6| RuleSpec { psid_len: Some(8), psid: Some((i & 0xff) as u16), ..spec(ipv6, ipv4(i >> 8, 32), 0) };
    let shapes: [Vec<RuleSpec>; 4] = [
        (0..N).map(|i| spec(ipv6(i << 25, 40), ipv4(i << 9, 24), 16)).collect(),
        (0..N).map(|i| one_to_one(i, ipv6(i << 9, 56))).collect(),
        (0..N)
            .map(|i| {
                let (block, level) = (i >> 2, (i & 3) as u8);
                spec(ipv6(block << 28, 36 + 4 * level), ipv4(block << 10, 22 + 2 * level), 18 - 2 * level)
            })
            .collect(),
        (0..N)
            .map(|i| one_to_one(i, Ipv6Prefix::truncating((0x2a00_u128 << 112 | u128::from(i) << 1).into(), 128)))
            .collect(),
    ];
    for specs in shapes {
        let slow = Slow::new(specs);
        assert_eq!(slow.rules.len() as u64, N);
        let table = slow.table();
        let octets = table.lookup_size() / N as usize;
        assert!(octets <= 64, "{octets} octets a rule");
        let mut random = Random(0x1234_5678_9abc_def1);
        for _ in 0..40 {
            let rule = &slow.rules[random.below(N) as usize];
            let prefix = rule.spec().rule_ipv4_prefix;
            let host = random.below(2 << (32 - prefix.prefix_len())) as u32;
            let ipv4 = Ipv4Addr::from(u32::from(prefix.addr()) + host);
            let port = Some(random.below(65536) as u16);
            let found = table.by_ipv4(ipv4, port);
            assert_eq!(found, slow.by_ipv4(ipv4, port), "{ipv4} {port:?}");

            let prefix = rule.spec().rule_ipv6_prefix;
            let host = (u128::from(random.below(u64::MAX)) << 64 | u128::from(random.below(u64::MAX))) >> 1;
            let host = if prefix.prefix_len() == 128 { host & 1 } else { host >> (prefix.prefix_len() - 2) };
            let addr = Ipv6Addr::from(u128::from(prefix.addr()) + host);
            assert_eq!(table.by_ipv6(addr), slow.by_ipv6(addr), "{addr}");
            if let Ok((id, address)) = found {
                // The way back, unless a rule nested in its IPv6 prefix owns that address.
                assert_eq!(table.by_ipv6(address.ipv6()), slow.by_ipv6(address.ipv6()));
                assert_eq!(table.get(id).decompose(address.ipv6()).0, ipv4);
            }
        }
    }
}
