//! The text of a file of mappings: it comes back as it was, or is refused as a whole with the line that is wrong.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{
    Allowed, Inside, Napt, NaptParams, Origin, Outside, Protocol, Remote, SavedFlow, SavedMapping, SavedState,
};
use mapt::ops::saved::{MAX_LINE, Moment, Owner, parse, write};
use proptest::prelude::*;

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const NOW: Duration = Duration::from_secs(700_000);
const TEXT: &str = "mapt mappings 1
customer 192.0.2.18 psid-offset 6 psid-len 8 psid 52
saved 1790000000 boot 1f0c8a0e-6d5e-4f5e-9d0c-3f8e7a1b2c3d up 86400
tcp 192.168.1.10:40000 1232 203.0.113.7:443 own 1250 - 1e3 4fa2 33 12 4f80
udp 192.168.1.11:5353 2257 203.0.113.9:53 shared 750 1000 0
udp 192.168.1.12:5353 2257 203.0.113.10:53 shared 0 - 2
icmp 192.168.1.12:77 3282 - own 0 -
map tcp 192.168.1.13:80 1233 pcp 5a1e0c3b9d7f2a4466aa01ff 3600000 203.0.113.0/24:0
peer tcp 192.168.1.10:40000 1232 nat-pmp 7200000 203.0.113.7:443
end 6
";

fn set_252() -> PortSet {
    PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap()
}

fn inside(host: u8, port: u16) -> Inside {
    Inside { addr: Ipv4Addr::new(192, 168, 1, host), port }
}

fn remote(host: u8, port: u16) -> Option<Remote> {
    Some(Remote { addr: Ipv4Addr::new(203, 0, 113, host), port })
}

#[test]
fn the_text_of_a_file() {
    let saved = parse(TEXT, 6).unwrap();
    assert_eq!(saved.owner, Owner::new(ADDR, set_252()));
    assert_eq!((saved.at.wall, saved.at.up), (Duration::from_secs(1_790_000_000), Duration::from_secs(86_400)));
    let flow = |protocol, inside, port, remote, shared, numbers, idle, waited: Option<u64>| SavedFlow {
        protocol,
        inside,
        port,
        remote,
        shared,
        state: SavedState::new(numbers).unwrap(),
        idle: Duration::from_millis(idle),
        waited: waited.map(Duration::from_millis),
    };
    let (tcp, udp, icmp) = (Protocol::Tcp, Protocol::Udp, Protocol::Icmp);
    let expected = [
        flow(tcp, inside(10, 40_000), 1232, remote(7, 443), false, [0x1e3, 0x4fa2, 0x33, 0x12, 0x4f80], 1250, None),
        flow(udp, inside(11, 5353), 2257, remote(9, 53), true, [0; 5], 750, Some(1000)),
        flow(udp, inside(12, 5353), 2257, remote(10, 53), true, [2, 0, 0, 0, 0], 0, None),
        flow(icmp, inside(12, 77), 3282, None, false, [0; 5], 0, None),
    ];
    assert_eq!(saved.flows, expected);
    let nonce = [0x5a, 0x1e, 0x0c, 0x3b, 0x9d, 0x7f, 0x2a, 0x44, 0x66, 0xaa, 0x01, 0xff];
    let allowed = Allowed { addr: Ipv4Addr::new(203, 0, 113, 0), prefix_len: 24, port: 0 };
    let map = SavedMapping {
        protocol: tcp,
        inside: inside(13, 80),
        port: 1233,
        remote: None,
        origin: Origin::Pcp(nonce),
        lifetime: Duration::from_secs(3600),
        allowed: vec![allowed],
    };
    let peer = SavedMapping {
        inside: inside(10, 40_000),
        port: 1232,
        remote: remote(7, 443),
        origin: Origin::NatPmp,
        lifetime: Duration::from_secs(7200),
        allowed: vec![],
        ..map.clone()
    };
    assert_eq!(saved.mappings, [map, peer]);
    // Into a NAPT and out of it again.
    let mut napt = Napt::new(ADDR, set_252(), &NaptParams::default(), 3);
    let mut flows = saved.flows;
    let restored = napt.restore(&mut flows, &saved.mappings, Duration::ZERO, NOW);
    assert_eq!((restored.taken, restored.expired, restored.refused, restored.mappings), (4, 0, 0, 2));
    let mut out = Vec::new();
    assert_eq!(write(&mut out, saved.owner, &saved.at, &napt, NOW).unwrap(), 4);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(std::str::from_utf8(&out).unwrap()), sorted(TEXT));
}

#[test]
fn half_a_file_is_none() {
    let whole = TEXT.trim_end();
    for end in 0..whole.len() {
        let error = parse(&whole[..end], 10).expect_err("cut off").to_string();
        assert!(error.starts_with("line "), "{error}");
    }
    assert!(parse(whole, 10).is_ok());
}

#[test]
fn each_error_names_its_line() {
    for (from, to, expected) in [
        ("mappings 1\n", "mappings 2\n", "line 1: `2`: expected the version `1`"),
        (
            "mapt mappings 1",
            "192.0.2.0/24 dev mapt-br",
            "line 1: this is no file of mappings: expected `mapt mappings 1`",
        ),
        ("customer 192.0.2.18", "customer 192.0.2.256", "line 2: `192.0.2.256`: expected an IPv4 address"),
        ("psid-offset 6", "psid-offset 16", "line 2: PSID offset 16 and length 8: expected at most 15 and 16"),
        ("psid 52\n", "psid 52 more\n", "line 2: `more`: expected the end of the line"),
        ("boot 1f0c8a0e", "boot ../..", "line 3: `../..-6d5e-4f5e-9d0c-3f8e7a1b2c3d` is no boot id"),
        ("tcp 192", "sctp 192", "line 4: `sctp` is no protocol: expected tcp, udp, icmp or end"),
        (":40000 1232", ":40000 65536", "line 4: `65536`: expected an outside port"),
        ("own 1250 -", "mine 1250 -", "line 4: `mine`: expected own or shared"),
        ("own 1250 -", "own 604801001 -", "line 4: `604801001` is no time of at most a week, in milliseconds"),
        ("1e3 4fa2", "200 4fa2", "line 4: `200` is no state"),
        ("33 12 4f80", "33 12 100000000", "line 4: `100000000` is no hexadecimal number of 32 bits"),
        ("33 12 4f80", "33 12", "line 4: nothing is no hexadecimal number of 32 bits"),
        ("203.0.113.9:53 shared", "- shared", "line 5: `-`: expected a remote address and port"),
        (
            "3282 - own",
            "3282 10.0.0.1:7 own",
            "line 7: `10.0.0.1:7`: expected the remote endpoint of an echo identifier `-`",
        ),
        (
            "udp 192.168.1.11",
            "udp\u{1b}[2J 192.168.1.11",
            "line 5: `udp\\u{1b}[2J` is no protocol: expected tcp, udp, icmp or end",
        ),
        ("map tcp", "map icmp", "line 8: `icmp`: expected tcp or udp"),
        ("01ff 36", "01f 36", "line 8: `5a1e0c3b9d7f2a4466aa01f` is no nonce of 24 hexadecimal digits"),
        ("pcp 5a", "upnp 5a", "line 8: `upnp`: expected pcp or nat-pmp"),
        (" 3600000 ", " 4294967296001 ", "line 8: 4294967296001 ms: expected a lifetime of at most 2^32 seconds"),
        ("0/24:0", "0/33:0", "line 8: `203.0.113.0/33:0`: expected at most 4 prefixes and ports"),
        ("7200000 203.0.113.7:443", "7200000", "line 9: nothing: expected a remote address and port"),
        ("end 6\n", "end 3\n", "line 10: it says 3 flows and mappings, and there are 6"),
        ("end 6\n", "end 6\nend 6\n", "line 11: expected nothing behind `end`"),
        ("end 6\n", "\n", "line 10: is empty: expected a flow or `end`"),
        ("end 6\n", "", "line 10: the file ends here: expected `end` and the number of flows"),
    ] {
        assert!(TEXT.contains(from), "{from}");
        assert_eq!(parse(&TEXT.replacen(from, to, 1), 6).unwrap_err().to_string(), expected);
    }
    assert_eq!(parse(TEXT, 3).unwrap_err().to_string(), "line 7: expected at most 3 flows and mappings");
    let long = TEXT.replace("end 6", &format!("udp {}", "1".repeat(MAX_LINE)));
    assert_eq!(parse(&long, 9).unwrap_err().to_string(), format!("line 10: is longer than {MAX_LINE} octets"));
}

/// What fits nowhere is counted, and the rest lives.
#[test]
fn flows_that_cannot_be_are_left_out() {
    let line = |text: &str| {
        let head: String = TEXT.lines().take(3).map(|line| format!("{line}\n")).collect();
        let count = text.lines().count();
        parse(&format!("{head}{text}\nend {count}\n"), 10).unwrap().flows
    };
    let first = "tcp 192.168.1.10:40000 1232 203.0.113.7:443 own 1250 - 1e3 1 2 3 4";
    for (second, expected) in [
        ("tcp 192.168.1.10:40001 1233 203.0.113.7:443 own 1250 - 1e3 1 2 3 4", (2, 0, 0)),
        ("tcp 192.168.1.10:40001 1236 203.0.113.7:443 own 1250 - 1e3 1 2 3 4", (1, 0, 1)),
        ("tcp 192.168.1.10:40001 0 203.0.113.7:443 own 1250 - 1e3 1 2 3 4", (1, 0, 1)),
        ("tcp 192.168.1.10:40001 1232 203.0.113.8:443 own 1250 - 1e3 1 2 3 4", (1, 0, 1)),
        ("tcp 192.168.1.10:40001 1232 203.0.113.8:443 shared 1250 - 1e3 1 2 3 4", (1, 0, 1)),
        ("tcp 192.168.1.10:40000 1232 203.0.113.7:443 own 1250 - 1e3 1 2 3 4", (1, 0, 1)),
        ("tcp 192.168.1.10:40000 1233 203.0.113.7:443 shared 1250 - 1e3 1 2 3 4", (1, 0, 1)),
        ("tcp 192.168.1.10:40000 1232 203.0.113.8:443 own 1250 - 1e3 1 2 3 4", (2, 0, 0)),
        ("udp 192.168.1.10:40000 1232 203.0.113.7:443 own 1250 - 1e3", (1, 0, 1)),
        ("tcp 192.168.1.10:40001 1233 203.0.113.7:443 own 7400000 - 1e3 1 2 3 4", (1, 1, 0)),
        ("tcp 192.168.1.10:40001 1233 203.0.113.7:443 own 180000 180000 1 1 2 3 4", (1, 1, 0)),
        ("icmp 192.168.1.10:40001 1232 - own 0 -", (1, 1, 0)),
    ] {
        let mut napt = Napt::new(ADDR, set_252(), &NaptParams::default(), 3);
        let restored = napt.restore(&mut line(&format!("{first}\n{second}")), &[], Duration::from_secs(61), NOW);
        assert_eq!((restored.taken, restored.expired, restored.refused), expected, "{second}");
        // And a NAPT that is at work already takes none.
        let again = napt.restore(&mut line(first), &[], Duration::ZERO, NOW);
        assert_eq!((again.taken, again.refused), (0, 1));
    }
}

/// What hosts had asked for lasts as long as it would have: a port for those it lets in, a flow beyond its idle time.
#[test]
fn what_hosts_had_asked_for() {
    let seconds = Duration::from_secs;
    let restore = |away: u64| {
        let mut saved = parse(TEXT, 6).unwrap();
        let mut napt = Napt::new(ADDR, set_252(), &NaptParams::default(), 3);
        let restored = napt.restore(&mut saved.flows, &saved.mappings, seconds(away), NOW);
        (napt, restored.mappings)
    };
    let knock = |napt: &Napt<Inside>, port, from: Option<Remote>, now| {
        napt.propose_inbound(Protocol::Tcp, Outside { addr: ADDR, port }, from.unwrap(), now).map(|p| p.inside).ok()
    };
    let (mut napt, mappings) = restore(3000);
    assert_eq!(mappings, 2);
    assert_eq!(knock(&napt, 1233, remote(77, 5), NOW), Some(inside(13, 80)));
    let elsewhere = Some(Remote { addr: Ipv4Addr::new(203, 0, 114, 1), port: 5 });
    assert_eq!(knock(&napt, 1233, elsewhere, NOW), None);
    let later = NOW + seconds(601);
    while napt.poll_timeout().is_some_and(|at| at <= later) {
        napt.handle_timeout(later);
    }
    assert_eq!(knock(&napt, 1233, remote(77, 5), later), None, "an hour is over");
    assert_eq!(knock(&napt, 1232, remote(7, 443), later), Some(inside(10, 40_000)));
    assert_eq!(restore(3600).1, 1);
    assert_eq!(restore(7200).1, 0);
}

/// By the machine's own clock while it runs, by the time of day after a reboot; a clock set back tells nothing.
#[test]
fn how_long_nobody_translated() {
    let at = |wall, boot: &str, up| Moment {
        wall: Duration::from_secs(wall),
        boot: boot.into(),
        up: Duration::from_secs(up),
    };
    let saved = at(5000, "a", 100);
    assert_eq!(at(9, "a", 103).since(&saved), Some(Duration::from_secs(3)));
    assert_eq!(at(5007, "b", 20).since(&saved), Some(Duration::from_secs(7)));
    assert_eq!(at(4999, "b", 200).since(&saved), None);
    assert_eq!(at(9000, "a", 99).since(&saved), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_text_makes_it_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..8),
        garbage in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = parse(&String::from_utf8_lossy(&garbage), 5);
        let mut text = TEXT.as_bytes().to_vec();
        for (at, byte, replaces) in edits {
            let at = at.index(text.len());
            if replaces { text[at] = byte } else { text.insert(at, byte) }
        }
        if let Ok(mut saved) = parse(&String::from_utf8_lossy(&text), 5) {
            let mut napt = Napt::new(ADDR, set_252(), &NaptParams::default(), 3);
            let count = saved.flows.len();
            let restored = napt.restore(&mut saved.flows, &saved.mappings, Duration::from_secs(1), NOW);
            prop_assert_eq!(restored.taken + restored.expired + restored.refused, count);
            let live = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].map(|protocol| napt.flows(protocol));
            prop_assert_eq!(live.iter().sum::<usize>(), restored.taken);
        }
    }
}
