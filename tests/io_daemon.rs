//! `mapt-br` and `mapt-ce` as processes: command line, routes, signals, and what a refused start leaves (nothing).
mod io_support;

use std::io::Read;
use std::process::{Command, Output, Stdio};

use io_support::daemon::{Daemon, Files};
use io_support::{Namespace, privileged, wait_for};
use nix::sys::signal::Signal;

const BR: &str = env!("CARGO_BIN_EXE_mapt-br");
const CE: &str = env!("CARGO_BIN_EXE_mapt-ce");

const RULES: &str = "
version: 7
dmr-ipv6-prefix: 2001:db8:ffff::/64
rules:
  - {name: metro-east, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16}
";

/// A directory with configuration files and the rules.
fn files(name: &str, files: &[(&str, &str)]) -> Files {
    let made = Files::new(&format!("io-daemon-{name}"), &[("rules.yaml", RULES)]);
    for (file, text) in files {
        made.write(file, text);
    }
    made
}

/// A start that must be refused with status 1 and one message; nothing may be left in the namespace.
fn refused(namespace: &Namespace, command: &mut Command) -> String {
    let look = || {
        namespace.ip("address show") + &namespace.ip("route show table all") + &namespace.ip("-6 route show table all")
    };
    let before = look();
    let Output { status, stdout, stderr } = namespace.run(|| command.output().unwrap());
    assert_eq!(look(), before);
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{message}");
    assert_eq!(String::from_utf8(stdout).unwrap(), "", "{message}");
    message
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

const BR_ROUTE: &str = "192.0.2.0/24 dev mapt-br proto 182 scope link metric 1024 mtu 1480";

#[test]
fn a_br_installs_its_routes_prints_counters_and_ends_clean() {
    if !privileged() {
        return;
    }
    let files = files("br", &[("br.yaml", "role: br\nrules: rules.yaml\nstate-directory: state\ntun: {queues: 2}\n")]);
    let namespace = Namespace::router();
    let daemon = Daemon::start(&namespace, BR, &files.path("br.yaml"));
    assert_eq!(lines(&namespace.ip("-4 route show")), [BR_ROUTE]);
    assert_eq!(
        lines(&namespace.ip("-6 route show dev mapt-br")),
        ["2001:db8:ffff::/64 proto 182 metric 1024 pref medium"]
    );
    assert!(files.path("state/br.routes").exists());
    assert!(namespace.ip("-d link show dev mapt-br").contains("numqueues 2"));

    daemon.signal(Signal::SIGUSR1);

    assert!(daemon.line().starts_with("mapt-br "));
    // A packet to a port that nobody owns, then the counters tell.
    namespace.ip("address add 203.0.113.9/32 dev lo");
    let socket = namespace.run(|| std::net::UdpSocket::bind("203.0.113.9:5000").unwrap());
    socket.send_to(b"x", "192.0.2.18:80").unwrap();
    wait_for("the drop to be counted", || {
        daemon.signal(Signal::SIGUSR1);
        loop {
            let line = daemon.line();
            if line.contains("port-excluded") {
                return true;
            }
            if line.starts_with("device: ") {
                return false;
            }
        }
    });

    daemon.signal(Signal::SIGTERM);
    let (status, printed) = daemon.end();
    assert!(status.success(), "{status}");
    assert!(
        printed.lines().any(|line| line.split_whitespace().eq(["port-excluded", "1", "29", "0", "0"])),
        "{printed}"
    );
    assert!(!namespace.has_link("mapt-br"));
    assert_eq!(namespace.ip("-4 route show"), "");
    assert!(!files.path("state/br.routes").exists());
}

#[test]
fn killed_daemons_are_followed_up_and_neighbours_left_alone() {
    if !privileged() {
        return;
    }
    let br = "role: br\nrules: rules.yaml\nstate-directory: state\n";
    let other = "role: br\nrules: other.yaml\nstate-directory: state\ninstance: other\n";
    let other_rules = RULES.replace("192.0.2.0/24", "198.51.100.0/24").replace(":ffff:", ":fffe:");
    let files = files("killed", &[("br.yaml", br), ("other.yaml", &other_rules), ("br2.yaml", other)]);
    let namespace = Namespace::router();
    // Only on a persistent device does anything outlive the process.
    namespace.ip("tuntap add dev mapt-br mode tun multi_queue vnet_hdr");
    let _other = Daemon::start(&namespace, BR, &files.path("br2.yaml"));
    let mut daemon = Daemon::start(&namespace, BR, &files.path("br.yaml"));
    daemon.child.kill().unwrap();
    daemon.end();
    let neighbour = "198.51.100.0/24 dev mapt-other proto 182 scope link metric 1024 mtu 1480";
    // `linkdown` comes in the kernel's own time.
    assert_eq!(lines(&namespace.ip("-4 route show").replace("linkdown ", "")), [BR_ROUTE, neighbour]);

    // The next one has other rules; SIGINT ends it as SIGTERM does.
    std::fs::write(files.path("rules.yaml"), RULES.replace("192.0.2.0/24", "192.0.3.0/24")).unwrap();
    let daemon = Daemon::start(&namespace, BR, &files.path("br.yaml"));
    assert_eq!(
        lines(&namespace.ip("-4 route show").replace("linkdown ", "")),
        [&BR_ROUTE.replace("192.0.2.0", "192.0.3.0"), neighbour]
    );
    daemon.signal(Signal::SIGINT);
    assert!(daemon.end().0.success());
    assert_eq!(lines(&namespace.ip("-4 route show")), [neighbour]);
    assert!(namespace.has_link("mapt-br"));
}

#[test]
fn a_ce_takes_everything_ipv4_and_idles_without_a_prefix() {
    if !privileged() {
        return;
    }
    let files = files(
        "ce",
        &[
            ("ce.yaml", "role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\n"),
            ("idle.yaml", "role: ce\nrules: rules.yaml\n"),
        ],
    );
    let namespace = Namespace::router();
    let daemon = Daemon::start(&namespace, CE, &files.path("ce.yaml"));
    assert_eq!(
        lines(&namespace.ip("-4 route show")),
        ["default dev mapt-ce proto 182 scope link src 192.0.0.2 metric 1024 mtu 1480"]
    );
    assert_eq!(
        lines(&namespace.ip("-6 route show dev mapt-ce")),
        ["2001:db8:12:3400:0:c000:212:34 proto 182 metric 1024 pref medium"]
    );
    assert!(namespace.ip("address show dev mapt-ce").contains("inet 192.0.0.2/32"));
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().0.success());

    let daemon = Daemon::start(&namespace, CE, &files.path("idle.yaml"));
    assert_eq!(namespace.ip("-4 route show"), "");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().0.success());
}

#[test]
fn a_device_removed_under_a_daemon_ends_it_with_a_message() {
    if !privileged() {
        return;
    }
    let files = files("gone", &[("br.yaml", "role: br\nrules: rules.yaml\n")]);
    let namespace = Namespace::router();
    let mut command = Command::new(BR);
    let mut daemon = Daemon::spawn(&namespace, command.arg(files.path("br.yaml")).stderr(Stdio::piped()));
    assert!(daemon.line().starts_with("ready: mapt-br `br` on mapt-br: "));
    let mut stderr = daemon.child.stderr.take().unwrap();
    namespace.ip("link delete mapt-br");
    assert_eq!(daemon.end().0.code(), Some(1));
    let mut message = String::new();
    stderr.read_to_string(&mut message).unwrap();
    assert_eq!(message, "mapt-br: TUN device `mapt-br` was removed while it was in use\n");
}

#[test]
fn cap_net_admin_is_all_the_privilege_it_needs() {
    if !privileged() {
        return;
    }
    let files = files("nobody", &[("br.yaml", "role: br\nrules: rules.yaml\nsysctl: manage\n")]);
    // A program and a device node that nobody (65534) can reach, in a mount namespace of their own.
    std::fs::copy(BR, files.path("mapt-br")).unwrap();
    let script = "d=$1; mknod $d/tun c 10 200 && chmod 666 $d/tun && mount --bind $d/tun /dev/net/tun && \
                  exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all,+net_admin \
                  --ambient-caps=-all,+net_admin --bounding-set=-all,+net_admin $d/mapt-br $d/br.yaml";
    let namespace = Namespace::router();
    namespace.sysctl("ipv4/ip_forward", "0");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&files.0);
    let daemon = Daemon::spawn(&namespace, &mut command);
    assert!(daemon.line().starts_with("ready: mapt-br "));
    assert_eq!(lines(&namespace.ip("-4 route show")), [BR_ROUTE]);
    assert_eq!(namespace.get_sysctl("ipv4/ip_forward"), "1");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    assert!(status.contains("CapEff:\t0000000000001000\n"), "{status}");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.end().0.success());
}

#[test]
fn bad_starts_say_one_thing_and_leave_nothing() {
    if !privileged() {
        return;
    }
    let files = files(
        "bad",
        &[
            ("br.yaml", "role: br\nrules: rules.yaml\n"),
            ("ce.yaml", "role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\n"),
            ("wrong.yaml", "role: br\nrules: rules.yaml\ntun: {queues: 17, colour: red}\n"),
        ],
    );
    let namespace = Namespace::router();
    let message = refused(&namespace, Command::new(BR).arg(files.path("ce.yaml")));
    assert!(message.contains("says `role: ce`: start `mapt-ce` with it"), "{message}");
    let message = refused(&namespace, Command::new(BR).arg(files.path("none.yaml")));
    assert!(message.contains("none.yaml: cannot read it"), "{message}");
    let message = refused(&namespace, Command::new(BR).arg(files.path("wrong.yaml")));
    assert!(message.contains("wrong.yaml:3:") && message.contains("queues") && message.contains("colour"), "{message}");

    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", BR]).arg(files.path("br.yaml"));
    let message = refused(&namespace, &mut command);
    assert!(
        message.starts_with("mapt-br: TUN device `mapt-br` cannot be made: the capability CAP_NET_ADMIN is missing"),
        "{message}"
    );

    let running = Daemon::start(&namespace, BR, &files.path("br.yaml"));
    let message = refused(&namespace, Command::new(BR).arg(files.path("br.yaml")));
    assert!(message.starts_with("mapt-br: TUN device `mapt-br` is in use by another process: "), "{message}");
    running.signal(Signal::SIGTERM);
    assert!(running.end().0.success());

    namespace.ip("address delete 2001:db8:a::1/128 dev lo");
    let message = refused(&namespace, Command::new(CE).arg(files.path("ce.yaml")));
    assert!(message.starts_with("mapt-ce: this host has no IPv6 address"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");

    namespace.ip("address add 2001:db8:a::1/128 dev lo nodad");
    namespace.sysctl("ipv4/ip_forward", "0");
    let message = refused(&namespace, Command::new(BR).arg(files.path("br.yaml")));
    assert!(message.contains("sysctl -w net.ipv4.ip_forward=1") && message.contains("sysctl: manage"), "{message}");
}

#[test]
fn the_dry_run_is_what_the_daemon_does() {
    let config = "role: br\nrules: rules.yaml\ntun: {queues: 2}\n";
    let files = files(
        "dry",
        &[
            ("br.yaml", config),
            ("manage.yaml", &format!("{config}sysctl: manage\nroutes: {{table: 100, metric: 7}}\n")),
            ("ce.yaml", "role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: 2001:db8:12:3400::/56\n"),
        ],
    );
    let dry_run = |program: &str, file: &str| {
        let output = Command::new(program).arg(files.path(file)).arg("--dry-run").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        dry_run(BR, "br.yaml"),
        "\
# mapt-br, instance `br`: what it would do, as commands. Nothing was changed.
# device with 2 queue(s), its offloads switched on; it goes with the daemon
ip tuntap add dev mapt-br mode tun multi_queue vnet_hdr
sysctl -w net.ipv4.conf.mapt-br.forwarding=1
sysctl -w net.ipv4.conf.mapt-br.rp_filter=0
sysctl -w net.ipv4.conf.mapt-br.send_redirects=0
sysctl -w net.ipv4.conf.mapt-br.accept_local=1
sysctl -w net.ipv6.conf.mapt-br.disable_ipv6=0
sysctl -w net.ipv6.conf.mapt-br.force_mld_version=1
sysctl -w net.ipv6.conf.mapt-br.forwarding=0
ip link set dev mapt-br mtu 1520 multicast off addrgenmode none
ip link set dev mapt-br up
# 2 route(s), removed at exit
ip -4 route add 192.0.2.0/24 dev mapt-br proto 182 scope link metric 1024 mtu 1480
ip -6 route add 2001:db8:ffff::/64 dev mapt-br proto 182 metric 1024
# sysctls of the host, only looked at (`sysctl: check`)
# sysctl -w net.ipv4.ip_forward=1
# sysctl -w net.ipv6.conf.all.forwarding=1
# sysctl -w net.ipv4.conf.all.rp_filter=0
# sysctl -w net.ipv4.conf.all.send_redirects=0
"
    );
    if !privileged() {
        return;
    }
    // The commands by hand and the daemon must come to the same.
    for (program, file, tun) in [(BR, "manage.yaml", "mapt-br"), (CE, "ce.yaml", "mapt-ce")] {
        let state = |namespace: &Namespace| {
            let mut text = namespace.ip("-4 route show table all") + &namespace.ip("-6 route show table all");
            text += &namespace.ip(&format!("address show dev {tun}"));
            for name in [
                "ipv4/ip_forward",
                "ipv6/conf/all/forwarding",
                "ipv4/conf/all/rp_filter",
                "ipv4/conf/all/send_redirects",
            ] {
                text += &format!("{name}={}\n", namespace.get_sysctl(name));
            }
            // Nobody holds the device that was made by hand.
            let text = text.replace("NO-CARRIER,", "").replace(",LOWER_UP", "").replace(" linkdown", "");
            let text = text.replace("state DOWN", "state UNKNOWN");
            lines(&text).into_iter().filter(|line| !line.starts_with("multicast ff00::/8")).collect::<Vec<_>>()
        };
        let by_hand = Namespace::router();
        // sysctl(8) in one line: procps is not everywhere.
        let sysctl = r#"sysctl() { echo "${2#*=}" > "/proc/sys/$(echo "${2%%=*}" | tr ./ /.)"; }"#;
        let script = format!("{sysctl}\n{}", dry_run(program, file));
        let output = by_hand.run(|| Command::new("sh").args(["-e", "-c", &script]).output().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let namespace = Namespace::router();
        let _daemon = Daemon::start(&namespace, program, &files.path(file));
        assert_eq!(state(&namespace), state(&by_hand));
    }
}

#[test]
fn wrong_usage_has_status_2() {
    for arguments in [&[][..], &["--colour"], &["a.yaml", "--config", "b.yaml"]] {
        let output = Command::new(BR).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
