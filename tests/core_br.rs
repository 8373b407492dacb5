//! The Border Relay by scenario. Ids: P = pitfalls, others = requirements. Addresses are worked out by hand.
//!
//! Appendix A of RFC 7597: 192.0.2.18 with PSID 0x34 has the ports 1232-1235, 2256-2259, ..., 64720-64723.

mod common;
mod oracle;

use common::*;
use mapt::br::{Br, BrParams};
use mapt::engine::Engine;
use mapt::map::{Dmr, Provisioning, RuleSpec};
use mapt::reply::{IcmpParams, Originate};
use mapt::siit::{MssClamp, Mtu, PortList, TranslationParams, UdpZeroChecksum};
use mapt::verdict::{Direction, DropReason, Verdict};
use oracle::build::{Kind, Make, Place, Report};
use oracle::packet::{Packet4, Packet6, Piece, complete, sum, word};

const CE: &str = "2001:db8:12:3400:0:c000:212:34";
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
const IPV4: &str = "192.0.2.18";
const SERVER4: &str = "10.2.3.4";

fn br_of(provisioning: &Provisioning, change: impl FnOnce(&mut BrParams)) -> Br {
    let mut params = br_params();
    change(&mut params);
    Br::new(provisioning, &params)
}

fn with(translation: TranslationParams) -> Br {
    br_of(&appendix_a(None), |p| p.translation = translation)
}

fn mtus(ipv6: u32, ipv4: u32, lowest_ipv6: u32) -> Br {
    with(TranslationParams { mtu: Mtu { ipv6, ipv4, lowest_ipv6 }, ..Default::default() })
}

fn read4(b: &[u8]) -> Packet4 {
    let mut faults = Vec::new();
    let packet = Packet4::read(b, false, &mut faults).unwrap();
    assert_eq!(faults, []);
    packet
}

fn read6(b: &[u8]) -> Packet6 {
    let mut faults = Vec::new();
    let packet = Packet6::read(b, false, &mut faults).unwrap();
    assert_eq!(faults, []);
    packet
}

fn addresses(b: &[u8]) -> (String, String) {
    let (src, _, dst, _) = tuple(b);
    (src, dst)
}

fn a4(text: &str) -> [u8; 4] {
    v4(text).octets()
}

fn a6(text: &str) -> [u8; 16] {
    v6(text).octets()
}

/// Type and code of an ICMPv6 answer; it comes from 192.0.0.8 inside the DMR and goes to `to`.
fn told6(outcome: &Outcome, to: &str) -> (u8, u8) {
    let reply = outcome.reply.as_ref().expect("an answer");
    assert_eq!(addresses(reply), ("2001:db8:ffff:0:c0:0:800:0".into(), to.into()));
    (reply[40], reply[41])
}

fn told4(outcome: &Outcome, to: &str) -> (u8, u8) {
    let reply = outcome.reply.as_ref().expect("an answer");
    assert_eq!(addresses(reply), ("192.0.0.8".into(), to.into()));
    (reply[20], reply[21])
}

/// A packet that an ICMP error of the Internet quotes: from the customer, at 1234, to the server, at 53.
fn quoted4() -> Vec<u8> {
    udp4(IPV4, 1234, SERVER4, 53, b"the packet in error")
}

/// A packet that an ICMP error of the access network quotes: from the server, at 53, to the customer, at 1234.
fn quoted6() -> Vec<u8> {
    udp6(SERVER, 53, CE, 1234, b"the packet in error")
}

// The port check.

/// P1, BR-2, BR-5: port, subnet bits, IPv4 address and PSID of the interface id, and its first 16 bits.
#[test]
fn p1_a_spoofed_source_is_dropped_counted_and_told() {
    let cases = [
        (CE, 1231, DropReason::PortOutsideSet),
        (CE, 1236, DropReason::PortOutsideSet),
        (CE, 5555, DropReason::PortOutsideSet),
        (CE, 80, DropReason::PortExcluded),
        ("2001:db8:12:3400:0:c000:212:35", 1234, DropReason::SourceMismatch),
        ("2001:db8:12:3400:0:c000:213:34", 1234, DropReason::SourceMismatch),
        ("2001:db8:12:3400:1:c000:212:34", 1234, DropReason::SourceMismatch),
        ("2001:db8:12:3401:0:c000:212:34", 1234, DropReason::SourceMismatch),
        ("2001:db8:12:3400::", 1234, DropReason::SourceMismatch),
        // Another customer's address with this customer's port.
        ("2001:db8:12:3500:0:c000:212:35", 1234, DropReason::PortOutsideSet),
        ("2001:db8:13:3400:0:c000:212:34", 1234, DropReason::SourceMismatch),
    ];
    let mut br = br();
    for (n, (src, port, reason)) in cases.into_iter().enumerate() {
        for packet in [udp6(src, port, SERVER, 443, b"spoof"), tcp6(src, port, SERVER, 443, "S", b"")] {
            let outcome = handle(&mut br, &packet);
            assert_eq!(outcome.reason(), reason, "{src} {port}");
            assert_eq!(told6(&outcome, src), (1, 5));
        }
        let counters = br.counters().snapshot();
        assert_eq!(counters.direction(Direction::V6ToV4).dropped_total().packets, 2 * (n as u64 + 1));
    }
    assert_eq!(handle(&mut br, &udp6(CE, 1235, SERVER, 443, b"")).verdict, Verdict::Forward);
}

/// BR-5: the check of the interface id can be switched off, that of the port cannot.
#[test]
fn p1_without_the_interface_id_check_the_port_check_stays() {
    let mut br = br_of(&appendix_a(None), |p| p.check_interface_id = false);
    let out = handle(&mut br, &udp6("2001:db8:12:34ff:1:2:3:4", 1234, SERVER, 443, b"x")).forwarded();
    assert_eq!(tuple(&out), (IPV4.into(), 1234, SERVER4.into(), 443));
    let outcome = handle(&mut br, &udp6("2001:db8:12:34ff:1:2:3:4", 1236, SERVER, 443, b"x"));
    assert_eq!(outcome.reason(), DropReason::PortOutsideSet);
}

/// P2: the source port from the customer, the destination port to it; the other one may be anything.
#[test]
fn p2_the_right_port_is_checked() {
    for other in [0, 80, 1231, 1234, 65535] {
        let out = handle(&mut br(), &udp6(CE, 1234, SERVER, other, b"out")).forwarded();
        assert_eq!(tuple(&out), (IPV4.into(), 1234, SERVER4.into(), other));
        let out = handle(&mut br(), &tcp4(SERVER4, other, IPV4, 1235, "A", b"in")).forwarded();
        assert_eq!(tuple(&out), (SERVER.into(), other, CE.into(), 1235));
    }
    // A good destination port does not help a bad source port.
    assert_eq!(handle(&mut br(), &udp6(CE, 443, SERVER, 1234, b"")).reason(), DropReason::PortExcluded);
    assert_eq!(handle(&mut br(), &udp6(CE, 4430, SERVER, 1234, b"")).reason(), DropReason::PortOutsideSet);
}

/// P3, P4, PORT-4: with a = 4 the ports below 4096 are nobody's, in both directions; with a = 0 all have an owner.
#[test]
fn p3_p4_ports_that_nobody_owns() {
    // 192.0.2.0/24, k = 4: with a = 4 port 4096 and with a = 0 port 0 belong to PSID 0.
    let spec = |a| vec![RuleSpec { psid_offset: a, ..rule("2001:db8::/40", "192.0.2.0/24", 12) }];
    let psid_0 = "2001:db8:12::c000:212:0";
    let mut four = br_of(&provisioning(spec(4), "2001:db8:ffff::/64", None), |_| ());
    for port in [0, 1, 80, 1023, 1024, 4095] {
        let outcome = handle(&mut four, &udp6(psid_0, port, SERVER, 9999, b""));
        assert_eq!(outcome.reason(), DropReason::PortExcluded, "{port}");
        assert_eq!(told6(&outcome, psid_0), (1, 5));
        let outcome = handle(&mut four, &tcp4(SERVER4, 9999, IPV4, port, "S", b""));
        assert_eq!(outcome.reason(), DropReason::PortExcluded, "{port}");
        assert_eq!(told4(&outcome, SERVER4), (3, 13));
    }
    assert_eq!(addresses(&handle(&mut four, &udp4(SERVER4, 80, IPV4, 4096, b"")).forwarded()).1, psid_0);
    let mut zero = br_of(&provisioning(spec(0), "2001:db8:ffff::/64", None), |_| ());
    for port in [0, 80, 4095] {
        assert_eq!(tuple(&handle(&mut zero, &udp6(psid_0, port, SERVER, 9999, b"")).forwarded()).1, port);
        assert_eq!(addresses(&handle(&mut zero, &udp4(SERVER4, 9999, IPV4, port, b"")).forwarded()).1, psid_0);
    }
}

/// P5, RFC 7597 §5.1: A | PSID | j from the highest bit. a = 6, k = 6: port 1232 = 000001 001101 0000 is PSID 13.
#[test]
fn p5_the_order_of_the_fields() {
    let provisioning = provisioning(vec![rule("2001:db8::/40", "192.0.2.0/24", 14)], "2001:db8:ffff::/64", None);
    let mut br = br_of(&provisioning, |_| ());
    // 192.0.2.18, PSID 13: EA bits 00010010 001101, so 12:34 again; the interface id ends in d.
    let out = handle(&mut br, &udp4(SERVER4, 80, IPV4, 1232, b"x")).forwarded();
    assert_eq!(addresses(&out).1, "2001:db8:12:3400:0:c000:212:d");
    for port in [1232, 1247, 2256, 64735] {
        assert_eq!(
            addresses(&handle(&mut br, &udp4(SERVER4, 80, IPV4, port, b"")).forwarded()).1,
            "2001:db8:12:3400:0:c000:212:d"
        );
    }
    for port in [1231, 1248] {
        assert_ne!(
            addresses(&handle(&mut br, &udp4(SERVER4, 80, IPV4, port, b"")).forwarded()).1,
            "2001:db8:12:3400:0:c000:212:d"
        );
    }
}

// Kinds of rules.

/// P10, RULE-9: a customer with 203.0.113.16/28. The host bits stand in the interface id, in both directions.
#[test]
fn p10_a_host_of_a_customers_prefix() {
    let provisioning = provisioning(vec![rule("2001:db8:4000::/36", "203.0.113.0/24", 4)], "2001:db8:ffff::/64", None);
    let mut br = br_of(&provisioning, |_| ());
    // EA bits 0001 behind 36 bits: 2001:db8:4100::/40. 203.0.113.21 = cb00:7115.
    let host = "2001:db8:4100::cb00:7115:0";
    let out = handle(&mut br, &udp4(SERVER4, 99, "203.0.113.21", 80, b"in")).forwarded();
    assert_eq!(tuple(&out), (SERVER.into(), 99, host.into(), 80));
    let out = handle(&mut br, &udp6(host, 80, SERVER, 99, b"out")).forwarded();
    assert_eq!(tuple(&out), ("203.0.113.21".into(), 80, SERVER4.into(), 99));
    // Not shared: any port, any protocol, even without ports.
    let gre = Make::new(Kind::Other(47), 0, 0, 50);
    assert_eq!(read6(&handle(&mut br, &gre.v4(a4(SERVER4), a4("203.0.113.21"))).forwarded()).next, 47);
    assert_eq!(read4(&handle(&mut br, &gre.v6(a6(host), a6(SERVER))).forwarded()).protocol, 47);
    // A host of another /28 in this customer's prefix.
    let outcome = handle(&mut br, &udp6("2001:db8:4100::cb00:7125:0", 80, SERVER, 99, b""));
    assert_eq!(outcome.reason(), DropReason::SourceMismatch);
}

/// P56, RULE-18: rules of one address each, `ea-len: 0`, told apart by their PSID.
#[test]
fn p56_one_to_one_rules_in_both_directions() {
    let one = |v6: &str, psid| RuleSpec { psid_len: Some(8), psid: Some(psid), ..rule(v6, "192.0.2.18/32", 0) };
    let rules = vec![one("2001:db8:77:7700::/56", 0x35), one("2001:db8:12:3400::/56", 0x34)];
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ());
    for (port, ce) in [(1234, CE), (1237, "2001:db8:77:7700:0:c000:212:35")] {
        assert_eq!(addresses(&handle(&mut br, &udp4(SERVER4, 80, IPV4, port, b"")).forwarded()).1, ce);
        assert_eq!(tuple(&handle(&mut br, &udp6(ce, port, SERVER, 80, b"")).forwarded()).0, IPV4);
    }
    let outcome = handle(&mut br, &udp4(SERVER4, 80, IPV4, 1240, b""));
    assert_eq!((outcome.reason(), told4(&outcome, SERVER4)), (DropReason::PsidUnassigned, (3, 13)));
    let outcome = handle(&mut br, &udp6(CE, 1237, SERVER, 80, b""));
    assert_eq!(outcome.reason(), DropReason::PortOutsideSet);
}

/// P56, RULE-10: nothing of the interface id remains behind a /128.
#[test]
fn p56_a_rule_prefix_of_128_bits() {
    let shared = RuleSpec { psid_len: Some(8), psid: Some(0x34), ..rule("2001:db8::beef/128", "192.0.2.18/32", 0) };
    let full = rule("2001:db8::f00d/128", "192.0.2.19/32", 0);
    let mut br = br_of(&provisioning(vec![shared, full], "2001:db8:ffff::/64", None), |_| ());
    assert_eq!(addresses(&handle(&mut br, &udp4(SERVER4, 80, IPV4, 1234, b"")).forwarded()).1, "2001:db8::beef");
    assert_eq!(addresses(&handle(&mut br, &udp6("2001:db8::beef", 1234, SERVER, 80, b"")).forwarded()).0, IPV4);
    assert_eq!(handle(&mut br, &udp6("2001:db8::beef", 1238, SERVER, 80, b"")).reason(), DropReason::PortOutsideSet);
    assert_eq!(
        addresses(&handle(&mut br, &tcp4(SERVER4, 80, "192.0.2.19", 22, "S", b"")).forwarded()).1,
        "2001:db8::f00d"
    );
    assert_eq!(tuple(&handle(&mut br, &tcp6("2001:db8::f00d", 22, SERVER, 80, "A", b"")).forwarded()).0, "192.0.2.19");
}

/// P52, P53: prefixes that end in the middle of an octet, and a rule inside another rule.
#[test]
fn p52_p53_longest_match_between_rules() {
    let rules = vec![rule("2001:db8:3000::/36", "198.18.0.0/15", 20), rule("2001:db8:3010::/44", "192.0.2.0/24", 12)];
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ());
    // 198.18.0.5 with 17 suffix bits 0 0000 0000 0000 0101 and k = 3: port 1024 + 4 * 128 has PSID 4.
    let wide = "2001:db8:3000:2c00:0:c612:5:4";
    assert_eq!(addresses(&handle(&mut br, &udp4(SERVER4, 80, "198.18.0.5", 1536, b"")).forwarded()).1, wide);
    assert_eq!(addresses(&handle(&mut br, &udp6(wide, 1536, SERVER, 80, b"")).forwarded()).0, "198.18.0.5");
    // 192.0.2.18 and k = 4 behind 44 bits: EA bits 0001 0010 0001 for PSID 1, ports 1088-1151.
    let narrow = "2001:db8:3011:2100:0:c000:212:1";
    assert_eq!(addresses(&handle(&mut br, &udp4(SERVER4, 80, IPV4, 1100, b"")).forwarded()).1, narrow);
    assert_eq!(addresses(&handle(&mut br, &udp6(narrow, 1100, SERVER, 80, b"")).forwarded()).0, IPV4);
}

/// RULE-17, P11: a rule for a part of another rule's addresses takes them away from it, in both directions.
#[test]
fn p11_a_more_specific_ipv4_prefix_under_another_ipv6_prefix() {
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16), rule("2001:db8:a100::/48", "192.0.2.18/32", 8)];
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ());
    let narrow = "2001:db8:a100:3400:0:c000:212:34";
    assert_eq!(addresses(&handle(&mut br, &udp4(SERVER4, 80, IPV4, 1234, b"")).forwarded()).1, narrow);
    assert_eq!(addresses(&handle(&mut br, &udp6(narrow, 1234, SERVER, 80, b"")).forwarded()).0, IPV4);
    // The wider rule would write this address, but it is not the owner's, and nothing would come back to it.
    let outcome = handle(&mut br, &udp6(CE, 1234, SERVER, 80, b""));
    assert_eq!((outcome.reason(), told6(&outcome, CE)), (DropReason::SourceMismatch, (1, 5)));
    let other = "2001:db8:13:3400:0:c000:213:34";
    assert_eq!(addresses(&handle(&mut br, &udp6(other, 1234, SERVER, 80, b"")).forwarded()).0, "192.0.2.19");
}

/// P12: a rule with a DMR of its own; what is addressed to the other DMR is not for its customers.
#[test]
fn p12_a_rule_with_its_own_dmr() {
    let own = RuleSpec {
        dmr_ipv6_prefix: Some(Dmr::new("2001:db8:eeee::/48".parse().unwrap()).unwrap()),
        ..rule("2001:db8:6000::/40", "198.51.100.0/24", 16)
    };
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16), own];
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ());
    // 10.2.3.4 behind 48 bits: bits 48-63 and 72-87.
    let (ce, server) = ("2001:db8:6012:3400:0:c633:6412:34", "2001:db8:eeee:a02:3:400::");
    let out = handle(&mut br, &udp4(SERVER4, 80, "198.51.100.18", 1234, b"")).forwarded();
    assert_eq!(addresses(&out), (server.into(), ce.into()));
    assert_eq!(
        addresses(&handle(&mut br, &udp6(ce, 1234, server, 80, b"")).forwarded()),
        ("198.51.100.18".into(), SERVER4.into())
    );
    assert_eq!(
        addresses(&handle(&mut br, &udp4(SERVER4, 80, IPV4, 1234, b"")).forwarded()),
        (SERVER.into(), CE.into())
    );
    assert_eq!(handle(&mut br, &udp6(ce, 1234, SERVER, 80, b"")).reason(), DropReason::DestinationNotOurs);
    assert_eq!(handle(&mut br, &udp6(CE, 1234, server, 80, b"")).reason(), DropReason::DestinationNotOurs);
}

/// P54: with a DMR of 96 bits the customer's address keeps the interface id of RFC 7597.
#[test]
fn p54_a_dmr_of_96_bits() {
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16)];
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff:ffff::/96", None), |_| ());
    let server = "2001:db8:ffff:ffff::a02:304";
    let out = handle(&mut br, &udp4(SERVER4, 80, IPV4, 1234, b"")).forwarded();
    assert_eq!(addresses(&out), (server.into(), CE.into()));
    let out = handle(&mut br, &udp6(CE, 1234, server, 80, b"")).forwarded();
    assert_eq!(addresses(&out), (IPV4.into(), SERVER4.into()));
}

/// P35, DMR-5, DMR-6: a received u octet and suffix are not looked at.
#[test]
fn p35_u_octet_and_suffix_are_ignored() {
    let out = handle(&mut br(), &udp6(CE, 1234, "2001:db8:ffff:0:ff0a:203:4ab:cdef", 80, b"")).forwarded();
    assert_eq!(addresses(&out).1, SERVER4);
}

/// P55, BR-4: what is not addressed to the DMR is native IPv6 and none of ours, whoever sent it.
#[test]
fn p55_native_ipv6_is_not_ours() {
    for src in [CE, "2001:db8:12:3400::1234", "2001:db8:12:34ff:5:6:7:8"] {
        let outcome = handle(&mut br(), &udp6(src, 1234, "2001:db8:abcd::1", 80, b""));
        assert!(matches!(
            outcome.reason(),
            DropReason::DestinationNotOurs | DropReason::PortOutsideSet | DropReason::SourceMismatch
        ));
    }
    assert_eq!(
        handle(&mut br(), &udp6(CE, 1234, "2001:db8:abcd::1", 80, b"")).reason(),
        DropReason::DestinationNotOurs
    );
    let outcome = handle(&mut br(), &udp6("2001:db8:8000::1", 1234, SERVER, 80, b""));
    assert_eq!((outcome.reason(), told6(&outcome, "2001:db8:8000::1")), (DropReason::NoRule, (1, 1)));
}

/// BR-17: CE to CE through the BR; the kernel routes the first result to the BR again.
#[test]
fn br17_hairpin() {
    // 192.0.2.33, PSID 1: ports 1028-1031.
    let other = "2001:db8:21:100:0:c000:221:1";
    let mut br = br();
    let packet = udp6(CE, 1234, "2001:db8:ffff:0:c0:2:2100:0", 1030, b"to a neighbour");
    let between = handle(&mut br, &packet).forwarded();
    assert_eq!(tuple(&between), (IPV4.into(), 1234, "192.0.2.33".into(), 1030));
    let out = handle(&mut br, &between).forwarded();
    assert_eq!(tuple(&out), ("2001:db8:ffff:0:c0:2:1200:0".into(), 1234, other.into(), 1030));
    assert_valid(&out);
    // P32: the engine takes nothing off the hop limit, so not twice either.
    assert_eq!(read6(&out).hop_limit, 64);
    let back = udp6(other, 1030, "2001:db8:ffff:0:c0:2:1200:0", 1234, b"and back");
    let between = handle(&mut br, &back).forwarded();
    assert_eq!(addresses(&handle(&mut br, &between).forwarded()).1, CE);
}

/// DMR-7, P34: 64:ff9b::/96 carries no private addresses, in either direction; another DMR does.
#[test]
fn dmr7_the_well_known_prefix_carries_global_addresses_only() {
    let rules = vec![rule("2001:db8::/40", "5.6.7.0/24", 16)];
    let mut br = br_of(&provisioning(rules, "64:ff9b::/96", None), |p| p.icmp.ipv6_source = Some(v6("2001:db8:1::1")));
    let ce = "2001:db8:12:3400:0:506:712:34";
    for private in ["10.2.3.4", "192.168.1.1", "172.16.0.1", "100.64.0.1", "198.18.0.1", "203.0.113.7"] {
        let outcome = handle(&mut br, &udp4(private, 80, "5.6.7.18", 1234, b""));
        assert_eq!((outcome.reason(), told4(&outcome, private)), (DropReason::AddressNotGlobal, (3, 13)));
        let embedded = v6("64:ff9b::").octets();
        let dst: [u8; 16] = [&embedded[..12], &a4(private)].concat().try_into().unwrap();
        let outcome = handle(&mut br, &udp6(ce, 1234, &std::net::Ipv6Addr::from(dst).to_string(), 80, b""));
        assert_eq!(outcome.reason(), DropReason::AddressNotGlobal);
        assert_eq!(outcome.reply.as_ref().map(|r| (r[40], r[41])), Some((1, 1)));
        assert_eq!(addresses(outcome.reply.as_ref().unwrap()).0, "2001:db8:1::1", "the configured source");
    }
    let out = handle(&mut br, &udp4("8.8.4.4", 53, "5.6.7.18", 1234, b"")).forwarded();
    assert_eq!(addresses(&out), ("64:ff9b::808:404".into(), ce.into()));
}

/// P34, HDR-2, HDR-6: addresses that no packet may come from or go to; silently.
#[test]
fn p34_illegal_addresses() {
    for bad in
        ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "169.254.1.1"]
    {
        let outcome = handle(&mut br(), &udp4(bad, 80, IPV4, 1234, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceIllegal, None), "{bad}");
        let outcome = handle(&mut br(), &udp4(SERVER4, 80, bad, 1234, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::DestinationIllegal, None), "{bad}");
        let mut dst = a6("2001:db8:ffff::");
        dst[9..13].copy_from_slice(&a4(bad));
        let dst = std::net::Ipv6Addr::from(dst).to_string();
        let outcome = handle(&mut br(), &udp6(CE, 1234, &dst, 80, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::DestinationIllegal, None), "{bad}");
    }
    for bad in ["::", "::1", "fe80::1", "ff02::1", "ff0e::1234"] {
        let outcome = handle(&mut br(), &udp6(bad, 1234, SERVER, 80, b""));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::SourceIllegal, None), "{bad}");
    }
}

/// P34, ICMP-11: an ICMPv6 error is translated from whatever source, but not to whatever destination.
#[test]
fn p34_an_error_to_an_illegal_destination() {
    for bad in ["127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "169.254.9.9"] {
        let mut src = a6("2001:db8:ffff::");
        src[9..13].copy_from_slice(&a4(bad));
        let src = std::net::Ipv6Addr::from(src).to_string();
        let quoted = udp6(&src, 53, CE, 1234, b"");
        let outcome = handle(&mut br(), &icmp6(CE, &src, 1, 4, [0; 4], &quoted));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::DestinationIllegal, None), "{bad}");
    }
}

/// HDR-2: only an ICMPv4 error is translated from an illegal source.
#[test]
fn hdr2_an_error_from_an_illegal_source_is_translated() {
    for bad in ["127.0.0.1", "0.0.0.0", "224.0.0.9", "169.254.9.9"] {
        let out = handle(&mut br(), &icmp4(bad, IPV4, 11, 0, [0; 4], &quoted4())).forwarded();
        assert_valid(&out);
        assert_eq!(out[40..42], [3, 0]);
    }
}

// Headers.

/// P38, HDR table: every TOS and Traffic Class goes through, a flow label does not hurt.
#[test]
fn p38_every_traffic_class() {
    let mut br = br();
    for tos in 0..=255 {
        let make = |src, dst| Make {
            tos,
            id: 0xfffff,
            df: true,
            ..Make::new(Kind::Udp { zero: false, slack: 0 }, src, dst, 20)
        };
        let out = read6(&handle(&mut br, &make(80, 1234).v4(a4(SERVER4), a4(IPV4))).forwarded());
        assert_eq!((out.class, out.flow_label, out.hop_limit), (tos, 0, 64));
        let out = read4(&handle(&mut br, &make(1234, 80).v6(a6(CE), a6(SERVER))).forwarded());
        assert_eq!((out.tos, out.ttl), (tos, 64));
    }
}

/// P38: a DSCP of the operator's own, for every class and both directions; ECN and the quoted packet stay.
#[test]
fn p38_a_dscp_keeps_ecn() {
    let udp = |tos, src, dst| Make {
        tos,
        id: 0xabcde,
        df: true,
        ..Make::new(Kind::Udp { zero: false, slack: 0 }, src, dst, 20)
    };
    for (up, down) in [(Some(46), None), (None, Some(8)), (Some(0), Some(63))] {
        let translation = TranslationParams { dscp_v4_to_v6: up, dscp_v6_to_v4: down, ..Default::default() };
        let mut br = with(translation);
        let expected = |tos: u8, dscp: Option<u8>| dscp.map_or(tos, |dscp| dscp * 4 + tos % 4);
        for tos in 0..=255 {
            let packet = udp(tos, 80, 1234).v4(a4(SERVER4), a4(IPV4));
            let out = handle(&mut br, &packet).forwarded();
            assert_valid(&out);
            assert_eq!((read6(&out).class, read6(&out).flow_label), (expected(tos, up), 0));
            let packet = udp(tos, 1234, 80).v6(a6(CE), a6(SERVER));
            let out = handle(&mut br, &packet).forwarded();
            assert_valid(&out);
            assert_eq!(read4(&out).tos, expected(tos, down));
            let report = Report { kind: 3, code: 1, rest: [0; 4], tos, ttl: 64 };
            let quoted = udp(!tos, 1234, 80).v4(a4(IPV4), a4(SERVER4));
            let out = handle(&mut br, &report.v4(a4(SERVER4), a4(IPV4), &quoted)).forwarded();
            assert_eq!(read6(&out).class, expected(tos, up));
            assert_eq!(out[48] % 16 * 16 + out[49] / 16, !tos, "the quoted packet was not ours to mark");
            let report = Report { kind: 1, ..report };
            let quoted = udp(!tos, 80, 1234).v6(a6(SERVER), a6(CE));
            let out = handle(&mut br, &report.v6(a6(CE), a6(SERVER), &quoted)).forwarded();
            assert_eq!((read4(&out).tos, out[29]), (expected(tos, down), !tos));
        }
    }
}

/// P37, MTU-8: the MSS of a SYN, and only of a SYN, is lowered to what fits, never raised, never added.
#[test]
fn p37_mss() {
    let tcp = |flags, options: &[u8], src, dst| Make {
        tcp_options: options.to_vec(),
        ..Make::new(Kind::Tcp { options: options.len().div_ceil(4) as u8, flags }, src, dst, 0)
    };
    let clamped = |clamp, ipv6, ipv4, flags, options: &[u8]| {
        let mtu = Mtu { ipv6, ipv4, lowest_ipv6: 1280 };
        let mut br = with(TranslationParams { mtu, tcp_mss_clamp: clamp, ..Default::default() });
        let out6 = handle(&mut br, &tcp(flags, options, 80, 1234).v4(a4(SERVER4), a4(IPV4))).forwarded();
        let out4 = handle(&mut br, &tcp(flags, options, 1234, 80).v6(a6(CE), a6(SERVER))).forwarded();
        assert_valid(&out6);
        assert_valid(&out4);
        assert_eq!(out6[60..], out4[40..], "both directions");
        out4[40..].to_vec()
    };
    let mss = |value: u16| [[2, 4], value.to_be_bytes()].concat();
    const SYN: u8 = 2;
    const SYN_ACK: u8 = 0x12;
    for (clamp, ipv6, ipv4, limit) in [
        (MssClamp::Off, 1280, 1280, 65_535),
        (MssClamp::Auto, 1500, 1500, 1440),
        (MssClamp::Auto, 1480, 1500, 1420),
        (MssClamp::Auto, 9000, 1300, 1260),
        (MssClamp::Auto, 1500, 68, 28),
        (MssClamp::To(536), 1500, 1500, 536),
        (MssClamp::To(1400), 1500, 1500, 1400),
    ] {
        for value in [0, 27, 28, 535, 536, 537, 1259, 1260, 1261, 1399, 1400, 1420, 1421, 1440, 1441, 1460, 65_535] {
            for flags in [SYN, SYN_ACK, 0xc2] {
                assert_eq!(clamped(clamp, ipv6, ipv4, flags, &mss(value)), mss(value.min(limit)), "{clamp:?} {value}");
            }
            for flags in [0x10, 0x18, 0x11, 0x04] {
                assert_eq!(clamped(clamp, ipv6, ipv4, flags, &mss(value)), mss(value), "no SYN");
            }
        }
    }
    // Wherever it stands, at an odd offset too; others stay, and none is added.
    for (options, after) in [
        (&[][..], &[][..]),
        (&[1, 2, 4, 5, 180, 1, 1, 1], &[1, 2, 4, 3, 232, 1, 1, 1]),
        (&[1, 1, 2, 4, 5, 180, 4, 2], &[1, 1, 2, 4, 3, 232, 4, 2]),
        (&[3, 3, 7, 2, 4, 255, 255, 0], &[3, 3, 7, 2, 4, 3, 232, 0]),
        (&[8, 10, 2, 4, 5, 180, 9, 9, 9, 9, 4, 2], &[8, 10, 2, 4, 5, 180, 9, 9, 9, 9, 4, 2]),
        (&[0, 2, 4, 5, 180, 0, 0, 0], &[0, 2, 4, 5, 180, 0, 0, 0]),
        (&[2, 0, 2, 4, 5, 180, 0, 0], &[2, 0, 2, 4, 5, 180, 0, 0]),
        (&[9, 1, 2, 4, 5, 180, 0, 0], &[9, 1, 2, 4, 5, 180, 0, 0]),
        (&[9, 41, 2, 4, 5, 180, 0, 0], &[9, 41, 2, 4, 5, 180, 0, 0]),
        (&[1, 1, 1, 2], &[1, 1, 1, 2]),
    ] {
        assert_eq!(clamped(MssClamp::To(1000), 1500, 1500, SYN, options), after);
    }
    // A first fragment may end within the option.
    let make = Make {
        place: Place::First(3),
        tcp_options: vec![1, 2, 4, 5, 180],
        ..Make::new(Kind::Tcp { options: 2, flags: SYN }, 80, 1234, 100)
    };
    let translation = TranslationParams { tcp_mss_clamp: MssClamp::To(1000), ..Default::default() };
    let packet = make.v4(a4(SERVER4), a4(IPV4));
    let out = read6(&handle(&mut with(translation), &packet).forwarded());
    assert_eq!(out.payload[20..], [1, 2, 4, 5]);
    // Or hold it whole; then the rest of the packet, which is elsewhere, has the checksum right.
    let whole = Make { place: Place::Whole, ..make.clone() }.upper(&a4(SERVER4), &a4(IPV4));
    let make = Make { place: Place::First(4), ..make };
    let out = read6(&handle(&mut with(translation), &make.v4(a4(SERVER4), a4(IPV4))).forwarded());
    assert_eq!(out.payload[20..28], [1, 2, 4, 3, 232, 1, 1, 1]);
    let mut segment = [out.payload, whole[32..].to_vec()].concat();
    let there = word(&segment, 16);
    complete(&mut segment, 6, &out.src, &out.dst);
    assert_eq!(there, word(&segment, 16));
    // A quoted SYN is what was sent.
    let quoted = tcp(SYN, &mss(1460), 1234, 80).v4(a4(IPV4), a4(SERVER4));
    let out = handle(&mut with(translation), &icmp4(SERVER4, IPV4, 3, 1, [0; 4], &quoted)).forwarded();
    assert_eq!(out[48 + 60..], mss(1460));
}

/// P32: the kernel counts hops; by option the engine does, and then says so once they run out.
#[test]
fn p32_hop_limits() {
    let udp = |ttl, src, dst| Make { ttl, ..Make::new(Kind::Udp { zero: false, slack: 0 }, src, dst, 9) };
    for ttl in [0, 1, 2, 255] {
        assert_eq!(read6(&handle(&mut br(), &udp(ttl, 80, 1234).v4(a4(SERVER4), a4(IPV4))).forwarded()).hop_limit, ttl);
        assert_eq!(read4(&handle(&mut br(), &udp(ttl, 1234, 80).v6(a6(CE), a6(SERVER))).forwarded()).ttl, ttl);
    }
    let mut br = with(TranslationParams { decrement_hop_limit: true, ..Default::default() });
    assert_eq!(read6(&handle(&mut br, &udp(2, 80, 1234).v4(a4(SERVER4), a4(IPV4))).forwarded()).hop_limit, 1);
    assert_eq!(read4(&handle(&mut br, &udp(255, 1234, 80).v6(a6(CE), a6(SERVER))).forwarded()).ttl, 254);
    for ttl in [0, 1] {
        let outcome = handle(&mut br, &udp(ttl, 80, 1234).v4(a4(SERVER4), a4(IPV4)));
        assert_eq!((outcome.reason(), told4(&outcome, SERVER4)), (DropReason::HopLimit, (11, 0)));
        let outcome = handle(&mut br, &udp(ttl, 1234, 80).v6(a6(CE), a6(SERVER)));
        assert_eq!((outcome.reason(), told6(&outcome, CE)), (DropReason::HopLimit, (3, 0)));
    }
    // The hops of a quoted packet are over (RFC 7915 §4.3).
    let quoted = udp(1, 1234, 53).v4(a4(IPV4), a4(SERVER4));
    let out = handle(&mut br, &icmp4("10.9.9.9", IPV4, 11, 0, [0; 4], &quoted)).forwarded();
    assert_eq!(read6(&out).hop_limit, 63);
    assert_eq!(out[48 + 7], 1);
}

/// P29, HDR-1: options are left out; an unexpired source route is refused, and broken options never hang.
#[test]
fn p29_ipv4_options() {
    let with = |options: &[u8]| {
        let make = Make { options: options.to_vec(), ..Make::new(Kind::Tcp { options: 2, flags: 16 }, 80, 1234, 33) };
        make.v4(a4(SERVER4), a4(IPV4))
    };
    let plain = handle(&mut br(), &with(&[])).forwarded();
    let harmless: [&[u8]; 6] = [
        &[148, 4, 0, 0],
        &[1, 1, 1, 0],
        &[7, 7, 4, 0, 0, 0, 0, 0],
        // Used up: the pointer is beyond the length.
        &[1, 131, 7, 8, 10, 0, 0, 1],
        // Length 0, and beyond the header.
        &[7, 0, 131, 7],
        &[68, 200, 5, 0],
    ];
    for options in harmless {
        let out = handle(&mut br(), &with(options)).forwarded();
        assert_eq!(out, plain, "{options:?}");
        assert_valid(&out);
    }
    for options in [&[131u8, 7, 4, 10, 0, 0, 1, 0][..], &[1, 137, 7, 4, 10, 0, 0, 1], &[148, 4, 0, 0, 137, 3, 3, 0]] {
        let outcome = handle(&mut br(), &with(options));
        assert_eq!((outcome.reason(), told4(&outcome, SERVER4)), (DropReason::SourceRoute, (3, 5)));
    }
}

/// P30, HDR-3: hop-by-hop, routing without segments left, destination options, in any order.
#[test]
fn p30_extension_headers_are_skipped() {
    let hop = (0, vec![0, 1, 4, 0, 0, 0, 0]);
    let routing = (43, vec![2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let destination = (60, vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for kind in [Kind::Tcp { options: 1, flags: 2 }, Kind::Udp { zero: false, slack: 0 }, Kind::Echo { request: true }]
    {
        let plain = Make::new(kind, 1234, 80, 100);
        let expected = read4(&handle(&mut br(), &plain.v6(a6(CE), a6(SERVER))).forwarded());
        for extensions in [
            vec![hop.clone()],
            vec![destination.clone()],
            vec![routing.clone()],
            vec![hop.clone(), destination.clone(), routing.clone(), destination.clone()],
        ] {
            let out = handle(&mut br(), &Make { extensions, ..plain.clone() }.v6(a6(CE), a6(SERVER))).forwarded();
            assert_valid(&out);
            assert_eq!(Packet4 { id: 0, ..read4(&out) }, Packet4 { id: 0, ..expected.clone() });
        }
    }
}

/// P30, HDR-4: the pointer is that of the Segments Left octet.
#[test]
fn p30_segments_left() {
    let routing = (43u8, vec![0, 0, 3, 0, 0, 0, 0]);
    let hop = (0, vec![0, 1, 4, 0, 0, 0, 0]);
    for (extensions, pointer) in [(vec![routing.clone()], 43), (vec![hop.clone(), hop, routing], 59)] {
        let make = Make { extensions, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 1234, 80, 10) };
        let outcome = handle(&mut br(), &make.v6(a6(CE), a6(SERVER)));
        assert_eq!((outcome.reason(), told6(&outcome, CE)), (DropReason::RoutingHeader, (4, 0)));
        assert_eq!(outcome.reply.unwrap()[44..48], [0, 0, 0, pointer]);
    }
}

/// P30, HDR-5: what stands behind a Fragment header cannot be skipped; chains that run past the packet are cut short.
#[test]
fn p30_chains_that_are_refused() {
    let fragment = Some(Piece { id: 9, offset: 0, more: false });
    let packet = |next, payload: Vec<u8>, fragment| {
        let base = read6(&udp6(CE, 1234, SERVER, 80, b""));
        Packet6 { next, fragment, announced: payload.len(), payload, ..base }.write()
    };
    for next in [0, 43, 60, 51] {
        let outcome =
            handle(&mut br(), &packet(next, vec![17, 0, 0, 0, 0, 0, 0, 0, 4, 210, 0, 80, 0, 8, 0, 0], fragment));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::ExtensionHeader, None), "{next}");
    }
    for (next, payload) in [(0, vec![17, 1, 0, 0, 0, 0, 0, 0]), (60, vec![17]), (43, vec![]), (44, vec![17, 0, 0, 0])] {
        assert_eq!(handle(&mut br(), &packet(next, payload, None)).reason(), DropReason::HeaderTruncated);
    }
    // 8190 octets of nothing but hop-by-hop headers.
    let endless = vec![0u8; 8 * 1000];
    assert_eq!(handle(&mut br(), &packet(0, endless, None)).reason(), DropReason::HeaderTruncated);
}

/// P31: protocol numbers that mean something in the other version alone.
#[test]
fn p31_numbers_of_the_other_version() {
    for number in [58, 0, 43, 44, 60, 2] {
        let packet = Make::new(Kind::Other(number), 0, 0, 64).v4(a4(SERVER4), a4(IPV4));
        let outcome = handle(&mut br(), &packet);
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::ProtocolIllegal, None), "{number}");
    }
    for number in [1, 2] {
        let packet = Make::new(Kind::Other(number), 0, 0, 64).v6(a6(CE), a6(SERVER));
        let outcome = handle(&mut br(), &packet);
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::ProtocolIllegal, None), "{number}");
    }
}

/// BR-12, BR-14, HDR-7: without ports only who shares its address is out of reach. 59 is a protocol like another.
#[test]
fn hdr7_unknown_protocols() {
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16), rule("2001:db8:5000::/40", "198.51.100.0/24", 8)];
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ());
    let full = "2001:db8:5012::c633:6412:0";
    for number in [4, 41, 47, 50, 51, 59, 89, 132, 253] {
        let make = Make::new(Kind::Other(number), 0, 0, 77);
        let out = read6(&handle(&mut br, &make.v4(a4(SERVER4), a4("198.51.100.18"))).forwarded());
        assert_eq!((out.next, out.payload, out.dst), (number, make.upper(&[0; 4], &[0; 4]), a6(full)));
        let out = read4(&handle(&mut br, &make.v6(a6(full), a6(SERVER))).forwarded());
        assert_eq!((out.protocol, out.payload, out.src), (number, make.upper(&[0; 4], &[0; 4]), a4("198.51.100.18")));
        let outcome = handle(&mut br, &make.v4(a4(SERVER4), a4(IPV4)));
        assert_eq!((outcome.reason(), told4(&outcome, SERVER4)), (DropReason::ProtocolWithoutPort, (3, 13)));
        let outcome = handle(&mut br, &make.v6(a6(CE), a6(SERVER)));
        assert_eq!((outcome.reason(), told6(&outcome, CE)), (DropReason::ProtocolWithoutPort, (1, 1)));
    }
}

/// RFC 7915 §4.5, §5.5: the checksums of DCCP and UDP-Lite cover the addresses too; those of SCTP, GRE, ESP and AH
/// do not.
#[test]
fn sum1_dccp_and_udp_lite() {
    let rules = vec![rule("2001:db8:5000::/40", "198.51.100.0/24", 8)];
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ());
    for number in [33, 136] {
        let make = |place| Make { place, ..Make::new(Kind::Other(number), 1234, 80, 333) };
        for place in [Place::Whole, Place::First(8), Place::Later(8, false), Place::Later(8, true)] {
            // `upper` has the right checksum over the whole, by whichever addresses.
            let out = read6(&handle(&mut br, &make(place).v4(a4(SERVER4), a4(FULL4))).forwarded());
            assert_eq!(out.payload, read6(&make(place).v6(a6(SERVER), a6(FULL))).payload, "{number} {place:?}");
            let out = read4(&handle(&mut br, &make(place).v6(a6(FULL), a6(SERVER))).forwarded());
            assert_eq!(out.payload, read4(&make(place).v4(a4(FULL4), a4(SERVER4))).payload, "{number} {place:?}");
        }
        // In a quote, where it is there.
        let (whole4, whole6) =
            (make(Place::Whole).v4(a4(FULL4), a4(SERVER4)), make(Place::Whole).v6(a6(FULL), a6(SERVER)));
        for len in [28, 29, 200] {
            let out = handle(&mut br, &icmp4(SERVER4, FULL4, 3, 1, [0; 4], &whole4[..len])).forwarded();
            assert_valid(&out);
            assert_eq!(out[88..], whole6[40..len + 20], "{number} {len}");
        }
        let out = handle(&mut br, &icmp4(SERVER4, FULL4, 3, 1, [0; 4], &whole4[..27])).forwarded();
        assert_eq!(out[88..], whole4[20..27], "no checksum there");
        let (whole4, whole6) =
            (make(Place::Whole).v4(a4(SERVER4), a4(FULL4)), make(Place::Whole).v6(a6(SERVER), a6(FULL)));
        let out = handle(&mut br, &icmp6(FULL, SERVER, 1, 4, [0; 4], &whole6)).forwarded();
        assert_eq!(out[48..], whole4[20..]);
        // Too short to have one.
        let stub = Packet4 { payload: vec![1, 2, 3], announced: 3, ..read4(&whole4) }.write();
        assert_eq!(read6(&handle(&mut br, &stub).forwarded()).payload, [1, 2, 3]);
        // A wrong one stays wrong (RFC 1624), and shares no address.
        let mut wrong = whole4.clone();
        wrong[26..28].copy_from_slice(&[0, 0]);
        let out = handle(&mut br, &wrong).forwarded();
        assert_ne!(out[46..48], whole6[46..48]);
        assert!(number == 33 || out[46..48] == [0, 0], "RFC 3828 §3.1: zero is no checksum");
        let outcome = handle(&mut self::br(), &make(Place::Whole).v4(a4(SERVER4), a4(IPV4)));
        assert_eq!(outcome.reason(), DropReason::ProtocolWithoutPort);
    }
    for number in [132, 47, 50, 51] {
        let make = Make::new(Kind::Other(number), 1234, 80, 333);
        let out = read6(&handle(&mut br, &make.v4(a4(SERVER4), a4(FULL4))).forwarded());
        assert_eq!(out.payload, make.upper(&[0; 4], &[0; 4]));
    }
}

/// P36: TCP and UDP headers that are too short, or say that they are.
#[test]
fn p36_short_transport_headers() {
    let tcp = tcp4(SERVER4, 80, IPV4, 1234, "A", b"0123456789");
    let udp = udp4(SERVER4, 80, IPV4, 1234, b"0123456789");
    let cut = |packet: &[u8], len: usize| {
        let mut packet = packet[..len].to_vec();
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        edit4(packet, |_| ())
    };
    for len in 20..40 {
        assert_eq!(handle(&mut br(), &cut(&tcp, len)).reason(), DropReason::HeaderTruncated, "{len}");
    }
    for len in 20..28 {
        assert_eq!(handle(&mut br(), &cut(&udp, len)).reason(), DropReason::HeaderTruncated, "{len}");
    }
    for data_offset in [0, 1, 4, 8, 15] {
        let lie = edit4(tcp.clone(), |b| b[32] = data_offset << 4);
        assert_eq!(handle(&mut br(), &lie).reason(), DropReason::LengthMismatch, "{data_offset}");
    }
    for length in [0u16, 7, 19, 65535] {
        let lie = edit4(udp.clone(), |b| b[24..26].copy_from_slice(&length.to_be_bytes()));
        assert_eq!(handle(&mut br(), &lie).reason(), DropReason::LengthMismatch, "{length}");
    }
    // Octets behind the UDP datagram are no part of it, and go on.
    let slack = Make::new(Kind::Udp { zero: false, slack: 5 }, 80, 1234, 10).v4(a4(SERVER4), a4(IPV4));
    let out = handle(&mut br(), &slack).forwarded();
    assert_eq!((out.len(), word(&out, 44)), (40 + 23, 18));
    let icmp = cut(&echo4(SERVER4, IPV4, 1234, true, b""), 27);
    assert_eq!(handle(&mut br(), &icmp).reason(), DropReason::HeaderTruncated);
}

/// Lengths that lie, versions that are none, a wrong header checksum.
#[test]
fn broken_ip_headers() {
    let good = udp4(SERVER4, 80, IPV4, 1234, b"payload");
    assert_eq!(handle(&mut br(), &[]).reason(), DropReason::HeaderTruncated);
    assert_eq!(handle(&mut br(), &[0x50; 60]).reason(), DropReason::NotIp);
    assert_eq!(handle(&mut br(), &good[..19]).reason(), DropReason::HeaderTruncated);
    assert_eq!(handle(&mut br(), &good[..34]).reason(), DropReason::HeaderTruncated);
    assert_eq!(handle(&mut br(), &edit4(good.clone(), |b| b[3] = 19)).reason(), DropReason::LengthMismatch);
    let mut wrong = good.clone();
    wrong[10] ^= 1;
    assert_eq!(handle(&mut br(), &wrong).reason(), DropReason::Ipv4HeaderChecksum);
    let mut short_ihl = good.clone();
    short_ihl[0] = 0x44;
    assert_eq!(handle(&mut br(), &short_ihl).reason(), DropReason::LengthMismatch);
    // Ethernet pads; what is behind Total Length is not part of the packet.
    let padded = [&good[..], &[0xaa; 11]].concat();
    assert_eq!(handle(&mut br(), &padded).forwarded(), handle(&mut br(), &good).forwarded());
    let good = udp6(CE, 1234, SERVER, 80, b"payload");
    assert_eq!(handle(&mut br(), &good[..39]).reason(), DropReason::HeaderTruncated);
    assert_eq!(handle(&mut br(), &good[..54]).reason(), DropReason::HeaderTruncated);
    let padded = [&good[..], &[0xaa; 11]].concat();
    assert_eq!(handle(&mut br(), &padded).forwarded().len(), good.len() - 20);
}

// Identification, DF, fragments.

/// P22: up to 1260 octets DF is clear and the Identification means something; beyond it DF is set.
#[test]
fn p22_df_and_identification() {
    let mut br = br();
    let mut ids = std::collections::HashSet::new();
    for total in [28, 1259, 1260, 1261, 1500] {
        for _ in 0..40 {
            let make = Make::new(Kind::Udp { zero: false, slack: 0 }, 1234, 80, total - 28);
            let out = read4(&handle(&mut br, &make.v6(a6(CE), a6(SERVER))).forwarded());
            assert_eq!((out.total(), out.df, out.mf, out.offset), (total, total > 1260, false, 0));
            assert_ne!(out.id, 0);
            ids.insert(out.id);
        }
    }
    // 200 draws of 65,535: more than two pairs alike come once in thousands of runs, and the seed is fixed.
    assert!(ids.len() >= 198, "{}", ids.len());
    // Another seed, another sequence.
    let first = |seed| {
        let mut br = br_of(&appendix_a(None), |p| p.seed = seed);
        read4(&handle(&mut br, &udp6(CE, 1234, SERVER, 80, b"")).forwarded()).id
    };
    assert_ne!(first(1), first(2));
}

/// A BR whose customer has an address of its own: 198.51.100.18 is 2001:db8:5012::c633:6412:0.
fn unshared() -> Br {
    let rules = vec![rule("2001:db8:5000::/40", "198.51.100.0/24", 8), rule("2001:db8::/40", "192.0.2.0/24", 16)];
    br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ())
}

const FULL: &str = "2001:db8:5012::c633:6412:0";
const FULL4: &str = "198.51.100.18";

/// P23, P24, FRAG-7: fragments of an address that is not shared; Identification, offset and flag are kept.
#[test]
fn p23_p24_fragments_of_an_unshared_address() {
    let whole = Make { id: 0xbeef, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 80, 7777, 1000) };
    let upper = whole.upper(&a4(SERVER4), &a4(FULL4));
    for df in [false, true] {
        let first = Make { place: Place::First(63), df, ..whole.clone() };
        let out = read6(&handle(&mut unshared(), &first.v4(a4(SERVER4), a4(FULL4))).forwarded());
        assert_eq!(out.fragment, Some(Piece { id: 0xbeef, offset: 0, more: true }));
        // Only the checksum is another one, by the difference of the addresses.
        let mut translated = upper.clone();
        complete(&mut translated, 17, &out.src, &out.dst);
        assert_eq!(out.payload, translated[..504]);

        let later = Make { place: Place::Later(63, false), df, ..whole.clone() };
        let out = read6(&handle(&mut unshared(), &later.v4(a4(SERVER4), a4(FULL4))).forwarded());
        assert_eq!(out.fragment, Some(Piece { id: 0xbeef, offset: 504, more: false }));
        assert_eq!(out.payload, upper[504..]);
    }
    let back = Make { id: 0x1234_5678, ..Make::new(Kind::Tcp { options: 4, flags: 16 }, 7777, 80, 1000) };
    let upper = back.upper(&a6(FULL), &a6(SERVER));
    let first = Make { place: Place::First(63), ..back.clone() };
    let out = read4(&handle(&mut unshared(), &first.v6(a6(FULL), a6(SERVER))).forwarded());
    assert_eq!((out.id, out.df, out.mf, out.offset), (0x5678, false, true, 0));
    let mut translated = upper.clone();
    complete(&mut translated, 6, &out.src, &out.dst);
    assert_eq!(out.payload, translated[..504]);
    let later = Make { place: Place::Later(63, true), ..back };
    let out = read4(&handle(&mut unshared(), &later.v6(a6(FULL), a6(SERVER))).forwarded());
    assert_eq!((out.id, out.df, out.mf, out.offset), (0x5678, false, true, 504));
    assert_eq!(out.payload, upper[504..504 + out.payload.len()]);
}

/// FRAG-1, FRAG-4: the first fragment of a shared address has its port, later ones have none.
#[test]
fn frag4_later_fragments_of_a_shared_address() {
    let make = |src, dst, place| Make { place, ..Make::new(Kind::Udp { zero: false, slack: 0 }, src, dst, 800) };
    assert_eq!(
        handle(&mut br(), &make(80, 1234, Place::First(10)).v4(a4(SERVER4), a4(IPV4))).verdict,
        Verdict::Forward
    );
    assert_eq!(handle(&mut br(), &make(1234, 80, Place::First(10)).v6(a6(CE), a6(SERVER))).verdict, Verdict::Forward);
    assert_eq!(
        handle(&mut br(), &make(1239, 80, Place::First(10)).v6(a6(CE), a6(SERVER))).reason(),
        DropReason::PortOutsideSet
    );
    // Without a table there is no port for them; with one, see core_fragments.rs.
    let later = Place::Later(10, true);
    for packet in [make(80, 1234, later).v4(a4(SERVER4), a4(IPV4)), make(1234, 80, later).v6(a6(CE), a6(SERVER))] {
        let outcome = handle(&mut br_of(&appendix_a(None), |p| p.fragments.packets = 0), &packet);
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::FragmentWithoutPort, None));
    }
}

/// FRAG-3, P26: fragments that hide a header, overlap it, or reach beyond the end.
#[test]
fn frag3_fragments_that_cannot_be() {
    let base = read4(&tcp4(SERVER4, 80, FULL4, 7777, "S", &[0; 400]));
    let packet = |offset, mf, len: usize| {
        Packet4 { offset, mf, announced: len, payload: base.payload[..len].to_vec(), ..base.clone() }.write()
    };
    let cases = [
        ("a tiny first one", packet(0, true, 16)),
        ("one over the flags of the first", packet(8, true, 64)),
        ("one over the checksum of the first", packet(16, false, 64)),
        ("not a multiple of 8", packet(0, true, 61)),
        ("nothing, and more of it", packet(64, true, 0)),
        ("nothing at the end", packet(64, false, 0)),
        ("ping of death", packet(65_528, false, 64)),
    ];
    for (what, packet) in cases {
        let outcome = handle(&mut unshared(), &packet);
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::FragmentIllegal, None), "{what}");
    }
    assert_eq!(handle(&mut unshared(), &packet(24, true, 64)).verdict, Verdict::Forward);
}

/// FRAG-5, P25: fragmented ICMP is not translated, an atomic fragment is no fragment.
#[test]
fn frag5_fragmented_icmp() {
    for place in [Place::First(8), Place::Later(8, false)] {
        let make = |v6| Make { place, ..Make::new(Kind::Echo { request: v6 }, 1234, 0, 500) };
        assert_eq!(
            handle(&mut unshared(), &make(false).v4(a4(SERVER4), a4(FULL4))).reason(),
            DropReason::FragmentedIcmp
        );
        assert_eq!(handle(&mut unshared(), &make(true).v6(a6(FULL), a6(SERVER))).reason(), DropReason::FragmentedIcmp);
    }
    let atomic = Make { place: Place::Atomic, id: 0xabcd_0042, ..Make::new(Kind::Echo { request: true }, 1234, 0, 50) };
    let out = handle(&mut br(), &atomic.v6(a6(CE), a6(SERVER))).forwarded();
    assert_valid(&out);
}

/// P57: an atomic fragment becomes a whole packet with the low 16 bits of its Identification.
#[test]
fn p57_atomic_fragments() {
    for kind in [Kind::Tcp { options: 0, flags: 2 }, Kind::Udp { zero: false, slack: 0 }] {
        let atomic = Make { place: Place::Atomic, id: 0xabcd_0042, ..Make::new(kind, 1234, 80, 1300) };
        let out = handle(&mut br(), &atomic.v6(a6(CE), a6(SERVER))).forwarded();
        assert_valid(&out);
        let out = read4(&out);
        assert_eq!((out.id, out.df, out.mf, out.offset), (0x42, false, false, 0));
    }
}

// Checksums.

/// SUM-1: a wrong checksum stays as wrong as it was.
#[test]
fn sum1_wrong_stays_wrong() {
    let wrong = |mut packet: Vec<u8>, at: usize| {
        packet[at] ^= 0x55;
        packet
    };
    for (packet, at, out_at) in [
        (udp4(SERVER4, 80, IPV4, 1234, b"data"), 27, 46),
        (tcp4(SERVER4, 80, IPV4, 1234, "A", b"data"), 37, 56),
        (echo4(SERVER4, IPV4, 1234, true, b"data"), 23, 42),
        (udp6(CE, 1234, SERVER, 80, b"data"), 47, 26),
        (tcp6(CE, 1234, SERVER, 80, "A", b"data"), 57, 36),
        (echo6(CE, SERVER, 1234, false, b"data"), 43, 22),
    ] {
        let right = handle(&mut br(), &packet).forwarded();
        assert_valid(&right);
        let out = handle(&mut br(), &wrong(packet.clone(), at)).forwarded();
        assert!(judge(&out).is_err());
        let shift = |a: &[u8], at: usize, b: &[u8], bt: usize| (word(a, at) + 65535 - word(b, bt)) % 65535;
        let before = shift(&wrong(packet.clone(), at), at - 1, &packet, at - 1);
        assert_eq!(shift(&out, out_at, &right, out_at), before);
    }
}

/// P27, SUM-3, SUM-4: an IPv4 UDP packet without checksum is completed, dropped or passed on; a fragment cannot be
/// completed.
#[test]
fn p27_udp_without_checksum() {
    let make = |place| Make { place, ..Make::new(Kind::Udp { zero: true, slack: 0 }, 80, 7777, 300) };
    let with = |udp_zero_checksum| {
        let rules = vec![rule("2001:db8:5000::/40", "198.51.100.0/24", 8)];
        let translation = TranslationParams { udp_zero_checksum, ..Default::default() };
        br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |p| p.translation = translation)
    };
    let whole = make(Place::Whole).v4(a4(SERVER4), a4(FULL4));
    let out = handle(&mut with(UdpZeroChecksum::Compute), &whole).forwarded();
    assert_valid(&out);
    assert_ne!(word(&out, 46), 0);
    assert_eq!(handle(&mut with(UdpZeroChecksum::Drop), &whole).reason(), DropReason::UdpChecksumZero);
    assert_eq!(word(&handle(&mut with(UdpZeroChecksum::Forward), &whole).forwarded(), 46), 0);
    let first = make(Place::First(20)).v4(a4(SERVER4), a4(FULL4));
    assert_eq!(handle(&mut with(UdpZeroChecksum::Compute), &first).reason(), DropReason::UdpChecksumZero);
    assert_eq!(handle(&mut with(UdpZeroChecksum::Drop), &first).reason(), DropReason::UdpChecksumZero);
    let out = handle(&mut with(UdpZeroChecksum::Forward), &first).forwarded();
    assert_eq!((word(&out, 54), &out[56..]), (0, &read4(&first).payload[8..]), "SUM-4: as it is");
    // From IPv6 it is illegal; nobody can make up what it was (SUM-5), but IPv4 takes it without.
    for place in [Place::Whole, Place::First(20), Place::Atomic] {
        let zero6 = Make { place, ..Make::new(Kind::Udp { zero: true, slack: 0 }, 7777, 80, 300) };
        let zero6 = zero6.v6(a6(FULL), a6(SERVER));
        for policy in [UdpZeroChecksum::Compute, UdpZeroChecksum::Drop] {
            let outcome = handle(&mut with(policy), &zero6);
            assert_eq!((outcome.reason(), outcome.reply), (DropReason::UdpChecksumZero, None));
        }
        let out = read4(&handle(&mut with(UdpZeroChecksum::Forward), &zero6).forwarded());
        assert_eq!(out.payload, read6(&zero6).payload);
    }
}

/// P27, SUM-3: to the ports of tunnels without checksum, whatever the policy, in both directions; by destination port.
#[test]
fn p27_ports_without_checksum() {
    let ports = [2152, 4789, 9];
    let with = |udp_zero_checksum, list: &[u16]| {
        let rules = vec![rule("2001:db8:5000::/40", "198.51.100.0/24", 8)];
        let udp_zero_checksum_ports = PortList::new(list).unwrap();
        let translation = TranslationParams { udp_zero_checksum, udp_zero_checksum_ports, ..Default::default() };
        br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |p| p.translation = translation)
    };
    for place in [Place::Whole, Place::First(20)] {
        let make = |src, dst| Make { place, ..Make::new(Kind::Udp { zero: true, slack: 0 }, src, dst, 300) };
        for policy in [UdpZeroChecksum::Compute, UdpZeroChecksum::Drop] {
            let mut br = with(policy, &ports);
            for port in ports {
                let packet = make(7777, port).v4(a4(SERVER4), a4(FULL4));
                assert_eq!(read6(&handle(&mut br, &packet).forwarded()).payload, read4(&packet).payload);
                let packet = make(7777, port).v6(a6(FULL), a6(SERVER));
                assert_eq!(read4(&handle(&mut br, &packet).forwarded()).payload, read6(&packet).payload);
                // From such a port is not to it.
                let outcome = handle(&mut br, &make(port, 7777).v6(a6(FULL), a6(SERVER)));
                assert_eq!(outcome.reason(), DropReason::UdpChecksumZero);
                let outcome = handle(&mut br, &make(port, 7777).v4(a4(SERVER4), a4(FULL4)));
                if policy == UdpZeroChecksum::Drop || place != Place::Whole {
                    assert_eq!(outcome.reason(), DropReason::UdpChecksumZero);
                } else {
                    assert_valid(&outcome.forwarded());
                }
            }
            let outcome = handle(&mut with(policy, &[]), &make(7777, 4789).v6(a6(FULL), a6(SERVER)));
            assert_eq!(outcome.reason(), DropReason::UdpChecksumZero, "none is listed");
        }
    }
    // What has a checksum keeps one.
    let packet = udp4(SERVER4, 7777, FULL4, 4789, b"with");
    assert_valid(&handle(&mut with(UdpZeroChecksum::Compute, &ports), &packet).forwarded());
    assert_eq!(PortList::default().ports(), [2152, 4789]);
    assert_eq!(PortList::new(&[1; 17]), None);
}

/// SUM-5: what comes out as zero is sent as 0xffff, adjusted or computed.
#[test]
fn sum5_zero_is_sent_as_ffff() {
    let (src, dst) = (a6(SERVER), a6(CE));
    for zero in [false, true] {
        // The last word of payload is chosen so that the sum over the IPv6 packet is 0xffff.
        let mut upper = vec![0, 80, 4, 210, 0, 10, 0, 0, 0, 0];
        let rest = (oracle::packet::pseudo(&src, &dst, 10, 17) + sum(&upper)) % 65535;
        upper[8..10].copy_from_slice(&((65535 - rest) as u16).to_be_bytes());
        if !zero {
            complete(&mut upper, 17, &a4(SERVER4), &a4(IPV4));
            assert_ne!(word(&upper, 6), 0);
        }
        let base = read4(&udp4(SERVER4, 80, IPV4, 1234, b""));
        let packet = Packet4 { announced: 10, payload: upper, ..base }.write();
        let out = handle(&mut br(), &packet).forwarded();
        assert_eq!(word(&out, 46), 0xffff);
        assert_valid(&out);
    }
}

// MTUs.

fn sized4(total: usize, df: bool) -> Make {
    Make { df, id: 0x0102, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 80, 1234, total - 28) }
}

/// MTU-3: DF set, 20 octets more than the IPv6 next hop takes.
#[test]
fn mtu3_df_set_and_too_big() {
    for mtu in [1280, 1500, 9000] {
        let mut br = mtus(mtu, 1500, 1280);
        let fits = mtu as usize - 20;
        let out = handle(&mut br, &sized4(fits, true).v4(a4(SERVER4), a4(IPV4))).forwarded();
        assert_eq!((out.len(), out[6]), (mtu as usize, 17), "no Fragment header");
        let outcome = handle(&mut br, &sized4(fits + 1, true).v4(a4(SERVER4), a4(IPV4)));
        assert_eq!((outcome.reason(), told4(&outcome, SERVER4)), (DropReason::TooBig, (3, 4)));
        let reply = outcome.reply.unwrap();
        assert_eq!((word(&reply, 24), word(&reply, 26)), (0, fits));
    }
}

/// MTU-4: a fragment with DF grows by 28; a later one is never answered.
#[test]
fn mtu4_fragments_with_df() {
    let base = read4(&udp4(SERVER4, 80, FULL4, 7777, &[5; 2000]));
    let packet = |offset, len: usize| {
        Packet4 { df: true, mf: true, offset, announced: len, payload: base.payload[..len].to_vec(), ..base.clone() }
            .write()
    };
    let mut br = unshared();
    assert_eq!(handle(&mut br, &packet(0, 1448)).forwarded().len(), 1448 + 48);
    let outcome = handle(&mut br, &packet(0, 1456));
    assert_eq!((outcome.reason(), told4(&outcome, SERVER4)), (DropReason::TooBig, (3, 4)));
    assert_eq!(word(&outcome.reply.unwrap(), 26), 1472);
    let outcome = handle(&mut br, &packet(1456, 1456));
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::TooBig, None));
}

/// MTU-5, MTU-2: DF clear: cut so that each piece fits `lowest-ipv6`, 1232 octets of IPv4 payload at 1280.
#[test]
fn mtu5_df_clear_is_fragmented() {
    for (lowest, most) in [(1280, 1232), (1400, 1352), (1500, 1448), (9000, 1448)] {
        let mut br = mtus(1500, 1500, lowest);
        let lowest = lowest.min(1500) as usize;
        let fits = sized4(lowest - 20, false).v4(a4(SERVER4), a4(IPV4));
        let out = handle(&mut br, &fits).forwarded();
        assert_eq!((out.len(), out[6]), (lowest, 17), "a Fragment header only where there is a fragment");
        // Options are left out of the result, so they do not count.
        let options = Make { options: vec![1; 40], ..sized4(lowest - 20, false) }.v4(a4(SERVER4), a4(IPV4));
        assert_eq!(handle(&mut br, &options).forwarded(), out);
        let make = sized4(lowest - 19 + 3000, false);
        let outcome = handle(&mut br, &make.v4(a4(SERVER4), a4(IPV4)));
        assert_eq!(outcome.verdict, Verdict::Forward);
        let mut whole = Vec::new();
        for (n, out) in outcome.packets.iter().enumerate() {
            let out = read6(out);
            let last = n + 1 == outcome.packets.len();
            assert_eq!(out.fragment, Some(Piece { id: 0x0102, offset: n * most, more: !last }));
            assert!(last || out.payload.len() == most);
            assert!(out.total() <= lowest);
            whole.extend(out.payload);
        }
        let mut upper = make.upper(&a4(SERVER4), &a4(IPV4));
        complete(&mut upper, 17, &a6(SERVER), &a6(CE));
        assert_eq!(whole, upper);
    }
}

/// MTU-6, MTU-7: more than 1280 octets are refused with an MTU, fewer are cut; never told less than 1280.
#[test]
fn mtu6_the_ipv4_next_hop() {
    let make = |total: usize| Make::new(Kind::Udp { zero: false, slack: 0 }, 1234, 80, total - 48);
    for (ipv4, told) in [(1400u32, 1420u32), (1280, 1300), (576, 1280), (68, 1280)] {
        let mut br = mtus(1500, ipv4, 1280);
        let fits = ipv4 as usize + 20;
        assert_eq!(handle(&mut br, &make(fits).v6(a6(CE), a6(SERVER))).forwarded().len(), ipv4 as usize);
        let too_big = make((fits + 1).max(1281)).v6(a6(CE), a6(SERVER));
        let outcome = handle(&mut br, &too_big);
        assert_eq!((outcome.reason(), told6(&outcome, CE)), (DropReason::TooBig, (2, 0)));
        assert_eq!(outcome.reply.unwrap()[44..48], told.to_be_bytes());
        if ipv4 >= 1260 {
            continue;
        }
        let least = make(1280);
        let outcome = handle(&mut br, &least.v6(a6(CE), a6(SERVER)));
        let mut whole = Vec::new();
        let id = read4(&outcome.packets[0]).id;
        for (n, out) in outcome.packets.iter().enumerate() {
            let out = read4(out);
            assert!(out.total() <= ipv4 as usize);
            assert_eq!((out.id, out.df, out.offset), (id, false, whole.len()));
            assert_eq!(out.mf, n + 1 < outcome.packets.len());
            whole.extend(out.payload);
        }
        let mut upper = least.upper(&a6(CE), &a6(SERVER));
        complete(&mut upper, 17, &a4(IPV4), &a4(SERVER4));
        assert_eq!(whole, upper);
    }
}

// ICMP.

/// P14, PORT-12: the identifier of an echo is its port, and has an owner.
#[test]
fn p14_echo() {
    for request in [true, false] {
        let out = handle(&mut br(), &echo4(SERVER4, IPV4, 1234, request, b"ping")).forwarded();
        assert_valid(&out);
        assert_eq!(
            (addresses(&out), out[40], word(&out, 44)),
            ((SERVER.into(), CE.into()), if request { 128 } else { 129 }, 1234)
        );
        let out = handle(&mut br(), &echo6(CE, SERVER, 1234, request, b"ping")).forwarded();
        assert_valid(&out);
        assert_eq!(
            (addresses(&out), out[20], word(&out, 24)),
            ((IPV4.into(), SERVER4.into()), if request { 8 } else { 0 }, 1234)
        );
    }
    assert_eq!(handle(&mut br(), &echo6(CE, SERVER, 1236, true, b"")).reason(), DropReason::PortOutsideSet);
    assert_eq!(handle(&mut br(), &echo6(CE, SERVER, 12, true, b"")).reason(), DropReason::PortExcluded);
    let out = handle(&mut br(), &echo4(SERVER4, IPV4, 1236, true, b"")).forwarded();
    assert_eq!(addresses(&out).1, "2001:db8:12:3500:0:c000:212:35");
}

/// P16, P19, P19b: type and code of every ICMPv4 message, through the whole path. RFC 7915 §4.2.
#[test]
fn p16_every_icmpv4_type_and_code() {
    let mut br = br();
    let quoted = quoted4();
    for kind in 0..=255u8 {
        for code in 0..=20u8 {
            // Pointer 9 is the protocol, which IPv6 has at 6.
            let rest = if kind == 12 {
                [9, 0, 0, 0]
            } else if (kind, code) == (3, 4) {
                [0, 0, 5, 120]
            } else {
                [0; 4]
            };
            let expected: Option<([u8; 2], u32)> = match (kind, code) {
                (3, 0 | 1 | 5 | 6 | 7 | 8 | 11 | 12) => Some(([1, 0], 0)),
                (3, 2) => Some(([4, 1], 6)),
                (3, 3) => Some(([1, 4], 0)),
                (3, 4) => Some(([2, 0], 1420)),
                (3, 9 | 10 | 13 | 15) => Some(([1, 1], 0)),
                (11, code) => Some(([3, code], 0)),
                (12, 0 | 2) => Some(([4, 0], 6)),
                _ => None,
            };
            if (kind, code) == (0, 0) || (kind, code) == (8, 0) {
                continue;
            }
            let outcome = handle(&mut br, &icmp4("10.9.9.9", IPV4, kind, code, rest, &quoted));
            let Some((type_and_code, field)) = expected else {
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::IcmpType, None), "{kind}/{code}");
                continue;
            };
            let out = outcome.forwarded();
            assert_valid(&out);
            assert_eq!((&out[40..42], &out[44..48]), (&type_and_code[..], &field.to_be_bytes()[..]), "{kind}/{code}");
        }
    }
}

/// P16, P19: RFC 7915 §5.2.
#[test]
fn p16_every_icmpv6_type_and_code() {
    let mut br = br();
    let quoted = quoted6();
    for kind in 0..=255u8 {
        for code in 0..=20u8 {
            // Pointer 7 is the hop limit, which IPv4 has at 8.
            let rest = match (kind, code) {
                (4, _) => [0, 0, 0, 7],
                (2, 0) => [0, 0, 5, 140],
                _ => [0; 4],
            };
            let expected: Option<([u8; 2], [u8; 4])> = match (kind, code) {
                (1, 0 | 2 | 3) => Some(([3, 1], [0; 4])),
                (1, 1) => Some(([3, 10], [0; 4])),
                (1, 4) => Some(([3, 3], [0; 4])),
                // 5 * 256 + 140 - 20 = 1400.
                (2, 0) => Some(([3, 4], [0, 0, 5, 120])),
                (3, code) => Some(([11, code], [0; 4])),
                // P58: the other three octets are zero.
                (4, 0) => Some(([12, 0], [8, 0, 0, 0])),
                (4, 1) => Some(([3, 2], [0; 4])),
                _ => None,
            };
            if matches!((kind, code), (128, 0) | (129, 0)) {
                continue;
            }
            let outcome = handle(&mut br, &icmp6(CE, SERVER, kind, code, rest, &quoted));
            let Some((type_and_code, field)) = expected else {
                assert_eq!((outcome.reason(), outcome.reply), (DropReason::IcmpType, None), "{kind}/{code}");
                continue;
            };
            let out = outcome.forwarded();
            assert_valid(&out);
            assert_eq!((&out[20..22], &out[24..28]), (&type_and_code[..], &field[..]), "{kind}/{code}");
        }
    }
}

/// P20, P19: pointers of 0 to 255, and beyond in IPv6.
#[test]
fn p20_pointers() {
    let table4 = |at| match at {
        0 => Some(0),
        1 => Some(1),
        2 | 3 => Some(4),
        8 => Some(7),
        9 => Some(6),
        12..=15 => Some(8),
        16..=19 => Some(24),
        _ => None,
    };
    let table6 = |at| match at {
        0 => Some(0),
        1 => Some(1),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    };
    for at in 0..=255u8 {
        let outcome = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 12, 0, [at, 0, 0, 0], &quoted4()));
        match table4(at) {
            Some(pointer) => assert_eq!(outcome.forwarded()[44..48], [0, 0, 0, pointer]),
            None => assert_eq!(outcome.reason(), DropReason::IcmpType, "{at}"),
        }
    }
    for at in (0..=300u32).chain([0x0100_0000, 0x0800_0000, u32::MAX]) {
        let outcome = handle(&mut br(), &icmp6(CE, SERVER, 4, 0, at.to_be_bytes(), &quoted6()));
        match table6(at) {
            Some(pointer) => assert_eq!(outcome.forwarded()[24..28], [pointer, 0, 0, 0]),
            None => assert_eq!(outcome.reason(), DropReason::IcmpType, "{at}"),
        }
    }
}

/// P21: the MTU inside Fragmentation Needed: plateaus, never below 1280, both next hops, a fragment in error.
#[test]
fn p21_the_mtu_of_fragmentation_needed() {
    let told = |br: &mut Br, mtu: u16, total: u16, mf: bool| {
        let quoted = edit4(quoted4(), |b| {
            b[2..4].copy_from_slice(&total.to_be_bytes());
            b[6] = if mf { 0x20 } else { 0x40 };
        });
        let [high, low] = mtu.to_be_bytes();
        let out = handle(br, &icmp4("10.9.9.9", IPV4, 3, 4, [0, 0, high, low], &quoted)).forwarded();
        u32::from_be_bytes(out[44..48].try_into().unwrap())
    };
    let mut jumbo = mtus(9000, 9000, 1280);
    for (mtu, total, expected) in
        [(1400, 1500, 1420), (1259, 1500, 1280), (68, 1500, 1280), (1480, 1500, 1500), (1, 1500, 1280)]
    {
        assert_eq!(told(&mut jumbo, mtu, total, false), expected);
    }
    // RFC 1191 routers leave it out: the plateau below the packet's length.
    for (total, expected) in
        [(1500, 1512), (1492, 1280), (1493, 1512), (2002, 1512), (2003, 2022), (9000, 8186), (1006, 1280)]
    {
        assert_eq!(told(&mut jumbo, 0, total, false), expected, "{total}");
    }
    assert_eq!(told(&mut jumbo, 1400, 1500, true), 1428);
    assert_eq!(told(&mut mtus(1450, 1500, 1280), 1490, 1500, false), 1450);
    assert_eq!(told(&mut mtus(9000, 1400, 1280), 1490, 1500, false), 1420);
}

/// P21: the MTU inside Packet Too Big.
#[test]
fn p21_the_mtu_of_packet_too_big() {
    let told = |br: &mut Br, mtu: u32, make: &Make| {
        let quoted = make.v6(a6(SERVER), a6(CE));
        let out = handle(br, &icmp6(CE, SERVER, 2, 0, mtu.to_be_bytes(), &quoted[..200])).forwarded();
        word(&out, 26)
    };
    let whole = Make::new(Kind::Udp { zero: false, slack: 0 }, 53, 1234, 1400);
    let first = Make { place: Place::First(100), ..whole.clone() };
    let mut br = mtus(1500, 1500, 1280);
    for (mtu, expected) in
        [(1400, 1380), (1280, 1260), (1500, 1480), (9000, 1480), (u32::MAX, 1480), (1000, 980), (0, 68)]
    {
        assert_eq!(told(&mut br, mtu, &whole), expected);
    }
    assert_eq!(told(&mut br, 1280, &first), 1252);
    assert_eq!(
        told(&mut br, 1280, &Make { place: Place::Atomic, ..whole.clone() }),
        1252,
        "it has a Fragment header too"
    );
    assert_eq!(told(&mut mtus(9000, 1400, 1280), 1490, &whole), 1400);
}

/// P14, P17, BR-11: an error to a shared address goes to whoever owns the port inside, its packet translated back.
#[test]
fn br11_an_error_reaches_the_owner_of_the_port() {
    for (port, ce) in [(1234, CE), (1238, "2001:db8:12:3500:0:c000:212:35")] {
        let quoted = [
            udp4(IPV4, port, SERVER4, 53, b"question"),
            tcp4(IPV4, port, SERVER4, 443, "S", b""),
            echo4(IPV4, SERVER4, port, true, b"ping"),
        ];
        let expected = [
            udp6(ce, port, SERVER, 53, b"question"),
            tcp6(ce, port, SERVER, 443, "S", b""),
            echo6(ce, SERVER, port, true, b"ping"),
        ];
        for (quoted, expected) in quoted.iter().zip(expected) {
            let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 1, [0; 4], quoted)).forwarded();
            assert_valid(&out);
            assert_eq!(addresses(&out), ("2001:db8:ffff:0:a:909:900:0".into(), ce.into()));
            assert_eq!(out[48..], expected);
        }
    }
    let quoted = udp4(IPV4, 80, SERVER4, 53, b"nobody's port");
    let outcome = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 1, [0; 4], &quoted));
    assert_eq!((outcome.reason(), outcome.reply), (DropReason::PortExcluded, None));
    // A packet without ports says nothing of whom to tell.
    let quoted = Make::new(Kind::Other(47), 0, 0, 60).v4(a4(IPV4), a4(SERVER4));
    assert_eq!(
        handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 1, [0; 4], &quoted)).reason(),
        DropReason::ProtocolWithoutPort
    );
    let quoted =
        Make { place: Place::Later(8, false), ..Make::new(Kind::Udp { zero: false, slack: 0 }, 1234, 53, 100) };
    let packet = icmp4("10.9.9.9", IPV4, 3, 1, [0; 4], &quoted.v4(a4(IPV4), a4(SERVER4)));
    assert_eq!(handle(&mut br(), &packet).reason(), DropReason::FragmentWithoutPort);
}

/// BR-3, P1: an ICMPv6 error is checked by the destination port of what it quotes.
#[test]
fn br3_an_error_of_a_customer_is_checked_inside() {
    let quoted = quoted6();
    let out = handle(&mut br(), &icmp6(CE, SERVER, 1, 4, [0; 4], &quoted)).forwarded();
    assert_valid(&out);
    assert_eq!(addresses(&out), (IPV4.into(), SERVER4.into()));
    let inner = read4(&[&out[28..]].concat());
    assert_eq!((inner.src, inner.dst), (a4(SERVER4), a4(IPV4)));
    assert_eq!(inner.payload, read4(&udp4(SERVER4, 53, IPV4, 1234, b"the packet in error")).payload);
    for (packet, reason) in [
        (udp6(SERVER, 53, CE, 1236, b""), DropReason::PortOutsideSet),
        (udp6(SERVER, 53, CE, 53, b""), DropReason::PortExcluded),
        (udp6(SERVER, 53, "2001:db8:12:3400::1", 1234, b""), DropReason::SourceMismatch),
        (udp6(SERVER, 53, "2001:db8:8000::1", 1234, b""), DropReason::NoRule),
        (udp6("2001:db8:abcd::1", 53, CE, 1234, b""), DropReason::DestinationNotOurs),
    ] {
        let outcome = handle(&mut br(), &icmp6(CE, SERVER, 1, 4, [0; 4], &packet));
        assert_eq!((outcome.reason(), outcome.reply), (reason, None));
    }
    let outcome = handle(&mut br(), &icmp6(CE, "2001:db8:abcd::1", 1, 4, [0; 4], &quoted));
    assert_eq!(outcome.reason(), DropReason::DestinationNotOurs);
}

/// P33, ICMP-11: a router of the access network has no IPv4 address; its errors, and only they, get 192.0.0.8.
#[test]
fn icmp11_an_error_from_an_access_router() {
    let router = "2001:db8:9999::1";
    for (kind, code) in [(1, 0), (2, 0), (3, 0), (4, 1)] {
        let out = handle(&mut br(), &icmp6(router, SERVER, kind, code, [0, 0, 5, 0], &quoted6())).forwarded();
        assert_valid(&out);
        assert_eq!(addresses(&out), ("192.0.0.8".into(), SERVER4.into()));
    }
    assert_eq!(handle(&mut br(), &echo6(router, SERVER, 1234, true, b"")).reason(), DropReason::NoRule);
    assert_eq!(handle(&mut br(), &udp6(router, 1234, SERVER, 53, b"")).reason(), DropReason::NoRule);
    // Nor does native IPv6 out of the customer's own End-user prefix have one.
    let out = handle(&mut br(), &icmp6("2001:db8:12:3400::1", SERVER, 1, 4, [0; 4], &quoted6())).forwarded();
    assert_eq!(addresses(&out).0, "192.0.0.8");
    // Another customer's router address does not speak for that customer.
    let neighbour = "2001:db8:12:3500:0:c000:212:35";
    let out = handle(&mut br(), &icmp6(neighbour, SERVER, 3, 0, [0; 4], &quoted6())).forwarded();
    assert_eq!(addresses(&out).0, "192.0.0.8");
}

/// ICMP-12: out of a pool at random; every one of it is used.
#[test]
fn icmp12_a_pool_is_used_at_random() {
    let pool: Vec<_> = (1..=4).map(|n| v4(&format!("198.51.100.{n}"))).collect();
    let mut br = br_of(&appendix_a(None), |p| p.icmp.rfc6791_pool = pool.clone());
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..400 {
        let out = handle(&mut br, &icmp6("2001:db8:9999::1", SERVER, 3, 0, [0; 4], &quoted6())).forwarded();
        *seen.entry(addresses(&out).0).or_insert(0) += 1;
    }
    assert_eq!(seen.keys().cloned().collect::<Vec<_>>(), pool.iter().map(|a| a.to_string()).collect::<Vec<_>>());
    assert!(seen.values().all(|n| (60..140).contains(n)), "{seen:?}");
}

/// P17, ICMP-9: as much of the packet in error as 1280, or 576 octets, hold; checksums and lengths are right.
#[test]
fn p17_long_quotes_are_cut() {
    for len in [0, 100, 500, 1000, 1200, 1300, 1452] {
        let make = Make { seed: 3, ..Make::new(Kind::Tcp { options: 0, flags: 16 }, 1234, 53, len) };
        let quoted = make.v4(a4(IPV4), a4(SERVER4));
        let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 3, [0; 4], &quoted)).forwarded();
        assert_valid(&out);
        assert_eq!(out.len(), (48 + 60 + len).min(1280));
        let whole = make.v6(a6(CE), a6(SERVER));
        assert_eq!(out[48..48 + 4], [0x60, 0, 0, 0], "no flow label");
        assert_eq!(out[52..], whole[4..out.len() - 48], "with the length that the packet had");

        let make = Make { src_port: 53, dst_port: 1234, ..make };
        let quoted = make.v6(a6(SERVER), a6(CE));
        let out = handle(&mut br(), &icmp6(CE, SERVER, 1, 4, [0; 4], &quoted)).forwarded();
        assert_valid(&out);
        assert_eq!(out.len(), (28 + 40 + len).min(576));
        let whole = make.v4(a4(SERVER4), a4(IPV4));
        assert_eq!((word(&out, 30), out[37]), (40 + len, 6));
        assert_eq!(out[48..], whole[20..out.len() - 28]);
    }
    // A small IPv4 MTU takes no 576 octets.
    for ipv4 in [68u32, 100, 300, 576] {
        let quoted = Make::new(Kind::Tcp { options: 0, flags: 16 }, 53, 1234, 900).v6(a6(SERVER), a6(CE));
        let out = handle(&mut mtus(1500, ipv4, 1280), &icmp6(CE, SERVER, 1, 4, [0; 4], &quoted)).forwarded();
        assert_valid(&out);
        assert_eq!(out.len(), ipv4 as usize);
    }
}

/// P58: flags of the quoted IPv4 header: DF by its length, never MF.
#[test]
fn p58_flags_of_the_quoted_header() {
    for (len, df) in [(100, false), (1232, false), (1233, true), (1400, true)] {
        let quoted = Make::new(Kind::Udp { zero: false, slack: 0 }, 53, 1234, len).v6(a6(SERVER), a6(CE));
        let out = handle(&mut br(), &icmp6(CE, SERVER, 2, 0, [0, 0, 5, 0], &quoted)).forwarded();
        assert_eq!((out[34] & 0xe0, word(&out, 34) % 0x2000), (if df { 0x40 } else { 0 }, 0));
        assert_eq!(sum(&out[28..48]), 0, "the quoted header's checksum");
    }
    let quoted = Make {
        id: 0x7777_8888,
        place: Place::First(50),
        ..Make::new(Kind::Udp { zero: false, slack: 0 }, 53, 1234, 900)
    };
    let out = handle(&mut br(), &icmp6(CE, SERVER, 1, 4, [0; 4], &quoted.v6(a6(SERVER), a6(CE)))).forwarded();
    assert_eq!((word(&out, 32), word(&out, 34)), (0x8888, 0x2000));
}

/// P18: quotes of any length, from nothing on.
#[test]
fn p18_short_and_lying_quotes() {
    let long4 = tcp4(IPV4, 1234, SERVER4, 53, "A", &[9; 40]);
    let long6 = tcp6(SERVER, 53, CE, 1234, "A", &[9; 40]);
    for len in 0..=long4.len() {
        let outcome = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 3, [0; 4], &long4[..len]));
        match len {
            0..28 => assert_eq!(outcome.reason(), DropReason::IcmpInner, "{len}"),
            _ => assert_eq!(outcome.forwarded().len(), 48 + 20 + len),
        }
    }
    for len in 0..=long6.len() {
        let outcome = handle(&mut br(), &icmp6(CE, SERVER, 1, 4, [0; 4], &long6[..len]));
        match len {
            0..48 => assert_eq!(outcome.reason(), DropReason::IcmpInner, "{len}"),
            _ => assert_eq!(outcome.forwarded().len(), 28 + len - 20),
        }
    }
    // A header alone, its length 0, its version wrong, longer than it is, IHL beyond the quote.
    type Edit = fn(&mut Vec<u8>);
    let edits4: [Edit; 5] =
        [|b| b.truncate(20), |b| b[2..4].fill(0), |b| b[0] = 0x65, |b| b[0] = 0x4f, |b| b[0] = 0x41];
    for edit in edits4 {
        let mut quoted = long4[..48].to_vec();
        edit(&mut quoted);
        assert_eq!(handle(&mut br(), &icmp4("10.9.9.9", IPV4, 11, 0, [0; 4], &quoted)).reason(), DropReason::IcmpInner);
    }
    let mut longer = long4.clone();
    longer[2..4].copy_from_slice(&[0xff, 0xff]);
    let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 11, 0, [0; 4], &longer)).forwarded();
    assert_eq!(word(&out, 52), 65515, "what the packet's length was, not what is there of it");
    let mut longer = long6.clone();
    longer[4..6].copy_from_slice(&[0xff, 0xff]);
    let outcome = handle(&mut br(), &icmp6(CE, SERVER, 1, 4, [0; 4], &longer));
    assert_eq!(outcome.reason(), DropReason::IcmpInner, "no IPv4 packet is that long");
    // An atomic fragment in error, and UDP without checksum (Jool#135).
    let atomic =
        Make { place: Place::Atomic, id: 0x42, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 53, 1234, 30) };
    let out = handle(&mut br(), &icmp6(CE, SERVER, 1, 4, [0; 4], &atomic.v6(a6(SERVER), a6(CE)))).forwarded();
    assert_eq!((word(&out, 32), word(&out, 34), word(&out, 30)), (0x42, 0, 58));
    let zero = Make::new(Kind::Udp { zero: true, slack: 0 }, 1234, 53, 30);
    let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 3, [0; 4], &zero.v4(a4(IPV4), a4(SERVER4)))).forwarded();
    assert_valid(&out);
    assert_eq!(word(&out, 48 + 46), 0);
}

/// ICMP-2: an error about an error goes nowhere, nor about any ICMP message but echo.
#[test]
fn icmp2_errors_inside_errors() {
    for (kind, code) in [(3, 3), (11, 0), (5, 1), (13, 0), (9, 0)] {
        let quoted = icmp4(IPV4, SERVER4, kind, code, [4, 210, 0, 0], &quoted4());
        let outcome = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 1, [0; 4], &quoted));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::IcmpInner, None));
    }
    for (kind, code) in [(1, 4), (3, 0), (133, 0), (135, 0)] {
        let quoted = icmp6(SERVER, CE, kind, code, [4, 210, 0, 0], &quoted6());
        let outcome = handle(&mut br(), &icmp6(CE, SERVER, 1, 0, [0; 4], &quoted));
        assert_eq!((outcome.reason(), outcome.reply), (DropReason::IcmpInner, None));
    }
}

/// NAT-11, SUM-2: the checksum of an error is made anew, so a wrong one must not get that far.
#[test]
fn an_error_with_a_wrong_checksum() {
    let mut packet = icmp4("10.9.9.9", IPV4, 3, 3, [0; 4], &quoted4());
    packet[60] ^= 1;
    assert_eq!(handle(&mut br(), &packet).reason(), DropReason::IcmpChecksum);
    let mut packet = icmp6(CE, SERVER, 1, 4, [0; 4], &quoted6());
    packet[100] ^= 1;
    assert_eq!(handle(&mut br(), &packet).reason(), DropReason::IcmpChecksum);
}

/// An extension structure: version 2, a checksum, and an MPLS object (RFC 4950) of `words` words.
fn extension(words: usize) -> Vec<u8> {
    let mut b = vec![0x20, 0, 0, 0, 0, (4 + words * 4) as u8, 1, 1];
    b.extend((0..words * 4).map(|i| i as u8 + 1));
    complete(&mut b, 1, &[], &[]);
    b
}

/// Quote, zeros, extension: an ICMP message's body, the quote `len` octets long.
fn extended(mut quoted: Vec<u8>, len: usize, extension: &[u8]) -> Vec<u8> {
    quoted.resize(len, 0);
    quoted.extend(extension);
    quoted
}

/// ICMP-6, ICMP-8: an RFC 4884 extension moves along, behind a quote of at least 128 octets in the other word size.
#[test]
fn icmp6_extensions_move_along() {
    let extension = extension(3);
    // The quote's length in IPv4, the attribute's words; in IPv6 20 octets more, then the next multiple of 8.
    for (len, before, after) in [(46, 32, 16), (128, 32, 19), (132, 33, 19), (136, 34, 20), (500, 125, 65)] {
        let udp = |v6| {
            let make = Make { id: 0, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 1234, 53, len - 28) };
            if v6 { make.v6(a6(CE), a6(SERVER)) } else { make.v4(a4(IPV4), a4(SERVER4)) }
        };
        for (kind, code, new) in [(11, 0, (3, 0)), (11, 1, (3, 1)), (3, 3, (1, 4)), (3, 13, (1, 1))] {
            let body = extended(udp(false), before * 4, &extension);
            let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, kind, code, [0, before as u8, 0, 0], &body));
            let out = out.forwarded();
            assert_valid(&out);
            assert_eq!((out[40], out[41]), new);
            assert_eq!(out[44..48], [after as u8, 0, 0, 0], "64-bit words at octet 4");
            assert_eq!(out[48..], extended(udp(true), after * 8, &extension));
        }
    }
    for (len, before, after) in [(66, 16, 32), (128, 16, 32), (144, 18, 32), (160, 20, 33), (400, 50, 93)] {
        let make = Make { place: Place::Atomic, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 53, 1234, len - 56) };
        for (kind, code, new) in [(3, 0, (11, 0)), (3, 1, (11, 1)), (1, 4, (3, 3)), (1, 1, (3, 10)), (1, 0, (3, 1))] {
            let body = extended(make.v6(a6(SERVER), a6(CE)), before * 8, &extension);
            let out = handle(&mut br(), &icmp6(CE, SERVER, kind, code, [before as u8, 0, 0, 0], &body)).forwarded();
            assert_valid(&out);
            assert_eq!((out[20], out[21]), new);
            assert_eq!(out[24..28], [0, after as u8, 0, 0], "32-bit words at octet 5");
            assert_eq!(out[28..], extended(make.v4(a4(SERVER4), a4(IPV4)), after * 4, &extension));
        }
    }
    // Opaque: of any length and content.
    for noise in [vec![7], vec![0xff; 33], (0..=255).collect::<Vec<u8>>()] {
        let body = extended(quoted4(), 128, &noise);
        let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 11, 0, [0, 32, 0, 0], &body)).forwarded();
        assert_valid(&out);
        assert_eq!(out[48 + 128..], noise);
    }
}

/// ICMP-6: an extension has the quote cut, to 128 octets; what does not fit even so is left out.
#[test]
fn icmp6_extensions_and_the_longest_error() {
    let make = Make { id: 0, ..Make::new(Kind::Tcp { options: 0, flags: 16 }, 1234, 53, 1100) };
    let (whole4, whole6) = (make.v4(a4(IPV4), a4(SERVER4)), make.v6(a6(CE), a6(SERVER)));
    // 1280 - 48 octets for both, of which the quote has a multiple of 8.
    for (extension, quote) in [(12, 1160), (60, 1160), (73, 1152), (1104, 128), (1105, 0), (1300, 0)] {
        let extension = vec![0x5a; extension];
        let body = extended(whole4.clone(), 1020, &extension);
        let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 3, 0, [0, 255, 0, 0], &body)).forwarded();
        assert_valid(&out);
        // The quote had 1020 octets, in IPv6 20 more.
        let quote = quote.min(1040);
        assert_eq!(out[44..48], [(quote / 8) as u8, 0, 0, 0], "{} octets", extension.len());
        if quote == 0 {
            assert_eq!(out[48..], whole6[..1040]);
        } else {
            assert_eq!(out[48..], [&whole6[..quote], &extension].concat());
            assert!(out.len() <= 1280);
        }
    }
    let make = Make { src_port: 53, dst_port: 1234, place: Place::Atomic, ..make };
    let (whole6, whole4) = (make.v6(a6(SERVER), a6(CE)), make.v4(a4(SERVER4), a4(IPV4)));
    // 576 - 28 octets, or what mtu.ipv4 has.
    for (mtu, extension, quote) in
        [(1500, 12, 536), (1500, 13, 532), (1500, 420, 128), (1500, 421, 0), (300, 12, 260), (300, 145, 0), (68, 4, 0)]
    {
        let extension = vec![0x5a; extension];
        let body = extended(whole6.clone(), 800, &extension);
        let mut br = mtus(1500, mtu, 1280);
        let out = handle(&mut br, &icmp6(CE, SERVER, 1, 3, [100, 0, 0, 0], &body)).forwarded();
        assert_valid(&out);
        assert_eq!(out[24..28], [0, (quote / 4) as u8, 0, 0], "{} octets, MTU {mtu}", extension.len());
        if quote == 0 {
            assert_eq!(out[28..], whole4[..(mtu as usize).min(576) - 28]);
        } else {
            assert_eq!(out[28..], [&whole4[..quote], &extension].concat());
        }
    }
}

/// ICMP-7: no other type of ICMPv6 has a place for the attribute, so 3/4, 3/2 and 12 lose their extension; and an
/// attribute that says more than is there, or all that is there, has none behind it.
#[test]
fn icmp7_where_no_extension_may_be() {
    let extension = extension(3);
    for (kind, code, rest) in
        [(3, 4, [0, 32, 5, 120]), (3, 2, [0, 32, 0, 0]), (12, 0, [8, 32, 0, 0]), (12, 2, [8, 32, 0, 0])]
    {
        let bare = [rest[0], 0, rest[2], rest[3]];
        let plain = handle(&mut br(), &icmp4("10.9.9.9", IPV4, kind, code, bare, &quoted4())).forwarded();
        let body = extended(quoted4(), 128, &extension);
        let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, kind, code, rest, &body)).forwarded();
        assert_eq!(out, plain, "{kind}/{code}");
    }
    let plain = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 11, 0, [0; 4], &quoted4())).forwarded();
    for attribute in [33, 35, 36, 255] {
        let body = extended(quoted4(), 128, &[]);
        let out = handle(&mut br(), &icmp4("10.9.9.9", IPV4, 11, 0, [0, attribute, 0, 0], &body)).forwarded();
        assert_eq!(out, plain, "{attribute}");
    }
    let body = extended(quoted4(), 128, &[]);
    assert_eq!(handle(&mut br(), &icmp4("10.9.9.9", IPV4, 11, 0, [0, 32, 0, 0], &body)).forwarded(), plain);
    // Identifications are random, and with them the checksums of outer header, quoted header and message.
    let same = |b: &[u8]| [&b[..4], &b[6..10], &b[12..22], &b[24..32], &b[34..38], &b[40..]].concat();
    let plain = handle(&mut br(), &icmp6(CE, SERVER, 3, 0, [0; 4], &quoted6())).forwarded();
    for attribute in [16, 17, 255] {
        let body = extended(quoted6(), 128, &[]);
        let out = handle(&mut br(), &icmp6(CE, SERVER, 3, 0, [attribute, 0, 0, 0], &body)).forwarded();
        assert_valid(&out);
        assert_eq!(same(&out), same(&plain), "{attribute}");
    }
    // The first octet of a Packet Too Big's MTU is no attribute.
    let out = handle(&mut br(), &icmp6(CE, SERVER, 2, 0, [1, 0, 5, 0], &extended(quoted6(), 128, &[]))).forwarded();
    assert_valid(&out);
    assert_eq!(out[24..26], [0, 0]);
}

/// ICMP-13, ICMP-14: the address of a reporter that IPv4 cannot name, in RFC 5837's object; off by default.
#[test]
fn icmp13_the_reporter_in_an_extension() {
    let router = "2001:db8:9999::1";
    let named =
        || br_of(&appendix_a(None), |p| p.translation = TranslationParams { rfc5837_object: true, ..p.translation });
    // Version 2, its checksum worked out by hand; 24 octets of class 2, an address alone; address family 2, IPv6.
    let mut object = vec![0x20, 0x00, 0x16, 0x8e, 0x00, 0x18, 0x02, 0x04, 0x00, 0x02, 0x00, 0x00];
    object.extend(a6(router));
    assert_eq!(sum(&object), 0);
    let quoted = udp4(SERVER4, 53, IPV4, 1234, b"the packet in error");
    for (kind, code, new) in [(3, 0, (11, 0)), (1, 0, (3, 1)), (1, 4, (3, 3))] {
        let packet = icmp6(router, SERVER, kind, code, [0; 4], &quoted6());
        let out = handle(&mut named(), &packet).forwarded();
        assert_valid(&out);
        assert_eq!((out[20], out[21], &out[24..28]), (new.0, new.1, &[0, 32, 0, 0][..]));
        assert_eq!(out[48..28 + 128], extended(quoted[20..].to_vec(), 108, &[]));
        assert_eq!(out[28 + 128..], object);
        let out = handle(&mut br(), &packet).forwarded();
        assert_eq!((out.len(), out[25]), (28 + quoted.len(), 0), "ICMP-14: off by default");
    }
    // One that is there stays what it is.
    let there = extension(2);
    let body = extended(quoted6(), 128, &there);
    let out = handle(&mut named(), &icmp6(router, SERVER, 3, 0, [16, 0, 0, 0], &body)).forwarded();
    assert_valid(&out);
    assert_eq!(out[28 + 128..], there);
    // Whoever has an IPv4 address needs none; nor are there extensions in what tells a sender its MTU.
    for packet in [
        icmp6(CE, SERVER, 3, 0, [0; 4], &quoted6()),
        icmp6(router, SERVER, 2, 0, [0, 0, 5, 0], &quoted6()),
        icmp6(router, SERVER, 4, 1, [0; 4], &quoted6()),
        icmp6(router, SERVER, 4, 0, [0, 0, 0, 6], &quoted6()),
    ] {
        let out = handle(&mut named(), &packet).forwarded();
        assert_eq!(out.len(), 28 + quoted.len());
        assert_eq!(out[25], 0);
    }
    // Where it does not fit behind 128 octets, it is left out.
    for (ipv4, len) in [(28 + 128 + 28, 28 + 128 + 28), (28 + 128 + 27, 28 + quoted.len())] {
        let translation = TranslationParams {
            mtu: Mtu { ipv6: 1500, ipv4: ipv4 as u32, lowest_ipv6: 1280 },
            rfc5837_object: true,
            ..Default::default()
        };
        let out = handle(&mut with(translation), &icmp6(router, SERVER, 3, 0, [0; 4], &quoted6())).forwarded();
        assert_eq!(out.len(), len);
    }
}

// Answers.

/// ICMP-4, ICMP-5, ICMP-10, BR-7: never about errors, multicast, later fragments, or sources that are no host.
#[test]
fn icmp10_what_is_never_answered() {
    let quiet = [
        // An ICMPv4 error that nobody can have, and one that is too long for its path.
        icmp4("10.9.9.9", "203.0.113.1", 3, 3, [0; 4], &udp4("203.0.113.1", 1234, SERVER4, 53, b"")),
        icmp4("10.9.9.9", IPV4, 3, 1, [0; 4], &udp4(IPV4, 1300, "10.9.9.9", 53, &[0; 20])[..20]),
        // A redirect, a source quench: errors too (RFC 1122 §3.2.2).
        icmp4("10.9.9.9", IPV4, 5, 1, [0; 4], &quoted4()),
        icmp4("10.9.9.9", IPV4, 4, 0, [0; 4], &quoted4()),
        // Multicast and sources that are nobody.
        udp4(SERVER4, 80, "224.0.0.1", 1234, b""),
        udp4("0.0.0.0", 80, "203.0.113.1", 1234, b""),
        udp4("127.0.0.1", 80, "203.0.113.1", 1234, b""),
        udp4("255.255.255.255", 80, "203.0.113.1", 1234, b""),
        // A later fragment to nobody.
        Make { place: Place::Later(30, false), ..sized4(1000, false) }.v4(a4(SERVER4), a4("203.0.113.1")),
        // ICMPv6: errors with a wrong port inside, and from nowhere.
        icmp6(CE, SERVER, 1, 4, [0; 4], &udp6(SERVER, 53, CE, 1236, b"")),
        icmp6("2001:db8:8000::1", SERVER, 1, 4, [0; 4], &udp6(SERVER, 53, "2001:db8:8000::1", 1236, b"")),
        // RFC 7915 §5.4: 1/1 about no ICMPv6 message at all.
        echo6("2001:db8:8000::1", SERVER, 1234, true, b""),
        udp6("ff02::1", 1234, SERVER, 80, b""),
        udp6("::", 1234, SERVER, 80, b""),
        udp6(CE, 1236, "ff0e::1", 80, b""),
    ];
    for packet in quiet {
        let outcome = handle(&mut br(), &packet);
        assert!(matches!(outcome.verdict, Verdict::Drop { .. }));
        assert_eq!(outcome.reply, None, "{packet:02x?}");
    }
    // RFC 7599 §8.3 wants 1/5 for any packet; an echo request is none of the exceptions of RFC 4443 §2.4 (e).
    assert_eq!(told6(&handle(&mut br(), &echo6(CE, SERVER, 1236, true, b"")), CE), (1, 5));
    assert_eq!(told4(&handle(&mut br(), &echo4(SERVER4, "203.0.113.1", 1236, true, b"")), SERVER4), (3, 13));
    // Packet Too Big is said to multicast senders too, but none is translated.
    let first = Make { place: Place::First(30), ..sized4(1000, false) }.v4(a4(SERVER4), a4("203.0.113.1"));
    assert_eq!(told4(&handle(&mut br(), &first), SERVER4), (3, 13));
}

/// ICMP-10, BR-7, RFC 4443 §2.4 (f): a bucket of tokens; `off` is silent, counters go on.
#[test]
fn answers_are_rate_limited() {
    let spoofed = udp6(CE, 1236, SERVER, 80, b"");
    let limited = |originate| br_of(&appendix_a(None), |p| p.icmp = IcmpParams { originate, ..icmp_on() });
    let answers =
        |br: &mut Br, at, packets: usize| (0..packets).filter(|_| handle_at(br, &spoofed, at).reply.is_some()).count();
    let mut br = limited(Originate::Limited);
    let burst = answers(&mut br, NOW, 2000);
    assert!((1..1000).contains(&burst), "{burst}");
    assert_eq!(answers(&mut br, NOW, 100), 0);
    // A second later there are some again, and not more than a full bucket after a year.
    let later = answers(&mut br, NOW * 2, 2000);
    assert!((1..=burst).contains(&later), "{later}");
    assert_eq!(answers(&mut br, NOW * 31_536_000, 2000), burst);
    // Time that does not go on gives nothing.
    assert_eq!(answers(&mut br, NOW, 10), 0);
    let counters = br.counters().snapshot();
    let counters = counters.direction(Direction::V6ToV4);
    assert_eq!(counters.replies.packets as usize, burst * 2 + later);
    assert_eq!(counters.dropped[DropReason::PortOutsideSet as usize].packets, 2000 * 3 + 110);
    assert_eq!(answers(&mut limited(Originate::Off), NOW, 10), 0);
    assert_eq!(answers(&mut limited(Originate::On), NOW, 3000), 3000);
}

/// ICMP-9, P17: answers quote what came, not more than 576 octets and 1280 make; class and hop limit are their own.
#[test]
fn answers_quote_the_packet_as_it_came() {
    for len in [0, 10, 519, 520, 521, 1300, 1400] {
        let packet = Make { tos: 0xbb, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 80, 1234, len) };
        let packet = packet.v4(a4(SERVER4), a4("203.0.113.1"));
        let reply = handle(&mut br(), &packet).reply.unwrap();
        assert_eq!(reply.len(), (28 + packet.len()).min(576));
        assert_eq!(reply[28..], packet[..reply.len() - 28]);
        // NAT-15: the class of the packet, not its ECN bits.
        assert_eq!(reply[1], 0xb8);
        let packet = Make { tos: 0xbb, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 1236, 80, len) };
        let packet = packet.v6(a6(CE), a6(SERVER));
        let reply = handle(&mut br(), &packet).reply.unwrap();
        assert_eq!(reply.len(), (48 + packet.len()).min(1280));
        assert_eq!(reply[48..], packet[..reply.len() - 48]);
    }
}

/// BR-8, BR-12: no rule, nobody there; the answer is the router's default.
#[test]
fn br12_nobody_has_the_address() {
    let outcome = handle(&mut br(), &tcp4(SERVER4, 80, "203.0.113.1", 1234, "S", b""));
    assert_eq!((outcome.reason(), told4(&outcome, SERVER4)), (DropReason::NoRule, (3, 13)));
}

/// A BR keeps nothing: the same packet gives the same result after any others, and time does not matter.
#[test]
fn br15_no_state() {
    let packet = udp4(SERVER4, 80, IPV4, 1234, b"again");
    let mut br = br();
    let first = handle(&mut br, &packet).forwarded();
    for n in 0..50u16 {
        handle(&mut br, &udp4(SERVER4, n, IPV4, 1232 + n, b""));
        handle(&mut br, &udp6(CE, 1232 + n, SERVER, n, b""));
    }
    assert_eq!(br.poll_timeout(), None);
    assert_eq!(handle_at(&mut br, &packet, NOW * 100_000).forwarded(), first);
}

/// The tool asks by which rule.
#[test]
fn the_rule_of_the_last_packet() {
    let rules = vec![rule("2001:db8::/40", "192.0.2.0/24", 16), rule("2001:db8:5000::/40", "198.51.100.0/24", 8)];
    let names: Vec<String> = rules.iter().map(|r| r.name.clone()).collect();
    let mut br = br_of(&provisioning(rules, "2001:db8:ffff::/64", None), |_| ());
    assert_eq!(br.last_rule(), None);
    handle(&mut br, &udp4(SERVER4, 80, FULL4, 1234, b""));
    assert_eq!(br.last_rule(), Some(names[1].as_str()));
    handle(&mut br, &udp6(CE, 1234, SERVER, 80, b""));
    assert_eq!(br.last_rule(), Some(names[0].as_str()));
    handle(&mut br, &udp4(SERVER4, 80, "203.0.113.1", 1234, b""));
    assert_eq!(br.last_rule(), None);
}

/// Reports are made by hand too: the oracle's builder and etherparse agree.
#[test]
fn two_builders_agree() {
    let report = Report { kind: 3, code: 3, rest: [0; 4], tos: 0, ttl: 64 };
    let ours = report.v4(a4("10.9.9.9"), a4(IPV4), &quoted4());
    assert_valid(&ours);
    let theirs = icmp4("10.9.9.9", IPV4, 3, 3, [0; 4], &quoted4());
    assert_eq!(read4(&ours).payload, read4(&theirs).payload);
    let ours = Report { kind: 1, code: 4, ..report }.v6(a6(CE), a6(SERVER), &quoted6());
    assert_eq!(ours, icmp6(CE, SERVER, 1, 4, [0; 4], &quoted6()));
    let make = Make { seed: 0, ..Make::new(Kind::Udp { zero: false, slack: 0 }, 80, 1234, 3) };
    assert_eq!(make.v6(a6(SERVER), a6(CE))[40..], udp6(SERVER, 80, CE, 1234, &[0, 7, 14])[40..]);
}
