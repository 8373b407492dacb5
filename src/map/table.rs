//! Finding the rule: longest match by IPv4 (then PSID) and by IPv6.

use super::by_ipv4::{Ipv4Map, Place};
use super::by_ipv6::Ipv6Map;
use super::compiled::CompiledRules;
use super::conflicts::conflicts;
use super::rule::WELL_KNOWN_WARNING;
use super::search::NONE;
use super::{CompiledRule, Dmr, MapAddress, Psid, Rule};
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A rule's place in its table: the index in [`RuleTable::rules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(pub u32);

/// Why an IPv4 address and port lead to no CE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// No rule covers the address.
    NoRule,
    /// The port has A = 0 (RFC 7597 §5.1).
    PortExcluded,
    /// Rules cover the address, none the port's PSID.
    PsidUnassigned,
    /// The address is shared and no port was given.
    PortNeeded,
}

/// All rules of a domain set, shared between threads and swapped whole.
///
/// A rule nested in another one takes its addresses away from it: what the nested rule does not map is not looked up
/// in the outer one (longest match, RFC 7597 §5).
#[derive(Debug)]
pub struct RuleTable {
    rules: Vec<Rule>,
    compiled: CompiledRules,
    dmrs: Vec<Dmr>,
    set_dmr: bool,
    by_ipv4: Ipv4Map,
    by_ipv6: Ipv6Map,
    by_dmr: Ipv6Map,
}

/// A conflict between rules: which one, which leaf, why, by which section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index of the offending rule in the input: of two that exclude each other, the later one.
    pub rule: usize,
    /// YAML leaf name.
    pub leaf: &'static str,
    /// For people: the value, and the name and index of the other rule.
    pub message: String,
    /// Such as `RFC 7597 §5.1`; empty where no RFC speaks of it.
    pub rfc: &'static str,
}

/// What is allowed in a rule set, but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Index of the rule in the input; `None` for the leaves of the rule set.
    pub rule: Option<usize>,
    /// YAML leaf name.
    pub leaf: &'static str,
    /// For people.
    pub message: String,
    /// The section that explains it.
    pub rfc: &'static str,
}

impl RuleTable {
    /// Builds the lookup structures; every conflict is reported. `dmr` is the set's DMR, for the rules without one of
    /// their own.
    pub fn new(rules: Vec<Rule>, dmr: Option<Dmr>) -> Result<Self, Vec<Conflict>> {
        let dmrs = distinct_dmrs(&rules, dmr);
        let conflicts = conflicts(&rules, dmr, &dmrs);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let place: HashMap<Dmr, u32> = dmrs.iter().copied().zip(0..).collect();
        let by_ipv4 = Ipv4Map::new(&rules);
        let by_ipv6 = Ipv6Map::new(rules.iter().map(|rule| rule.spec().rule_ipv6_prefix).zip(0..));
        let compiled = rules.iter().zip(with_inner_ipv4(&rules)).map(|(rule, has_inner)| {
            let dmr = rule.spec().dmr_ipv6_prefix.or(dmr).and_then(|dmr| place.get(&dmr).copied());
            rule.compile().placed(dmr.unwrap_or(0), has_inner)
        });
        let compiled = CompiledRules::new(compiled);
        let by_dmr = Ipv6Map::new(dmrs.iter().map(Dmr::prefix).zip(0..));
        Ok(RuleTable { rules, compiled, dmrs, set_dmr: dmr.is_some(), by_ipv4, by_ipv6, by_dmr })
    }

    /// The rules in the order given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
    /// One rule, compiled. `id` must come from this table.
    #[inline(always)]
    pub fn get(&self, id: RuleId) -> CompiledRule {
        self.compiled.get(id.0)
    }
    /// Its name. `id` must come from this table.
    pub fn name(&self, id: RuleId) -> &str {
        &self.rules[id.0 as usize].spec().name
    }
    /// The DMR of a rule: its own, else the set's. `id` must come from this table.
    #[inline(always)]
    pub fn dmr(&self, id: RuleId) -> &Dmr {
        &self.dmrs[self.get(id).dmr() as usize]
    }
    /// Every distinct DMR, the set's first, then the rules' own in their order.
    pub fn dmrs(&self) -> &[Dmr] {
        &self.dmrs
    }
    /// The DMR of the set, if it has one.
    pub fn set_dmr(&self) -> Option<&Dmr> {
        self.dmrs.first().filter(|_| self.set_dmr)
    }
    /// What is allowed, but probably not meant, in the set and in each rule.
    pub fn warnings(&self) -> Vec<Warning> {
        let of_set = self.set_dmr().filter(|dmr| dmr.is_well_known()).map(|_| Warning {
            rule: None,
            leaf: "dmr-ipv6-prefix",
            message: WELL_KNOWN_WARNING.into(),
            rfc: "RFC 6052 §3.1",
        });
        let of_rules = self.rules.iter().enumerate().flat_map(|(index, rule)| {
            (rule.warnings().into_iter()).map(move |w| Warning {
                rule: Some(index),
                leaf: w.leaf,
                message: w.message,
                rfc: w.rfc,
            })
        });
        of_set.into_iter().chain(of_rules).collect()
    }

    /// Rule and MAP address that own (IPv4, port): longest prefix, then the PSID (RFC 7597 §5.3, RFC 7599 §8.1).
    #[inline(always)]
    pub fn by_ipv4(&self, ipv4: Ipv4Addr, port: Option<u16>) -> Result<(RuleId, MapAddress), Unmapped> {
        match self.by_ipv4.get(ipv4) {
            Place::Nowhere => Err(Unmapped::NoRule),
            Place::Rule(rule) => self.mapped(RuleId(rule), ipv4, port),
            Place::Group(group) => {
                let port = port.ok_or(Unmapped::PortNeeded)?;
                let psid = group.params().psid_of(port).ok_or(Unmapped::PortExcluded)?;
                let rule = self.by_ipv4.in_group(group, psid.0).ok_or(Unmapped::PsidUnassigned)?;
                let id = RuleId(rule);
                Ok((id, self.get(id).compose(ipv4, psid)))
            }
        }
    }

    /// The MAP address by the one rule that may cover the IPv4 address.
    #[inline(always)]
    fn mapped(&self, id: RuleId, ipv4: Ipv4Addr, port: Option<u16>) -> Result<(RuleId, MapAddress), Unmapped> {
        let rule = self.get(id);
        if !rule.covers_ipv4(ipv4) {
            return Err(Unmapped::NoRule);
        }
        let psid = match (rule.port_params(), port) {
            (None, _) => Psid(0),
            (Some(_), None) => return Err(Unmapped::PortNeeded),
            (Some(params), Some(port)) => params.psid_of(port).ok_or(Unmapped::PortExcluded)?,
        };
        if rule.owns_psid(psid) { Ok((id, rule.compose(ipv4, psid))) } else { Err(Unmapped::PsidUnassigned) }
    }

    /// Whether a rule owns an IPv4 address of its own prefix: no longer Rule IPv4 prefix takes it away. With the rule's
    /// PSID this is what `by_ipv4` would say, for the price of a lookup only where other rules are nested in this one.
    /// `id` must come from this table.
    #[inline(always)]
    pub fn owns_ipv4(&self, id: RuleId, ipv4: Ipv4Addr) -> bool {
        let rule = self.get(id);
        rule.covers_ipv4(ipv4)
            && (!rule.has_inner()
                || match self.by_ipv4.get(ipv4) {
                    Place::Nowhere => false,
                    Place::Rule(found) => found == id.0,
                    Place::Group(group) => group.prefix_len() == rule.ipv4_prefix_len(),
                })
    }

    /// The rule with the longest Rule IPv6 prefix that covers `addr`.
    #[inline(always)]
    pub fn by_ipv6(&self, addr: Ipv6Addr) -> Option<RuleId> {
        let rule = self.by_ipv6.get(addr);
        (rule != NONE && self.compiled.get(rule).covers_ipv6(addr)).then_some(RuleId(rule))
    }

    /// The DMR (longest match among `dmrs`) that covers `addr`, with the IPv4 address inside.
    #[inline(always)]
    pub fn by_dmr(&self, addr: Ipv6Addr) -> Option<(&Dmr, Ipv4Addr)> {
        let dmr = match self.dmrs.as_slice() {
            [only] => only,
            dmrs => dmrs.get(self.by_dmr.get(addr) as usize)?,
        };
        dmr.extract(addr).map(|ipv4| (dmr, ipv4))
    }

    /// Octets that lookups use: compiled rules and search structures, without the rules' names and leaves.
    pub fn lookup_size(&self) -> usize {
        self.compiled.heap_size() + self.by_ipv4.heap_size() + self.by_ipv6.heap_size() + self.by_dmr.heap_size()
    }
}

/// For each rule, whether other rules have longer IPv4 prefixes inside its own.
fn with_inner_ipv4(rules: &[Rule]) -> Vec<bool> {
    let prefix = |rule: usize| rules[rule].spec().rule_ipv4_prefix;
    let mut order: Vec<usize> = (0..rules.len()).collect();
    order.sort_unstable_by_key(|&rule| prefix(rule));
    let mut with_inner = vec![false; rules.len()];
    // By address and length, a prefix that has others inside is followed by one, its equals apart.
    let mut next = None;
    for group in order.chunk_by(|&a, &b| prefix(a) == prefix(b)).rev() {
        let own = prefix(group[0]);
        if next.is_some_and(|next| own.covers(&next)) {
            group.iter().for_each(|&rule| with_inner[rule] = true);
        }
        next = Some(own);
    }
    with_inner
}

fn distinct_dmrs(rules: &[Rule], dmr: Option<Dmr>) -> Vec<Dmr> {
    let mut seen = HashSet::new();
    let own = rules.iter().filter_map(|rule| rule.spec().dmr_ipv6_prefix);
    dmr.into_iter().chain(own).filter(|dmr| seen.insert(*dmr)).collect()
}
