//! Random text as a file of mappings: refused with a line, or flows of which a NAPT takes what can be.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::{PortParams, Psid};
use mapt::napt::{Napt, NaptParams, Protocol};
use mapt::ops::saved::{Owner, parse, write};

/// Flows of one file.
const MOST: usize = 64;

pub fn saved(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut saved = match parse(&text, MOST) {
        Ok(saved) => saved,
        Err(error) => {
            assert!(error.line <= text.lines().count() + 1, "{error}");
            let shown = error.to_string();
            assert!(!shown.chars().any(char::is_control), "a terminal obeys this: {shown:?}");
            return;
        }
    };
    let count = saved.flows.len();
    assert!(count <= MOST);
    let addr = Ipv4Addr::new(192, 0, 2, 18);
    let ports = PortParams::new(6, 8).unwrap().port_set(Psid(0x34)).unwrap();
    let params = NaptParams { max_flows: 32, ..NaptParams::default() };
    let mut napt = Napt::new(addr, ports, &params, 7);
    let now = Duration::from_secs(700_000);
    let restored = napt.restore(&mut saved.flows, &saved.mappings, Duration::from_secs(1), now);
    assert_eq!(restored.taken + restored.expired + restored.refused, count);
    let live: usize = Protocol::ALL.into_iter().map(|protocol| napt.flows(protocol)).sum();
    assert_eq!(live, restored.taken);
    // What lives is saved, and comes back as a whole.
    let mut out = Vec::new();
    assert_eq!(write(&mut out, Owner::new(addr, ports), &saved.at, &napt, now).unwrap(), live);
    let mut again = parse(std::str::from_utf8(&out).unwrap(), MOST).unwrap();
    let mut next = Napt::new(addr, ports, &params, 8);
    assert_eq!(next.restore(&mut again.flows, &again.mappings, Duration::ZERO, now).taken, live);
    // And ends.
    while let Some(at) = next.poll_timeout() {
        next.handle_timeout(at);
    }
    assert!(Protocol::ALL.into_iter().all(|protocol| next.ports_in_use(protocol) == 0));
}
