//! Text for people: aligned columns, port ranges, rows of bit fields.
use crate::map::PortSet;
use std::fmt::Write;

/// Port ranges that text shows of one set; `--json` has them all.
const MOST_RANGES: usize = 64;
const RANGES_A_LINE: usize = 6;

/// Rows as aligned columns, two spaces apart; the first row is the head.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|n| width(n).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `name value` lines, the values aligned; a value of several lines stays in its column.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in pairs {
        for (n, line) in value.lines().enumerate() {
            let name = if n == 0 { *name } else { "" };
            let _ = writeln!(out, "{name:<width$}  {line}");
        }
    }
    out
}

/// `252 in 63 ranges`, and the ranges.
pub fn ports(ports: &PortSet) -> String {
    let ranges: Vec<String> = (ports.ranges().take(MOST_RANGES + 1))
        .map(|r| if r.start() == r.end() { r.start().to_string() } else { format!("{}-{}", r.start(), r.end()) })
        .collect();
    if let [all] = &ranges[..] {
        return format!("{}: {all}", ports.count());
    }
    let count = ports.ranges().count();
    let mut out = format!("{} in {count} ranges", ports.count());
    for line in ranges[..ranges.len().min(MOST_RANGES)].chunks(RANGES_A_LINE) {
        out.push('\n');
        let cells: Vec<String> = line.iter().map(|range| format!("{range:<11}")).collect();
        out.push_str(cells.join(" ").trim_end());
    }
    if count > MOST_RANGES {
        let _ = write!(out, "\nand {} more; --json lists all", count - MOST_RANGES);
    }
    out
}

/// One field of a row of bits.
pub struct BitField {
    /// First bit.
    pub start: u32,
    /// The bit behind its last.
    pub end: u32,
    /// What it holds.
    pub label: String,
}

/// A row of bit fields with the number of each first bit above its edge, in the manner of RFC 7597's figures. Fields
/// without bits are left out.
pub fn bits(fields: &[BitField]) -> String {
    let (mut numbers, mut row) = (String::new(), String::new());
    let mut end = 0;
    for field in fields.iter().filter(|field| field.start < field.end) {
        let at = row.chars().count();
        let _ = write!(numbers, "{:pad$}{}", "", field.start, pad = at.saturating_sub(numbers.chars().count()));
        let bits = field.end - field.start;
        let _ = write!(row, "| {} ({bits}) ", field.label);
        end = field.end;
    }
    let at = row.chars().count();
    let _ = write!(numbers, "{:pad$}{end}", "", pad = at.saturating_sub(numbers.chars().count()));
    format!("{numbers}\n{row}|")
}

/// `65536`, or `2^48` where the number says nothing.
pub fn power(count: u64) -> String {
    if count > 1 << 20 && count.is_power_of_two() { format!("2^{}", count.ilog2()) } else { count.to_string() }
}

/// `1 rule`, `2 rules`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A time in seconds, in its two largest units: `0.3 s`, `12 s`, `2 h 4 min`, `3 d 5 h`.
pub fn time(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let all = seconds.round() as u64;
    let pair = |large: u64, unit: &str, small: u64, rest: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {rest}"),
    };
    match all {
        0..60 => format!("{all} s"),
        60..3600 => pair(all / 60, "min", all % 60, "s"),
        3600..86_400 => pair(all / 3600, "h", all / 60 % 60, "min"),
        _ => pair(all / 86_400, "d", all / 3600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{PortParams, Psid};

    #[test]
    fn bit_rows_carry_their_first_bits() {
        let field = |start, end, label: &str| BitField { start, end, label: label.into() };
        let row = bits(&[
            field(0, 40, "Rule IPv6 prefix"),
            field(40, 40, "nothing"),
            field(40, 56, "EA"),
            field(56, 128, "x"),
        ]);
        assert_eq!(row, "0                       40        56       128\n| Rule IPv6 prefix (40) | EA (16) | x (72) |");
    }

    #[test]
    fn times_have_two_units() {
        let all = [(0.25, "0.2 s"), (9.96, "10 s"), (60.0, "1 min"), (7440.0, "2 h 4 min"), (278_000.0, "3 d 5 h")];
        for (seconds, expected) in all {
            assert_eq!(time(seconds), expected);
        }
    }

    #[test]
    fn long_port_sets_are_cut() {
        let set = |a, k, psid| PortParams::new(a, k).unwrap().port_set(Psid(psid)).unwrap();
        assert_eq!(ports(&PortSet::ALL), "65536: 0-65535");
        assert_eq!(ports(&set(0, 6, 0)), "1024: 0-1023");
        let text = ports(&set(6, 8, 52));
        assert!(text.starts_with("252 in 63 ranges\n1232-1235   2256-2259   3280-3283"), "{text}");
        assert!(text.ends_with("64720-64723"), "{text}");
        assert!(ports(&set(15, 1, 0)).ends_with("\nand 32703 more; --json lists all"));
    }
}
