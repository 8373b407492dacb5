//! What changes from one rule set to another.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::map::{Ipv6Prefix, Rule, RuleId, RuleSpec, RuleTable};

/// Names that people are shown of each kind.
const MOST_NAMES: usize = 5;

/// Rules by what became of them, told apart by their Rule IPv6 prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// How many are new.
    pub added: usize,
    /// How many are gone.
    pub removed: usize,
    /// How many say something else.
    pub changed: usize,
    /// Customers whose address, ports or border change, those of removed rules included; at most 2^64-1.
    pub customers: u64,
    /// Some of their names, as `+name`, `-name`, `~name`.
    pub names: Vec<String>,
}

impl Difference {
    /// From `old` to `new`.
    pub fn between(old: &RuleTable, new: &RuleTable) -> Difference {
        let mut there: HashMap<Ipv6Prefix, (usize, &Rule)> = HashMap::with_capacity(old.rules().len());
        there.extend(old.rules().iter().enumerate().map(|(n, rule)| (rule.spec().rule_ipv6_prefix, (n, rule))));
        let mut difference = Difference::default();
        let mut names: [Vec<&str>; 3] = Default::default();
        for (n, rule) in new.rules().iter().enumerate() {
            match there.remove(&rule.spec().rule_ipv6_prefix) {
                None => {
                    difference.added += 1;
                    names[0].push(&rule.spec().name);
                }
                Some((m, former)) => {
                    let dmrs = (old.dmr(RuleId(m as u32)), new.dmr(RuleId(n as u32)));
                    let moved = without_name(former) != without_name(rule) || dmrs.0 != dmrs.1;
                    if moved || former.spec().name != rule.spec().name {
                        difference.changed += 1;
                        names[2].push(&rule.spec().name);
                    }
                    if moved {
                        difference.customers = difference.customers.saturating_add(former.ce_count());
                    }
                }
            }
        }
        let mut gone: Vec<(usize, &Rule)> = there.into_values().collect();
        gone.sort_unstable_by_key(|(n, _)| *n);
        for (_, rule) in gone {
            difference.removed += 1;
            difference.customers = difference.customers.saturating_add(rule.ce_count());
            names[1].push(&rule.spec().name);
        }
        for (mark, names) in ["+", "-", "~"].into_iter().zip(names) {
            difference.names.extend(names.into_iter().take(MOST_NAMES).map(|name| format!("{mark}{name}")));
        }
        difference
    }

    /// Whether the rules are the same.
    pub fn is_none(&self) -> bool {
        (self.added, self.removed, self.changed) == (0, 0, 0)
    }
}

/// What a rule does, whatever it is called and wherever its DMR stands.
fn without_name(rule: &Rule) -> RuleSpec {
    RuleSpec { name: String::new(), dmr_ipv6_prefix: None, ..rule.spec().clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuleSet;
    use std::path::Path;

    fn set(rules: &[&str]) -> RuleSet {
        let rules: String = rules.iter().map(|rule| format!("  - {{{rule}}}\n")).collect();
        let text = format!("dmr-ipv6-prefix: 2001:db8:ffff::/64\nrules:\n{rules}");
        RuleSet::load(&text, Path::new("t.yaml")).unwrap_or_else(|e| panic!("{e}")).value
    }

    #[test]
    fn customers_are_those_of_rules_that_change() {
        // 2^16, 2^8 and 2^8 customers (RFC 7597 §5.2: one for each value of the EA bits).
        let a = "name: a, rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16";
        let b = "name: b, rule-ipv6-prefix: 2001:db8:8000::/44, rule-ipv4-prefix: 203.0.113.0/24, ea-len: 8";
        let c = "name: c, rule-ipv6-prefix: 2001:db8:9000::/44, rule-ipv4-prefix: 198.51.100.0/24, ea-len: 8";
        let d = "name: d, rule-ipv6-prefix: 2001:db8:9000::/44, rule-ipv4-prefix: 198.51.100.0/24, ea-len: 8";
        let other = format!("{a}, psid-offset: 4");
        let own = format!("{b}, dmr-ipv6-prefix: 2001:db8:ffff::/64");
        let between = |old: &[&str], new: &[&str]| {
            let d = Difference::between(&set(old).table, &set(new).table);
            (d.added, d.removed, d.changed, d.customers, d.names.join(" "))
        };
        assert_eq!(between(&[a, b], &[b, a]), (0, 0, 0, 0, String::new()), "the order says nothing");
        assert_eq!(between(&[a], &[a, b]), (1, 0, 0, 0, "+b".into()));
        assert_eq!(between(&[a, b], &[a]), (0, 1, 0, 256, "-b".into()));
        assert_eq!(between(&[a, b], &[&other, c]), (1, 1, 1, 65_536 + 256, "+c -b ~a".into()));
        assert_eq!(between(&[c], &[d]), (0, 0, 1, 0, "~d".into()), "a name alone moves nobody");
        assert_eq!(between(&[b], &[&own]), (0, 0, 0, 0, String::new()), "the same DMR");
    }
}
