//! Datagrams of hosts at the PCP server, flows, forwards and time between them: every answer has its form, and the NAPT
//! keeps exactly what it granted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, PortSet, Psid};
use mapt::napt::{Forward, Inside, InsideKey, Mapping, Napt, NaptParams, Origin, Outside, Protocol, Remote, Segment};
use mapt::pcp::{Pcp, PcpParams};

const ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const PER_HOST: u32 = 5;
const MOST: Duration = Duration::from_secs(86_400);

/// The 15 ports 0x1034, 0x2034, ... 0xf034: few enough to run out.
fn ports() -> PortSet {
    PortParams::new(4, 12).unwrap().port_set(Psid(0x034)).unwrap()
}

fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 10 + n % 4)
}

fn protocol(n: u8) -> Protocol {
    if n.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp }
}

fn remote(n: u8) -> Remote {
    Remote { addr: Ipv4Addr::new(198, 51, 100, n % 3), port: 443 + u16::from(n % 2) }
}

/// Steps: what it is, who does it, how much follows, and that.
pub fn pcp(data: &[u8]) {
    let params = PcpParams { per_host: PER_HOST, ..PcpParams::default() };
    let mut now = Duration::from_secs(100);
    let mut pcp = Pcp::new(params, now);
    let mut napt = Napt::new(ADDR, ports(), &NaptParams::default(), 1);
    let mut rest = data;
    let mut losses = 0;
    while let [what, who, len, after @ ..] = rest {
        let (data, after) = after.split_at((*len as usize).min(after.len()));
        rest = after;
        match what % 8 {
            0..=3 => {
                if let Some(answer) = pcp.answer(Some(&mut napt), host(*who), data, now) {
                    check_answer(&napt, host(*who), data, &answer, now);
                }
            }
            4 => {
                let inside = Inside { addr: host(*who), port: 5000 + u16::from(who / 4) };
                for to in data {
                    let protocol = protocol(to / 8);
                    if let Ok(proposal) = napt.propose_outbound(protocol, inside, remote(*to), now) {
                        napt.commit_outbound(proposal, Some(&Segment::default()), now);
                    }
                }
            }
            5 => {
                now += Duration::from_secs(data.iter().map(|s| u64::from(*s)).sum::<u64>().min(100_000) * 3);
                while napt.poll_timeout().is_some_and(|at| at <= now) {
                    napt.handle_timeout(now);
                }
            }
            6 => {
                let forward = |d: &[u8]| Forward {
                    protocol: protocol(d[0]),
                    port: u16::from(d[1] % 17) << 12 | 0x034,
                    inside: Inside { addr: host(d[2]), port: 5000 + u16::from(d[2] / 4) },
                };
                let forwards: Vec<Forward> = data.chunks_exact(3).map(forward).collect();
                napt.set_forwards(&forwards, now);
            }
            _ => drop(pcp.announce(Some(&napt), now)),
        }
        check(&napt, now);
        assert!(napt.losses() >= losses);
        losses = napt.losses();
    }
}

fn check_answer(napt: &Napt<Inside>, from: Ipv4Addr, request: &[u8], answer: &[u8], now: Duration) {
    assert!(request.len() >= 2 && request[1] < 128, "an answer to no request");
    assert_eq!(answer[1], request[1] | 128);
    if answer[0] == 0 {
        assert!(matches!(answer.len(), 8 | 12 | 16) && answer[2] == 0 && answer[3] <= 5);
        return;
    }
    assert!(answer[0] == 2 && answer[2] == 0 && answer[3] <= 13);
    assert!((24..=1100).contains(&answer.len()) && answer.len().is_multiple_of(4));
    let lifetime = u32::from_be_bytes([answer[4], answer[5], answer[6], answer[7]]);
    if answer[3] != 0 || answer[1] == 128 || lifetime == 0 {
        return;
    }
    // What was granted is there.
    let word = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    let inside = Inside { addr: from, port: word(40) };
    // RFC 6887 §12.1: the remote port, and its address behind two reserved octets.
    let remote = (answer[1] == 130)
        .then(|| Remote { addr: Ipv4Addr::new(answer[76], answer[77], answer[78], answer[79]), port: word(60) });
    let wanted = |m: &Mapping| m.inside == inside && m.port == word(42) && m.remote == remote;
    let granted = napt.explicit(now).find(wanted).expect("granted, and not there");
    let seconds = Duration::from_secs(lifetime.into());
    assert!(granted.remaining.is_none_or(|left| left >= seconds && left < seconds + Duration::from_secs(1)));
}

fn check(napt: &Napt<Inside>, now: Duration) {
    let (mut ports_of, mut insides, mut hosts) = (BTreeMap::<_, usize>::new(), BTreeSet::new(), BTreeMap::new());
    for mapping in napt.explicit(now) {
        let Mapping { protocol, inside, port, .. } = mapping;
        assert!(ports().contains(port));
        assert!(mapping.remaining.is_some() == (mapping.origin != Origin::Static));
        assert!(mapping.remaining.is_none_or(|left| left <= MOST + Duration::from_millis(250)));
        if mapping.origin != Origin::Static {
            let count: &mut u32 = hosts.entry(inside.host()).or_default();
            *count += 1;
            assert!(*count <= PER_HOST);
        }
        let outside = Outside { addr: ADDR, port };
        match mapping.remote {
            Some(remote) => {
                let found = napt.propose_inbound(protocol, outside, remote, now).expect("a PEER's flow");
                assert_eq!(found.inside, inside);
            }
            None => {
                *ports_of.entry(protocol).or_default() += 1;
                assert!(insides.insert((protocol, inside.addr, inside.port)), "two ports of one endpoint");
                let found = napt.propose_inbound(protocol, outside, Remote { addr: ADDR, port: 1 }, now);
                assert!(found.is_ok_and(|found| found.inside == inside) || found.is_err());
                let new = Remote { addr: Ipv4Addr::new(203, 0, 113, 7), port: 7 };
                let out = napt.propose_outbound(protocol, inside, new, now).map(|proposal| proposal.outside);
                assert_eq!(out, Ok(outside), "new flows leave by it");
            }
        }
    }
    for (protocol, count) in ports_of {
        assert!(napt.ports_in_use(protocol) >= count);
    }
}
