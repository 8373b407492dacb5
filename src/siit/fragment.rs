//! Cutting a translated packet that may be fragmented (RFC 7915 §4.1, §5.1.1).

use crate::wire::PacketBuf;
use crate::wire::checksum::Sum;
use crate::wire::ip::{Fragment, protocol};
use crate::wire::queue::PacketQueue;
use crate::wire::segment;

/// How to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Octets of the largest output.
    pub max: usize,
    /// Identification, and the place that the packet had as a fragment of something larger.
    pub place: Fragment,
}

/// Cuts `packet` (segments first, where it is a superpacket). The first piece is in `packet`, the others in `more`.
pub fn split(packet: &mut PacketBuf, how: &Split, more: &mut PacketQueue) {
    let mut whole = more.take_spare();
    let mut index = 0;
    while segment::segment(packet, index, &mut whole) {
        // Every segment is a packet of its own with an identification of its own: 16 bits, as IPv4 has it.
        let id = u32::from((how.place.id as u16).wrapping_add(index as u16));
        let place = Fragment { id, ..how.place };
        let mut piece = 0;
        while cut(whole.bytes(), &Split { place, ..*how }, piece, more.push()) {
            piece += 1;
        }
        more.unpush();
        index += 1;
    }
    more.put_spare(whole);
    if let Some(first) = more.pop() {
        std::mem::swap(first, packet);
    }
}

/// Writes piece `n`; `false` where there is none.
fn cut(whole: &[u8], how: &Split, n: usize, out: &mut PacketBuf) -> bool {
    let is_whole = how.place.is_atomic() && whole.len() <= how.max;
    if is_whole {
        out.set(whole);
        return n == 0;
    }
    match whole.first().map(|b| b >> 4) {
        Some(6) => cut_v6(whole, how, n, out),
        Some(4) => cut_v4(whole, how, n, out),
        _ => false,
    }
}

/// The payload octets of piece `n`, its offset, and whether more follow.
fn piece<'a>(payload: &'a [u8], how: &Split, headers: usize, n: usize) -> Option<(&'a [u8], u32, bool)> {
    let most = how.max.saturating_sub(headers) & !7;
    let from = n.checked_mul(most)?;
    if most == 0 || from >= payload.len() {
        return None;
    }
    let to = (from + most).min(payload.len());
    let more = how.place.more || to < payload.len();
    Some((&payload[from..to], how.place.offset + from as u32, more))
}

fn cut_v6(whole: &[u8], how: &Split, n: usize, out: &mut PacketBuf) -> bool {
    let Some((header, payload)) = whole.split_first_chunk::<40>() else { return false };
    let Some((bytes, offset, more)) = piece(payload, how, 48, n) else { return false };
    let mut head = *header;
    let fragment_header = [head[6], 0];
    head[4..6].copy_from_slice(&((bytes.len() + 8) as u16).to_be_bytes());
    head[6] = protocol::FRAGMENT;
    out.set(&head);
    out.push(&fragment_header);
    out.push(&(offset as u16 | u16::from(more)).to_be_bytes());
    out.push(&how.place.id.to_be_bytes());
    out.push(bytes);
    true
}

fn cut_v4(whole: &[u8], how: &Split, n: usize, out: &mut PacketBuf) -> bool {
    let Some((header, payload)) = whole.split_first_chunk::<20>() else { return false };
    let Some((bytes, offset, more)) = piece(payload, how, 20, n) else { return false };
    let mut head = *header;
    head[2..4].copy_from_slice(&((bytes.len() + 20) as u16).to_be_bytes());
    let flags = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    head[6..8].copy_from_slice(&flags.to_be_bytes());
    head[10..12].copy_from_slice(&[0, 0]);
    let sum = Sum::of(&head).checksum();
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    out.set(&head);
    out.push(bytes);
    true
}
