//! A rule set: `rules.yaml`, or the same inside a daemon's file.
use super::decode::{self, Fields, RULE, RULE_SET, Slot};
use super::error::{Mark, Path, Reporter};
use super::raw::Value;
use crate::map::{Dmr, Rule, RuleSpec, RuleTable};
use std::sync::Arc;

/// Rules that go together, with their version and date.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// `version` (RFC 8676 algo-versioning); 0 where the file has none.
    pub version: u64,
    /// `date` as written (RFC 3339).
    pub date: Option<String>,
    /// The set's own DMR; a rule may have another.
    pub dmr: Option<Dmr>,
    /// The rules.
    pub table: Arc<RuleTable>,
}

/// Reads a rule set. `None` if an error was reported.
pub(super) fn rule_set(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<RuleSet> {
    let before = r.errors();
    let fields = Fields::of(slot, RULE_SET, "a rule set, that is a mapping with the key `rules`", r)?;
    let version = fields.get("version", r, decode::integer(0..=u64::MAX, "", "RFC 8676"));
    let date = fields.get("date", r, date);
    let dmr = fields.get("dmr-ipv6-prefix", r, decode::dmr);
    let list = fields.require("rules", r, "the list of mapping rules", "RFC 7597 §5", rule_list)?;
    if list.rules.is_empty() && r.errors() == before {
        fields.warning("rules", r, "there are no rules: every packet will be dropped", "RFC 7599 §8");
    }
    let rules = Path::Key(fields.path(), "rules");
    match RuleTable::new(list.rules, dmr) {
        Ok(table) if r.errors() == before => {
            for warning in table.warnings() {
                match warning.rule.and_then(|rule| list.places.get(rule)) {
                    Some(place) => {
                        let path = Path::Index(&rules, place.index);
                        r.warning(
                            Path::Key(&path, warning.leaf),
                            place.mark(warning.leaf),
                            warning.message,
                            warning.rfc,
                        );
                    }
                    None => fields.warning(warning.leaf, r, warning.message, warning.rfc),
                }
            }
            return Some(RuleSet { version: version.unwrap_or(0), date, dmr, table: Arc::new(table) });
        }
        Ok(_) => {}
        Err(conflicts) => {
            // A rule without a DMR is no news where the set's DMR was refused.
            let refused = dmr.is_none() && fields.has("dmr-ipv6-prefix");
            for conflict in conflicts {
                if refused && conflict.leaf == "dmr-ipv6-prefix" {
                    continue;
                }
                let Some(place) = list.places.get(conflict.rule) else { continue };
                let path = Path::Index(&rules, place.index);
                let message = renumber(&conflict.message, &list.places);
                r.error(Path::Key(&path, conflict.leaf), place.mark(conflict.leaf), message, conflict.rfc);
            }
        }
    }
    None
}

/// `RuleTable` counts the rules it was given; where unsound ones were left out, `rules[N]` of its messages is another
/// one of the file.
fn renumber(message: &str, places: &[Place]) -> String {
    let Some((before, rest)) = message.split_once("rules[") else { return message.to_string() };
    let Some((number, after)) = rest.split_once(']') else { return message.to_string() };
    match number.parse().ok().and_then(|n: usize| places.get(n)) {
        Some(place) => format!("{before}rules[{}]{after}", place.index),
        None => message.to_string(),
    }
}

/// The sound rules of a list, and where each stands.
struct List {
    rules: Vec<Rule>,
    places: Vec<Place>,
}

/// Where a rule and its leaves stand.
struct Place {
    index: usize,
    at: Mark,
    leaves: [Option<Mark>; RULE.len()],
}

impl Place {
    fn mark(&self, leaf: &str) -> Mark {
        let known = RULE.iter().position(|l| *l == leaf);
        known.and_then(|n| self.leaves[n]).unwrap_or(self.at)
    }
}

fn rule_list(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<List> {
    let Value::Seq(items) = &slot.node.value else {
        slot.expected(r, "the list of mapping rules", "RFC 7597 §5");
        return None;
    };
    let mut list = List { rules: Vec::with_capacity(items.len()), places: Vec::with_capacity(items.len()) };
    for (index, node) in items.iter().enumerate() {
        let path = Path::Index(&slot.path, index);
        let Some((rule, fields)) = rule(Slot { node, path }, index, r) else { continue };
        let leaves = RULE.map(|leaf| fields.has(leaf).then(|| fields.mark(leaf)));
        list.places.push(Place { index, at: node.at, leaves });
        list.rules.push(rule);
    }
    Some(list)
}

fn rule<'n, 'a>(slot: Slot<'n, 'a>, index: usize, r: &mut Reporter<'_>) -> Option<(Rule, Fields<'n, 'a>)> {
    let fields = Fields::of(slot, RULE, "a rule, that is a mapping", r)?;
    let before = r.errors();
    let name = fields.get("name", r, decode::text("a name", 64));
    let ipv6 = "an IPv6 prefix such as 2001:db8::/40";
    let ipv4 = "an IPv4 prefix such as 192.0.2.0/24";
    let rule_ipv6_prefix = fields.require("rule-ipv6-prefix", r, ipv6, "RFC 7597 §5", decode::ipv6_prefix);
    let rule_ipv4_prefix = fields.require("rule-ipv4-prefix", r, ipv4, "RFC 7597 §5", decode::ipv4_prefix);
    let bits = |r: std::ops::RangeInclusive<u8>, rfc| decode::integer(r, "", rfc);
    let ea_len =
        fields.require("ea-len", r, "the number of EA bits, 0 to 48", "RFC 7597 §5.2", bits(0..=48, "RFC 7597 §5.2"));
    let psid_offset = fields.get("psid-offset", r, bits(0..=15, "RFC 7598 §4.5"));
    let psid_len = fields.get("psid-len", r, bits(0..=16, "RFC 7597 §5.1"));
    let psid = fields.get("psid", r, decode::integer(0..=u16::MAX, "", "RFC 7597 §5.1"));
    let forwarding = fields.get("forwarding", r, decode::boolean);
    let dmr_ipv6_prefix = fields.get("dmr-ipv6-prefix", r, decode::dmr);
    let (Some(rule_ipv6_prefix), Some(rule_ipv4_prefix), Some(ea_len)) = (rule_ipv6_prefix, rule_ipv4_prefix, ea_len)
    else {
        return None;
    };
    if r.errors() > before {
        return None;
    }
    let spec = RuleSpec {
        name: name.unwrap_or_else(|| format!("rule-{}", index + 1)),
        rule_ipv6_prefix,
        rule_ipv4_prefix,
        ea_len,
        psid_offset: psid_offset.unwrap_or(6),
        psid_len,
        psid,
        forwarding: forwarding.unwrap_or(false),
        dmr_ipv6_prefix,
    };
    match Rule::new(spec) {
        Ok(rule) => Some((rule, fields)),
        Err(errors) => {
            for error in errors {
                fields.error(error.leaf, r, error.message, error.rfc);
            }
            None
        }
    }
}

/// A moment as RFC 3339 writes it; kept as text.
fn date(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<String> {
    let text = slot.scalar().map(|(text, _)| text).unwrap_or_default();
    if is_rfc3339(text) {
        return Some(text.to_string());
    }
    slot.expected(r, "a date and time such as 2026-11-22T00:00:00Z", "RFC 3339 §5.6");
    None
}

fn is_rfc3339(text: &str) -> bool {
    let number = |s: Option<&str>, from: u32, to: u32| {
        s.filter(|s| s.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|s| s.parse().ok())
            .is_some_and(|n: u32| (from..=to).contains(&n))
    };
    let at = |n: usize, c: &[u8]| text.as_bytes().get(n).is_some_and(|b| c.contains(b));
    let dashes = at(4, b"-") && at(7, b"-") && at(10, b"Tt") && at(13, b":") && at(16, b":");
    if !text.is_ascii() || !dashes {
        return false;
    }
    let day = number(text.get(0..4), 0, 9999) && number(text.get(5..7), 1, 12) && number(text.get(8..10), 1, 31);
    let time = number(text.get(11..13), 0, 23) && number(text.get(14..16), 0, 59) && number(text.get(17..19), 0, 60);
    let Some(mut rest) = text.get(19..) else { return false };
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return false;
        }
        rest = &fraction[digits..];
    }
    let zone = matches!(rest, "Z" | "z")
        || (rest.len() == 6
            && rest.starts_with(['+', '-'])
            && rest.as_bytes()[3] == b':'
            && number(rest.get(1..3), 0, 23)
            && number(rest.get(4..6), 0, 59));
    day && time && zone
}

#[cfg(test)]
mod tests {
    use super::is_rfc3339;

    #[test]
    fn dates() {
        for good in
            ["2026-11-22T00:00:00Z", "1985-04-12T23:20:50.52Z", "1996-12-19T16:39:57-08:00", "1990-12-31T23:59:60Z"]
        {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22 00:00:00Z",
            "2026-13-22T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T00:00:00",
            "2026-11-22T00:00:00.Z",
            "2026-11-22T00:00:00+0100",
            "+026-11-22T00:00:00Z",
            "2026-11-22T00:00:00Zé",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
