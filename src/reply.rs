//! ICMP errors that we originate, about a packet that is still what it was.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::verdict::{Direction, DropReason};
use crate::wire::PacketBuf;
use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::ip::{Extent, Ipv4Header, Ipv6Header, protocol};
use crate::wire::queue::PacketQueue;
use crate::wire::segment;

/// Whether drops are answered (RFC 7915 §4.4, §5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Originate {
    /// Never.
    Off,
    /// Within a token bucket (RFC 4443 §2.4f).
    #[default]
    Limited,
    /// Always.
    On,
}

/// The `icmp` block of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpParams {
    /// IPv4 sources of errors from untranslatable IPv6 nodes (RFC 6791 §3.2), and of our own.
    pub rfc6791_pool: Vec<Ipv4Addr>,
    /// Whether drops are answered.
    pub originate: Originate,
    /// Source of our own ICMPv6 errors; `None`: the pool's first address embedded in the DMR.
    pub ipv6_source: Option<Ipv6Addr>,
}

/// RFC 7600 §4.5's dummy address, for those who have no pool.
pub const DUMMY_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

impl Default for IcmpParams {
    fn default() -> Self {
        IcmpParams { rfc6791_pool: vec![DUMMY_IPV4], originate: Originate::default(), ipv6_source: None }
    }
}

/// Tokens of the bucket, and how many come back in a second: Linux's own figures for ICMP.
const BURST: u64 = 50;
const PER_SECOND: u64 = 1000;

/// RFC 4443 §2.4 (c).
const ICMPV6_MAX: usize = 1280;
/// RFC 1812 §4.3.2.3.
const ICMPV4_MAX: usize = 576;
const HOP_LIMIT: u8 = 64;

/// RFC 4443 §3.1.
const PORT_UNREACHABLE: (u8, u8) = (1, 4);
/// Octets of a packet that is answered later: the headers of a SYN with all its options, and a Fragment header.
const QUOTED: usize = 128;

/// A token bucket on the caller's clock.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Nanoseconds' worth of tokens.
    credit: u64,
    last: Duration,
}

impl Bucket {
    const TOKEN: u64 = 1_000_000_000 / PER_SECOND;

    fn take(&mut self, now: Duration) -> bool {
        let gained = now.saturating_sub(self.last).as_nanos().min(u128::from(BURST * Self::TOKEN)) as u64;
        self.last = self.last.max(now);
        self.credit = (self.credit + gained).min(BURST * Self::TOKEN);
        let granted = self.credit >= Self::TOKEN;
        if granted {
            self.credit -= Self::TOKEN;
        }
        granted
    }
}

/// Builds the answers to drops.
#[derive(Debug)]
pub struct Replier {
    originate: Originate,
    ipv4_source: Ipv4Addr,
    ipv6_source: Option<Ipv6Addr>,
    bucket: Bucket,
}

impl Replier {
    /// `dummy_ipv6` is the pool's first address embedded in the DMR, where there is a DMR.
    pub fn new(params: &IcmpParams, dummy_ipv6: Option<Ipv6Addr>) -> Replier {
        Replier {
            originate: params.originate,
            ipv4_source: params.rfc6791_pool.first().copied().unwrap_or(DUMMY_IPV4),
            ipv6_source: params.ipv6_source.or(dummy_ipv6),
            bucket: Bucket { credit: BURST * Bucket::TOKEN, last: Duration::ZERO },
        }
    }

    /// Takes over what another has left of its limit.
    pub fn go_on_with(&mut self, other: &Replier) {
        self.bucket = other.bucket;
    }

    /// Puts the answer to a drop into `queue`, where the reason, the packet and the bucket allow one.
    /// Returns its length.
    pub fn answer(
        &mut self,
        packet: &PacketBuf,
        direction: Direction,
        reason: DropReason,
        detail: u32,
        now: Duration,
        queue: &mut PacketQueue,
    ) -> Option<usize> {
        let answer = reason.answer();
        let (kind, code) = match direction {
            Direction::V4ToV6 => answer.icmpv4?,
            Direction::V6ToV4 => answer.icmpv6?,
        };
        if self.originate == Originate::Off {
            return None;
        }
        let told = match direction {
            Direction::V4ToV6 => Told::V4(may_answer_v4(packet.bytes())?),
            Direction::V6ToV4 => Told::V6(may_answer_v6(packet.bytes(), kind, code)?, self.ipv6_source?),
        };
        if !self.may_send(now) {
            return None;
        }
        let mut quoted = queue.take_spare();
        // What a device would have completed and cut is quoted as it would have left the device.
        segment::segment(packet, 0, &mut quoted);
        let out = queue.push();
        match told {
            Told::V4(h) => self.put_v4(&h, kind, code, detail, quoted.bytes(), out),
            Told::V6(h, source) => put_v6(&h, source, kind, code, detail, quoted.bytes(), out),
        }
        let len = out.len();
        queue.put_spare(quoted);
        Some(len)
    }

    /// What a port unreachable about an IPv6 packet will quote; `None` where there will be none.
    pub fn quote(&self, packet: &PacketBuf, queue: &mut PacketQueue) -> Option<Quote> {
        let (kind, code) = PORT_UNREACHABLE;
        if self.originate == Originate::Off {
            return None;
        }
        let to = may_answer_v6(packet.bytes(), kind, code)?;
        let mut whole = queue.take_spare();
        segment::segment(packet, 0, &mut whole);
        let (mut octets, len) = ([0; QUOTED], whole.len().min(QUOTED));
        octets[..len].copy_from_slice(&whole.bytes()[..len]);
        queue.put_spare(whole);
        Some(Quote { to, octets, len })
    }

    /// Puts the answer to what was quoted before into `queue`, where the bucket allows it. Returns its length.
    pub fn port_unreachable(&mut self, quote: &Quote, now: Duration, queue: &mut PacketQueue) -> Option<usize> {
        let (kind, code) = PORT_UNREACHABLE;
        let source = self.ipv6_source?;
        if !self.may_send(now) {
            return None;
        }
        let out = queue.push();
        put_v6(&quote.to, source, kind, code, 0, &quote.octets[..quote.len], out);
        Some(out.len())
    }

    fn may_send(&mut self, now: Duration) -> bool {
        match self.originate {
            Originate::Off => false,
            Originate::Limited => self.bucket.take(now),
            Originate::On => true,
        }
    }

    fn put_v4(&self, to: &Ipv4Header, kind: u8, code: u8, detail: u32, quoted: &[u8], out: &mut PacketBuf) {
        let quoted = &quoted[..quoted.len().min(to.total_len).min(ICMPV4_MAX - 28)];
        let mut head = [0; 28];
        head[0] = 0x45;
        // RFC 5508 §7.7: the class of the packet, without its ECN bits.
        head[1] = to.tos & 0xfc;
        head[2..4].copy_from_slice(&((28 + quoted.len()) as u16).to_be_bytes());
        head[6] = 0x40; // An atomic packet needs no identification (RFC 6864 §4.1).
        head[8] = HOP_LIMIT;
        head[9] = protocol::ICMP;
        head[12..16].copy_from_slice(&self.ipv4_source.octets());
        head[16..20].copy_from_slice(&to.src.octets());
        let sum = Sum::of(&head[..20]).checksum();
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        head[20] = kind;
        head[21] = code;
        if kind == 12 {
            head[24] = detail as u8;
        } else {
            head[26..28].copy_from_slice(&(detail.min(0xffff) as u16).to_be_bytes());
        }
        let sum = Sum::of(&head[20..]).plus(Sum::of(quoted)).checksum();
        head[22..24].copy_from_slice(&sum.to_be_bytes());
        out.set(&head);
        out.push(quoted);
    }
}

/// The beginning of an IPv6 packet that may be answered later.
pub struct Quote {
    to: Ipv6Header,
    octets: [u8; QUOTED],
    len: usize,
}

enum Told {
    V4(Ipv4Header),
    V6(Ipv6Header, Ipv6Addr),
}

fn put_v6(to: &Ipv6Header, src: Ipv6Addr, kind: u8, code: u8, detail: u32, quoted: &[u8], out: &mut PacketBuf) {
    let quoted = &quoted[..quoted.len().min(to.total_len).min(ICMPV6_MAX - 48)];
    let len = 8 + quoted.len();
    let mut head = [0; 48];
    head[0] = 0x60 | to.traffic_class >> 4;
    head[1] = (to.traffic_class & 0x0c) << 4;
    head[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    head[6] = protocol::ICMPV6;
    head[7] = HOP_LIMIT;
    head[8..24].copy_from_slice(&src.octets());
    head[24..40].copy_from_slice(&to.src.octets());
    head[40] = kind;
    head[41] = code;
    head[44..48].copy_from_slice(&detail.to_be_bytes());
    let sum = pseudo_v6(src, to.src, len, protocol::ICMPV6).plus(Sum::of(&head[40..])).plus(Sum::of(quoted));
    head[42..44].copy_from_slice(&sum.checksum().to_be_bytes());
    out.set(&head);
    out.push(quoted);
}

/// RFC 1812 §4.3.2.7: not about ICMP errors, later fragments, multicast, or a source that is no single host.
fn may_answer_v4(b: &[u8]) -> Option<Ipv4Header> {
    let h = Ipv4Header::parse(b, Extent::Whole).ok()?;
    let single = |a: Ipv4Addr| !(a.octets()[0] == 0 || a.is_loopback() || a.octets()[0] >= 224);
    let query = |kind: u8| matches!(kind, 0 | 8 | 13..=18);
    let is_error = h.protocol == protocol::ICMP && !b.get(h.header_len).is_some_and(|&kind| query(kind));
    (h.offset == 0 && single(h.src) && single(h.dst) && !is_error).then_some(h)
}

/// RFC 4443 §2.4 (e), and RFC 7915 §5.4 for the default 1/1.
fn may_answer_v6(b: &[u8], kind: u8, code: u8) -> Option<Ipv6Header> {
    let h = Ipv6Header::parse(b, Extent::Whole).ok()?;
    let too_big = kind == 2;
    if h.src.is_unspecified() || h.src.is_loopback() || h.src.is_multicast() || (h.dst.is_multicast() && !too_big) {
        return None;
    }
    if h.protocol == protocol::ICMPV6 {
        let message = *b.get(h.header_len)?;
        let is_error = message < 128 || message == 137;
        if is_error || (kind, code) == (1, 1) {
            return None;
        }
    }
    Some(h)
}
