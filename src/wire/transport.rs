//! What stands behind the IP header.

use super::ip::{Extent, be16, protocol};

/// The part of a transport header that mapping needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// FIN 1, SYN 2, RST 4, ACK 16.
        flags: u8,
        /// Octets of the header; 20 where only a beginning is quoted.
        header_len: usize,
    },
    /// UDP.
    Udp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// The checksum field.
        checksum: u16,
    },
    /// ICMP echo request or reply.
    Echo {
        /// Identifier.
        id: u16,
        /// Request, or reply.
        request: bool,
    },
    /// An ICMP error.
    IcmpError {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Any other ICMP message.
    IcmpOther {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Any other protocol.
    Other,
    /// A later fragment: the header is in another packet.
    Later {
        /// Source and destination port, where that other packet is known.
        ports: Option<(u16, u16)>,
    },
}

/// Why there is no transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// The octets end before it does.
    Truncated,
    /// Its own length cannot be.
    Length,
}

/// Which ICMP a protocol number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ICMPv4 where the protocol is 1.
    V4,
    /// ICMPv6 where the protocol is 58.
    V6,
}

impl Transport {
    /// Reads the header at the start of `b`, which holds what is there of `len` announced octets.
    /// `last` says that no fragment follows, so that lengths must agree.
    #[inline(always)]
    pub fn parse(
        family: Family,
        number: u8,
        b: &[u8],
        len: usize,
        extent: Extent,
        last: bool,
    ) -> Result<Transport, TransportError> {
        let whole = extent == Extent::Whole;
        match number {
            protocol::TCP => {
                let Some(h) = b.first_chunk::<8>() else { return Err(TransportError::Truncated) };
                let (src, dst) = (be16(h, 0), be16(h, 2));
                if !whole {
                    let flags = b.get(13).copied().unwrap_or(0);
                    return Ok(Transport::Tcp { src, dst, flags, header_len: 20 });
                }
                let Some(h) = b.first_chunk::<20>() else { return Err(TransportError::Truncated) };
                let header_len = usize::from(h[12] >> 4) * 4;
                if header_len < 20 || (last && header_len > len) {
                    return Err(TransportError::Length);
                }
                Ok(Transport::Tcp { src, dst, flags: h[13], header_len })
            }
            protocol::UDP => {
                let Some(h) = b.first_chunk::<8>() else { return Err(TransportError::Truncated) };
                let announced = usize::from(be16(h, 4));
                if whole && (announced < 8 || (last && announced > len)) {
                    return Err(TransportError::Length);
                }
                Ok(Transport::Udp { src: be16(h, 0), dst: be16(h, 2), checksum: be16(h, 6) })
            }
            protocol::ICMP if family == Family::V4 => icmp(b, [8, 0], |kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
            protocol::ICMPV6 if family == Family::V6 => icmp(b, [128, 129], |kind| kind < 128),
            _ => Ok(Transport::Other),
        }
    }
}

fn icmp(b: &[u8], echo: [u8; 2], is_error: impl Fn(u8) -> bool) -> Result<Transport, TransportError> {
    let Some(h) = b.first_chunk::<8>() else { return Err(TransportError::Truncated) };
    let (kind, code) = (h[0], h[1]);
    // An echo with a code is no echo (RFC 792, RFC 4443 §4.1).
    if echo.contains(&kind) && code == 0 {
        return Ok(Transport::Echo { id: be16(h, 4), request: kind == echo[0] });
    }
    if is_error(kind) { Ok(Transport::IcmpError { kind, code }) } else { Ok(Transport::IcmpOther { kind, code }) }
}
