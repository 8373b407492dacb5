//! The fuzz targets' bodies over the committed corpus, `fuzz/corpus/<target>`, and over seeds made here from real
//! packets of every kind. `MAPT_WRITE_SEEDS=1 cargo test --test fuzz_replay` writes the seeds into the corpus.

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;
mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::*;
use mapt::wire::VnetHdr;

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 8] = [
    ("wire", bodies::wire),
    ("ce", bodies::ce),
    ("br", bodies::br),
    ("pair", bodies::pair),
    ("pcp", bodies::pcp),
    ("config", bodies::config),
    ("control", bodies::control),
    ("saved", bodies::saved),
];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Runs them all and names those that fail.
fn replay<'a>(target: &str, body: Body, inputs: impl IntoIterator<Item = (String, &'a [u8])>) -> usize {
    let mut failed = Vec::new();
    let mut count = 0;
    for (name, input) in inputs {
        count += 1;
        if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{target}: {failed:?}");
    count
}

fn replay_corpus(target: &str) {
    let (_, body) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let mut files: Vec<PathBuf> = fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let inputs: Vec<(String, Vec<u8>)> =
        files.iter().map(|file| (file.display().to_string(), fs::read(file).unwrap())).collect();
    let count = replay(target, body, inputs.iter().map(|(name, input)| (name.clone(), &input[..])));
    assert!(count > 20, "the corpus of {target} has {count} inputs");
}

#[test]
fn wire() {
    replay_corpus("wire");
}

#[test]
fn ce() {
    replay_corpus("ce");
}

#[test]
fn br() {
    replay_corpus("br");
}

#[test]
fn pair() {
    replay_corpus("pair");
}

#[test]
fn pcp() {
    replay_corpus("pcp");
}

#[test]
fn config() {
    replay_corpus("config");
}

#[test]
fn control() {
    replay_corpus("control");
}

#[test]
fn saved() {
    replay_corpus("saved");
}

#[test]
fn seeds() {
    for (target, body) in TARGETS {
        let seeds = seeds_of(target);
        replay(target, body, seeds.iter().map(|(name, input)| (name.clone(), &input[..])));
        if std::env::var_os("MAPT_WRITE_SEEDS").is_some() {
            fs::create_dir_all(corpus(target)).unwrap();
            for (name, input) in seeds {
                fs::write(corpus(target).join(format!("seed-{name}")), input).unwrap();
            }
        }
    }
}

fn seeds_of(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "wire" => wire_seeds(),
        "ce" => ce_seeds(),
        "br" => br_seeds(),
        "pair" => pair_seeds(),
        "pcp" => pcp_seeds(),
        "saved" => saved_seeds(),
        "control" => control_seeds(),
        _ => config_seeds(),
    }
}

/// A step of `bodies/engine.rs`.
fn step(what: u8, data: &[u8]) -> Vec<u8> {
    let mut step = vec![what];
    step.extend((data.len() as u16).to_be_bytes());
    step.extend(data);
    step
}

/// Requests of `bodies/pcp.rs` by the figures of RFC 6887 and RFC 6886, each kind alone, and all after each other between
/// flows, forwards and time.
fn pcp_seeds() -> Vec<(String, Vec<u8>)> {
    let mapped = |d: u8| [&[0; 10][..], &[0xff, 0xff, 192, 168, 1, d]].concat();
    let head = |opcode: u8, lifetime: u8| [&[2, opcode, 0, 0, 0, 0, 2, lifetime][..], &mapped(10)].concat();
    let body = |protocol: u8, inside: u8, port: u8| {
        let ends = [protocol, 0, 0, 0, 0x13, 0x88 + inside, port, 0x34];
        [&b"twelve octet"[..], &ends, &[0; 10], &[0xff, 0xff, 0, 0, 0, 0]].concat()
    };
    let map = |inside, port, options: &[u8]| [&head(1, 88)[..], &body(6, inside, port), options].concat();
    let peer = |inside, to: u8| [&head(2, 88)[..], &body(17, inside, 0), &[1, 0xbb, 0, 0], &mapped(to)].concat();
    let filter = [&[3, 0, 0, 20, 0, 24, 0, 0][..], &mapped(7)].concat();
    let mut delete = map(0, 0, &[]);
    delete[4..8].fill(0);
    let mut all = delete.clone();
    (all[36], all[40], all[41]) = (0, 0, 0);
    let requests = [
        ("map", map(0, 0x30, &[])),
        ("map-other", map(1, 0x30, &[])),
        ("map-prefer-failure", map(2, 0x40, &[2, 0, 0, 0])),
        ("map-filter", map(3, 0, &filter)),
        ("map-optional", map(3, 0, &[200, 0, 0, 2, 1, 2, 0, 0])),
        ("map-unknown", map(3, 0, &[9, 0, 0, 0])),
        ("map-third-party", map(3, 0, &[&[1, 0, 0, 16][..], &mapped(11)].concat())),
        ("map-malformed-option", map(3, 0, &[3, 0, 0, 21, 0, 0, 0, 0])),
        ("peer", peer(5, 2)),
        ("peer-nobody", peer(6, 0)),
        ("delete", delete),
        ("delete-all", all),
        ("announce", head(0, 0)),
        ("opcode", head(5, 0)),
        ("version", [&[1][..], &head(1, 0)[1..]].concat()),
        ("short", vec![2, 1, 0]),
        ("pmp-address", vec![0, 0]),
        ("pmp-map", vec![0, 2, 0, 0, 0x13, 0x90, 0x50, 0x34, 0, 0, 0x1c, 0x20]),
        ("pmp-delete", vec![0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("pmp-opcode", vec![0, 9]),
    ];
    let step = |what: u8, who: u8, data: &[u8]| [&[what, who, data.len() as u8][..], data].concat();
    let others = [
        step(4, 0, &[0, 8, 1, 9]),
        step(5, 0, &[40]),
        step(6, 0, &[0, 3, 0, 0, 7, 5]),
        step(7, 0, &[]),
        step(5, 0, &[250]),
    ];
    let mut together = Vec::new();
    for (n, (_, request)) in requests.iter().enumerate() {
        together.extend(step(0, 0, request));
        together.extend(step(0, 1, request));
        together.extend(&others[n % others.len()]);
    }
    let alone = requests.iter().map(|(name, request)| (name.to_string(), step(0, 0, request)));
    let after = requests.iter().map(|(name, request)| {
        let sequence = [step(0, 0, &requests[0].1), step(4, 0, &[0, 8]), step(0, 0, request), step(5, 0, &[200])];
        (format!("after-{name}"), sequence.concat())
    });
    alone.chain(after).chain([("together".to_owned(), together)]).collect()
}

const ANSWER: u8 = 1;
const ERROR: u8 = 2;
const WAIT: u8 = 3;
const OFFLOAD: u8 = 4;
const MEND: u8 = 8;
const ZEROS: u8 = 16;

fn vnet(gso_type: u8, gso_size: u16, csum_start: u16, csum_offset: u16) -> [u8; 10] {
    let hdr_len = csum_start + if csum_offset == 16 { 20 } else { 8 };
    VnetHdr { flags: VnetHdr::NEEDS_CSUM, gso_type, hdr_len, gso_size, csum_start, csum_offset }.to_bytes()
}

/// A superpacket: headers and so many octets behind them.
fn super_packet(header: [u8; 10], packet: &[u8], zeros: u16) -> Vec<u8> {
    let data = [&header[..], &zeros.to_be_bytes(), packet].concat();
    step(OFFLOAD | ZEROS | MEND, &data)
}

/// Extension headers behind the fixed IPv6 header: `chain` is (type, octets).
fn extended(packet: &[u8], chain: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = packet[..40].to_vec();
    let mut next = 6;
    for (kind, octets) in chain {
        let last = out[next];
        out[next] = *kind;
        next = out.len();
        out.extend(*octets);
        out[next] = last;
    }
    out.extend(&packet[40..]);
    let len = (out.len() - 40) as u16;
    out[4..6].copy_from_slice(&len.to_be_bytes());
    out
}

fn fragment6(packet: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    extended(packet, &[(44, &[0, 0, high, low, 0, 1, 0xab, 0xcd])])
}

fn fragment4(packet: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    edit4(packet, |b| {
        b[6..8].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        b[4..6].copy_from_slice(&[0xab, 0xcd]);
    })
}

/// The fragments of a packet whose payload is cut at these offsets, in the order in which they are to be fed.
fn fragments(packet: &[u8], cuts: [usize; 4], order: &[usize]) -> Vec<Vec<u8>> {
    let (v6, at) = (packet[0] >> 4 == 6, if packet[0] >> 4 == 6 { 40 } else { 20 });
    let piece = |n: &usize| {
        let (from, to) = (cuts[*n], cuts[n + 1].min(packet.len() - at));
        let more = at + to < packet.len();
        let mut part = [&packet[..at], &packet[at + from..at + to]].concat();
        if v6 {
            part[4..6].copy_from_slice(&((to - from) as u16).to_be_bytes());
            fragment6(&part, from as u16, more)
        } else {
            part[2..4].copy_from_slice(&((to - from + 20) as u16).to_be_bytes());
            fragment4(part, from as u16, more)
        }
    };
    order.iter().map(piece).collect()
}

/// Orders of three fragments: early ones, a duplicate, two first ones, a last one that never meets the first.
const ORDERS: [&[usize]; 6] = [&[0, 1, 2], &[2, 1, 0], &[1, 0, 2, 2], &[0, 0, 1], &[2, 2, 0, 1], &[1, 2]];

/// Options in front of an IPv4 packet's payload; a multiple of four octets.
fn options4(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut out = [&packet[..20], options, &packet[20..]].concat();
    let len = out.len() as u16;
    out = edit4(out, |b| b[2..4].copy_from_slice(&len.to_be_bytes()));
    edit4(out, |b| b[0] = 0x45 + (options.len() / 4) as u8)
}

/// Every kind of packet from one IPv4 host to another; `port` and `id` are the sender's.
fn kinds4(src: &str, port: u16, dst: &str) -> Vec<(&'static str, Vec<u8>)> {
    let udp = udp4(src, port, dst, 53, b"a question");
    let odd = udp4(src, port, dst, 4500, b"odd");
    let quoted = udp4(dst, 53, src, port, b"an answer that met trouble");
    let inner_tcp = tcp4(dst, 443, src, port, "A", b"");
    let inner_echo = echo4(dst, src, port, true, b"abcd");
    let long = |len: usize| udp4(src, port, dst, 5001, &vec![0x5a; len]);
    let df = |packet: Vec<u8>| edit4(packet, |b| b[6] |= 0x40);
    let mut no_checksum = udp.clone();
    no_checksum[26..28].copy_from_slice(&[0, 0]);
    let [sctp, dccp, udp_lite] = [132, 33, 136].map(|number| edit4(udp.clone(), |b| b[9] = number));
    let mut tunnel = udp4(src, port, dst, 4789, b"VXLAN goes without");
    tunnel[26..28].copy_from_slice(&[0, 0]);
    // The payload becomes options: an MSS, at an odd offset.
    let mut mss = tcp4(src, port, dst, 443, "S", &[1, 2, 4, 5, 180, 1, 1, 1]);
    mss[32] = 0x70;
    let with_length =
        [&quoted[..], &[0; 128][..128 - quoted.len()], &[0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 0, 0, 1]].concat();
    vec![
        ("udp", udp.clone()),
        ("udp-odd", odd),
        ("udp-no-checksum", no_checksum),
        ("tcp-syn", tcp4(src, port, dst, 443, "S", b"")),
        ("tcp-data", tcp4(src, port, dst, 443, "A", b"GET / HTTP/1.1\r\n")),
        ("tcp-fin", tcp4(src, port, dst, 443, "FA", b"")),
        ("tcp-rst", tcp4(src, port, dst, 443, "R", b"")),
        ("echo", echo4(src, dst, port, true, b"0123456789")),
        ("echo-reply", echo4(src, dst, port, false, b"0123456789")),
        ("timestamp", icmp4(src, dst, 13, 0, [4, 210, 0, 1], &[0; 12])),
        ("sctp", sctp),
        ("dccp", dccp),
        ("udp-lite", udp_lite),
        ("tunnel", tunnel),
        ("tcp-syn-mss", mss),
        ("options", options4(&udp, &[1, 7, 3, 4])),
        ("source-route", options4(&udp, &[131, 7, 4, 198, 51, 100, 9, 0])),
        ("unreachable", icmp4(src, dst, 3, 3, [0; 4], &quoted)),
        ("fragmentation-needed", icmp4(src, dst, 3, 4, [0, 0, 5, 0], &inner_tcp)),
        ("fragmentation-needed-0", icmp4(src, dst, 3, 4, [0; 4], &inner_tcp)),
        ("time-exceeded", icmp4(src, dst, 11, 0, [0; 4], &inner_echo)),
        ("parameter-problem", icmp4(src, dst, 12, 0, [16, 0, 0, 0], &quoted)),
        ("multipart-error", icmp4(src, dst, 11, 0, [0, 32, 0, 0], &with_length)),
        ("error-in-error", icmp4(src, dst, 3, 1, [0; 4], &icmp4(dst, src, 3, 1, [0; 4], &udp))),
        ("first-fragment", fragment4(udp4(src, port, dst, 5001, &[7; 32]), 0, true)),
        ("later-fragment", fragment4(udp.clone(), 40, false)),
        ("fragmented-icmp", fragment4(echo4(src, dst, port, true, &[1; 32]), 0, true)),
        ("long", long(1400)),
        ("long-df", df(long(1472))),
        ("too-long-df", df(long(1473))),
        ("ttl-1", edit4(udp.clone(), |b| b[8] = 1)),
        ("multicast", udp4(src, port, "224.0.0.251", 5353, b"mdns")),
        ("truncated", udp[..24].to_vec()),
        ("bad-header-checksum", {
            let mut b = udp.clone();
            b[10] ^= 1;
            b
        }),
        ("bad-checksum", {
            let mut b = udp;
            b[30] ^= 1;
            b
        }),
    ]
}

/// Every kind of packet from one IPv6 address to another.
fn kinds6(src: &str, port: u16, dst: &str) -> Vec<(&'static str, Vec<u8>)> {
    let udp = udp6(src, port, dst, 53, b"a question");
    let quoted = udp6(dst, 53, src, port, b"an answer that met trouble");
    let inner_tcp = tcp6(dst, 443, src, port, "A", b"");
    let inner_echo = echo6(dst, src, port, true, b"abcd");
    let long = |len: usize| udp6(src, port, dst, 5001, &vec![0x5a; len]);
    let mut no_checksum = udp.clone();
    no_checksum[46..48].copy_from_slice(&[0, 0]);
    let [sctp, dccp, udp_lite] = [132, 33, 136].map(|number| {
        let mut packet = udp.clone();
        packet[6] = number;
        packet
    });
    let mut tunnel = udp6(src, port, dst, 4789, b"VXLAN goes without");
    tunnel[46..48].copy_from_slice(&[0, 0]);
    let mut mss = tcp6(src, port, dst, 443, "S", &[1, 2, 4, 5, 180, 1, 1, 1]);
    mss[52] = 0x70;
    let with_length =
        [&quoted[..], &[0; 128][..128 - quoted.len()], &[0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 0, 0, 1]].concat();
    let mut hop1 = udp.clone();
    hop1[7] = 1;
    vec![
        ("udp", udp.clone()),
        ("udp-no-checksum", no_checksum),
        ("tcp-syn", tcp6(src, port, dst, 443, "S", b"")),
        ("tcp-data", tcp6(src, port, dst, 443, "A", b"GET / HTTP/1.1\r\n")),
        ("echo", echo6(src, dst, port, true, b"0123456789")),
        ("echo-reply", echo6(src, dst, port, false, b"0123456789")),
        ("neighbour", icmp6(src, dst, 135, 0, [0; 4], &[0; 16])),
        ("sctp", sctp),
        ("dccp", dccp),
        ("udp-lite", udp_lite),
        ("tunnel", tunnel),
        ("tcp-syn-mss", mss),
        ("hop-by-hop", extended(&udp, &[(0, &[0, 0, 1, 4, 0, 0, 0, 0])])),
        (
            "extensions",
            extended(
                &udp,
                &[(0, &[0, 0, 1, 4, 0, 0, 0, 0]), (43, &[0, 0, 4, 0, 0, 0, 0, 0]), (60, &[0; 16].map(|_| 0))],
            ),
        ),
        ("routing", extended(&udp, &[(43, &[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])])),
        ("atomic", fragment6(&udp, 0, false)),
        ("first-fragment", fragment6(&udp6(src, port, dst, 5001, &[7; 32]), 0, true)),
        ("later-fragment", fragment6(&udp, 40, false)),
        ("unreachable", icmp6(src, dst, 1, 4, [0; 4], &quoted)),
        ("too-big", icmp6(src, dst, 2, 0, [0, 0, 5, 0], &inner_tcp)),
        ("time-exceeded", icmp6(src, dst, 3, 0, [0; 4], &inner_echo)),
        ("parameter-problem", icmp6(src, dst, 4, 0, [0, 0, 0, 24], &quoted)),
        ("next-header-problem", icmp6(src, dst, 4, 1, [0, 0, 0, 6], &quoted)),
        ("multipart-error", icmp6(src, dst, 3, 0, [16, 0, 0, 0], &with_length)),
        ("quoted-fragment", icmp6(src, dst, 1, 0, [0; 4], &fragment6(&quoted, 0, true))),
        ("long", long(1400)),
        ("too-long", long(1452)),
        ("hop-limit-1", hop1),
        ("truncated", udp[..44].to_vec()),
        ("bad-checksum", {
            let mut b = udp;
            b[50] ^= 1;
            b
        }),
    ]
}

/// Superpackets and partial checksums of both transports.
fn offloaded(tcp: &[u8], udp: &[u8], v6: bool) -> Vec<(&'static str, Vec<u8>)> {
    let at = if v6 { 40 } else { 20 };
    let kind = if v6 { VnetHdr::GSO_TCPV6 } else { VnetHdr::GSO_TCPV4 };
    let partial = |packet: &[u8], offset: u16| {
        step(OFFLOAD | MEND, &[&vnet(VnetHdr::GSO_NONE, 0, at, offset)[..], packet].concat())
    };
    vec![
        ("tcp-partial", partial(tcp, 16)),
        ("udp-partial", partial(udp, 6)),
        ("tso", super_packet(vnet(kind, 1380, at, 16), tcp, 8000)),
        ("tso-64k", super_packet(vnet(kind, 1440, at, 16), tcp, 65_000)),
        ("tso-ecn", super_packet(vnet(kind | VnetHdr::GSO_ECN, 500, at, 16), tcp, 1600)),
        ("tso-too-large", super_packet(vnet(kind, 1600, at, 16), tcp, 4000)),
        ("uso", super_packet(vnet(VnetHdr::GSO_UDP_L4, 1200, at, 6), udp, 5000)),
        ("tso-of-the-other-family", super_packet(vnet(5 - kind, 1380, at, 16), tcp, 3000)),
    ]
}

fn ce_seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add =
        |name: String, choice: u8, steps: Vec<Vec<u8>>| seeds.push((name, [vec![choice], steps.concat()].concat()));
    let (host, server) = ("192.168.1.23", "203.0.113.5");
    // Out, the answer, errors about it from either side of the translator.
    for (kind, packet) in kinds4(host, 51_234, server) {
        add(
            format!("out-{kind}"),
            0,
            vec![
                step(0, &packet),
                step(ANSWER, b""),
                step(0, &packet),
                step(ERROR, &[2, 0, 0, 0, 5, 0]),
                step(0, &packet),
                step(ERROR, &[3, 0, 0, 0, 0, 0]),
                step(WAIT, &[1, 44]),
                step(0, &packet),
            ],
        );
    }
    let (tcp, udp) = (tcp4(host, 51_234, server, 443, "A", b""), udp4(host, 51_234, server, 4433, b""));
    for (kind, superpacket) in offloaded(&tcp, &udp, false) {
        add(format!("out-{kind}"), 0, vec![step(0, &tcp), superpacket.clone(), step(ANSWER, b"")]);
        add(format!("out-small-mtu-{kind}"), 1, vec![superpacket, step(ANSWER, b"")]);
    }
    // To the neighbour by FMR, to the BR instead, from the prefix without NAPT, with other port sets, unprovisioned.
    for (name, choice, src) in [
        ("neighbour", 0, host),
        ("hub", 0x80, host),
        ("decrement", 2, host),
        ("full", 3 << 2, "198.51.100.18"),
        ("few-ports", 4 << 2, host),
        ("prefix", 5 << 2, "203.0.113.3"),
        ("one-to-one", 6 << 2, host),
        ("unprovisioned", 7 << 2, host),
    ] {
        let steps = [
            udp4(src, 40_000, "192.0.2.77", 2259, b"hello neighbour"),
            tcp4(src, 40_001, "198.51.100.9", 22, "S", b""),
            echo4(src, "198.51.100.9", 40_002, true, b"ping"),
            udp4(src, 40_003, server, 4500, &[9; 1300]),
        ];
        let steps = steps
            .iter()
            .flat_map(|packet| [step(0, packet), step(ANSWER | MEND, b"xy"), step(ERROR, &[1, 3, 0, 0, 0, 0])]);
        add(name.into(), choice, steps.collect());
    }
    for (n, order) in ORDERS.into_iter().enumerate() {
        for (choice, src, len) in [(0, host, 64), (1, host, 3000), (3 << 2, "198.51.100.18", 64)] {
            let packet = udp4(src, 40_000, server, 53, &vec![9; len]);
            let parts = fragments(&packet, [0, 32, len / 8 * 4, 9999], order);
            let mut steps: Vec<Vec<u8>> = parts.iter().map(|part| step(0, part)).collect();
            steps.extend([step(WAIT, &[0, 1]), step(0, &parts[0]), step(WAIT, &[0, 5]), step(0, &parts[0])]);
            add(format!("fragments-{n}-{choice}"), choice, steps);
        }
    }
    seeds.extend(home_seeds());
    let mut add =
        |name: String, choice: u8, steps: Vec<Vec<u8>>| seeds.push((name, [vec![choice], steps.concat()].concat()));
    // From the BR and from a neighbour, with nothing open.
    for (kind, packet) in kinds6("2001:db8:ffff:0:cb:71:500:0", 443, "2001:db8:12:3400:0:c000:212:34") {
        add(format!("in-{kind}"), 0, vec![step(0, &packet)]);
    }
    seeds
}

/// Whole lives of homes in the steps of `bodies/ce.rs`.
fn home_seeds() -> Vec<(String, Vec<u8>)> {
    const RECORDED: u8 = 0x40;
    let exchange = |octets: [u8; 6]| step(0x20, &octets);
    let event = |which: u8, data: &[u8]| step(which << 2 | 3, data);
    let [millis, until, late, forwards, setting, restart, ask] =
        [1, 2, 3, 4, 5, 6, 7].map(|which| move |data: &[u8]| event(which, data));
    let (tcp_out, tcp_in, udp_out, udp_in, echo_out, echo_in) = (0, 4, 2, 6, 3, 7);
    let (syn, syn_ack, ack, fin, rst) = (2, 0x12, 0x10, 0x11, 4);
    let open = |who: u8, to: u8| {
        [exchange([tcp_out, who, to, syn, 0, 0]), exchange([tcp_in, who, to, syn_ack, 0, 0])].concat()
    };
    let opened = |who: u8, to: u8| [open(who, to), exchange([tcp_out, who, to, ack, 0, 0])].concat();
    let close =
        |who: u8, to: u8| [exchange([tcp_out, who, to, fin, 0, 0]), exchange([tcp_in, who, to, fin, 0, 0])].concat();
    let many = |kind: u8, who: u8, to: u8| exchange([kind, who, to, syn, 0, 15]);
    let mut seeds = Vec::new();
    for home in (0..14).chain([200, 201]) {
        let begin = setting(&[RECORDED, home, 0, home, home % 4]);
        let life = [
            begin.clone(),
            opened(0, 0),
            millis(&[1, 77]),
            exchange([udp_out, 1, 1, 0, 0, 2]),
            exchange([udp_in, 1, 1, 0, 0, 0]),
            exchange([echo_out, 2, 0, 0, 0, 0]),
            exchange([echo_in, 2, 0, 0, 0, 0]),
            many(tcp_out, 3, 0),
            late(&[0x27, 0x11]),
            many(tcp_out, 4, 0),
            exchange([tcp_in | 32, 0, 2, syn, 5, 3]),
            close(0, 0),
            millis(&[0x17, 0x71]),
            many(tcp_out, 5, 0),
            many(udp_out, 6, 4),
            restart(&[3, 0x21]),
            many(tcp_out, 7, 1),
            until(&[1]),
            until(&[0]),
            step(2, &[3, 0, 0, 0, 0, 0]),
        ];
        seeds.push((format!("home-{home}"), life.to_vec()));
        let hosts = [
            begin,
            ask(&[0, 0, 30, 2, 0]),
            ask(&[0x47, 9, 30, 3, 0]),
            opened(0, 0),
            forwards(&[0, 1, 8, 2, 2, 9, 3, 3, 2]),
            exchange([tcp_in | 32, 0, 0, syn, 1, 0]),
            // To itself, by its outside address, and back.
            exchange([tcp_out | 64, 1, 0, syn, 0, 0]),
            step(33, &[]),
            setting(&[RECORDED, home, 0x23, 1, 3, 0, 1, 0]),
            millis(&[0x61, 0xa9]),
            restart(&[0, 0]),
            forwards(&[]),
            many(tcp_out, 0, 0),
            setting(&[RECORDED, home + 1, 8, 2, 0]),
            until(&[3]),
        ];
        seeds.push((format!("hosts-{home}"), hosts.to_vec()));
    }
    for threshold in 0..8 {
        for (name, flows) in [("many", 4), ("few", 1)] {
            let scarce = [
                setting(&[RECORDED, 1, flows << 3 | threshold, 1, 0]),
                opened(0, 0),
                many(tcp_out, 1, 0),
                late(&[0x26, 0xde]),
                many(tcp_out, 2, 0),
                many(tcp_out, 2, 1),
                late(&[0x4e, 0x21]),
                // Those that have expired begin anew.
                many(tcp_out, 1, 0),
                late(&[0, 99]),
                many(tcp_out, 3, 0),
                exchange([tcp_in, 0, 0, ack, 0, 0]),
                exchange([tcp_out, 0, 0, rst, 0, 0]),
                late(&[4, 0]),
                many(tcp_out, 4, 0),
                many(udp_out, 1, 1),
                exchange([udp_in, 1, 1, 0, 0, 5]),
                late(&[0x27, 0x11]),
                many(udp_out, 2, 1),
                many(udp_out, 2, 5),
            ];
            seeds.push((format!("scarce-{name}-{threshold}"), scarce.to_vec()));
        }
    }
    // Other ports of the same address: all of before and more, half of them, none.
    for (n, homes) in [[1, 8, 1], [8, 9, 1], [9, 8, 9]].into_iter().enumerate() {
        let all = |to: u8| [many(tcp_out, 1, to), many(udp_out, 2, to), many(echo_out, 3, to), opened(0, to)].concat();
        let moves = homes.map(|home| [setting(&[RECORDED, home, 33, 1, 0]), all(0), late(&[0, 77]), all(1)].concat());
        seeds.push((format!("moves-{n}"), moves.to_vec()));
    }
    for (n, kinds) in [[8, 24, 16], [24, 16, 8], [16, 8, 24], [8, 8, 16]].into_iter().enumerate() {
        for protocol in [0, 2] {
            let pieces = |kind: u8| exchange([kind | protocol, 0, 0, syn, 9, 0]);
            let steps = [
                exchange([protocol, 0, 0, syn, 0, 0]),
                kinds.map(pieces).concat(),
                kinds.map(|kind| pieces(kind | 4)).concat(),
                millis(&[7, 0xd1]),
                kinds.map(pieces).concat(),
            ];
            seeds.push((format!("pieces-{n}-{protocol}"), steps.to_vec()));
        }
    }
    seeds.into_iter().map(|(name, steps)| (name, [vec![RECORDED], steps.concat()].concat())).collect()
}

fn pair_seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (choice, src) in [(0u8, "192.168.1.23"), (1, "198.51.100.18")] {
        for (kind, packet) in kinds4(src, 51_234, "203.0.113.5") {
            let steps = [step(0, &packet), step(1, b""), step(1 | MEND, b"the answer"), step(0, &packet)];
            seeds.push((format!("{choice}-{kind}"), [vec![choice], steps.concat()].concat()));
        }
        let packet = udp4(src, 40_000, "203.0.113.5", 53, &vec![9; 3000]);
        for (n, order) in ORDERS.into_iter().enumerate() {
            let parts = fragments(&packet, [0, 32, 1480, 9999], order);
            let steps: Vec<u8> = parts.iter().flat_map(|part| step(0, part)).collect();
            seeds.push((format!("{choice}-fragments-{n}"), [vec![choice], steps].concat()));
        }
    }
    seeds
}

fn br_seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add =
        |name: String, choice: u8, steps: Vec<Vec<u8>>| seeds.push((name, [vec![choice], steps.concat()].concat()));
    let (map, dmr) = ("2001:db8:12:3400:0:c000:212:34", "2001:db8:ffff:0:cb:71:500:0");
    for (kind, packet) in kinds6(map, 1232, dmr) {
        let steps = [step(0, &packet), step(ANSWER, b""), step(0, &packet), step(ERROR, &[3, 4, 0, 0, 5, 0])];
        add(format!("from-customer-{kind}"), 0, steps.to_vec());
        add(format!("from-customer-switches-{kind}"), 0x20, steps.to_vec());
    }
    for (kind, packet) in kinds4("203.0.113.5", 443, "192.0.2.18") {
        let mut to_set = packet;
        if to_set.len() >= 24 && matches!(to_set[9], 6 | 17) && to_set[0] == 0x45 {
            to_set[22..24].copy_from_slice(&1232u16.to_be_bytes());
        }
        let steps = [step(MEND, &to_set), step(ANSWER, b""), step(ERROR, &[11, 0, 0, 0, 0, 0])];
        add(format!("to-customer-{kind}"), 0, steps.to_vec());
        add(format!("to-customer-switches-{kind}"), 0x21, steps.to_vec());
    }
    let (tcp, udp) = (tcp6(map, 1232, dmr, 443, "A", b""), udp6(map, 2257, dmr, 443, b""));
    for (kind, superpacket) in offloaded(&tcp, &udp, true) {
        add(format!("from-customer-{kind}"), 0, vec![superpacket.clone(), step(ANSWER, b"")]);
        add(format!("from-customer-small-mtu-{kind}"), 1, vec![superpacket]);
    }
    let (tcp, udp) =
        (tcp4("203.0.113.5", 443, "192.0.2.18", 1232, "A", b""), udp4("203.0.113.5", 443, "192.0.2.18", 2257, b""));
    for (kind, superpacket) in offloaded(&tcp, &udp, false) {
        add(format!("to-customer-{kind}"), 0, vec![superpacket.clone()]);
        add(format!("to-customer-small-mtu-{kind}"), 1, vec![superpacket, step(ERROR, &[1, 0, 0, 0, 0, 0])]);
    }
    for (n, order) in ORDERS.into_iter().enumerate() {
        let packets = [udp6(map, 1232, dmr, 53, &[5; 64]), udp4("203.0.113.5", 443, "192.0.2.18", 1232, &[5; 1300])];
        for (v, packet) in packets.iter().enumerate() {
            let parts = fragments(packet, [0, 40, 64, 9999], order);
            let mut steps: Vec<Vec<u8>> = parts.iter().map(|part| step(0, part)).collect();
            steps.extend([step(WAIT, &[0, 1]), step(0, &parts[0]), step(WAIT, &[0, 5]), step(0, &parts[0])]);
            add(format!("fragments-{n}-{v}"), 0, steps.clone());
            add(format!("fragments-small-mtu-{n}-{v}"), 1, steps);
        }
    }
    // The IPv6 checksum of this one comes out as zero, which UDP must write as 0xffff (RFC 8200 §8.1).
    let zero_sum = |payload: &[u8]| udp6(dmr, 443, map, 1232, payload);
    let word = zero_sum(&[0, 0])[46..48].to_vec();
    assert_eq!(zero_sum(&word)[46..48], [0xff, 0xff]);
    add("to-customer-zero-sum".into(), 0, vec![step(0, &udp4("203.0.113.5", 443, "192.0.2.18", 1232, &word))]);
    // One customer of each rule, with either DMR.
    let mut steps = Vec::new();
    for (addr, port) in [
        ("192.0.2.18", 1232),
        ("198.51.100.18", 80),
        ("198.51.101.18", 12_300),
        ("203.0.113.3", 8080),
        ("203.0.113.64", 0x1210),
        ("203.0.113.64", 0x1220),
        ("203.0.113.130", 30_000),
        ("203.0.113.99", 1000),
    ] {
        steps.push(step(0, &udp4("8.8.4.4", 53, addr, port, b"one for each rule")));
        steps.push(step(ANSWER, b"back"));
        steps.push(step(0, &echo4("8.8.4.4", addr, port, true, b"")));
        steps.push(step(ANSWER, b""));
    }
    for choice in [0, 2, 4, 6] {
        add(format!("every-rule-{choice}"), choice, steps.clone());
    }
    // RFC 7599 §8.3: another's port, another's address, another interface identifier, a hairpin, a private destination.
    for (name, packet) in [
        ("stolen-port", udp6(map, 1236, dmr, 53, b"")),
        ("stolen-address", udp6("2001:db8:12:3400:0:c000:213:34", 1232, dmr, 53, b"")),
        ("wrong-identifier", udp6("2001:db8:12:3400::1", 1232, dmr, 53, b"")),
        ("hairpin", udp6(map, 1232, "2001:db8:ffff:0:c0:2:4d00:0", 2259, b"")),
        ("not-the-dmr", udp6(map, 1232, "2001:db8:fffd::1", 53, b"")),
        ("router-error", icmp6("2001:db8:1::1", dmr, 3, 0, [0; 4], &udp6(dmr, 53, map, 1232, b"lost"))),
    ] {
        add(name.into(), 0, vec![step(0, &packet)]);
        add(format!("{name}-well-known"), 4, vec![step(0, &packet)]);
        add(format!("{name}-switches"), 0x22, vec![step(0, &packet)]);
    }
    seeds
}

fn wire_seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |name: String, choice: u8, header: [u8; 10], packet: &[u8]| {
        seeds.push((name, [&[choice][..], &header, packet].concat()));
    };
    for (kind, packet) in kinds4("192.168.1.23", 51_234, "203.0.113.5") {
        add(format!("v4-{kind}"), 0, [0; 10], &packet);
    }
    for (kind, packet) in kinds6("2001:db8:12:3400:0:c000:212:34", 1232, "2001:db8:ffff:0:cb:71:500:0") {
        add(format!("v6-{kind}"), 0, [0; 10], &packet);
    }
    let payload = [0xa5; 700];
    for (name, at, kind, tcp, udp) in [
        (
            "v4",
            20,
            VnetHdr::GSO_TCPV4,
            tcp4("192.168.1.23", 51_234, "203.0.113.5", 443, "FA", &payload),
            udp4("192.168.1.23", 51_234, "203.0.113.5", 443, &payload),
        ),
        (
            "v6",
            40,
            VnetHdr::GSO_TCPV6,
            tcp6("2001:db8::1", 51_234, "2001:db8::2", 443, "FA", &payload),
            udp6("2001:db8::1", 51_234, "2001:db8::2", 443, &payload),
        ),
    ] {
        add(format!("{name}-tso"), 3, vnet(kind, 100, at, 16), &tcp);
        add(format!("{name}-tso-ecn"), 3, vnet(kind | VnetHdr::GSO_ECN, 333, at, 16), &tcp);
        add(format!("{name}-uso"), 3, vnet(VnetHdr::GSO_UDP_L4, 128, at, 6), &udp);
        add(format!("{name}-tcp-partial"), 3, vnet(VnetHdr::GSO_NONE, 0, at, 16), &tcp);
        add(format!("{name}-udp-partial"), 3, vnet(VnetHdr::GSO_NONE, 0, at, 6), &udp);
        add(format!("{name}-lying"), 1, vnet(kind, 1, at + 2, 16), &tcp);
    }
    seeds
}

fn config_seeds() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let rules = read("rules.yaml");
    let with_rules = |text: &str| format!("{text}\0{rules}");
    let rule = |leaves: &str| {
        format!(
            "version: 7\ndmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n  - name: one\n    rule-ipv6-prefix: 2001:db8::/40\n    rule-ipv4-prefix: 192.0.2.0/24\n{leaves}"
        )
    };
    [
        ("rules", rules.clone()),
        ("br", with_rules(&read("br.yaml"))),
        ("ce", with_rules(&read("ce.yaml"))),
        ("empty", String::new()),
        ("no-rules-file", read("br.yaml")),
        ("smallest-br", with_rules("role: br\nrules: rules.yaml\n")),
        ("smallest-ce", with_rules("role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\n")),
        ("shared", rule("    ea-len: 16\n    psid-offset: 6\n    forwarding: true\n")),
        ("full", rule("    ea-len: 8\n")),
        ("prefix", rule("    ea-len: 4\n")),
        ("explicit-psid", rule("    ea-len: 8\n    psid-len: 8\n    psid: 0x34\n")),
        ("a-and-k", rule("    ea-len: 20\n    psid-offset: 10\n")),
        ("too-many-bits", rule("    ea-len: 49\n")),
        ("unknown-key", rule("    ea-len: 16\n    ea-lenght: 16\n")),
        ("own-dmr", rule("    ea-len: 16\n    dmr-ipv6-prefix: 64:ff9b::/96\n")),
        ("two-rules", format!("{}  - {{name: two, rule-ipv6-prefix: 2001:db8:4000::/40, rule-ipv4-prefix: 198.51.100.0/24, ea-len: 16}}\n", rule("    ea-len: 16\n"))),
        ("same-twice", format!("{}  - {{name: one, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 12}}\n", rule("    ea-len: 16\n"))),
        ("host-bits", rule("    ea-len: 16\n").replace("192.0.2.0/24", "192.0.2.1/24")),
        ("alias", "a: &a [1, 2]\nb: *a\nrules: [*a, *a]\n".into()),
        ("inline", "role: br\nrules:\n  dmr-ipv6-prefix: 2001:db8:ffff::/64\n  rules: []\ninstance: x\n".into()),
        (
            "every-block",
            with_rules(
                "role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\ninstance: home\ncheck-interface-id: false\n\
                 mtu: {ipv6: 1480, ipv4: 1400, lowest-ipv6: 1300}\nudp-zero-checksum: drop\nsysctl: manage\n\
                 icmp: {rfc6791-pool: [203.0.113.8/32], originate: limited, ipv6-source: 2001:db8::1}\n\
                 napt: {enabled: true}\ntun: {name: map0, queues: 1, ipv4-address: 192.0.0.2}\n\
                 routes: {install: true, table: 100, metric: 50, protocol: 190}\n\
                 control: {socket: /run/mapt.sock}\nstate-directory: /var/lib/mapt\n",
            ),
        ),
        ("not-yaml", "rules: [\n  - {name: 'x\n".into()),
        ("control-characters", "rules: \"\\x1b[31m\\u0007\"\n\u{85}x: y\r\nz: \u{202e}\n".into()),
        ("tabs-and-unicode", "rules:\n\t- ñ: ∞\n  \u{feff}role: ce\n".into()),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .collect()
}

const SAVED: &str = "mapt mappings 1
customer 192.0.2.18 psid-offset 6 psid-len 8 psid 52
saved 1790000000 boot 1f0c8a0e-6d5e up 86400
tcp 192.168.1.10:40000 1232 203.0.113.7:443 own 1250 - 1e3 4fa2 33 12 4f80
tcp 192.168.1.10:40000 1232 203.0.113.8:443 own 1000 1000 20 4fa2 0 0 0
udp 192.168.1.11:5353 2257 203.0.113.9:53 shared 750 500 0
udp 192.168.1.12:5353 2257 203.0.113.10:53 shared 0 - 2
icmp 192.168.1.12:77 3282 - own 0 -
map tcp 192.168.1.13:80 1233 pcp 5a1e0c3b9d7f2a4466aa01ff 3600000 203.0.113.0/24:0
peer tcp 192.168.1.10:40000 1232 nat-pmp 7200000 203.0.113.7:443
end 7
";

/// A whole file, each line of it missing, doubled, or cut off, and what is at the edges of the numbers.
fn saved_seeds() -> Vec<(String, Vec<u8>)> {
    let lines: Vec<&str> = SAVED.lines().collect();
    let joined = |lines: Vec<&str>| format!("{}\n", lines.join("\n"));
    let mut seeds = vec![("whole".to_owned(), SAVED.to_owned()), ("empty".to_owned(), String::new())];
    for (n, line) in lines.iter().enumerate() {
        let without = lines.iter().enumerate().filter(|(at, _)| *at != n).map(|(_, line)| *line).collect();
        let twice = lines.iter().enumerate().flat_map(|(at, line)| vec![*line; 1 + usize::from(at == n)]).collect();
        seeds.push((format!("without-{n}"), joined(without)));
        seeds.push((format!("twice-{n}"), joined(twice).replace("end 7", "end 8")));
        seeds.push((format!("half-{n}"), SAVED.replace(line, &line[..line.len() / 2])));
    }
    for (name, from, to) in [
        ("port-0", ":40000 1232", ":40000 0"),
        ("port-of-another", ":40000 1232", ":40000 1236"),
        ("a-week", "own 1250 -", "own 604801000 -"),
        ("more-than-a-week", "own 1250 -", "own 604801001 -"),
        ("all-bits", "1e3 4fa2", "1ff ffffffff"),
        ("a-bit-more", "1e3 4fa2", "3ff ffffffff"),
        ("version", "mappings 1", "mappings 18446744073709551616"),
        ("escape", "boot 1f0c", "boot \u{1b}[2J"),
        ("whole-address", "psid-offset 6 psid-len 8 psid 52", "psid-offset 0 psid-len 0 psid 0"),
    ] {
        seeds.push((name.into(), SAVED.replacen(from, to, 1)));
    }
    seeds.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}

proptest::proptest! {
    /// The seeds' requests of any hosts, in any order, with ports, lifetimes and octets changed.
    #[test]
    fn pcp_in_any_order(
        steps in proptest::collection::vec(
            (0u8..8, proptest::num::u8::ANY, 0usize..20, proptest::collection::vec((0usize..80, 0u8..8), 0..3)), 1..80,
        ),
    ) {
        let alone = pcp_seeds();
        let mut input = Vec::new();
        for (what, who, which, changes) in steps {
            let mut step = alone[which].1.clone();
            (step[0], step[1]) = (what, who);
            if let Some(last) = step.get_mut(26) {
                *last = 10 + who % 4;
            }
            for (at, value) in changes {
                if let Some(octet) = step.get_mut(3 + at) {
                    *octet = value;
                }
            }
            if what == 5 {
                step.truncate(5);
                step[2] = 2;
            }
            input.extend(step);
        }
        bodies::pcp(&input);
    }
}

/// Lines of `bodies/control.rs`: each ask, answers of each kind, targets, questions, rule sets.
fn control_seeds() -> Vec<(String, Vec<u8>)> {
    let rules = |rule: &str| format!("version: 3\ndmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n  - {{{rule}}}\n");
    let base = "rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16";
    let mapping = r#"{"protocol":"udp","inside":"192.168.1.2:4000","outside":"192.0.2.18:1232","remote":null,"origin":"own","state":"answered","idle":0.3,"expires-in":299.7}"#;
    let event = r#"{"at":"2026-11-23T00:00:00Z","event":"ended","why":"expired","protocol":"tcp","inside":"192.168.1.2:4000","outside":"192.0.2.18:1232","remote":"198.51.100.2:443"}"#;
    let seeds: [(&str, String); 22] = [
        ("mappings", r#"{"mapt":1,"ask":{"mappings":{}}}"#.into()),
        ("filter", r#"{"mapt":1,"ask":{"mappings":{"protocol":"tcp","inside":"192.168.1.2:4000","outside-port":1232,"remote":"198.51.100.2"}}}"#.into()),
        ("events", r#"{"mapt":1,"ask":{"events":{"protocol":"icmp"}}}"#.into()),
        ("prepare", r#"{"mapt":1,"ask":{"prepare":{"octets":100,"force":true,"confirm-within":300}}}"#.into()),
        ("commit", "{\"mapt\":1,\"ask\":\"commit\"}\n{\"mapt\":1,\"ask\":\"revert\"}\n".into()),
        ("confirm", r#"{"mapt":1,"ask":"confirm"}"#.into()),
        ("version", r#"{"mapt":2,"ask":"weather"}"#.into()),
        ("unknown", r#"{"mapt":1,"ask":"weather","more":[]}"#.into()),
        ("row", format!("{{\"row\":{mapping}}}")),
        ("event", format!("{{\"row\":{event}}}")),
        ("done", r#"{"done":[{"protocol":"icmp","ports":252,"in-use":1,"shared":0,"flows":1}]}"#.into()),
        ("error", r#"{"error":"no request: EOF"}"#.into()),
        ("prepared", r#"{"done":{"role":"br","instance":"br","before":{"version":1,"date":null},"after":{"version":2,"date":"2026-11-22T00:00:00Z"},"same":false,"rules":{"added":1,"removed":0,"changed":0,"customers":0,"names":["+a"]},"routes":{"added":1,"removed":0,"changed":0},"notes":[],"took":1.5}}"#.into()),
        ("committed", r#"{"done":{"version":{"version":2,"date":null},"mappings-kept":null,"mappings-purged":3,"confirm-until":"2026-11-23T00:00:00Z","took":0.2}}"#.into()),
        ("targets", "/run/mapt/br.sock\nssh://root@br1:2222/run/x.sock\nssh://[2001:db8::7]\nssh://-x\n".into()),
        ("questions", "192.0.2.18:1232\n2026-11-05T10:00:00Z 192.0.2.18:80 spam\n2001:db8:12:34ab::1\n2001:db8:9002::1\n203.0.113.64\n# x\n".into()),
        ("commas", "2026-11-05T10:00:00+01:00,192.0.2.300:1,x\n2026-11-05T10:00:00Z\n2001:db8:ffff::c000:201\n".into()),
        ("rules-shared", rules(&format!("name: a, {base}, psid-offset: 4, forwarding: true"))),
        ("rules-quoted", rules(&format!("name: 'a \"b\\c: {{}}#', {base}"))),
        ("rules-psid", rules("rule-ipv6-prefix: 2001:db8:99::/48, rule-ipv4-prefix: 198.51.100.7/32, ea-len: 0, psid-len: 8, psid: 52")),
        ("rules-prefix", rules("rule-ipv6-prefix: 2001:db8::/48, rule-ipv4-prefix: 192.0.3.0/28, ea-len: 2, dmr-ipv6-prefix: 64:ff9b::/96")),
        ("rules-none", "rules: []\nversion: 0xff\ndate: 1990-12-31T23:59:60Z\n".into()),
    ];
    seeds.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}
