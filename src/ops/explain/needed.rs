//! What a dropped packet would have needed to pass: a text of its own for each reason, with this packet's numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Seen, Transport, name_of};
use super::{Explainer, words};
use crate::config::Role;
use crate::map::Rule;
use crate::ops::whois;
use crate::siit::TranslationParams;
use crate::verdict::DropReason;
use crate::wire::checksum::{Sum, pseudo_v6};

/// Octets that an IPv6 header has more than an IPv4 header, and with a Fragment header.
const GROWTH: usize = 20;
const GROWTH_FRAGMENT: usize = 28;

impl Explainer {
    /// The end of "to pass it would have needed …". The match is exhaustive: a new reason needs a text here.
    pub(super) fn needed(&self, reason: DropReason, input: &[u8], seen: Option<&Seen>) -> String {
        // What the reason is about can be read, unless it says that it cannot.
        let Some(seen) = seen else { return unread(input) };
        let (sender, port) = seen.sender();
        let (receiver, receiver_port) = seen.receiver();
        match reason {
            DropReason::NotIp => unread(input),
            DropReason::HeaderTruncated => truncated(seen),
            DropReason::LengthMismatch => lengths(seen),
            DropReason::Ipv4HeaderChecksum => header_checksum(input, seen),
            DropReason::OffloadMismatch => {
                "a virtio header that describes it: its gso_type, csum_start and csum_offset those of this transport header; hex lines and captures have none".into()
            }
            DropReason::SourceIllegal => {
                let translated = self.ipv4_behind(seen.src).filter(|_| special(seen.src).is_none());
                format!("a source that one host can have: {}", special_or(translated.unwrap_or(seen.src)))
            }
            DropReason::DestinationIllegal => {
                let translated = self.ipv4_behind(seen.dst).filter(|_| special(seen.dst).is_none());
                format!("a destination that one host can have: {}", special_or(translated.unwrap_or(seen.dst)))
            }
            DropReason::SourceRoute => source_route(input, seen),
            DropReason::RoutingHeader => match seen.segments_left {
                Some((at, left)) => format!("Segments Left 0 in its Routing header: octet {at} says {left}, so a node on that route has to act first"),
                None => "Segments Left 0 in its Routing header".into(),
            },
            DropReason::ExtensionHeader => {
                let chain: Vec<String> = seen.extensions.iter().chain([&seen.number]).map(|n| name_of(*n)).collect();
                format!("nothing that would be skipped behind the Fragment header, and that one once: its chain is {}", chain.join(", "))
            }
            DropReason::FragmentWithoutPort => {
                let limits = self.fragments();
                let addr = if seen.v6 { sender } else { receiver };
                format!(
                    "a port, which its first fragment has{}: that one before it, or room to hold it until then (`fragments.packets` is {}, `fragments.held-octets` {}), or an address that is not shared ({addr} is)",
                    place(seen),
                    limits.packets,
                    limits.held_octets
                )
            }
            DropReason::FragmentOverlap => format!(
                "a place behind the end of the first fragment, of which there is one with one pair of ports{}; for {} s all of this packet is refused",
                place(seen),
                self.fragments().lifetime.as_secs_f64()
            ),
            DropReason::FragmentTableFull => {
                let limits = self.fragments();
                format!(
                    "its first fragment before it{}, or more room: `fragments.packets` is {}, `fragments.held-octets` {}, in buckets of 64 packets, and the source that fills a bucket most gives way",
                    place(seen),
                    limits.packets,
                    limits.held_octets
                )
            }
            DropReason::FragmentTimeout => format!(
                "its first fragment within {} s (`fragments.lifetime`)",
                self.fragments().lifetime.as_secs_f64()
            ),
            DropReason::FragmentedIcmp => fragmented_icmp(seen, self.translation()),
            DropReason::FragmentIllegal => fragment(seen),
            DropReason::ProtocolWithoutPort => {
                let addr = if seen.v6 { sender } else { receiver };
                let addr = self.ipv4_behind(addr).unwrap_or(addr);
                let shared = words::covering(self.table(), ipv4_of(addr)).first().map_or(1, |rule| rule.sharing_ratio());
                format!("TCP, UDP or an echo, or an address that is not shared: {} has no port, and {addr} belongs to {shared} customers", seen.protocol_name())
            }
            DropReason::ProtocolIllegal => {
                let other = if seen.v6 { "IPv4" } else { "IPv6" };
                format!("a protocol of IPv{}: number {} is {}, which means something in {other} alone, or leaves no link", if seen.v6 { 6 } else { 4 }, seen.number, seen.protocol_name())
            }
            DropReason::IcmpType => icmp_type(seen),
            DropReason::IcmpChecksum => icmp_checksum(input, seen),
            DropReason::IcmpInner => icmp_inner(seen),
            DropReason::UdpChecksumZero => self.udp_checksum(seen),
            DropReason::TooBig => self.too_big(seen),
            DropReason::TooLongForIpv4 => {
                let payload = seen.announced.saturating_sub(seen.header_len);
                format!("at most 65515 octets behind its IPv6 headers: {payload} and 20 of an IPv4 header are {}, above 65535", payload + 20)
            }
            DropReason::HopLimit => {
                let name = if seen.v6 { "hop limit" } else { "TTL" };
                format!("a {name} of at least 2: it has {}, and `decrement-hop-limit: true` takes 1 off", seen.hops)
            }
            DropReason::NoRule => self.no_rule(if seen.v6 { sender } else { receiver }),
            DropReason::PortExcluded => {
                let (addr, port) = if seen.v6 { (sender, port) } else { (receiver, receiver_port) };
                self.port_excluded(addr, port, seen.port_word())
            }
            DropReason::PsidUnassigned => self.psid_unassigned(receiver, receiver_port),
            DropReason::PortOutsideSet => self.port_outside_set(sender, port, seen.port_word()),
            DropReason::DestinationPortOutsideSet => self.destination_port(receiver_port, seen.port_word()),
            DropReason::SourceNotOurs => self.source_not_ours(sender, seen),
            DropReason::SourceMismatch => self.source_mismatch(sender, port),
            DropReason::DestinationNotOurs => self.destination_not_ours(seen),
            DropReason::SourceNotMap => self.source_not_map(sender),
            DropReason::AddressNotGlobal => self.not_global(seen),
            DropReason::Unprovisioned => match &self.customer {
                Some(Err(Some(error))) => format!("another `end-user-ipv6-prefix`: {error} ({})", error.rfc),
                _ => "an End-user prefix: the configuration has no `end-user-ipv6-prefix`".into(),
            },
            DropReason::NaptNoMapping => self.no_mapping(seen),
            DropReason::NaptFiltered => self.filtered(seen),
            DropReason::NaptExhausted => self.exhausted(seen),
            DropReason::NaptUnsupported => {
                format!("TCP, UDP or an echo: {} has no port that NAPT44 could translate; without NAPT (`napt.enabled: false`, which a shared address does not allow) it would pass", seen.inner().unwrap_or(seen).protocol_name())
            }
        }
    }

    fn translation(&self) -> &TranslationParams {
        match &self.config.role {
            Role::Br(params) => &params.translation,
            Role::Ce(params) => &params.translation,
        }
    }

    /// The IPv4 address for which an IPv6 address stands, by a DMR or a rule.
    fn ipv4_behind(&self, addr: IpAddr) -> Option<IpAddr> {
        let IpAddr::V6(addr) = addr else { return None };
        let by_rule = || self.table().by_ipv6(addr).map(|id| self.table().get(id).decompose(addr).0);
        self.table().by_dmr(addr).map(|(_, ipv4)| ipv4).or_else(by_rule).map(IpAddr::V4)
    }

    fn udp_checksum(&self, seen: &Seen) -> String {
        if seen.v6 {
            return "a UDP checksum, which IPv6 demands (RFC 8200 §8.1), or `udp-zero-checksum: forward` or its destination port among `udp-zero-checksum-ports` (RFC 6936): its field is 0".into();
        }
        if seen.place.is_some() {
            return format!(
                "a UDP checksum, or to be whole: it is computed over all fragments{}, and this is one of them",
                place(seen)
            );
        }
        let translation = self.translation();
        let policy = format!("{:?}", translation.udp_zero_checksum).to_lowercase();
        let ports: Vec<String> = translation.udp_zero_checksum_ports.ports().iter().map(u16::to_string).collect();
        format!(
            "a UDP checksum, or `udp-zero-checksum: compute` in the configuration, which says `{policy}`, or a destination port of `udp-zero-checksum-ports` ({}) (RFC 7915 §4.5)",
            ports.join(", ")
        )
    }

    fn too_big(&self, seen: &Seen) -> String {
        let mtu = &self.translation().mtu;
        if !seen.v6 {
            let growth = if seen.place.is_some() { GROWTH_FRAGMENT } else { GROWTH };
            let most = (mtu.ipv6 as usize).saturating_sub(growth);
            return format!(
                "at most {most} octets, or DF clear: {} and {growth} that IPv6 is longer are {}, above the IPv6 next hop's {} (`mtu.ipv6`)",
                seen.announced,
                seen.announced + growth,
                mtu.ipv6
            );
        }
        let result = seen.announced.saturating_sub(seen.header_len) + 20;
        format!(
            "at most {} octets behind its IPv6 headers, or 1280 in all, which are fragmented: as IPv4 it has {result}, above the IPv4 next hop's {} (`mtu.ipv4`)",
            (mtu.ipv4 as usize).saturating_sub(20),
            mtu.ipv4
        )
    }

    fn no_rule(&self, addr: IpAddr) -> String {
        let nearest = match addr {
            IpAddr::V4(addr) => whois::nearest_ipv4(self.table(), addr),
            IpAddr::V6(addr) => whois::nearest_ipv6(self.table(), addr),
        };
        let rules: Vec<String> = nearest.into_iter().map(words::rule).collect();
        let nearest = match &rules[..] {
            [] => "; there is no rule at all".into(),
            [only] => format!("; the only one is {only}"),
            rules => format!("; the nearest are {}", rules.join(" and ")),
        };
        format!("a rule whose prefix covers {addr}{nearest}")
    }

    fn port_excluded(&self, addr: IpAddr, port: Option<u16>, word: &str) -> String {
        let addr = self.ipv4_behind(addr).unwrap_or(addr);
        let rules = words::covering(self.table(), ipv4_of(addr));
        let Some((rule, params)) = rules.first().and_then(|rule| Some((*rule, rule.port_params()?))) else {
            return "a port that somebody owns".into();
        };
        format!(
            "{} {word} from {} on: PSID offset {} of rule `{}` keeps 0-{} of {addr} from everyone, and it has {}",
            if word == "identifier" { "an" } else { "a" },
            params.first_port(),
            params.a(),
            rule.spec().name,
            params.first_port().saturating_sub(1),
            port.map_or("none".into(), |port| port.to_string()),
        )
    }

    fn psid_unassigned(&self, addr: IpAddr, port: Option<u16>) -> String {
        let rules = words::covering(self.table(), ipv4_of(addr));
        let own =
            rules.first().and_then(|rule| rule.port_params()).zip(port).and_then(|(params, port)| params.psid_of(port));
        let own = own.map_or("the port's PSID".into(), |own| format!("PSID {}", words::psid(own)));
        format!("a rule that assigns {own} of {addr}; those for this prefix assign {}", whois::psids(&rules))
    }

    fn port_outside_set(&self, addr: IpAddr, port: Option<u16>, word: &str) -> String {
        let (IpAddr::V6(addr), Some(port)) = (addr, port) else { return "a port of the set of its address".into() };
        let Some(id) = self.table().by_ipv6(addr) else { return "a port of the set of its address".into() };
        let rule = self.table().get(id);
        let (ipv4, own) = rule.decompose(addr);
        let ports = rule.port_set(own).map(|ports| words::port_set(&ports)).unwrap_or_default();
        format!("{word} {ports}, which PSID {} of {ipv4} owns; {}", words::psid(own), self.whose(ipv4, port, word))
    }

    fn destination_port(&self, port: Option<u16>, word: &str) -> String {
        let (Some(own), Some(port)) = (self.own(), port) else { return "a port of this customer".into() };
        let set = words::port_set(&own.ports);
        let psid = own.psid.map(|psid| format!(" (PSID {})", words::psid(psid))).unwrap_or_default();
        format!("{word} {set} of this CE{psid}; {}", self.whose(own.ipv4.addr(), port, word))
    }

    /// To whom a port belongs.
    fn whose(&self, ipv4: Ipv4Addr, port: u16, word: &str) -> String {
        let psid = words::covering(self.table(), ipv4).first().and_then(|rule| rule.port_params()?.psid_of(port));
        match (psid, words::owner(self.table(), ipv4, Some(port))) {
            (Some(psid), Some((prefix, _))) => {
                format!("{word} {port} belongs to PSID {} (End-user prefix {prefix})", words::psid(psid))
            }
            (Some(psid), None) => format!("{word} {port} belongs to PSID {}, which nobody has", words::psid(psid)),
            (None, _) => format!("{word} {port} belongs to nobody"),
        }
    }

    fn source_not_ours(&self, sender: IpAddr, seen: &Seen) -> String {
        let Some(own) = self.own() else { return "a source of this customer".into() };
        // Of an error, the reporter is written with the customer's bits too.
        let found = match (sender, seen.src) {
            (IpAddr::V4(sender), reporter) if own.ipv4.contains(sender) && seen.inner().is_some() => reporter,
            (sender, _) => sender,
        };
        format!(
            "a source in {} of this customer, or NAPT44 (`napt.enabled: true`), which gives it one: it is {found}",
            own.ipv4
        )
    }

    fn source_mismatch(&self, sender: IpAddr, port: Option<u16>) -> String {
        let table = self.table();
        let IpAddr::V6(addr) = sender else { return "the MAP address of its rule".into() };
        let Some(id) = table.by_ipv6(addr) else { return "the MAP address of its rule".into() };
        let rule = words::rule_of(table, id);
        let (ipv4, psid) = table.get(id).decompose(addr);
        let expected = table.get(id).compose(ipv4, psid).ipv6();
        if expected != addr {
            let difference = words::difference(rule, addr, expected);
            return format!("the source {expected} that rule `{}` writes, not {addr}: {difference}", rule.spec().name);
        }
        match words::owner(table, ipv4, port) {
            Some((prefix, owner)) => format!(
                "the source {owner}: {ipv4} belongs to a more specific rule, there to End-user prefix {prefix}, not to {addr}"
            ),
            None => {
                format!("a rule for {ipv4} that leads back to {addr}: a more specific rule has taken the address away")
            }
        }
    }

    fn destination_not_ours(&self, seen: &Seen) -> String {
        if let Some(own) = self.own() {
            let (receiver, _) = seen.receiver();
            let host = if own.map_prefix.prefix_len() < 128 {
                format!(", or another of {}", own.map_prefix)
            } else {
                String::new()
            };
            let found = if seen.inner().is_some() {
                format!("{} about a packet of {receiver}", seen.dst)
            } else {
                seen.dst.to_string()
            };
            return format!("the destination {}{host}, this CE's MAP address: it is {found}", own.map_address);
        }
        let (IpAddr::V6(sender), _) = seen.sender() else { return "a destination in the DMR".into() };
        let dmrs: Vec<String> = match self.table().by_ipv6(sender) {
            Some(id) => vec![self.table().dmr(id).prefix().to_string()],
            None => self.table().dmrs().iter().map(|dmr| dmr.prefix().to_string()).collect(),
        };
        format!(
            "a destination in the DMR {}: {} is none of ours and should not have been routed here",
            dmrs.join(" or "),
            seen.dst
        )
    }

    fn source_not_map(&self, sender: IpAddr) -> String {
        let Some(own) = self.own() else { return "a source in the DMR or a forwarding rule".into() };
        let dmr = self.table().dmr(own.rule).prefix();
        let IpAddr::V6(addr) = sender else { return format!("a source in the DMR {dmr}") };
        let forwarding: Vec<&Rule> = self.table().rules().iter().filter(|rule| rule.spec().forwarding).collect();
        let rules = match (self.table().by_ipv6(addr), forwarding.len()) {
            (Some(id), _) => format!(", or `forwarding: true` in {}", words::rule(words::rule_of(self.table(), id))),
            (None, 0) => "; no rule is forwarding".into(),
            (None, _) => whois::nearest_ipv6(self.table(), addr)
                .first()
                .map(|rule| format!(", or in a forwarding rule, of which the nearest is {}", words::rule(rule)))
                .unwrap_or_default(),
        };
        format!("a source in the DMR {dmr}{rules}: it is {addr}")
    }

    fn not_global(&self, seen: &Seen) -> String {
        let all =
            [Some(seen.src), Some(seen.dst), seen.inner().map(|inner| inner.src), seen.inner().map(|inner| inner.dst)];
        let behind = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(addr) => self.table().by_dmr(addr).map(|(_, ipv4)| ipv4),
        };
        let far: Vec<String> = (all.into_iter().flatten().filter_map(behind))
            .filter(|ipv4| words::covering(self.table(), *ipv4).is_empty())
            .map(|ipv4| ipv4.to_string())
            .collect();
        format!(
            "a global IPv4 address on the other side, or a prefix of your own as the DMR: 64:ff9b::/96 may not carry {}",
            far.join(" or ")
        )
    }

    fn no_mapping(&self, seen: &Seen) -> String {
        let inner = seen.inner().unwrap_or(seen);
        let protocol = match inner.transport {
            Transport::Echo { .. } => "an echo request".into(),
            _ => format!("a {} packet", inner.protocol_name()),
        };
        let (word, napt) = (seen.port_word(), self.timers(inner));
        if seen.v6 {
            let (_, port) = seen.receiver();
            let ipv4 = self.own().map(|own| own.ipv4.addr().to_string()).unwrap_or_default();
            let port = port.map(|port| port.to_string()).unwrap_or_default();
            return format!(
                "{protocol} out of the home before it, that got {ipv4} {word} {port}, and not longer ago than {napt}"
            );
        }
        let (home, port) = seen.sender();
        let port = port.map(|port| format!(" {word} {port}")).unwrap_or_default();
        format!(
            "{protocol} of {home}{port} before it, not longer ago than {napt}: the error is about a packet that this NAPT44 has not brought in"
        )
    }

    fn filtered(&self, seen: &Seen) -> String {
        let (home, remote) = match seen.inner() {
            Some(inner) => (inner.sender(), inner.receiver()),
            None => (seen.receiver(), seen.sender()),
        };
        let port = |port: Option<u16>| port.map(|port| format!(" port {port}")).unwrap_or_default();
        format!(
            "a {} packet of the home to {}{} before it, from the inside endpoint that has{}, not longer ago than {}; or another `napt.filtering`, where that port is not shared",
            seen.inner().unwrap_or(seen).protocol_name(),
            self.ipv4_behind(remote.0).unwrap_or(remote.0),
            port(remote.1),
            port(home.1),
            self.timers(seen)
        )
    }

    fn exhausted(&self, seen: &Seen) -> String {
        let Some(own) = self.own() else { return "a free port".into() };
        let psid = own.psid.map(|psid| format!("PSID {}", words::psid(psid))).unwrap_or("the address".into());
        format!(
            "a free {} out of the {} of {psid} for {}: each is in use, and comes back {} after its last packet",
            seen.port_word(),
            own.ports.count(),
            seen.protocol_name(),
            self.timers(seen)
        )
    }

    /// The idle time of a mapping.
    fn timers(&self, seen: &Seen) -> String {
        let Role::Ce(params) = &self.config.role else { return String::new() };
        let timers = &params.napt_params.timers;
        match seen.transport {
            Transport::Tcp { .. } => format!(
                "{} s (established), {} s (opening) or {} s (closing)",
                timers.tcp_established.as_secs(),
                timers.tcp_opening.as_secs(),
                timers.tcp_closing.as_secs()
            ),
            Transport::Echo { .. } => format!("{} s", timers.icmp.as_secs()),
            _ => format!("{} s", timers.udp.as_secs()),
        }
    }
}

fn ipv4_of(addr: IpAddr) -> Ipv4Addr {
    if let IpAddr::V4(addr) = addr { addr } else { Ipv4Addr::UNSPECIFIED }
}

/// ` (offset 1480)`.
fn place(seen: &Seen) -> String {
    seen.place.map(|place| format!(" (this one has offset {})", place.offset)).unwrap_or_default()
}

fn unread(input: &[u8]) -> String {
    match input.first() {
        None => "at least an IP header: it is empty".into(),
        Some(first) if matches!(first >> 4, 4 | 6) => {
            let least = if first >> 4 == 4 { 20 } else { 40 };
            format!("all {least} octets of an IPv{} header: it has {}", first >> 4, input.len())
        }
        Some(first) => format!("version 4 or 6 in its first four bits: its first octet is {first:#04x}"),
    }
}

fn truncated(seen: &Seen) -> String {
    if seen.present < seen.announced {
        return format!("the {} octets that its header announces: {} are there", seen.announced, seen.present);
    }
    let left = seen.announced.saturating_sub(seen.header_len);
    let least = match name_of(seen.number).as_str() {
        "TCP" => 20,
        _ => 8,
    };
    format!("{least} octets of {} behind the IP header: it has {left}", seen.protocol_name())
}

fn lengths(seen: &Seen) -> String {
    let behind = seen.announced.saturating_sub(seen.header_len);
    if !seen.v6 && (seen.header_len < 20 || seen.announced < seen.header_len) {
        return format!(
            "a header length of at least 20 and a Total Length not below it: they say {} and {}",
            seen.header_len, seen.announced
        );
    }
    match seen.transport {
        Transport::Udp { len, .. } => {
            format!("a UDP length from 8 to the {behind} octets behind the IP header: it says {len}")
        }
        Transport::Tcp { .. } => format!("a TCP data offset from 20 to the {behind} octets behind the IP header"),
        _ => format!("lengths that agree: {behind} octets stand behind the IP header"),
    }
}

fn header_checksum(input: &[u8], seen: &Seen) -> String {
    let Some(header) = input.get(..seen.header_len) else { return "a whole IPv4 header".into() };
    let found = u16::from_be_bytes([header[10], header[11]]);
    let right = Sum::of(header).minus(Sum::ZERO.word(found)).checksum();
    format!("the header checksum {right:#06x}: it has {found:#06x}")
}

fn source_route(input: &[u8], seen: &Seen) -> String {
    let mut rest = input.get(20..seen.header_len).unwrap_or(&[]);
    while let [kind, tail @ ..] = rest {
        let len = match (kind, tail) {
            (0, _) => break,
            (1, _) => 1,
            (131 | 137, [len, pointer, ..]) if pointer <= len => {
                let name = if *kind == 131 { "loose" } else { "strict" };
                return format!(
                    "a {name} source route that is used up (pointer above its length): pointer {pointer}, length {len}"
                );
            }
            (_, [len, ..]) if *len >= 2 => usize::from(*len),
            _ => break,
        };
        rest = rest.get(len..).unwrap_or(&[]);
    }
    "no source route".into()
}

fn fragmented_icmp(seen: &Seen, translation: &TranslationParams) -> String {
    match seen.place {
        Some(place) => {
            format!("to be whole: nobody translates a fragment of ICMP (this one has offset {})", place.offset)
        }
        None => format!(
            "at most {} octets: as IPv6 it has {}, above the IPv6 next hop's {}, and a piece of it would be translated by nobody",
            (translation.mtu.ipv6 as usize).saturating_sub(GROWTH) + seen.options,
            seen.announced + GROWTH - seen.options,
            translation.mtu.ipv6
        ),
    }
}

fn fragment(seen: &Seen) -> String {
    let payload = seen.announced.saturating_sub(seen.header_len);
    let Some(place) = seen.place else { return "a place that a fragment can have".into() };
    let end = place.offset as usize + payload;
    if end > 65_535 {
        return format!("to end at octet 65535 or before: offset {} and {payload} octets end at {end}", place.offset);
    }
    if place.more && !payload.is_multiple_of(8) {
        return format!("a multiple of 8 octets, as more fragments follow: it has {payload}");
    }
    if payload == 0 {
        return "at least one octet of data".into();
    }
    format!(
        "a {} header that no other fragment can overwrite: all of it in the first one (this has offset {} and {payload} octets)",
        seen.protocol_name(),
        place.offset
    )
}

fn icmp_type(seen: &Seen) -> String {
    let (section, listed) = if seen.v6 {
        ("§5.2", "128, 129, 1 (codes 0-4), 2, 3, 4 (code 0 with pointer 0, 1, 4-39; code 1)")
    } else {
        ("§4.2", "8, 0, 3 (codes 0-13 and 15), 11, 12 (codes 0, 2 with pointer 0-3, 8, 9, 12-19)")
    };
    let pointer = match seen.transport {
        Transport::Icmp { kind: 4, code: 0, word } if seen.v6 => format!(" with pointer {word}"),
        Transport::Icmp { kind: 12, code: 0 | 2, word } if !seen.v6 => format!(" with pointer {}", word >> 24),
        _ => String::new(),
    };
    format!(
        "a type and code in the table of RFC 7915 {section}: {listed}; {}{pointer} has no counterpart",
        seen.icmp_name()
    )
}

fn icmp_checksum(input: &[u8], seen: &Seen) -> String {
    let Some(message) = input.get(seen.header_len..seen.announced).filter(|message| message.len() >= 4) else {
        return "a right checksum".into();
    };
    let found = u16::from_be_bytes([message[2], message[3]]);
    let pseudo = match (seen.src, seen.dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => pseudo_v6(src, dst, message.len(), seen.number),
        _ => Sum::ZERO,
    };
    let right = pseudo.plus(Sum::of(message)).minus(Sum::ZERO.word(found)).checksum();
    format!("the ICMP checksum {right:#06x}: it has {found:#06x}")
}

fn icmp_inner(seen: &Seen) -> String {
    match seen.quoted.as_deref() {
        Some(Ok(inner)) => match inner.transport {
            Transport::Icmp { .. } => format!(
                "to be about TCP, UDP, an echo or another protocol: it quotes an {}, and no error is sent about ICMP",
                inner.icmp_name()
            ),
            Transport::Short => format!("at least 8 octets of {} in its quote", inner.protocol_name()),
            _ => format!("a packet in error that could have been translated: it quotes {}", inner.words()),
        },
        Some(Err(what)) => format!("an IP header and 8 octets of its packet in error: it quotes {what}"),
        None => "a packet in error".into(),
    }
}

/// What kind of address no host has (RFC 1812 §5.3.7, RFC 3927 §7, RFC 4291 §2.5, §2.7).
fn special(addr: IpAddr) -> Option<&'static str> {
    match addr {
        IpAddr::V4(addr) => special_v4(addr),
        IpAddr::V6(addr) => special_v6(addr),
    }
}

fn special_v4(addr: Ipv4Addr) -> Option<&'static str> {
    match addr.octets() {
        [0, ..] => Some("of \"this network\", 0.0.0.0/8"),
        [127, ..] => Some("loopback"),
        [169, 254, ..] => Some("link-local"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("class E or broadcast"),
        _ => None,
    }
}

fn special_v6(addr: Ipv6Addr) -> Option<&'static str> {
    match addr.segments()[0] {
        _ if addr.is_unspecified() => Some("unspecified"),
        _ if addr.is_loopback() => Some("loopback"),
        0xff00.. => Some("multicast"),
        0xfe80..=0xfebf => Some("link-local"),
        _ => None,
    }
}

fn special_or(addr: IpAddr) -> String {
    format!("{addr} is {}", special(addr).unwrap_or("none"))
}
