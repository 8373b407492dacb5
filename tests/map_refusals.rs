//! Rules, rule sets and End-user prefixes that are refused, with the leaf and the section; and what is only warned of.

use mapt::map::{Customer, Dmr, EndUserPrefix, PortSet, Psid, Rule, RuleId, RuleSpec, RuleTable};

fn dmr(text: &str) -> Dmr {
    Dmr::new(text.parse().unwrap()).unwrap()
}

fn spec(ipv6: &str, ipv4: &str, ea_len: u8) -> RuleSpec {
    RuleSpec {
        name: ipv6.into(),
        rule_ipv6_prefix: ipv6.parse().unwrap(),
        rule_ipv4_prefix: ipv4.parse().unwrap(),
        ea_len,
        psid_offset: 6,
        psid_len: None,
        psid: None,
        forwarding: true,
        dmr_ipv6_prefix: None,
    }
}

fn explicit(ipv6: &str, ipv4: &str, psid_len: u8, psid: u16) -> RuleSpec {
    RuleSpec { psid_len: Some(psid_len), psid: Some(psid), ..spec(ipv6, ipv4, 0) }
}

/// Leaf and section of each error.
fn refused(spec: RuleSpec) -> Vec<(&'static str, &'static str)> {
    match Rule::new(spec) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            for error in &errors {
                println!("{}: {error} ({})", error.leaf, error.rfc);
            }
            errors.iter().map(|error| (error.leaf, error.rfc)).collect()
        }
    }
}

fn table(specs: Vec<RuleSpec>, dmr: Option<Dmr>) -> Result<RuleTable, Vec<(usize, &'static str)>> {
    let rules = specs.into_iter().map(|spec| Rule::new(spec).expect("a rule")).collect();
    RuleTable::new(rules, dmr).map_err(|conflicts| {
        for conflict in &conflicts {
            println!("rules[{}].{}: {} ({})", conflict.rule, conflict.leaf, conflict.message, conflict.rfc);
        }
        conflicts.iter().map(|conflict| (conflict.rule, conflict.leaf)).collect()
    })
}

fn conflicts(specs: Vec<RuleSpec>) -> Vec<(usize, &'static str)> {
    table(specs, Some(dmr("2001:db8:ffff::/64"))).err().unwrap_or_default()
}

const V6: &str = "2001:db8::/40";

/// RULE-2, RULE-4.
#[test]
fn ea_len() {
    assert_eq!(refused(spec("2000::/15", "0.0.0.0/0", 49)), [("ea-len", "RFC 7597 §5.2")]);
    assert_eq!(refused(spec("2000::/15", "0.0.0.0/0", u8::MAX)), [("ea-len", "RFC 7597 §5.2")]);
    assert_eq!(refused(spec("2001:db8::/120", "192.0.2.0/24", 9)), [("ea-len", "RFC 7597 §5.2")]);
    // k = 17.
    assert_eq!(refused(spec(V6, "192.0.2.0/24", 25)), [("ea-len", "RFC 7597 §5.1")]);
    for ok in [
        RuleSpec { psid_offset: 0, ..spec("2000::/15", "0.0.0.0/0", 48) },
        RuleSpec { psid_offset: 0, ..spec("2001:db8::/112", "192.0.2.1/32", 16) },
        spec("2001:db8::1/128", "192.0.2.1/32", 0),
        spec("::/0", "0.0.0.0/0", 0),
    ] {
        assert_eq!(refused(ok), []);
    }
}

/// PORT-10, RFC 7598 §4.5; unused where the address is not shared.
#[test]
fn psid_offset() {
    assert_eq!(
        refused(RuleSpec { psid_offset: 16, ..spec(V6, "192.0.2.0/24", 8) }),
        [("psid-offset", "RFC 7598 §4.5")]
    );
    assert_eq!(
        refused(RuleSpec { psid_offset: 9, ..spec(V6, "192.0.2.0/24", 16) }),
        [("psid-offset", "RFC 7597 §5.1")]
    );
    assert_eq!(refused(explicit(V6, "192.0.2.1/32", 11, 0)), [("psid-len", "RFC 7597 §5.1")]);
    assert_eq!(refused(RuleSpec { psid_offset: 8, ..spec(V6, "192.0.2.0/24", 16) }), []);
    assert_eq!(refused(RuleSpec { psid_offset: 15, ..spec(V6, "192.0.2.0/24", 8) }), []);
}

/// DHCP-5, DHCP-10, P51.
#[test]
fn explicit_psid() {
    let with = |psid_len, psid, ea_len| RuleSpec { psid_len, psid, ..spec(V6, "192.0.2.0/24", ea_len) };
    // The EA bits carry 8 bits of PSID.
    assert_eq!(refused(with(Some(8), None, 16)), []);
    assert_eq!(refused(with(Some(7), None, 16)), [("psid-len", "RFC 7598 §4.5")]);
    assert_eq!(refused(with(Some(0), None, 16)), [("psid-len", "RFC 7598 §4.5")]);
    assert_eq!(refused(with(Some(8), Some(3), 16)), [("psid", "RFC 7598 §4.5")]);
    assert_eq!(refused(with(None, Some(3), 16)), [("psid", "RFC 7598 §4.5")]);
    // A full address.
    assert_eq!(refused(with(Some(8), Some(255), 8)), []);
    assert_eq!(refused(with(Some(8), Some(256), 8)), [("psid", "RFC 7597 §5.1")]);
    assert_eq!(refused(with(Some(8), None, 8)), [("psid-len", "RFC 7598 §4.5")]);
    assert_eq!(refused(with(None, Some(0), 8)), [("psid", "RFC 7598 §4.5")]);
    assert_eq!(refused(with(Some(17), Some(0), 8)), [("psid-len", "RFC 7597 §5.1")]);
    assert_eq!(refused(RuleSpec { psid_offset: 0, ..with(Some(16), Some(u16::MAX), 8) }), []);
    for not_shared in [with(Some(0), None, 8), with(Some(0), Some(0), 8)] {
        assert!(Rule::new(not_shared).unwrap().port_params().is_none());
    }
    assert_eq!(refused(with(Some(0), Some(1), 8)), [("psid", "RFC 7597 §5.1")]);
    // An IPv4 prefix.
    assert_eq!(refused(with(Some(8), Some(3), 7)), [("psid-len", "RFC 7598 §4.5")]);
    assert_eq!(refused(with(Some(0), Some(0), 7)), []);
}

/// RULE-9: the EA bits must leave the host bits in the interface id alone.
#[test]
fn host_bits_of_an_ipv4_prefix() {
    assert_eq!(refused(spec("2001:db8::/104", "192.0.2.0/24", 4)), []);
    assert_eq!(refused(spec("2001:db8::/105", "192.0.2.0/24", 4)), [("rule-ipv6-prefix", "RFC 7597 §6")]);
    // No host bits, no harm.
    assert_eq!(refused(spec("2001:db8::/105", "192.0.2.0/24", 8)), []);
}

#[test]
fn all_errors_at_once() {
    let all = RuleSpec { name: String::new(), psid_offset: 17, ..spec("2001:db8::/96", "192.0.2.0/24", 49) };
    assert_eq!(refused(all).iter().map(|(leaf, _)| *leaf).collect::<Vec<_>>(), ["name", "ea-len", "psid-offset"]);
    let all =
        RuleSpec { psid: Some(9), psid_len: Some(3), psid_offset: 12, ..spec("2001:db8::/120", "192.0.2.0/24", 16) };
    let leaves: Vec<_> = refused(all).iter().map(|(leaf, _)| *leaf).collect();
    assert_eq!(leaves, ["ea-len", "psid-len", "psid", "psid-len"]);
}

#[test]
fn messages_say_what_was_given_and_what_was_expected() {
    let message = |spec| Rule::new(spec).unwrap_err()[0].message.clone();
    assert_eq!(message(spec(V6, "192.0.2.0/24", 49)), "49 EA bits; expected 0 to 48");
    assert_eq!(
        message(spec("2001:db8::/120", "192.0.2.0/24", 9)),
        "9 EA bits behind a /120 do not fit; expected at most 8"
    );
    assert_eq!(message(explicit(V6, "192.0.2.1/32", 4, 16)), "PSID 16 has more than 4 bits; expected 0 to 15");
}

/// PORT-8 and its kin: only different explicit PSIDs may share a prefix.
#[test]
fn one_ipv4_prefix_twice() {
    let (one, two, three) = ("2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:3::/48");
    let net = "192.0.2.0/24";
    assert_eq!(conflicts(vec![spec(one, net, 8), spec(two, net, 8)]), [(1, "rule-ipv4-prefix")]);
    assert_eq!(conflicts(vec![spec(one, net, 16), spec(two, net, 16)]), [(1, "rule-ipv4-prefix")]);
    assert_eq!(conflicts(vec![spec(one, net, 16), spec(two, net, 12)]), [(1, "ea-len")]);
    let offset = RuleSpec { psid_offset: 4, ..spec(two, net, 16) };
    assert_eq!(conflicts(vec![spec(one, net, 16), offset]), [(1, "psid-offset")]);
    assert_eq!(conflicts(vec![spec(one, net, 16), spec(two, net, 8)]), [(1, "rule-ipv4-prefix")]);

    let host = "192.0.2.1/32";
    let psid = |ipv6, psid| explicit(ipv6, host, 8, psid);
    assert_eq!(conflicts(vec![psid(one, 1), psid(two, 2), psid(three, 255)]), []);
    assert_eq!(conflicts(vec![psid(one, 1), psid(two, 2), psid(three, 1)]), [(2, "psid")]);
    assert_eq!(
        conflicts(vec![psid(one, 1), explicit(two, host, 7, 2), psid(three, 1)]),
        [(1, "psid-len"), (2, "psid")]
    );
    assert_eq!(conflicts(vec![psid(one, 1), spec(two, host, 8)]), [(1, "rule-ipv4-prefix")]);
    assert_eq!(conflicts(vec![spec(one, host, 8), psid(two, 1)]), [(1, "rule-ipv4-prefix")]);
    assert_eq!(conflicts(vec![psid(one, 1), spec(two, host, 0)]), [(1, "rule-ipv4-prefix")]);
    // psid-offset is not looked at where the address is not shared.
    let unused = RuleSpec { psid_offset: 3, ..spec(two, "192.0.2.2/32", 0) };
    assert_eq!(conflicts(vec![spec(one, host, 0), unused]), []);
    // Nested is fine, whatever a and k.
    assert_eq!(conflicts(vec![spec(one, net, 16), RuleSpec { psid_offset: 4, ..psid(two, 1) }]), []);
}

#[test]
fn one_ipv6_prefix_or_name_twice() {
    let named = |name: &str, spec: RuleSpec| RuleSpec { name: name.into(), ..spec };
    let rules = vec![
        named("a", spec("2001:db8::/48", "192.0.2.0/24", 8)),
        named("b", spec("2001:db8::/48", "198.51.100.0/24", 8)),
        named("a", spec("2001:db8::/47", "203.0.113.0/24", 8)),
    ];
    assert_eq!(conflicts(rules), [(1, "rule-ipv6-prefix"), (2, "name")]);
}

/// DMR-11.
#[test]
fn dmr_and_rules() {
    let with =
        |ipv6: &str, ipv4: &str, ea: u8, prefix: &str| table(vec![spec(ipv6, ipv4, ea)], Some(dmr(prefix))).err();
    let inside = Some(vec![(0, "rule-ipv6-prefix")]);
    // RFC 7597 App. A's plan.
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:ffff::/64"), None);
    // The same prefix, and a rule inside the DMR.
    assert_eq!(with("2001:db8:1::/48", "192.0.2.0/24", 16, "2001:db8:1::/48"), inside);
    assert_eq!(with("2001:db8:1:100::/56", "192.0.2.0/24", 8, "2001:db8:1::/48"), inside);
    assert_eq!(with("2001:db8:1:100::/56", "192.0.2.0/24", 8, "2001:db8::/32"), inside);
    // A DMR inside the rule: among the EA bits, behind them, in the subnet id, in the interface id.
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:12::/48"), inside);
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:12:3400::/56"), inside);
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:12:3400::/64"), inside);
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:12:3401::/64"), None);
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:12:3400:0:c000::/96"), inside);
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:12:3400:0:c001::/96"), None);
    assert_eq!(with(V6, "192.0.2.0/24", 16, "2001:db8:12:3400::/96"), None);
    // An IPv4 prefix whose host bits fill the interface id.
    assert_eq!(with("2001:db8:1::/64", "0.0.0.0/0", 0, "2001:db8:1:0:0:1234::/96"), inside);
    assert_eq!(with("2001:db8:1::/64", "0.0.0.0/0", 0, "2001:db8:1:0:1:1234::/96"), None);
    // Some other rule's DMR counts as well.
    let own = RuleSpec {
        dmr_ipv6_prefix: Some(dmr("2001:db8:12:3400::/64")),
        ..spec("2001:db8:f000::/40", "198.51.100.0/24", 16)
    };
    let found = table(vec![spec(V6, "192.0.2.0/24", 16), own.clone()], Some(dmr("2001:db8:ffff::/64"))).err();
    assert_eq!(found, inside);
    // No DMR at all.
    let found = table(vec![own, spec("2001:db8:100::/40", "192.0.2.0/24", 16)], None).err();
    assert_eq!(found, Some(vec![(1, "dmr-ipv6-prefix")]));
}

fn customer(specs: Vec<RuleSpec>, prefix: &str) -> Result<Customer, (String, &'static str)> {
    let table = table(specs, Some(dmr("64:ff9b:1:fffe::/96"))).unwrap();
    table.customer(EndUserPrefix(prefix.parse().unwrap())).map_err(|e| {
        println!("{e} ({})", e.rfc);
        (e.message, e.rfc)
    })
}

#[test]
fn customer_of_a_shared_address() {
    let found = customer(vec![spec(V6, "192.0.2.0/24", 16)], "2001:db8:12:3400::/56").unwrap();
    assert_eq!((found.rule, found.ipv4.to_string(), found.psid), (RuleId(0), "192.0.2.18/32".into(), Some(Psid(0x34))));
    assert_eq!((found.ports.count(), found.ports.nth(0), found.ports.nth(251)), (252, Some(1232), Some(64723)));
    assert_eq!(found.map_address.to_string(), "2001:db8:12:3400:0:c000:212:34");
    assert_eq!(found.map_prefix.to_string(), "2001:db8:12:3400:0:c000:212:34/128");
}

/// RULE-9: a CE with an IPv4 prefix has a MAP address for each host.
#[test]
fn customer_of_an_ipv4_prefix() {
    let rule = || vec![spec("2001:db8:4464::/48", "198.51.96.0/20", 8)];
    let found = customer(rule(), "2001:db8:4464:4300::/56").unwrap();
    assert_eq!((found.ipv4.to_string(), found.psid, found.ports), ("198.51.100.48/28".into(), None, PortSet::ALL));
    assert_eq!(found.map_address.to_string(), "2001:db8:4464:4300:0:c633:6430:0");
    assert_eq!(found.map_prefix.to_string(), "2001:db8:4464:4300:0:c633:6430:0/108");
    // As long as the End-user prefix holds them all.
    assert!(customer(rule(), "2001:db8:4464:4300:0:c633:6430:0/108").is_ok());
    let (message, _) = customer(rule(), "2001:db8:4464:4300:0:c633:6430:0/109").unwrap_err();
    assert!(message.contains("expects /108 or shorter"), "{message}");
}

/// RULE-12: the longest Rule IPv6 prefix that covers the whole End-user prefix.
#[test]
fn customer_by_longest_match() {
    let rules = || {
        vec![
            spec("2001:db8::/32", "192.0.2.0/24", 16),
            spec("2001:db8:1000::/36", "198.51.100.0/24", 16),
            spec("2001:db8:1200::/56", "203.0.113.7/32", 0),
        ]
    };
    for (prefix, rule) in [("2001:db8:2134::/48", 0), ("2001:db8:1123:4000::/52", 1), ("2001:db8:1200::/56", 2)] {
        assert_eq!(customer(rules(), prefix).unwrap().rule, RuleId(rule), "{prefix}");
    }
    // The /56 rule lies inside this one, and takes its MAP address away.
    let (message, rfc) = customer(rules(), "2001:db8:1200::/52").unwrap_err();
    assert!(message.contains("more specific rule `2001:db8:1200::/56`"), "{message}");
    assert_eq!(rfc, "RFC 7597 §5");
    // 192.0.2.18 by the outer rule, but a nested IPv4 prefix owns it.
    let rules = vec![spec("2001:db8::/32", "192.0.2.0/24", 16), spec("2001:db9::/32", "192.0.2.16/28", 12)];
    let (message, _) = customer(rules, "2001:db8:1234::/48").unwrap_err();
    assert!(message.contains("IPv4 address 192.0.2.18"), "{message}");
}

/// RULE-2, RULE-10, RULE-11.
#[test]
fn customers_refused() {
    let rule = || vec![spec(V6, "192.0.2.0/24", 16)];
    let (message, rfc) = customer(rule(), "2001:db8:100::/56").unwrap_err();
    assert_eq!(
        message,
        "End-user prefix 2001:db8:100::/56 lies in no Rule IPv6 prefix; there is no Basic Mapping Rule"
    );
    assert_eq!(rfc, "RFC 7597 §5");
    let (message, rfc) = customer(rule(), "2001:db8:12::/48").unwrap_err();
    assert!(message.contains("too short") && message.contains("at least /56"), "{message}");
    assert_eq!(rfc, "RFC 7597 §5.2");
    // Subnet bits that the border writes as zeros.
    assert!(customer(rule(), "2001:db8:12:3400::/60").is_ok());
    let (message, _) = customer(rule(), "2001:db8:12:3450::/60").unwrap_err();
    assert!(message.contains("bits 57 to 59") && message.contains("expected 2001:db8:12:3400::/60"), "{message}");
    // Longer than 64: it must be the interface id that the border writes.
    assert!(customer(rule(), "2001:db8:12:3400:0:c000:212:34/128").is_ok());
    assert!(customer(rule(), "2001:db8:12:3400::/72").is_ok());
    let (message, _) = customer(rule(), "2001:db8:12:3400::1/128").unwrap_err();
    assert!(message.contains("expected 2001:db8:12:3400:0:c000:212:34/128"), "{message}");
}

#[test]
fn warnings() {
    let table = table(
        vec![
            RuleSpec { psid_offset: 8, ..spec("2001:db8:1::/48", "192.0.2.0/24", 16) },
            RuleSpec { psid_offset: 0, ..spec("2001:db8:2::/48", "198.51.100.0/24", 16) },
            RuleSpec { psid_offset: 0, ..explicit("2001:db8:3::/48", "203.0.113.1/32", 8, 4) },
            RuleSpec { psid_offset: 0, ..explicit("2001:db8:4::/48", "203.0.113.2/32", 8, 3) },
            spec("2001:db8:5::/48", "127.0.0.0/16", 16),
            spec("2001:db8:6::/48", "203.0.113.64/26", 6),
        ],
        Some(dmr("64:ff9b::/96")),
    )
    .unwrap();
    let warnings = table.warnings();
    for warning in &warnings {
        println!("{:?} {}: {} ({})", warning.rule, warning.leaf, warning.message, warning.rfc);
    }
    let leaves: Vec<_> = warnings.iter().map(|warning| (warning.rule, warning.leaf)).collect();
    assert_eq!(
        leaves,
        [
            (None, "dmr-ipv6-prefix"),
            (Some(0), "psid-offset"),
            (Some(1), "psid-offset"),
            (Some(3), "psid-offset"),
            (Some(4), "rule-ipv4-prefix"),
        ]
    );
}
