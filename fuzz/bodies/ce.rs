//! Random packets and random events through a CE, and a tracker of its own beside it.
//!
//! The first octet: 1 small MTUs and own Identifications, 2 hop limits and another pool, 28 whose CE (`customers`), 32 MSS,
//! DSCP, RFC 5837, 64 events are recorded, 128 no FMRs. Then the steps of `engine.rs`, and of:
//! ```text
//! what & 3 = 3   what >> 2 & 7 = 0   seconds pass: two octets
//!                                1   milliseconds pass: up to four octets
//!                                2   time passes until there is something to do, or a nanosecond less, or a bit more
//!                                3   milliseconds pass, and the engine is told late: two octets
//!                                4   forwards, three octets each: protocol, port, endpoint
//!                                5   another customer or other parameters, see `Setting`
//!                                6   another process, by way of a file, after so many milliseconds: two octets
//!                                7   a host asks for a port or a flow: what, host, lifetime, port, remote
//! what & 35 = 32 one packet or more of a flow, see `exchange`
//! what & 35 = 33 the last output comes back by way of the BR (hairpin)
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::ce::{Ce, CeParams, NextCe};
use mapt::engine::Engine;
use mapt::map::{PortParams, Provisioning, Psid, RuleSpec};
use mapt::napt::{
    Allowed, Filter, Filtering, Forward, Inside, NaptParams, Origin, Protocol, Remote, Sharing, Timers, Want,
};
use mapt::ops::saved::{self, Moment, Owner};
use mapt::siit::Mtu;

use super::engine::{Run, SMALL_TABLE, params, provisioning};
use super::homes::{Customer, ce_rules, customers};
use super::oracle::{self, Ip, Packet};
use super::tracker::Tracker;

/// So few flows that they run out.
const FLOWS: [u32; 8] = [16, 8, 4, 1, 64, 32, 3, 2];
const THRESHOLDS: [u8; 8] = [50, 0, 100, 50, 10, 80, 30, 99];

fn timers(n: u8) -> Timers {
    let of = |udp, established, opening, closing, icmp| {
        let [udp, tcp_established, tcp_opening, tcp_closing, icmp] =
            [udp, established, opening, closing, icmp].map(Duration::from_millis);
        Timers { udp, tcp_established, tcp_opening, tcp_closing, icmp }
    };
    match n % 4 {
        1 => of(30_000, 100_000, 20_000, 15_000, 10_000),
        2 => of(3_333, 7_001, 11_111, 1_499, 999),
        3 => of(120_000, 40_000_000, 20_000_000, 4_000, 1),
        _ => Timers::default(),
    }
}

/// Everything that a CE is told, from octets: `choice` as at the start, the customer, threshold and flows (8 each), timers
/// and filters (4 each), what is shared, forwards.
struct Setting {
    choice: u8,
    customer: Customer,
    mtu: Mtu,
    params: CeParams,
    provisioning: Provisioning,
}

impl Setting {
    fn new(choice: u8, customer: Customer, napt_params: NaptParams) -> Setting {
        let (translation, icmp) = params(choice);
        let params = CeParams {
            translation,
            icmp,
            check_interface_id: true,
            fragments: SMALL_TABLE,
            rewrite_identification: choice & 1 != 0,
            napt: customer.napt,
            napt_params,
            seed: 7,
        };
        let all =
            ce_rules(&customer).into_iter().map(|rule| RuleSpec { forwarding: choice & 0x80 == 0, ..rule }).collect();
        let provisioning = provisioning(all, "2001:db8:ffff::/64", customer.end_user);
        Setting { choice, customer, mtu: translation.mtu, params, provisioning }
    }

    fn read(data: &[u8]) -> Setting {
        let octet = |n: usize| data.get(n).copied().unwrap_or(0);
        let customer = customers(octet(1));
        let filter = |n: u8| match n % 4 {
            1 => Some(Filter::EndpointIndependent),
            2 => Some(Filter::AddressDependent),
            3 => Some(Filter::AddressAndPortDependent),
            _ => None,
        };
        let some = |bit: u8, ports: &[u16]| if octet(4) & bit != 0 { ports.to_vec() } else { Vec::new() };
        let napt_params = NaptParams {
            timers: timers(octet(3)),
            max_flows: FLOWS[usize::from(octet(2) >> 3 & 7)],
            sharing: Sharing {
                threshold: THRESHOLDS[usize::from(octet(2) & 7)],
                tcp: some(1, &[443]),
                udp: some(2, &[53, 443]),
            },
            filtering: Filtering { tcp: filter(octet(3) >> 2), udp: filter(octet(3) >> 4) },
            forwards: forwards(&customer, data.get(5..).unwrap_or_default()),
        };
        Setting::new(octet(0), customer, napt_params)
    }
}

fn protocol(n: u8) -> Protocol {
    match n % 4 {
        2 => Protocol::Udp,
        3 => Protocol::Icmp,
        _ => Protocol::Tcp,
    }
}

/// Eight hosts with sixteen ports each; a quarter of the ports are well-known.
fn host(n: u8) -> Inside {
    let port = u16::from(n >> 3);
    let port = if port < 24 { 40_000 + port } else { 500 + port };
    Inside { addr: Ipv4Addr::new(192, 168, 1, 10 + (n & 7)), port }
}

/// Four addresses with four ports each; 16: a neighbour, by FMR.
fn remote(n: u8) -> Remote {
    let port = [443, 53, 444, 80][usize::from(n >> 2 & 3)];
    if n & 16 == 0 {
        Remote { addr: Ipv4Addr::new(8, 8, 4, n & 3), port }
    } else {
        Remote { addr: Ipv4Addr::new(192, 0, 2, 0x4d), port: 0x08d3 }
    }
}

fn forwards(customer: &Customer, data: &[u8]) -> Vec<Forward> {
    let forward = |d: &[u8]| Forward {
        protocol: protocol(d[0]),
        // Some are another customer's.
        port: customer.nth(u32::from(d[1])).wrapping_add(u16::from(d[0] & 0xf0 == 0xf0)),
        inside: host(d[2]),
    };
    data.chunks_exact(3).take(8).map(forward).collect()
}

/// A CE: with ports of every number and kind, a prefix, no NAPT, or nothing.
pub fn ce(data: &[u8]) {
    let Some((&choice, steps)) = data.split_first() else { return };
    let napt_params = NaptParams { max_flows: FLOWS[0], ..NaptParams::default() };
    let setting = Setting::new(choice, customers(choice >> 2 & 7), napt_params);
    let tracker = Tracker::new(setting.customer, setting.params.napt_params.clone());
    let mut run = Run::new(Ce::new(&setting.provisioning, &setting.params), tracker, setting.mtu);
    run.rewrites = choice & 1 != 0;
    run.watch.choice = setting.choice;
    if choice & 0x40 != 0 {
        run.engine.record(true);
        run.watch.recording = true;
    }
    run.steps(steps);
}

/// A step that is a CE's alone.
pub(super) fn step(run: &mut Run<Ce, Tracker>, what: u8, data: &[u8]) -> bool {
    let number = |most: usize| data.iter().take(most).fold(0, |n: u64, octet| n << 8 | u64::from(*octet));
    match (what & 3, what >> 2 & 7) {
        (0, _) if what & 0x20 != 0 => exchange(run, data),
        (1, _) if what & 0x20 != 0 => {
            let Some(mut packet) = run.last.clone().filter(|p| p.bytes.len() >= 40 && p.bytes[0] >> 4 == 6) else {
                return true;
            };
            // The sum of the addresses stays.
            let (source, rest) = packet.bytes[8..40].split_at_mut(16);
            source.swap_with_slice(rest);
            packet.offload = None;
            run.feed(packet);
        }
        (3, 1) => run.pass(Duration::from_millis(number(4)), true),
        (3, 2) => {
            let until = run.engine.poll_timeout().unwrap_or_default().saturating_sub(run.now);
            let (some, little) = (number(1), Duration::from_nanos(1));
            let time = match some % 4 {
                0 => until,
                1 => until.saturating_sub(little),
                2 => until + little,
                _ => until + Duration::from_millis(some),
            };
            run.pass(time, true);
        }
        (3, 3) => run.pass(Duration::from_millis(number(2)), false),
        (3, 4) => {
            let (forwards, now) = (forwards(&run.watch.customer, data), run.now);
            if let Some(napt) = run.engine.napt_mut() {
                run.watch.forget_others_on(&forwards);
                napt.set_forwards(&forwards, now);
                let there: Vec<Forward> = napt.forwards().collect();
                assert!(there.iter().all(|forward| forwards.contains(forward)));
                run.watch.params.forwards = there;
            }
            run.watch.changed(&mut run.engine, now);
        }
        (3, 5) => {
            let setting = Setting::read(data);
            change(run, setting);
        }
        (3, 6) => restart(run, Duration::from_millis(number(2))),
        (3, 7) => ask(run, data),
        _ => return false,
    }
    true
}

fn change(run: &mut Run<Ce, Tracker>, setting: Setting) {
    let now = run.now;
    let was_off = run.engine.napt().is_none();
    let mut next: NextCe = Ce::prepare(&setting.provisioning, &setting.params);
    run.watch.change(run.engine.napt(), setting.customer, setting.params.napt_params.clone());
    let replaced = run.engine.replace(&mut next, now);
    drop(next);
    run.mtu = setting.mtu;
    run.rewrites = setting.choice & 1 != 0;
    run.watch.choice = setting.choice;
    if was_off {
        // The forwards of a NAPT that is new are no event.
        run.watch.begin_again(&run.engine, now);
    }
    run.watch.changed(&mut run.engine, now);
    // Shorter times may have ended some more, and with longer ones what nobody had swept yet lives on.
    assert!(replaced.kept >= run.watch.listed.len(), "{replaced:?}");
}

fn restart(run: &mut Run<Ce, Tracker>, away: Duration) {
    let Some(napt) = run.engine.napt() else { return };
    let (customer, choice) = (run.watch.customer, run.watch.choice);
    let (addr, ports) = (Ipv4Addr::from(customer.addr), customer.ports);
    let set = PortParams::new(ports.0, ports.1).ok().and_then(|params| params.port_set(Psid(ports.2))).expect("ours");
    assert_eq!(napt.port_set(), set);
    let at = Moment { wall: Duration::from_secs(1_790_000_000), boot: "1f-2a".into(), up: Duration::from_secs(7) };
    let mut text = Vec::new();
    let written = saved::write(&mut text, Owner::new(addr, set), &at, napt, run.now).expect("memory");
    let text = String::from_utf8(text).expect("words");
    let mut read = saved::parse(&text, napt.most_saved()).expect("what was written");
    assert_eq!(read.flows.len(), written);
    run.now += away;
    let setting = Setting::new(choice, customer, run.watch.params.clone());
    run.engine = Ce::new(&setting.provisioning, &setting.params);
    run.engine.record(run.watch.recording);
    let restored = run.engine.napt_mut().expect("as before").restore(&mut read.flows, &read.mappings, away, run.now);
    assert_eq!(restored.refused, 0, "{restored:?} of {text}");
    assert_eq!(restored.taken + restored.expired, read.flows.len());
    run.held.clear();
    run.before = run.engine.counters().snapshot();
    run.watch.begin_again(&run.engine, run.now);
    run.watch.changed(&mut run.engine, run.now);
}

fn ask(run: &mut Run<Ce, Tracker>, data: &[u8]) {
    let octet = |n: usize| data.get(n).copied().unwrap_or(0);
    let (now, nth) = (run.now, run.watch.customer.nth(u32::from(octet(3))));
    let Some(napt) = run.engine.napt_mut() else { return };
    let what = octet(0);
    let allowed = |n: u8| Allowed { addr: remote(n).addr, prefix_len: n >> 2 & 31, port: 0 };
    let want = Want {
        protocol: if what & 1 == 0 { Protocol::Tcp } else { Protocol::Udp },
        inside: host(octet(1)),
        origin: if what & 2 == 0 { Origin::NatPmp } else { Origin::Pcp([what >> 6; 12]) },
        // The figures of a PCP client are whole seconds, the NAPT's are not.
        lifetime: Duration::from_millis(u64::from(octet(2)) * 777 + 1),
        suggested: if what & 4 == 0 { 0 } else { nth },
        prefer_failure: what & 8 != 0,
        filters: if what & 16 == 0 { Vec::new() } else { vec![Some(allowed(octet(4)))] },
        per_host: 5,
    };
    match what >> 5 & 3 {
        0 | 1 => {
            if let Ok(granted) = napt.map(&want, now) {
                assert!(granted.lifetime >= want.lifetime);
                let is = |m: &mapt::napt::Mapping| (m.inside, m.port) == (want.inside, granted.outside.port);
                assert!(napt.explicit(now).any(|mapping| mapping.remote.is_none() && is(&mapping)));
            }
        }
        2 => {
            if let Ok(granted) = napt.peer(&want, remote(octet(4)), now) {
                assert!(granted.lifetime >= want.lifetime);
            }
        }
        _ => drop(napt.unmap(want.protocol, want.inside, want.origin)),
    }
    run.watch.was_explicit = true;
    run.watch.changed(&mut run.engine, now);
}

/// One packet of a flow, built whole. The octets, 0 where they are missing:
/// ```text
/// 0  & 3 TCP, TCP, UDP, echo   & 4 inbound   & 8 a first fragment, & 16 a later one   & 32 inbound to any port of the set
///    & 64 to the home's own outside address   & 128 numbers of TCP that do not fit
/// 1  host and port             2  remote, or the number of a flow whose port it goes to
/// 3  TCP flags                 4  Identification; the port of the set
/// 5  & 15 as many more, each from the next port
/// ```
fn exchange(run: &mut Run<Ce, Tracker>, data: &[u8]) {
    let octet = |n: usize| data.get(n).copied().unwrap_or(0);
    let kind = octet(0);
    for more in 0..=(octet(5) & 15) {
        let who = octet(1).wrapping_add(more << 3);
        let customer = run.watch.customer;
        let protocol = protocol(kind);
        let mut inside = host(who);
        if !customer.napt {
            inside = Inside { addr: customer.addr.into(), port: customer.nth(u32::from(who)) };
        }
        let mut far = remote(octet(2));
        if kind & 64 != 0 {
            let listed = &run.watch.listed;
            let view = listed.get(usize::from(octet(2)) % listed.len().max(1)).filter(|v| v.protocol == protocol);
            far = Remote {
                addr: customer.addr.into(),
                port: view.map_or_else(|| customer.nth(u32::from(octet(2))), |view| view.outside.port),
            };
        }
        let inbound = kind & 4 != 0;
        let port = if kind & 32 != 0 {
            customer.nth(u32::from(octet(4)))
        } else {
            let of = |view: &&mapt::napt::FlowView<Inside>| view.protocol == protocol && view.inside == inside;
            let exact = |view: &&mapt::napt::FlowView<Inside>| of(view) && view.remote.is_none_or(|r| r == far);
            let listed = &run.watch.listed;
            let view = listed.iter().find(exact).or_else(|| listed.iter().find(of));
            view.map_or_else(|| customer.nth(u32::from(who)), |view| view.outside.port)
        };
        let flags = octet(3);
        let side = usize::from(inbound);
        let next =
            run.watch.numbers.entry((inside.addr, inside.port, far.addr, far.port)).or_insert([u32::MAX - 3, 77_000]);
        let skew = if kind & 128 != 0 { 0x1234_5678 } else { 0 };
        let (seq, ack) = (next[side].wrapping_add(skew), if flags & 16 != 0 { next[1 - side] } else { 0 });
        if skew == 0 && protocol == Protocol::Tcp && flags & 4 == 0 {
            next[side] = next[side].wrapping_add(u32::from(flags & 2 != 0) + u32::from(flags & 1 != 0));
        }
        let ports = if inbound { (far.port, port) } else { (inside.port, far.port) };
        // A whole segment has no data: numbers go on by SYN and FIN alone.
        let data = protocol != Protocol::Tcp || kind & 24 != 0;
        let transport = transport(protocol, inbound, ports, (seq, ack, flags), data);
        let mut packet = if inbound {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, number(protocol, true), 63];
            head.extend([0x20, 1, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0]);
            head.extend(far.addr.octets());
            head.extend([0, 0, 0]);
            head.extend(customer.map_address());
            Packet { bytes: [&head[..], &transport].concat(), offload: None }
        } else {
            let mut head = vec![0x45, 0, 0, 0, 0, octet(4), 0, 0, 64, number(protocol, false), 0, 0];
            head.extend(inside.addr.octets());
            head.extend(far.addr.octets());
            Packet { bytes: [&head[..], &transport].concat(), offload: None }
        };
        oracle::mend(&mut packet);
        if kind & 24 != 0 {
            cut(&mut packet, octet(4), kind & 16 != 0, kind & 8 != 0);
        }
        run.feed(packet);
    }
}

fn number(protocol: Protocol, v6: bool) -> u8 {
    match protocol {
        Protocol::Tcp => oracle::TCP,
        Protocol::Udp => oracle::UDP,
        Protocol::Icmp if v6 => 58,
        Protocol::Icmp => 1,
    }
}

/// A transport header and perhaps sixteen octets, without checksum.
fn transport(
    protocol: Protocol,
    inbound: bool,
    ports: (u16, u16),
    (seq, ack, flags): (u32, u32, u8),
    data: bool,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(36);
    let [source, target] = [ports.0, ports.1].map(u16::to_be_bytes);
    match protocol {
        Protocol::Tcp => {
            out.extend([source, target].concat());
            out.extend([seq, ack].map(u32::to_be_bytes).concat());
            out.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        Protocol::Udp => {
            out.extend([source, target].concat());
            out.extend([0; 4]);
        }
        Protocol::Icmp => {
            out.extend([if inbound { 129 } else { 8 }, 0, 0, 0]);
            out.extend(if inbound { target } else { source });
            out.extend([0, 1]);
        }
    }
    if data {
        out.extend([0x5a; 16]);
    }
    out
}

/// Makes a packet the first fragment of one with this Identification, or a later one of it.
fn cut(packet: &mut Packet, id: u8, later: bool, more: bool) {
    let offset = if later { 24u16 } else { 0 };
    let bytes = &mut packet.bytes;
    if bytes[0] >> 4 == 4 {
        bytes.truncate(44);
        let [high, low] = ((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes();
        (bytes[2], bytes[3], bytes[6], bytes[7]) = (0, bytes.len() as u8, high, low);
        return oracle::mend_header(packet);
    }
    bytes.truncate(64);
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    let header = [bytes[6], 0, high, low, 0, 0, 0, id];
    bytes[6] = 44;
    bytes.splice(40..40, header);
    let [high, low] = ((bytes.len() - 40) as u16).to_be_bytes();
    (bytes[4], bytes[5]) = (high, low);
}
