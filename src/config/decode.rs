//! From nodes to values. Every helper reports what is wrong and goes on, so that a file's errors come all at once.
use super::error::{Mark, Path, Reporter, tame};
use super::raw::{Entry, Node, Value};
use crate::map::dmr::DmrError;
use crate::map::prefix::PrefixError;
use crate::map::{Dmr, Ipv4Prefix, Ipv6Prefix};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Blocks and their keys: what an unknown key is compared with.
const BLOCKS: &[(&str, &[&str])] = &[
    ("", ROOT),
    ("tun", TUN),
    ("routes", ROUTES),
    ("mtu", MTU),
    ("icmp", ICMP),
    ("fragments", FRAGMENTS),
    ("dscp", DSCP),
    ("napt", NAPT),
    ("napt.sharing", SHARING),
    ("napt.filtering", FILTERING),
    ("napt.timers", TIMERS),
    ("napt.forwards", FORWARD),
    ("control", CONTROL),
    ("pcp", PCP),
    ("metrics", METRICS),
];
/// Keys of a daemon's file.
pub const ROOT: &[&str] = &[
    "role",
    "rules",
    "end-user-ipv6-prefix",
    "instance",
    "tun",
    "routes",
    "sysctl",
    "mtu",
    "icmp",
    "fragments",
    "napt",
    "udp-zero-checksum",
    "udp-zero-checksum-ports",
    "tcp-mss-clamp",
    "dscp",
    "check-interface-id",
    "decrement-hop-limit",
    "control",
    "state-directory",
    "pcp",
    "metrics",
];
pub const TUN: &[&str] = &["name", "queues", "ipv4-address"];
pub const ROUTES: &[&str] = &["install", "table", "metric", "protocol"];
pub const MTU: &[&str] = &["ipv6", "ipv4", "lowest-ipv6"];
pub const ICMP: &[&str] = &["rfc6791-pool", "rfc5837-object", "originate", "ipv6-source"];
pub const FRAGMENTS: &[&str] = &["lifetime", "packets", "held-octets", "rewrite-identification"];
pub const DSCP: &[&str] = &["v4-to-v6", "v6-to-v4"];
pub const NAPT: &[&str] =
    &["enabled", "max-flows", "sharing", "filtering", "timers", "forwards", "log-mappings", "restore-within"];
pub const SHARING: &[&str] = &["threshold", "tcp", "udp"];
pub const FILTERING: &[&str] = &["tcp", "udp"];
pub const TIMERS: &[&str] = &["udp", "tcp-established", "tcp-opening", "tcp-closing", "icmp"];
pub const FORWARD: &[&str] = &["protocol", "external-port", "internal-address", "internal-port"];
pub const CONTROL: &[&str] = &["socket", "mode", "group"];
pub const PCP: &[&str] = &["listen", "min-lifetime", "max-lifetime", "per-host", "nat-pmp"];
pub const METRICS: &[&str] = &["listen", "mode", "group", "rules"];
/// Keys of a rule set.
pub const RULE_SET: &[&str] = &["version", "date", "dmr-ipv6-prefix", "rules"];
/// Keys of a rule.
pub const RULE: &[&str; 9] = &[
    "name",
    "rule-ipv6-prefix",
    "rule-ipv4-prefix",
    "ea-len",
    "psid-offset",
    "psid-len",
    "psid",
    "forwarding",
    "dmr-ipv6-prefix",
];

/// Words of other programs and of the RFCs' prose, and ours for them.
const SYNONYMS: &[(&str, &str)] = &[
    ("ea-bits", "ea-len"),
    ("ea-bits-len", "ea-len"),
    ("ea-bits-length", "ea-len"),
    ("ea-length", "ea-len"),
    ("psid-length", "psid-len"),
    ("ipv6-prefix", "rule-ipv6-prefix"),
    ("ipv4-prefix", "rule-ipv4-prefix"),
    ("fmr", "forwarding"),
    ("is-fmr", "forwarding"),
    ("dmr", "dmr-ipv6-prefix"),
    ("br-prefix", "dmr-ipv6-prefix"),
    ("end-user-prefix", "end-user-ipv6-prefix"),
    ("mapping-rules", "rules"),
    ("lowest-ipv6-mtu", "lowest-ipv6"),
    ("pool", "rfc6791-pool"),
    ("tcp-transitory", "tcp-opening"),
    ("port-forwards", "forwards"),
    ("port-forwarding", "forwards"),
    ("forwardings", "forwards"),
    ("mapping-table", "forwards"),
    ("proto", "protocol"),
    ("natpmp", "nat-pmp"),
    ("enable-natpmp", "nat-pmp"),
    ("listening-ip", "listen"),
    ("external-src-port", "external-port"),
    ("src-dport", "external-port"),
    ("ext-port", "external-port"),
    ("dest-ip", "internal-address"),
    ("internal-src-address", "internal-address"),
    ("internal-ip", "internal-address"),
    ("dest-port", "internal-port"),
    ("internal-src-port", "internal-port"),
    ("int-port", "internal-port"),
];

/// A node on its way to a value: where it stands in the tree, and whom to tell.
pub struct Slot<'n, 'a> {
    pub node: &'n Node<'a>,
    pub path: Path<'n>,
}

impl<'n, 'a> Slot<'n, 'a> {
    /// The same place, for another look at it.
    pub fn again(&self) -> Slot<'n, 'a> {
        Slot { node: self.node, path: self.path }
    }

    pub fn warning(&self, r: &mut Reporter<'_>, message: impl Into<String>, rfc: &str) {
        r.warning(self.path, self.node.at, message, rfc);
    }

    pub fn error(&self, r: &mut Reporter<'_>, message: impl Into<String>, rfc: &str) {
        r.error(self.path, self.node.at, message, rfc);
    }

    /// What stands there, as shown in messages.
    fn shown(&self) -> String {
        match &self.node.value {
            _ if self.node.is_null() => "nothing".into(),
            Value::Scalar { text, .. } => format!("`{}`", tame(text)),
            Value::Seq(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    pub fn expected(&self, r: &mut Reporter<'_>, what: &str, rfc: &str) {
        self.error(r, format!("expected {what}, found {}", self.shown()), rfc);
    }

    /// Its text, and whether it stands without quotes; `None` for nothing and for collections.
    pub fn scalar(&self) -> Option<(&str, bool)> {
        match &self.node.value {
            Value::Scalar { text, plain } if !self.node.is_null() => Some((text, *plain)),
            _ => None,
        }
    }
}

/// Whether a node is a mapping with this key.
pub fn has_key(node: &Node<'_>, key: &str) -> bool {
    matches!(&node.value, Value::Map(entries) if entries.iter().any(|e| e.key == key))
}

/// The keys of one mapping, each known and given once.
pub struct Fields<'n, 'a> {
    path: Path<'n>,
    at: Mark,
    entries: &'n [Entry<'a>],
    /// Keys that unknown ones were likely meant to be.
    mistyped: Vec<&'static str>,
}

impl<'n, 'a> Fields<'n, 'a> {
    /// Reports unknown and repeated keys; `None` where there is no mapping at all.
    pub fn of(slot: Slot<'n, 'a>, known: &[&'static str], what: &str, r: &mut Reporter<'_>) -> Option<Self> {
        let Value::Map(entries) = &slot.node.value else {
            slot.expected(r, what, "");
            return None;
        };
        let mut mistyped = Vec::new();
        let mut firsts = vec![None; known.len()];
        for entry in entries {
            let path = Path::Key(&slot.path, &entry.key);
            match known.iter().position(|key| *key == entry.key).map(|n| &mut firsts[n]) {
                None if r.is_full() => r.error(path, entry.at, "", ""),
                None => {
                    let meant = near_key(&entry.key, known);
                    mistyped.extend(meant);
                    r.error(path, entry.at, unknown_key(&entry.key, known, meant), "");
                }
                Some(Some(line)) => {
                    let message = format!("`{}` is given twice; the first is in line {line}", entry.key);
                    r.error(path, entry.at, message, "");
                }
                Some(first) => *first = Some(entry.at.line),
            }
        }
        Some(Fields { path: slot.path, at: slot.node.at, entries, mistyped })
    }

    /// Where the mapping itself stands in the tree.
    pub fn path(&self) -> &Path<'n> {
        &self.path
    }

    /// Where a key of a block stands, or the block, or this mapping.
    pub fn nested_mark(&self, block: &str, key: &str) -> Mark {
        match self.entry(block) {
            Some(Entry { node: Node { value: Value::Map(entries), .. }, at, .. }) => {
                entries.iter().find(|e| e.key == key).map_or(*at, |e| e.node.at)
            }
            Some(entry) => entry.at,
            None => self.at,
        }
    }

    fn entry(&self, key: &str) -> Option<&'n Entry<'a>> {
        self.entries.iter().find(|e| e.key == key)
    }

    /// Whether the key is there, with whatever value.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where the value of a key stands; the mapping itself where there is no such key.
    pub fn mark(&self, key: &str) -> Mark {
        self.entry(key).map_or(self.at, |e| e.node.at)
    }

    /// Where the key itself stands.
    pub fn key_mark(&self, key: &str) -> Mark {
        self.entry(key).map_or(self.at, |e| e.at)
    }

    /// Reports on a key, or on its absence.
    pub fn error(&self, key: &str, r: &mut Reporter<'_>, message: impl Into<String>, rfc: &str) {
        r.error(Path::Key(&self.path, key), self.mark(key), message, rfc);
    }

    /// Warns on a key.
    pub fn warning(&self, key: &str, r: &mut Reporter<'_>, message: impl Into<String>, rfc: &str) {
        r.warning(Path::Key(&self.path, key), self.mark(key), message, rfc);
    }

    /// The value of a key; `None` where it is absent or wrong.
    pub fn get<T>(
        &self,
        key: &str,
        r: &mut Reporter<'_>,
        decode: impl FnOnce(Slot<'_, 'a>, &mut Reporter<'_>) -> Option<T>,
    ) -> Option<T> {
        let entry = self.entry(key)?;
        decode(Slot { node: &entry.node, path: Path::Key(&self.path, key) }, r)
    }

    /// The same, and its absence is an error, unless a mistyped key explains it.
    pub fn require<T>(
        &self,
        key: &str,
        r: &mut Reporter<'_>,
        what: &str,
        rfc: &str,
        decode: impl FnOnce(Slot<'_, 'a>, &mut Reporter<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) && !self.mistyped.contains(&key) {
            self.error(key, r, format!("is missing: expected {what}"), rfc);
        }
        self.get(key, r, decode)
    }
}

fn words(key: &str) -> String {
    key.to_lowercase().replace(['_', ' '], "-")
}

/// The known key that an unknown one was likely meant to be.
fn near_key(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let plain = words(key);
    let synonym = SYNONYMS.iter().find(|(word, ours)| *word == plain && known.contains(ours));
    let near = known.iter().filter_map(|k| Some((distance(&plain, k)?, *k)));
    synonym.map(|(_, ours)| *ours).or_else(|| near.filter(|(d, k)| *d <= 1 + k.len() / 5).min().map(|(_, k)| k))
}

/// What to say of a key that nobody knows here.
fn unknown_key(key: &str, known: &[&str], meant: Option<&str>) -> String {
    let shown = tame(key);
    if key == "<<" {
        return "`<<` (a merge key) is not supported: write the keys out".into();
    }
    if let Some(meant) = meant {
        return format!("unknown key `{shown}`; did you mean `{meant}`?");
    }
    let plain = words(key);
    let elsewhere = |keys: &[&str]| keys.contains(&&*plain) && keys != known;
    if let Some((block, _)) = BLOCKS.iter().find(|(_, keys)| elsewhere(keys)) {
        return match *block {
            "" => format!("unknown key `{shown}`; it belongs to the top level of a daemon's file"),
            block => format!("unknown key `{shown}`; it belongs under `{block}`"),
        };
    }
    if elsewhere(RULE) {
        return format!("unknown key `{shown}`; it belongs into a rule");
    }
    format!("unknown key `{shown}`; known here: {}", known.join(", "))
}

/// Edits from one word to the other, a swap of neighbours being one; `None` where they are far apart.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 6 {
        return None;
    }
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    Some(rows[a.len()][b.len()])
}

/// `true` or `false`, nothing else.
pub fn boolean(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<bool> {
    match slot.scalar() {
        Some(("true" | "True" | "TRUE", true)) => Some(true),
        Some(("false" | "False" | "FALSE", true)) => Some(false),
        _ => {
            slot.expected(r, "true or false", "");
            None
        }
    }
}

/// A whole number within a range, decimal or 0x-hexadecimal.
pub fn integer<T>(
    range: RangeInclusive<T>,
    unit: &str,
    rfc: &str,
) -> impl FnOnce(Slot<'_, '_>, &mut Reporter<'_>) -> Option<T>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display + Copy,
{
    move |slot, r| {
        let what = format!("a whole number from {} to {}{unit}", range.start(), range.end());
        let Some((text, plain)) = slot.scalar() else {
            slot.expected(r, &what, rfc);
            return None;
        };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let value = match digits.strip_prefix("0x") {
            Some(hex) if !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(hex, 16).ok()
            }
            None if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
            _ => {
                slot.expected(r, &what, rfc);
                return None;
            }
        };
        if !plain {
            slot.error(r, format!("`{}` is text: write the number without quotes", tame(text)), rfc);
            return None;
        }
        if digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0x") {
            slot.error(r, format!("`{}` has a leading zero: write it without", tame(text)), rfc);
            return None;
        }
        let value = value.filter(|_| digits.len() == text.len()).and_then(|v| T::try_from(v).ok());
        match value.filter(|v| range.contains(v)) {
            Some(value) => Some(value),
            None => {
                slot.error(r, format!("`{}` is out of range: expected {what}", tame(text)), rfc);
                None
            }
        }
    }
}

/// One of a few words.
pub fn choice<T: Copy>(words: &[(&str, T)], rfc: &str) -> impl FnOnce(Slot<'_, '_>, &mut Reporter<'_>) -> Option<T> {
    move |slot, r| {
        let found = slot.scalar().and_then(|(text, _)| words.iter().find(|(w, _)| *w == text));
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            let (last, rest) = all.split_last()?;
            slot.expected(r, &format!("{} or {last}", rest.join(", ")), rfc);
        }
        found.map(|(_, t)| *t)
    }
}

/// Text without control characters, 1 to `most` characters.
pub fn text(what: &str, most: usize) -> impl FnOnce(Slot<'_, '_>, &mut Reporter<'_>) -> Option<String> {
    move |slot, r| {
        let Some((text, _)) = slot.scalar().filter(|(t, _)| !t.is_empty()) else {
            slot.expected(r, what, "");
            return None;
        };
        if text.chars().any(char::is_control) || text.chars().nth(most).is_some() {
            let message = format!("`{}` will not do: expected {what}, at most {most} printable characters", tame(text));
            slot.error(r, message, "");
            return None;
        }
        Some(text.to_string())
    }
}

/// An IPv4 address.
pub fn ipv4(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Ipv4Addr> {
    let parsed = slot.scalar().and_then(|(text, _)| text.parse().ok());
    if parsed.is_none() {
        slot.expected(r, "an IPv4 address such as 192.0.2.18", "");
    }
    parsed
}

/// An IPv6 address.
pub fn ipv6(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Ipv6Addr> {
    let parsed = slot.scalar().and_then(|(text, _)| text.parse().ok());
    if parsed.is_none() {
        slot.expected(r, "an IPv6 address such as 2001:db8::1 (in quotes if it ends in a colon)", "RFC 4291 §2.2");
    }
    parsed
}

/// An IPv4 prefix.
pub fn ipv4_prefix(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Ipv4Prefix> {
    prefix(&slot, r, "an IPv4 prefix such as 192.0.2.0/24", "RFC 4632 §3.1")
}

/// An IPv6 prefix.
pub fn ipv6_prefix(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Ipv6Prefix> {
    prefix(&slot, r, "an IPv6 prefix such as 2001:db8::/40", "RFC 4291 §2.3")
}

fn prefix<T: FromStr<Err = PrefixError>>(
    slot: &Slot<'_, '_>,
    r: &mut Reporter<'_>,
    what: &str,
    rfc: &str,
) -> Option<T> {
    let Some((text, _)) = slot.scalar() else {
        slot.expected(r, what, rfc);
        return None;
    };
    match text.parse() {
        Ok(prefix) => Some(prefix),
        Err(PrefixError::HostBits { given, expected }) => {
            let message = format!("`{given}` has bits set behind its length; `{expected}` was probably meant");
            slot.error(r, message, rfc);
            None
        }
        Err(PrefixError::Length { max, .. }) => {
            slot.error(r, format!("`{}` has a prefix length that is not 0 to {max}", tame(text)), rfc);
            None
        }
        Err(PrefixError::Syntax { .. }) => {
            slot.expected(r, what, rfc);
            None
        }
    }
}

/// The prefix of a DMR.
pub fn dmr(slot: Slot<'_, '_>, r: &mut Reporter<'_>) -> Option<Dmr> {
    let prefix: Ipv6Prefix = prefix(&slot, r, "an IPv6 prefix such as 2001:db8:ffff::/64", "RFC 7599 §5.1")?;
    match Dmr::new(prefix) {
        Ok(dmr) => Some(dmr),
        Err(DmrError::Length(len)) => {
            let rfc = if len > 96 { "RFC 7599 §5.1" } else { "RFC 6052 §2.2" };
            slot.error(r, format!("`{prefix}` cannot be a DMR: expected a length of 32, 40, 48, 56, 64 or 96"), rfc);
            None
        }
        Err(DmrError::UOctet(_)) => {
            slot.error(r, format!("`{prefix}` cannot be a DMR: its bits 64 to 71 must be zero"), "RFC 6052 §2.2");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_are_named() {
        for (key, near) in [
            ("ea_bits", "ea-len"),
            ("psid-length", "psid-len"),
            ("ea_len", "ea-len"),
            ("psidoffset", "psid-offset"),
            ("PSID", "psid"),
            ("fowarding", "forwarding"),
            ("rule-ipv6-prefx", "rule-ipv6-prefix"),
            ("nmae", "name"),
        ] {
            assert_eq!(near_key(key, RULE), Some(near));
        }
        assert_eq!(unknown_key("lowest-ipv6", ICMP, None), "unknown key `lowest-ipv6`; it belongs under `mtu`");
        assert_eq!(
            unknown_key("end-user-ipv6-prefix", RULE_SET, None),
            "unknown key `end-user-ipv6-prefix`; it belongs to the top level of a daemon's file"
        );
        assert_eq!(unknown_key("psid-offset", RULE_SET, None), "unknown key `psid-offset`; it belongs into a rule");
    }

    #[test]
    fn every_key_is_documented_and_sampled() {
        let docs = include_str!("../../docs/configuration.md");
        let samples = concat!(
            include_str!("../../config/rules-full.yaml"),
            include_str!("../../config/br-full.yaml"),
            include_str!("../../config/ce-full.yaml")
        );
        let blocks = BLOCKS.iter().flat_map(|(_, keys)| *keys);
        for key in blocks.chain(RULE_SET).chain(RULE) {
            let documented = ["| ", "### "].iter().any(|start| docs.contains(&format!("\n{start}`{key}`")));
            assert!(documented, "{key} is not in docs/configuration.md");
            assert!(samples.contains(&format!("{key}:")), "{key} is in no sample file");
        }
    }
}
