//! What a device would have done: completing a partial checksum, cutting a superpacket into segments.

use super::buf::{PacketBuf, VnetHdr};
use super::checksum::{Sum, udp_nonzero};
use super::ip::{be16, protocol};

/// The headers of a packet with an offload request, as the request describes them.
struct Layout {
    v6: bool,
    transport: usize,
    udp: bool,
}

/// Reads the layout; `None` where request and packet do not agree.
fn layout(b: &[u8], offload: &VnetHdr) -> Option<Layout> {
    let v6 = match b.first()? >> 4 {
        4 if b.len() >= 20 => false,
        6 if b.len() >= 40 => true,
        _ => return None,
    };
    let transport = usize::from(offload.csum_start);
    let udp = match offload.csum_offset {
        16 => false,
        6 => true,
        _ => return None,
    };
    // Nobody has checked the request of a packet that is answered unread.
    let starts_behind_ip = transport >= if v6 { 40 } else { usize::from(b[0] & 15).max(5) * 4 };
    let least = if udp { 8 } else { 20 };
    if !starts_behind_ip || b.len() < transport + least {
        return None;
    }
    let layout = Layout { v6, transport, udp };
    (transport + least..=b.len()).contains(&header_len(b, &layout)).then_some(layout)
}

/// Completes a partial checksum. A superpacket must be cut first. Does nothing where nothing is asked.
pub fn complete_checksum(packet: &mut PacketBuf) {
    let Some(offload) = packet.offload() else { return };
    packet.set_offload(None);
    let start = usize::from(offload.csum_start);
    let field = start + usize::from(offload.csum_offset);
    let b = packet.bytes_mut();
    if !offload.needs_csum() || field + 2 > b.len() {
        return;
    }
    // The field holds the pseudo-header sum, so it is summed along with the rest.
    let sum = Sum::of(&b[start..]).checksum();
    let sum = if offload.csum_offset == 6 { udp_nonzero(sum) } else { sum };
    b[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// How many packets the device would make of this one.
pub fn segments(packet: &PacketBuf) -> usize {
    let Some(offload) = packet.offload().filter(|o| o.is_gso() && o.gso_size > 0) else { return 1 };
    let Some(l) = layout(packet.bytes(), &offload) else { return 1 };
    let payload = packet.len() - header_len(packet.bytes(), &l).min(packet.len());
    payload.div_ceil(usize::from(offload.gso_size)).max(1)
}

fn header_len(b: &[u8], l: &Layout) -> usize {
    l.transport + if l.udp { 8 } else { usize::from(b[l.transport + 12] >> 4) * 4 }
}

/// Writes segment `index` of `packet` into `out`, with a complete checksum and no offload request.
/// A packet that is no superpacket has the one segment 0. `false` where there is no such segment.
pub fn segment(packet: &PacketBuf, index: usize, out: &mut PacketBuf) -> bool {
    let count = segments(packet);
    if index >= count {
        return false;
    }
    let b = packet.bytes();
    let described = packet.offload().and_then(|o| layout(b, &o).map(|l| (o, l)));
    let Some((offload, l)) = described.filter(|(o, _)| o.is_gso() && o.gso_size > 0) else {
        out.set(b);
        out.set_offload(packet.offload());
        complete_checksum(out);
        return true;
    };
    let headers = header_len(b, &l).min(b.len());
    let size = usize::from(offload.gso_size);
    let from = headers + index * size;
    let to = (from + size).min(b.len());
    out.set(&b[..headers]);
    out.push(&b[from..to]);
    let len = out.len();
    let s = out.bytes_mut();
    if l.v6 {
        s[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    } else {
        s[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        let id = be16(s, 4).wrapping_add(index as u16);
        s[4..6].copy_from_slice(&id.to_be_bytes());
        s[10..12].copy_from_slice(&[0, 0]);
        let sum = Sum::of(&s[..usize::from(s[0] & 15) * 4]).checksum();
        s[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let t = l.transport;
    if l.udp {
        s[t + 4..t + 6].copy_from_slice(&((len - t) as u16).to_be_bytes());
    } else {
        let seq = u32::from_be_bytes([s[t + 4], s[t + 5], s[t + 6], s[t + 7]]).wrapping_add((index * size) as u32);
        s[t + 4..t + 8].copy_from_slice(&seq.to_be_bytes());
        if index + 1 < count {
            s[t + 13] &= !0b0000_1001; // FIN and PSH belong to the last segment.
        }
        if index > 0 && offload.gso_type & VnetHdr::GSO_ECN != 0 {
            s[t + 13] &= !0b1000_0000; // CWR to the first (RFC 3168 §6.1.2).
        }
    }
    let field = t + usize::from(offload.csum_offset);
    s[field..field + 2].copy_from_slice(&[0, 0]);
    let number = if l.udp { protocol::UDP } else { protocol::TCP };
    let addresses = if l.v6 { &s[8..40] } else { &s[12..20] };
    let pseudo = Sum::of(addresses).long((len - t) as u32).word(u16::from(number));
    let sum = pseudo.plus(Sum::of(&s[t..])).checksum();
    let sum = if l.udp { udp_nonzero(sum) } else { sum };
    s[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    true
}
