//! A rule set as text, in one form whatever it was written like: what is kept, compared and sent.

use std::fmt::Write;

use crate::map::{Dmr, RuleSpec, RuleTable};

/// The text of a rule set. Read again it gives the same rules; sets that mean the same have the same text.
pub fn rules_text(version: u64, date: Option<&str>, table: &RuleTable) -> String {
    let mut text = format!("version: {version}\n");
    if let Some(date) = date {
        let _ = writeln!(text, "date: {date}");
    }
    if let Some(dmr) = table.set_dmr() {
        let _ = writeln!(text, "dmr-ipv6-prefix: \"{}\"", dmr.prefix());
    }
    if table.rules().is_empty() {
        text += "rules: []\n";
        return text;
    }
    text += "rules:\n";
    text.reserve(table.rules().len() * 128);
    for rule in table.rules() {
        write_rule(&mut text, rule.spec(), rule.port_params().is_some());
    }
    text
}

fn write_rule(text: &mut String, spec: &RuleSpec, shared: bool) {
    let name = quoted(&spec.name);
    let RuleSpec { rule_ipv6_prefix, rule_ipv4_prefix, ea_len, .. } = spec;
    let _ = write!(
        text,
        "  - {{name: {name}, rule-ipv6-prefix: \"{rule_ipv6_prefix}\", rule-ipv4-prefix: {rule_ipv4_prefix}, ea-len: {ea_len}"
    );
    if shared {
        let _ = write!(text, ", psid-offset: {}", spec.psid_offset);
    }
    if let (Some(len), Some(psid)) = (spec.psid_len.filter(|len| *len > 0), spec.psid) {
        let _ = write!(text, ", psid-len: {len}, psid: {psid}");
    }
    if spec.forwarding {
        text.push_str(", forwarding: true");
    }
    if let Some(dmr) = spec.dmr_ipv6_prefix {
        let _ = write!(text, ", dmr-ipv6-prefix: \"{}\"", Dmr::prefix(&dmr));
    }
    text.push_str("}\n");
}

/// Names have no control characters: that leaves two characters that mean something between quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuleSet;
    use std::path::Path;

    fn read(text: &str) -> RuleSet {
        RuleSet::load(text, Path::new("t.yaml")).unwrap_or_else(|e| panic!("{e}\n{text}")).value
    }

    fn write(set: &RuleSet) -> String {
        rules_text(set.version, set.date.as_deref(), &set.table)
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = r#"
date: 2026-11-22T00:00:00Z
version: 18446744073709551615
dmr-ipv6-prefix: 2001:db8:ffff::/64
rules:
  - {rule-ipv6-prefix: 2001:db8::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 16, psid-offset: 4, forwarding: true}
  - {name: "a \"b\\c': {}#", rule-ipv6-prefix: 2001:db8:8000::/44, rule-ipv4-prefix: 203.0.113.0/24, ea-len: 8}
  - {name: c, rule-ipv6-prefix: '2001:db8:9900::/48', rule-ipv4-prefix: 198.51.100.7/32, ea-len: 0, psid-len: 8, psid: 52, dmr-ipv6-prefix: 2001:db8:fffe::/96}
  - {name: d, rule-ipv6-prefix: 2001:db8:7700::/48, rule-ipv4-prefix: 192.0.3.0/28, ea-len: 2}
"#;
        let set = read(text);
        let again = read(&write(&set));
        assert_eq!((again.version, &again.date, again.dmr), (set.version, &set.date, set.dmr));
        assert_eq!(again.table.rules(), set.table.rules());
        assert_eq!(write(&again), write(&set));
        let empty = read("rules: []");
        assert_eq!(write(&empty), "version: 0\nrules: []\n");
        assert!(read(&write(&empty)).table.rules().is_empty());
    }

    #[test]
    fn a_different_spelling_is_the_same_text() {
        let a = read(
            "{version: 3, rules: [{name: x, rule-ipv6-prefix: 2001:DB8:0::/40, rule-ipv4-prefix: 192.0.2.0/24, ea-len: 0x10, dmr-ipv6-prefix: 2001:db8:ffff::/64}]}",
        );
        let b = read(
            "rules:\n- dmr-ipv6-prefix: 2001:db8:ffff:0::/64\n  ea-len: 16\n  name: x\n  psid-offset: 6\n  rule-ipv4-prefix: 192.0.2.0/24\n  rule-ipv6-prefix: 2001:db8::/40\nversion: 3\n",
        );
        assert_eq!(write(&a), write(&b));
    }
}
