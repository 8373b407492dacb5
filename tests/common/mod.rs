//! Packets built and judged by etherparse: software that is not ours.
#![allow(dead_code)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::*;
use mapt::br::{Br, BrParams};
use mapt::ce::{Ce, CeParams};
use mapt::engine::{Engine, TransmitKind};
use mapt::frag::FragParams;
use mapt::map::{EndUserPrefix, Provisioning, Rule, RuleSpec, RuleTable};
use mapt::reply::{IcmpParams, Originate};
use mapt::siit::TranslationParams;
use mapt::verdict::{DropReason, Verdict};
use mapt::wire::PacketBuf;

pub const NOW: Duration = Duration::from_secs(1);

pub fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A rule by its leaves; forwarding, a = 6.
pub fn rule(v6: &str, v4: &str, ea_len: u8) -> RuleSpec {
    RuleSpec {
        name: format!("{v6} {v4}"),
        rule_ipv6_prefix: v6.parse().unwrap(),
        rule_ipv4_prefix: v4.parse().unwrap(),
        ea_len,
        psid_offset: 6,
        psid_len: None,
        psid: None,
        forwarding: true,
        dmr_ipv6_prefix: None,
    }
}

pub fn provisioning(rules: Vec<RuleSpec>, dmr: &str, end_user: Option<&str>) -> Provisioning {
    let rules = rules.into_iter().map(|spec| Rule::new(spec).unwrap()).collect();
    let dmr = mapt::map::Dmr::new(dmr.parse().unwrap()).unwrap();
    Provisioning {
        version: 1,
        date: None,
        table: RuleTable::new(rules, Some(dmr)).unwrap().into(),
        end_user_prefix: end_user.map(|p| EndUserPrefix(p.parse().unwrap())),
    }
}

/// RFC 7597 Appendix A: 192.0.2.18, PSID 0x34.
pub fn appendix_a(end_user: Option<&str>) -> Provisioning {
    provisioning(vec![rule("2001:db8::/40", "192.0.2.0/24", 16)], "2001:db8:ffff::/64", end_user)
}

pub fn icmp_on() -> IcmpParams {
    IcmpParams { originate: Originate::On, ..IcmpParams::default() }
}

/// One bucket: most tests make an engine or two and send a packet.
pub fn small_table() -> FragParams {
    FragParams { packets: 64, held_octets: 128 << 10, ..FragParams::default() }
}

pub fn br_params() -> BrParams {
    BrParams {
        translation: TranslationParams::default(),
        icmp: icmp_on(),
        check_interface_id: true,
        fragments: small_table(),
        seed: 7,
    }
}

pub fn ce_params() -> CeParams {
    CeParams {
        translation: TranslationParams::default(),
        icmp: icmp_on(),
        check_interface_id: true,
        fragments: small_table(),
        rewrite_identification: false,
        napt: true,
        napt_params: Default::default(),
        seed: 7,
    }
}

pub fn br() -> Br {
    Br::new(&appendix_a(None), &br_params())
}

pub fn ce() -> Ce {
    Ce::new(&appendix_a(Some("2001:db8:12:3400::/56")), &ce_params())
}

pub fn udp4(src: &str, sport: u16, dst: &str, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(v4(src).octets(), v4(dst).octets(), 64).udp(sport, dport).write(&mut out, payload).unwrap();
    out
}

pub fn udp6(src: &str, sport: u16, dst: &str, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv6(v6(src).octets(), v6(dst).octets(), 64).udp(sport, dport).write(&mut out, payload).unwrap();
    out
}

pub fn tcp4(src: &str, sport: u16, dst: &str, dport: u16, flags: &str, payload: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(sport, dport, 1000, 4096);
    set_flags(&mut tcp, flags);
    let mut out = Vec::new();
    let ip = PacketBuilder::ipv4(v4(src).octets(), v4(dst).octets(), 64);
    ip.tcp_header(tcp).write(&mut out, payload).unwrap();
    out
}

pub fn tcp6(src: &str, sport: u16, dst: &str, dport: u16, flags: &str, payload: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(sport, dport, 1000, 4096);
    set_flags(&mut tcp, flags);
    let mut out = Vec::new();
    let ip = PacketBuilder::ipv6(v6(src).octets(), v6(dst).octets(), 64);
    ip.tcp_header(tcp).write(&mut out, payload).unwrap();
    out
}

fn set_flags(tcp: &mut TcpHeader, flags: &str) {
    tcp.syn = flags.contains('S');
    tcp.ack = flags.contains('A');
    tcp.fin = flags.contains('F');
    tcp.rst = flags.contains('R');
}

pub fn echo4(src: &str, dst: &str, id: u16, request: bool, payload: &[u8]) -> Vec<u8> {
    let ip = PacketBuilder::ipv4(v4(src).octets(), v4(dst).octets(), 64);
    let mut out = Vec::new();
    match request {
        true => ip.icmpv4_echo_request(id, 9).write(&mut out, payload).unwrap(),
        false => ip.icmpv4_echo_reply(id, 9).write(&mut out, payload).unwrap(),
    }
    out
}

pub fn echo6(src: &str, dst: &str, id: u16, request: bool, payload: &[u8]) -> Vec<u8> {
    let ip = PacketBuilder::ipv6(v6(src).octets(), v6(dst).octets(), 64);
    let mut out = Vec::new();
    match request {
        true => ip.icmpv6_echo_request(id, 9).write(&mut out, payload).unwrap(),
        false => ip.icmpv6_echo_reply(id, 9).write(&mut out, payload).unwrap(),
    }
    out
}

/// An ICMPv4 message of any type: `rest` are the octets 4 to 7.
pub fn icmp4(src: &str, dst: &str, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let ip = PacketBuilder::ipv4(v4(src).octets(), v4(dst).octets(), 64);
    ip.icmpv4_raw(kind, code, rest).write(&mut out, body).unwrap();
    out
}

/// An ICMPv6 message of any type.
pub fn icmp6(src: &str, dst: &str, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let ip = PacketBuilder::ipv6(v6(src).octets(), v6(dst).octets(), 64);
    ip.icmpv6_raw(kind, code, rest).write(&mut out, body).unwrap();
    out
}

/// Changes octets of an IPv4 header and mends its checksum.
pub fn edit4(mut packet: Vec<u8>, edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    edit(&mut packet);
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum::u32_16bit_word::add_slice(0, &packet[..usize::from(packet[0] & 15) * 4]);
    packet[10..12].copy_from_slice(&checksum::u32_16bit_word::ones_complement(sum).to_ne_bytes());
    packet
}

/// What an engine did with one packet.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub packets: Vec<Vec<u8>>,
    pub reply: Option<Vec<u8>>,
}

impl Outcome {
    pub fn forwarded(self) -> Vec<u8> {
        assert_eq!(self.verdict, Verdict::Forward);
        assert_eq!(self.packets.len(), 1);
        self.packets.into_iter().next().unwrap()
    }

    pub fn reason(&self) -> DropReason {
        match self.verdict {
            Verdict::Drop { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// Hands a packet to an engine and checks what must hold for every packet.
pub fn handle(engine: &mut dyn Engine, bytes: &[u8]) -> Outcome {
    handle_at(engine, bytes, NOW)
}

pub fn handle_at(engine: &mut dyn Engine, bytes: &[u8], now: Duration) -> Outcome {
    handle_packet(engine, &mut PacketBuf::from_slice(bytes), now)
}

/// As `handle_at`, for a packet with an offload request; on Forward the first output is in `packet` too.
pub fn handle_packet(engine: &mut dyn Engine, packet: &mut PacketBuf, now: Duration) -> Outcome {
    let before = (packet.bytes().to_vec(), packet.offload());
    let verdict = engine.handle(packet, now);
    let mut outcome = Outcome { verdict, packets: Vec::new(), reply: None };
    match verdict {
        Verdict::Forward => outcome.packets.push(packet.bytes().to_vec()),
        Verdict::Drop { .. } => {
            assert_eq!((packet.bytes(), packet.offload()), (&before.0[..], before.1), "a dropped packet is untouched")
        }
        Verdict::Held => {}
    }
    while let Some((kind, more)) = engine.poll_transmit() {
        match kind {
            TransmitKind::Packet => outcome.packets.push(more.bytes().to_vec()),
            TransmitKind::Reply => assert!(outcome.reply.replace(more.bytes().to_vec()).is_none(), "one answer"),
        }
    }
    assert_eq!(matches!(verdict, Verdict::Drop { reply: true, .. }), outcome.reply.is_some());
    let counters = engine.counters().snapshot();
    for direction in &counters.directions {
        assert!(direction.is_balanced(), "received = forwarded + dropped + held");
    }
    if let Some(reply) = &outcome.reply {
        assert_valid(reply);
    }
    outcome
}

/// Every length and checksum of a packet is right, the inner ones of an ICMP error included as far as they are quoted.
pub fn assert_valid(bytes: &[u8]) {
    if let Err(why) = judge(bytes) {
        panic!("{why}: {bytes:02x?}");
    }
}

/// Whether an Authentication Header follows: its body is passed on as it is, and etherparse wants sense in it.
fn carries_ah(bytes: &[u8]) -> bool {
    const AH: u8 = 51;
    match bytes.first().map(|b| b >> 4) {
        Some(4) => bytes.get(9) == Some(&AH),
        Some(6) => bytes.get(6) == Some(&AH) || (bytes.get(6) == Some(&44) && bytes.get(40) == Some(&AH)),
        _ => false,
    }
}

/// A packet whose transport is not looked at: its IP header is right.
fn judge_header(bytes: &[u8]) -> Result<(), String> {
    if bytes[0] >> 4 == 6 {
        let (h, rest) = Ipv6Header::from_slice(bytes).map_err(|e| e.to_string())?;
        return if usize::from(h.payload_length) == rest.len() { Ok(()) } else { Err("IPv6 payload length".into()) };
    }
    let (h, _) = Ipv4Header::from_slice(bytes).map_err(|e| e.to_string())?;
    match (h.header_checksum == h.calc_header_checksum(), usize::from(h.total_len) == bytes.len()) {
        (false, _) => Err("IPv4 header checksum".into()),
        (_, false) => Err("IPv4 total length".into()),
        _ => Ok(()),
    }
}

pub fn judge(bytes: &[u8]) -> Result<(), String> {
    if carries_ah(bytes) {
        return judge_header(bytes);
    }
    let sliced = SlicedPacket::from_ip(bytes).map_err(|e| e.to_string())?;
    let (fragment, src, dst) = match sliced.net.as_ref().ok_or("no IP")? {
        NetSlice::Ipv4(ip) => {
            let h = ip.header();
            if h.header_checksum() != h.to_header().calc_header_checksum() {
                return Err("IPv4 header checksum".into());
            }
            if usize::from(h.total_len()) != bytes.len() {
                return Err("IPv4 total length".into());
            }
            (ip.is_payload_fragmented(), h.source().to_vec(), h.destination().to_vec())
        }
        NetSlice::Ipv6(ip) => {
            let h = ip.header();
            if usize::from(h.payload_length()) + 40 != bytes.len() {
                return Err("IPv6 payload length".into());
            }
            (ip.is_payload_fragmented(), h.source().to_vec(), h.destination().to_vec())
        }
        _ => return Err("no IP".into()),
    };
    if fragment {
        return Ok(());
    }
    let is_v6 = src.len() == 16;
    let a4 = |a: &[u8]| <[u8; 4]>::try_from(a).unwrap();
    let a6 = |a: &[u8]| <[u8; 16]>::try_from(a).unwrap();
    let (there, right) = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let h = tcp.to_header();
            let right = match is_v6 {
                true => h.calc_checksum_ipv6_raw(a6(&src), a6(&dst), tcp.payload()),
                false => h.calc_checksum_ipv4_raw(a4(&src), a4(&dst), tcp.payload()),
            };
            (h.checksum, right.map_err(|e| e.to_string())?)
        }
        Some(TransportSlice::Udp(udp)) => {
            let h = udp.to_header();
            let right = match is_v6 {
                true => h.calc_checksum_ipv6_raw(a6(&src), a6(&dst), udp.payload()),
                false => h.calc_checksum_ipv4_raw(a4(&src), a4(&dst), udp.payload()),
            };
            (h.checksum, right.map_err(|e| e.to_string())?)
        }
        // Over the octets as they are: the header as a value has no RFC 4884 attribute.
        Some(TransportSlice::Icmpv4(icmp)) => {
            let sum = checksum::u32_16bit_word::add_slice(0, icmp.slice());
            let right = checksum::u32_16bit_word::ones_complement(sum) == 0;
            return if right { Ok(()) } else { Err("ICMPv4 checksum".into()) };
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let right = icmp.is_checksum_valid(a6(&src), a6(&dst));
            return if right { Ok(()) } else { Err("ICMPv6 checksum".into()) };
        }
        _ => return Ok(()),
    };
    // 0x0000 and 0xffff are the same sum, but UDP knows zero as "none".
    let same = there == right || (there % 0xffff == right % 0xffff && there != 0);
    if same { Ok(()) } else { Err(format!("transport checksum {there:#06x}, not {right:#06x}")) }
}

/// Addresses, ports (or echo identifier twice) of a packet.
pub fn tuple(bytes: &[u8]) -> (String, u16, String, u16) {
    let sliced = SlicedPacket::from_ip(bytes).unwrap();
    let (src, dst) = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().to_string(), ip.header().destination_addr().to_string()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().to_string(), ip.header().destination_addr().to_string()),
        _ => panic!("no IP"),
    };
    let (sport, dport) = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => {
            let id = u16::from_be_bytes(icmp.bytes5to8()[..2].try_into().unwrap());
            (id, id)
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let id = u16::from_be_bytes(icmp.bytes5to8()[..2].try_into().unwrap());
            (id, id)
        }
        _ => (0, 0),
    };
    (src, sport, dst, dport)
}
