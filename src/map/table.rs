//! Finding the rule: longest match by IPv4 (then PSID) and by IPv6.

use super::rule::WELL_KNOWN_WARNING;
use super::{CompiledRule, Dmr, Ipv6Prefix, MapAddress, Psid, Rule};
use std::collections::HashMap;
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
    compiled: Vec<CompiledRule>,
    dmrs: Vec<Dmr>,
    set_dmr: bool,
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
        let mut compiled: Vec<CompiledRule> = rules.iter().map(Rule::compile).collect();
        for (compiled, rule) in compiled.iter_mut().zip(&rules) {
            compiled.dmr = rule.spec().dmr_ipv6_prefix.or(dmr).and_then(|dmr| place.get(&dmr).copied()).unwrap_or(0);
        }
        Ok(RuleTable { rules, compiled, dmrs, set_dmr: dmr.is_some() })
    }

    /// The rules in the order given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
    /// One rule, compiled. `id` must come from this table.
    #[inline]
    pub fn get(&self, id: RuleId) -> &CompiledRule {
        &self.compiled[id.0 as usize]
    }
    /// Its name. `id` must come from this table.
    pub fn name(&self, id: RuleId) -> &str {
        &self.rules[id.0 as usize].spec().name
    }
    /// The DMR of a rule: its own, else the set's. `id` must come from this table.
    #[inline]
    pub fn dmr(&self, id: RuleId) -> &Dmr {
        &self.dmrs[self.get(id).dmr as usize]
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
    #[inline]
    pub fn by_ipv4(&self, ipv4: Ipv4Addr, port: Option<u16>) -> Result<(RuleId, MapAddress), Unmapped> {
        let covering = |rule: &&Rule| rule.spec().rule_ipv4_prefix.contains(ipv4);
        let longest = self.rules.iter().filter(covering).map(|rule| rule.spec().rule_ipv4_prefix.prefix_len()).max();
        let mut result = Err(Unmapped::NoRule);
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| covering(rule)) {
            if Some(rule.spec().rule_ipv4_prefix.prefix_len()) == longest {
                let id = RuleId(index as u32);
                result = self.mapped(id, ipv4, port);
                if result != Err(Unmapped::PsidUnassigned) {
                    break;
                }
            }
        }
        result
    }

    /// The MAP address by a rule that covers the IPv4 address.
    #[inline]
    fn mapped(&self, id: RuleId, ipv4: Ipv4Addr, port: Option<u16>) -> Result<(RuleId, MapAddress), Unmapped> {
        let rule = self.get(id);
        let psid = match (rule.port_params(), port) {
            (None, _) => Psid(0),
            (Some(_), None) => return Err(Unmapped::PortNeeded),
            (Some(params), Some(port)) => params.psid_of(port).ok_or(Unmapped::PortExcluded)?,
        };
        if rule.owns_psid(psid) { Ok((id, rule.compose(ipv4, psid))) } else { Err(Unmapped::PsidUnassigned) }
    }

    /// The rule with the longest Rule IPv6 prefix that covers `addr`.
    #[inline]
    pub fn by_ipv6(&self, addr: Ipv6Addr) -> Option<RuleId> {
        (self.rules.iter().enumerate())
            .filter(|(_, rule)| rule.spec().rule_ipv6_prefix.contains(addr))
            .max_by_key(|(_, rule)| rule.spec().rule_ipv6_prefix.prefix_len())
            .map(|(index, _)| RuleId(index as u32))
    }

    /// The DMR (longest match among `dmrs`) that covers `addr`, with the IPv4 address inside.
    #[inline]
    pub fn by_dmr(&self, addr: Ipv6Addr) -> Option<(&Dmr, Ipv4Addr)> {
        (self.dmrs.iter())
            .filter_map(|dmr| Some((dmr, dmr.extract(addr)?)))
            .max_by_key(|(dmr, _)| dmr.prefix().prefix_len())
    }
}

fn distinct_dmrs(rules: &[Rule], dmr: Option<Dmr>) -> Vec<Dmr> {
    let mut seen = std::collections::HashSet::new();
    let own = rules.iter().filter_map(|rule| rule.spec().dmr_ipv6_prefix);
    dmr.into_iter().chain(own).filter(|dmr| seen.insert(*dmr)).collect()
}

/// Everything that is wrong between rules, in the order of the rules.
fn conflicts(rules: &[Rule], dmr: Option<Dmr>, dmrs: &[Dmr]) -> Vec<Conflict> {
    let mut found = Vec::new();
    same_names(rules, &mut found);
    let by_ipv6 = same_ipv6_prefixes(rules, &mut found);
    same_ipv4_prefixes(rules, &mut found);
    dmr_conflicts(rules, dmr, dmrs, &by_ipv6, &mut found);
    found.sort_by_key(|conflict| conflict.rule);
    found
}

/// `rules[3] "metro-east"`.
fn naming(rules: &[Rule], index: usize) -> String {
    format!("rules[{index}] `{}`", rules[index].spec().name)
}

fn same_names(rules: &[Rule], found: &mut Vec<Conflict>) {
    let mut names: HashMap<&str, usize> = HashMap::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let name = rule.spec().name.as_str();
        let first = *names.entry(name).or_insert(index);
        if first != index {
            let message = format!("the name `{name}` is taken by rules[{first}]; names must differ");
            found.push(Conflict { rule: index, leaf: "name", message, rfc: "" });
        }
    }
}

fn same_ipv6_prefixes(rules: &[Rule], found: &mut Vec<Conflict>) -> HashMap<Ipv6Prefix, usize> {
    let mut prefixes = HashMap::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let prefix = rule.spec().rule_ipv6_prefix;
        let first = *prefixes.entry(prefix).or_insert(index);
        if first != index {
            let message = format!(
                "{prefix} is the Rule IPv6 prefix of {} too; longest match cannot choose between them",
                naming(rules, first)
            );
            found.push(Conflict { rule: index, leaf: "rule-ipv6-prefix", message, rfc: "RFC 7597 §5" });
        }
    }
    prefixes
}

/// Rules with the same IPv4 prefix may only differ in an explicit PSID.
fn same_ipv4_prefixes(rules: &[Rule], found: &mut Vec<Conflict>) {
    let mut order: Vec<usize> = (0..rules.len()).collect();
    order.sort_by_key(|&index| (rules[index].spec().rule_ipv4_prefix, index));
    let same = |a: &usize, b: &usize| rules[*a].spec().rule_ipv4_prefix == rules[*b].spec().rule_ipv4_prefix;
    let mut psids: HashMap<Psid, usize> = HashMap::new();
    for group in order.chunk_by(same).filter(|group| group.len() > 1) {
        psids.clear();
        let (first, params) = (group[0], rules[group[0]].port_params());
        let prefix = rules[first].spec().rule_ipv4_prefix;
        psids.extend(rules[first].explicit_psid().map(|psid| (psid, first)));
        for &index in &group[1..] {
            let rule = &rules[index];
            let mut refuse = |leaf, rfc, message| found.push(Conflict { rule: index, leaf, message, rfc });
            let name = |other| naming(rules, other);
            match (params, rule.port_params()) {
                (Some(one), Some(two)) if one.a() != two.a() => {
                    let message = format!(
                        "PSID offset {} for {prefix}, but {} has {}; CEs that share an address have the same",
                        two.a(),
                        name(first),
                        one.a()
                    );
                    refuse("psid-offset", "RFC 7597 §5.1", message);
                }
                (Some(one), Some(two)) if one.k() != two.k() => {
                    let leaf = if rule.explicit_psid().is_some() { "psid-len" } else { "ea-len" };
                    let message = format!(
                        "PSID length {} for {prefix}, but {} has {}; CEs that share an address have the same",
                        two.k(),
                        name(first),
                        one.k()
                    );
                    refuse(leaf, "RFC 7597 §5.1", message);
                }
                (Some(_), Some(_)) => match (rules[first].explicit_psid(), rule.explicit_psid()) {
                    (Some(_), Some(psid)) => {
                        let earlier = *psids.entry(psid).or_insert(index);
                        if earlier != index {
                            let message = format!("PSID {} of {prefix} belongs to {} already", psid.0, name(earlier));
                            refuse("psid", "RFC 7599 §12.1", message);
                        }
                    }
                    _ => {
                        let message = format!(
                            "{prefix} is shared by {} too, and the EA bits of one of them hand out every PSID",
                            name(first)
                        );
                        refuse("rule-ipv4-prefix", "RFC 7597 §5.1", message);
                    }
                },
                _ => {
                    let message = format!(
                        "{prefix} is the Rule IPv4 prefix of {} too; only rules with different explicit PSIDs may have the same",
                        name(first)
                    );
                    refuse("rule-ipv4-prefix", "RFC 7597 §5.1", message);
                }
            }
        }
    }
}

/// Rules without a DMR, and DMRs that longest match does not tell from the rules' MAP addresses.
fn dmr_conflicts(
    rules: &[Rule],
    set: Option<Dmr>,
    dmrs: &[Dmr],
    by_ipv6: &HashMap<Ipv6Prefix, usize>,
    found: &mut Vec<Conflict>,
) {
    const RFC: &str = "RFC 7599 §5.1";
    let by_prefix: HashMap<Ipv6Prefix, Dmr> = dmrs.iter().map(|dmr| (dmr.prefix(), *dmr)).collect();
    for (index, rule) in rules.iter().enumerate() {
        if rule.spec().dmr_ipv6_prefix.or(set).is_none() {
            let message = "neither the rule nor the rule set has a DMR; expected `dmr-ipv6-prefix`".into();
            found.push(Conflict { rule: index, leaf: "dmr-ipv6-prefix", message, rfc: RFC });
        }
        let prefix = rule.spec().rule_ipv6_prefix;
        let covering = [32, 40, 48, 56, 64, 96]
            .iter()
            .filter(|&&len| len <= prefix.prefix_len())
            .find_map(|&len| by_prefix.get(&Ipv6Prefix::truncating(prefix.addr(), len)));
        if let Some(dmr) = covering {
            let message = format!("Rule IPv6 prefix {prefix} lies inside the DMR {}; they must be apart", dmr.prefix());
            found.push(Conflict { rule: index, leaf: "rule-ipv6-prefix", message, rfc: RFC });
        }
    }
    let mut lengths: Vec<u8> = by_ipv6.keys().map(Ipv6Prefix::prefix_len).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for dmr in dmrs {
        let inner = dmr.prefix();
        for &len in lengths.iter().filter(|&&len| len < inner.prefix_len()) {
            let outer = Ipv6Prefix::truncating(inner.addr(), len);
            let Some(&index) = by_ipv6.get(&outer) else { continue };
            // Were there a MAP address in the DMR, this would be one: its EA bits are the DMR's.
            let rule = rules[index].compile();
            let (ipv4, psid) = rule.decompose(inner.addr());
            let candidate = rule.compose(ipv4, psid);
            if inner.contains(candidate.ipv6()) {
                let own = rules[index].spec().dmr_ipv6_prefix == Some(*dmr);
                let leaf = if own { "dmr-ipv6-prefix" } else { "rule-ipv6-prefix" };
                let message = format!(
                    "the DMR {inner} lies among the MAP addresses of {outer}, such as {candidate}; they must be apart"
                );
                found.push(Conflict { rule: index, leaf, message, rfc: RFC });
            }
        }
    }
}
