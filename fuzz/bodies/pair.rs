//! There and back: what goes into a CE as IPv4 comes out of the BR as the same IPv4, and the answers to it come home.
//!
//! The input: an octet (1: no NAPT but a whole address), then steps of one octet (what), two (how long) and the step's
//! data, an IPv4 packet.
//! ```text
//! what & 1   0 from the home        1 the answer to the last one that arrived, the data over its payload
//! what & 8   lengths and checksums are mended
//! ```

use std::time::Duration;

use mapt::br::{Br, BrParams};
use mapt::ce::{Ce, CeParams};
use mapt::engine::{Engine, TransmitKind};
use mapt::reply::{IcmpParams, Originate};
use mapt::verdict::Verdict;
use mapt::wire::PacketBuf;

use super::engine::{SMALL_TABLE, provisioning, rules};
use super::oracle::{self, Ip, Packet};

const STEPS: usize = 32;
const DMR: &str = "2001:db8:ffff::/64";
const NOW: Duration = Duration::from_secs(1000);

/// Both ends of an access network.
pub fn pair(data: &[u8]) {
    let Some((&choice, mut data)) = data.split_first() else { return };
    let (end_user, address, napt) = match choice & 1 {
        0 => ("2001:db8:12:3400::/56", [192, 0, 2, 0x12], true),
        _ => ("2001:db8:4012::/48", [198, 51, 100, 0x12], false),
    };
    let icmp = IcmpParams { originate: Originate::On, ..IcmpParams::default() };
    let ce = CeParams {
        translation: Default::default(),
        icmp: icmp.clone(),
        check_interface_id: true,
        fragments: SMALL_TABLE,
        rewrite_identification: false,
        napt,
        napt_params: Default::default(),
        seed: 7,
    };
    let br =
        BrParams { translation: Default::default(), icmp, check_interface_id: true, fragments: SMALL_TABLE, seed: 8 };
    // Without FMRs: everything passes the BR.
    let hub = || rules().into_iter().map(|rule| mapt::map::RuleSpec { forwarding: false, ..rule }).collect();
    let mut ce = Ce::new(&provisioning(hub(), DMR, Some(end_user)), &ce);
    let mut br = Br::new(&provisioning(hub(), DMR, None), &br);
    let mut last: Option<(Packet, Packet)> = None;
    for _ in 0..STEPS {
        let Some((&[what, high, low], rest)) = data.split_first_chunk::<3>() else { return };
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (step, rest) = rest.split_at(len);
        data = rest;
        let back = what & 1 != 0;
        let mut packet = match (&last, back) {
            (Some((_, arrived)), true) => {
                let mut packet = oracle::answer(arrived);
                let over = step.len().min(packet.bytes.len());
                let from = packet.bytes.len() - over;
                packet.bytes[from..].copy_from_slice(&step[..over]);
                packet
            }
            (None, true) => continue,
            (_, false) => Packet { bytes: step.to_vec(), offload: None },
        };
        if what & 8 != 0 {
            oracle::mend(&mut packet);
        }
        // The kernel hands on IPv4 alone, from either side.
        if packet.bytes.first().is_none_or(|b| b >> 4 != 4) {
            continue;
        }
        let (near, far): (&mut dyn Engine, &mut dyn Engine) =
            if back { (&mut br, &mut ce) } else { (&mut ce, &mut br) };
        let Some(middle) = through(near, &packet) else { continue };
        let ip = Ip::whole(&packet.bytes).expect("only packets are forwarded");
        let mut out = Vec::new();
        for part in &middle {
            match through(far, part) {
                Some(packets) => out.extend(packets),
                // What is held comes with the first one; what nobody has asked for ends at the CE.
                None => {
                    assert!(back || ip.fragment.is_some() || quotes_ah(&ip), "lost: {packet:02x?} as {part:02x?}");
                }
            }
        }
        if ip.fragment.is_some() || out.is_empty() {
            continue;
        }
        let arrived = the_same(&packet, &ip, &out, back);
        let arrived_ip = Ip::whole(&arrived.bytes).expect("a packet");
        if !back {
            assert_eq!(arrived_ip.src, address, "it has the customer's address");
            let port = arrived_ip.port(true);
            let ours = |p: u16| p >= 1024 && (p >> 2) as u8 == 0x34;
            assert!(!napt || arrived_ip.is_icmp_error() || port.is_some_and(ours), "{port:?}");
            last = Some((packet, arrived));
        } else if let Some((sent, asked)) = &last {
            // An answer from where the question went comes back to who asked.
            let (sent, asked) =
                (Ip::quoted(&sent.bytes).expect("a packet"), Ip::quoted(&asked.bytes).expect("a packet"));
            if ip.dst == asked.src
                && ip.port(false) == asked.port(true)
                && ip.protocol == asked.protocol
                && !ip.is_icmp_error()
            {
                assert_eq!((arrived_ip.dst, arrived_ip.port(false)), (sent.src, sent.port(true)));
            }
        }
    }
}

/// An error about a fragment of AH: RFC 7915 §5.1.1 refuses what IPv6 calls an extension header behind a Fragment header.
fn quotes_ah(ip: &Ip) -> bool {
    ip.is_icmp_error() && Ip::quoted(&ip.payload[8..]).is_some_and(|q| q.fragment.is_some() && q.protocol == 51)
}

/// The outputs of a forwarded packet.
fn through(engine: &mut dyn Engine, packet: &Packet) -> Option<Vec<Packet>> {
    let mut buffer = PacketBuf::from_slice(&packet.bytes);
    let verdict = engine.handle(&mut buffer, NOW);
    let mut out = Vec::new();
    if verdict == Verdict::Forward {
        out.push(Packet { bytes: buffer.bytes().to_vec(), offload: None });
    }
    while let Some((kind, more)) = engine.poll_transmit() {
        if kind == TransmitKind::Packet {
            out.push(Packet { bytes: more.bytes().to_vec(), offload: None });
        }
    }
    (verdict == Verdict::Forward).then_some(out)
}

/// Holds what arrived against what was sent, apart from what may differ: NAPT's address and port, checksums of them,
/// Identification and DF (RFC 7915 §5.1), options, a UDP checksum that was left out.
fn the_same(sent: &Packet, ip: &Ip, out: &[Packet], back: bool) -> Packet {
    let wholes = oracle::reassemble(out);
    let [(arrived, payload, packet)] = &wholes[..] else { panic!("one packet became {}: {sent:02x?}", wholes.len()) };
    let header = &packet.bytes;
    assert_eq!((arrived.v6, arrived.protocol), (false, ip.protocol));
    assert_eq!((header[1], header[8]), (sent.bytes[1], sent.bytes[8]), "TOS and TTL");
    assert_eq!(header[0], 0x45, "no options");
    if ip.is_icmp_error() {
        assert!(arrived.is_icmp_error() && arrived.transport_is_valid(payload, false) == Some(true));
        assert!(!back || arrived.src == ip.src || arrived.src == [192, 0, 0, 8]);
    } else {
        let (mine, theirs) = if back { (ip.src, arrived.src) } else { (ip.dst, arrived.dst) };
        assert_eq!(mine, theirs, "the far end is who it was");
        assert!(oracle::same_transport(ip, ip.payload, payload, true), "{:02x?} became {payload:02x?}", ip.payload);
        if !ip.is_icmp() {
            assert_eq!(ip.port(back), arrived.port(back), "the far port is what it was");
        }
        let (before, after) = (ip.transport_is_valid(ip.payload, false), arrived.transport_is_valid(payload, false));
        match before {
            Some(valid) => assert_eq!(after, Some(valid), "{sent:02x?} became {packet:02x?}"),
            None => assert_ne!(after, Some(false), "{sent:02x?} became {packet:02x?}"),
        }
    }
    // As one packet, for the answer to it.
    let mut whole = header[..20].to_vec();
    whole[2..4].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
    whole[6..8].copy_from_slice(&[0, 0]);
    whole.extend(payload);
    let mut whole = Packet { bytes: whole, offload: None };
    oracle::mend_header(&mut whole);
    whole
}
