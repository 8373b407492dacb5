//! A daemon's file: `br.yaml` or `ce.yaml`.
use super::decode::{self, Fields, Slot};
use super::error::{Findings, Loaded, Path, Reporter, tame};
use super::forwards::{self, forwards};
use super::metrics::metrics;
use super::pcp::pcp;
use super::raw::Value;
use super::rules::{RuleSet, rule_set};
use super::{Config, ControlConfig, ControlMode, Listen, MetricsConfig, Role, RoutesConfig, Sysctl, TunConfig};
use crate::br::BrParams;
use crate::ce::CeParams;
use crate::frag::FragParams;
use crate::map::{Customer, EndUserPrefix, Ipv4Prefix, Provisioning};
use crate::napt::{Filter, Filtering, NaptParams, Sharing, Timers};
use crate::reply::{IcmpParams, Originate};
use crate::siit::{MssClamp, Mtu, PortList, TranslationParams, UdpZeroChecksum};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Most addresses of `icmp.rfc6791-pool`.
const MAX_POOL: usize = 256;
/// Longest path of a Unix socket, in octets (`sun_path` without its NUL).
const MAX_SOCKET_PATH: usize = 107;
/// Longest idle time of a mapping, in seconds: a week.
const MAX_TIMER: u64 = 604_800;
/// Route protocols that iproute2 and FRR assign; 0 to 4 are the kernel's.
const ASSIGNED_PROTOCOLS: &[u8] =
    &[8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 42, 84, 99, 186, 187, 188, 189, 191, 192, 193, 194, 195, 196, 197, 198];
/// Default of `napt.restore-within`, in seconds.
const RESTORE_WITHIN: u64 = 600;
const IPV4_DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum RoleName {
    Br,
    Ce,
}

/// Reads a rule set that stands in a file of its own.
pub(super) type RulesLoader<'l> = &'l mut dyn FnMut(&str) -> Result<Result<Loaded<RuleSet>, Findings>, String>;

/// Reads a daemon's file; `None` if an error was reported, or found in the rules' own file. What was found there is
/// added to `elsewhere`.
pub(super) fn daemon(
    slot: Slot<'_, '_>,
    directory: &std::path::Path,
    given: Option<&RuleSet>,
    rules_file: RulesLoader<'_>,
    elsewhere: &mut Findings,
    r: &mut Reporter<'_>,
) -> Option<Config> {
    let before = r.errors();
    let fields = Fields::of(slot, decode::ROOT, "a mapping with the keys `role` and `rules`", r)?;
    let roles = [("br", RoleName::Br), ("ce", RoleName::Ce)];
    let role = fields.require("role", r, "br or ce", "RFC 7599 §4", decode::choice(&roles, "RFC 7599 §4"));
    if role == Some(RoleName::Br) {
        for key in ["end-user-ipv6-prefix", "napt", "pcp"] {
            if fields.has(key) {
                let path = Path::Key(fields.path(), key);
                r.error(path, fields.key_mark(key), format!("`{key}` is for role ce alone"), "RFC 7599 §8");
            }
        }
    }
    let rules = fields.require("rules", r, "a file's name or a rule set", "RFC 7597 §5", |slot, r| {
        given.cloned().or_else(|| rules(slot, rules_file, elsewhere, r))
    });
    let end_user_prefix = fields.get("end-user-ipv6-prefix", r, decode::ipv6_prefix).map(EndUserPrefix);
    let instance = fields.get("instance", r, instance);
    let instance = instance.unwrap_or_else(|| if role == Some(RoleName::Ce) { "ce" } else { "br" }.into());
    let tun = fields.get("tun", r, tun).unwrap_or_default();
    if role == Some(RoleName::Ce) && tun.queues.is_some_and(|queues| queues > 1) {
        let path = Path::Key(fields.path(), "tun");
        let message = "the NAPT of a CE runs on one queue: expected 1";
        r.error(Path::Key(&path, "queues"), fields.nested_mark("tun", "queues"), message, "");
    }
    let routes = fields.get("routes", r, routes).unwrap_or_default();
    let sysctl = fields.get("sysctl", r, decode::choice(&[("check", Sysctl::Check), ("manage", Sysctl::Manage)], ""));
    let mtu = fields.get("mtu", r, mtu).unwrap_or_default();
    let (icmp, rfc5837_object) = fields.get("icmp", r, icmp).unwrap_or_default();
    let fragments = fields.get("fragments", r, fragments).unwrap_or_default();
    if role == Some(RoleName::Br) && fragments.rewrite_identification.is_some() {
        let path = Path::Key(fields.path(), "fragments");
        let message = "`rewrite-identification` is for role ce alone";
        let at = fields.nested_mark("fragments", "rewrite-identification");
        r.error(Path::Key(&path, "rewrite-identification"), at, message, "RFC 7599 §10.3");
    }
    let napt = fields.get("napt", r, napt).unwrap_or_default();
    let log_mappings = napt.log_mappings;
    let checksums =
        [("compute", UdpZeroChecksum::Compute), ("drop", UdpZeroChecksum::Drop), ("forward", UdpZeroChecksum::Forward)];
    let udp_zero_checksum = fields.get("udp-zero-checksum", r, decode::choice(&checksums, "RFC 7915 §4.5"));
    let udp_zero_checksum_ports = fields.get("udp-zero-checksum-ports", r, ports).unwrap_or_default();
    let tcp_mss_clamp = fields.get("tcp-mss-clamp", r, mss_clamp).unwrap_or_default();
    let [dscp_v4_to_v6, dscp_v6_to_v4] = fields.get("dscp", r, dscp).unwrap_or_default();
    let check_interface_id = fields.get("check-interface-id", r, decode::boolean).unwrap_or(true);
    let decrement_hop_limit = fields.get("decrement-hop-limit", r, decode::boolean).unwrap_or(false);
    let control = fields.get("control", r, |slot, r| control(slot, directory, r));
    let pcp = fields.get("pcp", r, pcp);
    let metrics = fields.get("metrics", r, |slot, r| metrics(slot, directory, r));
    if let (Some(MetricsConfig { listen: Listen::Unix(unix), .. }), Some(control)) = (&metrics, &control)
        && unix.socket == control.socket
    {
        fields.error("metrics", r, "`listen` is the path of `control.socket`: expected another", "");
    }
    let state_directory = fields.get("state-directory", r, decode::text("a directory", 4096));

    if state_directory.is_none() && napt.restore_within.is_some_and(|seconds| seconds > 0) {
        let path = Path::Key(fields.path(), "napt");
        let message = "flows cannot be restored without `state-directory`";
        r.error(Path::Key(&path, "restore-within"), fields.nested_mark("napt", "restore-within"), message, "");
    }
    let restore_within = Duration::from_secs(napt.restore_within.unwrap_or(RESTORE_WITHIN));

    let (role, rules) = (role?, rules?);
    let table = &rules.table;
    if icmp.ipv6_source.is_none()
        && icmp.originate != Originate::Off
        && let Some(dmr) = table.dmrs().iter().find(|dmr| dmr.is_well_known())
    {
        let at = fields.nested_mark("icmp", "ipv6-source");
        let message = format!(
            "is missing: with the DMR {} the source of our own ICMPv6 errors must be given (or `originate: off`)",
            dmr.prefix()
        );
        r.error(Path::Key(&Path::Key(fields.path(), "icmp"), "ipv6-source"), at, message, "RFC 6052 §3.1");
    }
    if role == RoleName::Ce {
        let customer = end_user_prefix.map(|prefix| table.customer(prefix));
        if pcp.is_some() && !napt.enabled {
            let message = "needs the NAPT, and it is off: without it every port is its host's already";
            fields.error("pcp", r, message, "RFC 6887 §2.1");
        }
        forwards::check(&napt.forwards, napt.enabled, customer.as_ref().and_then(|c| c.as_ref().ok()), &fields, r);
        match customer {
            None | Some(Ok(Customer { psid: None, .. })) => {}
            Some(Ok(Customer { psid: Some(_), rule, .. })) => {
                if !napt.enabled {
                    let message = format!(
                        "NAPT cannot be off: rule `{}` shares its IPv4 addresses, and ports must stay in the port set",
                        table.name(rule)
                    );
                    let path = Path::Key(fields.path(), "napt");
                    r.error(
                        Path::Key(&path, "enabled"),
                        fields.nested_mark("napt", "enabled"),
                        message,
                        "RFC 7599 §8.1",
                    );
                }
            }
            Some(Err(error)) => fields.error("end-user-ipv6-prefix", r, error.message, error.rfc),
        }
    }
    if r.errors() > before {
        return None;
    }
    let translation = TranslationParams {
        mtu,
        udp_zero_checksum: udp_zero_checksum.unwrap_or_default(),
        udp_zero_checksum_ports,
        dscp_v4_to_v6,
        dscp_v6_to_v4,
        tcp_mss_clamp,
        decrement_hop_limit,
        rfc5837_object,
    };
    let tun = TunConfig {
        name: tun.name.unwrap_or_else(|| format!("mapt-{instance}")),
        queues: tun.queues,
        ipv4_address: tun.ipv4_address.or((role == RoleName::Ce).then_some(IPV4_DUMMY)),
    };
    let role = match role {
        RoleName::Br => Role::Br(BrParams {
            translation,
            icmp,
            check_interface_id,
            fragments: fragments.params(FragParams::default()),
            seed: 0,
        }),
        RoleName::Ce => Role::Ce(CeParams {
            translation,
            icmp,
            check_interface_id,
            fragments: fragments.params(FragParams::CE),
            rewrite_identification: fragments.rewrite_identification.unwrap_or(false),
            napt: napt.enabled,
            napt_params: napt.params(),
            seed: 0,
        }),
    };
    let RuleSet { version, date, table, .. } = rules;
    Some(Config {
        instance,
        provisioning: Provisioning { version, date, table, end_user_prefix },
        role,
        tun,
        routes,
        sysctl: sysctl.unwrap_or_default(),
        control,
        metrics,
        log_mappings,
        state_directory: state_directory.map(|path| directory.join(path)),
        pcp,
        restore_within,
    })
}

/// `state-directory` and `instance`, whatever is wrong with the rest.
pub(super) fn state(
    slot: Slot<'_, '_>,
    directory: &std::path::Path,
    r: &mut Reporter<'_>,
) -> Option<(std::path::PathBuf, String)> {
    let fields = Fields::of(slot, decode::ROOT, "", r)?;
    let roles = [("br", "br"), ("ce", "ce")];
    let role = fields.get("role", r, decode::choice(&roles, "")).unwrap_or("br");
    let instance = fields.get("instance", r, instance).unwrap_or_else(|| role.to_owned());
    let state = fields.get("state-directory", r, decode::text("a directory", 4096))?;
    Some((directory.join(state), instance))
}

/// `rules`: a file's name, or the rule set itself.
fn rules(
    slot: Slot<'_, '_>,
    rules_file: RulesLoader<'_>,
    elsewhere: &mut Findings,
    r: &mut Reporter<'_>,
) -> Option<RuleSet> {
    if matches!(slot.node.value, Value::Map(_)) {
        return rule_set(slot, r);
    }
    let Some((name, _)) = slot.scalar().filter(|(name, _)| !name.is_empty()) else {
        slot.expected(r, "a file's name or a rule set", "");
        return None;
    };
    match rules_file(name) {
        Err(message) => {
            slot.error(r, message, "");
            None
        }
        Ok(Ok(Loaded { value, warnings })) => {
            elsewhere.warnings.extend(warnings);
            Some(value)
        }
        Ok(Err(findings)) => {
            elsewhere.errors.extend(findings.errors);
            elsewhere.warnings.extend(findings.warnings);
            None
        }
    }
}

/// Letters, digits and hyphens, so short that `mapt-` and it name an interface.
fn instance(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<String> {
    let name = slot.scalar().map(|(text, _)| text).unwrap_or_default();
    let fits = (1..=10).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !fits {
        slot.expected(r, "1 to 10 letters, digits or hyphens", "");
        return None;
    }
    Some(name.to_string())
}

#[derive(Default)]
struct Tun {
    name: Option<String>,
    queues: Option<u16>,
    ipv4_address: Option<Ipv4Addr>,
}

fn tun(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Tun> {
    let fields = Fields::of(slot, decode::TUN, "a mapping", r)?;
    Some(Tun {
        name: fields.get("name", r, interface_name),
        queues: fields.get("queues", r, decode::integer(1..=16, "", "")),
        ipv4_address: fields.get("ipv4-address", r, |slot, r| {
            let addr = decode::ipv4(slot.again(), r)?;
            host_ipv4(&slot, addr, r)
        }),
    })
}

/// What Linux accepts as an interface's name, without `%`, which it would fill in.
fn interface_name(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<String> {
    let name = slot.scalar().map(|(text, _)| text).unwrap_or_default();
    let fits = (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
        && name != "."
        && name != "..";
    if !fits {
        slot.expected(r, "an interface name of 1 to 15 printable ASCII characters without `/`, `:` and `%`", "");
        return None;
    }
    Some(name.to_string())
}

/// Refuses addresses that no host has.
pub(super) fn host_ipv4(slot: &Slot<'_, '_>, addr: Ipv4Addr, r: &mut Reporter<'_>) -> Option<Ipv4Addr> {
    if matches!(addr.octets()[0], 0 | 127 | 224..) {
        slot.error(r, format!("`{addr}` cannot be a host's address: expected unicast, not loopback"), "RFC 6890 §2.2");
        return None;
    }
    Some(addr)
}

impl Default for RoutesConfig {
    fn default() -> Self {
        RoutesConfig { install: true, table: 254, metric: 1024, protocol: 182 }
    }
}

fn routes(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<RoutesConfig> {
    let fields = Fields::of(slot, decode::ROUTES, "a mapping", r)?;
    let default = RoutesConfig::default();
    let table = fields.get("table", r, decode::integer(1..=u32::MAX, "", "")).unwrap_or(default.table);
    if table == 255 {
        fields.error("table", r, "`255` is the kernel's table `local`: expected another, such as 254 (main)", "");
    }
    let protocol = fields.get("protocol", r, decode::integer(5..=255, "", "")).unwrap_or(default.protocol);
    if ASSIGNED_PROTOCOLS.contains(&protocol) {
        let message = format!("`{protocol}` belongs to another routing program: expected a free number such as 182");
        fields.error("protocol", r, message, "");
    }
    Some(RoutesConfig {
        install: fields.get("install", r, decode::boolean).unwrap_or(default.install),
        table,
        metric: fields.get("metric", r, decode::integer(1..=u32::MAX, "", "")).unwrap_or(default.metric),
        protocol,
    })
}

fn mtu(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Mtu> {
    let fields = Fields::of(slot, decode::MTU, "a mapping", r)?;
    let default = Mtu::default();
    let octets = |from, rfc| decode::integer(from..=65_535u32, " octets", rfc);
    let mtu = Mtu {
        ipv6: fields.get("ipv6", r, octets(1280, "RFC 8200 §5")).unwrap_or(default.ipv6),
        ipv4: fields.get("ipv4", r, octets(68, "RFC 791 §3.2")).unwrap_or(default.ipv4),
        lowest_ipv6: fields.get("lowest-ipv6", r, octets(1280, "RFC 7915 §4.1")).unwrap_or(default.lowest_ipv6),
    };
    if mtu.lowest_ipv6 > mtu.ipv6 {
        let message = format!(
            "{} is above mtu.ipv6 ({}): fragments of this size do not fit the next hop",
            mtu.lowest_ipv6, mtu.ipv6
        );
        fields.warning("lowest-ipv6", r, message, "RFC 7915 §4.1");
    }
    Some(mtu)
}

/// Ports to which UDP goes without checksum.
fn ports(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<PortList> {
    PortList::new(&port_numbers(slot, "RFC 7915 §4.5", r)?)
}

/// As many ports as a `PortList` has room for.
fn port_numbers(slot: Slot<'_, '_>, rfc: &str, r: &mut Reporter<'_>) -> Option<Vec<u16>> {
    let Value::Seq(items) = &slot.node.value else {
        slot.expected(r, "a list of ports", rfc);
        return None;
    };
    let read = |(n, node)| decode::integer(1..=65_535u16, "", rfc)(Slot { node, path: Path::Index(&slot.path, n) }, r);
    let ports: Vec<u16> = items.iter().enumerate().filter_map(read).collect();
    if ports.len() > PortList::MOST {
        slot.error(r, format!("has {} ports: expected at most {}", ports.len(), PortList::MOST), rfc);
        return None;
    }
    Some(ports)
}

/// A word, or octets.
fn mss_clamp(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<MssClamp> {
    match slot.scalar() {
        Some(("off", _)) => Some(MssClamp::Off),
        Some(("auto", _)) => Some(MssClamp::Auto),
        Some((text, _)) if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            decode::integer(536..=65_495, " octets", "RFC 9293 §3.7.1")(slot, r).map(MssClamp::To)
        }
        _ => {
            slot.expected(r, "off, auto or a whole number from 536 to 65495 octets", "RFC 9293 §3.7.1");
            None
        }
    }
}

/// From IPv4 to IPv6, and back.
fn dscp(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<[Option<u8>; 2]> {
    let fields = Fields::of(slot, decode::DSCP, "a mapping with the keys `v4-to-v6` and `v6-to-v4`", r)?;
    let mut point = |key| fields.get(key, r, decode::integer(0..=63, "", "RFC 2474 §3"));
    Some([point("v4-to-v6"), point("v6-to-v4")])
}

/// What errors of our own are like, and whether translated ones name their reporter.
fn icmp(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<(IcmpParams, bool)> {
    let fields = Fields::of(slot, decode::ICMP, "a mapping", r)?;
    let default = IcmpParams::default();
    let words = [("off", Originate::Off), ("limited", Originate::Limited), ("on", Originate::On)];
    let rfc5837_object = fields.get("rfc5837-object", r, decode::boolean).unwrap_or(false);
    let params = IcmpParams {
        rfc6791_pool: fields.get("rfc6791-pool", r, pool).unwrap_or(default.rfc6791_pool),
        originate: fields.get("originate", r, decode::choice(&words, "RFC 7915 §4.4")).unwrap_or_default(),
        ipv6_source: fields.get("ipv6-source", r, |slot, r| {
            let addr: Ipv6Addr = decode::ipv6(slot.again(), r)?;
            if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || addr.is_unicast_link_local() {
                slot.error(
                    r,
                    format!("`{addr}` cannot be a source: expected a routed unicast address"),
                    "RFC 4443 §2.2",
                );
                return None;
            }
            Some(addr)
        }),
    };
    Some((params, rfc5837_object))
}

/// Addresses and prefixes, the latter taken apart.
fn pool(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Vec<Ipv4Addr>> {
    const RFC: &str = "RFC 6791 §3";
    let what = "a list of IPv4 addresses or prefixes";
    let Value::Seq(items) = &slot.node.value else {
        slot.expected(r, what, RFC);
        return None;
    };
    if items.is_empty() {
        slot.error(r, format!("is empty: expected {what}, or leave the key out"), RFC);
        return None;
    }
    let mut pool = Vec::new();
    for (n, node) in items.iter().enumerate() {
        let item = Slot { node, path: Path::Index(&slot.path, n) };
        let is_prefix = item.scalar().is_some_and(|(text, _)| text.contains('/'));
        let prefix = if is_prefix {
            decode::ipv4_prefix(item.again(), r)
        } else {
            decode::ipv4(item.again(), r).and_then(|addr| Ipv4Prefix::new(addr, 32).ok())
        };
        let Some(prefix) = prefix else { continue };
        if host_ipv4(&item, prefix.addr(), r).is_none() {
            continue;
        }
        if prefix.addr().is_private() || (prefix.addr().to_bits() >> 22) == 0x6440_0000 >> 22 {
            let message = format!("{prefix} is not public: error messages from there may be filtered on their way");
            item.warning(r, message, "RFC 6791 §3.1");
        }
        let room = MAX_POOL.saturating_sub(pool.len());
        let size = 1u64 << (32 - prefix.prefix_len());
        if size > room as u64 {
            item.error(r, format!("`{prefix}` makes the pool too large: expected at most {MAX_POOL} addresses"), RFC);
            return None;
        }
        pool.extend((0..size as u32).map(|n| Ipv4Addr::from_bits(prefix.addr().to_bits() + n)));
    }
    pool.sort_unstable();
    pool.dedup();
    (!pool.is_empty()).then_some(pool)
}

#[derive(Default)]
struct Fragments {
    lifetime: Option<u64>,
    packets: Option<u32>,
    held_octets: Option<u32>,
    rewrite_identification: Option<bool>,
}

impl Fragments {
    fn params(&self, default: FragParams) -> FragParams {
        FragParams {
            lifetime: self.lifetime.map_or(default.lifetime, Duration::from_secs),
            packets: self.packets.unwrap_or(default.packets),
            held_octets: self.held_octets.unwrap_or(default.held_octets),
        }
    }
}

fn fragments(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Fragments> {
    let fields = Fields::of(slot, decode::FRAGMENTS, "a mapping", r)?;
    const RFC: &str = "RFC 7599 §10.2";
    Some(Fragments {
        lifetime: fields.get("lifetime", r, decode::integer(2..=120, " seconds", "RFC 6146 §4")),
        packets: fields.get("packets", r, decode::integer(0..=1_048_576, "", RFC)),
        held_octets: fields.get("held-octets", r, decode::integer(0..=1_073_741_824, " octets", RFC)),
        rewrite_identification: fields.get("rewrite-identification", r, decode::boolean),
    })
}

struct Napt {
    enabled: bool,
    params: NaptParams,
    forwards: Vec<forwards::Entry>,
    log_mappings: bool,
    restore_within: Option<u64>,
}
impl Default for Napt {
    fn default() -> Self {
        Napt {
            enabled: true,
            params: NaptParams::default(),
            forwards: Vec::new(),
            log_mappings: false,
            restore_within: None,
        }
    }
}
impl Napt {
    fn params(self) -> NaptParams {
        NaptParams { forwards: self.forwards.into_iter().map(|entry| entry.forward).collect(), ..self.params }
    }
}

fn napt(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Napt> {
    let fields = Fields::of(slot, decode::NAPT, "a mapping", r)?;
    let enabled = fields.get("enabled", r, decode::boolean).unwrap_or(true);
    let params = NaptParams {
        timers: fields.get("timers", r, timers).unwrap_or_default(),
        max_flows: fields
            .get("max-flows", r, decode::integer(1024..=1_048_576, "", ""))
            .unwrap_or(NaptParams::default().max_flows),
        sharing: fields.get("sharing", r, sharing).unwrap_or_default(),
        filtering: fields.get("filtering", r, filtering).unwrap_or_default(),
        forwards: Vec::new(),
    };
    let forwards = fields.get("forwards", r, forwards).unwrap_or_default();
    let log_mappings = fields.get("log-mappings", r, decode::boolean).unwrap_or(false);
    let restore_within = fields.get("restore-within", r, decode::integer(0..=86_400, " seconds", ""));
    Some(Napt { enabled, params, forwards, log_mappings, restore_within })
}

fn sharing(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Sharing> {
    let fields = Fields::of(slot, decode::SHARING, "a mapping", r)?;
    Some(Sharing {
        threshold: fields
            .get("threshold", r, decode::integer(0..=100, " percent", "RFC 7857 §3"))
            .unwrap_or(Sharing::default().threshold),
        tcp: fields.get("tcp", r, sharing_ports).unwrap_or_default(),
        udp: fields.get("udp", r, sharing_ports).unwrap_or_default(),
    })
}

/// Destination ports, in the order of the file.
fn sharing_ports(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Vec<u16>> {
    port_numbers(slot, "RFC 7857 §3", r)
}

/// One word for both protocols, or one for each.
fn filtering(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Filtering> {
    const WORDS: [(&str, Filter); 3] = [
        ("endpoint-independent", Filter::EndpointIndependent),
        ("address-dependent", Filter::AddressDependent),
        ("address-and-port-dependent", Filter::AddressAndPortDependent),
    ];
    let word = || decode::choice(&WORDS, "RFC 4787 §5");
    if slot.scalar().is_some() {
        let filter = Some(word()(slot, r)?);
        return Some(Filtering { tcp: filter, udp: filter });
    }
    let fields = Fields::of(slot, decode::FILTERING, "a word or a mapping", r)?;
    Some(Filtering { tcp: fields.get("tcp", r, word()), udp: fields.get("udp", r, word()) })
}

fn timers(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Timers> {
    let fields = Fields::of(slot, decode::TIMERS, "a mapping", r)?;
    let default = Timers::default();
    let mut seconds = |key: &str, least: u64, rfc: &str, default: Duration| {
        let range = decode::integer(least..=MAX_TIMER, " seconds", rfc);
        fields.get(key, r, range).map_or(default, Duration::from_secs)
    };
    let timers = Timers {
        udp: seconds("udp", 120, "RFC 4787 REQ-5", default.udp),
        tcp_established: seconds("tcp-established", 7440, "RFC 5382 REQ-5", default.tcp_established),
        tcp_opening: seconds("tcp-opening", 10, "RFC 7857 §2.1", default.tcp_opening),
        tcp_closing: seconds("tcp-closing", 10, "RFC 7857 §2.1", default.tcp_closing),
        icmp: seconds("icmp", 60, "RFC 5508 REQ-2", default.icmp),
    };
    Some(timers)
}

fn control(slot: Slot<'_, '_>, directory: &std::path::Path, r: &mut Reporter<'_>) -> Option<ControlConfig> {
    let fields = Fields::of(slot, decode::CONTROL, "a mapping with the key `socket`", r)?;
    let socket = fields.require("socket", r, "the path of a Unix socket", "", |slot, r| {
        let path = decode::text("the path of a Unix socket", 4096)(slot.again(), r)?;
        socket_path(&slot, directory.join(path), r)
    });
    unix_socket(&fields, socket, r)
}

/// No longer than a Unix socket's may be.
pub(super) fn socket_path(
    slot: &Slot<'_, '_>,
    path: std::path::PathBuf,
    r: &mut Reporter<'_>,
) -> Option<std::path::PathBuf> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        let shown = tame(&path.to_string_lossy());
        slot.error(r, format!("`{shown}` is too long for a Unix socket: at most {MAX_SOCKET_PATH} octets"), "");
        return None;
    }
    Some(path)
}

/// `mode` and `group` of a socket.
pub(super) fn unix_socket(
    fields: &Fields<'_, '_>,
    socket: Option<std::path::PathBuf>,
    r: &mut Reporter<'_>,
) -> Option<ControlConfig> {
    let modes = [("0600", ControlMode::Owner), ("0660", ControlMode::Group)];
    let mode = fields.get("mode", r, decode::choice(&modes, "")).unwrap_or_default();
    let group = fields.get("group", r, decode::text("the name or number of a group", 64));
    if group.is_some() && mode == ControlMode::Owner {
        fields.error("group", r, "a group that may not connect: expected `mode: \"0660\"` beside it", "");
    }
    Some(ControlConfig { socket: socket?, mode, group })
}
