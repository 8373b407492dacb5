//! `lookups FLOWS PACKETS`: a NAPT with so many TCP flows, then so many packets each way, each of another flow. Made for
//! `valgrind --tool=callgrind`: the difference of two runs with other PACKETS is what a packet costs, with no cache and no
//! other program in it.

use std::net::Ipv4Addr;
use std::time::Duration;

use mapt::map::port_set::PortSet;
use mapt::napt::{Inside, Napt, NaptParams, Protocol, Remote, Segment, TcpFlags};

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let &[flows, packets] = &numbers[..] else {
        eprintln!("usage: lookups FLOWS PACKETS");
        std::process::exit(2);
    };
    let max_flows = flows.max(1024) as u32;
    let mut napt =
        Napt::new(Ipv4Addr::new(192, 0, 2, 18), PortSet::ALL, &NaptParams { max_flows, ..NaptParams::default() }, 99);
    let ends = |n: usize| {
        let addr = Ipv4Addr::from(0xc0a8_0100 + (n / 4096) as u32);
        let remote = Remote { addr: Ipv4Addr::from(0x0a00_0001 + (n % 100) as u32), port: 443 };
        (Inside { addr, port: 20_000 + (n % 4096) as u16 }, remote)
    };
    let flags = TcpFlags { syn: false, ack: true, fin: false, rst: false };
    let segment = Segment { flags, seq: 9000, ack: 5000, len: 1400 };
    let mut now = Duration::from_secs(1);
    let mut both_ways = |n: usize| {
        // Each flow's idle time begins anew with each of its packets: the dearest case.
        now += Duration::from_millis(1);
        let (inside, remote) = ends(n);
        let there = napt.propose_outbound(Protocol::Tcp, inside, remote, now).expect("room for this flow");
        napt.commit_outbound(there, Some(&segment), now);
        let back = napt.propose_inbound(Protocol::Tcp, there.outside, remote, now).expect("an answer");
        napt.commit_inbound(back, Some(&segment), now);
    };
    (0..flows).for_each(&mut both_ways);
    // Coprime to any count that is no multiple of it: every flow comes once in a round.
    (0..packets).for_each(|n| both_ways(n * 7_919 % flows));
}
