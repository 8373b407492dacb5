//! Packets judged slowly and by themselves: nothing here uses the code under test but for the offload's fields.

use mapt::wire::VnetHdr;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const DCCP: u8 = 33;
const FRAGMENT: u8 = 44;
const UDP_LITE: u8 = 136;

pub fn word(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn put(b: &mut [u8], at: usize, value: u16) {
    b[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// RFC 1071 §4.1, word by word, folded at once.
pub fn sum(start: u32, bytes: &[u8]) -> u32 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum
}

/// Whether two sums are the same number: in one's complement, 0 is 0xffff.
fn same(a: u32, b: u32) -> bool {
    a % 0xffff == b % 0xffff
}

/// A packet and its offload request.
#[derive(Clone, Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub offload: Option<VnetHdr>,
}

impl Packet {
    pub fn needs_csum(&self) -> bool {
        self.offload.is_some_and(|o| o.needs_csum())
    }

    pub fn is_gso(&self) -> bool {
        self.offload.is_some_and(|o| o.is_gso())
    }
}

/// An IP packet taken apart.
#[derive(Clone, Debug)]
pub struct Ip<'a> {
    pub v6: bool,
    pub src: &'a [u8],
    pub dst: &'a [u8],
    pub protocol: u8,
    pub header_len: usize,
    pub total_len: usize,
    /// Identification, offset, more; `None` also for an atomic fragment.
    pub fragment: Option<(u32, usize, bool)>,
    /// As much as there is.
    pub payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Takes a header apart; the payload may end early.
    pub fn quoted(b: &'a [u8]) -> Option<Ip<'a>> {
        match b.first()? >> 4 {
            4 => {
                let header_len = usize::from(b[0] & 15) * 4;
                if header_len < 20 || b.len() < header_len || usize::from(word(b, 2)) < header_len {
                    return None;
                }
                let (total_len, flags) = (usize::from(word(b, 2)), word(b, 6));
                let place = (u32::from(word(b, 4)), usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0);
                Some(Ip {
                    v6: false,
                    src: &b[12..16],
                    dst: &b[16..20],
                    protocol: b[9],
                    header_len,
                    total_len,
                    fragment: (place.1 > 0 || place.2).then_some(place),
                    payload: &b[header_len..b.len().min(total_len)],
                })
            }
            6 if b.len() >= 40 => {
                let total_len = 40 + usize::from(word(b, 4));
                let end = b.len().min(total_len);
                let (mut protocol, mut header_len, mut fragment) = (b[6], 40, None);
                loop {
                    let len = match protocol {
                        0 | 43 | 60 => 8 + 8 * usize::from(*b[..end].get(header_len + 1)?),
                        FRAGMENT => {
                            let f = b[..end].get(header_len..header_len + 8)?;
                            let id = u32::from(word(f, 4)) << 16 | u32::from(word(f, 6));
                            let place = (id, usize::from(word(f, 2) & 0xfff8), f[3] & 1 != 0);
                            fragment = (place.1 > 0 || place.2).then_some(place);
                            8
                        }
                        _ => break,
                    };
                    protocol = b[header_len];
                    header_len += len;
                    if header_len > end {
                        return None;
                    }
                }
                Some(Ip {
                    v6: true,
                    src: &b[8..24],
                    dst: &b[24..40],
                    protocol,
                    header_len,
                    total_len,
                    fragment,
                    payload: &b[header_len..end],
                })
            }
            _ => None,
        }
    }

    /// A whole packet with a right header checksum.
    pub fn whole(b: &'a [u8]) -> Option<Ip<'a>> {
        let ip = Ip::quoted(b)?;
        let header = ip.v6 || sum(0, &b[..ip.header_len]) == 0xffff;
        (header && b.len() >= ip.total_len).then_some(ip)
    }

    /// What the fragments of one packet have in common.
    pub fn fragment_key(&self) -> (&[u8], &[u8], u8, Option<u32>) {
        (self.src, self.dst, self.protocol, self.fragment.map(|(id, ..)| id))
    }

    pub fn is_icmp(&self) -> bool {
        self.protocol == if self.v6 { ICMPV6 } else { ICMP }
    }

    pub fn is_icmp_error(&self) -> bool {
        self.is_icmp()
            && self.fragment.is_none()
            && self.payload.first().is_some_and(|&t| if self.v6 { t < 128 } else { matches!(t, 3 | 4 | 5 | 11 | 12) })
    }

    fn pseudo(&self, len: usize) -> u32 {
        let upper = sum(sum(0, self.src), self.dst);
        let len = (len as u32).to_be_bytes();
        sum(sum(upper, &len), &[0, self.protocol])
    }

    /// Whether the transport checksum of `payload`, all of it, is right; `None` where none is to be expected.
    pub fn transport_is_valid(&self, payload: &[u8], partial: bool) -> Option<bool> {
        let (field, covered) = match self.protocol {
            TCP if payload.len() >= 20 => (16, payload.len()),
            UDP if payload.len() >= 8 => {
                let announced = usize::from(word(payload, 4));
                if announced < 8 || announced > payload.len() {
                    return None;
                }
                (6, announced)
            }
            _ if self.is_icmp() && payload.len() >= 8 => (2, payload.len()),
            _ => return None,
        };
        let there = word(payload, field);
        if partial {
            return Some(same(u32::from(there), self.pseudo(payload.len())));
        }
        if self.protocol == UDP && there == 0 {
            return None;
        }
        let start = if self.protocol == ICMP { 0 } else { self.pseudo(covered) };
        Some(same(sum(start, &payload[..covered]), 0xffff))
    }

    /// The port (or identifier) of the one or the other end.
    pub fn port(&self, source: bool) -> Option<u16> {
        match self.protocol {
            _ if self.fragment.is_some_and(|(_, offset, _)| offset > 0) => None,
            TCP | UDP if self.payload.len() >= 4 => Some(word(self.payload, if source { 0 } else { 2 })),
            _ if self.is_icmp() && !self.is_icmp_error() && self.payload.len() >= 8 => Some(word(self.payload, 4)),
            _ => None,
        }
    }
}

/// Sets every length and checksum to what it should be.
pub fn mend(packet: &mut Packet) {
    let Packet { bytes, offload } = packet;
    let len = bytes.len();
    match bytes.first().map(|b| b >> 4) {
        Some(4) if (20..=65_535).contains(&len) => {
            put(bytes, 2, len as u16);
            let header_len = usize::from(bytes[0] & 15) * 4;
            if header_len < 20 || len < header_len {
                return;
            }
            put(bytes, 10, 0);
            let checksum = !(sum(0, &bytes[..header_len]) as u16);
            put(bytes, 10, checksum);
        }
        Some(6) if (40..=65_575).contains(&len) => put(bytes, 4, (len - 40) as u16),
        _ => return,
    }
    let Some(ip) = Ip::quoted(bytes) else { return };
    let (at, protocol, icmp) = (ip.header_len, ip.protocol, ip.is_icmp());
    let field = match (protocol, len - at) {
        _ if ip.fragment.is_some() => return,
        (TCP, 20..) => at + 16,
        (UDP, 8..=65_535) => at + 6,
        (_, 8..) if icmp => at + 2,
        _ => return,
    };
    if protocol == UDP {
        put(bytes, at + 4, (len - at) as u16);
    }
    put(bytes, field, 0);
    let ip = Ip::quoted(bytes).expect("as before");
    let pseudo = if protocol == ICMP { 0 } else { ip.pseudo(len - at) };
    let value = if offload.is_some_and(|o| o.needs_csum()) {
        pseudo as u16
    } else {
        match !(sum(pseudo, ip.payload) as u16) {
            0 if protocol == UDP => 0xffff,
            value => value,
        }
    };
    put(bytes, field, value);
}

/// Sets an IPv4 header's checksum to what it should be.
pub fn mend_header(packet: &mut Packet) {
    put(&mut packet.bytes, 10, 0);
    let checksum = !(sum(0, &packet.bytes[..20]) as u16);
    put(&mut packet.bytes, 10, checksum);
}

/// The packet that answers this one: addresses and ports change places, a request becomes a reply.
pub fn answer(packet: &Packet) -> Packet {
    let mut bytes = packet.bytes.clone();
    let Some(ip) = Ip::quoted(&packet.bytes) else { return packet.clone() };
    let (at, len) = if ip.v6 { (8, 16) } else { (12, 4) };
    bytes[at..at + len].copy_from_slice(ip.dst);
    bytes[at + len..at + 2 * len].copy_from_slice(ip.src);
    let l4 = ip.header_len;
    if matches!(ip.protocol, TCP | UDP) && ip.port(true).is_some() {
        bytes[l4..l4 + 2].copy_from_slice(&ip.payload[2..4]);
        bytes[l4 + 2..l4 + 4].copy_from_slice(&ip.payload[..2]);
    }
    let mut answer = Packet { bytes, offload: packet.offload };
    if ip.is_icmp() && ip.payload.len() >= 8 {
        match (ip.v6, ip.payload[0]) {
            (true, 128) => answer.bytes[l4] = 129,
            (false, 8) => answer.bytes[l4] = 0,
            _ => {}
        }
        mend(&mut answer);
    }
    answer
}

/// An ICMP error about `packet`, from a router between.
pub fn error(packet: &Packet, kind: u8, code: u8, rest: [u8; 4]) -> Packet {
    let Some(ip) = Ip::quoted(&packet.bytes) else { return packet.clone() };
    let mut bytes = Vec::new();
    if ip.v6 {
        bytes.extend([0x60, 0, 0, 0, 0, 0, ICMPV6, 63]);
        bytes.extend([0x20, 1, 0x0d, 0xb8, 0xee, 0xee, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    } else {
        bytes.extend([0x45, 0, 0, 0, 0, 7, 0, 0, 63, ICMP, 0, 0, 203, 0, 113, 77]);
    }
    bytes.extend(ip.src);
    bytes.extend([kind, code, 0, 0]);
    bytes.extend(rest);
    bytes.extend(&packet.bytes[..packet.bytes.len().min(if ip.v6 { 1232 } else { 548 })]);
    let mut error = Packet { bytes, offload: None };
    mend(&mut error);
    error
}

/// What translation must have kept of a transport header and its payload; `first`: the header is there.
pub fn same_transport(ip: &Ip, before: &[u8], after: &[u8], first: bool) -> bool {
    // The fields that may differ: ports and checksum, ICMP type and identifier.
    let may_differ: &[std::ops::Range<usize>] = match ip.protocol {
        _ if !first => &[],
        // The MSS of a SYN, somewhere in its options.
        TCP if before.get(13).is_some_and(|flags| flags & 2 != 0) => &[0..4, 16..18, 22..60],
        TCP => &[0..4, 16..18],
        DCCP | UDP_LITE if before.len() >= 8 => &[6..7, 7..8],
        UDP => &[0..4, 6..8],
        _ if ip.is_icmp() => &[0..1, 2..6],
        _ => &[],
    };
    before.len() == after.len()
        && (0..before.len()).all(|i| before[i] == after[i] || may_differ.iter().any(|range| range.contains(&i)))
}

/// Puts consecutive fragments together: payloads, each with the outermost header of its packet.
pub fn reassemble<'a>(outputs: &'a [Packet]) -> Vec<(Ip<'a>, Vec<u8>, &'a Packet)> {
    let mut wholes: Vec<(Ip, Vec<u8>, &Packet)> = Vec::new();
    let mut open: Option<(u32, usize)> = None;
    for packet in outputs {
        let ip = Ip::whole(&packet.bytes).unwrap_or_else(|| panic!("an output that is no packet: {packet:02x?}"));
        assert_eq!(ip.total_len, packet.bytes.len(), "an output announces what it has");
        match (ip.fragment, open) {
            (Some((id, offset, more)), Some(next)) => {
                assert_eq!((id, offset), next, "the next fragment of the same packet: {packet:02x?}");
                let (_, payload, _) = wholes.last_mut().expect("one is open");
                payload.extend(ip.payload);
                open = more.then_some((id, offset + ip.payload.len()));
            }
            (Some((id, offset, more)), None) => {
                open = more.then_some((id, offset + ip.payload.len()));
                wholes.push((ip.clone(), ip.payload.to_vec(), packet));
            }
            (None, _) => {
                assert_eq!(open, None, "fragments that never ended");
                wholes.push((ip.clone(), ip.payload.to_vec(), packet));
            }
        }
    }
    wholes
}

/// How many of the first outputs are the pieces of this fragment: 0 where they are another's, with other octets.
pub fn pieces_of(input: &Packet, outputs: &[Packet]) -> usize {
    let ip = Ip::whole(&input.bytes).expect("a fragment");
    let (_, offset, _) = ip.fragment.expect("a fragment");
    let mut payload: Vec<u8> = Vec::new();
    let mut count = 0;
    for output in outputs {
        let Some(out) = Ip::whole(&output.bytes) else { break };
        let next = out.fragment.is_some_and(|(_, at, _)| at == offset + payload.len());
        if !next || payload.len() >= ip.payload.len() {
            break;
        }
        payload.extend(out.payload);
        count += 1;
    }
    if offset == 0 || payload == ip.payload { count } else { 0 }
}

/// Holds the outputs of a forwarded packet against it. `new_ids`: a fragment may have another Identification.
pub fn check_forwarded(input: &Packet, outputs: &[Packet], new_ids: bool) {
    let ip = Ip::whole(&input.bytes).unwrap_or_else(|| panic!("forwarded what is no packet: {input:02x?}"));
    let wholes = reassemble(outputs);
    assert!(!wholes.is_empty());
    for (out, _, _) in &wholes {
        assert_ne!(out.v6, ip.v6, "the other family comes out");
        let number = if ip.is_icmp() { if out.v6 { ICMPV6 } else { ICMP } } else { ip.protocol };
        assert_eq!(out.protocol, number);
    }
    if ip.is_icmp_error() {
        assert_eq!(wholes.len(), 1);
        return check_error(&ip, &wholes[0].0);
    }
    if input.is_gso() {
        let [(out, payload, packet)] = &wholes[..] else { return check_segments(&ip, input, &wholes) };
        if packet.is_gso() {
            assert!(same_transport(&ip, ip.payload, payload, true), "{input:02x?} became {packet:02x?}");
            if ip.transport_is_valid(ip.payload, true) == Some(true) {
                assert_eq!(out.transport_is_valid(payload, true), Some(true), "partial checksum: {packet:02x?}");
            }
        } else {
            check_segments(&ip, input, &wholes);
        }
        return;
    }
    let [(out, payload, packet)] = &wholes[..] else { panic!("one packet became {}", wholes.len()) };
    let first = match (ip.fragment, out.fragment) {
        (None, None) => true,
        (Some((id, offset, _)), Some((out_id, out_offset, _))) => {
            let id = if new_ids { out_id } else { id };
            assert_eq!((id & 0xffff, offset), (out_id & 0xffff, out_offset), "a fragment keeps its place");
            offset == 0
        }
        // An unfragmented packet that was cut: its pieces were put together above.
        (None, Some((_, offset, _))) => {
            assert_eq!(offset, 0);
            true
        }
        (Some(_), None) => panic!("a fragment became a whole packet"),
    };
    assert!(same_transport(&ip, ip.payload, payload, first), "{:02x?} became {payload:02x?}", ip.payload);
    if ip.fragment.is_some() {
        return;
    }
    let before = ip.transport_is_valid(ip.payload, input.needs_csum());
    let after = out.transport_is_valid(payload, packet.needs_csum());
    match (before, after) {
        // No checksum in IPv4: it was computed.
        (None, after) => assert_ne!(after, Some(false), "{packet:02x?}"),
        (Some(true), after) => assert_eq!(after, Some(true), "{packet:02x?}"),
        // What is broken stays so, for the receiver to see; one that the device was to compute may come out right.
        (Some(false), after) => assert!(input.needs_csum() || after == Some(false), "{packet:02x?}"),
    }
}

/// The segments of a superpacket: each right by itself, all octets there.
fn check_segments(ip: &Ip, input: &Packet, wholes: &[(Ip, Vec<u8>, &Packet)]) {
    let header = |protocol: u8, payload: &[u8]| match protocol {
        TCP => usize::from(payload[12] >> 4) * 4,
        _ => 8,
    };
    let mut octets: Vec<u8> = Vec::new();
    for (out, payload, packet) in wholes {
        assert!(!packet.is_gso());
        assert_eq!(out.transport_is_valid(payload, packet.needs_csum()), Some(true), "{packet:02x?}");
        octets.extend(&payload[header(out.protocol, payload)..]);
    }
    assert_eq!(octets, ip.payload[header(ip.protocol, ip.payload)..], "{input:02x?}");
}

/// What an ICMP error quotes, and the RFC 4884 extension behind it.
fn parts<'a>(ip: &Ip<'a>) -> (&'a [u8], &'a [u8]) {
    let message = ip.payload;
    let attribute = match (ip.v6, message[0]) {
        (true, 1 | 3) => usize::from(message[4]) * 8,
        (false, 3 | 11 | 12) => usize::from(message[5]) * 4,
        _ => 0,
    };
    let end = if attribute == 0 { message.len() } else { 8 + attribute };
    if end <= message.len() { (&message[8..end], &message[end..]) } else { (&message[8..], &[]) }
}

/// An ICMP error: its own checksum, the quoted header, and the quoted packet as far as it is there.
fn check_error(ip: &Ip, out: &Ip) {
    assert_eq!(ip.transport_is_valid(ip.payload, false), Some(true), "a broken error was translated");
    assert_eq!(out.transport_is_valid(out.payload, false), Some(true), "{out:02x?}");
    assert!(out.total_len <= if out.v6 { 1280 } else { 576 }, "{}", out.total_len);
    let (quoted, extension) = parts(ip);
    let (quoted_out, extension_out) = parts(out);
    if !extension_out.is_empty() {
        // One of ours is where there was none: a version, an object of class 2 with an IPv6 address.
        let ours = extension.is_empty() && extension_out.len() == 28 && extension_out[..2] == [0x20, 0];
        assert!((extension_out == extension || ours) && quoted_out.len() >= 128, "the extension: {out:02x?}");
    }
    let before = Ip::quoted(quoted).expect("what was quoted had a header");
    let after = Ip::quoted(quoted_out).unwrap_or_else(|| panic!("the quote is no packet: {out:02x?}"));
    assert_ne!(before.v6, after.v6);
    if !after.v6 {
        assert_eq!(sum(0, &out.payload[8..28]), 0xffff, "the quoted header's checksum: {out:02x?}");
    }
    assert_eq!(before.total_len - before.header_len, after.total_len - after.header_len);
    assert_eq!(
        before.fragment.map(|(id, o, m)| (id & 0xffff, o, m)),
        after.fragment.map(|(id, o, m)| (id & 0xffff, o, m))
    );
    let complete = |ip: &Ip| ip.fragment.is_none() && ip.payload.len() == ip.total_len - ip.header_len;
    if complete(&before)
        && complete(&after)
        && let Some(valid) = before.transport_is_valid(before.payload, false)
    {
        assert_eq!(after.transport_is_valid(after.payload, false), Some(valid), "the quoted checksum: {out:02x?}");
    }
}
