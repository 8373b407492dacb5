//! Requirements of RFC 7597, 7599 and 6052 that no other test of the engines carries; `docs/rfc` has the list.
//! Addresses and ports are worked out by hand.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::*;
use mapt::br::Br;
use mapt::ce::Ce;
use mapt::config::{Config, RuleSet, routes};
use mapt::map::RuleSpec;
use mapt::verdict::DropReason;

const OWN: &str = "2001:db8:12:3400:0:c000:212:34";
const OWN4: &str = "192.0.2.18";
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER4: &str = "10.2.3.4";
const HOST: &str = "192.168.1.10";

/// PORT-3: a rule that does not say its PSID offset has 6: 0-1023 are nobody's, 1024 is PSID 0's.
#[test]
fn port3_the_default_offset() {
    let text = "rules:\n  - rule-ipv6-prefix: 2001:db8::/40\n    rule-ipv4-prefix: 192.0.2.0/24\n    ea-len: 16\n    dmr-ipv6-prefix: 2001:db8:ffff::/64\n";
    let load = |text: &str| RuleSet::load(text, Path::new("rules.yaml")).unwrap().value.table;
    let table = load(text);
    let params = table.rules()[0].port_params().unwrap();
    assert_eq!(params.a(), 6);
    let owner = |port| table.by_ipv4(v4(OWN4), Some(port)).ok().map(|(_, address)| address.ipv6());
    for port in 0..1024 {
        assert_eq!(owner(port), None, "{port}");
    }
    // 1024 = 000001 00000000 00, 1028 = 000001 00000001 00.
    assert_eq!(owner(1024), Some(v6("2001:db8:12::c000:212:0")));
    assert_eq!(owner(1028), Some(v6("2001:db8:12:100:0:c000:212:1")));
    let four = load(&text.replace("    ea-len: 16\n", "    ea-len: 16\n    psid-offset: 4\n"));
    assert_eq!(four.rules()[0].port_params().unwrap().a(), 4, "the key is what makes the difference");
}

/// RULE-1, RULE-14, RULE-20: what a CE sends out of any of its 252 ports, by the same rules the BR takes and returns.
#[test]
fn rule20_one_rule_set_for_both() {
    let (mut ce, mut br) = (ce(), br());
    let mut ports = BTreeSet::new();
    for n in 0..252u16 {
        let sport = 30_000 + n;
        let out = handle(&mut ce, &udp4(HOST, sport, SERVER4, 53, b"query")).forwarded();
        let (src, port, dst, dport) = tuple(&out);
        assert_eq!((src.as_str(), dst.as_str(), dport), (OWN, SERVER, 53));
        // PSID 0x34 is 1232-1235 and so on every 1024.
        assert!((1232..=64_723).contains(&port) && (port - 1232) % 1024 < 4, "{port}");
        assert!(ports.insert(port));
        let outside = handle(&mut br, &out).forwarded();
        assert_eq!(tuple(&outside), (OWN4.into(), port, SERVER4.into(), 53));
        let answer = handle(&mut br, &udp4(SERVER4, 53, OWN4, port, b"answer")).forwarded();
        assert_eq!(tuple(&answer), (SERVER.into(), 53, OWN.into(), port));
        let inside = handle(&mut ce, &answer).forwarded();
        assert_eq!(tuple(&inside), (SERVER4.into(), 53, HOST.into(), sport));
    }
    assert_eq!(ports.len(), 252);
}

/// RULE-19: a home in two domains has an End-user prefix in each, and an engine for each; a BR that serves both tells
/// them apart by their prefixes.
#[test]
fn rule19_two_domains() {
    let second = || RuleSpec {
        dmr_ipv6_prefix: Some(mapt::map::Dmr::new("2001:db8:eeee::/64".parse().unwrap()).unwrap()),
        ..rule("2001:db9::/40", "203.0.113.0/24", 16)
    };
    let both = |end_user: Option<&str>| {
        provisioning(vec![rule("2001:db8::/40", "192.0.2.0/24", 16), second()], "2001:db8:ffff::/64", end_user)
    };
    let mut first_ce = Ce::new(&both(Some("2001:db8:12:3400::/56")), &ce_params());
    let mut second_ce = Ce::new(&both(Some("2001:db9:12:3400::/56")), &ce_params());
    let mut br = Br::new(&both(None), &br_params());
    let cases = [
        (&mut first_ce, OWN4, OWN, SERVER),
        (&mut second_ce, "203.0.113.18", "2001:db9:12:3400:0:cb00:7112:34", "2001:db8:eeee:0:a:203:400:0"),
    ];
    for (ce, own4, own, server) in cases {
        let out = handle(ce, &udp4(HOST, 4000, SERVER4, 53, b"x")).forwarded();
        let (src, port, dst, _) = tuple(&out);
        assert_eq!((src.as_str(), dst.as_str()), (own, server));
        assert_eq!(tuple(&handle(&mut br, &out).forwarded()), (own4.into(), port, SERVER4.into(), 53));
        let back = handle(&mut br, &udp4(SERVER4, 53, own4, port, b"y")).forwarded();
        assert_eq!(tuple(&handle(ce, &back).forwarded()), (SERVER4.into(), 53, HOST.into(), 4000));
    }
}

/// RULE-21: a shared IPv4 address identifies no interface: neither the address nor a route to it is the CE's, whose
/// device has 192.0.0.2. A BR routes the rule's IPv4 prefix.
#[test]
fn rule21_a_shared_address_is_on_no_interface() {
    let rules = "rules: {dmr-ipv6-prefix: 2001:db8:ffff::/64, rules: [{rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16}]}\n";
    let load = |text: String| {
        Config::load(&text, Path::new("x.yaml"), &mut |_| Err(std::io::ErrorKind::NotFound.into())).unwrap().value
    };
    let ce = load(format!("role: ce\n{rules}end-user-ipv6-prefix: 2001:db8:12:3400::/56\n"));
    let br = load(format!("role: br\n{rules}"));
    let said = |config: &Config| format!("{:?} {:?}", config.tun.ipv4_address, routes::wanted(config));
    assert!(!said(&ce).contains("192.0.2."), "{}", said(&ce));
    assert!(said(&ce).contains("192.0.0.2"), "{}", said(&ce));
    assert!(said(&br).contains("192.0.2.0"), "{}", said(&br));
}

/// DMR-3: the examples of RFC 6052 §2.4, table 1, through a BR: 192.0.2.33 is the server.
#[test]
fn dmr3_the_examples_of_rfc_6052() {
    for (dmr, server) in [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ] {
        let rules = vec![rule("2001:db9::/40", "198.51.100.0/24", 16)];
        let mut br = Br::new(&provisioning(rules, dmr, None), &br_params());
        // 198.51.100.18, PSID 0x34.
        let customer = "2001:db9:12:3400:0:c633:6412:34";
        let server = v6(server).to_string();
        let to = handle(&mut br, &udp4("192.0.2.33", 53, "198.51.100.18", 1232, b"x")).forwarded();
        assert_eq!(tuple(&to), (server.clone(), 53, customer.into(), 1232), "{dmr}");
        let from = handle(&mut br, &udp6(customer, 1235, &server, 80, b"x")).forwarded();
        assert_eq!(tuple(&from), ("198.51.100.18".into(), 1235, "192.0.2.33".into(), 80), "{dmr}");
    }
}

/// CE-8: only what comes out of the DMR or a forwarding rule, whatever its port.
#[test]
fn ce8_only_from_the_dmr_or_a_rule() {
    for src in ["2001:db9::1", "2001:db8:fffe:0:a:203:400:0", "64:ff9b::a02:304"] {
        // 2001:db8:fffe:: lies outside of 2001:db8::/40 and of the DMR, by one bit of that.
        let outcome = handle(&mut ce(), &udp6(src, 53, OWN, 1234, b"x"));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceNotMap, None), "{src}");
    }
    assert_eq!(handle(&mut ce(), &udp6(SERVER, 53, OWN, 1234, b"x")).reason(), DropReason::NaptNoMapping);
}

/// CE-18, DMR-10: with a NAT64's prefix as its DMR, a CE is a CLAT.
#[test]
fn ce18_a_clat() {
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16)];
    let mut ce = Ce::new(&provisioning(rules, "64:ff9b::/96", Some("2001:db8:12:3400::/56")), &ce_params());
    let out = handle(&mut ce, &tcp4(HOST, 40_000, "8.8.4.4", 443, "S", b"")).forwarded();
    let (src, port, dst, dport) = tuple(&out);
    assert_eq!((src.as_str(), dst.as_str(), dport), (OWN, "64:ff9b::808:404", 443));
    let back = handle(&mut ce, &tcp6("64:ff9b::808:404", 443, OWN, port, "SA", b"")).forwarded();
    assert_eq!(tuple(&back), ("8.8.4.4".into(), 443, HOST.into(), 40_000));
}

/// BR-6, HDR-8: the whole IPv4 packet, octet by octet, but for an Identification out of a generator.
#[test]
fn br6_the_ipv4_packet() {
    let mut packet = udp6(OWN, 1232, SERVER, 80, b"mapt");
    packet[1] = 0xb0; // Traffic Class 0x0b.
    packet[7] = 9;
    let out = handle(&mut br(), &packet).forwarded();
    let id = u16::from_be_bytes([out[4], out[5]]);
    // 192.0.2.18 = c0000212, 10.2.3.4 = 0a020304. Octets 1232 = 04d0, 80 = 0050; UDP has 12 octets.
    let words = [0x450b, 0x0020, u32::from(id), 0x0000, 0x0911, 0xc000, 0x0212, 0x0a02, 0x0304];
    let sum: u32 = words.iter().sum();
    let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    let [a, b] = checksum.to_be_bytes();
    let mut expected = vec![0x45, 0x0b, 0, 0x20, out[4], out[5], 0, 0, 9, 17, a, b];
    expected.extend([0xc0, 0, 2, 0x12, 0x0a, 2, 3, 4, 0x04, 0xd0, 0, 0x50, 0, 12]);
    // Pseudo-header c000 0212 0a02 0304 0011 000c, 04d0 0050 000c, "mapt" 6d61 7074.
    let udp: u32 = [0xc000, 0x0212, 0x0a02, 0x0304, 0x11, 0x0c, 0x04d0, 0x50, 0x0c, 0x6d61, 0x7074].iter().sum();
    let [a, b] = (!(((udp & 0xffff) + (udp >> 16)) as u16)).to_be_bytes();
    expected.extend([a, b]);
    expected.extend(b"mapt");
    assert_eq!(out, expected);
}

/// BR-9: the whole IPv6 packet, octet by octet.
#[test]
fn br9_the_ipv6_packet() {
    let packet = edit4(udp4(SERVER4, 80, OWN4, 1232, b"mapt"), |b| {
        b[1] = 0x0b;
        b[8] = 9;
    });
    let out = handle(&mut br(), &packet).forwarded();
    let mut expected = vec![0x60, 0xb0, 0, 0, 0, 12, 17, 9];
    expected.extend(v6(SERVER).octets());
    expected.extend(v6(OWN).octets());
    expected.extend([0, 0x50, 0x04, 0xd0, 0, 12]);
    let addresses = expected[8..40].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let udp: u32 = addresses.sum::<u32>() + [0x11, 0x0c, 0x50, 0x04d0, 0x0c, 0x6d61, 0x7074].iter().sum::<u32>();
    let folded = (udp & 0xffff) + (udp >> 16);
    expected.extend((!(((folded & 0xffff) + (folded >> 16)) as u16)).to_be_bytes());
    expected.extend(b"mapt");
    assert_eq!(out, expected);
}

/// BR-10, BR-8: of an echo to a shared address the identifier says whose it is.
#[test]
fn br10_an_echo_to_a_shared_address() {
    let mut br = br();
    // 1232 = 000001 00110100 00 is PSID 0x34, 1300 = 000001 01000101 00 is PSID 0x45.
    for (id, customer) in [(1232, OWN), (1300, "2001:db8:12:4500:0:c000:212:45")] {
        for request in [true, false] {
            let out = handle(&mut br, &echo4(SERVER4, OWN4, id, request, b"ping")).forwarded();
            assert_eq!(tuple(&out), (SERVER.into(), id, customer.into(), id));
            assert_eq!(out[40], if request { 128 } else { 129 });
        }
    }
}

/// BR-13, CE-5: IPv4 UDP without checksum gets one at a BR and at a CE.
#[test]
fn br13_ce5_a_missing_checksum_is_computed() {
    let without = |mut packet: Vec<u8>| {
        packet[26..28].copy_from_slice(&[0, 0]);
        packet
    };
    let to_home = handle(&mut br(), &without(udp4(SERVER4, 80, OWN4, 1232, b"mapt"))).forwarded();
    let from_home = handle(&mut ce(), &without(udp4(HOST, 4000, SERVER4, 53, b"mapt"))).forwarded();
    for out in [to_home, from_home] {
        assert_ne!(out[46..48], [0, 0]);
        assert_valid(&out);
    }
}
