//! Counters as a table for people.

use std::fmt::Write;

use super::run::IoSnapshot;
use crate::stats::{Snapshot, Traffic};
use crate::verdict::{Direction, DropReason};

/// The counters of all queues of a daemon. Reasons that dropped nothing are left out.
pub fn table(name: &str, engines: &Snapshot, io: &IoSnapshot) -> String {
    let both = Direction::ALL.map(|direction| engines.direction(direction));
    let mut text = String::new();
    let mut row = |label: &str, cells: [Traffic; 2]| {
        let [a, b] = cells;
        let _ = writeln!(text, "{label:<28}{:>14}{:>18}{:>14}{:>18}", a.packets, a.octets, b.packets, b.octets);
    };
    row("received", both.map(|d| d.received));
    row("forwarded", both.map(|d| d.forwarded));
    row("held", both.map(|d| Traffic { packets: d.held, octets: 0 }));
    row("ICMP errors sent", both.map(|d| d.replies));
    row("dropped", both.map(|d| d.dropped_total()));
    for reason in DropReason::ALL {
        let cells = both.map(|d| d.dropped[*reason as usize]);
        if cells.iter().any(|cell| cell.packets > 0) {
            row(&format!("  {}", reason.name()), cells);
        }
    }
    let _ = writeln!(
        text,
        "device: {} packets read, {} written, {} refused, {} waits",
        io.reads,
        io.writes,
        io.write_errors_total(),
        io.waits
    );
    for (error, count) in io.write_errors() {
        let _ = writeln!(text, "  {error}: {count}");
    }
    if io.short_reads > 0 {
        let _ = writeln!(text, "  reads without a packet: {}", io.short_reads);
    }
    let [a, b] = Direction::ALL.map(Direction::name);
    format!(
        "{name:<28}{:>32}{:>32}\n{:<28}{:>14}{:>18}{:>14}{:>18}\n{text}",
        a, b, "", "packets", "octets", "packets", "octets"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Counters;

    #[test]
    fn only_reasons_that_dropped_something_are_listed() {
        let counters = Counters::default();
        counters.received(Direction::V4ToV6, 84);
        counters.forwarded(Direction::V4ToV6, 104);
        counters.received(Direction::V6ToV4, 70);
        counters.dropped(Direction::V6ToV4, DropReason::PortOutsideSet, 70);
        let text = table("mapt-br", &counters.snapshot(), &IoSnapshot::default());
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["mapt-br", "v4_to_v6", "v6_to_v4"]);
        assert_eq!(lines[2], ["received", "1", "84", "1", "70"]);
        assert_eq!(lines[3], ["forwarded", "1", "104", "0", "0"]);
        assert_eq!(lines[6], ["dropped", "0", "0", "1", "70"]);
        assert_eq!(lines[7], ["port-outside-set", "0", "0", "1", "70"]);
        assert!(lines[8].starts_with(&["device:"]), "{text}");
    }
}
