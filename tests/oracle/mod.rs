//! A second translator, written from the RFCs and not from `src/siit`: slow, obvious, everything built from nothing.
//!
//! It says for every input what must come out, octet by octet, or every reason for which it may be dropped. What an
//! engine chooses at random (identifications, the port of a new mapping, the address of RFC 6791) is read off the
//! engine's output, checked against what it may be, and then taken as given.
#![allow(dead_code)]

pub mod bits;
pub mod build;
pub mod packet;

use std::collections::BTreeMap;

use bits::{Embedding, Rule, bits};
use mapt::map::RuleSpec;
use mapt::verdict::DropReason;
use packet::{Packet4, Packet6, Piece, Rewrite, Upper, complete, cut, lower_mss, pseudo, sum, word};

type Faults = Vec<DropReason>;

/// RFC 7915 §4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpZero {
    Compute,
    Drop,
    Forward,
}

/// RFC 7599 §10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mss {
    Off,
    Auto,
    To(usize),
}

/// What a node is told beside its rules.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mtu6: usize,
    pub mtu4: usize,
    pub lowest: usize,
    pub udp_zero: UdpZero,
    /// To these ports, whatever `udp_zero` says.
    pub zero_ports: Vec<u16>,
    pub mss: Mss,
    /// DSCP from IPv4 to IPv6, and back.
    pub dscp: [Option<u8>; 2],
    pub decrement: bool,
    pub check_interface_id: bool,
    /// RFC 6791 §4.
    pub object: bool,
    pub pool: Vec<[u8; 4]>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mtu6: 1500,
            mtu4: 1500,
            lowest: 1280,
            udp_zero: UdpZero::Compute,
            zero_ports: vec![2152, 4789],
            mss: Mss::Off,
            dscp: [None, None],
            decrement: false,
            check_interface_id: true,
            object: false,
            pool: vec![[192, 0, 0, 8]],
        }
    }
}

/// The customer that a CE is.
#[derive(Clone, Debug)]
pub struct Customer {
    pub rule: usize,
    /// Its IPv4 address or prefix, as bits.
    pub v4: String,
    pub psid: u16,
}

/// Mappings as they have been seen: (protocol, inside address, inside port) to outside port.
#[derive(Clone, Debug, Default)]
pub struct Napt {
    pub outside: BTreeMap<(u8, [u8; 4], u16), u16>,
}

impl Napt {
    fn inside(&self, protocol: u8, port: u16) -> Option<([u8; 4], u16)> {
        self.outside
            .iter()
            .find(|((p, ..), o)| *p == protocol && **o == port)
            .map(|((_, addr, inside), _)| (*addr, *inside))
    }
}

pub enum Role {
    Br,
    Ce { customer: Customer, napt: Option<Napt> },
}

pub struct Oracle {
    pub rules: Vec<Rule>,
    pub dmr: Embedding,
    pub role: Role,
    pub settings: Settings,
}

/// What must become of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Forward(Vec<Vec<u8>>),
    /// Any of these reasons.
    Drop(Faults),
}

/// Who talks to whom; an echo has its identifier in both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<const N: usize> {
    pub src: [u8; N],
    pub dst: [u8; N],
    pub ports: Option<(u16, u16)>,
    /// 1 for ICMP of either version.
    pub protocol: u8,
    /// A later fragment of TCP or UDP: the ports are elsewhere.
    pub later: bool,
}

impl<const N: usize> Flow<N> {
    fn read(src: [u8; N], dst: [u8; N], protocol: u8, upper: &Upper, payload: &[u8]) -> Flow<N> {
        let protocol = if protocol == 58 { 1 } else { protocol };
        Flow {
            src,
            dst,
            ports: upper.ports(payload),
            protocol,
            later: upper == &Upper::Later && matches!(protocol, 6 | 17),
        }
    }

    fn src_port(&self) -> Option<u16> {
        self.ports.map(|(src, _)| src)
    }

    fn dst_port(&self) -> Option<u16> {
        self.ports.map(|(_, dst)| dst)
    }

    fn portless(&self) -> DropReason {
        if self.later { DropReason::FragmentWithoutPort } else { DropReason::ProtocolWithoutPort }
    }

    fn to<const M: usize>(self, src: [u8; M], dst: [u8; M]) -> Flow<M> {
        Flow { src, dst, ports: self.ports, protocol: self.protocol, later: self.later }
    }
}

/// An ICMP error's own addresses, and the flow inside.
#[derive(Clone, Copy, Debug)]
struct Error<const N: usize> {
    src: [u8; N],
    dst: [u8; N],
    inner: Flow<N>,
    /// `src` is one of the pool.
    substituted: bool,
}

/// RFC 1812 §5.3.7, RFC 1122 §3.2.1.3, RFC 3927 §7: no address of a single host that a router may meet.
pub fn is_illegal4(a: [u8; 4]) -> bool {
    a[0] == 0 || a[0] == 127 || a[0] >= 224 || (a[0] == 169 && a[1] == 254)
}

/// Unspecified, loopback, multicast, link-local.
pub fn is_illegal6(a: [u8; 16]) -> bool {
    let all = bits(&a);
    all.starts_with("11111111") || all.starts_with("1111111010") || all[..127].chars().all(|bit| bit == '0')
}

/// IANA's registry of special-purpose addresses: those that are not globally reachable, and multicast.
pub fn is_global(a: [u8; 4]) -> bool {
    let all = bits(&a);
    if a == [192, 0, 0, 9] || a == [192, 0, 0, 10] {
        return true;
    }
    let local = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([169, 254, 0, 0], 16),
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        ([224, 0, 0, 0], 4),
        ([240, 0, 0, 0], 4),
    ];
    !local.iter().any(|(prefix, len)| all.starts_with(&bits(prefix)[..*len]))
}

/// RFC 7915 §4.2.
fn icmp46(kind: u8, code: u8, pointer: u8) -> Option<(u8, u8, Field)> {
    Some(match (kind, code) {
        (3, 0) | (3, 1) | (3, 5) | (3, 6) | (3, 7) | (3, 8) | (3, 11) | (3, 12) => (1, 0, Field::Zero),
        (3, 2) => (4, 1, Field::Pointer(6)),
        (3, 3) => (1, 4, Field::Zero),
        (3, 4) => (2, 0, Field::Mtu),
        (3, 9) | (3, 10) | (3, 13) | (3, 15) => (1, 1, Field::Zero),
        (11, code) => (3, code, Field::Zero),
        (12, 0) | (12, 2) => {
            // Version/IHL, TOS, Length, ID, flags, TTL, protocol, checksum, source, destination.
            let table = [
                Some(0),
                Some(1),
                Some(4),
                Some(4),
                None,
                None,
                None,
                None,
                Some(7),
                Some(6),
                None,
                None,
                Some(8),
                Some(8),
                Some(8),
                Some(8),
                Some(24),
                Some(24),
                Some(24),
                Some(24),
            ];
            (4, 0, Field::Pointer(table.get(usize::from(pointer)).copied().flatten()?))
        }
        _ => return None,
    })
}

/// RFC 7915 §5.2.
fn icmp64(kind: u8, code: u8, pointer: u32) -> Option<(u8, u8, Field)> {
    Some(match (kind, code) {
        (1, 0) | (1, 2) | (1, 3) => (3, 1, Field::Zero),
        (1, 1) => (3, 10, Field::Zero),
        (1, 4) => (3, 3, Field::Zero),
        (2, 0) => (3, 4, Field::Mtu),
        (3, code) => (11, code, Field::Zero),
        (4, 0) => {
            let at = match pointer {
                0 => 0,
                1 => 1,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return None,
            };
            (12, 0, Field::Pointer(at))
        }
        (4, 1) => (3, 2, Field::Zero),
        _ => return None,
    })
}

enum Field {
    Zero,
    Mtu,
    Pointer(u8),
}

impl Oracle {
    pub fn new(specs: &[RuleSpec], dmr: &str, role: Role, settings: Settings) -> Oracle {
        Oracle { rules: specs.iter().map(Rule::new).collect(), dmr: Embedding::new(dmr), role, settings }
    }

    pub fn br(specs: &[RuleSpec], dmr: &str, settings: Settings) -> Oracle {
        Oracle::new(specs, dmr, Role::Br, settings)
    }

    /// A CE, from its End-user IPv6 prefix (RFC 7597 §5.2).
    pub fn ce(specs: &[RuleSpec], dmr: &str, end_user: &str, napt: bool, settings: Settings) -> Oracle {
        let mut oracle = Oracle::br(specs, dmr, settings);
        let prefix: mapt::map::Ipv6Prefix = end_user.parse().unwrap();
        let octets = prefix.addr().octets();
        let rule = oracle.rule_of6(octets).expect("a Basic Mapping Rule");
        let (first, psid) = oracle.rules[rule].read(octets);
        let v4 = bits(&first)[..oracle.rules[rule].ipv4_len()].to_string();
        oracle.role = Role::Ce { customer: Customer { rule, v4, psid }, napt: napt.then(Napt::default) };
        oracle
    }

    /// What must become of `input`, given the outputs that an engine `seen`ly made of it.
    pub fn expect(&mut self, input: &[u8], seen: &[Vec<u8>]) -> Expected {
        let mut napt = match &self.role {
            Role::Ce { napt, .. } => napt.clone(),
            Role::Br => None,
        };
        let v6 = input.first().is_some_and(|first| first / 16 == 6);
        let result = if v6 { self.v6_to_v4(input, seen, &mut napt) } else { self.v4_to_v6(input, seen, &mut napt) };
        match result {
            Ok(outputs) => {
                if let Role::Ce { napt: table, .. } = &mut self.role {
                    *table = napt;
                }
                Expected::Forward(outputs)
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                Expected::Drop(faults)
            }
        }
    }

    // RFC 7597 §5, RFC 7599 §8: addresses.

    /// Rule and MAP address that own an IPv4 address and port.
    pub fn owner4(&self, ipv4: [u8; 4], port: Option<u16>) -> Result<(usize, [u8; 16]), Option<DropReason>> {
        let all = bits(&ipv4);
        let longest = self.rules.iter().filter(|r| all.starts_with(&r.v4)).map(|r| r.v4.len()).max();
        let Some(longest) = longest else { return Err(Some(DropReason::NoRule)) };
        let mut group = self.rules.iter().enumerate().filter(|(_, r)| r.v4.len() == longest && all.starts_with(&r.v4));
        let (first, rule) = group.clone().next().unwrap();
        if !rule.is_shared() {
            return Ok((first, rule.address(ipv4, 0)));
        }
        let Some(port) = port else { return Err(None) };
        let Some(psid) = rule.psid_of(port) else { return Err(Some(DropReason::PortExcluded)) };
        let owner = group.find(|(_, r)| r.embeds_psid() || r.explicit_psid() == psid);
        owner.map(|(i, r)| (i, r.address(ipv4, psid))).ok_or(Some(DropReason::PsidUnassigned))
    }

    pub fn rule_of6(&self, addr: [u8; 16]) -> Option<usize> {
        let all = bits(&addr);
        (0..self.rules.len()).filter(|i| all.starts_with(&self.rules[*i].v6)).max_by_key(|i| self.rules[*i].v6.len())
    }

    /// Where ICMPv6 of our own comes from: the pool's first address in the DMR, of its own rule at a CE.
    pub fn reply_source(&self) -> [u8; 16] {
        let dmr = match &self.role {
            Role::Br => &self.dmr,
            Role::Ce { customer, .. } => self.dmr_of(customer.rule),
        };
        dmr.embed(self.settings.pool[0])
    }

    pub fn dmr_of(&self, rule: usize) -> &Embedding {
        self.rules[rule].dmr.as_ref().unwrap_or(&self.dmr)
    }

    fn embed(&self, rule: usize, ipv4: [u8; 4]) -> Result<[u8; 16], Faults> {
        let dmr = self.dmr_of(rule);
        if dmr.is_well_known() && !is_global(ipv4) {
            Err(vec![DropReason::AddressNotGlobal])
        } else {
            Ok(dmr.embed(ipv4))
        }
    }

    fn extract(&self, rule: usize, addr: [u8; 16]) -> Result<Option<[u8; 4]>, Faults> {
        let dmr = self.dmr_of(rule);
        match dmr.extract(addr) {
            Some(ipv4) if dmr.is_well_known() && !is_global(ipv4) => Err(vec![DropReason::AddressNotGlobal]),
            other => Ok(other),
        }
    }

    fn customer4<const N: usize>(
        &self,
        ipv4: [u8; 4],
        port: Option<u16>,
        flow: &Flow<N>,
    ) -> Result<(usize, [u8; 16]), Faults> {
        self.owner4(ipv4, port).map_err(|fault| vec![fault.unwrap_or(flow.portless())])
    }

    /// The IPv4 address that an IPv6 address of a rule may use with this port.
    fn owner6(
        &self,
        rule: usize,
        addr: [u8; 16],
        port: Option<u16>,
        portless: DropReason,
        whole: bool,
    ) -> Result<[u8; 4], Faults> {
        let r = &self.rules[rule];
        let (ipv4, psid) = r.read(addr);
        let mut faults = Vec::new();
        if r.is_shared() {
            match port.map(|port| r.psid_of(port)) {
                None => faults.push(portless),
                Some(None) => faults.push(DropReason::PortExcluded),
                Some(Some(p)) if p != psid => faults.push(DropReason::PortOutsideSet),
                Some(Some(_)) => {}
            }
        }
        let written = r.address(ipv4, psid) == addr;
        if (whole && !written) || self.owner4(ipv4, port).ok().is_none_or(|(back, _)| back != rule) {
            faults.push(DropReason::SourceMismatch);
        }
        if faults.is_empty() { Ok(ipv4) } else { Err(faults) }
    }

    /// RFC 7599 §8.1 and §8.4.
    fn map46(&self, flow: &Flow<4>, seen: &[Vec<u8>], napt: &mut Option<Napt>) -> Result<Flow<16>, Faults> {
        let Role::Ce { customer, .. } = &self.role else {
            let (rule, dst) = self.customer4(flow.dst, flow.dst_port(), flow)?;
            return Ok(flow.to(self.embed(rule, flow.src)?, dst));
        };
        let mut out = *flow;
        if let Some(napt) = napt {
            let Some((src_port, dst_port)) = flow.ports else {
                return Err(vec![if flow.later {
                    DropReason::FragmentWithoutPort
                } else {
                    DropReason::NaptUnsupported
                }]);
            };
            let port = self.outside_port(customer, napt, (flow.protocol, flow.src, src_port), seen)?;
            napt.outside.insert((flow.protocol, flow.src, src_port), port);
            out.src = self.first_address(customer);
            out.ports = Some((port, if flow.protocol == 1 { port } else { dst_port }));
        }
        self.check_own(customer, out.src, out.src_port(), flow)?;
        let src = self.rules[customer.rule].address(out.src, customer.psid);
        // The first one goes to the neighbour that has its port, so this one cannot go to the BR.
        if out.later && matches!(self.owner4(out.dst, None), Err(None)) {
            return Err(vec![DropReason::FragmentWithoutPort]);
        }
        Ok(out.to(src, self.destination(customer, out.dst, out.dst_port())?))
    }

    /// The port of a mapping: what it has, else what the engine has chosen, if it may.
    fn outside_port(
        &self,
        customer: &Customer,
        napt: &Napt,
        inside: (u8, [u8; 4], u16),
        seen: &[Vec<u8>],
    ) -> Result<u16, Faults> {
        if let Some(port) = napt.outside.get(&inside) {
            return Ok(*port);
        }
        let is_free = |port: &u16| *port != 0 && napt.inside(inside.0, *port).is_none();
        let chosen = seen.first().and_then(|first| {
            let packet = Packet6::read(first, false, &mut Vec::new())?;
            packet.payload.get(if inside.0 == 1 { 4..6 } else { 0..2 }).map(|b| word(b, 0) as u16)
        });
        let set = self.rules[customer.rule].ports(customer.psid);
        match chosen {
            Some(port) => {
                assert!(set.contains(&port), "the NAPT chose {port}, which is not in the port set");
                assert!(is_free(&port), "the NAPT chose {port}, which another mapping has");
                Ok(port)
            }
            None => set.into_iter().find(is_free).ok_or(vec![DropReason::NaptExhausted]),
        }
    }

    fn first_address(&self, customer: &Customer) -> [u8; 4] {
        bits::octets(&format!("{:0<32}", customer.v4))
    }

    /// Nothing leaves with an address or port that is not the customer's.
    fn check_own(&self, customer: &Customer, src: [u8; 4], port: Option<u16>, flow: &Flow<4>) -> Result<(), Faults> {
        let rule = &self.rules[customer.rule];
        let mut faults = Vec::new();
        if !bits(&src).starts_with(&customer.v4) {
            faults.push(DropReason::SourceNotOurs);
        }
        match port {
            None if rule.is_shared() => faults.push(flow.portless()),
            Some(port) if rule.is_shared() && rule.psid_of(port) != Some(customer.psid) => {
                faults.push(DropReason::SourceNotOurs)
            }
            _ => {}
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// A neighbour by a Forwarding Mapping Rule, all others by the DMR.
    fn destination(&self, customer: &Customer, ipv4: [u8; 4], port: Option<u16>) -> Result<[u8; 16], Faults> {
        match self.owner4(ipv4, port) {
            Ok((rule, addr)) if self.rules[rule].forwarding => Ok(addr),
            _ => self.embed(customer.rule, ipv4),
        }
    }

    /// RFC 7599 §8.2 and §8.3.
    fn map64(&self, flow: &Flow<16>, napt: &Option<Napt>) -> Result<Flow<4>, Faults> {
        let Role::Ce { customer, .. } = &self.role else {
            let rule = self.rule_of6(flow.src).ok_or(vec![DropReason::NoRule])?;
            let whole = self.settings.check_interface_id;
            let src = self.owner6(rule, flow.src, flow.src_port(), flow.portless(), whole);
            let dst = self.extract(rule, flow.dst).and_then(|dst| dst.ok_or(vec![DropReason::DestinationNotOurs]));
            return Ok(flow.to(src?, dst?));
        };
        let dst = self.own6(customer, flow.dst)?;
        let src = self.remote(customer, flow.src, flow.src_port(), flow.portless())?;
        let mut out = flow.to(src, dst);
        self.check_port(customer, flow.dst_port(), flow.portless())?;
        if let Some(napt) = napt {
            let (addr, port) = self.back(customer, napt, dst, flow)?;
            out.dst = addr;
            out.ports =
                flow.ports.map(|(src_port, _)| if flow.protocol == 1 { (port, port) } else { (src_port, port) });
        }
        Ok(out)
    }

    /// Who in the home has this outside port.
    fn back(&self, customer: &Customer, napt: &Napt, dst: [u8; 4], flow: &Flow<16>) -> Result<([u8; 4], u16), Faults> {
        let Some(port) = flow.dst_port() else {
            return Err(vec![if flow.later { DropReason::FragmentWithoutPort } else { DropReason::NaptUnsupported }]);
        };
        let known = napt.inside(flow.protocol, port).filter(|_| dst == self.first_address(customer));
        known.ok_or(vec![DropReason::NaptNoMapping])
    }

    fn check_port(&self, customer: &Customer, port: Option<u16>, portless: DropReason) -> Result<(), Faults> {
        let rule = &self.rules[customer.rule];
        match port {
            _ if !rule.is_shared() => Ok(()),
            None => Err(vec![portless]),
            Some(port) if rule.psid_of(port) == Some(customer.psid) => Ok(()),
            Some(_) => Err(vec![DropReason::DestinationPortOutsideSet]),
        }
    }

    fn own6(&self, customer: &Customer, addr: [u8; 16]) -> Result<[u8; 4], Faults> {
        let rule = &self.rules[customer.rule];
        let (ipv4, _) = rule.read(addr);
        let ours = bits(&ipv4).starts_with(&customer.v4) && rule.address(ipv4, customer.psid) == addr;
        if ours { Ok(ipv4) } else { Err(vec![DropReason::DestinationNotOurs]) }
    }

    fn remote(
        &self,
        customer: &Customer,
        addr: [u8; 16],
        port: Option<u16>,
        portless: DropReason,
    ) -> Result<[u8; 4], Faults> {
        if let Some(ipv4) = self.extract(customer.rule, addr)? {
            return Ok(ipv4);
        }
        match self.rule_of6(addr) {
            Some(rule) if self.rules[rule].forwarding => {
                self.owner6(rule, addr, port, portless, self.settings.check_interface_id)
            }
            _ => Err(vec![DropReason::SourceNotMap]),
        }
    }

    /// Errors that came as IPv4. The packet in error travelled the other way.
    fn map_error46(&self, error: &Error<4>, napt: &Option<Napt>) -> Result<Error<16>, Faults> {
        let inner = &error.inner;
        let Role::Ce { customer, .. } = &self.role else {
            let told = self.customer4(error.dst, inner.src_port(), inner)?.1;
            let (rule, sender) = self.customer4(inner.src, inner.src_port(), inner)?;
            let (reporter, target) = (self.embed(rule, error.src)?, self.embed(rule, inner.dst)?);
            return Ok(Error { src: reporter, dst: told, inner: inner.to(sender, target), substituted: false });
        };
        let mut out = *inner;
        let mut reporter = error.src;
        if let Some(napt) = napt {
            let Some((src_port, dst_port)) = inner.ports else {
                return Err(vec![if inner.later {
                    DropReason::FragmentWithoutPort
                } else {
                    DropReason::NaptUnsupported
                }]);
            };
            let outside = napt.outside.get(&(inner.protocol, inner.dst, dst_port));
            let port = *outside.ok_or(vec![DropReason::NaptNoMapping])?;
            out.dst = self.first_address(customer);
            out.ports = Some((if inner.protocol == 1 { port } else { src_port }, port));
            // RFC 5508 REQ-5: the NAT reports for the hosts behind it.
            reporter = out.dst;
        }
        self.check_own(customer, out.dst, out.dst_port(), &out)?;
        // A router of the home without an address of the customer's speaks for the host behind it.
        if !bits(&reporter).starts_with(&customer.v4) {
            reporter = out.dst;
        }
        let own = |ipv4| self.rules[customer.rule].address(ipv4, customer.psid);
        let peer = self.destination(customer, out.src, out.src_port())?;
        let told = self.destination(customer, error.dst, out.src_port())?;
        Ok(Error { src: own(reporter), dst: told, inner: out.to(peer, own(out.dst)), substituted: false })
    }

    /// Errors that came as IPv6.
    fn map_error64(&self, error: &Error<16>, seen: &[Vec<u8>], napt: &Option<Napt>) -> Result<Error<4>, Faults> {
        let inner = &error.inner;
        // RFC 6791: a reporter without an IPv4 address gets one of the pool, whichever the engine took.
        let from_pool = || {
            let chosen = seen.first().and_then(|first| first.get(12..16)).and_then(|a| a.try_into().ok());
            let chosen = chosen.unwrap_or(self.settings.pool[0]);
            if self.settings.pool.contains(&chosen) { chosen } else { self.settings.pool[0] }
        };
        let Role::Ce { customer, .. } = &self.role else {
            let rule = self.rule_of6(inner.dst).ok_or(vec![DropReason::NoRule])?;
            let whole = self.settings.check_interface_id;
            let owner = self.owner6(rule, inner.dst, inner.dst_port(), inner.portless(), whole)?;
            let outside = |addr| self.extract(rule, addr)?.ok_or(vec![DropReason::DestinationNotOurs]);
            let (sender, told) = (outside(inner.src)?, outside(error.dst)?);
            let reporter = self
                .rule_of6(error.src)
                .and_then(|r| self.owner6(r, error.src, inner.dst_port(), inner.portless(), true).ok());
            let (substituted, src) = (reporter.is_none(), reporter.unwrap_or_else(from_pool));
            return Ok(Error { src, dst: told, inner: inner.to(sender, owner), substituted });
        };
        self.own6(customer, error.dst)?;
        let own = self.own6(customer, inner.src)?;
        self.check_port(customer, inner.src_port(), inner.portless())?;
        let peer = self.remote(customer, inner.dst, inner.dst_port(), inner.portless())?;
        let reporter = self.remote(customer, error.src, inner.dst_port(), inner.portless());
        let mut out = inner.to(own, peer);
        if let Some(napt) = napt {
            let back = Flow { ports: inner.ports.map(|(src, dst)| (dst, src)), ..*inner };
            let (addr, port) = self.back(customer, napt, own, &back)?;
            out.src = addr;
            out.ports =
                inner.ports.map(|(_, dst_port)| if inner.protocol == 1 { (port, port) } else { (port, dst_port) });
        }
        let (substituted, src) = (reporter.is_err(), reporter.unwrap_or_else(|_| from_pool()));
        Ok(Error { src, dst: out.src, inner: out, substituted })
    }

    // RFC 7915: packets.

    /// Whether UDP without checksum stays so.
    fn keeps_zero(&self, dst_port: usize) -> bool {
        self.settings.udp_zero == UdpZero::Forward
            || self.settings.zero_ports.iter().any(|port| usize::from(*port) == dst_port)
    }

    /// RFC 2474 §3: the upper six bits, RFC 3168 §5: the lower two.
    fn class(&self, octet: u8, direction: usize) -> u8 {
        self.settings.dscp[direction].map_or(octet, |dscp| dscp * 4 + octet % 4)
    }

    fn clamp(&self, upper: &Upper, payload: &mut [u8]) {
        const SYN: u8 = 0b10;
        let limit = match self.settings.mss {
            Mss::Off => return,
            Mss::Auto => (self.settings.mtu6 - 60).min(self.settings.mtu4 - 40),
            Mss::To(limit) => limit,
        };
        if upper == &Upper::Tcp && payload[13] & SYN > 0 {
            lower_mss(payload, limit);
        }
    }

    fn hops(&self, value: u8, faults: &mut Faults) -> u8 {
        if !self.settings.decrement {
            return value;
        }
        if value <= 1 {
            faults.push(DropReason::HopLimit);
        }
        value.saturating_sub(1)
    }

    fn v4_to_v6(&self, input: &[u8], seen: &[Vec<u8>], napt: &mut Option<Napt>) -> Result<Vec<Vec<u8>>, Faults> {
        let mut faults = Vec::new();
        let Some(p) = Packet4::read(input, false, &mut faults) else { return Err(faults) };
        let upper = Upper::read(false, p.protocol, &p.payload, p.announced, p.fragment(), false);
        if p.has_source_route() {
            faults.push(DropReason::SourceRoute);
        }
        let hop_limit = self.hops(p.ttl, &mut faults);
        if is_illegal4(p.dst) {
            faults.push(DropReason::DestinationIllegal);
        }
        let upper = match upper {
            Ok(upper) => upper,
            Err(fault) => {
                faults.push(fault);
                return Err(faults);
            }
        };
        if let Upper::Error { kind, code } = upper {
            return self.error46(&p, kind, code, hop_limit, faults, napt);
        }
        if upper == Upper::OtherIcmp {
            faults.push(DropReason::IcmpType);
            return Err(faults);
        }
        if is_illegal4(p.src) {
            faults.push(DropReason::SourceIllegal);
        }
        let flow = Flow::read(p.src, p.dst, p.protocol, &upper, &p.payload);
        let mapped = self.map46(&flow, seen, napt).map_err(|more| faults.extend(more)).ok();

        let fragment = p.fragment();
        let growth = if fragment.is_some() { 28 } else { 20 };
        if p.df && p.total() + growth > self.settings.mtu6 {
            faults.push(DropReason::TooBig);
        }
        let no_checksum = upper == Upper::Udp && word(&p.payload, 6) == 0;
        let keeps_zero = no_checksum && self.keeps_zero(word(&p.payload, 2));
        let computable = self.settings.udp_zero == UdpZero::Compute && fragment.is_none();
        if no_checksum && !keeps_zero && !computable {
            faults.push(DropReason::UdpChecksumZero);
        }
        let (Some(to), true) = (mapped, faults.is_empty()) else { return Err(faults) };

        let mut payload = p.payload.clone();
        let next = if p.protocol == 1 { 58 } else { p.protocol };
        let covered = upper.covered(&payload, p.announced);
        let (src_port, dst_port) = to.ports.unwrap_or_default();
        let is_echo = matches!(upper, Upper::Echo { .. });
        Rewrite {
            upper: &upper,
            src_port,
            dst_port,
            icmp_type: if upper == (Upper::Echo { request: true }) { 128 } else { 129 },
            old_pseudo: if is_echo { 0 } else { pseudo(&p.src, &p.dst, covered, p.protocol) },
            new_pseudo: pseudo(&to.src, &to.dst, covered, next),
        }
        .apply(&mut payload);
        self.clamp(&upper, &mut payload);
        if no_checksum && !keeps_zero {
            complete(&mut payload, 17, &to.src, &to.dst);
        }
        let was_right = upper.checksum_at().is_some() && fragment.is_none() && !no_checksum && {
            let header = if is_echo { 0 } else { pseudo(&p.src, &p.dst, covered, p.protocol) };
            (header + sum(&p.payload[..covered])).is_multiple_of(65535)
        };
        if was_right {
            let mut fresh = payload.clone();
            complete(&mut fresh, next, &to.src, &to.dst);
            assert_eq!(fresh, payload, "the oracle disagrees with itself");
        }

        let whole = Packet6 {
            class: self.class(p.tos, 0),
            flow_label: 0,
            hop_limit,
            src: to.src,
            dst: to.dst,
            extensions: Vec::new(),
            fragment,
            next,
            announced: payload.len(),
            payload,
            segments_left_at: None,
        };
        let most = self.settings.lowest.min(self.settings.mtu6);
        if p.df || whole.total() <= most {
            return Ok(vec![whole.write()]);
        }
        // RFC 7915 §1.2: fragmented ICMP is not translated, so our own reading is not to make any.
        if is_echo {
            let fits = whole.total() <= self.settings.mtu6;
            return if fits { Ok(vec![whole.write()]) } else { Err(Faults::from([DropReason::FragmentedIcmp])) };
        }
        let place = fragment.unwrap_or(Piece { id: u32::from(p.id), offset: 0, more: false });
        let pieces = cut(&whole.payload, most - 48, place);
        let piece = |(piece, payload): (Piece, Vec<u8>)| {
            Packet6 { fragment: Some(piece), announced: payload.len(), payload, ..whole.clone() }.write()
        };
        Ok(pieces.into_iter().map(piece).collect())
    }

    fn error46(
        &self,
        p: &Packet4,
        kind: u8,
        code: u8,
        hop_limit: u8,
        mut faults: Faults,
        napt: &Option<Napt>,
    ) -> Result<Vec<Vec<u8>>, Faults> {
        let message = &p.payload;
        let translated = icmp46(kind, code, message[4]);
        if translated.is_none() {
            faults.push(DropReason::IcmpType);
        }
        if sum(message) != 0 {
            faults.push(DropReason::IcmpChecksum);
        }
        let attribute = usize::from(message[5]) * 4;
        let (quoted, extension) = parts(message, attribute);
        let Some((inner, upper)) = read_quoted4(quoted) else {
            faults.push(DropReason::IcmpInner);
            return Err(faults);
        };
        let flow = Flow::read(inner.src, inner.dst, inner.protocol, &upper, &inner.payload);
        let error = Error { src: p.src, dst: p.dst, inner: flow, substituted: false };
        let mapped = self.map_error46(&error, napt).map_err(|more| faults.extend(more)).ok();
        let (Some(to), Some((kind, code, field)), true) = (mapped, translated, faults.is_empty()) else {
            return Err(faults);
        };

        let mut payload = inner.payload.clone();
        let next = if inner.protocol == 1 { 58 } else { inner.protocol };
        // Whatever the upper layer's length is, TCP and UDP have the same before and after.
        let length = inner.announced;
        let (src_port, dst_port) = to.inner.ports.unwrap_or_default();
        let is_echo = matches!(upper, Upper::Echo { .. });
        Rewrite {
            upper: &upper,
            src_port,
            dst_port,
            icmp_type: if upper == (Upper::Echo { request: true }) { 128 } else { 129 },
            old_pseudo: if is_echo { 0 } else { pseudo(&inner.src, &inner.dst, length, inner.protocol) },
            new_pseudo: pseudo(&to.inner.src, &to.inner.dst, length, next),
        }
        .apply(&mut payload);
        let quoted = Packet6 {
            class: inner.tos,
            flow_label: 0,
            hop_limit: inner.ttl,
            src: to.inner.src,
            dst: to.inner.dst,
            extensions: Vec::new(),
            fragment: inner.fragment(),
            next,
            announced: inner.announced,
            payload,
            segments_left_at: None,
        }
        .write();
        let field = match field {
            Field::Zero => 0,
            Field::Pointer(at) => u32::from(at),
            Field::Mtu => {
                let growth = if inner.fragment().is_some() { 28 } else { 20 };
                let plateaus = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
                let path = match word(message, 6) {
                    // RFC 7915 §4.2: not below 1280.
                    0 => plateaus.into_iter().find(|p| *p < inner.total() && *p >= 1280).unwrap_or(0),
                    told => told,
                };
                let next_hops = self.settings.mtu6.min(self.settings.mtu4 + 20);
                (path + growth).min(next_hops).max(1280) as u32
            }
        };
        // RFC 4884 §4.6: of ICMPv6, these two alone.
        let extension = if kind == 1 || kind == 3 { extension } else { &[] };
        let mut message = joined(quoted, extension, 1280 - 48, 8, 4, [kind, code], field);
        complete(&mut message, 58, &to.src, &to.dst);
        let out = Packet6 {
            class: self.class(p.tos, 0),
            flow_label: 0,
            hop_limit,
            src: to.src,
            dst: to.dst,
            extensions: Vec::new(),
            fragment: None,
            next: 58,
            announced: message.len(),
            payload: message,
            segments_left_at: None,
        };
        Ok(vec![out.write()])
    }

    fn v6_to_v4(&self, input: &[u8], seen: &[Vec<u8>], napt: &mut Option<Napt>) -> Result<Vec<Vec<u8>>, Faults> {
        let mut faults = Vec::new();
        let Some(p) = Packet6::read(input, false, &mut faults) else { return Err(faults) };
        let real = p.fragment.filter(|_| p.is_fragment());
        let upper = Upper::read(true, p.next, &p.payload, p.announced, real, false);
        if p.segments_left_at.is_some() {
            faults.push(DropReason::RoutingHeader);
        }
        let ttl = self.hops(p.hop_limit, &mut faults);
        if is_illegal6(p.src) {
            faults.push(DropReason::SourceIllegal);
        }
        let upper = match upper {
            Ok(upper) => upper,
            Err(fault) => {
                faults.push(fault);
                return Err(faults);
            }
        };
        let id = seen.first().filter(|b| b.len() >= 20).map_or(1, |b| word(b, 4) as u16);
        assert!(id != 0 || p.fragment.is_some(), "an Identification of 0");
        if let Upper::Error { kind, code } = upper {
            return self.error64(&p, kind, code, (ttl, id), faults, seen, napt);
        }
        if upper == Upper::OtherIcmp {
            faults.push(DropReason::IcmpType);
            return Err(faults);
        }
        let no_checksum = upper == Upper::Udp && word(&p.payload, 6) == 0;
        if no_checksum && !self.keeps_zero(word(&p.payload, 2)) {
            faults.push(DropReason::UdpChecksumZero);
        }
        let flow = Flow::read(p.src, p.dst, p.next, &upper, &p.payload);
        let mapped = self.map64(&flow, napt).map_err(|more| faults.extend(more)).ok();
        if mapped.is_some_and(|to| is_illegal4(to.dst)) {
            faults.push(DropReason::DestinationIllegal);
        }
        if mapped.is_some_and(|to| is_illegal4(to.src)) {
            faults.push(DropReason::SourceIllegal);
        }
        let total = p.announced + 20;
        if total > 65535 {
            faults.push(DropReason::TooLongForIpv4);
        }
        if total > self.settings.mtu4 && p.total() > 1280 {
            faults.push(DropReason::TooBig);
        }
        let (Some(to), true) = (mapped, faults.is_empty()) else { return Err(faults) };

        let mut payload = p.payload.clone();
        let protocol = if p.next == 58 { 1 } else { p.next };
        let covered = upper.covered(&payload, p.announced);
        let (src_port, dst_port) = to.ports.unwrap_or_default();
        let is_echo = matches!(upper, Upper::Echo { .. });
        Rewrite {
            upper: &upper,
            src_port,
            dst_port,
            icmp_type: if upper == (Upper::Echo { request: true }) { 8 } else { 0 },
            old_pseudo: pseudo(&p.src, &p.dst, covered, p.next),
            new_pseudo: if is_echo { 0 } else { pseudo(&to.src, &to.dst, covered, protocol) },
        }
        .apply(&mut payload);
        self.clamp(&upper, &mut payload);
        let was_right = upper.checksum_at().is_some() && real.is_none() && !no_checksum && {
            (pseudo(&p.src, &p.dst, covered, p.next) + sum(&p.payload[..covered])).is_multiple_of(65535)
        };
        if was_right {
            let mut fresh = payload.clone();
            complete(&mut fresh, protocol, &to.src, &to.dst);
            assert_eq!(fresh, payload, "the oracle disagrees with itself");
        }

        let whole = Packet4 {
            tos: self.class(p.class, 1),
            id: p.fragment.map_or(id, |f| (f.id % 65536) as u16),
            df: p.fragment.is_none() && total > 1260,
            mf: real.is_some_and(|f| f.more),
            offset: real.map_or(0, |f| f.offset),
            ttl,
            protocol,
            src: to.src,
            dst: to.dst,
            options: Vec::new(),
            announced: payload.len(),
            payload,
        };
        if total <= self.settings.mtu4 {
            return Ok(vec![whole.write()]);
        }
        let place = real.unwrap_or(Piece { id: 0, offset: 0, more: false });
        let pieces = cut(&whole.payload, self.settings.mtu4 - 20, place);
        let piece = |(piece, payload): (Piece, Vec<u8>)| {
            let announced = payload.len();
            Packet4 { df: false, mf: piece.more, offset: piece.offset, announced, payload, ..whole.clone() }.write()
        };
        Ok(pieces.into_iter().map(piece).collect())
    }

    #[allow(clippy::too_many_arguments)]
    fn error64(
        &self,
        p: &Packet6,
        kind: u8,
        code: u8,
        (ttl, id): (u8, u16),
        mut faults: Faults,
        seen: &[Vec<u8>],
        napt: &Option<Napt>,
    ) -> Result<Vec<Vec<u8>>, Faults> {
        let message = &p.payload;
        let told = u32::from_be_bytes(message[4..8].try_into().unwrap());
        let may_be_extended = kind == 1 || kind == 3;
        let translated = icmp64(kind, code, told);
        if translated.is_none() {
            faults.push(DropReason::IcmpType);
        }
        if !(pseudo(&p.src, &p.dst, p.announced, 58) + sum(message)).is_multiple_of(65535) {
            faults.push(DropReason::IcmpChecksum);
        }
        let attribute = if kind == 1 || kind == 3 { usize::from(message[4]) * 8 } else { 0 };
        let (quoted, extension) = parts(message, attribute);
        let Some((inner, upper)) = read_quoted6(quoted) else {
            faults.push(DropReason::IcmpInner);
            return Err(faults);
        };
        let flow = Flow::read(inner.src, inner.dst, inner.next, &upper, &inner.payload);
        let error = Error { src: p.src, dst: p.dst, inner: flow, substituted: false };
        let mapped = self.map_error64(&error, seen, napt).map_err(|more| faults.extend(more)).ok();
        if mapped.as_ref().is_some_and(|to| is_illegal4(to.dst)) {
            faults.push(DropReason::DestinationIllegal);
        }
        let total = inner.announced + 20;
        if total > 65535 {
            faults.push(DropReason::IcmpInner);
        }
        let (Some(to), Some((kind, code, field)), true) = (mapped, translated, faults.is_empty()) else {
            return Err(faults);
        };

        let mut payload = inner.payload.clone();
        let protocol = if inner.next == 58 { 1 } else { inner.next };
        let length = inner.announced;
        let (src_port, dst_port) = to.inner.ports.unwrap_or_default();
        let is_echo = matches!(upper, Upper::Echo { .. });
        Rewrite {
            upper: &upper,
            src_port,
            dst_port,
            icmp_type: if upper == (Upper::Echo { request: true }) { 8 } else { 0 },
            old_pseudo: pseudo(&inner.src, &inner.dst, length, inner.next),
            new_pseudo: if is_echo { 0 } else { pseudo(&to.inner.src, &to.inner.dst, length, protocol) },
        }
        .apply(&mut payload);
        let real = inner.fragment.filter(|_| inner.is_fragment());
        let chosen = seen.first().filter(|b| b.len() >= 34).map_or(1, |b| word(b, 32) as u16);
        let quoted = Packet4 {
            tos: inner.class,
            id: inner.fragment.map_or(chosen, |f| (f.id % 65536) as u16),
            df: inner.fragment.is_none() && total > 1260,
            mf: real.is_some_and(|f| f.more),
            offset: real.map_or(0, |f| f.offset),
            ttl: inner.hop_limit,
            protocol,
            src: to.inner.src,
            dst: to.inner.dst,
            options: Vec::new(),
            announced: inner.announced,
            payload,
        }
        .write();
        let field = match field {
            Field::Zero => 0,
            Field::Pointer(at) => u32::from(at) * 0x100_0000,
            Field::Mtu => {
                // RFC 7915 §5.2: whether the packet in error has a Fragment header, atomic or not.
                let growth = if inner.fragment.is_some() { 28 } else { 20 };
                let next_hops = self.settings.mtu4.min(self.settings.mtu6 - 20);
                (told.saturating_sub(growth) as usize).min(next_hops).max(68) as u32
            }
        };
        let object = address_object(p.src);
        let adds = self.settings.object && to.substituted && may_be_extended && extension.is_empty();
        let extension = if adds { &object } else { extension };
        let mut message = joined(quoted, extension, 576.min(self.settings.mtu4) - 28, 4, 5, [kind, code], field);
        complete(&mut message, 1, &[], &[]);
        let out = Packet4 {
            tos: self.class(p.class, 1),
            id,
            df: false,
            mf: false,
            offset: 0,
            ttl,
            protocol: 1,
            src: to.src,
            dst: to.dst,
            options: Vec::new(),
            announced: message.len(),
            payload: message,
        };
        Ok(vec![out.write()])
    }
}

/// RFC 4884 §3: what an ICMP message quotes, and the extension structure behind.
fn parts(message: &[u8], attribute: usize) -> (&[u8], &[u8]) {
    let end = if attribute == 0 || 8 + attribute > message.len() { message.len() } else { 8 + attribute };
    (&message[8..end], &message[end..])
}

/// An ICMP message without its checksum. `most` octets of quote and extension; the attribute, in octet `at`, counts
/// words of `word` octets.
fn joined(
    quoted: Vec<u8>,
    extension: &[u8],
    most: usize,
    word: usize,
    at: usize,
    [kind, code]: [u8; 2],
    field: u32,
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(field.to_be_bytes());
    let mut padded = quoted.clone();
    while padded.len() < 128 || !padded.len().is_multiple_of(word) {
        padded.push(0);
    }
    while padded.len() + extension.len() > most && !padded.is_empty() {
        padded.truncate(padded.len() - word);
    }
    if extension.is_empty() || padded.len() < 128 {
        message.extend(&quoted[..quoted.len().min(most)]);
    } else {
        message[at] = (padded.len() / word) as u8;
        message.extend(padded);
        message.extend(extension);
    }
    message
}

/// RFC 5837 §4 in RFC 4884 §7: version 2 and a checksum; one object of class 2, its address bit set, with an IPv6
/// address (address family 2).
fn address_object(addr: [u8; 16]) -> Vec<u8> {
    let mut out = vec![2 << 4, 0, 0, 0];
    out.extend([0, 4 + 4 + 16, 2, 0b0000_0100]);
    out.extend([0, 2, 0, 0]);
    out.extend(addr);
    complete(&mut out, 1, &[], &[]);
    out
}

/// A quoted packet that may be translated: no ICMP but echo.
fn read_quoted4(b: &[u8]) -> Option<(Packet4, Upper)> {
    let mut faults = Vec::new();
    let inner = Packet4::read(b, true, &mut faults)?;
    let upper = Upper::read(false, inner.protocol, &inner.payload, inner.announced, inner.fragment(), true).ok()?;
    let fine = faults.is_empty() && !matches!(upper, Upper::Error { .. } | Upper::OtherIcmp);
    fine.then_some((inner, upper))
}

fn read_quoted6(b: &[u8]) -> Option<(Packet6, Upper)> {
    let mut faults = Vec::new();
    let inner = Packet6::read(b, true, &mut faults)?;
    let real = inner.fragment.filter(|_| inner.is_fragment());
    let upper = Upper::read(true, inner.next, &inner.payload, inner.announced, real, true).ok()?;
    let fine = faults.is_empty() && !matches!(upper, Upper::Error { .. } | Upper::OtherIcmp);
    fine.then_some((inner, upper))
}
