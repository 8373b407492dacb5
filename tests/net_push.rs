//! A push under traffic: packets of rules that do not change never notice.
mod io_support;
mod net_support;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use io_support::Namespace;
use net_support::{SERVER, SHARED, World, in_shared_set, ready};
use nix::sys::socket::{setsockopt, sockopt};

/// Packets a second, each way.
const RATE: u32 = 10_000;
const PUSHES: u64 = 12;

/// Rule `metro` of the home that talks stands in every set, the others come, change and go.
fn rules(version: u64) -> String {
    let n = version % 100;
    let offset = 4 + version % 3;
    format!(
        "version: {version}\ndmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n  \
         - {{name: metro, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16, psid-offset: 6}}\n  \
         - {{name: changing, rule-ipv6-prefix: 2001:db8:5500::/40, rule-ipv4-prefix: 203.0.113.0/24, ea-len: 16, psid-offset: {offset}}}\n  \
         - {{name: passing-{n}, rule-ipv6-prefix: \"2001:db8:{:x}00::/40\", rule-ipv4-prefix: 198.18.{n}.0/24, ea-len: 16}}\n",
        0x60 + n
    )
}

fn socket(namespace: &Namespace, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
    setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// Numbers from 0 on, `RATE` a second, until `end`; how many.
fn send(socket: &UdpSocket, to: std::net::SocketAddr, end: &AtomicBool) -> u32 {
    let begin = Instant::now();
    let mut sent = 0;
    while !end.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        while sent < due {
            socket.send_to(&sent.to_be_bytes(), to).unwrap();
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// Marks what comes, until nothing has come for a while after the end.
fn receive(socket: &UdpSocket, end: &AtomicBool) -> Vec<bool> {
    let mut seen = Vec::new();
    let mut buffer = [0; 16];
    let mut quiet = 0;
    while quiet < 4 {
        match socket.recv_from(&mut buffer) {
            Ok((4, _)) => {
                let n = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
                if seen.len() <= n {
                    seen.resize(n + 1, false);
                }
                seen[n] = true;
                quiet = 0;
            }
            Ok(_) => {}
            Err(_) => quiet += u32::from(end.load(Ordering::Relaxed)),
        }
    }
    seen
}

fn push(world: &World, version: u64) {
    world.files.write("next.yaml", &rules(version));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapt"));
    command.args(["push", "next.yaml", "--to", "br.sock", "ce.sock"]).current_dir(&world.files.0);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn routes(namespace: &Namespace, device: &str) -> String {
    namespace.ip(&format!("-4 route show dev {device}"))
}

#[test]
fn packets_of_unchanged_rules_never_notice() {
    if !ready(&["ip"]) {
        return;
    }
    let mut world = World::new("push", &[SHARED], "2001:db8:ffff::/64", 1500);
    world.files.write("rules.yaml", &rules(1));
    world.more = "control: {socket: br.sock}\nstate-directory: state\n";
    world.start_br();
    world.more = "control: {socket: ce.sock}\nstate-directory: state\n";
    world.start_ce(0);

    let (host, server) = (socket(world.host(SHARED), 40_011), socket(&world.server, 5011));
    let to: std::net::SocketAddr = format!("{SERVER}:5011").parse().unwrap();
    host.send_to(b"who am I", to).unwrap();
    let mut buffer = [0; 16];
    let (_, seen) = server.recv_from(&mut buffer).unwrap();
    assert!(in_shared_set(seen.port()));

    let (end, drained) = (AtomicBool::new(false), AtomicBool::new(false));
    let (up, down, sent) = std::thread::scope(|scope| {
        let up = scope.spawn(|| receive(&server, &drained));
        let down = scope.spawn(|| receive(&host, &drained));
        let senders = [scope.spawn(|| send(&host, to, &end)), scope.spawn(|| send(&server, seen, &end))];
        for version in 2..2 + PUSHES {
            push(&world, version);
            std::thread::sleep(Duration::from_millis(150));
        }
        end.store(true, Ordering::Relaxed);
        let sent = senders.map(|sender| sender.join().unwrap());
        drained.store(true, Ordering::Relaxed);
        (up.join().unwrap(), down.join().unwrap(), sent)
    });
    for (way, seen, sent) in [("up", up, sent[0]), ("down", down, sent[1])] {
        let lost: Vec<usize> = (0..sent as usize).filter(|n| !seen.get(*n).copied().unwrap_or(false)).collect();
        assert!(
            lost.is_empty(),
            "{way}: {} of {sent} lost, the first ones {:?}",
            lost.len(),
            &lost[..lost.len().min(10)]
        );
        assert!(f64::from(sent) > f64::from(RATE), "{way}: {sent} packets in more than a second");
    }
    let last = 1 + PUSHES;
    assert!(routes(&world.br, "mapt-br").contains(&format!("198.18.{last}.0/24")));
    assert!(!routes(&world.br, "mapt-br").contains(&format!("198.18.{}.0/24", last - 1)));
    for daemon in [world.br_daemon.as_ref().unwrap(), world.sites[0].daemon.as_ref().unwrap()] {
        let printed = daemon.counters();
        assert_eq!((printed.get("dropped"), printed.refused), ([0, 0], 0));
    }
    let kept = std::fs::read_dir(Path::new(&world.files.0).join("state/br.history")).unwrap().count();
    assert_eq!(kept as u64, 1 + PUSHES);
}
