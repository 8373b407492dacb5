//! What a daemon's file means: defaults, every key, the sample files.
use mapt::config::{
    Config, ControlConfig, ControlMode, Document, Listen, MetricsConfig, PcpConfig, Role, RoutesConfig, RuleSet,
    Sysctl, TunConfig,
};
use mapt::frag::FragParams;
use mapt::napt::{Filter, Filtering, Forward, Inside, NaptParams, Protocol, Sharing, Timers};
use mapt::pcp::PcpParams;
use mapt::reply::{IcmpParams, Originate};
use mapt::siit::{MssClamp, Mtu, PortList, TranslationParams, UdpZeroChecksum};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn load(file: &str) -> Config {
    let text = fs::read_to_string(file).unwrap();
    let loaded = Config::load(&text, Path::new(file), &mut |path| fs::read_to_string(path));
    let loaded = loaded.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.warnings, [], "{file}");
    loaded.value
}

fn parse(text: &str) -> Config {
    let mut rules = |path: &Path| {
        assert_eq!(path, Path::new("/etc/mapt/rules.yaml"));
        fs::read_to_string("config/rules.yaml")
    };
    Config::load(text, Path::new("/etc/mapt/t.yaml"), &mut rules).unwrap_or_else(|e| panic!("{e}")).value
}

#[test]
fn the_smallest_br() {
    let config = load("config/br.yaml");
    assert_eq!(fs::read_to_string("config/br.yaml").unwrap().lines().count(), 2);
    assert_eq!(config.instance, "br");
    assert_eq!(config.tun, TunConfig { name: "mapt-br".into(), queues: None, ipv4_address: None });
    assert_eq!(config.routes, RoutesConfig { install: true, table: 254, metric: 1024, protocol: 182 });
    assert_eq!(config.restore_within, Duration::from_secs(600));
    assert_eq!(config.sysctl, Sysctl::Check);
    assert_eq!((config.control, config.state_directory, config.metrics), (None, None, None));
    assert_eq!(config.provisioning.version, 1);
    assert_eq!(config.provisioning.table.rules().len(), 1);
    assert_eq!(config.provisioning.end_user_prefix, None);
    let Role::Br(params) = config.role else { panic!("a BR") };
    assert_eq!(params.translation, TranslationParams::default());
    assert_eq!(params.icmp, IcmpParams::default());
    assert!(params.check_interface_id);
}

#[test]
fn the_smallest_ce() {
    let config = load("config/ce.yaml");
    assert_eq!(fs::read_to_string("config/ce.yaml").unwrap().lines().count(), 3);
    assert_eq!(config.instance, "ce");
    // RFC 7335's first address behind the B4 element's.
    assert_eq!(config.tun.ipv4_address, Some(Ipv4Addr::new(192, 0, 0, 2)));
    let prefix = config.provisioning.end_user_prefix.unwrap();
    assert_eq!(prefix.0.to_string(), "2001:db8:12:3400::/56");
    let Role::Ce(params) = config.role else { panic!("a CE") };
    assert!(params.napt && params.check_interface_id);
    assert_eq!(params.napt_params, NaptParams::default());
    // A CE without a prefix idles.
    assert_eq!(parse("role: ce\nrules: rules.yaml\n").provisioning.end_user_prefix, None);
}

fn owners(socket: &str) -> ControlConfig {
    ControlConfig { socket: PathBuf::from(socket), mode: ControlMode::Owner, group: None }
}

/// The full samples name each key with its default, a few apart.
#[test]
fn the_full_samples_say_the_defaults() {
    let (full, small) = (load("config/br-full.yaml"), load("config/br.yaml"));
    assert_eq!((&full.instance, &full.routes, full.sysctl), (&small.instance, &small.routes, small.sysctl));
    assert_eq!(full.tun.name, small.tun.name);
    assert_eq!(full.control, Some(owners("/run/mapt/br.sock")));
    assert_eq!(
        full.metrics,
        Some(MetricsConfig { listen: Listen::Tcp("127.0.0.1:9782".parse().unwrap()), rules: 100 })
    );
    assert_eq!(full.state_directory, Some(PathBuf::from("/run/mapt")));
    let (Role::Br(full), Role::Br(small)) = (full.role, small.role) else { panic!("BRs") };
    assert_eq!((full.translation, full.check_interface_id), (small.translation, small.check_interface_id));
    assert_eq!(full.icmp.originate, small.icmp.originate);
    assert_eq!((full.fragments, small.fragments), (FragParams::default(), FragParams::default()));

    let (full, small) = (load("config/ce-full.yaml"), load("config/ce.yaml"));
    assert_eq!((&full.instance, &full.routes, full.sysctl), (&small.instance, &small.routes, small.sysctl));
    assert_eq!((&full.tun.name, full.tun.ipv4_address), (&small.tun.name, small.tun.ipv4_address));
    let (small_pcp, full_pcp) = (small.pcp.clone(), full.pcp.clone());
    let (Role::Ce(full), Role::Ce(small)) = (full.role, small.role) else { panic!("CEs") };
    assert_eq!((full.translation, full.check_interface_id), (small.translation, small.check_interface_id));
    assert_eq!(full.napt_params.forwards.len(), 1);
    let listen = vec![Ipv4Addr::new(192, 168, 1, 1)];
    assert_eq!((small_pcp, full_pcp), (None, Some(PcpConfig { listen, params: PcpParams::default() })));
    let full_params = NaptParams { forwards: Vec::new(), ..full.napt_params };
    assert_eq!((full.napt, full_params), (small.napt, small.napt_params));
    assert_eq!((full.fragments, full.rewrite_identification), (FragParams::CE, false));
    assert_eq!(small.fragments, FragParams::CE);
    assert_eq!((full.icmp.originate, &full.icmp.rfc6791_pool), (small.icmp.originate, &small.icmp.rfc6791_pool));
}

#[test]
fn every_key_arrives() {
    let config = parse(
        "
role: ce
rules: rules.yaml
instance: home-2
tun: {name: t0, queues: 1, ipv4-address: 192.0.0.7}
routes: {install: false, table: 4294967295, metric: 1, protocol: 0xfa}
sysctl: manage
mtu: {ipv6: 65535, ipv4: 68, lowest-ipv6: 1400}
icmp: {rfc6791-pool: [203.0.113.9, 203.0.113.8/31, 198.51.100.1], originate: off, ipv6-source: '2001:db8::1', rfc5837-object: true}
fragments: {lifetime: 3, packets: 100, held-octets: 2000, rewrite-identification: true}
napt: {max-flows: 2000, sharing: {threshold: 30, tcp: [443, 80], udp: [53]}, filtering: {udp: endpoint-independent}, timers: {udp: 120, tcp-established: 7441, tcp-opening: 10, tcp-closing: 11, icmp: 61}, log-mappings: true, restore-within: 86400}
udp-zero-checksum: forward
udp-zero-checksum-ports: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 65535]
tcp-mss-clamp: 536
dscp: {v4-to-v6: 63, v6-to-v4: 0}
check-interface-id: false
decrement-hop-limit: true
control: {socket: run/c.sock, mode: 0660, group: adm}
state-directory: state
pcp: {listen: [192.168.1.1, 10.0.0.1], min-lifetime: 1, max-lifetime: 604800, per-host: 4096, nat-pmp: false}
metrics: {listen: run/m.sock, mode: 0660, group: prometheus, rules: 1000}
",
    );
    assert_eq!(config.instance, "home-2");
    let tun = TunConfig { name: "t0".into(), queues: Some(1), ipv4_address: Some(Ipv4Addr::new(192, 0, 0, 7)) };
    assert_eq!(config.tun, tun);
    assert_eq!(config.routes, RoutesConfig { install: false, table: u32::MAX, metric: 1, protocol: 250 });
    assert_eq!(config.sysctl, Sysctl::Manage);
    // Relative paths are relative to the file.
    let socket = PathBuf::from("/etc/mapt/run/c.sock");
    assert_eq!(config.control, Some(ControlConfig { socket, mode: ControlMode::Group, group: Some("adm".into()) }));
    let socket = PathBuf::from("/etc/mapt/run/m.sock");
    let socket = ControlConfig { socket, mode: ControlMode::Group, group: Some("prometheus".into()) };
    assert_eq!(config.metrics, Some(MetricsConfig { listen: Listen::Unix(socket), rules: 1000 }));
    assert!(config.log_mappings);
    assert_eq!(config.state_directory, Some(PathBuf::from("/etc/mapt/state")));
    assert_eq!(config.restore_within, Duration::from_secs(86_400));
    let Role::Ce(params) = config.role else { panic!("a CE") };
    let translation = TranslationParams {
        mtu: Mtu { ipv6: 65_535, ipv4: 68, lowest_ipv6: 1400 },
        udp_zero_checksum: UdpZeroChecksum::Forward,
        udp_zero_checksum_ports: PortList::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 65_535]).unwrap(),
        dscp_v4_to_v6: Some(63),
        dscp_v6_to_v4: Some(0),
        tcp_mss_clamp: MssClamp::To(536),
        decrement_hop_limit: true,
        rfc5837_object: true,
    };
    assert_eq!(params.translation, translation);
    let pool = [[198, 51, 100, 1], [203, 0, 113, 8], [203, 0, 113, 9]].map(Ipv4Addr::from);
    assert_eq!(params.icmp.rfc6791_pool, pool);
    assert_eq!(params.icmp.originate, Originate::Off);
    assert_eq!(params.icmp.ipv6_source, Some("2001:db8::1".parse().unwrap()));
    assert!(!params.check_interface_id && params.napt && params.rewrite_identification);
    let pcp = PcpParams {
        min_lifetime: Duration::from_secs(1),
        max_lifetime: Duration::from_secs(604_800),
        per_host: 4096,
        nat_pmp: false,
    };
    let listen = [[192, 168, 1, 1], [10, 0, 0, 1]].map(Ipv4Addr::from).to_vec();
    assert_eq!(config.pcp, Some(PcpConfig { listen, params: pcp }));
    let Role::Ce(off) = parse("role: ce\nrules: rules.yaml\nnapt: {enabled: false}\n").role else { panic!("a CE") };
    assert!(!off.napt);
    let fragments = FragParams { lifetime: Duration::from_secs(3), packets: 100, held_octets: 2000 };
    assert_eq!(params.fragments, fragments);
    let seconds = Duration::from_secs;
    let timers = Timers {
        udp: seconds(120),
        tcp_established: seconds(7441),
        tcp_opening: seconds(10),
        tcp_closing: seconds(11),
        icmp: seconds(61),
    };
    let sharing = Sharing { threshold: 30, tcp: vec![443, 80], udp: vec![53] };
    let filtering = Filtering { tcp: None, udp: Some(Filter::EndpointIndependent) };
    assert_eq!(params.napt_params, NaptParams { timers, max_flows: 2000, sharing, filtering, forwards: Vec::new() });
}

/// `napt.forwards`; the keys are RFC 6887's words.
#[test]
fn forwards_arrive() {
    let text = "role: ce
rules: rules.yaml
end-user-ipv6-prefix: 2001:db8:12:3400::/56
napt:
  forwards:
    - {protocol: tcp, external-port: 1232, internal-address: 192.168.1.10, internal-port: 80}
    - {protocol: udp, external-port: 1232, internal-address: 192.168.1.10, internal-port: 80}
    - {protocol: udp, external-port: 64723, internal-address: 192.0.0.2}
";
    let forward =
        |protocol, port, addr: [u8; 4], to| Forward { protocol, port, inside: Inside { addr: addr.into(), port: to } };
    let expected = [
        forward(Protocol::Tcp, 1232, [192, 168, 1, 10], 80),
        forward(Protocol::Udp, 1232, [192, 168, 1, 10], 80),
        forward(Protocol::Udp, 64_723, [192, 0, 0, 2], 64_723),
    ];
    let Role::Ce(params) = parse(text).role else { panic!("a CE") };
    assert_eq!(params.napt_params.forwards, expected);
    // Without a prefix nobody knows the ports yet.
    let idle = text.replace("end-user-ipv6-prefix: 2001:db8:12:3400::/56\n", "").replace("1232", "80");
    let Role::Ce(params) = parse(&idle).role else { panic!("a CE") };
    assert_eq!(params.napt_params.forwards[0].port, 80);
}

#[test]
fn the_filters_words() {
    let filtering =
        |value: &str| match parse(&format!("role: ce\nrules: rules.yaml\nnapt: {{filtering: {value}}}\n")).role {
            Role::Ce(params) => params.napt_params.filtering,
            Role::Br(_) => panic!("a CE"),
        };
    for (word, filter) in [
        ("endpoint-independent", Filter::EndpointIndependent),
        ("address-dependent", Filter::AddressDependent),
        ("address-and-port-dependent", Filter::AddressAndPortDependent),
    ] {
        assert_eq!(filtering(word), Filtering { tcp: Some(filter), udp: Some(filter) });
        assert_eq!(filtering(&format!("{{tcp: {word}}}")), Filtering { tcp: Some(filter), udp: None });
    }
    assert_eq!(filtering("{}"), Filtering::default());
}

#[test]
fn other_words_of_the_choices() {
    let br = |line: &str| match parse(&format!("role: br\nrules: rules.yaml\n{line}\n")).role {
        Role::Br(params) => params,
        Role::Ce(_) => panic!("a BR"),
    };
    assert_eq!(br("udp-zero-checksum: drop").translation.udp_zero_checksum, UdpZeroChecksum::Drop);
    assert_eq!(br("udp-zero-checksum: compute").translation.udp_zero_checksum, UdpZeroChecksum::Compute);
    assert_eq!(br("udp-zero-checksum-ports: []").translation.udp_zero_checksum_ports.ports(), [0u16; 0]);
    assert_eq!(br("sysctl: check").translation.udp_zero_checksum_ports.ports(), [2152, 4789]);
    assert_eq!(br("tcp-mss-clamp: off").translation.tcp_mss_clamp, MssClamp::Off);
    assert_eq!(br("tcp-mss-clamp: auto").translation.tcp_mss_clamp, MssClamp::Auto);
    assert_eq!(br("tcp-mss-clamp: 65495").translation.tcp_mss_clamp, MssClamp::To(65_495));
    let dscp = |line: &str| (br(line).translation.dscp_v4_to_v6, br(line).translation.dscp_v6_to_v4);
    assert_eq!(dscp("dscp: {v4-to-v6: 46}"), (Some(46), None));
    assert_eq!(dscp("dscp: {v6-to-v4: 8}"), (None, Some(8)));
    assert_eq!(dscp("dscp: {}"), (None, None));
    assert_eq!(br("icmp: {originate: on}").icmp.originate, Originate::On);
    assert_eq!(br("icmp: {originate: limited}").icmp.originate, Originate::Limited);
    assert_eq!(parse("role: br\nrules: rules.yaml\ntun: {queues: 16}\n").tun.queues, Some(16));
    // A /24 is 256 addresses, the most there may be.
    assert_eq!(br("icmp: {rfc6791-pool: [198.51.100.0/24]}").icmp.rfc6791_pool.len(), 256);
}

/// A tun name of 15 octets, the longest that Linux takes, follows from the longest instance.
#[test]
fn the_longest_instance_names_an_interface() {
    let config = parse("role: br\nrules: rules.yaml\ninstance: abcdefghij\n");
    assert_eq!(config.tun.name, "mapt-abcdefghij");
    assert_eq!(config.tun.name.len(), 15);
}

#[test]
fn the_rule_set_may_stand_inside() {
    let text = "role: br\nrules:\n  version: 9\n  dmr-ipv6-prefix: 64:ff9b::/96\n  rules:\n    - {rule-ipv6-prefix: '2001:db8::/40', rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16}\nicmp: {originate: off}\n";
    let config = parse(text);
    assert_eq!(config.provisioning.version, 9);
    assert_eq!(config.provisioning.table.rules()[0].spec().name, "rule-1");
    assert!(!config.provisioning.table.rules()[0].spec().forwarding, "RFC 7598's F flag is off by default");
}

#[test]
fn napt_may_be_off_where_nothing_is_shared() {
    let text = fs::read_to_string("config/rules-full.yaml").unwrap();
    let mut rules = |_: &Path| Ok(text.clone());
    let ce = "role: ce\nrules: rules-full.yaml\nnapt: {enabled: false}\nend-user-ipv6-prefix: ";
    for (prefix, fine) in [
        ("2001:db8:8020::/51", false),
        ("2001:db8:8000::/51", true),
        ("2001:db8:9003::/48", true),
        ("2001:db8:12:3400::/56", false),
    ] {
        let loaded = Config::load(&format!("{ce}{prefix}\n"), Path::new("ce.yaml"), &mut rules);
        assert_eq!(loaded.is_ok(), fine, "{prefix}");
    }
}

#[test]
fn what_is_unusual_is_said() {
    let warned = |text: &str| {
        let mut rules = |_: &Path| fs::read_to_string("config/rules.yaml");
        let loaded = Config::load(text, Path::new("br.yaml"), &mut rules).unwrap_or_else(|e| panic!("{e}"));
        loaded.warnings.iter().map(|w| w.path.clone()).collect::<Vec<_>>()
    };
    let br = "role: br\nrules: rules.yaml\n";
    assert_eq!(warned(&format!("{br}mtu: {{ipv6: 1400, lowest-ipv6: 1500}}\n")), ["mtu.lowest-ipv6"]);
    for private in ["10.0.0.1", "100.64.0.0/28", "192.168.7.7"] {
        assert_eq!(warned(&format!("{br}icmp: {{rfc6791-pool: [{private}]}}\n")), ["icmp.rfc6791-pool[0]"]);
    }
    assert_eq!(warned("role: br\nrules: {rules: []}\n"), ["rules.rules"]);
}

#[test]
fn a_rule_set_is_told_from_a_daemons_file() {
    let text = fs::read_to_string("config/rules.yaml").unwrap();
    let mut loader = |path: &Path| fs::read_to_string(path);
    let document = Document::load(&text, Path::new("config/rules.yaml"), &mut loader).unwrap();
    assert!(matches!(document.value, Document::Rules(_)));
    let text = fs::read_to_string("config/ce.yaml").unwrap();
    let document = Document::load(&text, Path::new("config/ce.yaml"), &mut loader).unwrap();
    assert!(matches!(document.value, Document::Daemon(_)));
    assert!(RuleSet::load(&text, Path::new("config/ce.yaml")).is_err());
}

#[test]
fn where_metrics_are_served() {
    let listen = |text: &str| {
        let text = format!("role: br\nrules: rules.yaml\nmetrics: {{listen: {text}}}\n");
        let Ok(loaded) =
            Config::load(&text, Path::new("/etc/mapt/x.yaml"), &mut |_| fs::read_to_string("config/rules.yaml"))
        else {
            panic!("{text}")
        };
        let warned = loaded.warnings.iter().any(|w| w.to_string().contains("metrics.listen"));
        (loaded.value.metrics.unwrap(), warned)
    };
    let tcp = |at: &str| MetricsConfig { listen: Listen::Tcp(at.parse().unwrap()), rules: 100 };
    let unix = |path: &str| MetricsConfig { listen: Listen::Unix(owners(path)), rules: 100 };
    assert_eq!(listen("9782"), (tcp("127.0.0.1:9782"), false));
    assert_eq!(listen("127.0.0.9:9782"), (tcp("127.0.0.9:9782"), false));
    assert_eq!(listen("'[::1]:9782'"), (tcp("[::1]:9782"), false));
    assert_eq!(listen("./m.sock"), (unix("/etc/mapt/./m.sock"), false));
    assert_eq!(listen("/run/m.sock"), (unix("/run/m.sock"), false));
    // Beyond this host only where it is written out, and with a warning.
    assert_eq!(listen("0.0.0.0:9782"), (tcp("0.0.0.0:9782"), true));
    assert_eq!(listen("192.0.2.1:9782"), (tcp("192.0.2.1:9782"), true));
}
