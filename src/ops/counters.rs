//! Counters of a running daemon, for whoever asks: a document for programs, tables for people.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::map::RuleTable;
use crate::stats::{DirectionSnapshot, RuleCounters, Snapshot, Traffic};
use crate::verdict::{Direction, DropReason};

/// Everything that is counted, sums over queues.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counters {
    /// Since the start, in seconds; all counts begin there.
    pub uptime: f64,
    /// Of IPv4 packets.
    pub v4_to_v6: Way,
    /// Of IPv6 packets.
    pub v6_to_v4: Way,
    /// Of the device.
    pub device: DeviceIo,
    /// Routes of ours that others had removed.
    #[serde(default)]
    pub routes_restored: u64,
}

/// Counters of a direction: what came in, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Way {
    /// All inputs.
    pub received: Count,
    /// Inputs that went on, in octets of what they became.
    pub forwarded: Count,
    /// Fragments that wait for their first one, now.
    pub held: u64,
    /// ICMP errors of ours.
    pub icmp_errors_sent: Count,
    /// Inputs that went nowhere.
    pub dropped: Count,
    /// Of those, by reason; reasons that dropped nothing are left out.
    pub reasons: BTreeMap<String, Count>,
}

/// Packets and octets, from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Count {
    /// A segmentation-offload packet counts as one.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}

/// What went on by a rule, in octets as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleCount {
    /// Its name.
    pub rule: String,
    /// IPv4 packets.
    pub v4_to_v6: Count,
    /// IPv6 packets.
    pub v6_to_v4: Count,
}

/// What went on by each rule: live cells of every engine, and what was counted under former sets.
#[derive(Debug, Default)]
pub struct ByRule {
    live: Vec<Arc<RuleCounters>>,
    /// By name, of rules that are in force still.
    before: HashMap<String, [Traffic; 2]>,
}

impl ByRule {
    /// The cells of engines that have just started.
    pub fn new(live: Vec<Arc<RuleCounters>>) -> ByRule {
        ByRule { live, before: HashMap::new() }
    }

    /// Other cells for other rules: those of a name go on, whatever the rule now says.
    pub fn go_on(&self, former: &RuleTable, next: &RuleTable, live: Vec<Arc<RuleCounters>>) -> ByRule {
        let named: HashSet<&str> = next.rules().iter().map(|rule| rule.spec().name.as_str()).collect();
        let before = self.sums(former).filter(|(name, _)| named.contains(name));
        ByRule { live, before: before.map(|(name, sums)| (name.to_owned(), sums)).collect() }
    }

    /// Rules of `table`, in their order, by which something went on.
    pub fn counts(&self, table: &RuleTable) -> Vec<RuleCount> {
        let count = |(rule, [a, b]): (&str, [Traffic; 2])| RuleCount {
            rule: rule.to_owned(),
            v4_to_v6: a.into(),
            v6_to_v4: b.into(),
        };
        self.sums(table).map(count).collect()
    }

    fn sums<'t>(&self, table: &'t RuleTable) -> impl Iterator<Item = (&'t str, [Traffic; 2])> {
        let mut live: Vec<_> = self.live.iter().map(|cells| cells.iter()).collect();
        let all = table.rules().iter().map(move |rule| {
            let name = rule.spec().name.as_str();
            let mut sums = self.before.get(name).copied().unwrap_or_default();
            for cells in live.iter_mut().filter_map(Iterator::next) {
                sums[0] += cells[0];
                sums[1] += cells[1];
            }
            (name, sums)
        });
        all.filter(|(_, sums)| sums.iter().any(|sum| sum.packets > 0))
    }
}

/// Rules that a table for people has.
const MOST_RULES: usize = 30;

/// For people: the busiest rules. With `before`, packets and bits a second in between.
pub fn rules_table(rules: &[RuleCount], before: Option<(&[RuleCount], f64)>) -> String {
    let old: HashMap<&str, &RuleCount> =
        before.iter().flat_map(|(rules, _)| rules.iter()).map(|rule| (rule.rule.as_str(), rule)).collect();
    let grown = |rule: &RuleCount| {
        let old = old.get(rule.rule.as_str()).copied().cloned().unwrap_or_default();
        let less = |a: Count, b: Count| Count {
            packets: a.packets.saturating_sub(b.packets),
            octets: a.octets.saturating_sub(b.octets),
        };
        [less(rule.v4_to_v6, old.v4_to_v6), less(rule.v6_to_v4, old.v6_to_v4)]
    };
    let mut rows: Vec<(&str, [Count; 2])> = rules.iter().map(|rule| (rule.rule.as_str(), grown(rule))).collect();
    rows.retain(|(_, [a, b])| a.packets + b.packets > 0);
    rows.sort_by_key(|(_, [a, b])| std::cmp::Reverse(a.packets + b.packets));
    let mut text = String::new();
    for (name, [a, b]) in rows.iter().take(MOST_RULES) {
        let label = format!("  {name}");
        let _ = match before {
            None => writeln!(text, "{label:<28}{:>14}{:>18}{:>14}{:>18}", a.packets, a.octets, b.packets, b.octets),
            Some((_, seconds)) => {
                let p = |count: &Count| count.packets as f64 / seconds;
                let o = |count: &Count| bits(count.octets as f64 * 8.0 / seconds);
                writeln!(text, "{label:<28}{:>14.1}{:>18}{:>14.1}{:>18}", p(a), o(a), p(b), o(b))
            }
        };
    }
    if rows.len() > MOST_RULES {
        let _ = writeln!(text, "  and {} rules more; --json has all", rows.len() - MOST_RULES);
    }
    if text.is_empty() { text } else { format!("forwarded, by rule (octets as they came)\n{text}") }
}

/// Reads and writes of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceIo {
    /// Packets read.
    pub read: u64,
    /// Packets that it took.
    pub written: u64,
    /// Packets that it did not take.
    pub refused: u64,
    /// How often a thread waited for a packet.
    pub waits: u64,
    /// Reads without a packet.
    pub short_reads: u64,
    /// What was refused, by error; those that did not happen are left out.
    pub errors: BTreeMap<String, u64>,
}

impl From<Traffic> for Count {
    fn from(Traffic { packets, octets }: Traffic) -> Count {
        Count { packets, octets }
    }
}

impl From<&DirectionSnapshot> for Way {
    fn from(of: &DirectionSnapshot) -> Way {
        let reasons = DropReason::ALL.iter().map(|reason| (reason.name().to_owned(), of.dropped[*reason as usize]));
        Way {
            received: of.received.into(),
            forwarded: of.forwarded.into(),
            held: of.held,
            icmp_errors_sent: of.replies.into(),
            dropped: of.dropped_total().into(),
            reasons: reasons.filter(|(_, t)| t.packets > 0).map(|(name, t)| (name, t.into())).collect(),
        }
    }
}

impl Counters {
    /// Of all engines and all queues together.
    pub fn of(engines: &Snapshot, device: DeviceIo, uptime: f64) -> Counters {
        let [v4_to_v6, v6_to_v4] = Direction::ALL.map(|direction| engines.direction(direction).into());
        Counters { uptime, v4_to_v6, v6_to_v4, device, routes_restored: 0 }
    }

    /// For people.
    pub fn table(&self, name: &str) -> String {
        let mut text = String::new();
        for (label, cells) in self.rows(&self.v4_to_v6.reasons, &self.v6_to_v4.reasons) {
            let [a, b] = cells;
            let _ = writeln!(text, "{label:<28}{:>14}{:>18}{:>14}{:>18}", a.packets, a.octets, b.packets, b.octets);
        }
        let DeviceIo { read, written, refused, waits, short_reads, errors } = &self.device;
        let _ = writeln!(text, "device: {read} packets read, {written} written, {refused} refused, {waits} waits");
        for (error, count) in errors {
            let _ = writeln!(text, "  {error}: {count}");
        }
        if *short_reads > 0 {
            let _ = writeln!(text, "  reads without a packet: {short_reads}");
        }
        if self.routes_restored > 0 {
            let _ = writeln!(text, "routes restored: {}", self.routes_restored);
        }
        format!("{}{text}", head(name, "packets", "octets"))
    }

    /// Packets and bits a second since `before`.
    pub fn rates(&self, before: &Counters, name: &str) -> String {
        let seconds = (self.uptime - before.uptime).max(0.001);
        let (now, then) = ([&self.v4_to_v6, &self.v6_to_v4], [&before.v4_to_v6, &before.v6_to_v4]);
        let [a, b] = now.map(|way| &way.reasons);
        let old = before.rows(&then[0].reasons, &then[1].reasons);
        let mut text = String::new();
        for (label, cells) in self.rows(a, b) {
            if label == "held" {
                continue;
            }
            let former = old.iter().find(|(l, _)| *l == label).map_or([Count::default(); 2], |(_, cells)| *cells);
            let rate = |way: usize| {
                let (now, then) = (cells[way], former[way]);
                let a_second = |a: u64, b: u64| a.saturating_sub(b) as f64 / seconds;
                (a_second(now.packets, then.packets), a_second(now.octets, then.octets) * 8.0)
            };
            let ((p, q), (r, s)) = (rate(0), rate(1));
            if label.starts_with(' ') && p + r == 0.0 {
                continue;
            }
            let _ = writeln!(text, "{label:<28}{p:>14.1}{:>18}{r:>14.1}{:>18}", bits(q), bits(s));
        }
        let io = |f: fn(&DeviceIo) -> u64| f(&self.device).saturating_sub(f(&before.device)) as f64 / seconds;
        let _ = writeln!(
            text,
            "device: {:.1} packets/s read, {:.1} written, {:.1} refused",
            io(|d| d.read),
            io(|d| d.written),
            io(|d| d.refused)
        );
        format!("{}{text}", head(name, "packets/s", "bit/s"))
    }

    fn rows(&self, a: &BTreeMap<String, Count>, b: &BTreeMap<String, Count>) -> Vec<(String, [Count; 2])> {
        let both = |f: fn(&Way) -> Count| [f(&self.v4_to_v6), f(&self.v6_to_v4)];
        let mut rows = vec![
            ("received".to_owned(), both(|way| way.received)),
            ("forwarded".to_owned(), both(|way| way.forwarded)),
            ("held".to_owned(), both(|way| Count { packets: way.held, octets: 0 })),
            ("ICMP errors sent".to_owned(), both(|way| way.icmp_errors_sent)),
            ("dropped".to_owned(), both(|way| way.dropped)),
        ];
        for reason in DropReason::ALL.iter().map(|reason| reason.name()) {
            let cells = [a, b].map(|reasons| reasons.get(reason).copied().unwrap_or_default());
            if cells.iter().any(|cell| cell.packets > 0) {
                rows.push((format!("  {reason}"), cells));
            }
        }
        rows
    }
}

fn head(name: &str, packets: &str, octets: &str) -> String {
    let [a, b] = Direction::ALL.map(Direction::name);
    format!("{name:<28}{a:>32}{b:>32}\n{:<28}{packets:>14}{octets:>18}{packets:>14}{octets:>18}\n", "")
}

/// `950`, `12.3 k`, `4.50 G`: bits a second for people.
fn bits(value: f64) -> String {
    match value {
        ..1e3 => format!("{value:.0} "),
        ..1e6 => format!("{:.1} k", value / 1e3),
        ..1e9 => format!("{:.2} M", value / 1e6),
        _ => format!("{:.2} G", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;

    fn counters(uptime: f64, packets: u64) -> Counters {
        let counters = stats::Counters::default();
        for _ in 0..packets {
            counters.received(Direction::V4ToV6, 84);
            counters.forwarded(Direction::V4ToV6, 104);
            counters.received(Direction::V6ToV4, 70);
            counters.dropped(Direction::V6ToV4, DropReason::PortOutsideSet, 70);
        }
        Counters::of(&counters.snapshot(), DeviceIo { read: 2 * packets, ..DeviceIo::default() }, uptime)
    }

    #[test]
    fn only_reasons_that_dropped_something_are_listed() {
        let text = counters(1.0, 1).table("mapt-br");
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["mapt-br", "v4_to_v6", "v6_to_v4"]);
        assert_eq!(lines[2], ["received", "1", "84", "1", "70"]);
        assert_eq!(lines[3], ["forwarded", "1", "104", "0", "0"]);
        assert_eq!(lines[6], ["dropped", "0", "0", "1", "70"]);
        assert_eq!(lines[7], ["port-outside-set", "0", "0", "1", "70"]);
        assert!(lines[8].starts_with(&["device:"]), "{text}");
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let text = counters(12.0, 30).rates(&counters(10.0, 10), "x");
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        // 20 packets of 84 and 70 octets in 2 s.
        assert_eq!(lines[2], ["received", "10.0", "6.7", "k", "10.0", "5.6", "k"]);
        assert_eq!(lines[3], ["forwarded", "10.0", "8.3", "k", "0.0", "0"]);
        assert_eq!(lines[6], ["port-outside-set", "0.0", "0", "10.0", "5.6", "k"]);
        assert_eq!(lines[7][..4], ["device:", "20.0", "packets/s", "read,"]);
        let idle = counters(12.0, 10).rates(&counters(10.0, 10), "x");
        assert!(!idle.contains("port-outside-set"), "{idle}");
    }

    #[test]
    fn the_document_has_the_keys_of_the_tables() {
        let json = serde_json::to_value(counters(1.0, 2)).unwrap();
        assert_eq!(json["v6-to-v4"]["reasons"]["port-outside-set"]["octets"], 140);
        assert_eq!(json["v4-to-v6"]["forwarded"]["packets"], 2);
        assert_eq!(serde_json::from_value::<Counters>(json).unwrap(), counters(1.0, 2));
    }
}
