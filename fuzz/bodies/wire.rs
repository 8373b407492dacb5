//! Random octets as a packet: parsers that stay inside it, agree with etherparse, and segments that are right.

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use mapt::siit::{V4View, V6View};
use mapt::wire::checksum::Sum;
use mapt::wire::ip::{Extent, Ipv4Header, Ipv6Header, has_unexpired_source_route};
use mapt::wire::segment::{complete_checksum, segment, segments};
use mapt::wire::transport::{Family, Transport};
use mapt::wire::{PacketBuf, VnetHdr};

use super::oracle::{self, Ip, Packet, TCP, UDP};

/// The input: one octet of choices, ten of virtio header, the packet.
pub fn wire(data: &[u8]) {
    let Some((&[choice, ref header @ ..], bytes)) = data.split_first_chunk::<11>() else { return };
    let offload = (choice & 1 != 0).then(|| VnetHdr::from_bytes(header)).filter(|o| !o.is_plain());
    let mut packet = Packet { bytes: bytes.to_vec(), offload };
    if choice & 2 != 0 {
        oracle::mend(&mut packet);
    }
    sums(&packet.bytes);
    headers(&packet.bytes);
    buffer(&packet.bytes, header);
    offloads(&packet);
}

fn sums(bytes: &[u8]) {
    assert_eq!(u32::from(Sum::of(bytes).fold()) % 0xffff, oracle::sum(0, bytes) % 0xffff);
    has_unexpired_source_route(bytes);
    for family in [Family::V4, Family::V6] {
        for number in [1, 6, 17, 58, 132] {
            for extent in [Extent::Whole, Extent::Quoted] {
                for last in [true, false] {
                    let _ = Transport::parse(family, number, bytes, bytes.len(), extent, last);
                }
            }
        }
    }
}

fn headers(bytes: &[u8]) {
    let _ = (V4View::parse_quoted(bytes), V6View::parse_quoted(bytes));
    if let Ok(h) = Ipv4Header::parse(bytes, Extent::Whole) {
        let theirs = Ipv4HeaderSlice::from_slice(bytes).expect("etherparse takes it too");
        assert_eq!((h.header_len, h.total_len), (usize::from(theirs.ihl()) * 4, usize::from(theirs.total_len())));
        assert_eq!((h.src, h.dst), (theirs.source_addr(), theirs.destination_addr()));
        assert_eq!((h.protocol, h.ttl), (theirs.protocol().0, theirs.ttl()));
        assert_eq!(h.fragment().is_some(), theirs.is_fragmenting_payload());
        assert_eq!(oracle::sum(0, &bytes[..h.header_len]), 0xffff);
        assert!(h.header_len <= h.total_len && h.total_len <= bytes.len());
        assert_eq!(Ipv4Header::parse(bytes, Extent::Quoted), Ok(h));
    }
    if let Ok(h) = Ipv6Header::parse(bytes, Extent::Whole) {
        let theirs = Ipv6HeaderSlice::from_slice(bytes).expect("etherparse takes it too");
        assert_eq!(h.total_len, 40 + usize::from(theirs.payload_length()));
        assert_eq!((h.src, h.dst), (theirs.source_addr(), theirs.destination_addr()));
        assert_eq!((h.traffic_class, h.hop_limit), (theirs.traffic_class(), theirs.hop_limit()));
        assert!(h.header_len <= h.total_len && h.total_len <= bytes.len());
        let slow = Ip::whole(bytes).expect("the oracle takes it too");
        assert_eq!((h.protocol, h.header_len), (slow.protocol, slow.header_len));
        assert_eq!(Ipv6Header::parse(bytes, Extent::Quoted), Ok(h));
    }
}

fn buffer(bytes: &[u8], header: &[u8; 10]) {
    let mut packet = PacketBuf::new();
    let n = bytes.len().min(packet.read_area().len() - VnetHdr::LEN);
    packet.read_area()[..VnetHdr::LEN].copy_from_slice(header);
    packet.read_area()[VnetHdr::LEN..VnetHdr::LEN + n].copy_from_slice(&bytes[..n]);
    assert!(packet.commit_read(VnetHdr::LEN + n));
    assert_eq!(packet.bytes(), &bytes[..n]);
    let offload = packet.offload().unwrap_or_default();
    assert_eq!(packet.write_area()[..VnetHdr::LEN], offload.to_bytes());
    assert_eq!(packet.write_area()[VnetHdr::LEN..], bytes[..n]);
}

/// Whatever a request says, nothing panics; where request and packet agree, what comes out is right.
fn offloads(packet: &Packet) {
    let mut buffer = PacketBuf::from_slice(&packet.bytes);
    buffer.set_offload(packet.offload);
    let agrees = match packet.bytes.first().map(|b| b >> 4) {
        Some(4) => V4View::parse(&buffer).is_ok(),
        Some(6) => V6View::parse(&buffer).is_ok(),
        _ => false,
    };
    let count = segments(&buffer);
    assert!(count >= 1);
    let mut out = PacketBuf::new();
    let mut octets: Vec<u8> = Vec::new();
    for index in 0..count {
        assert!(segment(&buffer, index, &mut out));
        assert_eq!(out.offload(), None);
        // A view has seen the total length; only then are the segments packets.
        if let (true, true, Some(ip)) = (agrees, packet.is_gso(), Ip::whole(out.bytes())) {
            assert_eq!(ip.total_len, out.len());
            assert_eq!(ip.transport_is_valid(ip.payload, false), Some(true), "segment {index} of {packet:02x?}");
            let header = if ip.protocol == TCP { usize::from(ip.payload[12] >> 4) * 4 } else { 8 };
            octets.extend(&ip.payload[header..]);
        }
    }
    assert!(!segment(&buffer, count, &mut out));
    if agrees
        && packet.is_gso()
        && let Some(ip) = Ip::whole(&packet.bytes)
        && ip.total_len == packet.bytes.len()
    {
        assert!(matches!(ip.protocol, TCP | UDP));
        let header = if ip.protocol == TCP { usize::from(ip.payload[12] >> 4) * 4 } else { 8 };
        assert_eq!(octets, ip.payload[header..], "all octets, once each: {packet:02x?}");
    }
    complete_checksum(&mut buffer);
    assert_eq!(buffer.offload(), None);
    if agrees
        && packet.needs_csum()
        && !packet.is_gso()
        && let Some(ip) = Ip::whole(buffer.bytes())
        && ip.total_len == buffer.len()
        && let Some(before) = Ip::whole(&packet.bytes)
        && before.transport_is_valid(before.payload, true) == Some(true)
        && (ip.protocol == TCP || oracle::word(ip.payload, 4) as usize == ip.payload.len())
    {
        assert_eq!(ip.transport_is_valid(ip.payload, false), Some(true), "{packet:02x?}");
    }
}
