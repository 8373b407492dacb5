//! Rules, prefix and NAPT parameters change between packets, at random, against a plain list of what must live on.
//!
//! Addresses and port sets of each state of affairs are written out by hand from RFC 7597 §5.

mod common;
mod oracle;

use std::collections::HashMap;
use std::time::Duration;

use common::*;
use mapt::ce::{Ce, CeParams};
use mapt::engine::Engine;
use mapt::frag::FragParams;
use mapt::map::{Provisioning, RuleSpec};
use mapt::napt::{Filter, Filtering, Protocol, Sharing};
use mapt::verdict::{DropReason, Verdict};
use oracle::packet::{Packet4, Packet6};
use proptest::prelude::*;

/// What the provider may have given the CE.
#[derive(Clone, Copy, Debug)]
struct World {
    prefix: Option<&'static str>,
    /// The CE's MAP address and its IPv4 address.
    own: (&'static str, &'static str),
    /// PSID offset, PSID length, PSID.
    ports: (u32, u32, u16),
    ea_len: u8,
    dmr: &'static str,
}

const APPENDIX_A: World = World {
    prefix: Some("2001:db8:12:3400::/56"),
    own: ("2001:db8:12:3400:0:c000:212:34", "192.0.2.18"),
    ports: (6, 8, 0x34),
    ea_len: 16,
    dmr: "2001:db8:ffff",
};
const WORLDS: [World; 7] = [
    APPENDIX_A,
    // The same address with 16 times the ports, those of Appendix A among them.
    World {
        prefix: Some("2001:db8:12:3000::/52"),
        own: ("2001:db8:12:3000:0:c000:212:3", "192.0.2.18"),
        ports: (6, 4, 3),
        ea_len: 12,
        ..APPENDIX_A
    },
    // The same MAP address, and none of its ports: another PSID offset.
    World { ports: (4, 8, 0x34), ..APPENDIX_A },
    // Another address and PSID.
    World {
        prefix: Some("2001:db8:21:100::/56"),
        own: ("2001:db8:21:100:0:c000:221:1", "192.0.2.33"),
        ports: (6, 8, 1),
        ..APPENDIX_A
    },
    // The same customer behind another BR.
    World { dmr: "2001:db8:eeee", ..APPENDIX_A },
    // Nothing.
    World { prefix: None, ..APPENDIX_A },
    // An address that is not shared.
    World {
        prefix: Some("2001:db8:1212::/48"),
        own: ("2001:db8:1212::c000:212:0", "192.0.2.18"),
        ports: (0, 0, 0),
        ea_len: 0,
        ..APPENDIX_A
    },
];

impl World {
    fn provisioning(&self) -> Provisioning {
        let (a, ..) = self.ports;
        let rule = match self.ea_len {
            0 => rule("2001:db8:1212::/48", "192.0.2.18/32", 0),
            ea_len => RuleSpec { psid_offset: a as u8, ..rule("2001:db8::/40", "192.0.2.0/24", ea_len) },
        };
        provisioning(vec![rule], &format!("{}::/64", self.dmr), self.prefix)
    }

    fn has(&self, port: u16) -> bool {
        let (a, k, psid) = self.ports;
        let owned = a == 0 || port >= 1 << (16 - a);
        owned && port > 0 && (u32::from(port) >> (16 - a - k)) & ((1 << k) - 1) == u32::from(psid)
    }

    /// 10.2.3.x behind the DMR.
    fn server(&self, n: u8) -> String {
        v6(&format!("{}:0:a:203:{n:02x}00:0", self.dmr)).to_string()
    }
}

fn params(n: usize) -> CeParams {
    let mut params = CeParams { fragments: FragParams::CE, ..ce_params() };
    let napt = &mut params.napt_params;
    napt.max_flows = 1024;
    match n {
        0 => {}
        1 => napt.filtering = Filtering { tcp: Some(Filter::EndpointIndependent), udp: Some(Filter::AddressDependent) },
        2 => napt.sharing = Sharing { threshold: 0, ..Sharing::default() },
        3 => napt.timers.udp = Duration::from_secs(600),
        _ => napt.max_flows = 2048,
    }
    params
}

#[derive(Clone, Debug)]
enum Step {
    Out {
        protocol: Protocol,
        host: u8,
        port: u16,
        to: u8,
    },
    /// An answer to one of the packets that went out, however long ago.
    Back {
        which: prop::sample::Index,
    },
    Fragment {
        slot: u16,
        piece: usize,
    },
    Wait {
        us: u64,
    },
    Replace {
        world: usize,
        params: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)];
    prop_oneof![
        8 => (protocol, 0..4u8, 0..4u16, 1..4u8)
            .prop_map(|(protocol, host, port, to)| Step::Out { protocol, host, port, to }),
        8 => any::<prop::sample::Index>().prop_map(|which| Step::Back { which }),
        6 => (0..3u16, 0..3usize).prop_map(|(slot, piece)| Step::Fragment { slot, piece }),
        2 => (0..400_000u64).prop_map(|us| Step::Wait { us }),
        2 => (0..WORLDS.len(), 0..5usize).prop_map(|(world, params)| Step::Replace { world, params }),
    ]
}

type Ends = (Protocol, u8, u16, u8);

#[derive(Clone, Copy, Debug)]
struct Sent {
    ends: Ends,
    world: World,
    port: u16,
}

#[derive(Clone, Debug, Default)]
struct Datagram {
    number: u16,
    sent: [bool; 3],
    born: Duration,
    /// Where its first piece went from, and after how many turns.
    first: Option<(String, u32)>,
}

struct Run {
    ce: Ce,
    world: World,
    now: Duration,
    /// Those that must live.
    flows: HashMap<Ends, u16>,
    sent: Vec<Sent>,
    datagrams: [Datagram; 3],
    /// Changes that ended flows, or moved the customer.
    turns: u32,
}

fn address(host: u8) -> String {
    format!("192.168.1.{}", 10 + host)
}

fn packet((protocol, host, port, to): Ends) -> Vec<u8> {
    let (src, dst) = (address(host), format!("10.2.3.{to}"));
    match protocol {
        Protocol::Tcp => tcp4(&src, 40_000 + port, &dst, 443, "S", b""),
        Protocol::Udp => udp4(&src, 40_000 + port, &dst, 53, b"question"),
        Protocol::Icmp => echo4(&src, &dst, 700 + port, true, b"ping"),
    }
}

/// An echo identifier is the same towards all.
fn of(ends: Ends) -> Ends {
    if ends.0 == Protocol::Icmp { (ends.0, ends.1, ends.2, 0) } else { ends }
}

impl Run {
    fn out(&mut self, ends: Ends) -> Result<(), TestCaseError> {
        let outcome = handle_at(&mut self.ce, &packet(ends), self.now);
        if self.world.prefix.is_none() {
            prop_assert_eq!(outcome.reason(), DropReason::Unprovisioned);
            return Ok(());
        }
        let (src, port, dst, _) = tuple(&outcome.forwarded());
        prop_assert_eq!((src.as_str(), dst), (self.world.own.0, self.world.server(ends.3)));
        self.know(ends, port)
    }

    /// A packet has left with this port.
    fn know(&mut self, ends: Ends, port: u16) -> Result<(), TestCaseError> {
        prop_assert!(self.world.has(port), "{} is outside the set of {:?}", port, self.world);
        let ends = of(ends);
        if let Some(known) = self.flows.insert(ends, port) {
            prop_assert_eq!(port, known, "{:?} noticed", ends);
        }
        let others = self.flows.iter().filter(|(other, at)| {
            (other.0, other.3) == (ends.0, ends.3) && **at == port && (other.1, other.2) != (ends.1, ends.2)
        });
        prop_assert_eq!(others.count(), 0, "two hosts for one answer");
        self.sent.push(Sent { ends, world: self.world, port });
        Ok(())
    }

    fn back(&mut self, sent: Sent) -> Result<(), TestCaseError> {
        let (protocol, host, port, to) = sent.ends;
        let server = self.world.server(if protocol == Protocol::Icmp { 9 } else { to });
        let own = sent.world.own.0;
        let answer = match protocol {
            Protocol::Tcp => tcp6(&server, 443, own, sent.port, "SA", b""),
            Protocol::Udp => udp6(&server, 53, own, sent.port, b"answer"),
            Protocol::Icmp => echo6(&server, own, sent.port, false, b"ping"),
        };
        let outcome = handle_at(&mut self.ce, &answer, self.now);
        let here = self.world.prefix.is_some() && v6(own) == v6(self.world.own.0);
        if here && self.flows.get(&sent.ends) == Some(&sent.port) {
            let (_, _, dst, dport) = tuple(&outcome.forwarded());
            let inside = if protocol == Protocol::Icmp { 700 + port } else { 40_000 + port };
            prop_assert_eq!((dst, dport), (address(host), inside));
        } else if !here || !self.world.has(sent.port) {
            let reasons =
                [DropReason::Unprovisioned, DropReason::DestinationNotOurs, DropReason::DestinationPortOutsideSet];
            prop_assert!(reasons.contains(&outcome.reason()), "{:?}", outcome);
        } else if outcome.verdict == Verdict::Forward {
            let (_, _, dst, _) = tuple(&outcome.forwarded());
            let somebody = |(ends, at): (&Ends, &u16)| *at == sent.port && address(ends.1) == dst;
            prop_assert!(self.flows.iter().any(somebody), "{} has no flow there", dst);
        }
        Ok(())
    }

    /// The next piece of a datagram of 3: 24, 24 and 16 octets.
    fn fragment(&mut self, slot: u16, piece: usize) -> Result<(), TestCaseError> {
        let datagram = &mut self.datagrams[usize::from(slot)];
        if datagram.sent == [false; 3] || datagram.sent[piece] {
            let number = datagram.number + 1;
            *datagram = Datagram { number, born: self.now, ..Datagram::default() };
        }
        datagram.sent[piece] = true;
        let (number, id) = (datagram.number, slot << 12 | datagram.number);
        let ends = (Protocol::Udp, slot as u8, 100 + number, 5);
        let whole = udp4(&address(slot as u8), 40_100 + number, "10.2.3.5", 53, &[slot as u8; 56]);
        let base = Packet4::read(&whole, false, &mut Vec::new()).unwrap();
        let (from, to) = (piece * 24, (piece * 24 + 24).min(64));
        let payload = base.payload[from..to].to_vec();
        let cut = Packet4 { id, df: false, mf: piece < 2, offset: from, announced: to - from, payload, ..base }.write();
        let outcome = handle_at(&mut self.ce, &cut, self.now);
        let mut out = outcome.packets.iter().map(|p| Packet6::read(p, false, &mut Vec::new()).unwrap());
        if piece == 0 && outcome.verdict == Verdict::Forward {
            let first = out.next().unwrap();
            prop_assert_eq!(first.fragment.map(|f| f.offset), Some(0));
            let port = u16::from_be_bytes([first.payload[0], first.payload[1]]);
            let src = std::net::Ipv6Addr::from(first.src).to_string();
            prop_assert_eq!(src.as_str(), self.world.own.0);
            self.datagrams[usize::from(slot)].first = Some((src, self.turns));
            self.know(ends, port)?;
        } else if piece == 0 {
            prop_assert_eq!(outcome.reason(), DropReason::Unprovisioned);
        }
        let datagram = &self.datagrams[usize::from(slot)];
        let young = self.now - datagram.born < Duration::from_secs(2);
        let mut later = 0;
        for one in out {
            prop_assert_eq!(one.fragment.map(|f| f.id), Some(u32::from(id)));
            // With its first piece, by the same state of affairs.
            let src = std::net::Ipv6Addr::from(one.src).to_string();
            prop_assert_eq!(&datagram.first, &Some((src, self.turns)));
            later += 1;
        }
        if piece > 0 && young && self.world.prefix.is_some() {
            match &datagram.first {
                None => prop_assert_ne!(outcome.verdict, Verdict::Forward),
                Some((_, turns)) if *turns == self.turns => prop_assert_eq!(later, 1, "a piece noticed"),
                Some(_) => prop_assert_eq!(outcome.reason(), DropReason::FragmentWithoutPort),
            }
        }
        Ok(())
    }

    fn replace(&mut self, world: World, params: &CeParams) -> Result<(), TestCaseError> {
        let (before, counters) = (self.ce.counters().snapshot(), self.ce.counters());
        let mut next = Ce::prepare(&world.provisioning(), params);
        let replaced = self.ce.replace(&mut next, self.now);
        drop(next);
        let fits = self.world.own.1 == world.own.1 && self.world.prefix.is_some() && world.prefix.is_some();
        let all = self.flows.len();
        self.flows.retain(|_, port| fits && world.has(*port));
        prop_assert_eq!((replaced.kept, replaced.purged), (self.flows.len(), all - self.flows.len()));
        let same = (world.own, world.ports, world.prefix.is_some())
            == (self.world.own, self.world.ports, self.world.prefix.is_some());
        self.turns += u32::from(replaced.purged > 0 || !same);
        self.world = world;
        prop_assert_eq!(self.ce.counters().snapshot(), before);
        prop_assert!(std::sync::Arc::ptr_eq(&self.ce.counters(), &counters));
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            let here = self.flows.keys().filter(|ends| ends.0 == protocol).count();
            prop_assert_eq!(self.ce.flows(protocol), here);
        }
        // A whole address takes its time.
        #[cfg(debug_assertions)]
        if let Some(napt) = self.ce.napt().filter(|napt| napt.capacity(Protocol::Tcp) < 5000) {
            prop_assert_eq!(napt.audit(self.now), Ok(()));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_fits_lives_on_and_nothing_else(steps in prop::collection::vec(step(), 1..120), first in 0..WORLDS.len()) {
        let world = WORLDS[first];
        let mut run = Run {
            ce: Ce::new(&world.provisioning(), &params(0)),
            world,
            now: Duration::from_secs(100),
            flows: HashMap::new(),
            sent: Vec::new(),
            datagrams: Default::default(),
            turns: 0,
        };
        for step in steps {
            match step {
                Step::Out { protocol, host, port, to } => run.out((protocol, host, port, to))?,
                Step::Back { which } if !run.sent.is_empty() => run.back(*which.get(&run.sent))?,
                Step::Back { .. } => {}
                Step::Fragment { slot, piece } => run.fragment(slot, piece)?,
                Step::Wait { us } => {
                    run.now += Duration::from_micros(us);
                    while run.ce.poll_timeout().is_some_and(|at| at <= run.now) {
                        run.ce.handle_timeout(run.now);
                    }
                }
                Step::Replace { world, params: n } => run.replace(WORLDS[world], &params(n))?,
            }
        }
    }
}
