//! Every (a, k, port) against RFC 7597 §B's formula, written with multiplication, division and remainder.

use mapt::map::{PortParams, PortSet, Psid};

/// §B.1: P = R * M * i + M * PSID + j, with i from 1 where a > 0 (§5.1). The ports of each PSID, in that order.
fn ports_by_formula(a: u32, k: u32) -> Vec<Vec<u16>> {
    let (r, m) = (2u32.pow(k), 2u32.pow(16 - a - k));
    let runs = 65536 / (r * m);
    let first = if a > 0 { 1 } else { 0 };
    (0..r)
        .map(|psid| {
            (first..runs).flat_map(|i| (0..m).map(move |j| u16::try_from(r * m * i + m * psid + j).unwrap())).collect()
        })
        .collect()
}

/// For each of these a, all k and ports: PORT-1, 2, 4, 5, 9, 10; P3 to P6.
fn every_length_and_port(offsets: impl Iterator<Item = u8>) -> usize {
    let mut tried = 0;
    for a in offsets {
        for k in 0..=16 - a {
            let params = PortParams::new(a, k).unwrap();
            assert_eq!((params.a(), params.k(), params.m()), (a, k, 16 - a - k));
            let sets = ports_by_formula(a.into(), k.into());
            let (m, excluded) = (1u32 << params.m(), if a > 0 { 65536 >> a } else { 0 });

            let mut owner: Vec<Option<Psid>> = vec![None; 65536];
            for (psid, ports) in sets.iter().enumerate() {
                let psid = Psid(psid as u16);
                let set = params.port_set(psid).unwrap();
                // §5.1's count, which a = 0 does not follow (requirements, section 16.8).
                let count = if a > 0 { (65536 >> k) - m } else { 65536 >> k };
                assert_eq!((set.count(), ports.len()), (count, count as usize), "a={a} k={k}");
                assert_eq!(set.range_count(), if a > 0 { (1 << a) - 1 } else { 1 });
                for (n, &port) in (0u32..).zip(ports) {
                    assert_eq!(owner[usize::from(port)].replace(psid), None, "a={a} k={k}: {port} has two owners");
                    assert_eq!(set.nth(n), Some(port), "a={a} k={k} psid={psid:?} n={n}");
                    assert_eq!(set.index_of(port), Some(n), "a={a} k={k} psid={psid:?} port={port}");
                }
                assert_eq!((set.nth(count), set.nth(u32::MAX)), (None, None));
                let mut listed = ports.iter().copied();
                for range in set.ranges() {
                    assert_eq!(u32::from(range.end() - range.start()) + 1, m);
                    assert!(range.into_iter().eq(listed.by_ref().take(m as usize)));
                }
                assert_eq!(listed.next(), None);
            }
            for (port, owner) in (0..=u16::MAX).zip(&owner) {
                assert_eq!(params.psid_of(port), *owner, "a={a} k={k} port={port}");
                assert_eq!(owner.is_none(), u32::from(port) < excluded, "a={a} k={k} port={port}");
                // `index_of` has told that the owner's set contains it; its neighbour's does not.
                let Some(neighbour) = params.port_set(Psid(owner.map_or(0, |psid| psid.0 ^ 1))) else { continue };
                assert!(neighbour.index_of(port).is_none(), "a={a} k={k} port={port}");
            }
            tried += owner.len();
            assert_eq!(u32::from(params.first_port()), excluded);
            // A PSID of more than k bits.
            if k < 16 {
                assert!(params.port_set(Psid(1 << k)).is_none() && params.port_set(Psid(u16::MAX)).is_none());
            }
        }
    }
    tried
}

#[test]
fn every_even_offset_length_and_port() {
    assert_eq!(every_length_and_port((0..16).step_by(2)), 80 * 65536);
}

#[test]
fn every_odd_offset_length_and_port() {
    assert_eq!(every_length_and_port((1..16).step_by(2)), 72 * 65536);
}

#[test]
fn what_does_not_fit_16_bits_is_refused() {
    for a in 0..=u8::MAX {
        for k in 0..=u8::MAX {
            let fits = a <= 15 && k <= 16 && u32::from(a) + u32::from(k) <= 16;
            assert_eq!(PortParams::new(a, k).is_ok(), fits, "a={a} k={k}");
        }
    }
}

/// PORT-11: an address that is not shared has every port, 0 included.
#[test]
fn all_ports() {
    assert_eq!(PortSet::ALL.count(), 65536);
    assert!((0..=u16::MAX).all(|port| PortSet::ALL.contains(port)
        && PortSet::ALL.nth(port.into()) == Some(port)
        && PortSet::ALL.index_of(port) == Some(port.into())));
    assert_eq!(PortSet::ALL.nth(65536), None);
    assert_eq!(PortSet::ALL.ranges().collect::<Vec<_>>(), [0..=65535]);
}
