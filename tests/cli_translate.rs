//! `mapt translate` as an operator runs it.

mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::*;
use serde_json::{Value, json};

/// A directory with a BR and a CE of RFC 7597 Appendix A, gone at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("mapt-translate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let rules = "dmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n  - name: metro-east\n    rule-ipv6-prefix: 2001:db8::/40\n    rule-ipv4-prefix: 192.0.2.0/24\n    ea-len: 16\n    forwarding: true\n";
        std::fs::write(dir.join("rules.yaml"), rules).unwrap();
        std::fs::write(dir.join("br.yaml"), "role: br\nrules: rules.yaml\n").unwrap();
        let ce = "role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\n";
        std::fs::write(dir.join("ce.yaml"), ce).unwrap();
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

fn mapt(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mapt"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

const MAP: &str = "2001:db8:12:3400:0:c000:212:34";
const SERVER: &str = "2001:db8:ffff:0:a:203:400:0";

#[test]
fn a_br_answers_line_by_line() {
    let dir = Dir::new("br");
    let input = [
        hex(&udp4("10.2.3.4", 80, "192.0.2.18", 1232, b"to the home")),
        format!(r#"{{"at":1.5,"hex":"{}"}}"#, hex(&udp6(MAP, 1235, SERVER, 80, b"to the server"))),
        hex(&udp6(MAP, 1231, SERVER, 80, b"a neighbour's port")),
        hex(&udp4("10.2.3.4", 80, "198.51.100.1", 1232, b"nobody")),
        "00".into(),
    ]
    .join("\n");
    let output = mapt(&["translate", "--config", &dir.path("br.yaml"), "--seed", "1"], &input);
    let lines = lines(&output);
    assert_eq!(lines.len(), 5, "one answer an input");
    let first = unhex(&lines[0]["packets"][0]);
    assert_valid(&first);
    assert_eq!(tuple(&first), (SERVER.into(), 80, MAP.into(), 1232));
    assert_eq!(
        (&lines[0]["n"], &lines[0]["verdict"], &lines[0]["reason"], &lines[0]["rule"], &lines[0]["reply"]),
        (&json!(1), &json!("forward"), &Value::Null, &json!("metro-east"), &Value::Null)
    );
    assert_eq!(tuple(&unhex(&lines[1]["packets"][0])), ("192.0.2.18".into(), 1235, "10.2.3.4".into(), 80));
    assert_eq!((&lines[2]["verdict"], &lines[2]["reason"]), (&json!("drop"), &json!("port-outside-set")));
    assert_eq!(lines[2]["packets"], json!([]));
    assert_eq!(unhex(&lines[2]["reply"])[40..42], [1, 5]);
    assert_eq!((&lines[3]["reason"], &lines[3]["rule"]), (&json!("no-rule"), &Value::Null));
    assert_eq!(lines[4]["reason"], json!("not-ip"));
    let again = mapt(&["translate", "--json", "--config", &dir.path("br.yaml"), "--seed", "1"], &input);
    assert_eq!(output.stdout, again.stdout, "the seed fixes what is random");
}

#[test]
fn a_ce_keeps_a_mapping_until_it_expires() {
    let dir = Dir::new("ce");
    let out = hex(&udp4("192.168.1.2", 5000, "10.2.3.4", 53, b"query"));
    let at = |seconds: f64, hex: &str| format!(r#"{{"at":{seconds},"hex":"{hex}"}}"#);
    let run = |input: &str| lines(&mapt(&["translate", "--config", &dir.path("ce.yaml"), "--seed", "3"], input));
    let first = unhex(&run(&out)[0]["packets"][0]);
    let (src, port, dst, dport) = tuple(&first);
    assert_eq!((src.as_str(), dst.as_str(), dport), (MAP, SERVER, 53));
    // RFC 7597 Appendix A: the ranges of PSID 0x34 start at 1232 and repeat every 1024.
    assert!((1232..=64723).contains(&port) && (port - 1232) % 1024 < 4, "{port}");
    let back = hex(&udp6(SERVER, 53, MAP, port, b"answer"));
    let answers = run(&[at(0.0, &out), at(299.0, &back), at(301.0, &back)].join("\n"));
    let inside = unhex(&answers[1]["packets"][0]);
    assert_valid(&inside);
    assert_eq!(tuple(&inside), ("10.2.3.4".into(), 53, "192.168.1.2".into(), 5000));
    assert_eq!(
        answers[2]["reason"],
        json!("napt-no-mapping"),
        "RFC 4787 REQ-5: five minutes after the last outbound one"
    );
}

#[test]
fn answers_are_limited_only_on_request() {
    let dir = Dir::new("limit");
    let line = hex(&udp6(MAP, 1231, SERVER, 80, b"x"));
    let input = vec![line; 500].join("\n");
    let replies = |extra: &[&str]| {
        let config = dir.path("br.yaml");
        let args = [&["translate", "--config", &config], extra].concat();
        lines(&mapt(&args, &input)).iter().filter(|l| !l["reply"].is_null()).count()
    };
    assert_eq!(replies(&[]), 500);
    let limited = replies(&["--rate-limit"]);
    assert!((1..500).contains(&limited), "{limited}");
}

#[test]
fn a_capture_in_and_a_capture_out() {
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
    use pcap_file::{DataLink, TsResolution};
    let dir = Dir::new("pcap");
    for (datalink, head) in [(DataLink::RAW, vec![]), (DataLink::ETHERNET, [vec![2; 12], vec![0x08, 0x00]].concat())] {
        let header = PcapHeader { datalink, ts_resolution: TsResolution::MicroSecond, ..Default::default() };
        let mut file = PcapWriter::with_header(std::fs::File::create(dir.path("in.pcap")).unwrap(), header).unwrap();
        let at = std::time::Duration::new(1_700_000_000, 5000);
        let packet = [head.clone(), udp4("10.2.3.4", 80, "192.0.2.18", 1232, b"to the home")].concat();
        file.write_packet(&PcapPacket::new(at, packet.len() as u32, &packet)).unwrap();
        if datalink == DataLink::ETHERNET {
            let arp = [vec![2; 12], vec![0x08, 0x06, 0, 1]].concat();
            file.write_packet(&PcapPacket::new(at, arp.len() as u32, &arp)).unwrap();
        }
        drop(file);
        let (input, written) = (dir.path("in.pcap"), dir.path("out.pcap"));
        let config = dir.path("br.yaml");
        let output = mapt(&["translate", "--config", &config, "--pcap", &input, "--write", &written], "");
        let lines = lines(&output);
        assert_eq!(lines.len(), 1);
        let skipped = String::from_utf8_lossy(&output.stderr).contains("1 frames without an IP packet");
        assert_eq!(skipped, datalink == DataLink::ETHERNET);
        let mut out = PcapReader::new(std::fs::File::open(&written).unwrap()).unwrap();
        assert_eq!(out.header().datalink, datalink);
        let frame = out.next_packet().unwrap().unwrap();
        assert_eq!(frame.timestamp, at);
        let packet = &frame.data[head.len()..];
        assert_eq!(hex(packet), lines[0]["packets"][0].as_str().unwrap());
        if !head.is_empty() {
            assert_eq!(frame.data[12..14], [0x86, 0xdd]);
        }
        assert!(out.next_packet().is_none());
    }
}

#[test]
fn what_is_no_packet_is_named() {
    let dir = Dir::new("bad");
    let config = dir.path("br.yaml");
    let good = hex(&udp4("10.2.3.4", 80, "192.0.2.18", 1232, b"x"));
    let output = mapt(&["translate", "--config", &config], &format!("{good}\n45zz\n"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 2"), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1, "what came before is answered");
    let output = mapt(&["translate", "--config", &dir.path("none.yaml")], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.yaml"));
    let output = mapt(&["translate", "--config", &config, "--pcap", &config], "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(mapt(&["translate"], "").status.code(), Some(2));
}

/// An early fragment is held; the first one takes it along; one whose first one never comes is summed at the end.
#[test]
fn held_fragments_leave_with_the_first_one() {
    let dir = Dir::new("held");
    let whole = udp4("10.2.3.4", 53, "192.0.2.18", 1232, &[7; 40]);
    let piece = |id: u16, from: usize, to: usize| {
        let (mut header, payload) = etherparse::Ipv4Header::from_slice(&whole).unwrap();
        header.identification = id;
        header.fragment_offset = etherparse::IpFragOffset::try_new((from / 8) as u16).unwrap();
        header.more_fragments = to < payload.len();
        header.total_len = (20 + to - from) as u16;
        header.header_checksum = header.calc_header_checksum();
        let mut out = Vec::new();
        header.write_raw(&mut out).unwrap();
        out.extend(&payload[from..to]);
        hex(&out)
    };
    let input = [(0.0, piece(1, 24, 48)), (0.5, piece(2, 24, 48)), (1.0, piece(1, 0, 24)), (60.0, piece(3, 24, 48))];
    let input: String = input.iter().map(|(at, hex)| format!("{}\n", json!({"at": at, "hex": hex}))).collect();
    let output = mapt(&["translate", "--config", &dir.path("br.yaml")], &input);
    let answers = lines(&output);
    let verdicts: Vec<&str> = answers.iter().map(|a| a["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["held", "held", "forward", "held"]);
    let packets = answers[2]["packets"].as_array().unwrap();
    let offsets: Vec<u16> = packets.iter().map(|p| u16::from_be_bytes([unhex(p)[42], unhex(p)[43]])).collect();
    assert_eq!(offsets, [1, 24], "the first one with more to come, then the last one");
    assert!(answers[0]["packets"].as_array().unwrap().is_empty());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "2 held packets expired\n");
}
