//! Random packets through the engines of both roles.
//!
//! The input: an octet that chooses the engine, then steps of one octet (what), two (how long) and the step's data:
//! ```text
//! what & 3   0 the data is a packet          1 the answer to the last output, the data over its payload
//!            2 an ICMP error about the last output: type, code, four octets
//!            3 time passes: two octets of seconds
//! what & 4   ten octets of virtio header stand before the data
//! what & 8   lengths and checksums are mended, so that a change of the data reaches beyond the first check
//! what & 16  two octets before the data say how many octets of zero follow the packet
//! ```
//! `ce.rs` has more steps for a CE, in the bits above.

use std::time::Duration;

use mapt::br::{Br, BrParams};
use mapt::engine::{Engine, TransmitKind};
use mapt::frag::FragParams;
use mapt::map::{Dmr, EndUserPrefix, Provisioning, Rule, RuleSpec, RuleTable};
use mapt::reply::{IcmpParams, Originate};
use mapt::siit::{MssClamp, Mtu, TranslationParams};
use mapt::stats::{DirectionSnapshot, Snapshot};
use mapt::verdict::Verdict;
use mapt::wire::buf::MAX_PACKET;
use mapt::wire::{PacketBuf, VnetHdr};

use super::oracle::{self, Ip, Packet};

/// Small enough for a run to fill it.
pub(super) const SMALL_TABLE: FragParams =
    FragParams { lifetime: Duration::from_secs(2), packets: 8, held_octets: 8 << 10 };

/// More steps than this only make an input slow.
const STEPS: usize = 128;

fn rule(v6: &str, v4: &str, ea_len: u8) -> RuleSpec {
    RuleSpec {
        name: v6.into(),
        rule_ipv6_prefix: v6.parse().expect("ours"),
        rule_ipv4_prefix: v4.parse().expect("ours"),
        ea_len,
        psid_offset: 6,
        psid_len: None,
        psid: None,
        forwarding: true,
        dmr_ipv6_prefix: None,
    }
}

pub(super) fn provisioning(rules: Vec<RuleSpec>, dmr: &str, end_user: Option<&str>) -> Provisioning {
    let rules = rules.into_iter().map(|spec| Rule::new(spec).expect("ours")).collect();
    let dmr = Dmr::new(dmr.parse().expect("ours")).expect("ours");
    Provisioning {
        version: 1,
        date: None,
        table: RuleTable::new(rules, Some(dmr)).expect("ours").into(),
        end_user_prefix: end_user.map(|p| EndUserPrefix(p.parse().expect("ours"))),
    }
}

/// RFC 7597 Appendix A, and rules of every other kind beside it.
pub(super) fn rules() -> Vec<RuleSpec> {
    let one =
        |v6: &str, v4: &str, psid| RuleSpec { psid_offset: 4, psid_len: Some(8), psid: Some(psid), ..rule(v6, v4, 0) };
    vec![
        rule("2001:db8::/40", "192.0.2.0/24", 16),
        rule("2001:db8:4000::/40", "198.51.100.0/24", 8),
        RuleSpec { psid_offset: 0, ..rule("2001:db8:5000::/40", "198.51.101.0/24", 12) },
        rule("2001:db8:6000::/48", "203.0.113.0/29", 0),
        one("2001:db8:7000::/56", "203.0.113.64/32", 0x21),
        one("2001:db8:7000:100::/56", "203.0.113.64/32", 0x22),
        RuleSpec {
            dmr_ipv6_prefix: Some(Dmr::new("2001:db8:fffe::/96".parse().expect("ours")).expect("ours")),
            ..rule("2001:db8:8000::/64", "203.0.113.128/25", 15)
        },
    ]
}

pub(super) fn params(choice: u8) -> (TranslationParams, IcmpParams) {
    let small = Mtu { ipv6: 1280, ipv4: 576, lowest_ipv6: 1280 };
    let translation = TranslationParams {
        mtu: if choice & 1 == 0 { Mtu::default() } else { small },
        decrement_hop_limit: choice & 2 != 0,
        tcp_mss_clamp: if choice & 0x20 == 0 { MssClamp::Off } else { MssClamp::Auto },
        dscp_v4_to_v6: (choice & 0x20 != 0).then_some(46),
        rfc5837_object: choice & 0x20 != 0,
        ..TranslationParams::default()
    };
    let icmp = IcmpParams {
        rfc6791_pool: if choice & 2 == 0 {
            vec![[192, 0, 0, 8].into()]
        } else {
            vec![[203, 0, 113, 200].into(), [203, 0, 113, 201].into()]
        },
        originate: Originate::On,
        ..IcmpParams::default()
    };
    (translation, icmp)
}

/// A BR with rules of every kind.
pub fn br(data: &[u8]) {
    let Some((&choice, steps)) = data.split_first() else { return };
    let (translation, icmp) = params(choice);
    let dmr = if choice & 4 == 0 { "2001:db8:ffff::/64" } else { "64:ff9b::/96" };
    let icmp = IcmpParams { ipv6_source: (choice & 4 != 0).then(|| "2001:db8:ffff::1".parse().expect("ours")), ..icmp };
    let params = BrParams { translation, icmp, check_interface_id: true, fragments: SMALL_TABLE, seed: 7 };
    let mut run = Run::new(Br::new(&provisioning(rules(), dmr, None), &params), AppendixA, translation.mtu);
    run.steps(steps);
}

/// What an engine's own rules ask beside what holds for every engine.
pub(super) trait Watch<E: Engine>: Sized {
    /// A step of its own; `false` where it is none.
    fn step(_run: &mut Run<E, Self>, _what: u8, _data: &[u8]) -> bool {
        false
    }
    /// A packet comes.
    fn before(&mut self, _engine: &mut E, _now: Duration) {}
    /// One output of a packet.
    fn output(&mut self, _cause: &Packet, _output: &Packet) {}
    /// What became of the packet.
    fn after(&mut self, _engine: &mut E, _input: &Packet, _verdict: Verdict, _outputs: &[Packet], _now: Duration) {}
    /// An answer that comes with time.
    fn late(&mut self, _reply: &Packet, _now: Duration) {
        panic!("what expires goes nowhere");
    }
    /// Time has passed; whether the engine was told.
    fn passed(&mut self, _engine: &mut E, _told: bool, _now: Duration) {}
}

struct AppendixA;

impl Watch<Br> for AppendixA {
    fn output(&mut self, input: &Packet, output: &Packet) {
        // RFC 7599 §8.3: nobody speaks with an address or a port that is not his. Appendix A's rule, by hand.
        let (ip, out) = (Ip::quoted(&input.bytes).expect("forwarded"), Ip::quoted(&output.bytes).expect("an output"));
        if let (true, false, [192, 0, 2, host], Some(port)) = (ip.v6, ip.is_icmp_error(), out.src, out.port(true)) {
            let psid = (port >> 2) as u8;
            let map = [0x20, 1, 0x0d, 0xb8, 0, *host, psid, 0, 0, 0, 192, 0, 2, *host, 0, psid];
            assert!(port >= 1024);
            assert_eq!(ip.src, map, "{port} of 192.0.2.{host}");
        }
    }
}

pub(super) struct Run<E: Engine, W: Watch<E>> {
    pub(super) engine: E,
    pub(super) watch: W,
    pub(super) mtu: Mtu,
    pub(super) now: Duration,
    pub(super) last: Option<Packet>,
    /// Held inputs, and some that have expired since.
    pub(super) held: Vec<Packet>,
    /// Whether the Identifications of a home's fragments are replaced.
    pub(super) rewrites: bool,
    pub(super) before: Snapshot,
    buffer: PacketBuf,
}

impl<E: Engine, W: Watch<E>> Run<E, W> {
    pub(super) fn new(engine: E, watch: W, mtu: Mtu) -> Run<E, W> {
        Run {
            engine,
            watch,
            mtu,
            // More than a week, the longest time that a flow can have idled.
            now: Duration::from_secs(1_000_000),
            last: None,
            held: Vec::new(),
            rewrites: false,
            before: Snapshot::default(),
            buffer: PacketBuf::new(),
        }
    }

    pub(super) fn steps(&mut self, mut data: &[u8]) {
        for _ in 0..STEPS {
            let Some((&[what, high, low], rest)) = data.split_first_chunk::<3>() else { return };
            let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
            let (step, rest) = rest.split_at(len);
            data = rest;
            if W::step(self, what, step) {
                continue;
            }
            if what & 3 == 3 {
                let seconds = step.first_chunk().map_or(0, |b| u16::from_be_bytes(*b));
                self.pass(Duration::from_secs(u64::from(seconds)), true);
                continue;
            }
            if let Some(packet) = self.packet(what, step) {
                self.feed(packet);
            }
        }
    }

    /// Time passes, and the engine is told, or it is late.
    pub(super) fn pass(&mut self, time: Duration, told: bool) {
        self.now += time;
        if told {
            let mut calls = 0;
            self.engine.handle_timeout(self.now);
            loop {
                while let Some((kind, packet)) = self.engine.poll_transmit() {
                    assert_eq!(kind, TransmitKind::Reply, "what expires goes nowhere");
                    self.watch.late(&taken(packet), self.now);
                }
                if self.engine.poll_timeout().is_none_or(|at| at > self.now) {
                    break;
                }
                calls += 1;
                assert!(calls < 100, "always something to do: {:?} {:?}", self.engine.poll_timeout(), self.now);
                self.engine.handle_timeout(self.now);
            }
        }
        let after = self.engine.counters().snapshot();
        for (after, before) in after.directions.iter().zip(&self.before.directions) {
            assert!(after.is_balanced());
            assert_eq!((after.received, after.forwarded), (before.received, before.forwarded));
            assert!(after.held <= before.held);
        }
        self.before = after;
        self.watch.passed(&mut self.engine, told, self.now);
    }

    pub(super) fn packet(&self, what: u8, mut step: &[u8]) -> Option<Packet> {
        let mut offload = None;
        if what & 4 != 0 {
            let (header, rest) = step.split_first_chunk::<10>()?;
            // As the device writes it, which is in the host's order; the corpus is little-endian.
            offload = Some(VnetHdr::from_bytes(header)).filter(|o| !o.is_plain());
            step = rest;
        }
        let mut zeros = 0;
        if what & 16 != 0 {
            let (count, rest) = step.split_first_chunk::<2>()?;
            zeros = usize::from(u16::from_be_bytes(*count));
            step = rest;
        }
        let mut packet = match what & 3 {
            0 => Packet { bytes: step.to_vec(), offload },
            1 => {
                let mut packet = oracle::answer(self.last.as_ref()?);
                packet.offload = offload.or(packet.offload);
                let over = step.len().min(packet.bytes.len());
                let from = packet.bytes.len() - over;
                packet.bytes[from..].copy_from_slice(&step[..over]);
                packet
            }
            _ => {
                let (head, _) = step.split_first_chunk::<6>()?;
                oracle::error(self.last.as_ref()?, head[0], head[1], [head[2], head[3], head[4], head[5]])
            }
        };
        packet.bytes.resize((packet.bytes.len() + zeros).min(MAX_PACKET), 0);
        if what & 8 != 0 {
            oracle::mend(&mut packet);
        }
        Some(packet)
    }

    /// One packet, and everything that must hold whatever it was.
    pub(super) fn feed(&mut self, input: Packet) {
        self.watch.before(&mut self.engine, self.now);
        self.buffer.set(&input.bytes);
        self.buffer.set_offload(input.offload);
        let verdict = self.engine.handle(&mut self.buffer, self.now);
        let mut outputs = Vec::new();
        let mut reply = None;
        if verdict == Verdict::Forward {
            outputs.push(taken(&self.buffer));
        } else if let Verdict::Drop { .. } = verdict {
            assert_eq!(self.buffer.bytes(), input.bytes, "a dropped packet is what it was");
            assert_eq!(self.buffer.offload(), input.offload);
        }
        while let Some((kind, packet)) = self.engine.poll_transmit() {
            match kind {
                TransmitKind::Packet => outputs.push(taken(packet)),
                TransmitKind::Reply => assert!(reply.replace(taken(packet)).is_none(), "one answer"),
            }
        }
        self.watch.after(&mut self.engine, &input, verdict, &outputs, self.now);
        self.count(verdict, &input, &outputs);
        assert_eq!(reply.is_some(), matches!(verdict, Verdict::Drop { reply: true, .. }));
        if let Some(reply) = &reply {
            self.check_reply(&input, reply);
        }
        match verdict {
            Verdict::Forward => {}
            Verdict::Held => {
                assert!(outputs.is_empty());
                let ip = Ip::whole(&input.bytes).expect("only packets are held");
                assert!(ip.fragment.is_some_and(|(_, offset, _)| offset > 0), "only later fragments wait");
                self.held.push(input);
                return;
            }
            Verdict::Drop { .. } => return assert!(outputs.is_empty(), "{verdict:?}"),
        }
        // What was held for this packet follows it, in its order; some of it may have been dropped.
        let ip = Ip::whole(&input.bytes).expect("only packets are forwarded");
        let ours = |held: &Packet| Ip::whole(&held.bytes).is_some_and(|h| h.fragment_key() == ip.fragment_key());
        let waited = if ip.fragment.is_some_and(|(_, offset, _)| offset == 0) {
            self.held.extract_if(.., |held| ours(held)).collect()
        } else {
            Vec::new()
        };
        let mut rest = &outputs[..];
        for (n, cause) in [&input].into_iter().chain(&waited).enumerate() {
            let len = if waited.is_empty() { rest.len() } else { oracle::pieces_of(cause, rest) };
            let (its, others) = rest.split_at(len);
            rest = others;
            if n > 0 && its.is_empty() {
                continue;
            }
            oracle::check_forwarded(cause, its, self.rewrites && !ip.v6);
            for output in its {
                assert!(output.bytes.len() <= MAX_PACKET);
                let mtu = if output.bytes[0] >> 4 == 6 { self.mtu.ipv6 } else { self.mtu.ipv4 };
                assert!(output.is_gso() || output.bytes.len() <= mtu as usize, "{} octets", output.bytes.len());
                self.watch.output(cause, output);
            }
        }
        assert!(rest.is_empty(), "an output of nothing: {rest:02x?}");
        self.last = outputs.pop();
    }

    /// One more received, one more of what became of it.
    fn count(&mut self, verdict: Verdict, input: &Packet, outputs: &[Packet]) {
        let now = self.engine.counters().snapshot();
        let direction = usize::from(input.bytes.first().is_some_and(|b| b >> 4 == 6));
        for (d, (now, before)) in now.directions.iter().zip(&self.before.directions).enumerate() {
            assert!(now.is_balanced());
            let one = u64::from(d == direction);
            assert_eq!(now.received.packets, before.received.packets + one);
            assert_eq!(now.received.octets, before.received.octets + one * input.bytes.len() as u64);
            let forwarded = one * u64::from(verdict == Verdict::Forward);
            let held = one * u64::from(verdict == Verdict::Held);
            // A packet that is forwarded or dropped may take others with it that were held.
            let released = before.held + held - now.held;
            let more = now.forwarded.packets - before.forwarded.packets - forwarded;
            assert!(more <= released, "{more} of {released}");
            let octets: usize = outputs.iter().map(|output| output.bytes.len()).sum();
            assert_eq!(now.forwarded.octets, before.forwarded.octets + forwarded * octets as u64);
            if let (true, Verdict::Drop { reason, .. }) = (d == direction, verdict) {
                assert!(now.dropped[reason as usize].packets > before.dropped[reason as usize].packets);
            }
        }
        self.before = now;
    }

    /// RFC 1812 §4.3.2, RFC 4443 §2.4: well-formed, in the family of its cause, to its sender, not about an error.
    fn check_reply(&self, input: &Packet, reply: &Packet) {
        let cause = Ip::whole(&input.bytes).expect("only packets are answered");
        let ip = Ip::whole(&reply.bytes).unwrap_or_else(|| panic!("an answer that is no packet: {reply:02x?}"));
        assert_eq!((ip.total_len, reply.offload), (reply.bytes.len(), None));
        assert_eq!((ip.v6, ip.dst), (cause.v6, cause.src));
        assert!(ip.is_icmp_error() && ip.transport_is_valid(ip.payload, false) == Some(true), "{reply:02x?}");
        assert!(!cause.is_icmp_error());
        assert!(cause.fragment.is_none_or(|(_, offset, _)| cause.v6 || offset == 0));
        assert!(reply.bytes.len() <= if ip.v6 { 1280 } else { 576 });
        let quoted = &ip.payload[8..];
        if input.offload.is_none() {
            assert!(input.bytes.starts_with(quoted), "it quotes its cause as it came");
        }
        let least = if ip.v6 { 1232 } else { 548 };
        assert!(input.is_gso() || quoted.len() == cause.total_len.min(least), "{}", quoted.len());
    }
}

fn taken(packet: &PacketBuf) -> Packet {
    Packet { bytes: packet.bytes().to_vec(), offload: packet.offload() }
}
