//! `mapt whois --at`: who had an address and port at a time, by the rule sets that were in force; one question, or a
//! file of them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::rc::Rc;

use jiff::Timestamp;
use serde::Serialize;

use super::history::{Entry, History};
use super::text;
use super::whois::{Target, nobody_by_ipv4, nobody_by_ipv6};
use crate::config::{Document, RuleSet};
use crate::map::{EndUserPrefix, Ipv6Prefix, PortSet, RuleId, RuleTable};

/// Rule sets that are kept in memory for the next question.
const SETS: usize = 16;
/// Octets of a question, at most.
const MAX_LINE: u64 = 256;

/// Where rules come from.
pub enum Rules {
    /// A file: at any time.
    File {
        /// Of the set.
        version: u64,
        /// The rules.
        table: std::sync::Arc<RuleTable>,
    },
    /// A history, the oldest set first.
    History {
        /// Which one.
        history: History,
        /// Its sets.
        entries: Vec<Entry>,
        /// Those that were read.
        read: HashMap<usize, Result<Rc<RuleSet>, String>>,
    },
}

/// The answer as JSON; keys that do not apply are null.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    rule: String,
    end_user_ipv6_prefix: String,
    map_ipv6_address: Ipv6Addr,
    ipv4: Ipv4Addr,
    psid: Option<u16>,
    /// Of the rule set.
    rules_version: u64,
    /// Since when that set was in force; null where it is a file's.
    from: Option<String>,
    /// Until when; null where it is now.
    until: Option<String>,
    /// Of a question by IPv6: the ports, as `[first,last]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    port_ranges: Option<Vec<[u16; 2]>>,
}

impl Rules {
    /// Of a document.
    pub fn of(document: &Document) -> Rules {
        let provisioning = document.provisioning();
        Rules::File { version: provisioning.version, table: provisioning.table }
    }

    /// Of a directory: that of a daemon (`<state-directory>/<instance>.history`) or of `mapt push --history`.
    pub fn open(directory: &Path) -> Result<Rules, String> {
        let history = History::at(directory);
        let entries = history.entries().map_err(|error| error.to_string())?;
        if entries.is_empty() {
            return Err(format!("there is no rule set in `{}`: expected a history", directory.display()));
        }
        Ok(Rules::History { history, entries, read: HashMap::new() })
    }

    /// Who had it. The error is for people.
    pub fn ask(&mut self, target: Target, at: Option<Timestamp>) -> Result<Answer, String> {
        match self {
            Rules::File { version, table } => answer(table, *version, target),
            Rules::History { history, entries, read } => {
                let at = at.ok_or("no time: expected one before the address, such as 2026-11-22T10:00:00Z")?;
                let Some(n) = entries.partition_point(|entry| entry.at <= at).checked_sub(1) else {
                    let first = entries.first().map(|entry| entry.at.to_string()).unwrap_or_default();
                    return Err(format!("nobody knows: the history begins at {first}, after {at}"));
                };
                if read.len() >= SETS && !read.contains_key(&n) {
                    read.clear();
                }
                let set = read.entry(n).or_insert_with(|| load(history, &entries[n]).map(Rc::new)).clone()?;
                let mut answer = answer(&set.table, set.version, target)?;
                answer.from = Some(entries[n].at.to_string());
                answer.until = entries.get(n + 1).map(|next| next.at.to_string());
                Ok(answer)
            }
        }
    }
}

fn load(history: &History, entry: &Entry) -> Result<RuleSet, String> {
    let text = history.text(entry).map_err(|error| error.to_string())?;
    RuleSet::load(&text, &entry.path).map(|loaded| loaded.value).map_err(|findings| findings.to_string())
}

fn answer(table: &RuleTable, version: u64, target: Target) -> Result<Answer, String> {
    let (id, map_ipv6_address, by_ipv6) = match target {
        Target::V4(addr, port) => {
            let (id, map) = table.by_ipv4(addr, port).map_err(|why| nobody_by_ipv4(table, addr, port, why))?;
            (id, map.ipv6(), false)
        }
        Target::V6(addr) => {
            let id = table.by_ipv6(addr).ok_or_else(|| nobody_by_ipv6(table, addr))?;
            (id, addr, true)
        }
    };
    let RuleId(n) = id;
    let rule = &table.rules()[n as usize];
    let spec = rule.spec();
    let (mut ipv4, mut psid) = table.get(id).decompose(map_ipv6_address);
    if by_ipv6 && table.get(id).compose(ipv4, psid).ipv6() != map_ipv6_address {
        // An address of the customer's network that is no MAP address: only its prefix speaks.
        let prefix = Ipv6Prefix::truncating(map_ipv6_address, rule.end_user_prefix_len());
        (ipv4, psid) = table.get(id).decompose(prefix.addr());
        if spec.ea_len + spec.rule_ipv4_prefix.prefix_len() < 32 {
            ipv4 = table
                .customer(EndUserPrefix(prefix))
                .map_err(|error| format!("nobody: {error} ({})", error.rfc))?
                .ipv4
                .addr();
        }
    }
    let params = rule.port_params();
    let psid = rule.explicit_psid().unwrap_or(psid);
    let ports = params.map_or(Some(PortSet::ALL), |params| params.port_set(psid));
    let composed = table.get(id).compose(ipv4, psid);
    Ok(Answer {
        rule: spec.name.clone(),
        end_user_ipv6_prefix: Ipv6Prefix::truncating(map_ipv6_address, rule.end_user_prefix_len()).to_string(),
        map_ipv6_address: composed.ipv6(),
        ipv4,
        psid: params.map(|_| psid.0),
        rules_version: version,
        from: None,
        until: None,
        port_ranges: by_ipv6.then(|| {
            ports
                .into_iter()
                .flat_map(|ports| ports.ranges().map(|r| [*r.start(), *r.end()]).collect::<Vec<_>>())
                .collect()
        }),
    })
}

/// For people: what follows the customer's own lines.
pub fn in_words(answer: &Answer) -> String {
    let mut pairs = vec![
        ("End-user prefix", answer.end_user_ipv6_prefix.clone()),
        ("Rule", answer.rule.clone()),
        ("IPv4 address", answer.ipv4.to_string()),
        (
            "PSID",
            answer.psid.map_or("none: the address is not shared".to_owned(), |psid| format!("{psid} ({psid:#x})")),
        ),
        ("MAP address", answer.map_ipv6_address.to_string()),
    ];
    if let Some(ranges) = &answer.port_ranges {
        let count: u32 = ranges.iter().map(|[first, last]| u32::from(last - first) + 1).sum();
        let mut all = format!("{count} in {}", text::counted(ranges.len(), "range"));
        for line in ranges.chunks(6) {
            all.push('\n');
            for [first, last] in line {
                let _ = write!(all, "{:<13}", format!("{first}-{last}"));
            }
        }
        pairs.push(("Ports", all));
    }
    let (from, until) = (answer.from.as_deref(), answer.until.as_deref());
    let time = from.map(|from| format!(", in force from {from} to {}", until.unwrap_or("now")));
    pairs.push(("Rule set", format!("version {}{}", answer.rules_version, time.unwrap_or_default())));
    text::fields(&pairs)
}

/// Answers a line for each line: `[TIME] IPV4:PORT` or `[TIME] IPV6`, the rest of a line being left alone. `true` where
/// each had an owner. Text has columns apart by tabs: the question, End-user prefix, rule, version, or why nobody.
pub fn bulk(
    rules: &mut Rules,
    at: Option<Timestamp>,
    json: bool,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let mut good = true;
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(good);
        }
        if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            // The rest of a line that is too long is no question.
            skip_line(input)?;
        }
        let question = String::from_utf8_lossy(&line);
        let question = question.trim();
        if question.is_empty() || question.starts_with('#') {
            continue;
        }
        let result = ask(rules, question, at);
        good &= result.is_ok();
        match (result, json) {
            (Ok(answer), true) => serde_json::to_writer(&mut *out, &Answered { question, answer })?,
            (Err(reason), true) => {
                serde_json::to_writer(&mut *out, &serde_json::json!({"question": question, "error": reason}))?
            }
            (Ok(a), false) => write!(out, "{question}\t{}\t{}\t{}", a.end_user_ipv6_prefix, a.rule, a.rules_version)?,
            (Err(reason), false) => write!(out, "{question}\t-\t{reason}")?,
        }
        out.write_all(b"\n")?;
    }
}

fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        match buffer.iter().position(|c| *c == b'\n') {
            Some(n) => {
                input.consume(n + 1);
                return Ok(());
            }
            None if buffer.is_empty() => return Ok(()),
            None => {
                let n = buffer.len();
                input.consume(n);
            }
        }
    }
}

#[derive(Serialize)]
struct Answered<'a> {
    question: &'a str,
    #[serde(flatten)]
    answer: Answer,
}

fn ask(rules: &mut Rules, question: &str, at: Option<Timestamp>) -> Result<Answer, String> {
    let mut words = question.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let (at, target) = match first.parse::<Timestamp>() {
        Ok(time) => (Some(time), words.next().ok_or("no address behind the time")?),
        Err(_) => (at, first),
    };
    rules.ask(target.parse()?, at)
}
