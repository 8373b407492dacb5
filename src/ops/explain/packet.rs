//! A packet read for people: as much of it as there is, broken or not. It judges nothing; the engine does.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::ip::protocol;

/// What was read of a packet, from its IP header on.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub v6: bool,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Octets that are there.
    pub present: usize,
    /// Octets that the header announces: Total Length, or 40 and Payload Length.
    pub announced: usize,
    /// Octets in front of what the fragment or the transport header begins with.
    pub header_len: usize,
    /// TOS or Traffic Class.
    pub class: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// Don't Fragment; never in IPv6.
    pub df: bool,
    /// The Fragment header, or the fragment fields of IPv4 where they say something.
    pub place: Option<Place>,
    /// The first number that is no extension header.
    pub number: u8,
    /// Extension headers in front of it, in their order.
    pub extensions: Vec<u8>,
    /// Where Segments Left of a Routing header is not 0, and its value.
    pub segments_left: Option<(usize, u8)>,
    /// Octets of IPv4 options.
    pub options: usize,
    pub transport: Transport,
    /// What an ICMP error quotes.
    pub quoted: Option<Box<Result<Seen, String>>>,
}

/// A place in a fragmented packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub id: u32,
    /// In octets.
    pub offset: u32,
    pub more: bool,
}

impl Place {
    /// Offset 0 and nothing follows: whole (RFC 6946).
    pub(super) fn is_atomic(self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// What stands behind the IP header.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    Tcp {
        src: u16,
        dst: u16,
        flags: u8,
    },
    Udp {
        src: u16,
        dst: u16,
        len: u16,
        checksum: u16,
    },
    Echo {
        id: u16,
        request: bool,
    },
    Icmp {
        kind: u8,
        code: u8,
        word: u32,
    },
    Other,
    /// A later fragment; its first one may have told the ports.
    Later {
        ports: Option<(u16, u16)>,
    },
    /// The octets end before its ports or type do.
    Short,
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

/// Reads a packet; what is no IP header is described instead.
pub(super) fn read(b: &[u8]) -> Result<Seen, String> {
    // An error, its packet in error, and what that quotes where it is an error too.
    read_quotes(b, 2)
}

/// Reads a packet and `quotes` packets inside each other.
fn read_quotes(b: &[u8], quotes: u8) -> Result<Seen, String> {
    let short = |least: usize| format!("{} of at least {least} octets of an IP header", b.len());
    match b.first().map(|first| first >> 4) {
        Some(4) => read_v4(b, quotes).ok_or_else(|| short(20)),
        Some(6) => read_v6(b, quotes).ok_or_else(|| short(40)),
        Some(version) => Err(format!("{} octets of IP version {version}", b.len())),
        None => Err("nothing".into()),
    }
}

fn read_v4(b: &[u8], quotes: u8) -> Option<Seen> {
    let fixed = b.get(..20)?;
    let header_len = usize::from(fixed[0] & 15) * 4;
    let flags = be16(b, 6)?;
    let place = Place { id: u32::from(be16(b, 4)?), offset: u32::from(flags & 0x1fff) * 8, more: flags & 0x2000 != 0 };
    let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(be32(b, at)?)));
    let mut seen = Seen {
        v6: false,
        src: address(12)?,
        dst: address(16)?,
        present: b.len(),
        announced: usize::from(be16(b, 2)?),
        header_len,
        class: fixed[1],
        hops: fixed[8],
        df: flags & 0x4000 != 0,
        place: Some(place).filter(|place| !place.is_atomic()),
        number: fixed[9],
        extensions: Vec::new(),
        segments_left: None,
        options: header_len.saturating_sub(20),
        transport: Transport::Short,
        quoted: None,
    };
    seen.read_transport(b, quotes);
    Some(seen)
}

fn read_v6(b: &[u8], quotes: u8) -> Option<Seen> {
    let fixed = b.get(..40)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = b.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let mut seen = Seen {
        v6: true,
        src: address(8)?,
        dst: address(24)?,
        present: b.len(),
        announced: 40 + usize::from(be16(b, 4)?),
        header_len: 40,
        class: (be16(b, 0)? >> 4) as u8,
        hops: fixed[7],
        df: false,
        place: None,
        number: fixed[6],
        extensions: Vec::new(),
        segments_left: None,
        options: 0,
        transport: Transport::Short,
        quoted: None,
    };
    // Each turn takes at least 8 octets, so the walk ends.
    while let protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION_OPTIONS =
        seen.number
    {
        let at = seen.header_len;
        let Some(head) = b.get(at..at + 8) else { return Some(seen) };
        seen.extensions.push(seen.number);
        let mut len = 8;
        match seen.number {
            protocol::FRAGMENT => {
                let word = u16::from_be_bytes([head[2], head[3]]);
                let id = be32(b, at + 4)?;
                seen.place = Some(Place { id, offset: u32::from(word & 0xfff8), more: word & 1 != 0 });
            }
            number => {
                len += usize::from(head[1]) * 8;
                if number == protocol::ROUTING && head[3] != 0 && seen.segments_left.is_none() {
                    seen.segments_left = Some((at + 3, head[3]));
                }
            }
        }
        seen.number = head[0];
        seen.header_len = at + len;
        if seen.is_later() {
            break;
        }
    }
    seen.read_transport(b, quotes);
    Some(seen)
}

impl Seen {
    fn read_transport(&mut self, b: &[u8], quotes: u8) {
        if self.is_later() {
            self.transport = Transport::Later { ports: None };
            return;
        }
        let rest = b.get(self.header_len..b.len().min(self.announced)).unwrap_or(&[]);
        self.transport = self.transport_of(rest).unwrap_or(Transport::Short);
        if quotes > 0 && self.is_error() {
            let quoted = rest.get(8..).unwrap_or(&[]);
            self.quoted = Some(Box::new(read_quotes(quoted, quotes - 1)));
        }
    }

    fn transport_of(&self, rest: &[u8]) -> Option<Transport> {
        let echo = if self.v6 { [128, 129] } else { [8, 0] };
        match self.number {
            protocol::TCP => Some(Transport::Tcp {
                src: be16(rest, 0)?,
                dst: be16(rest, 2)?,
                flags: rest.get(13).copied().unwrap_or(0),
            }),
            protocol::UDP => Some(Transport::Udp {
                src: be16(rest, 0)?,
                dst: be16(rest, 2)?,
                len: be16(rest, 4)?,
                checksum: be16(rest, 6)?,
            }),
            number if number == self.icmp() => {
                let (kind, code, word) = (*rest.first()?, *rest.get(1)?, be32(rest, 4)?);
                if echo.contains(&kind) && code == 0 {
                    return Some(Transport::Echo { id: (word >> 16) as u16, request: kind == echo[0] });
                }
                Some(Transport::Icmp { kind, code, word })
            }
            _ => Some(Transport::Other),
        }
    }

    /// The number of the ICMP of its version.
    fn icmp(&self) -> u8 {
        if self.v6 { protocol::ICMPV6 } else { protocol::ICMP }
    }

    /// Whether it is a fragment without its transport header.
    pub(super) fn is_later(&self) -> bool {
        self.place.is_some_and(|place| place.offset != 0)
    }

    /// Whether it is an ICMP error.
    pub(super) fn is_error(&self) -> bool {
        match self.transport {
            Transport::Icmp { kind, .. } if self.v6 => kind < 128,
            Transport::Icmp { kind, .. } => matches!(kind, 3 | 4 | 5 | 11 | 12),
            _ => false,
        }
    }

    /// The packet that an ICMP error quotes, as far as it can be read.
    pub(super) fn inner(&self) -> Option<&Seen> {
        self.quoted.as_deref().and_then(|quoted| quoted.as_ref().ok())
    }

    /// Source and destination port; the identifier of an echo is both.
    pub(super) fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => Some((src, dst)),
            Transport::Echo { id, .. } => Some((id, id)),
            Transport::Later { ports } => ports,
            _ => None,
        }
    }

    /// The address and port for which the sender speaks: of an ICMP error, the destination of the packet in error.
    pub(super) fn sender(&self) -> (IpAddr, Option<u16>) {
        match self.inner() {
            Some(inner) => (inner.dst, inner.ports().map(|ports| ports.1)),
            None => (self.src, self.ports().map(|ports| ports.0)),
        }
    }

    /// The address and port that it is meant for: of an ICMP error, the source of the packet in error.
    pub(super) fn receiver(&self) -> (IpAddr, Option<u16>) {
        match self.inner() {
            Some(inner) => (inner.src, inner.ports().map(|ports| ports.0)),
            None => (self.dst, self.ports().map(|ports| ports.1)),
        }
    }

    /// What its ports are called.
    pub(super) fn port_word(&self) -> &'static str {
        match self.inner().unwrap_or(self).transport {
            Transport::Echo { .. } => "identifier",
            _ => "port",
        }
    }

    /// `TCP`, `GRE`, `protocol 99`.
    pub(super) fn protocol_name(&self) -> String {
        name_of(self.number)
    }

    /// Type and code of an ICMP message.
    pub(super) fn icmp_name(&self) -> String {
        match self.transport {
            Transport::Icmp { kind, code, .. } if self.v6 => {
                format!("ICMPv6 type {kind} code {code} ({})", icmpv6(kind, code))
            }
            Transport::Icmp { kind, code, .. } => format!("ICMPv4 type {kind} code {code} ({})", icmpv4(kind, code)),
            Transport::Echo { request, .. } => {
                let family = if self.v6 { 6 } else { 4 };
                format!("ICMPv{family} echo {}", if request { "request" } else { "reply" })
            }
            _ => self.protocol_name(),
        }
    }

    /// The packet in one sentence's worth of words.
    pub(super) fn words(&self) -> String {
        let mut out = format!("{}, ", if self.v6 { "IPv6" } else { "IPv4" });
        if self.present < self.announced {
            let _ = write!(out, "{} of {} octets, ", self.present, self.announced);
        } else {
            let _ = write!(out, "{} octets, ", self.announced);
        }
        let end = |addr: IpAddr, port: u16| match addr {
            IpAddr::V4(addr) => format!("{addr}:{port}"),
            IpAddr::V6(addr) => format!("[{addr}]:{port}"),
        };
        match &self.transport {
            Transport::Tcp { src, dst, flags } => {
                let _ = write!(out, "TCP{} from {} to {}", tcp_flags(*flags), end(self.src, *src), end(self.dst, *dst));
            }
            Transport::Udp { src, dst, checksum, .. } => {
                let without = if *checksum == 0 { " without checksum" } else { "" };
                let _ = write!(out, "UDP{without} from {} to {}", end(self.src, *src), end(self.dst, *dst));
            }
            Transport::Echo { id, .. } => {
                let _ = write!(out, "{} with identifier {id} from {} to {}", self.icmp_name(), self.src, self.dst);
            }
            Transport::Icmp { .. } => {
                let _ = write!(out, "{} from {} to {}", self.icmp_name(), self.src, self.dst);
            }
            Transport::Other => {
                let _ = write!(out, "{} from {} to {}", self.protocol_name(), self.src, self.dst);
            }
            Transport::Later { .. } => {
                let _ = write!(out, "a later piece of {} from {} to {}", self.protocol_name(), self.src, self.dst);
            }
            Transport::Short => {
                let _ = write!(out, "a broken {} header from {} to {}", self.protocol_name(), self.src, self.dst);
            }
        }
        let _ = write!(out, ", {} {}", if self.v6 { "hop limit" } else { "TTL" }, self.hops);
        if self.class != 0 {
            let _ = write!(out, ", {} {:#04x}", if self.v6 { "traffic class" } else { "TOS" }, self.class);
        }
        if self.df {
            out.push_str(", DF set");
        }
        if let Some(place) = self.place {
            let kind = match (place.offset, place.more) {
                (0, false) => "atomic fragment",
                (0, true) => "first fragment",
                (_, true) => "middle fragment",
                (_, false) => "last fragment",
            };
            let _ = write!(out, ", {kind} {} at offset {}", place.id, place.offset);
        }
        if self.options > 0 {
            let _ = write!(out, ", {} octets of options", self.options);
        }
        let extensions: Vec<_> =
            self.extensions.iter().filter(|number| **number != protocol::FRAGMENT).map(|n| name_of(*n)).collect();
        if !extensions.is_empty() {
            let _ = write!(out, ", with {}", extensions.join(" and "));
        }
        if let Transport::Icmp { word, .. } = self.transport {
            self.push_field(word, &mut out);
        }
        match self.quoted.as_deref() {
            Some(Ok(inner)) => {
                let _ = write!(out, "; it quotes: {}", inner.words());
            }
            Some(Err(what)) => {
                let _ = write!(out, "; it quotes {what}");
            }
            None => {}
        }
        out
    }

    /// MTU or pointer of an ICMP error.
    fn push_field(&self, word: u32, out: &mut String) {
        let Transport::Icmp { kind, code, .. } = self.transport else { return };
        let _ = match (self.v6, kind, code) {
            (false, 3, 4) => write!(out, ", MTU {}", word & 0xffff),
            (true, 2, _) => write!(out, ", MTU {word}"),
            (false, 12, 0) => write!(out, ", pointer {}", word >> 24),
            (true, 4, _) => write!(out, ", pointer {word}"),
            _ => Ok(()),
        };
    }
}

fn tcp_flags(flags: u8) -> String {
    let names = [(2, "SYN"), (16, "ACK"), (1, "FIN"), (4, "RST")];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { String::new() } else { format!(" {}", set.join("+")) }
}

/// The protocol or extension header of a number.
pub(super) fn name_of(number: u8) -> String {
    let name = match number {
        protocol::HOP_BY_HOP => "a Hop-by-Hop Options header",
        protocol::ICMP => "ICMPv4",
        protocol::IGMP => "IGMP",
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        33 => "DCCP",
        protocol::ROUTING => "a Routing header",
        protocol::FRAGMENT => "a Fragment header",
        47 => "GRE",
        50 => "ESP",
        protocol::AH => "AH",
        protocol::ICMPV6 => "ICMPv6",
        protocol::DESTINATION_OPTIONS => "a Destination Options header",
        132 => "SCTP",
        136 => "UDP-Lite",
        number => return format!("protocol {number}"),
    };
    name.into()
}

fn icmpv4(kind: u8, code: u8) -> &'static str {
    match (kind, code) {
        (0, _) => "echo reply",
        (3, 0) => "network unreachable",
        (3, 1) => "host unreachable",
        (3, 2) => "protocol unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "fragmentation needed",
        (3, 5) => "source route failed",
        (3, 9 | 10 | 13) => "administratively prohibited",
        (3, _) => "destination unreachable",
        (4, _) => "source quench",
        (5, _) => "redirect",
        (8, _) => "echo request",
        (9, _) => "router advertisement",
        (10, _) => "router solicitation",
        (11, 0) => "TTL exceeded",
        (11, _) => "reassembly time exceeded",
        (12, _) => "parameter problem",
        (13 | 14, _) => "timestamp",
        (15 | 16, _) => "information",
        (17 | 18, _) => "address mask",
        _ => "unassigned",
    }
}

fn icmpv6(kind: u8, code: u8) -> &'static str {
    match (kind, code) {
        (1, 0) => "no route to destination",
        (1, 1) => "administratively prohibited",
        (1, 3) => "address unreachable",
        (1, 4) => "port unreachable",
        (1, 5) => "source address failed ingress/egress policy",
        (1, _) => "destination unreachable",
        (2, _) => "packet too big",
        (3, 0) => "hop limit exceeded",
        (3, _) => "reassembly time exceeded",
        (4, 0) => "erroneous header field",
        (4, 1) => "unrecognised next header",
        (4, _) => "parameter problem",
        (128, _) => "echo request",
        (129, _) => "echo reply",
        (130..=132 | 143, _) => "multicast listener",
        (133, _) => "router solicitation",
        (134, _) => "router advertisement",
        (135, _) => "neighbour solicitation",
        (136, _) => "neighbour advertisement",
        (137, _) => "redirect",
        _ => "unassigned",
    }
}
