//! `napt.forwards`: ports that are set.
use super::daemon::host_ipv4;
use super::decode::{self, Fields, Slot};
use super::error::{Mark, Path, Reporter};
use super::raw::Value;
use crate::map::{Customer, PortSet};
use crate::napt::{Forward, Inside, Protocol};

/// Longest list.
const MOST: usize = 1024;
/// Runs of ports that an error names.
const SHOWN_RUNS: usize = 4;

/// A forward, and where its parts stand.
pub(super) struct Entry {
    pub forward: Forward,
    index: usize,
    port_at: Mark,
    address_at: Mark,
}

/// The list, as far as it can be judged without knowing the customer.
pub(super) fn forwards(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Vec<Entry>> {
    let Value::Seq(items) = &slot.node.value else {
        slot.expected(r, "a list of forwards", "");
        return None;
    };
    if items.len() > MOST {
        slot.error(r, format!("has {} forwards: expected at most {MOST}", items.len()), "");
        return None;
    }
    let mut entries = Vec::<Entry>::with_capacity(items.len());
    for (index, node) in items.iter().enumerate() {
        let Some(entry) = forward(Slot { node, path: Path::Index(&slot.path, index) }, index, r) else { continue };
        let Forward { protocol, port, inside } = entry.forward;
        let path = Path::Index(&slot.path, index);
        let mut same = entries.iter().filter(|other| other.forward.protocol == protocol);
        let twice = same.find(|other| other.forward.port == port || other.forward.inside == inside);
        if let Some(first) = twice {
            let (name, line) = (name(protocol), first.port_at.line);
            if first.forward.port == port {
                let message = format!("`{port}` is forwarded twice for {name}; the first is in line {line}");
                r.error(Path::Key(&path, "external-port"), entry.port_at, message, "RFC 4787 REQ-3");
            } else {
                let message = format!(
                    "{}:{} has a forward for {name} already, in line {line}: its answers could leave by one port only",
                    inside.addr, inside.port
                );
                r.error(Path::Key(&path, "internal-address"), entry.address_at, message, "RFC 4787 REQ-1");
            }
        }
        entries.push(entry);
    }
    Some(entries)
}

fn forward(slot: Slot<'_, '_>, index: usize, r: &mut Reporter<'_>) -> Option<Entry> {
    let fields = Fields::of(slot, decode::FORWARD, "a mapping with `external-port` and `internal-address`", r)?;
    let words = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let port = || decode::integer(1..=65_535u16, "", "RFC 6335 §6");
    let protocol = fields.require("protocol", r, "tcp or udp", "", decode::choice(&words, ""));
    let external = fields.require("external-port", r, "a port of the customer", "RFC 7597 §5.1", port());
    let addr = fields.require("internal-address", r, "an IPv4 address of the home", "", |slot, r| {
        let addr = decode::ipv4(slot.again(), r)?;
        host_ipv4(&slot, addr, r)
    });
    let internal = if fields.has("internal-port") { fields.get("internal-port", r, port()) } else { external };
    let inside = Inside { addr: addr?, port: internal? };
    Some(Entry {
        forward: Forward { protocol: protocol?, port: external?, inside },
        index,
        port_at: fields.mark("external-port"),
        address_at: fields.mark("internal-address"),
    })
}

/// What only the customer's address and ports show; a CE without End-user prefix learns it later.
pub(super) fn check(
    entries: &[Entry],
    enabled: bool,
    customer: Option<&Customer>,
    root: &Fields<'_, '_>,
    r: &mut Reporter<'_>,
) {
    let napt = Path::Key(root.path(), "napt");
    let list = Path::Key(&napt, "forwards");
    if !enabled && !entries.is_empty() {
        let message = "need the NAPT, and it is off: without it every port reaches its own host";
        r.error(list, root.nested_mark("napt", "forwards"), message, "RFC 7599 §8.1");
        return;
    }
    let Some(customer) = customer else { return };
    for Entry { forward, index, port_at, address_at } in entries {
        let path = Path::Index(&list, *index);
        if !customer.ports.contains(forward.port) {
            let message = format!(
                "`{}` is not a port of this customer, {}: expected one of {}",
                forward.port,
                whose(customer),
                runs(&customer.ports)
            );
            r.error(Path::Key(&path, "external-port"), *port_at, message, "RFC 7599 §8.1, RFC 7597 §5.1");
        }
        if customer.ipv4.contains(forward.inside.addr) {
            let message =
                format!("`{}` is the customer's own outside address: expected one of the home", forward.inside.addr);
            r.error(Path::Key(&path, "internal-address"), *address_at, message, "RFC 7599 §8.1");
        }
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

fn whose(customer: &Customer) -> String {
    match customer.psid {
        Some(psid) => format!("{} with PSID {:#x}", customer.ipv4.addr(), psid.0),
        None => customer.ipv4.to_string(),
    }
}

/// Ports as people write them, the middle left out: `1232-1235, 2256-2259, ..., 64720-64723 (252 ports)`.
fn runs(ports: &PortSet) -> String {
    let all: Vec<_> = ports.ranges().collect();
    let shown = |run: &std::ops::RangeInclusive<u16>| match (run.start(), run.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let mut words: Vec<String> = all.iter().take(SHOWN_RUNS).map(shown).collect();
    if all.len() > SHOWN_RUNS + 1 {
        words.push("...".into());
    }
    if all.len() > SHOWN_RUNS {
        words.extend(all.last().map(shown));
    }
    format!("{} ({} ports)", words.join(", "), ports.count())
}
