//! Routes, addresses, sysctls and the state file of a start, and what is left of them after its end or failure.
mod io_support;

use std::path::PathBuf;
use std::time::Duration;

use io_support::{Namespace, plan, privileged, wait_for};
use mapt::config::Sysctl;
use mapt::io::plan::{Plan, Program};
use mapt::io::setup::{self, Installed};
use mapt::io::tun::Device;
use mapt::io::watch::Suspects;

/// Links, addresses, routes and the sysctls of `all`.
fn everything(namespace: &Namespace) -> String {
    let commands = ["address show", "-4 route show table all", "-6 route show table all"];
    let mut text = commands.map(|command| namespace.ip(command)).concat();
    // The kernel's own, from the first time that a persistent device has a process.
    text =
        text.lines().filter(|line| !line.starts_with("multicast ff00::/8")).map(|line| format!("{line}\n")).collect();
    for name in
        ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter", "ipv4/conf/all/send_redirects"]
    {
        text += &format!("{name}={}\n", namespace.get_sysctl(name));
    }
    text
}

/// A start that must be refused: its message, after a look that nothing is left of it.
async fn refused(namespace: &Namespace, plan: &Plan) -> String {
    let before = everything(namespace);
    let message = setup::install(plan).await.unwrap_err().to_string();
    left_as(namespace, &before);
    message
}

/// A child that another test is just starting holds our descriptors until it executes its program.
fn left_as(namespace: &Namespace, before: &str) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < std::time::Duration::from_secs(10) && everything(namespace) != before {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let after = everything(namespace);
    let only_in =
        |a: &str, b: &str| a.lines().filter(|line| !b.lines().any(|l| l == *line)).map(String::from).collect();
    let (new, gone): (Vec<String>, Vec<String>) = (only_in(&after, before), only_in(before, &after));
    assert!(after == before, "new: {new:#?}, gone: {gone:#?}");
}

/// What would be lost with a killed process is lost; what stays, stays.
fn killed(namespace: &Namespace, started: (Device, Installed)) {
    let device = format!("-d link show dev {}", started.0.name);
    drop(started);
    wait_for("the device to be free or gone", || {
        let shown = namespace.output("ip", &device);
        !shown.status.success() || String::from_utf8_lossy(&shown.stdout).contains("numqueues 0")
    });
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("mapt-io-setup-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn routes_and_addresses_are_exactly_these_and_go_again() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let before = everything(&namespace);
    let directory = Directory::new("exact");
    let mut plan = plan("mapt-t", &["192.0.2.0/24", "203.0.113.18/32", "2001:db8:ffff::/64", "0.0.0.0/0"]);
    plan.address = Some("192.0.0.2".parse().unwrap());
    plan.routes[3].source = plan.address;
    plan.state_directory = Some(directory.0.clone());
    namespace.block_on(async || {
        let (device, mut installed) = setup::install(&plan).await.unwrap();
        assert_eq!(installed.route_count(), 4);
        assert_eq!(
            lines(&namespace.ip("-4 route show")),
            [
                "default dev mapt-t proto 182 scope link src 192.0.0.2 metric 1024 mtu 1480",
                "192.0.2.0/24 dev mapt-t proto 182 scope link metric 1024 mtu 1480",
                "203.0.113.18 dev mapt-t proto 182 scope link metric 1024 mtu 1480",
            ]
        );
        assert_eq!(
            lines(&namespace.ip("-6 route show dev mapt-t")),
            ["2001:db8:ffff::/64 proto 182 metric 1024 pref medium"]
        );
        let link = namespace.ip("link show dev mapt-t");
        assert!(link.contains(",UP,LOWER_UP> mtu 1520 "), "{link}");
        assert!(namespace.ip("-4 address show dev mapt-t").contains("inet 192.0.0.2/32 scope global mapt-t"));
        for (name, value) in [
            ("ipv4/conf/mapt-t/rp_filter", "0"),
            ("ipv4/conf/mapt-t/send_redirects", "0"),
            ("ipv4/conf/mapt-t/accept_local", "1"),
            ("ipv4/conf/mapt-t/forwarding", "1"),
            ("ipv6/conf/mapt-t/disable_ipv6", "0"),
        ] {
            assert_eq!(namespace.get_sysctl(name), value, "{name}");
        }
        let state = std::fs::read_to_string(directory.0.join("mapt-t.routes")).unwrap();
        assert_eq!(state.lines().next(), Some("192.0.2.0/24 dev mapt-t table 254 metric 1024 proto 182"));
        assert_eq!(state.lines().count(), 4);

        installed.remove().await;
        assert_eq!(lines(&namespace.ip("-4 route show dev mapt-t")), [""; 0]);
        assert_eq!(lines(&namespace.ip("-6 route show dev mapt-t")), [""; 0]);
        assert!(!namespace.ip("address show dev mapt-t").contains("192.0.0.2"));
        assert!(!directory.0.join("mapt-t.routes").exists());
        drop(device);
    });
    left_as(&namespace, &before);
}

#[test]
fn another_table_metric_and_protocol_are_used() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let mut plan = plan("mapt-t", &["192.0.2.0/24", "2001:db8:ffff::/64"]);
    for (route, table) in plan.routes.iter_mut().zip([1000, 100]) {
        (route.table, route.metric, route.protocol) = (table, 77, 183);
    }
    plan.protocol = 183;
    namespace.block_on(async || {
        let _kept = setup::install(&plan).await.unwrap();
        assert_eq!(
            lines(&namespace.ip("-4 route show table 1000")),
            ["192.0.2.0/24 dev mapt-t proto 183 scope link metric 77 mtu 1480"]
        );
        assert_eq!(
            lines(&namespace.ip("-6 route show table 100")),
            ["2001:db8:ffff::/64 dev mapt-t proto 183 metric 77 pref medium"]
        );
        assert!(!namespace.ip("-4 route show").contains("mapt-t"));
    });
}

#[test]
fn what_a_killed_process_left_is_replaced_and_nothing_else() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let directory = Directory::new("stale");
    for name in ["mapt-t", "mapt-old", "mapt-foreign"] {
        namespace.ip(&format!("tuntap add dev {name} mode tun multi_queue vnet_hdr"));
        namespace.ip(&format!("link set {name} up"));
    }
    namespace.block_on(async || {
        let mut other = plan("mapt-other", &["198.51.100.0/24", "2001:db8:fffe::/64"]);
        other.state_directory = Some(directory.0.clone());
        let _other = setup::install(&other).await.unwrap();

        // The same instance, at first with another TUN and another table.
        let mut old = plan("mapt-old", &["192.0.2.0/24", "203.0.113.0/24", "2001:db8:ffff::/64"]);
        old.instance = "br".to_owned();
        old.routes[1].table = 100;
        old.state_directory = Some(directory.0.clone());
        killed(&namespace, setup::install(&old).await.unwrap());
        assert!(namespace.ip("-4 route show").contains("192.0.2.0/24 dev mapt-old proto 182"));

        // Not ours: by device and protocol, by protocol, by device and state file.
        namespace.ip("route add 10.1.0.0/16 dev mapt-t proto static");
        namespace.ip("route add 10.2.0.0/16 dev lo proto 182");
        namespace.ip("route add 10.3.0.0/16 dev mapt-foreign proto 182");
        // Ours, though no state file tells.
        namespace.ip("route add 10.4.0.0/16 dev mapt-t proto 182");
        namespace.ip("route add 10.5.0.0/16 dev mapt-t proto 182 table 200");
        let mut new = plan("mapt-t", &["192.0.2.0/24", "2001:db8:ffff::/64"]);
        new.instance = "br".to_owned();
        new.state_directory = Some(directory.0.clone());
        let first = setup::install(&new).await.unwrap();
        let expected = [
            "10.1.0.0/16 dev mapt-t proto static scope link",
            "10.2.0.0/16 dev lo proto 182 scope link",
            "10.3.0.0/16 dev mapt-foreign proto 182 scope link linkdown",
            "192.0.2.0/24 dev mapt-t proto 182 scope link metric 1024 mtu 1480",
            "198.51.100.0/24 dev mapt-other proto 182 scope link metric 1024 mtu 1480",
        ];
        assert_eq!(lines(&namespace.ip("-4 route show")), expected);
        assert!(!namespace.ip("-4 route show table all").contains("mapt-old"));
        assert!(!namespace.ip("-4 route show table all").contains("table 200"));
        assert_eq!(lines(&namespace.ip("-6 route show proto 182")).len(), 2);

        // Killed again, with the same routes: they are kept as they are, a changed one is replaced.
        killed(&namespace, first);
        new.routes[0].mtu = Some(1400);
        let (device, mut installed) = setup::install(&new).await.unwrap();
        assert!(device.persistent);
        assert_eq!(lines(&namespace.ip("-4 route show"))[3], expected[3].replace("1480", "1400"));
        assert_eq!(installed.route_count(), 2);
        installed.remove().await;
        let left: Vec<&str> = expected.into_iter().filter(|line| !line.contains("192.0.2.0")).collect();
        assert_eq!(lines(&namespace.ip("-4 route show")), left);
        assert_eq!(lines(&namespace.ip("-6 route show proto 182")).len(), 1);
    });
}

#[test]
fn a_remembered_route_is_left_to_an_instance_that_lives() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let directory = Directory::new("living");
    namespace.block_on(async || {
        let _other = setup::install(&plan("mapt-a", &["192.0.2.0/24"])).await.unwrap();
        // As if this instance had been `mapt-a` before the other one took the name.
        std::fs::write(directory.0.join("br.routes"), "192.0.2.0/24 dev mapt-a table 254 metric 1024 proto 182\n")
            .unwrap();
        let mut mine = plan("mapt-b", &["198.51.100.0/24"]);
        mine.instance = "br".to_owned();
        mine.state_directory = Some(directory.0.clone());
        let _mine = setup::install(&mine).await.unwrap();
        assert!(namespace.ip("-4 route show").contains("192.0.2.0/24 dev mapt-a proto 182"));
    });
}

#[test]
fn a_route_in_the_way_is_named_and_nothing_stays() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    namespace.ip("route add 203.0.113.0/24 dev lo metric 1024 proto bird");
    namespace.ip("route add 2001:db8:ffff::/64 dev lo metric 1024 proto static");
    namespace.block_on(async || {
        let mut both = plan("mapt-t", &["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]);
        both.address = Some("192.0.0.2".parse().unwrap());
        both.sysctl = Sysctl::Manage;
        let message = refused(&namespace, &both).await;
        assert!(message.contains("203.0.113.0/24 metric 1024 in table 254"), "{message}");
        assert!(message.contains("`203.0.113.0/24 dev lo table 254 proto 12 metric 1024`"), "{message}");
        assert!(message.contains("routes.metric"), "{message}");

        let message = refused(&namespace, &plan("mapt-t", &["192.0.2.0/24", "2001:db8:ffff::/64"])).await;
        assert!(message.contains("`2001:db8:ffff::/64 dev lo table 254 proto 4 metric 1024`"), "{message}");

        // On a persistent device nothing goes by itself.
        namespace.ip("tuntap add dev mapt-t mode tun multi_queue");
        namespace.ip("link set mapt-t mtu 1520 multicast off addrgenmode none");
        namespace.sysctl("ipv6/conf/mapt-t/forwarding", "0");
        namespace.ip("link set mapt-t up");
        refused(&namespace, &both).await;
        // Another metric is no conflict.
        both.routes[2].metric = 1025;
        let _kept = setup::install(&both).await.unwrap();
    });
}

#[test]
fn a_busy_name_and_a_foreign_interface_are_refused() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    let _device = namespace.run(|| Device::create("mapt-t", 1)).unwrap();
    namespace.ip("link add mapt-v type veth peer name mapt-w");
    namespace.block_on(async || {
        let message = refused(&namespace, &plan("mapt-t", &["192.0.2.0/24"])).await;
        assert!(message.starts_with("TUN device `mapt-t` is in use by another process: "), "{message}");
        let message = refused(&namespace, &plan("mapt-v", &["192.0.2.0/24"])).await;
        assert!(message.contains("`mapt-v` exists already and is no TUN device (`veth`)"), "{message}");
    });
}

#[test]
fn missing_ipv6_is_refused_but_not_where_a_ce_waits_for_its_prefix() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    namespace.ip("address delete 2001:db8:a::1/128 dev lo");
    namespace.ip("link add mapt-v type veth peer name mapt-w");
    namespace.ip("link set mapt-v up");
    // A free TUN of our name with an address of its own does not count.
    namespace.ip("tuntap add dev mapt-t mode tun");
    namespace.ip("address add 2001:db8:7::7/64 dev mapt-t nodad");
    namespace.wait_for_local("2001:db8:7::7");
    namespace.block_on(async || {
        let mut plan = plan("mapt-t", &["192.0.2.0/24"]);
        plan.program = Program::Ce;
        let message = refused(&namespace, &plan).await;
        assert!(
            message.starts_with("this host has no IPv6 address (link-local ones aside), and mapt-ce needs"),
            "{message}"
        );
        plan.provisioned = false;
        setup::install(&plan).await.unwrap();
    });
}

#[test]
fn sysctls_of_the_host_are_checked_or_managed() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    for (name, value) in [
        ("ipv4/ip_forward", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv4/conf/all/rp_filter", "2"),
        ("ipv4/conf/all/send_redirects", "1"),
    ] {
        namespace.sysctl(name, value);
    }
    namespace.block_on(async || {
        let mut plan = plan("mapt-t", &["192.0.2.0/24"]);
        let message = refused(&namespace, &plan).await;
        for command in [
            "sysctl -w net.ipv4.ip_forward=1",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
            "sysctl -w net.ipv4.conf.all.rp_filter=0",
            "sysctl -w net.ipv4.conf.all.send_redirects=0",
        ] {
            assert!(message.contains(command), "{command} is missing in {message}");
        }
        assert!(message.contains("net.ipv4.conf.all.rp_filter is 2, not 0"), "{message}");

        plan.sysctl = Sysctl::Manage;
        killed(&namespace, setup::install(&plan).await.unwrap());
        assert_eq!(namespace.get_sysctl("ipv4/ip_forward"), "1");
        assert_eq!(namespace.get_sysctl("ipv6/conf/all/forwarding"), "1");
        assert_eq!(namespace.get_sysctl("ipv4/conf/all/rp_filter"), "0");
        assert_eq!(namespace.get_sysctl("ipv4/conf/all/send_redirects"), "0");

        // Redirects alone are worth a warning, not a refusal; rp_filter is a refusal by itself.
        plan.sysctl = Sysctl::Check;
        namespace.sysctl("ipv4/conf/all/send_redirects", "1");
        killed(&namespace, setup::install(&plan).await.unwrap());
        namespace.sysctl("ipv4/conf/all/rp_filter", "1");
        let message = refused(&namespace, &plan).await;
        assert!(message.contains("rp_filter is 1, not 0") && !message.contains("forward is"), "{message}");
    });
}

#[test]
fn a_state_directory_that_cannot_be_written_is_refused() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    namespace.block_on(async || {
        let mut plan = plan("mapt-t", &["192.0.2.0/24"]);
        plan.state_directory = Some("/proc/mapt".into());
        let message = refused(&namespace, &plan).await;
        assert!(message.starts_with("state file /proc/mapt/mapt-t.routes cannot be written"), "{message}");
    });
}

#[test]
fn thousands_of_routes_are_installed_and_removed() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::router();
    // For measuring: `MAPT_ROUTES=100000 cargo test --release --test io_setup thousands -- --nocapture`.
    let count: u32 = std::env::var("MAPT_ROUTES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let mut plan = plan("mapt-t", &[]);
    plan.routes = (0..count / 2)
        .flat_map(|i| {
            let v4 = std::net::Ipv4Addr::from(0x0a00_0000 + (i << 4));
            [
                io_support::route(&format!("{v4}/28")),
                io_support::route(&format!("2001:db8:{:x}:{:x}::/64", i >> 8, i & 255)),
            ]
        })
        .collect();
    namespace.block_on(async || {
        let begin = std::time::Instant::now();
        let (_device, mut installed) = setup::install(&plan).await.unwrap();
        let added = begin.elapsed();
        assert_eq!(namespace.ip("-4 route show proto 182").lines().count(), count as usize / 2);
        assert_eq!(namespace.ip("-6 route show proto 182").lines().count(), count as usize / 2);

        // Nothing is missing, then everything is.
        let everything = Suspects { all: true, ..Suspects::default() };
        let begin = std::time::Instant::now();
        installed.mend(&everything, begin).await;
        let compared = begin.elapsed();
        assert_eq!(installed.upkeep().restored(), 0);
        namespace.ip("-4 route flush proto 182");
        namespace.ip("-6 route flush proto 182");
        assert_eq!(namespace.ip("-4 route show proto 182") + &namespace.ip("-6 route show proto 182"), "");
        let begin = std::time::Instant::now();
        assert_eq!(installed.mend(&everything, begin).await, None);
        let restored = begin.elapsed();
        assert_eq!(installed.upkeep().restored(), u64::from(count));
        assert_eq!(namespace.ip("-4 route show proto 182").lines().count(), count as usize / 2);
        assert_eq!(namespace.ip("-6 route show proto 182").lines().count(), count as usize / 2);

        // Again at once: they have to wait, which is known.
        namespace.ip("-4 route flush proto 182");
        let again = installed.mend(&everything, begin).await;
        assert_eq!(again, Some(begin + Duration::from_secs(1)));
        assert_eq!(installed.upkeep().missing().len(), count as usize / 2);
        assert_eq!(installed.mend(&Suspects::default(), begin + Duration::from_secs(1)).await, None);
        assert_eq!(installed.upkeep().missing(), []);
        assert_eq!(installed.upkeep().restored(), u64::from(count) * 3 / 2);

        let begin = std::time::Instant::now();
        installed.remove().await;
        let removed = begin.elapsed();
        eprintln!("{count} routes: {added:?} to install, {compared:?} to compare, {restored:?} to restore, {removed:?} to remove");
        assert_eq!(namespace.ip("-4 route show proto 182") + &namespace.ip("-6 route show proto 182"), "");
    });
}
