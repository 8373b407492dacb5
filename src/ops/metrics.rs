//! What a running daemon counts and is, in the text formats of Prometheus and OpenMetrics.
//!
//! Names follow the leaves of `traffic-stat` of RFC 8676 where there is one: `rcvd-ipv4-packets` is
//! `mapt_rcvd_ipv4_packets_total`. Labels are bounded: `queue`, `direction`, `reason`, `error`, `protocol`, `state`, and
//! `rule` where there are few rules.

use std::fmt::{Display, Write};

use jiff::Timestamp;

use super::control::Ports;
use super::counters::{Counters, DeviceIo, RuleCount};
use super::fragments::Fragments;
use super::status::Status;
use crate::stats::{DirectionSnapshot, Snapshot, Traffic};
use crate::verdict::{Direction, DropReason};

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for.
    pub fn accepted(accept: &str) -> Format {
        match accept.contains("application/openmetrics-text") {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All that is told, of one moment.
#[derive(Debug)]
pub struct Facts {
    /// Role, rules, routes.
    pub status: Status,
    /// Counters by queue.
    pub queues: Vec<(Snapshot, DeviceIo)>,
    /// Their sums.
    pub sums: Counters,
    /// What went on by each rule; `None` where there are too many rules.
    pub rules: Option<Vec<RuleCount>>,
    /// The fragment table.
    pub fragments: Fragments,
    /// Ports of a CE's NAPT; empty where there is none.
    pub ports: Vec<Ports>,
}

/// The page.
pub fn page(facts: &Facts, format: Format) -> String {
    let mut page = Page { text: String::with_capacity(32 << 10), format };
    let Facts { status, queues, sums, rules, fragments, ports } = facts;
    program(&mut page, status, sums.routes_restored);
    traffic(&mut page, queues);
    drops(&mut page, queues);
    let held = [(&sums.v4_to_v6, Direction::V4ToV6), (&sums.v6_to_v4, Direction::V6ToV4)];
    let held = held.map(|(way, direction)| (labels(&[("direction", direction.name())]), way.held));
    page.gauge("held_packets", "Fragments that wait for their first one.", held);
    if let Some(rules) = rules {
        by_rule(&mut page, rules);
    }
    device(&mut page, queues);
    table(&mut page, fragments);
    napt(&mut page, ports);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

fn program(page: &mut Page, status: &Status, restored: u64) {
    let Status { role, instance, version, .. } = status;
    let info = labels(&[("version", version), ("role", role), ("instance_name", instance)]);
    page.gauge("build_info", "The program; always 1.", [(info, 1)]);
    page.gauge("uptime_seconds", "Since the start of the daemon.", one(status.uptime));
    page.gauge("start_time_seconds", "When the daemon started, in Unix time.", moment(&status.started));
    page.gauge(
        "rules_version",
        "Version of the rule set in force (RFC 8676 algo-versioning).",
        one(status.rules_version),
    );
    let date = status.rules_date.as_deref().unwrap_or_default();
    page.gauge("rules_date_seconds", "Date of the rule set in force, in Unix time.", moment(date));
    page.gauge(
        "rules_since_seconds",
        "Since when the rule set is in force, in Unix time.",
        moment(&status.rules_since),
    );
    page.gauge("rules", "Rules in force.", one(status.rules));
    let until = status.confirm_until.as_deref().unwrap_or_default();
    let help = "When the former rule set comes back unless this one is confirmed, in Unix time.";
    page.gauge("rules_confirm_until_seconds", help, moment(until));
    let sums = &status.routes;
    let states = [
        ("wanted", sums.wanted),
        ("installed", sums.installed),
        ("missing", sums.missing),
        ("differing", sums.differing),
        ("unwanted", sums.unwanted),
    ];
    let states = if sums.install { &states[..] } else { &states[..1] };
    let states = states.iter().map(|(state, count)| (labels(&[("state", state)]), count));
    page.gauge("routes", "Routes into the device: wanted, and how the kernel has them.", states);
    let help = "Routes of ours that somebody removed and the daemon put back.";
    page.counter("routes_restored", help, one(restored));
    page.gauge("sysctls_wrong", "Sysctls of the host that are not as needed.", one(status.sysctls.len()));
}

/// `traffic-stat`, by queue.
fn traffic(page: &mut Page, queues: &[(Snapshot, DeviceIo)]) {
    let [v4, v6] = Direction::ALL;
    type Of = fn(&DirectionSnapshot) -> Traffic;
    let leaves: [(&str, Direction, Of, &str); 6] = [
        ("rcvd_ipv4", v4, |d| d.received, "IPv4 received"),
        ("rcvd_ipv6", v6, |d| d.received, "IPv6 received"),
        ("sent_ipv6", v4, |d| d.forwarded, "IPv4 received that went on as IPv6, in octets of IPv6"),
        ("sent_ipv4", v6, |d| d.forwarded, "IPv6 received that went on as IPv4, in octets of IPv4"),
        ("out_icmpv4_error", v4, |d| d.replies, "ICMPv4 errors of our own"),
        ("out_icmpv6_error", v6, |d| d.replies, "ICMPv6 errors of our own"),
    ];
    for (leaf, direction, of, help) in leaves {
        let rows =
            || queues.iter().enumerate().map(move |(n, (engine, _))| (queue(n), of(engine.direction(direction))));
        let packets = rows().map(|(labels, traffic)| (labels, traffic.packets));
        page.counter(&format!("{leaf}_packets"), &format!("{help}: packets."), packets);
        let octets = rows().map(|(labels, traffic)| (labels, traffic.octets));
        page.counter(&format!("{leaf}_bytes"), &format!("{help}: octets."), octets);
    }
}

fn drops(page: &mut Page, queues: &[(Snapshot, DeviceIo)]) {
    let mut sum = Snapshot::default();
    queues.iter().for_each(|(engine, _)| sum.add(engine));
    for (family, direction) in [("ipv4", Direction::V4ToV6), ("ipv6", Direction::V6ToV4)] {
        let of = sum.direction(direction);
        let rows = || DropReason::ALL.iter().map(|r| (labels(&[("reason", r.name())]), of.dropped[*r as usize]));
        let packets = rows().map(|(labels, traffic)| (labels, traffic.packets));
        page.counter(&format!("dropped_{family}_packets"), "Packets dropped, by reason.", packets);
        let octets = rows().map(|(labels, traffic)| (labels, traffic.octets));
        page.counter(&format!("dropped_{family}_bytes"), "Octets dropped, by reason.", octets);
    }
}

fn by_rule(page: &mut Page, rules: &[RuleCount]) {
    let rows = || {
        rules.iter().flat_map(|rule| {
            let of = |direction: Direction| labels(&[("rule", &rule.rule), ("direction", direction.name())]);
            [(of(Direction::V4ToV6), rule.v4_to_v6), (of(Direction::V6ToV4), rule.v6_to_v4)]
        })
    };
    let packets = rows().map(|(labels, count)| (labels, count.packets));
    page.counter("rule_forwarded_packets", "Packets that went on by a rule.", packets);
    let octets = rows().map(|(labels, count)| (labels, count.octets));
    page.counter("rule_forwarded_bytes", "Octets, as they came, that went on by a rule.", octets);
}

fn device(page: &mut Page, queues: &[(Snapshot, DeviceIo)]) {
    let rows = |of: fn(&DeviceIo) -> u64| queues.iter().enumerate().map(move |(n, (_, io))| (queue(n), of(io)));
    page.counter("device_read_packets", "Packets read from the TUN.", rows(|io| io.read));
    page.counter("device_written_packets", "Packets that the TUN took.", rows(|io| io.written));
    page.counter("device_refused_packets", "Packets that the TUN did not take.", rows(|io| io.refused));
    page.counter("device_waits", "How often a thread waited for a packet.", rows(|io| io.waits));
}

fn table(page: &mut Page, fragments: &Fragments) {
    page.gauge("fragment_packets", "Fragmented packets known.", one(fragments.packets));
    page.gauge("fragment_packets_limit", "Most of them: `fragments.packets`.", one(fragments.packets_limit));
    page.gauge("fragment_held_bytes", "Memory of fragments that wait for their first one.", one(fragments.held_octets));
    page.gauge("fragment_held_bytes_limit", "Most of it: `fragments.held-octets`.", one(fragments.held_octets_limit));
}

/// Nothing at a BR.
fn napt(page: &mut Page, ports: &[Ports]) {
    let rows = |of: fn(&Ports) -> u64| ports.iter().map(move |p| (labels(&[("protocol", p.protocol.name())]), of(p)));
    page.gauge("napt_ports", "Ports of the port set.", rows(|p| p.ports as u64));
    page.gauge("napt_ports_in_use", "Ports in use.", rows(|p| p.in_use as u64));
    page.gauge(
        "napt_ports_shared",
        "Ports in use that flows towards different destinations share.",
        rows(|p| p.shared as u64),
    );
    page.gauge("napt_flows", "Flows.", rows(|p| p.flows as u64));
    page.counter("napt_flows_gave_way", "Flows that ended since another needed their place.", rows(|p| p.gave_way));
}

/// Labels as they stand between braces.
type Labels = String;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let mut text = String::new();
    for (name, value) in pairs {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{}{name}=\"{value}\"", if text.is_empty() { "" } else { "," });
    }
    text
}

fn queue(number: usize) -> Labels {
    labels(&[("queue", &number.to_string())])
}

fn one<V: Display>(value: V) -> [(Labels, V); 1] {
    [(String::new(), value)]
}

/// A time, where the text is one.
fn moment(text: &str) -> Option<(Labels, f64)> {
    let at: Timestamp = text.parse().ok()?;
    Some((String::new(), at.as_millisecond() as f64 / 1000.0))
}

struct Page {
    text: String,
    format: Format,
}

impl Page {
    /// `name` without `mapt_` and `_total`.
    fn counter<V: Display>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, V)>) {
        let total = format!("{name}_total");
        // In OpenMetrics the family's name has no suffix.
        let family = if self.format == Format::OpenMetrics { name } else { &total };
        self.family(family, "counter", help, &total, rows);
    }

    fn gauge<V: Display>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, V)>) {
        self.family(name, "gauge", help, name, rows);
    }

    /// Nothing where there are no rows.
    fn family<V: Display>(
        &mut self,
        family: &str,
        kind: &str,
        help: &str,
        name: &str,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        let text = &mut self.text;
        let _ = writeln!(text, "# HELP mapt_{family} {help}\n# TYPE mapt_{family} {kind}");
        for (labels, value) in rows {
            let _ = match labels.is_empty() {
                true => writeln!(text, "mapt_{name} {value}"),
                false => writeln!(text, "mapt_{name}{{{labels}}} {value}"),
            };
        }
    }
}
