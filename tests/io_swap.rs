//! Rule sets swapped under two threads that translate as fast as they can. Under ThreadSanitizer, with the standard
//! library as it comes (what it reports of the test harness itself is that):
//! `RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
//! TSAN_OPTIONS="suppressions=$PWD/tests/io_swap.tsan" cargo test --target x86_64-unknown-linux-gnu --test io_swap`
mod io_support;

use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use io_support::{Namespace, plan, privileged};
use mapt::config::Config;
use mapt::io::{run, setup};
use mapt::ops::engine;
use mapt::verdict::Direction;

/// A hundred thousand are read in a second by a release build, and in ten by a debug one.
const RULES: u32 = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
const SWAPS: u32 = 20;

/// Rule `kept` is in every set; the others are `n` one-to-one rules whose PSID offset changes from set to set.
fn config(version: u32) -> Config {
    let mut text = format!(
        "role: br\nrules:\n  version: {version}\n  dmr-ipv6-prefix: 2001:db8:ffff::/64\n  rules:\n  \
         - {{name: kept, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16}}\n"
    );
    let offset = 4 + version % 3;
    for n in 0..RULES {
        let addr = std::net::Ipv4Addr::from(0x6440_0000 + n);
        text += &format!(
            "  - {{rule-ipv6-prefix: \"2001:db9:{:x}:{:x}::/64\", rule-ipv4-prefix: {addr}/32, ea-len: 0, psid-offset: {offset}, psid-len: 8, psid: 7}}\n",
            n >> 16,
            n & 0xffff
        );
    }
    let mut none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    Config::load(&text, Path::new("swap.yaml"), &mut none).unwrap_or_else(|e| panic!("{e}")).value
}

#[test]
fn swaps_under_two_translating_threads() {
    if !privileged() {
        return;
    }
    let configs = [config(1), config(2), config(3)];
    let namespace = Namespace::router();
    namespace.ip("address add 203.0.113.9/32 dev lo");
    let mut plan = plan("mapt-t", &["192.0.2.0/24"]);
    plan.queues = 2;
    let (device, _installed) = namespace.block_on(async || setup::install(&plan).await.unwrap());
    let queues = device.queues.len();
    let mut running = run::start(device, engine::build_all(&configs[0], queues)).unwrap();
    let jobs = running.jobs();
    let end = AtomicBool::new(false);
    let sent: u64 = std::thread::scope(|scope| {
        let flood = |from: u16| {
            let socket = namespace.run(|| UdpSocket::bind(("203.0.113.9", from)).unwrap());
            let end = &end;
            scope.spawn(move || {
                let mut sent = 0u64;
                while !end.load(Ordering::Relaxed) {
                    // PSID 0x34 of 192.0.2.18: ports 1232 to 1235 (RFC 7597 Appendix A).
                    sent += u64::from(
                        socket.send_to(&sent.to_be_bytes(), ("192.0.2.18", 1232 + (sent % 4) as u16)).is_ok(),
                    );
                    // The queue of a TUN has no pressure: what overruns it says nothing about swaps.
                    if sent.is_multiple_of(64) {
                        std::thread::yield_now();
                    }
                }
                sent
            })
        };
        // Several flows, for both queues.
        let floods: Vec<_> = (6001..6005).map(flood).collect();
        namespace.block_on(async || {
            for swap in 0..SWAPS {
                let next = engine::prepare_all(&configs[(swap as usize + 1) % configs.len()], queues);
                for (jobs, mut next) in jobs.iter().zip(next) {
                    let (_, former) =
                        jobs.call(move |machine, now| (machine.replace(&mut next, now), next)).await.unwrap();
                    drop(former);
                }
            }
        });
        end.store(true, Ordering::Relaxed);
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    let stopped = running.stop();
    stopped.result.unwrap();
    let (engines, _) = running.meters().sum();
    let up = engines.direction(Direction::V4ToV6);
    assert!(up.received.packets > u64::from(SWAPS) && up.received.packets <= sent);
    assert_eq!((up.forwarded.packets, up.dropped_total().packets), (up.received.packets, 0), "rule `kept` never went");
}
