//! `docs/counters.md` against the table of drop reasons in `src/verdict.rs`.

mod common;

use std::collections::BTreeMap;

use common::*;
use mapt::br::{Br, BrParams};
use mapt::siit::{Mtu, TranslationParams, UdpZeroChecksum};
use mapt::verdict::DropReason;

const PAGE: &str = include_str!("../docs/counters.md");

/// `3/13`, or a dash.
fn told(answer: Option<(u8, u8)>) -> String {
    answer.map_or("—".into(), |(kind, code)| format!("{kind}/{code}"))
}

/// The first five cells of a reason's row.
fn cells(reason: DropReason) -> [String; 5] {
    let answer = reason.answer();
    [
        format!("`{}`", reason.name()),
        reason.sentence().into(),
        reason.section().into(),
        told(answer.icmpv4),
        told(answer.icmpv6),
    ]
}

/// The rows of the table of reasons, by their first cell.
fn rows() -> BTreeMap<String, Vec<String>> {
    let (_, section) = PAGE.split_once("\n## The reasons\n").expect("the section of reasons");
    let table = section.lines().filter(|line| line.starts_with("| `"));
    let mut rows = BTreeMap::new();
    for line in table {
        let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        assert_eq!(cells.len(), 7, "seven cells, no `|` inside one: {line}");
        let name = cells[0].clone();
        assert!(rows.insert(name, cells).is_none(), "twice: {line}");
    }
    rows
}

#[test]
fn every_reason_has_its_row_and_no_other_has() {
    let mut rows = rows();
    let mut wrong = Vec::new();
    for reason in DropReason::ALL {
        let expected = cells(*reason);
        let row = format!("| {} | where (A-F) | what to do at 3 a.m. |", expected.join(" | "));
        match rows.remove(&expected[0]) {
            None => wrong.push(format!("missing; paste this and fill in its end:\n{row}")),
            Some(found) if found[..5] != expected => wrong.push(format!("differs, should begin with:\n{row}")),
            Some(_) => {}
        }
    }
    wrong.extend(rows.keys().map(|name| format!("no such reason: {name}")));
    assert!(wrong.is_empty(), "docs/counters.md:\n{}", wrong.join("\n"));
}

/// Each place of a row has its letter in the drawing, and each reason stands in the drawing.
#[test]
fn every_reason_stands_on_the_path() {
    let drawing = PAGE.split("\n```").nth(1).expect("the drawing");
    let words: Vec<&str> =
        drawing.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| !word.is_empty()).collect();
    for reason in DropReason::ALL {
        assert!(words.contains(&reason.name()), "{} is not on the drawn path", reason.name());
    }
    for (name, cells) in rows() {
        for letter in cells[5].split(", ") {
            assert_eq!(letter.len(), 1, "{name}: {:?} is no list of letters", cells[5]);
            assert!(drawing.contains(&format!("\n {letter}  ")), "{name}: the drawing has no {letter}");
        }
        assert!(cells[6].len() > 20 && cells[6].ends_with('.'), "{name}: {:?} helps nobody at 3 a.m.", cells[6]);
    }
}

const OWN: &str = "2001:db8:12:3400:0:c000:212:34";
const OWN4: &str = "192.0.2.18";
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
const SERVER4: &str = "10.2.3.4";

/// A BR for which much is wrong: 1300 octets of MTU on both sides, no UDP without checksum.
fn strict() -> Br {
    let translation = TranslationParams {
        mtu: Mtu { ipv6: 1300, ipv4: 1300, lowest_ipv6: 1280 },
        udp_zero_checksum: UdpZeroChecksum::Drop,
        ..TranslationParams::default()
    };
    Br::new(&appendix_a(None), &BrParams { translation, ..br_params() })
}

/// One column of the drawing, and the part about ICMP errors.
fn drawn(v6: bool) -> (String, String) {
    let drawing = PAGE.split("\n```").nth(1).unwrap();
    let (paths, errors) = drawing.split_once("\n E  ").unwrap();
    let middle = paths.lines().find_map(|line| line.find("IPv6 in")).unwrap();
    let half = |line: &str| {
        let (left, right): (Vec<_>, Vec<_>) = line.chars().enumerate().partition(|(at, _)| *at < middle);
        if v6 { right } else { left }.into_iter().map(|(_, c)| c).collect::<String>()
    };
    (paths.lines().map(half).collect::<Vec<_>>().join("\n"), errors.to_owned())
}

/// What stands first in the drawing is found first: packets with two faults, the drawn order between them.
#[test]
fn the_drawn_order_is_the_engines() {
    let big = [7; 1300];
    let to_home = |dst: &str, port: u16, body: &[u8]| udp4(SERVER4, 80, dst, port, body);
    let number = |packet: Vec<u8>, number: u8| edit4(packet, |b| b[9] = number);
    let options = |packet: Vec<u8>| {
        let b = [&packet[..20], &[1, 131, 7, 4, 10, 0, 0, 1], &packet[20..]].concat();
        edit4(b, |b| {
            b[0] = 0x47;
            b[3] += 8;
        })
    };
    let ragged = |packet: Vec<u8>| edit4(packet, |b| b[6] = 0x20);
    let spoil = |mut packet: Vec<u8>, at: usize, value: u8| {
        packet[at] = value;
        packet
    };
    let without = |mut packet: Vec<u8>, at: usize| {
        packet[at..at + 2].copy_from_slice(&[0, 0]);
        packet
    };
    let lost = udp4(OWN4, 1232, SERVER4, 80, b"lost");
    let v4 = [
        ("length-mismatch", "ipv4-header-checksum", spoil(spoil(to_home(OWN4, 1232, b"x"), 3, 10), 10, 1)),
        ("header-truncated", "ipv4-header-checksum", spoil(to_home(OWN4, 1232, b"x"), 10, 1)[..25].to_vec()),
        ("ipv4-header-checksum", "protocol-illegal", spoil(number(to_home(OWN4, 1232, b"x"), 58), 10, 1)),
        ("fragment-illegal", "protocol-illegal", ragged(number(to_home(OWN4, 1232, b"x"), 58))),
        ("protocol-illegal", "source-route", options(number(to_home(OWN4, 1232, b"x"), 58))),
        ("fragmented-icmp", "source-route", options(ragged(echo4(SERVER4, OWN4, 1232, true, b"12345678")))),
        ("source-route", "destination-illegal", options(to_home("224.0.0.1", 1232, b"x"))),
        ("destination-illegal", "icmp-type", icmp4(SERVER4, "224.0.0.1", 13, 0, [0; 4], &[0; 12])),
        ("icmp-type", "source-illegal", icmp4("127.0.0.1", OWN4, 13, 0, [0; 4], &[0; 12])),
        ("source-illegal", "no-rule", udp4("127.0.0.1", 80, "198.51.100.1", 1232, b"x")),
        ("no-rule", "too-big", edit4(to_home("198.51.100.1", 1232, &big), |b| b[6] = 0x40)),
        ("port-excluded", "too-big", edit4(to_home(OWN4, 80, &big), |b| b[6] = 0x40)),
        ("too-big", "udp-checksum-zero", without(edit4(to_home(OWN4, 1232, &big), |b| b[6] = 0x40), 26)),
    ];
    let to_server = |src: &str, port: u16| udp6(src, port, SERVER, 80, b"to the server...");
    let chain = |packet: Vec<u8>, first: u8, header: [u8; 7]| {
        let mut b = [&packet[..40], &[packet[6]], &header, &packet[40..]].concat();
        b[6] = first;
        b[5] += 8;
        b
    };
    let behind = |packet: Vec<u8>, next: u8| spoil(packet, 6, next);
    const FRAGMENT: [u8; 7] = [0, 0, 0, 0, 0, 0, 9];
    const SEGMENTS_LEFT: [u8; 7] = [0, 0, 1, 0, 0, 0, 0];
    const OPTIONS: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
    let wrong_iid = "2001:db8:12:3400:0:c000:213:34";
    let v6 = [
        (
            "header-truncated",
            "extension-header",
            chain(chain(to_server(OWN, 1232), 60, OPTIONS), 44, FRAGMENT)[..60].to_vec(),
        ),
        (
            "extension-header",
            "protocol-illegal",
            chain(chain(behind(to_server(OWN, 1232), 1), 60, OPTIONS), 44, FRAGMENT),
        ),
        (
            "fragment-illegal",
            "protocol-illegal",
            chain(behind(udp6(OWN, 1232, SERVER, 80, b"odd"), 1), 44, [0, 0, 1, 0, 0, 0, 9]),
        ),
        ("protocol-illegal", "routing-header", chain(behind(to_server(OWN, 1232), 1), 43, SEGMENTS_LEFT)),
        ("routing-header", "source-illegal", chain(to_server("::1", 1232), 43, SEGMENTS_LEFT)),
        ("source-illegal", "icmp-type", icmp6("::1", SERVER, 135, 0, [0; 4], &[0; 16])),
        ("source-illegal", "udp-checksum-zero", without(to_server("::1", 1232), 46)),
        ("udp-checksum-zero", "no-rule", without(to_server("2001:dc8::1", 1232), 46)),
        ("no-rule", "destination-not-ours", udp6("2001:dc8::1", 1232, "2001:db9::1", 80, b"x")),
        ("port-excluded", "source-mismatch", to_server(wrong_iid, 80)),
        ("port-outside-set", "source-mismatch", to_server(wrong_iid, 1300)),
        ("source-mismatch", "destination-not-ours", udp6(wrong_iid, 1232, "2001:db9::1", 80, b"x")),
        ("source-mismatch", "too-big", udp6(wrong_iid, 1232, SERVER, 80, &big)),
    ];
    let error = |kind, body: &[u8]| icmp4(SERVER4, OWN4, kind, 1, [0; 4], body);
    let errors = [
        ("icmp-type", "icmp-checksum", spoil(error(5, &lost), 22, 1)),
        ("icmp-checksum", "icmp-inner", spoil(error(3, &lost[..10]), 22, 1)),
        ("icmp-inner", "no-rule", icmp4(SERVER4, "198.51.100.1", 3, 1, [0; 4], &lost[..10])),
    ];
    let place = |column: &str, name: &str| {
        let is_word = |at: usize| {
            let around = [column[..at].chars().next_back(), column[at + name.len()..].chars().next()];
            !around.into_iter().flatten().any(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        column.match_indices(name).map(|(at, _)| at).find(|at| is_word(*at))
    };
    let columns = [(drawn(false).0, v4.to_vec()), (drawn(true).0, v6.to_vec()), (drawn(false).1, errors.to_vec())];
    for (column, pairs) in columns {
        for (first, second, packet) in pairs {
            assert_eq!(handle(&mut strict(), &packet).reason().name(), first, "before {second}");
            let [a, b] = [first, second].map(|name| place(&column, name));
            // What an ICMP error shares with other packets is drawn with those.
            let drawn = a.is_some() && (a < b || (b.is_none() && second == "no-rule"));
            assert!(drawn, "{first} is not drawn before {second}: {column}");
        }
    }
}
