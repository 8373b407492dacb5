//! The way of a packet through a role, step by step, in the order of RFC 7599 §8.1 to §8.4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Seen, read};
use super::{Explainer, words};
use crate::map::{Customer, Psid, RuleId, Unmapped};

/// What is said of a router on the way.
const NO_IPV4: &str = "has no IPv4 address: one of `icmp.rfc6791-pool` stands for it (RFC 6791 §3.2)";

impl Explainer {
    /// What the role does with this packet, as far as its addresses and ports go. `outputs` are what came of it.
    pub(super) fn path(&self, seen: &Seen, outputs: &[Vec<u8>]) -> Vec<String> {
        let mut steps = Vec::new();
        match (&self.customer, seen.v6) {
            (None, true) => self.br_v6_to_v4(seen, &mut steps),
            (None, false) => self.br_v4_to_v6(seen, &mut steps),
            (Some(Ok(customer)), true) => self.ce_v6_to_v4(customer, seen, outputs, &mut steps),
            (Some(Ok(customer)), false) => self.ce_v4_to_v6(customer, seen, outputs, &mut steps),
            (Some(Err(_)), _) => {}
        }
        steps
    }

    /// RFC 7599 §8.3.
    fn br_v6_to_v4(&self, seen: &Seen, steps: &mut Vec<String>) {
        let (IpAddr::V6(sender), port) = seen.sender() else { return };
        steps.push(match seen.inner() {
            Some(_) => format!("BR, IPv6 to IPv4 (RFC 7599 §8.3): the packet in error was on its way to {sender}, so that address and its {} are checked", seen.port_word()),
            None => "BR, IPv6 to IPv4 (RFC 7599 §8.3): the source is checked against its rule".into(),
        });
        let Some(id) = self.table().by_ipv6(sender) else {
            steps.push(format!("no Rule IPv6 prefix covers {sender}"));
            return;
        };
        self.whole_source(id, sender, port, seen.port_word(), steps);
        let dmr = self.table().dmr(id);
        let mut far = vec![("destination", seen.dst)];
        if let Some(inner) = seen.inner() {
            far.push(("source of the packet in error", inner.src));
        }
        for (what, addr) in far {
            let IpAddr::V6(addr) = addr else { continue };
            steps.push(match dmr.extract(addr) {
                Some(ipv4) => {
                    format!("the {what} {addr} lies in the DMR {} and stands for {ipv4} (RFC 6052 §2.2)", dmr.prefix())
                }
                None => format!("the {what} {addr} is not in the DMR {} of this rule", dmr.prefix()),
            });
        }
        if let (Some(_), IpAddr::V6(reporter)) = (seen.inner(), seen.src)
            && self.table().by_ipv6(reporter).is_none()
        {
            steps.push(format!("{reporter}, which reports, {NO_IPV4}"));
        }
    }

    /// A customer's address under its rule: EA bits, port, the address that the rule writes.
    fn whole_source(&self, id: RuleId, addr: Ipv6Addr, port: Option<u16>, word: &str, steps: &mut Vec<String>) {
        let table = self.table();
        let rule = words::rule_of(table, id);
        steps.push(format!("{addr} lies in {}", words::rule(rule)));
        steps.push(words::ea_bits(rule, addr));
        let (ipv4, psid) = table.get(id).decompose(addr);
        match (rule.port_params(), port) {
            (Some(params), Some(port)) => steps.push(words::port(params, port, word)),
            (Some(_), None) => steps.push(format!("{ipv4} is shared, and nothing here says its port")),
            (None, _) => steps.push(format!("{ipv4} is not shared: any port is its own")),
        }
        let expected = table.get(id).compose(ipv4, psid).ipv6();
        let for_whom = if rule.port_params().is_some() {
            format!("{ipv4} and PSID {}", words::psid(psid))
        } else {
            ipv4.to_string()
        };
        if expected == addr {
            steps.push(format!("for {for_whom} the rule writes the MAP address {expected}: the same"));
        } else {
            let difference = words::difference(rule, addr, expected);
            let ignored = if self.checks_whole() { "" } else { " (`check-interface-id: false` does not mind)" };
            steps.push(format!("for {for_whom} the rule writes the MAP address {expected}: {difference}{ignored}"));
        }
    }

    /// RFC 7599 §8.4.
    fn br_v4_to_v6(&self, seen: &Seen, steps: &mut Vec<String>) {
        let (IpAddr::V4(receiver), port) = seen.receiver() else { return };
        steps.push(match seen.inner() {
            Some(_) => format!("BR, IPv4 to IPv6 (RFC 7599 §8.4, §9): the packet in error came from {receiver}, and its source {} says from which customer", seen.port_word()),
            None => format!("BR, IPv4 to IPv6 (RFC 7599 §8.4): the rule is found by the destination and its {}", seen.port_word()),
        });
        let Some(id) = self.by_ipv4(receiver, port, seen.port_word(), steps) else { return };
        let dmr = self.table().dmr(id);
        if let IpAddr::V4(src) = seen.src {
            steps.push(format!("for the source, {}", words::embedded(dmr, src)));
        }
        if let Some(IpAddr::V4(dst)) = seen.inner().map(|inner| inner.dst) {
            steps.push(format!("for the destination of the packet in error, {}", words::embedded(dmr, dst)));
        }
    }

    /// An IPv4 address and port under its rule: PSID, EA bits, MAP address. `None` where nobody has them.
    fn by_ipv4(&self, ipv4: Ipv4Addr, port: Option<u16>, word: &str, steps: &mut Vec<String>) -> Option<RuleId> {
        let table = self.table();
        let rules = words::covering(table, ipv4);
        let Some(rule) = rules.first() else {
            steps.push(format!("no Rule IPv4 prefix covers {ipv4}"));
            return None;
        };
        let found = table.by_ipv4(ipv4, port);
        let of_them = if rules.len() > 1 { format!(", one of {} for this prefix", rules.len()) } else { String::new() };
        match &found {
            Ok((id, _)) => steps.push(format!("{ipv4} lies in {}{of_them}", words::rule(words::rule_of(table, *id)))),
            Err(_) => steps.push(format!("{ipv4} lies in {}{of_them}", words::rule(rule))),
        }
        match (rule.port_params(), port) {
            (Some(params), Some(port)) => steps.push(words::port(params, port, word)),
            (Some(_), None) => {
                steps.push(format!("{ipv4} is shared by {}, and nothing here says its port", rule.sharing_ratio()))
            }
            (None, _) => steps.push(format!("{ipv4} is not shared: any port is its own")),
        }
        match found {
            Ok((id, address)) => {
                let rule = words::rule_of(table, id);
                steps.push(format!(
                    "the rule writes the MAP address {address} ({})",
                    words::ea_bits(rule, address.ipv6())
                ));
                Some(id)
            }
            Err(Unmapped::PsidUnassigned) => {
                steps.push("no rule assigns this PSID".into());
                None
            }
            Err(_) => None,
        }
    }

    /// RFC 7599 §8.1.
    fn ce_v4_to_v6(&self, customer: &Customer, seen: &Seen, outputs: &[Vec<u8>], steps: &mut Vec<String>) {
        let table = self.table();
        let (sender, port) = seen.sender();
        let (receiver, receiver_port) = seen.receiver();
        let (IpAddr::V4(sender), IpAddr::V4(receiver)) = (sender, receiver) else { return };
        let word = seen.port_word();
        let out = outputs.first().and_then(|out| read(out).ok());
        steps
            .push("CE, IPv4 to IPv6 (RFC 7599 §8.1): the source becomes an address and a port of this customer".into());
        let set = match customer.psid {
            Some(own) => {
                format!("PSID {} of {}: {}", words::psid(own), customer.ipv4.addr(), words::port_set(&customer.ports))
            }
            None => format!("{}, with all ports", customer.ipv4),
        };
        steps.push(format!("this CE has {set}"));
        let named = |port: Option<u16>| port.map(|port| format!(" {word} {port}")).unwrap_or_default();
        let mut outside_port = port;
        if self.napt() {
            match out.as_ref().and_then(|out| out.sender().1) {
                Some(outside) => {
                    outside_port = Some(outside);
                    steps.push(format!(
                        "NAPT44 gives {sender}{} the outside address {} {word} {outside}",
                        named(port),
                        customer.ipv4.addr()
                    ));
                    if let Some(params) = table.get(customer.rule).port_params() {
                        steps.push(words::port(params, outside, word));
                    }
                }
                None => steps.push(format!("NAPT44 is asked for an outside {word} of {sender}{}", named(port))),
            }
        } else {
            let is = if customer.ipv4.contains(sender) { "is" } else { "is not" };
            steps.push(format!("NAPT44 is off: {sender} {is} in {}", customer.ipv4));
        }
        let own = if self.napt() { customer.ipv4.addr() } else { sender };
        if customer.ipv4.contains(own) {
            let address = table.get(customer.rule).compose(own, customer.psid.unwrap_or(Psid(0)));
            let name = table.name(customer.rule);
            steps.push(format!("{own} has the MAP address {address} by the Basic Mapping Rule `{name}`"));
        }
        if let (Some(_), IpAddr::V4(reporter)) = (seen.inner(), seen.src) {
            let ours = customer.ipv4.addr();
            if self.napt() {
                steps.push(format!("behind NAPT44 whoever reports is {ours}: so is {reporter} (RFC 5508 REQ-5)"));
            } else if !customer.ipv4.contains(reporter) {
                steps.push(format!("{reporter}, which reports, is not in {}: {sender} stands for it", customer.ipv4));
            }
        }
        // An echo has one identifier, and it is the customer's by now.
        let peer_port = if word == "identifier" { outside_port } else { receiver_port };
        let peer = table.by_ipv4(receiver, peer_port).ok().filter(|(id, _)| table.get(*id).is_forwarding());
        match peer {
            Some((id, address)) => {
                let rule = words::rule_of(table, id);
                steps.push(format!("the destination {receiver} lies in the forwarding {}", words::rule(rule)));
                if let (Some(params), Some(port)) = (rule.port_params(), peer_port) {
                    steps.push(words::port(params, port, word));
                }
                steps.push(format!(
                    "the rule writes the MAP address {address} ({})",
                    words::ea_bits(rule, address.ipv6())
                ));
            }
            None => {
                let dmr = words::embedded(table.dmr(customer.rule), receiver);
                steps.push(format!("no forwarding rule has {receiver}{}: {dmr}", named(peer_port)));
            }
        }
    }

    /// RFC 7599 §8.2.
    fn ce_v6_to_v4(&self, customer: &Customer, seen: &Seen, outputs: &[Vec<u8>], steps: &mut Vec<String>) {
        let table = self.table();
        let (sender, port) = seen.sender();
        let (receiver, receiver_port) = seen.receiver();
        let (IpAddr::V6(sender), IpAddr::V6(receiver)) = (sender, receiver) else { return };
        let word = seen.port_word();
        let out = outputs.first().and_then(|out| read(out).ok());
        steps.push("CE, IPv6 to IPv4 (RFC 7599 §8.2): destination, source and destination port are checked".into());
        let rule = table.get(customer.rule);
        let (ipv4, _) = rule.decompose(receiver);
        let expected = rule.compose(ipv4, customer.psid.unwrap_or(Psid(0))).ipv6();
        let ours = customer.ipv4.contains(ipv4) && expected == receiver;
        steps.push(match ours {
            true => format!("{receiver} is the MAP address of {ipv4}, which is this CE's"),
            false => format!("{receiver} is not this CE's MAP address {}", customer.map_address),
        });
        if !ours {
            return;
        }
        let dmr = table.dmr(customer.rule);
        match (dmr.extract(sender), table.by_ipv6(sender)) {
            (Some(ipv4), _) => {
                steps.push(format!("{sender} lies in the DMR {} and stands for {ipv4} (RFC 6052 §2.2)", dmr.prefix()));
            }
            (None, Some(id)) if table.get(id).is_forwarding() => self.whole_source(id, sender, port, word, steps),
            (None, Some(id)) => {
                let rule = words::rule(words::rule_of(table, id));
                steps.push(format!("{sender} lies in {rule}, which is not forwarding"));
                return;
            }
            (None, None) => {
                steps.push(format!("{sender} lies neither in the DMR {} nor in a Rule IPv6 prefix", dmr.prefix()));
                return;
            }
        }
        match (rule.port_params(), receiver_port) {
            (Some(params), Some(port)) => steps.push(words::port(params, port, word)),
            (Some(_), None) => steps.push(format!("{ipv4} is shared, and nothing here says its port")),
            (None, _) => steps.push(format!("{ipv4} is not shared: any port is this CE's")),
        }
        if !self.napt() {
            steps.push("NAPT44 is off: the address stays what it is".into());
            return;
        }
        let named = receiver_port.map(|port| format!(" {word} {port}")).unwrap_or_default();
        steps.push(match out.as_ref().map(Seen::receiver) {
            Some((home, Some(port))) => format!("NAPT44 has a mapping of {ipv4}{named} to {home} {word} {port}"),
            Some((home, None)) => format!("NAPT44 hands it to {home}"),
            None => format!("NAPT44 is asked for the mapping of {ipv4}{named}"),
        });
    }
}
