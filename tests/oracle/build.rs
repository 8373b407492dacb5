//! Packets and rule sets for the properties, made without the code under test.

use super::Oracle;
use super::bits::{Rule, bits, octets, value};
use super::packet::{Packet4, Packet6, Piece, complete, pseudo};
use mapt::map::{Dmr, RuleSpec};
use mapt::wire::{PacketBuf, VnetHdr};

/// What stands behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `options`: words of TCP options.
    Tcp {
        options: u8,
        flags: u8,
    },
    /// `zero`: without checksum; `slack`: octets behind the UDP length.
    Udp {
        zero: bool,
        slack: u8,
    },
    Echo {
        request: bool,
    },
    /// Another ICMP message.
    Icmp {
        kind: u8,
        code: u8,
    },
    Other(u8),
}

/// Which part of the packet is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Whole,
    /// IPv6 alone: a Fragment header with offset 0 and nothing more.
    Atomic,
    /// Up to so many 8 octets.
    First(u16),
    /// From so many 8 octets on.
    Later(u16, bool),
}

/// A packet to be made, in either family.
#[derive(Clone, Debug)]
pub struct Make {
    pub kind: Kind,
    pub src_port: u16,
    pub dst_port: u16,
    /// Octets of payload behind the transport header.
    pub len: usize,
    /// What they are made of.
    pub seed: u8,
    pub tos: u8,
    pub ttl: u8,
    pub id: u32,
    pub df: bool,
    /// IPv4 alone; a multiple of 4.
    pub options: Vec<u8>,
    /// What the words of TCP options begin with, as far as there are words; NOPs follow.
    pub tcp_options: Vec<u8>,
    /// IPv6 alone.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub place: Place,
}

impl Make {
    pub fn new(kind: Kind, src_port: u16, dst_port: u16, len: usize) -> Make {
        Make {
            kind,
            src_port,
            dst_port,
            len,
            seed: 7,
            tos: 0,
            ttl: 64,
            id: 0x1234,
            df: false,
            options: Vec::new(),
            tcp_options: Vec::new(),
            extensions: Vec::new(),
            place: Place::Whole,
        }
    }

    pub fn protocol(&self, v6: bool) -> u8 {
        match self.kind {
            Kind::Tcp { .. } => 6,
            Kind::Udp { .. } => 17,
            Kind::Echo { .. } | Kind::Icmp { .. } => {
                if v6 {
                    58
                } else {
                    1
                }
            }
            Kind::Other(number) => number,
        }
    }

    /// The whole upper-layer packet, its checksum right.
    pub fn upper(&self, src: &[u8], dst: &[u8]) -> Vec<u8> {
        let v6 = src.len() == 16;
        let body = (0..self.len).map(|i| (i * 7 + i / 251) as u8 ^ self.seed);
        let mut out = Vec::new();
        out.extend(self.src_port.to_be_bytes());
        out.extend(self.dst_port.to_be_bytes());
        match self.kind {
            Kind::Tcp { options, flags } => {
                out.extend([0, 0, 1, self.seed, 0, 0, 2, 0, (5 + options % 11) * 16, flags, 4, 0, 0, 0, 0, 0]);
                let nops = std::iter::repeat(1);
                out.extend(self.tcp_options.iter().copied().chain(nops).take(usize::from(options % 11) * 4));
            }
            Kind::Udp { .. } => out.extend([((self.len + 8) / 256) as u8, ((self.len + 8) % 256) as u8, 0, 0]),
            Kind::Echo { request } => {
                let kind = match (v6, request) {
                    (false, true) => 8,
                    (false, false) => 0,
                    (true, true) => 128,
                    (true, false) => 129,
                };
                out = vec![kind, 0, 0, 0];
                out.extend(self.src_port.to_be_bytes());
                out.extend([0, self.seed]);
            }
            Kind::Icmp { kind, code } => out = vec![kind, code, 0, 0, 0, 0, 0, 0],
            // Offset and coverage: the checksum is of all octets (RFC 4340 §9.2, RFC 3828 §3.1).
            Kind::Other(33) => out.extend([4, 0, 0, 0]),
            Kind::Other(136) => out.extend([0, 0, 0, 0]),
            Kind::Other(_) => out.clear(),
        }
        out.extend(body);
        if let Kind::Udp { slack, .. } = self.kind {
            out.extend((0..slack).map(|i| i ^ self.seed));
        }
        match self.kind {
            Kind::Udp { zero: true, .. } => {}
            Kind::Other(number) if number != 33 && number != 136 => {}
            _ => complete(&mut out, self.protocol(v6), src, dst),
        }
        out
    }

    fn part(&self, upper: Vec<u8>) -> (Vec<u8>, usize, bool) {
        match self.place {
            Place::Whole | Place::Atomic => (upper, 0, false),
            Place::First(eights) => {
                let to = upper.len().min(usize::from(eights).max(1) * 8) / 8 * 8;
                (upper[..to].to_vec(), 0, true)
            }
            Place::Later(eights, more) => {
                let from = (usize::from(eights).max(1) * 8).min(upper.len().saturating_sub(8) / 8 * 8).max(8);
                let rest = upper.get(from..).unwrap_or(&[]).to_vec();
                let to = if more { rest.len() / 8 * 8 } else { rest.len() };
                (rest[..to].to_vec(), from, more)
            }
        }
    }

    pub fn v4(&self, src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
        let (mut payload, offset, more) = self.part(self.upper(&src, &dst));
        // An IPv4 packet ends at 65,535 octets.
        payload.truncate(65_535 - 20 - self.options.len());
        Packet4 {
            tos: self.tos,
            id: self.id as u16,
            df: self.df,
            mf: more,
            offset,
            ttl: self.ttl,
            protocol: self.protocol(false),
            src,
            dst,
            options: self.options.clone(),
            announced: payload.len(),
            payload,
        }
        .write()
    }

    pub fn v6(&self, src: [u8; 16], dst: [u8; 16]) -> Vec<u8> {
        let (mut payload, offset, more) = self.part(self.upper(&src, &dst));
        let skipped: usize = self.extensions.iter().map(|(_, rest)| rest.len() + 1).sum();
        payload.truncate(65_535 - 8 - skipped);
        let piece = Piece { id: self.id, offset, more };
        Packet6 {
            class: self.tos,
            flow_label: self.id % 0x10_0000,
            hop_limit: self.ttl,
            src,
            dst,
            extensions: self.extensions.clone(),
            fragment: (self.place != Place::Whole).then_some(piece),
            next: self.protocol(true),
            announced: payload.len(),
            payload,
            segments_left_at: None,
        }
        .write()
    }
}

/// An ICMP error: type, code, the four octets behind the checksum, and what it quotes.
#[derive(Clone, Debug)]
pub struct Report {
    pub kind: u8,
    pub code: u8,
    pub rest: [u8; 4],
    pub tos: u8,
    pub ttl: u8,
}

impl Report {
    fn message(&self, quoted: &[u8]) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(self.rest);
        message.extend(quoted);
        message
    }

    pub fn v4(&self, src: [u8; 4], dst: [u8; 4], quoted: &[u8]) -> Vec<u8> {
        let mut payload = self.message(quoted);
        complete(&mut payload, 1, &src, &dst);
        Packet4 {
            tos: self.tos,
            id: 0x4321,
            df: false,
            mf: false,
            offset: 0,
            ttl: self.ttl,
            protocol: 1,
            src,
            dst,
            options: Vec::new(),
            announced: payload.len(),
            payload,
        }
        .write()
    }

    pub fn v6(&self, src: [u8; 16], dst: [u8; 16], quoted: &[u8]) -> Vec<u8> {
        let mut payload = self.message(quoted);
        complete(&mut payload, 58, &src, &dst);
        Packet6 {
            class: self.tos,
            flow_label: 0,
            hop_limit: self.ttl,
            src,
            dst,
            extensions: Vec::new(),
            fragment: None,
            next: 58,
            announced: payload.len(),
            payload,
            segments_left_at: None,
        }
        .write()
    }
}

/// Where the transport header begins, and how long it is.
pub fn transport(packet: &[u8]) -> (usize, usize, bool) {
    let (at, number, payload) = match packet[0] >> 4 {
        4 => {
            let p = Packet4::read(packet, false, &mut Vec::new()).unwrap();
            (20 + p.options.len(), p.protocol, p.payload)
        }
        _ => {
            let p = Packet6::read(packet, false, &mut Vec::new()).unwrap();
            (p.headers(), p.next, p.payload)
        }
    };
    let is_tcp = number == 6;
    (at, if is_tcp { usize::from(payload[12] >> 4) * 4 } else { 8 }, is_tcp)
}

/// The packet as a kernel hands it over: the checksum field holds the sum of the pseudo-header, not complemented.
pub fn offloaded(mut packet: Vec<u8>, gso_size: u16, ecn: bool) -> PacketBuf {
    let (at, len, is_tcp) = transport(&packet);
    let v6 = packet[0] >> 4 == 6;
    let field = if is_tcp { 16 } else { 6 };
    let addresses = if v6 { packet[8..40].to_vec() } else { packet[12..20].to_vec() };
    let (src, dst) = addresses.split_at(addresses.len() / 2);
    let partial = pseudo(src, dst, packet.len() - at, if is_tcp { 6 } else { 17 }) as u16;
    packet[at + field..at + field + 2].copy_from_slice(&partial.to_be_bytes());
    let gso_type = match (gso_size, is_tcp, v6) {
        (0, ..) => VnetHdr::GSO_NONE,
        (_, true, false) => VnetHdr::GSO_TCPV4,
        (_, true, true) => VnetHdr::GSO_TCPV6,
        (_, false, _) => VnetHdr::GSO_UDP_L4,
    };
    let mut buf = PacketBuf::from_slice(&packet);
    buf.set_offload(Some(VnetHdr {
        flags: VnetHdr::NEEDS_CSUM,
        gso_type: gso_type | if ecn { VnetHdr::GSO_ECN } else { 0 },
        hdr_len: if gso_size > 0 { (at + len) as u16 } else { 0 },
        gso_size,
        csum_start: at as u16,
        csum_offset: field as u16,
    }));
    buf
}

/// Rules and a DMR.
#[derive(Clone, Debug)]
pub struct World {
    pub rules: Vec<RuleSpec>,
    pub dmr: String,
}

fn shared(v6: &str, v4: &str, ea_len: u8, psid_offset: u8) -> RuleSpec {
    RuleSpec { psid_offset, ..crate::common::rule(v6, v4, ea_len) }
}

fn one_to_one(v6: &str, v4: &str, psid_len: u8, psid: u16) -> RuleSpec {
    RuleSpec { psid_len: Some(psid_len), psid: Some(psid), ..crate::common::rule(v6, v4, 0) }
}

/// Rule sets that between them have every kind of rule and every length of DMR.
pub fn worlds() -> Vec<World> {
    let own_dmr =
        |spec: RuleSpec, dmr: &str| RuleSpec { dmr_ipv6_prefix: Some(Dmr::new(dmr.parse().unwrap()).unwrap()), ..spec };
    let world = |dmr: &str, rules: Vec<RuleSpec>| World { rules, dmr: dmr.into() };
    vec![
        world("2001:db8:ffff::/64", vec![shared("2001:db8::/40", "192.0.2.0/24", 16, 6)]),
        world(
            "2001:db8:fffe::/48",
            vec![
                // No prefix ends on an octet.
                shared("2001:db8:3000::/36", "198.18.0.0/15", 23, 6),
                shared("2001:db8:4000::/36", "203.0.112.0/20", 8, 6),
                shared("2001:db8:5000::/40", "100.66.0.0/16", 16, 6),
                // Inside the rule above, for other addresses.
                shared("2001:db8:50ff::/48", "198.51.100.0/24", 8, 6),
                // Half of the first rule's IPv4 addresses.
                shared("2001:db8:a100::/40", "198.19.0.0/16", 22, 6),
                one_to_one("2001:db8:77:7700::/56", "192.0.2.18/32", 8, 53),
                one_to_one("2001:db8:12:3400::/56", "192.0.2.18/32", 8, 52),
                one_to_one("2001:db8:99::c000:212:7/128", "192.0.2.18/32", 8, 7),
                shared("2001:db8:98::1/128", "192.0.2.200/32", 0, 6),
                own_dmr(shared("2001:db8:6000::/40", "192.88.0.0/24", 16, 6), "64:ff9b::/96"),
                shared("2001:db8:7000::/40", "198.51.0.0/24", 12, 0),
                // Runs of one port.
                shared("2001:db8:8000::/40", "185.1.1.0/24", 16, 8),
                RuleSpec { forwarding: false, ..shared("2001:db8:9000::/40", "185.1.2.0/24", 16, 4) },
            ],
        ),
        world("64:ff9b::/96", vec![shared("2001:db8:a00::/40", "5.6.7.0/24", 14, 6)]),
        world(
            "2001:4860::/32",
            vec![
                // EA bits in the interface id.
                shared("2001:db8:9:9::/64", "10.0.0.0/8", 8, 6),
                shared("2001:db8:a:a:1::/80", "172.16.0.0/16", 24, 6),
            ],
        ),
        world("2001:4860:100::/40", vec![shared("2001:db8:b000::/36", "192.0.2.128/25", 7, 6)]),
        world("2001:4860:100:200::/56", vec![shared("2001:db8:c000::/36", "1.2.3.4/32", 8, 5)]),
    ]
}

/// A customer: its rule, IPv4 address (a host of its prefix), PSID, MAP address.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    pub rule: usize,
    pub ipv4: [u8; 4],
    pub psid: u16,
    pub ipv6: [u8; 16],
}

pub fn home(rules: &[Rule], which: usize, draw: u64) -> Home {
    let index = which % rules.len();
    let rule = &rules[index];
    let noise = bits(&draw.to_be_bytes());
    let ipv4 = octets(&format!("{}{}", rule.v4, &noise[..32 - rule.v4.len()]));
    let psid = match rule.is_shared() {
        true if rule.embeds_psid() => value(&noise[64 - rule.psid_len()..]) as u16,
        true => rule.explicit_psid(),
        false => 0,
    };
    Home { rule: index, ipv4, psid, ipv6: rule.address(ipv4, psid) }
}

impl Home {
    /// A port of the home's set: the first from `draw` on.
    pub fn port(&self, rules: &[Rule], draw: u16) -> u16 {
        let rule = &rules[self.rule];
        let owns = |port: &u16| !rule.is_shared() || rule.psid_of(*port) == Some(self.psid);
        (0..=65535).map(|n| draw.wrapping_add(n)).find(owns).unwrap()
    }

    /// The shortest End-user IPv6 prefix.
    pub fn end_user(&self, rules: &[Rule]) -> String {
        let rule = &rules[self.rule];
        let len = rule.v6.len() + rule.ea;
        let addr: [u8; 16] = octets(&format!("{:0<128}", &bits(&self.ipv6)[..len]));
        format!("{}/{len}", std::net::Ipv6Addr::from(addr))
    }
}

impl Oracle {
    /// The DMR form of an address, be it allowed or not.
    pub fn outside(&self, rule: usize, ipv4: [u8; 4]) -> [u8; 16] {
        self.dmr_of(rule).embed(ipv4)
    }
}
