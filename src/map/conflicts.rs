//! What rules must not be to each other (RFC 7597 §5, §5.1; RFC 7599 §5.1).

use super::table::Conflict;
use super::{Dmr, Ipv6Prefix, Psid, Rule};
use std::collections::HashMap;

/// Everything that is wrong between rules, in the order of the rules.
pub(super) fn conflicts(rules: &[Rule], dmr: Option<Dmr>, dmrs: &[Dmr]) -> Vec<Conflict> {
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
