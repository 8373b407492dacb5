//! Packets as structs, read and written octet by octet (RFC 791, 792, 768, 9293, 8200, 4443, 4884).

use mapt::verdict::DropReason;

pub fn word(b: &[u8], at: usize) -> usize {
    usize::from(b[at]) * 256 + usize::from(b[at + 1])
}

fn push_word(out: &mut Vec<u8>, word: usize) {
    assert!(word <= 0xffff, "{word} is no 16-bit word");
    out.push((word / 256) as u8);
    out.push((word % 256) as u8);
}

fn set_word(b: &mut [u8], at: usize, word: usize) {
    b[at] = (word / 256) as u8;
    b[at + 1] = (word % 256) as u8;
}

/// The sum of 16-bit words modulo 65535: one's complement addition is addition modulo 65535.
pub fn sum(b: &[u8]) -> usize {
    let mut total = 0;
    for (i, octet) in b.iter().enumerate() {
        total += usize::from(*octet) * if i % 2 == 0 { 256 } else { 1 };
    }
    total % 65535
}

/// The field that makes the sum of everything 0 modulo 65535.
fn field_for(rest: usize) -> usize {
    (65535 - rest % 65535) % 65535
}

/// Source, destination, upper-layer length, protocol, as they are summed (RFC 768, RFC 9293 §3.1, RFC 8200 §8.1).
pub fn pseudo(src: &[u8], dst: &[u8], len: usize, protocol: u8) -> usize {
    (sum(src) + sum(dst) + len / 65536 + len % 65536 + usize::from(protocol)) % 65535
}

/// A place in a fragmented packet; the offset is in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub id: u32,
    pub offset: usize,
    pub more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet4 {
    pub tos: u8,
    pub id: u16,
    pub df: bool,
    pub mf: bool,
    pub offset: usize,
    pub ttl: u8,
    pub protocol: u8,
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub options: Vec<u8>,
    /// What Total Length says is behind the header.
    pub announced: usize,
    /// What is there of it.
    pub payload: Vec<u8>,
}

impl Packet4 {
    pub fn fragment(&self) -> Option<Piece> {
        (self.mf || self.offset > 0).then_some(Piece { id: u32::from(self.id), offset: self.offset, more: self.mf })
    }

    pub fn total(&self) -> usize {
        20 + self.options.len() + self.announced
    }

    /// With a fresh header checksum.
    pub fn write(&self) -> Vec<u8> {
        assert_eq!(self.options.len() % 4, 0);
        let mut out = vec![0x40 + 5 + (self.options.len() / 4) as u8, self.tos];
        push_word(&mut out, self.total());
        push_word(&mut out, usize::from(self.id));
        assert_eq!(self.offset % 8, 0);
        push_word(&mut out, if self.df { 0x4000 } else { 0 } + if self.mf { 0x2000 } else { 0 } + self.offset / 8);
        out.extend([self.ttl, self.protocol, 0, 0]);
        out.extend(self.src);
        out.extend(self.dst);
        out.extend(&self.options);
        let checksum = field_for(sum(&out));
        set_word(&mut out, 10, checksum);
        out.extend(&self.payload);
        out
    }

    /// Reads what is there; everything that is wrong goes into `faults`. `None` where there is no header.
    pub fn read(b: &[u8], quoted: bool, faults: &mut Vec<DropReason>) -> Option<Packet4> {
        if b.len() < 20 {
            faults.push(DropReason::HeaderTruncated);
        }
        if b.first().is_none_or(|first| first / 16 != 4) {
            faults.push(DropReason::NotIp);
        }
        if !faults.is_empty() {
            return None;
        }
        let header = usize::from(b[0] % 16) * 4;
        let total = word(b, 2);
        if header < 20 || total < header {
            faults.push(DropReason::LengthMismatch);
        }
        if b.len() < header || (!quoted && b.len() < total) {
            faults.push(DropReason::HeaderTruncated);
        }
        if header >= 20 && b.len() >= header && !quoted && sum(&b[..header]) != 0 {
            faults.push(DropReason::Ipv4HeaderChecksum);
        }
        if header < 20 || total < header || b.len() < header || (!quoted && b.len() < total) {
            return None;
        }
        let flags = word(b, 6);
        let packet = Packet4 {
            tos: b[1],
            id: word(b, 4) as u16,
            df: flags / 0x4000 % 2 == 1,
            mf: flags / 0x2000 % 2 == 1,
            offset: flags % 0x2000 * 8,
            ttl: b[8],
            protocol: b[9],
            src: b[12..16].try_into().unwrap(),
            dst: b[16..20].try_into().unwrap(),
            options: b[20..header].to_vec(),
            announced: total - header,
            payload: b[header..b.len().min(total)].to_vec(),
        };
        packet.fragment().inspect(|f| check_piece(*f, packet.announced, faults));
        Some(packet)
    }

    /// RFC 791 §3.1: an LSRR or SSRR whose pointer is not beyond its length. Broken options end the walk.
    pub fn has_source_route(&self) -> bool {
        let mut at = 0;
        while at < self.options.len() {
            let kind = self.options[at];
            if kind == 0 {
                return false;
            }
            if kind == 1 {
                at += 1;
                continue;
            }
            let Some(&len) = self.options.get(at + 1) else { return false };
            let len = usize::from(len);
            if len < 2 || at + len > self.options.len() {
                return false;
            }
            if (kind == 131 || kind == 137) && len >= 3 && usize::from(self.options[at + 2]) <= len {
                return true;
            }
            at += len;
        }
        false
    }
}

fn check_piece(f: Piece, announced: usize, faults: &mut Vec<DropReason>) {
    let is_piece = f.more || f.offset > 0;
    if (f.more && !announced.is_multiple_of(8)) || (is_piece && announced == 0) || f.offset + announced > 65535 {
        faults.push(DropReason::FragmentIllegal);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet6 {
    pub class: u8,
    pub flow_label: u32,
    pub hop_limit: u8,
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// Headers in front of a Fragment header or the upper layer: number, and all octets behind the Next Header octet.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub fragment: Option<Piece>,
    pub next: u8,
    /// What Payload Length says is behind the headers above.
    pub announced: usize,
    /// What is there of it.
    pub payload: Vec<u8>,
    /// Where the Segments Left octet of a Routing header stands that has some left.
    pub segments_left_at: Option<usize>,
}

impl Packet6 {
    pub fn is_fragment(&self) -> bool {
        self.fragment.is_some_and(|f| f.offset > 0 || f.more)
    }

    /// Octets of the fixed header and all that is skipped.
    pub fn headers(&self) -> usize {
        40 + self.extensions.iter().map(|(_, rest)| rest.len() + 1).sum::<usize>()
            + if self.fragment.is_some() { 8 } else { 0 }
    }

    pub fn total(&self) -> usize {
        self.headers() + self.announced
    }

    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![0x60 + self.class / 16, self.class % 16 * 16 + (self.flow_label / 65536) as u8];
        push_word(&mut out, (self.flow_label % 65536) as usize);
        push_word(&mut out, self.headers() - 40 + self.announced);
        let mut numbers: Vec<u8> = self.extensions.iter().map(|(number, _)| *number).collect();
        numbers.extend(self.fragment.map(|_| 44));
        numbers.push(self.next);
        out.extend([numbers[0], self.hop_limit]);
        out.extend(self.src);
        out.extend(self.dst);
        for (i, (_, rest)) in self.extensions.iter().enumerate() {
            out.push(numbers[i + 1]);
            out.extend(rest);
        }
        if let Some(f) = self.fragment {
            assert_eq!(f.offset % 8, 0);
            out.extend([self.next, 0]);
            push_word(&mut out, f.offset + usize::from(f.more));
            out.extend(f.id.to_be_bytes());
        }
        out.extend(&self.payload);
        out
    }

    pub fn read(b: &[u8], quoted: bool, faults: &mut Vec<DropReason>) -> Option<Packet6> {
        if b.len() < 40 {
            faults.push(DropReason::HeaderTruncated);
        }
        if b.first().is_none_or(|first| first / 16 != 6) {
            faults.push(DropReason::NotIp);
        }
        if !faults.is_empty() {
            return None;
        }
        let total = 40 + word(b, 4);
        if !quoted && b.len() < total {
            faults.push(DropReason::HeaderTruncated);
            return None;
        }
        let b = &b[..b.len().min(total)];
        let mut packet = Packet6 {
            class: b[0] % 16 * 16 + b[1] / 16,
            flow_label: u32::from(b[1] % 16) * 65536 + word(b, 2) as u32,
            hop_limit: b[7],
            src: b[8..24].try_into().unwrap(),
            dst: b[24..40].try_into().unwrap(),
            extensions: Vec::new(),
            fragment: None,
            next: b[6],
            announced: 0,
            payload: Vec::new(),
            segments_left_at: None,
        };
        let mut at = 40;
        loop {
            match packet.next {
                0 | 43 | 60 if packet.fragment.is_some() => {
                    faults.push(DropReason::ExtensionHeader);
                    return None;
                }
                44 if packet.fragment.is_some() => {
                    if b.len() < at + 8 {
                        faults.push(DropReason::HeaderTruncated);
                    }
                    faults.push(DropReason::ExtensionHeader);
                    return None;
                }
                0 | 43 | 60 => {
                    let len = b.get(at + 1).map_or(usize::MAX, |words| 8 + usize::from(*words) * 8);
                    if b.len() < at + 8 || b.len() < at + len {
                        faults.push(DropReason::HeaderTruncated);
                        return None;
                    }
                    if packet.next == 43 && b[at + 3] > 0 && packet.segments_left_at.is_none() {
                        packet.segments_left_at = Some(at + 3);
                    }
                    packet.extensions.push((packet.next, b[at + 1..at + len].to_vec()));
                    packet.next = b[at];
                    at += len;
                }
                44 => {
                    if b.len() < at + 8 {
                        faults.push(DropReason::HeaderTruncated);
                        return None;
                    }
                    let offset = word(b, at + 2) / 8 * 8;
                    let id = u32::from_be_bytes(b[at + 4..at + 8].try_into().unwrap());
                    let piece = Piece { id, offset, more: b[at + 3] % 2 == 1 };
                    packet.fragment = Some(piece);
                    packet.next = b[at];
                    at += 8;
                    check_piece(piece, total - at, faults);
                    if packet.next == 51 {
                        faults.push(DropReason::ExtensionHeader);
                        return None;
                    }
                }
                _ => break,
            }
        }
        packet.announced = total - at;
        packet.payload = b[at..].to_vec();
        Some(packet)
    }
}

/// What is behind the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    Tcp,
    Udp,
    Echo {
        request: bool,
    },
    Error {
        kind: u8,
        code: u8,
    },
    OtherIcmp,
    /// RFC 4340 §5.1; to us, a protocol with a checksum and without ports.
    Dccp,
    /// RFC 3828 §3.1, likewise.
    UdpLite,
    Other,
    Later,
}

impl Upper {
    /// `payload` is what is there of `announced` octets; `fragment` only of a real fragment.
    pub fn read(
        v6: bool,
        protocol: u8,
        payload: &[u8],
        announced: usize,
        fragment: Option<Piece>,
        quoted: bool,
    ) -> Result<Upper, DropReason> {
        // What only the other version knows, and IGMP, which RFC 7915 drops in either.
        let illegal: &[u8] = if v6 { &[1, 2] } else { &[0, 2, 43, 44, 58, 60] };
        if illegal.contains(&protocol) {
            return Err(DropReason::ProtocolIllegal);
        }
        let is_icmp = protocol == if v6 { 58 } else { 1 };
        if fragment.is_some() && is_icmp {
            return Err(DropReason::FragmentedIcmp);
        }
        if fragment.is_some_and(|f| f.offset > 0) {
            let overlaps_first = protocol == 6 && fragment.is_some_and(|f| f.offset < 20);
            return if overlaps_first { Err(DropReason::FragmentIllegal) } else { Ok(Upper::Later) };
        }
        let short = if fragment.is_some() { DropReason::FragmentIllegal } else { DropReason::HeaderTruncated };
        match protocol {
            6 => {
                if payload.len() < if quoted { 8 } else { 20 } {
                    return Err(short);
                }
                let header = usize::from(payload.get(12).map_or(5, |o| o / 16)) * 4;
                if !quoted && (header < 20 || (fragment.is_none() && header > announced)) {
                    return Err(DropReason::LengthMismatch);
                }
                Ok(Upper::Tcp)
            }
            17 => {
                if payload.len() < 8 {
                    return Err(short);
                }
                let len = word(payload, 4);
                if !quoted && (len < 8 || (fragment.is_none() && len > announced)) {
                    return Err(DropReason::LengthMismatch);
                }
                Ok(Upper::Udp)
            }
            _ if is_icmp => {
                if payload.len() < 8 {
                    return Err(short);
                }
                let (kind, code) = (payload[0], payload[1]);
                let [request, reply] = if v6 { [128, 129] } else { [8, 0] };
                if (kind == request || kind == reply) && code == 0 {
                    return Ok(Upper::Echo { request: kind == request });
                }
                let is_error = if v6 { kind < 128 } else { [3, 4, 5, 11, 12].contains(&kind) };
                Ok(if is_error { Upper::Error { kind, code } } else { Upper::OtherIcmp })
            }
            33 if payload.len() >= 8 => Ok(Upper::Dccp),
            136 if payload.len() >= 8 => Ok(Upper::UdpLite),
            _ => Ok(Upper::Other),
        }
    }

    /// The octets that the checksum field stands at.
    pub fn checksum_at(&self) -> Option<usize> {
        match self {
            Upper::Tcp => Some(16),
            Upper::Udp | Upper::Dccp | Upper::UdpLite => Some(6),
            Upper::Echo { .. } => Some(2),
            _ => None,
        }
    }

    /// Source and destination port; the identifier twice.
    pub fn ports(&self, payload: &[u8]) -> Option<(u16, u16)> {
        match self {
            Upper::Tcp | Upper::Udp => Some((word(payload, 0) as u16, word(payload, 2) as u16)),
            Upper::Echo { .. } => Some((word(payload, 4) as u16, word(payload, 4) as u16)),
            _ => None,
        }
    }

    /// Octets that the checksum covers: UDP has a length of its own.
    pub fn covered(&self, payload: &[u8], announced: usize) -> usize {
        match self {
            Upper::Udp => word(payload, 4),
            _ => announced,
        }
    }
}

/// Puts the checksum into a transport header, computed over all of `payload`. `protocol` 1 has no pseudo-header.
pub fn complete(payload: &mut [u8], protocol: u8, src: &[u8], dst: &[u8]) {
    let (at, covered) = match protocol {
        6 => (16, payload.len()),
        17 => (6, word(payload, 4)),
        33 | 136 => (6, payload.len()),
        _ => (2, payload.len()),
    };
    set_word(payload, at, 0);
    let header = if protocol == 1 { 0 } else { pseudo(src, dst, covered, protocol) };
    let mut field = field_for(header + sum(&payload[..covered]));
    if (protocol == 17 || protocol == 136) && field == 0 {
        field = 0xffff;
    }
    set_word(payload, at, field);
}

/// Every MSS option (kind 2, length 4) of a TCP header above `limit` becomes `limit`; the sum of all stays what it is.
/// Options that make no sense end the walk, and so does the end of what is there.
pub fn lower_mss(payload: &mut [u8], limit: usize) {
    let before = sum(payload);
    let end = payload.len().min(usize::from(payload[12] / 16) * 4);
    let mut at = 20;
    let mut changed = false;
    while at < end && payload[at] != 0 {
        if payload[at] == 1 {
            at += 1;
            continue;
        }
        if at + 1 >= end || payload[at + 1] < 2 || at + usize::from(payload[at + 1]) > end {
            break;
        }
        if payload[at] == 2 && payload[at + 1] == 4 && word(payload, at + 2) > limit {
            set_word(payload, at + 2, limit);
            changed = true;
        }
        at += usize::from(payload[at + 1]);
    }
    if changed {
        set_word(payload, 16, 0);
        let without = sum(payload);
        set_word(payload, 16, field_for(without + 65535 - before));
    }
}

/// The transport header of a translated packet: new ports, new ICMP type, and the checksum field by which the sum of
/// everything is wrong by as much as before: a right one stays right, a wrong one wrong.
pub struct Rewrite<'a> {
    pub upper: &'a Upper,
    pub src_port: u16,
    pub dst_port: u16,
    /// Of an echo.
    pub icmp_type: u8,
    pub old_pseudo: usize,
    pub new_pseudo: usize,
}

impl Rewrite<'_> {
    /// Octets that are not there (of a fragment, of a quote) are the same before and after, so they cancel out.
    pub fn apply(&self, payload: &mut [u8]) {
        let old: Vec<u8> = payload.to_vec();
        let head = match self.upper {
            Upper::Dccp | Upper::UdpLite => 0,
            Upper::Tcp | Upper::Udp => {
                set_word(payload, 0, usize::from(self.src_port));
                set_word(payload, 2, usize::from(self.dst_port));
                4
            }
            Upper::Echo { .. } => {
                payload[0] = self.icmp_type;
                set_word(payload, 4, usize::from(self.src_port));
                6
            }
            _ => return,
        };
        let at = self.upper.checksum_at().unwrap();
        if payload.len() < at + 2 {
            return;
        }
        let before = word(&old, at);
        // Sent without; UDP-Lite may not be, so what came wrong stays wrong.
        if matches!(self.upper, Upper::Udp | Upper::UdpLite) && before == 0 {
            return;
        }
        // Without the field itself.
        let count = |b: &[u8]| {
            let mut b = b[..head].to_vec();
            if at < head {
                set_word(&mut b, at, 0);
            }
            sum(&b)
        };
        let changed = (self.new_pseudo + count(payload)) + 2 * 65535 - (self.old_pseudo + count(&old)) % 65535;
        let mut field = field_for(65535 - before % 65535 + changed);
        if matches!(self.upper, Upper::Udp | Upper::UdpLite) && field == 0 {
            field = 0xffff;
        }
        set_word(payload, at, field);
    }
}

/// The payload of the pieces that fit into `room` octets each (a multiple of 8 but for the last), as RFC 791 §3.2.
pub fn cut(payload: &[u8], room: usize, place: Piece) -> Vec<(Piece, Vec<u8>)> {
    let step = room / 8 * 8;
    let mut pieces = Vec::new();
    let mut from = 0;
    while from < payload.len() {
        let to = payload.len().min(from + step);
        let more = place.more || to < payload.len();
        pieces.push((Piece { id: place.id, offset: place.offset + from, more }, payload[from..to].to_vec()));
        from = to;
    }
    pieces
}
