//! `mapt translate --explain`: what was decided about a packet, by which rule, with which numbers, and what it would
//! have needed. The verdict is the engine's; the numbers are computed anew from configuration and rules.

mod needed;
mod packet;
mod path;
mod words;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::{Config, Role};
use crate::frag::FragParams;
use crate::map::{Customer, CustomerError, RuleTable};
use crate::reply::Originate;
use crate::verdict::{DropReason, Verdict};
use packet::{Seen, Transport, read};

/// Knows what the engine was told.
pub struct Explainer {
    config: Config,
    /// `None` for a BR.
    customer: Option<Result<Customer, Option<CustomerError>>>,
    /// Ports of first fragments, for the sentences about later ones.
    firsts: HashMap<Fragmented, (u16, u16)>,
}

/// Source, destination, protocol and Identification: what fragments of one packet have in common.
type Fragmented = (IpAddr, IpAddr, u8, u32);

/// First fragments remembered at a time.
const MOST_FIRSTS: usize = 65_536;

impl Explainer {
    /// For the engine that is built from `config`.
    pub fn new(config: Config) -> Explainer {
        let customer = match &config.role {
            Role::Br(_) => None,
            Role::Ce(_) => Some(match config.provisioning.end_user_prefix {
                Some(prefix) => config.provisioning.table.customer(prefix).map_err(Some),
                None => Err(None),
            }),
        };
        Explainer { config, customer, firsts: HashMap::new() }
    }

    /// Sentences about one input as it came, and what became of it.
    pub fn explain(
        &mut self,
        input: &[u8],
        verdict: Verdict,
        packets: &[Vec<u8>],
        reply: Option<&[u8]>,
    ) -> Vec<String> {
        let seen = read(input).map(|seen| self.with_ports(seen));
        let mut lines = vec![match &seen {
            Ok(seen) => seen.words(),
            Err(what) => format!("no packet: {what}"),
        }];
        let reason = if let Verdict::Drop { reason, .. } = verdict { Some(reason) } else { None };
        if let Ok(seen) = &seen
            && reason.is_none_or(reaches_the_map)
        {
            lines.extend(self.path(seen, packets));
        }
        match reason {
            Some(reason) => {
                lines.push(format!("dropped as {}: {} ({})", reason.name(), reason.sentence(), reason.section()));
                lines.push(format!("to pass it would have needed {}", self.needed(reason, input, seen.as_ref().ok())));
                lines.push(self.answer(reason, input, reply));
            }
            None if verdict == Verdict::Held => {
                lines.push(format!("held: it leaves behind its first fragment, or is dropped as fragment-timeout in {} s (`fragments.lifetime`)", self.fragments().lifetime.as_secs_f64()));
            }
            None => {
                let first =
                    seen.as_ref().is_ok_and(|seen| seen.place.is_some_and(|place| place.offset == 0 && place.more));
                lines.push(match (packets.len(), first) {
                    (..=1, _) => "forwarded".into(),
                    (many, false) => format!("forwarded as {many} packets"),
                    (many, true) => {
                        format!("forwarded; {many} packets leave: its own, and later fragments that waited for it")
                    }
                });
            }
        }
        let many = packets.len() > 1;
        for (n, out) in packets.iter().enumerate() {
            let number = if many { format!(" {}", n + 1) } else { String::new() };
            let out = read(out).map_or_else(|what| what, |out| out.words());
            lines.push(format!("out{number}: {out}"));
        }
        lines
    }

    /// A later fragment with the ports of its first one, where that came by.
    fn with_ports(&mut self, mut seen: Seen) -> Seen {
        let Some(place) = seen.place.filter(|place| !place.is_atomic()) else { return seen };
        let key = (seen.src, seen.dst, seen.number, place.id);
        let own = seen.ports();
        match (&mut seen.transport, own) {
            (Transport::Later { ports }, _) => *ports = self.firsts.get(&key).copied(),
            (_, Some(ports)) => {
                if self.firsts.len() >= MOST_FIRSTS {
                    self.firsts.clear();
                }
                self.firsts.insert(key, ports);
            }
            _ => {}
        }
        seen
    }

    /// What the sender is told.
    fn answer(&self, reason: DropReason, input: &[u8], reply: Option<&[u8]>) -> String {
        let v6 = input.first().is_some_and(|first| first >> 4 == 6);
        let told = if v6 { reason.answer().icmpv6 } else { reason.answer().icmpv4 };
        match (reply.map(read), told) {
            (Some(Ok(reply)), _) => format!("answered: {}", reply.words()),
            (Some(Err(what)), _) => format!("answered: {what}"),
            (None, None) => format!("not answered: no ICMPv{} error belongs to this reason", if v6 { 6 } else { 4 }),
            (None, Some(_)) if self.originate() == Originate::Off => "not answered: `icmp.originate` is off".into(),
            (None, Some((kind, code))) => format!(
                "not answered with type {kind} code {code}: {}",
                if v6 {
                    "never about an ICMPv6 error, multicast or a source that is no host (RFC 4443 §2.4 (e)), 1/1 about no ICMPv6 at all (RFC 7915 §5.4), and not beyond the rate limit"
                } else {
                    "never about an ICMPv4 error, a later fragment, multicast or a source that is no host (RFC 1812 §4.3.2.7), and not beyond the rate limit"
                }
            ),
        }
    }

    fn table(&self) -> &RuleTable {
        &self.config.provisioning.table
    }

    /// The CE's customer, if it has one.
    fn own(&self) -> Option<&Customer> {
        self.customer.as_ref().and_then(|customer| customer.as_ref().ok())
    }

    fn napt(&self) -> bool {
        matches!(&self.config.role, Role::Ce(params) if params.napt)
    }

    fn checks_whole(&self) -> bool {
        match &self.config.role {
            Role::Br(params) => params.check_interface_id,
            Role::Ce(params) => params.check_interface_id,
        }
    }

    fn fragments(&self) -> &FragParams {
        match &self.config.role {
            Role::Br(params) => &params.fragments,
            Role::Ce(params) => &params.fragments,
        }
    }

    fn originate(&self) -> Originate {
        match &self.config.role {
            Role::Br(params) => params.icmp.originate,
            Role::Ce(params) => params.icmp.originate,
        }
    }
}

/// A packet of `octets` in words, as far as its first octets, `head`, tell.
pub fn header_in_words(head: &[u8], octets: usize) -> String {
    match read(head) {
        Ok(seen) => Seen { present: octets, ..seen }.words(),
        Err(what) => what,
    }
}

/// Whether a packet that was dropped for this reason had headers worth mapping.
fn reaches_the_map(reason: DropReason) -> bool {
    use DropReason::*;
    !matches!(
        reason,
        NotIp
            | HeaderTruncated
            | LengthMismatch
            | Ipv4HeaderChecksum
            | OffloadMismatch
            | ExtensionHeader
            | FragmentedIcmp
            | FragmentIllegal
            | ProtocolIllegal
            | SourceRoute
            | RoutingHeader
            | HopLimit
            | IcmpType
            | IcmpChecksum
            | IcmpInner
            | Unprovisioned
    )
}
