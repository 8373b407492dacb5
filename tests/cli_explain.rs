//! `mapt translate --explain`: the numbers are those of RFC 7597 Appendix A, computed by hand.
//!
//! Rule 2001:db8::/40, 192.0.2.0/24, 16 EA bits, a = 6, so k = 8 and m = 2. End-user prefix 2001:db8:12:3400::/56: EA
//! bits 0x1234, that is suffix 0x12 = 18 and PSID 0x34 = 52. Port 1232 = 000001 00110100 00 is PSID 52, port
//! 1300 = 000001 01000101 00 is PSID 69 = 0x45.

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::*;
use mapt::verdict::DropReason;
use serde_json::Value;

const MAP: &str = "2001:db8:12:3400:0:c000:212:34";
/// 10.2.3.4 behind 2001:db8:ffff::/64 (RFC 6052 §2.2: bits 72-103).
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";
/// A neighbour: 192.0.2.33, PSID 0x45, port 1300 its own.
const NEIGHBOUR: &str = "2001:db8:21:4500:0:c000:221:45";

const RULES: &str = "{dmr-ipv6-prefix: 2001:db8:ffff::/64, rules: [{name: metro-east, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16, forwarding: true}]}";

/// A configuration in a directory of its own, gone at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, config: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("mapt-explain-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("mapt.yaml"), config).unwrap();
        Dir(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn translate(dir: &Dir, args: &[&str], input: &str) -> Output {
    let config = dir.path("mapt.yaml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_mapt"))
        .args(["translate", "--config", &config, "--seed", "5", "--explain"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It answers while it reads: neither pipe may fill up.
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn br(more: &str) -> String {
    format!("role: br\nrules: {RULES}\n{more}")
}

fn ce(more: &str) -> String {
    format!("role: ce\nrules: {RULES}\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\n{more}")
}

/// Verdict or reason, and the sentences, of each packet.
fn explained(config: &str, packets: &[Vec<u8>]) -> Vec<(String, Vec<String>)> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let dir = Dir::new(&NEXT.fetch_add(1, Ordering::Relaxed).to_string(), config);
    let input: Vec<String> = packets.iter().map(|packet| hex(packet)).collect();
    let output = translate(&dir, &["--json"], &input.join("\n"));
    let lines: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), packets.len());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (lines.iter())
        .map(|line| {
            let word = if line["reason"].is_null() { &line["verdict"] } else { &line["reason"] };
            (text(word), line["explain"].as_array().unwrap().iter().map(text).collect())
        })
        .collect()
}

/// The last packet ends as expected, and each of these stands in some sentence about it.
fn says(config: &str, packets: &[Vec<u8>], ends: &str, parts: &[&str]) {
    let all = explained(config, packets);
    let (word, lines) = all.last().unwrap();
    assert_eq!(word, ends, "{lines:#?}");
    for part in parts {
        assert!(lines.iter().any(|line| line.contains(part)), "no sentence has {part:?}: {lines:#?}");
    }
}

#[test]
fn a_br_from_a_customer() {
    says(
        &br(""),
        &[udp6(MAP, 1235, SERVER, 80, b"to the server")],
        "forward",
        &[
            "IPv6, 61 octets, UDP from [2001:db8:12:3400:0:c000:212:34]:1235 to [2001:db8:ffff:0:a:203:400:0]:80, hop limit 64",
            "RFC 7599 §8.3",
            "lies in rule `metro-east` (2001:db8::/40, 192.0.2.0/24, 16 EA bits)",
            "EA bits 40-55 are 0x1234: IPv4 suffix 18 (8 bits) and PSID 52 (0x34, 8 bits), so IPv4 address 192.0.2.18",
            "port 1235 is A 1 (6 bits) | PSID 52 (8 bits) | 3 (2 bits): it belongs to PSID 52 (0x34)",
            "for 192.0.2.18 and PSID 52 (0x34) the rule writes the MAP address 2001:db8:12:3400:0:c000:212:34: the same",
            "lies in the DMR 2001:db8:ffff::/64 and stands for 10.2.3.4",
            "out: IPv4, 41 octets, UDP from 192.0.2.18:1235 to 10.2.3.4:80, TTL 64",
        ],
    );
}

#[test]
fn a_br_to_a_customer() {
    says(
        &br(""),
        &[udp4("10.2.3.4", 80, "192.0.2.18", 2257, b"to the home")],
        "forward",
        &[
            "RFC 7599 §8.4",
            "192.0.2.18 lies in rule `metro-east` (2001:db8::/40, 192.0.2.0/24, 16 EA bits)",
            // 2257 = 000010 00110100 01
            "port 2257 is A 2 (6 bits) | PSID 52 (8 bits) | 1 (2 bits): it belongs to PSID 52 (0x34)",
            "the rule writes the MAP address 2001:db8:12:3400:0:c000:212:34 (EA bits 40-55 are 0x1234",
            "for the source, the DMR 2001:db8:ffff::/64 embeds 10.2.3.4 as 2001:db8:ffff:0:a:203:400:0",
            "out: IPv6, 59 octets, UDP from [2001:db8:ffff:0:a:203:400:0]:80 to [2001:db8:12:3400:0:c000:212:34]:2257",
        ],
    );
}

/// An echo has one identifier, and it is the port.
#[test]
fn an_echo_and_its_identifier() {
    says(
        &br(""),
        &[echo6(MAP, SERVER, 3281, true, b"ping")],
        "forward",
        // 3281 = 000011 00110100 01
        &[
            "ICMPv6 echo request with identifier 3281",
            "identifier 3281 is A 3 (6 bits) | PSID 52 (8 bits) | 1 (2 bits)",
            "out: IPv4, 32 octets, ICMPv4 echo request with identifier 3281 from 192.0.2.18 to 10.2.3.4",
        ],
    );
}

/// The port of the packet in error says whose it is, not that of the error, which has none.
#[test]
fn an_error_and_what_it_quotes() {
    let quoted = udp4("192.0.2.18", 1233, "10.2.3.4", 443, b"lost");
    says(
        &br(""),
        &[icmp4("10.9.9.9", "192.0.2.18", 11, 0, [0; 4], &quoted)],
        "forward",
        &[
            "ICMPv4 type 11 code 0 (TTL exceeded) from 10.9.9.9 to 192.0.2.18, TTL 64, DF set; it quotes: IPv4, 32 octets, UDP from 192.0.2.18:1233 to 10.2.3.4:443",
            "the packet in error came from 192.0.2.18, and its source port says from which customer",
            "port 1233 is A 1 (6 bits) | PSID 52 (8 bits) | 1 (2 bits)",
            "for the source, the DMR 2001:db8:ffff::/64 embeds 10.9.9.9",
            "for the destination of the packet in error, the DMR 2001:db8:ffff::/64 embeds 10.2.3.4",
        ],
    );
    let quoted = udp6(SERVER, 443, MAP, 1234, b"lost");
    says(
        &br(""),
        &[icmp6("2001:db9::1", SERVER, 2, 0, [0, 0, 5, 0], &quoted)],
        "forward",
        &[
            "ICMPv6 type 2 code 0 (packet too big)",
            "MTU 1280; it quotes: IPv6, 52 octets, UDP from [2001:db8:ffff:0:a:203:400:0]:443",
            "the packet in error was on its way to 2001:db8:12:3400:0:c000:212:34, so that address and its port are checked",
            "port 1234 is A 1 (6 bits) | PSID 52 (8 bits) | 2 (2 bits)",
            "2001:db9::1, which reports, has no IPv4 address",
            "out: IPv4, 60 octets, ICMPv4 type 3 code 4 (fragmentation needed) from 192.0.0.8 to 10.2.3.4",
            "MTU 1260",
        ],
    );
}

#[test]
fn a_ce_out_of_the_home_and_back() {
    let out = udp4("192.168.1.2", 5000, "10.2.3.4", 53, b"query");
    let first = explained(&ce(""), std::slice::from_ref(&out));
    let (word, lines) = &first[0];
    assert_eq!(word, "forward");
    // The port is drawn; the seed makes it the same for the answer.
    let given = lines.iter().find(|line| line.starts_with("NAPT44 gives")).expect("a NAPT44 sentence");
    let port: u16 = given.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1232..=64723).contains(&port) && (port - 1232) % 1024 < 4, "{port}");
    let outside = format!("NAPT44 gives 192.168.1.2 port 5000 the outside address 192.0.2.18 port {port}");
    let split = format!("port {port} is A {} (6 bits) | PSID 52 (8 bits) | {} (2 bits)", port / 1024, port % 4);
    says(
        &ce(""),
        std::slice::from_ref(&out),
        "forward",
        &[
            "RFC 7599 §8.1",
            "this CE has PSID 52 (0x34) of 192.0.2.18: 1232-1235, 2256-2259, 3280-3283, 4304-4307, … (252 ports in 63 ranges)",
            &outside,
            &split,
            "192.0.2.18 has the MAP address 2001:db8:12:3400:0:c000:212:34 by the Basic Mapping Rule `metro-east`",
            "no forwarding rule has 10.2.3.4 port 53: the DMR 2001:db8:ffff::/64 embeds 10.2.3.4 as 2001:db8:ffff:0:a:203:400:0",
        ],
    );
    let mapping = format!("NAPT44 has a mapping of 192.0.2.18 port {port} to 192.168.1.2 port 5000");
    says(
        &ce(""),
        &[out, udp6(SERVER, 53, MAP, port, b"answer")],
        "forward",
        &[
            "RFC 7599 §8.2",
            "2001:db8:12:3400:0:c000:212:34 is the MAP address of 192.0.2.18, which is this CE's",
            "2001:db8:ffff:0:a:203:400:0 lies in the DMR 2001:db8:ffff::/64 and stands for 10.2.3.4",
            &split,
            &mapping,
            "out: IPv4, 34 octets, UDP from 10.2.3.4:53 to 192.168.1.2:5000",
        ],
    );
}

/// Who reports out of a home: the NAPT, or without one the host for which a private router speaks.
#[test]
fn errors_out_of_the_home() {
    // 192.0.2.18 is the whole customer here: EA bits 0x12 behind /40.
    let lost = udp4("10.2.3.4", 443, "192.0.2.18", 5000, b"lost");
    says(
        WHOLE,
        &[icmp4("192.168.1.1", "10.2.3.4", 11, 0, [0; 4], &lost)],
        "forward",
        &[
            "NAPT44 is off: 192.0.2.18 is in 192.0.2.18/32",
            "192.168.1.1, which reports, is not in 192.0.2.18/32: 192.0.2.18 stands for it",
            "192.0.2.18 has the MAP address 2001:db8:12::c000:212:0",
        ],
    );
    let out = udp4("192.168.1.2", 5000, "10.2.3.4", 53, b"query");
    let first = explained(&ce(""), std::slice::from_ref(&out));
    let given = first[0].1.iter().find(|line| line.starts_with("NAPT44 gives")).unwrap();
    let port: u16 = given.rsplit(' ').next().unwrap().parse().unwrap();
    let back = udp4("10.2.3.4", 53, "192.168.1.2", 5000, b"answer");
    let outside = format!("NAPT44 gives 192.168.1.2 port 5000 the outside address 192.0.2.18 port {port}");
    says(
        &ce(""),
        &[out, icmp4("192.168.1.2", "10.2.3.4", 3, 3, [0; 4], &back)],
        "forward",
        &[&outside, "behind NAPT44 whoever reports is 192.0.2.18: so is 192.168.1.2 (RFC 5508 REQ-5)"],
    );
}

/// CE to CE without the BR: 192.0.2.33 and port 1300, PSID 69, lead to 2001:db8:21:4500::/56.
#[test]
fn a_ce_to_a_neighbour() {
    says(
        &ce(""),
        &[udp4("192.168.1.2", 5000, "192.0.2.33", 1300, b"hello")],
        "forward",
        &[
            "the destination 192.0.2.33 lies in the forwarding rule `metro-east`",
            "port 1300 is A 1 (6 bits) | PSID 69 (8 bits) | 0 (2 bits): it belongs to PSID 69 (0x45)",
            "the rule writes the MAP address 2001:db8:21:4500:0:c000:221:45 (EA bits 40-55 are 0x2145",
        ],
    );
}

/// Without --json it is text for people: one paragraph a packet.
#[test]
fn text_for_people() {
    let dir = Dir::new("text", &br(""));
    let input = [
        hex(&udp4("10.2.3.4", 80, "192.0.2.18", 1232, b"one")),
        hex(&udp4("10.2.3.4", 80, "198.51.100.1", 1232, b"two")),
    ];
    let output = translate(&dir, &[], &input.join("\n"));
    let text = String::from_utf8(output.stdout).unwrap();
    let paragraphs: Vec<&str> = text.trim_end().split("\n\n").collect();
    assert_eq!(paragraphs.len(), 2, "{text}");
    assert!(paragraphs[0].starts_with("packet 1: IPv4, 31 octets, UDP from 10.2.3.4:80 to 192.0.2.18:1232"), "{text}");
    assert!(paragraphs[0].contains("\n  forwarded\n  out: IPv6, 51 octets"), "{text}");
    assert!(paragraphs[1].contains("\n  dropped as no-rule: "), "{text}");
    assert!(!text.contains('{'), "{text}");
}

/// What docs/cli.md shows is what the tool says.
#[test]
fn the_example_of_the_manual() {
    let (_, example) = include_str!("../docs/cli.md").split_once("--explain <<< ").unwrap();
    let (input, rest) = example.split_once('\n').unwrap();
    let shown: Vec<&str> = rest.split("\n```").next().unwrap().lines().collect();
    assert!(shown.len() > 8, "{shown:?}");
    let rules = std::fs::read_to_string("config/rules.yaml").unwrap();
    let dir = Dir::new("manual", &std::fs::read_to_string("config/br.yaml").unwrap());
    std::fs::write(dir.path("rules.yaml"), rules).unwrap();
    let output = translate(&dir, &[], input);
    let text = String::from_utf8(output.stdout).unwrap();
    for (said, shown) in text.lines().zip(shown) {
        assert!(said.starts_with(shown.trim_end_matches('…')), "shown: {shown}\nsaid: {said}");
    }
}

/// Captures are explained too, and JSON lines without `--explain` have no such key.
#[test]
fn a_capture() {
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    let dir = Dir::new("capture", &br(""));
    let header = PcapHeader { datalink: pcap_file::DataLink::RAW, ..Default::default() };
    let mut file = PcapWriter::with_header(std::fs::File::create(dir.path("in.pcap")).unwrap(), header).unwrap();
    let packet = udp6(MAP, 1300, SERVER, 80, b"not mine");
    let at = std::time::Duration::from_secs(1_700_000_000);
    file.write_packet(&PcapPacket::new(at, packet.len() as u32, &packet)).unwrap();
    drop(file);
    let output = translate(&dir, &["--pcap", &dir.path("in.pcap")], "");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("port 1300 belongs to PSID 69 (0x45) (End-user prefix 2001:db8:12:4500::/56)"), "{text}");
    let plain = Command::new(env!("CARGO_BIN_EXE_mapt"))
        .args(["translate", "--config", &dir.path("mapt.yaml"), "--pcap", &dir.path("in.pcap")])
        .output()
        .unwrap();
    let line: Value = serde_json::from_slice(&plain.stdout).unwrap();
    assert_eq!(line.get("explain"), None);
}

/// One case for each reason: the configuration, packets of which the last is dropped, what is said.
struct Case {
    reason: &'static str,
    config: String,
    packets: Vec<Vec<u8>>,
    parts: &'static [&'static str],
}

/// A packet with these octets of IPv4 options.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut b = [&packet[..20], options, &packet[20..]].concat();
    let len = b.len() as u16;
    b[2..4].copy_from_slice(&len.to_be_bytes());
    edit4(b, |b| b[0] = 0x45 + (options.len() / 4) as u8)
}

/// A packet with an extension header `number` of 8 octets, the last seven given, in front of its transport header.
fn with_extension(packet: &[u8], number: u8, rest: [u8; 7]) -> Vec<u8> {
    let mut b = [&packet[..40], &[packet[6]], &rest, &packet[40..]].concat();
    b[6] = number;
    let len = (b.len() - 40) as u16;
    b[4..6].copy_from_slice(&len.to_be_bytes());
    b
}

fn fragment4(packet: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    edit4(packet, |b| b[6..8].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes()))
}

/// A first fragment to this port, with 16 octets of payload and Identification 9.
fn first_of(port: u16) -> Vec<u8> {
    edit4(fragment4(udp4("10.2.3.4", 80, "192.0.2.18", port, b"sixteen octets.."), 0, true), |b| b[5] = 9)
}

/// Later fragments speak for the ports of their first one; early ones are held.
#[test]
fn fragments_of_one_packet() {
    let later = edit4(fragment4(udp4("10.2.3.4", 80, "192.0.2.18", 9, b"sixteen octets.."), 24, false), |b| b[5] = 9);
    let all = explained(&br(""), &[later.clone(), first_of(1234), later]);
    let words: Vec<&str> = all.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words, ["held", "forward", "forward"]);
    assert!(all[0].1.iter().any(|line| line.contains("nothing here says its port")), "{all:#?}");
    assert!(all[0].1.iter().any(|line| line.contains("in 2 s (`fragments.lifetime`)")), "{all:#?}");
    assert!(all[1].1.iter().any(|line| line.starts_with("forwarded; 2 packets leave")), "{all:#?}");
    // 1234 = 000001 00110100 10
    let split = "port 1234 is A 1 (6 bits) | PSID 52 (8 bits) | 2 (2 bits): it belongs to PSID 52 (0x34)".to_owned();
    assert!(all[1].1.contains(&split) && all[2].1.contains(&split), "{all:#?}");
}

/// A packet of another protocol, from IPv4.
fn other4(protocol: u8, src: &str, dst: &str) -> Vec<u8> {
    edit4(udp4(src, 80, dst, 1232, b"payload!"), |b| b[9] = protocol)
}

const ONE_TO_ONE: &str = "role: br\nrules: {dmr-ipv6-prefix: 2001:db8:ffff::/64, rules: [{name: one, rule-ipv6-prefix: 2001:db8:1::/48, rule-ipv4-prefix: 192.0.2.18/32, ea-len: 0, psid-len: 4, psid: 3}, {name: two, rule-ipv6-prefix: 2001:db8:2::/48, rule-ipv4-prefix: 192.0.2.18/32, ea-len: 0, psid-len: 4, psid: 5}]}\n";
const HUB: &str = "role: ce\nrules: {dmr-ipv6-prefix: 2001:db8:ffff::/64, rules: [{name: hub, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16}]}\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\n";
const WHOLE: &str = "role: ce\nrules: {dmr-ipv6-prefix: 2001:db8:ffff::/64, rules: [{name: whole, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 8}]}\nend-user-ipv6-prefix: 2001:db8:12::/48\nnapt: {enabled: false}\n";
const WELL_KNOWN: &str = "role: br\nrules: {dmr-ipv6-prefix: '64:ff9b::/96', rules: [{name: metro-east, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16}]}\nicmp: {ipv6-source: '2001:db8:ffff::1'}\n";
/// 16 PSID bits and no offset: one port a customer. EA bits 0x12 and 0x3400.
const ONE_PORT: &str = "role: ce\nrules: {dmr-ipv6-prefix: 2001:db8:ffff::/64, rules: [{name: tiny, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 24, psid-offset: 0}]}\nend-user-ipv6-prefix: 2001:db8:12:3400::/64\n";

fn cases() -> Vec<Case> {
    let case =
        |reason, config: String, packets: &[Vec<u8>], parts| Case { reason, config, packets: packets.to_vec(), parts };
    let to_home = || udp4("10.2.3.4", 80, "192.0.2.18", 1232, b"to the home");
    let to_server = || udp6(MAP, 1232, SERVER, 80, b"to the server");
    let inner_error = icmp4("10.2.3.4", "192.0.2.18", 3, 1, [0; 4], &udp4("192.0.2.18", 1232, "10.2.3.4", 80, b"lost"));
    let quoted = udp4("192.0.2.18", 1232, "10.2.3.4", 80, b"lost");
    vec![
        case(
            "not-ip",
            br(""),
            &[vec![0x50, 1, 2]],
            &["version 4 or 6 in its first four bits: its first octet is 0x50"],
        ),
        case(
            "header-truncated",
            br(""),
            &[to_home()[..30].to_vec()],
            &["the 39 octets that its header announces: 30 are there"],
        ),
        case(
            "length-mismatch",
            br(""),
            // 11 octets of payload and the UDP header are 19.
            &[{
                let mut b = to_home();
                b[24..26].copy_from_slice(&77u16.to_be_bytes());
                b
            }],
            &["a UDP length from 8 to the 19 octets behind the IP header: it says 77"],
        ),
        case(
            "ipv4-header-checksum",
            br(""),
            // 4500 0027 0000 4000 4011 0a02 0304 c000 0212 sum up to 0x19450, folded 0x9451; complement 0x6bae.
            &[{
                let mut b = to_home();
                b[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
                b[10..12].copy_from_slice(&[0xab, 0xcd]);
                b
            }],
            &["the header checksum 0x6bae: it has 0xabcd"],
        ),
        case(
            "source-illegal",
            br(""),
            &[udp4("127.0.0.1", 80, "192.0.2.18", 1232, b"x")],
            &["a source that one host can have: 127.0.0.1 is loopback"],
        ),
        case(
            "destination-illegal",
            br(""),
            &[udp4("10.2.3.4", 80, "224.0.0.5", 1232, b"x")],
            &["a destination that one host can have: 224.0.0.5 is multicast"],
        ),
        case(
            "source-route",
            br(""),
            &[with_options(&to_home(), &[1, 131, 7, 4, 10, 0, 0, 1])],
            &[
                "a loose source route that is used up (pointer above its length): pointer 4, length 7",
                "type 3 code 5 (source route failed)",
            ],
        ),
        case(
            "routing-header",
            br(""),
            &[with_extension(&to_server(), 43, [0, 0, 2, 0, 0, 0, 0])],
            &["octet 43 says 2", "answered: IPv6", "type 4 code 0 (erroneous header field)", "pointer 43"],
        ),
        case(
            "extension-header",
            br(""),
            &[with_extension(&with_extension(&to_server(), 60, [0, 1, 4, 0, 0, 0, 0]), 44, [0, 0, 0, 0, 0, 0, 9])],
            &["its chain is a Fragment header, a Destination Options header, UDP"],
        ),
        case(
            "fragment-without-port",
            br("fragments: {packets: 0}\n"),
            &[fragment4(to_home(), 1480, false)],
            &["a later piece of UDP", "(this one has offset 1480)", "`fragments.packets` is 0"],
        ),
        case(
            "fragment-overlap",
            br(""),
            // Two first ones of one packet with different ports.
            &[first_of(1232), first_of(1233)],
            &["first fragment 9 at offset 0", "a place behind the end of the first fragment"],
        ),
        case(
            "fragment-table-full",
            br("fragments: {packets: 64, held-octets: 512}\n"),
            &[fragment4(udp4("10.2.3.4", 80, "192.0.2.18", 1232, &[7; 1392]), 1400, false)],
            &["last fragment 0 at offset 1400", "`fragments.packets` is 64, `fragments.held-octets` 512"],
        ),
        case(
            "fragmented-icmp",
            br(""),
            &[fragment4(echo4("10.2.3.4", "192.0.2.18", 1232, true, b"12345678"), 0, true)],
            &["to be whole: nobody translates a fragment of ICMP"],
        ),
        case(
            "fragment-illegal",
            br(""),
            // 11 octets and a UDP header: 19.
            &[fragment4(to_home(), 0, true)],
            &["a multiple of 8 octets, as more fragments follow: it has 19"],
        ),
        case(
            "protocol-without-port",
            br(""),
            &[other4(47, "10.2.3.4", "192.0.2.18")],
            &["GRE has no port, and 192.0.2.18 belongs to 256 customers", "type 3 code 13"],
        ),
        case(
            "protocol-illegal",
            br(""),
            &[other4(58, "10.2.3.4", "192.0.2.18")],
            &["number 58 is ICMPv6, which means something in IPv6 alone"],
        ),
        case(
            "icmp-type",
            br(""),
            &[icmp4("10.2.3.4", "192.0.2.18", 5, 1, [10, 0, 0, 1], &quoted)],
            &["RFC 7915 §4.2", "ICMPv4 type 5 code 1 (redirect) has no counterpart"],
        ),
        case(
            "icmp-checksum",
            br(""),
            &[{
                let mut b = icmp4("10.2.3.4", "192.0.2.18", 3, 1, [0; 4], &quoted);
                b[22] ^= 0xff;
                b
            }],
            &["the ICMP checksum 0x"],
        ),
        case(
            "icmp-inner",
            br(""),
            &[icmp4("10.9.9.9", "192.0.2.18", 11, 0, [0; 4], &inner_error)],
            &["it quotes an ICMPv4 type 3 code 1 (host unreachable), and no error is sent about ICMP"],
        ),
        case(
            "udp-checksum-zero",
            br("udp-zero-checksum: drop\n"),
            &[{
                let mut b = to_home();
                b[26..28].copy_from_slice(&[0, 0]);
                b
            }],
            &["UDP without checksum", "`udp-zero-checksum: compute` in the configuration, which says `drop`"],
        ),
        case(
            "too-big",
            br("mtu: {ipv6: 1400}\n"),
            // 1400 octets of payload, 8 of UDP, 20 of IPv4: 1428.
            &[edit4(udp4("10.2.3.4", 80, "192.0.2.18", 1232, &[7; 1400]), |b| b[6] = 0x40)],
            &[
                "at most 1380 octets, or DF clear: 1428 and 20 that IPv6 is longer are 1448, above the IPv6 next hop's 1400",
                "MTU 1380",
            ],
        ),
        case(
            "too-long-for-ipv4",
            br(""),
            &[udp6(MAP, 1232, SERVER, 80, &[7; 65_520])],
            // 65,520 and 8 of UDP.
            &["65528 and 20 of an IPv4 header are 65548, above 65535"],
        ),
        case(
            "hop-limit",
            br("decrement-hop-limit: true\n"),
            &[edit4(to_home(), |b| b[8] = 1)],
            &["a TTL of at least 2: it has 1", "type 11 code 0 (TTL exceeded)"],
        ),
        case(
            "no-rule",
            br(""),
            &[udp4("10.2.3.4", 80, "198.51.100.1", 1232, b"x")],
            &[
                "no Rule IPv4 prefix covers 198.51.100.1",
                "a rule whose prefix covers 198.51.100.1; the only one is rule `metro-east` (2001:db8::/40, 192.0.2.0/24",
            ],
        ),
        case(
            "port-excluded",
            br(""),
            &[udp4("10.2.3.4", 5000, "192.0.2.18", 80, b"x")],
            // 80 = 000000 00010100 00
            &[
                "port 80 is A 0 (6 bits) | PSID 20 (8 bits) | 0 (2 bits): A is 0, and nobody owns 0-1023",
                "a port from 1024 on: PSID offset 6 of rule `metro-east` keeps 0-1023 of 192.0.2.18 from everyone, and it has 80",
            ],
        ),
        case(
            "psid-unassigned",
            ONE_TO_ONE.into(),
            // a = 6, k = 4, m = 6: 1600 = 000001 1001 000000 is PSID 9.
            &[udp4("10.2.3.4", 80, "192.0.2.18", 1600, b"x")],
            &[
                "PSID 9 (4 bits)",
                "a rule that assigns PSID 9 (0x9) of 192.0.2.18; those for this prefix assign PSID 3, 5",
            ],
        ),
        case(
            "port-outside-set",
            br(""),
            &[udp6(MAP, 1300, SERVER, 80, b"not mine")],
            &[
                "port 1300 is A 1 (6 bits) | PSID 69 (8 bits) | 0 (2 bits): it belongs to PSID 69 (0x45)",
                "port 1232-1235, 2256-2259, 3280-3283, 4304-4307, … (252 ports in 63 ranges), which PSID 52 (0x34) of 192.0.2.18 owns",
                "port 1300 belongs to PSID 69 (0x45) (End-user prefix 2001:db8:12:4500::/56)",
                "answered: IPv6, 104 octets, ICMPv6 type 1 code 5 (source address failed ingress/egress policy)",
            ],
        ),
        case(
            "destination-port-outside-set",
            ce(""),
            &[udp6(SERVER, 80, MAP, 1300, b"not mine")],
            &[
                "port 1232-1235, 2256-2259, 3280-3283, 4304-4307, … (252 ports in 63 ranges) of this CE (PSID 52 (0x34))",
                "port 1300 belongs to PSID 69 (0x45) (End-user prefix 2001:db8:12:4500::/56)",
                "not answered: no ICMPv6 error belongs to this reason",
            ],
        ),
        case(
            "source-not-ours",
            WHOLE.into(),
            &[udp4("192.0.2.19", 5000, "10.2.3.4", 53, b"x")],
            &[
                "NAPT44 is off: 192.0.2.19 is not in 192.0.2.18/32",
                "a source in 192.0.2.18/32 of this customer, or NAPT44",
            ],
        ),
        case(
            "source-mismatch",
            br(""),
            // The IPv4 address of the interface id is the neighbour's: 192.0.2.19.
            &[udp6("2001:db8:12:3400:0:c000:213:34", 1232, SERVER, 80, b"x")],
            &[
                "the source 2001:db8:12:3400:0:c000:212:34 that rule `metro-east` writes, not 2001:db8:12:3400:0:c000:213:34",
                "the IPv4 address of the interface id (bits 80-111) is 192.0.2.19 instead of 192.0.2.18",
            ],
        ),
        case(
            "destination-not-ours",
            br(""),
            &[udp6(MAP, 1232, "2001:db9::1", 80, b"x")],
            &["a destination in the DMR 2001:db8:ffff::/64: 2001:db9::1 is none of ours"],
        ),
        case(
            "source-not-map",
            HUB.into(),
            &[udp6(NEIGHBOUR, 1300, MAP, 1232, b"x")],
            &["a source in the DMR 2001:db8:ffff::/64, or `forwarding: true` in rule `hub`"],
        ),
        case(
            "address-not-global",
            WELL_KNOWN.into(),
            &[udp6(MAP, 1232, "64:ff9b::10.2.3.4", 80, b"x")],
            &["64:ff9b::/96 may not carry 10.2.3.4"],
        ),
        case(
            "unprovisioned",
            format!("role: ce\nrules: {RULES}\n"),
            &[udp4("192.168.1.2", 5000, "10.2.3.4", 53, b"x")],
            &["an End-user prefix: the configuration has no `end-user-ipv6-prefix`"],
        ),
        case(
            "napt-no-mapping",
            ce(""),
            &[udp6(SERVER, 80, MAP, 1234, b"x")],
            &[
                "NAPT44 is asked for the mapping of 192.0.2.18 port 1234",
                "a UDP packet out of the home before it, that got 192.0.2.18 port 1234, and not longer ago than 300 s",
            ],
        ),
        case(
            "napt-filtered",
            ONE_PORT.into(),
            &[
                udp4("192.168.1.2", 5000, "10.2.3.4", 53, b"x"),
                udp6("2001:db8:ffff:0:a:203:500:0", 80, "2001:db8:12:3400:0:c000:212:3400", 13_312, b"x"),
            ],
            &[
                "a UDP packet of the home to 10.2.3.5 port 80 before it, from the inside endpoint that has port 13312, not longer ago than 300 s",
                "another `napt.filtering`",
            ],
        ),
        case(
            "napt-exhausted",
            ONE_PORT.into(),
            &[udp4("192.168.1.2", 5000, "10.2.3.4", 53, b"x"), udp4("192.168.1.3", 5001, "10.2.3.4", 53, b"x")],
            // PSID 0x3400 = 13312 of 16 bits is the port itself.
            &[
                "this CE has PSID 13312 (0x3400) of 192.0.2.18: 13312 (1 port)",
                "a free port out of the 1 of PSID 13312 (0x3400) for UDP: each is in use, and comes back 300 s after its last packet",
            ],
        ),
        case(
            "napt-unsupported",
            ce(""),
            &[other4(47, "192.168.1.2", "10.2.3.4")],
            &["GRE has no port that NAPT44 could translate"],
        ),
    ]
}

/// Reasons that hex lines cannot provoke.
const NOT_HERE: &[(&str, &str)] = &[
    ("offload-mismatch", "only a device sends virtio headers"),
    ("fragment-timeout", "it ends an input that was answered as held long before"),
];

#[test]
fn every_reason_is_explained() {
    let cases = cases();
    for Case { reason, config, packets, parts } in &cases {
        says(config, packets, reason, parts);
        let explained = explained(config, packets);
        let (_, lines) = explained.last().unwrap();
        let dropped = DropReason::ALL.iter().find(|known| known.name() == *reason).expect("a known reason");
        let sentence = format!("dropped as {reason}: {} ({})", dropped.sentence(), dropped.section());
        assert!(lines.contains(&sentence), "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("to pass it would have needed ")).count(), 1);
        assert_eq!(lines.iter().filter(|line| line.contains("answered")).count(), 1, "{lines:#?}");
    }
    let shown: BTreeSet<&str> =
        cases.iter().map(|case| case.reason).chain(NOT_HERE.iter().map(|(reason, _)| *reason)).collect();
    let missing: Vec<&str> =
        DropReason::ALL.iter().map(|reason| reason.name()).filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "no case here explains {missing:?}: add one to `cases`, or say in NOT_HERE why not");
}

/// The other reading of some reasons: the other direction, the other role, an ICMP error.
#[test]
fn other_ways_to_the_same_reason() {
    let lost = udp4("10.2.3.4", 443, "192.168.1.2", 5000, b"nobody's");
    for Case { reason, config, packets, parts } in [
        Case {
            reason: "udp-checksum-zero",
            config: br(""),
            packets: vec![{
                let mut b = udp6(MAP, 1232, SERVER, 80, b"x");
                b[46..48].copy_from_slice(&[0, 0]);
                b
            }],
            parts: &["a UDP checksum, which IPv6 demands"],
        },
        Case {
            reason: "too-big",
            config: br("mtu: {ipv4: 1300}\n"),
            packets: vec![udp6(MAP, 1232, SERVER, 80, &[7; 1300])],
            parts: &["as IPv4 it has 1328, above the IPv4 next hop's 1300", "MTU 1320"],
        },
        Case {
            reason: "no-rule",
            config: br(""),
            packets: vec![udp6("2001:dc8::1", 1232, SERVER, 80, b"x")],
            parts: &["no Rule IPv6 prefix covers 2001:dc8::1", "the only one is rule `metro-east`"],
        },
        Case {
            reason: "no-rule",
            config: ONE_TO_ONE.into(),
            packets: vec![udp6("2001:db8:3::1", 1232, SERVER, 80, b"x")],
            // 0x0003 has 15 bits in common with 0x0002, 14 with 0x0001.
            parts: &["the nearest are rule `two` (2001:db8:2::/48", ") and rule `one` (2001:db8:1::/48"],
        },
        Case {
            reason: "port-excluded",
            config: br(""),
            packets: vec![echo6(MAP, SERVER, 53, true, b"x")],
            parts: &["an identifier from 1024 on", "and it has 53"],
        },
        Case {
            reason: "port-outside-set",
            config: ce(""),
            packets: vec![udp6(NEIGHBOUR, 1301 + 4, MAP, 1232, b"x")],
            // 1305 = 000001 01000110 01 is PSID 70; the neighbour has 69.
            parts: &[
                "which PSID 69 (0x45) of 192.0.2.33 owns",
                "port 1305 belongs to PSID 70 (0x46) (End-user prefix 2001:db8:21:4600::/56)",
            ],
        },
        Case {
            reason: "destination-not-ours",
            config: ce(""),
            packets: vec![udp6(SERVER, 80, NEIGHBOUR, 1300, b"x")],
            parts: &[
                "the destination 2001:db8:12:3400:0:c000:212:34, this CE's MAP address: it is 2001:db8:21:4500:0:c000:221:45",
            ],
        },
        Case {
            reason: "source-mismatch",
            config: br(""),
            packets: vec![udp6("2001:db8:12:3407:1:c000:212:35", 1232, SERVER, 80, b"x")],
            parts: &[
                "the subnet id (bits 56-63) is 0x7 instead of 0x0",
                "the first 16 bits of the interface id (bits 64-79) is 0x1 instead of 0x0",
                "the PSID of the interface id (bits 112-127) is 0x35 instead of 0x34",
            ],
        },
        Case {
            reason: "napt-no-mapping",
            config: ce(""),
            packets: vec![icmp4("192.168.1.2", "10.2.3.4", 3, 3, [0; 4], &lost)],
            parts: &["a UDP packet of 192.168.1.2 port 5000 before it, not longer ago than 300 s"],
        },
        Case {
            reason: "icmp-inner",
            config: br(""),
            packets: vec![icmp6("2001:db9::1", SERVER, 1, 0, [0; 4], &[0x60, 0, 0])],
            parts: &["it quotes 3 of at least 40 octets of an IP header"],
        },
    ] {
        says(&config, &packets, reason, parts);
    }
}

/// The right checksum that is named is the one that the packet had.
#[test]
fn a_right_checksum_is_named() {
    let good = icmp4("10.2.3.4", "192.0.2.18", 3, 1, [0; 4], &udp4("192.0.2.18", 1232, "10.2.3.4", 80, b"lost"));
    let good6 = icmp6(SERVER, MAP, 1, 0, [0; 4], &udp6(MAP, 1232, SERVER, 80, b"lost"));
    for (config, good, at) in [(br(""), good, 22), (ce(""), good6, 42)] {
        let right = u16::from_be_bytes([good[at], good[at + 1]]);
        let mut bad = good;
        bad[at] ^= 0x5a;
        let wrong = u16::from_be_bytes([bad[at], bad[at + 1]]);
        let all = explained(&config, &[bad]);
        assert_eq!(all[0].0, "icmp-checksum");
        let sentence = format!("to pass it would have needed the ICMP checksum {right:#06x}: it has {wrong:#06x}");
        assert!(all[0].1.contains(&sentence), "{all:#?}");
    }
}

/// Broken packets are described as far as they go: every octet changed, every length.
#[test]
fn broken_packets_are_explained_too() {
    let quoted = udp6(SERVER, 443, MAP, 1234, b"lost");
    let from_map = udp6(MAP, 1232, SERVER, 80, b"x");
    let chain = with_extension(&with_extension(&from_map, 60, [0, 1, 4, 0, 0, 0, 0]), 43, [0; 7]);
    let packets = [
        udp4("10.2.3.4", 80, "192.0.2.18", 1232, b"x"),
        with_options(&tcp4("192.168.1.2", 5000, "192.0.2.33", 1300, "S", b"x"), &[1, 131, 7, 4, 10, 0, 0, 1]),
        icmp4("10.9.9.9", "192.0.2.18", 11, 0, [0; 4], &udp4("192.0.2.18", 1233, "10.2.3.4", 443, b"lost")),
        icmp6("2001:db9::1", SERVER, 2, 0, [0, 0, 5, 0], &quoted),
        icmp6(SERVER, MAP, 1, 4, [0; 4], &chain),
        chain,
    ];
    let mut broken = Vec::new();
    for packet in &packets {
        broken.extend((0..packet.len()).map(|len| packet[..len].to_vec()));
        for at in 0..packet.len() {
            for value in [0, 1, 0x2c, 0x80, 0xff] {
                let mut b = packet.clone();
                b[at] = value;
                if b[0] >> 4 == 4 && b[0] & 15 == packet[0] & 15 && at != 10 && at != 11 {
                    b = edit4(b, |_| {});
                }
                broken.push(b);
            }
        }
    }
    broken.retain(|packet| !packet.is_empty());
    for config in [br(""), ce(""), ONE_TO_ONE.into(), WHOLE.into(), WELL_KNOWN.into(), HUB.into()] {
        for (word, lines) in explained(&config, &broken) {
            assert!(lines.len() >= 2 && lines.iter().all(|line| !line.is_empty()), "{word}: {lines:#?}");
        }
    }
}
