//! IPv4 and IPv6 headers, read once into plain values.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;

/// Protocol numbers that matter here (IANA).
pub mod protocol {
    /// IPv6 Hop-by-Hop Options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 Routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication Header.
    pub const AH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 Destination Options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Wrong version nibble.
    Version,
    /// Fewer octets than the headers need.
    Truncated,
    /// A length field that cannot be.
    Length,
    /// Wrong IPv4 header checksum.
    HeaderChecksum,
    /// An extension header that cannot be translated (RFC 7915 §5.1.1).
    ExtensionHeader,
    /// A fragment that cannot be (RFC 791, RFC 8200 §4.5).
    Fragment,
}

/// Whether the packet is all there, or a beginning quoted in an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All octets that the length field announces must be there.
    Whole,
    /// The headers must be there.
    Quoted,
}

/// A place in a fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification; 16 bits in IPv4.
    pub id: u32,
    /// Offset in octets, a multiple of 8.
    pub offset: u32,
    /// More fragments follow.
    pub more: bool,
}

impl Fragment {
    /// Offset 0 and nothing follows (RFC 6946).
    pub fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// An IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Octets of the header, options included.
    pub header_len: usize,
    /// Total Length.
    pub total_len: usize,
    /// TOS octet.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Don't Fragment.
    pub df: bool,
    /// More Fragments.
    pub mf: bool,
    /// Fragment offset in octets.
    pub offset: u32,
    /// Time to Live.
    pub ttl: u8,
    /// Protocol.
    pub protocol: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
}

/// A 16-bit word at `at`; the caller has checked the length.
#[inline(always)]
pub fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

/// What is no IP at all is not called a short packet.
fn too_short(b: &[u8], version: u8) -> WireError {
    if b.first().is_some_and(|first| first >> 4 != version) { WireError::Version } else { WireError::Truncated }
}

#[inline(always)]
fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[inline(always)]
fn address6(b: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&b[at..at + 16]);
    Ipv6Addr::from(octets)
}

impl Ipv4Header {
    /// Reads and checks a header.
    #[inline(always)]
    pub fn parse(b: &[u8], extent: Extent) -> Result<Ipv4Header, WireError> {
        let Some(fixed) = b.first_chunk::<20>() else { return Err(too_short(b, 4)) };
        if fixed[0] >> 4 != 4 {
            return Err(WireError::Version);
        }
        let header_len = usize::from(fixed[0] & 15) * 4;
        let total_len = usize::from(be16(fixed, 2));
        if header_len < 20 || total_len < header_len {
            return Err(WireError::Length);
        }
        if b.len() < header_len {
            return Err(WireError::Truncated);
        }
        if extent == Extent::Whole {
            if b.len() < total_len {
                return Err(WireError::Truncated);
            }
            let sum = if header_len == 20 { Sum::of_array(fixed) } else { Sum::of(&b[..header_len]) };
            if !sum.is_valid() {
                return Err(WireError::HeaderChecksum);
            }
        }
        let flags = be16(fixed, 6);
        let header = Ipv4Header {
            header_len,
            total_len,
            tos: fixed[1],
            id: be16(fixed, 4),
            df: flags & 0x4000 != 0,
            mf: flags & 0x2000 != 0,
            offset: u32::from(flags & 0x1fff) * 8,
            ttl: fixed[8],
            protocol: fixed[9],
            src: Ipv4Addr::from(be32(fixed, 12)),
            dst: Ipv4Addr::from(be32(fixed, 16)),
        };
        header.fragment().map_or(Ok(()), |f| check_fragment(f, header.payload_len()))?;
        Ok(header)
    }

    /// Octets behind the header.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        self.total_len - self.header_len
    }

    /// The place in a fragmented packet; `None` for a whole one.
    #[inline(always)]
    pub fn fragment(&self) -> Option<Fragment> {
        (self.mf || self.offset != 0).then_some(Fragment { id: u32::from(self.id), offset: self.offset, more: self.mf })
    }
}

/// Whether the options hold a source route that is not used up (LSRR 131, SSRR 137; RFC 791 §3.1).
pub fn has_unexpired_source_route(options: &[u8]) -> bool {
    let mut rest = options;
    loop {
        match rest {
            [] | [0, ..] => return false,
            [1, more @ ..] => rest = more,
            [kind, len, ..] => {
                let len = usize::from(*len);
                // A length below 2 or beyond the header would never end or leave the options.
                if len < 2 || len > rest.len() {
                    return false;
                }
                if matches!(kind, 131 | 137) && len >= 3 && usize::from(rest[2]) <= len {
                    return true;
                }
                rest = &rest[len..];
            }
            [_] => return false,
        }
    }
}

/// An IPv6 header and the extension headers behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Traffic Class.
    pub traffic_class: u8,
    /// Hop Limit.
    pub hop_limit: u8,
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Octets of the packet, 40 and Payload Length.
    pub total_len: usize,
    /// Where the upper-layer header (or a later fragment's data) begins.
    pub header_len: usize,
    /// The first next header that is no extension header to skip.
    pub protocol: u8,
    /// The Fragment header, atomic ones included.
    pub fragment: Option<Fragment>,
    /// Where the Segments Left octet of a Routing header with segments left stands.
    pub segments_left_at: Option<usize>,
}

impl Ipv6Header {
    /// Reads the header and walks the extension headers.
    #[inline(always)]
    pub fn parse(b: &[u8], extent: Extent) -> Result<Ipv6Header, WireError> {
        let Some(fixed) = b.first_chunk::<40>() else { return Err(too_short(b, 6)) };
        if fixed[0] >> 4 != 6 {
            return Err(WireError::Version);
        }
        let total_len = 40 + usize::from(be16(fixed, 4));
        if extent == Extent::Whole && b.len() < total_len {
            return Err(WireError::Truncated);
        }
        let mut header = Ipv6Header {
            traffic_class: (be16(fixed, 0) >> 4) as u8,
            hop_limit: fixed[7],
            src: address6(fixed, 8),
            dst: address6(fixed, 24),
            total_len,
            header_len: 40,
            protocol: fixed[6],
            fragment: None,
            segments_left_at: None,
        };
        if is_extension(header.protocol) || header.protocol == protocol::FRAGMENT {
            header.walk(&b[..b.len().min(total_len)])?;
        }
        Ok(header)
    }

    /// Each turn takes at least 8 octets, so the walk ends.
    fn walk(&mut self, b: &[u8]) -> Result<(), WireError> {
        loop {
            let at = self.header_len;
            match self.protocol {
                protocol::FRAGMENT => {
                    let Some(f) = b.get(at..at + 8) else { return Err(WireError::Truncated) };
                    if self.fragment.is_some() {
                        return Err(WireError::ExtensionHeader);
                    }
                    let word = be16(f, 2);
                    let fragment = Fragment { id: be32(f, 4), offset: u32::from(word & 0xfff8), more: word & 1 != 0 };
                    self.protocol = f[0];
                    self.header_len = at + 8;
                    check_fragment(fragment, self.total_len - self.header_len)?;
                    self.fragment = Some(fragment);
                    // RFC 7915 §5.1.1: what stands behind a Fragment header cannot be skipped.
                    if is_extension(self.protocol) || self.protocol == protocol::AH {
                        return Err(WireError::ExtensionHeader);
                    }
                }
                p if is_extension(p) => {
                    let Some(head) = b.get(at..at + 8) else { return Err(WireError::Truncated) };
                    let len = 8 + usize::from(head[1]) * 8;
                    if p == protocol::ROUTING && head[3] != 0 && self.segments_left_at.is_none() {
                        self.segments_left_at = Some(at + 3);
                    }
                    if b.len() < at + len {
                        return Err(WireError::Truncated);
                    }
                    self.protocol = head[0];
                    self.header_len = at + len;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Octets behind the headers that are skipped.
    #[inline(always)]
    pub fn payload_len(&self) -> usize {
        self.total_len - self.header_len
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS)
}

/// Offsets count in 8 octets, and no fragment may reach beyond 65,535 (ping of death).
fn check_fragment(f: Fragment, len: usize) -> Result<(), WireError> {
    let ragged = f.more && !len.is_multiple_of(8);
    // Receivers throw away a piece of nothing; here it would be held for nothing.
    let empty = !f.is_atomic() && len == 0;
    if ragged || empty || f.offset as usize + len > 65_535 { Err(WireError::Fragment) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_routes_and_hostile_options() {
        assert!(has_unexpired_source_route(&[131, 7, 4, 10, 0, 0, 1, 0]));
        assert!(has_unexpired_source_route(&[1, 137, 7, 4, 10, 0, 0, 1]));
        assert!(!has_unexpired_source_route(&[131, 7, 8, 10, 0, 0, 1, 0]), "used up");
        assert!(!has_unexpired_source_route(&[7, 0, 4, 10]), "P29: length 0 must end the walk");
        assert!(!has_unexpired_source_route(&[7, 200, 4, 10]));
        assert!(!has_unexpired_source_route(&[1, 1, 1, 131]));
        assert!(!has_unexpired_source_route(&[0, 131, 7, 4]));
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0x6b, 0x9a, 0xbc, 0xde];
        b.extend((payload.len() as u16).to_be_bytes());
        b.extend([next, 63]);
        b.extend([0x20; 16]);
        b.extend([0x30; 16]);
        b.extend(payload);
        b
    }

    #[test]
    fn walks_extension_headers() {
        let mut payload = vec![43, 0, 1, 4, 0, 0, 0, 0];
        payload.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend([17, 0, 0, 0, 1, 2, 3, 4]);
        payload.extend([0; 8]);
        let header = Ipv6Header::parse(&v6(0, &payload), Extent::Whole).unwrap();
        assert_eq!(header.traffic_class, 0xb9);
        assert_eq!(header.header_len, 40 + 40);
        assert_eq!(header.protocol, 17);
        assert_eq!(header.fragment, Some(Fragment { id: 0x01020304, offset: 0, more: false }));
        assert_eq!(header.segments_left_at, None);
    }

    #[test]
    fn points_at_segments_left() {
        let payload = [17, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
        assert_eq!(Ipv6Header::parse(&v6(43, &payload), Extent::Whole).unwrap().segments_left_at, Some(43));
    }

    #[test]
    fn chains_that_lie_are_refused() {
        assert_eq!(Ipv6Header::parse(&v6(0, &[17, 1, 0, 0, 0, 0, 0, 0]), Extent::Whole), Err(WireError::Truncated));
        assert_eq!(
            Ipv6Header::parse(&v6(44, &[60, 0, 0, 0, 0, 0, 0, 0]), Extent::Whole),
            Err(WireError::ExtensionHeader)
        );
        assert_eq!(
            Ipv6Header::parse(&v6(44, &[17, 0, 0xff, 0xf9, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), Extent::Whole),
            Err(WireError::Fragment)
        );
    }
}
