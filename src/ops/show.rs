//! `mapt rules show`: the rules, what a CE gets of each, and where the bits stand.
use super::cli::Output;
use super::files;
use super::text::{self, BitField, counted};
use crate::config::{Document, Findings, RuleSet};
use crate::map::{EndUserPrefix, Ipv6Prefix, Provisioning, Rule, RuleId, RuleTable};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

/// Names of rules that a drawing lists.
const MOST_NAMES: usize = 4;

/// The answer as JSON: the file's keys, with what follows from them; keys that do not apply are null.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<'t> {
    version: u64,
    date: Option<&'t str>,
    dmr_ipv6_prefix: Option<String>,
    rules: Vec<RuleAnswer<'t>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RuleAnswer<'t> {
    name: &'t str,
    rule_ipv6_prefix: String,
    rule_ipv4_prefix: String,
    ea_len: u8,
    psid_offset: Option<u8>,
    psid_len: Option<u8>,
    psid: Option<u16>,
    forwarding: bool,
    dmr_ipv6_prefix: String,
    sharing_ratio: u32,
    ports_per_ce: u32,
    end_user_prefix_len: u8,
    ce_count: u64,
}

/// Shows the rules of a file.
pub fn run(file: &Path, json: bool) -> Output {
    let loaded = match files::document(file) {
        Ok(loaded) => loaded,
        Err(findings) => return Output::no(&findings.to_string()),
    };
    let mut out = Output::default();
    for warning in &loaded.warnings {
        out.say(&format!("warning: {warning}"));
    }
    let provisioning = loaded.value.provisioning();
    if json {
        out.json(&answer(&provisioning));
    } else {
        out.print(&in_words(&provisioning));
    }
    out
}

/// Shows a rule set out of its text.
pub fn text(text: &str, json: bool) -> Result<String, Findings> {
    let set = RuleSet::load(text, Path::new("the daemon's rules"))?.value;
    let provisioning = Document::Rules(set).provisioning();
    Ok(match json {
        true => serde_json::to_string(&answer(&provisioning)).unwrap_or_default() + "\n",
        false => in_words(&provisioning),
    })
}

fn answer(provisioning: &Provisioning) -> Answer<'_> {
    let table = &provisioning.table;
    Answer {
        version: provisioning.version,
        date: provisioning.date.as_deref(),
        dmr_ipv6_prefix: table.set_dmr().map(|dmr| dmr.prefix().to_string()),
        rules: table.rules().iter().enumerate().map(|(n, rule)| rule_answer(table, RuleId(n as u32), rule)).collect(),
    }
}

fn rule_answer<'t>(table: &RuleTable, id: RuleId, rule: &'t Rule) -> RuleAnswer<'t> {
    let spec = rule.spec();
    let params = rule.port_params();
    RuleAnswer {
        name: &spec.name,
        rule_ipv6_prefix: spec.rule_ipv6_prefix.to_string(),
        rule_ipv4_prefix: spec.rule_ipv4_prefix.to_string(),
        ea_len: spec.ea_len,
        psid_offset: params.map(|params| params.a()),
        psid_len: params.map(|params| params.k()),
        psid: rule.explicit_psid().map(|psid| psid.0),
        forwarding: spec.forwarding,
        dmr_ipv6_prefix: table.dmr(id).prefix().to_string(),
        sharing_ratio: rule.sharing_ratio(),
        ports_per_ce: rule.ports_per_ce(),
        end_user_prefix_len: rule.end_user_prefix_len(),
        ce_count: rule.ce_count(),
    }
}

fn in_words(provisioning: &Provisioning) -> String {
    let table = &provisioning.table;
    let mut title = Vec::new();
    if provisioning.version != 0 {
        title.push(format!("version {}", provisioning.version));
    }
    title.extend(provisioning.date.as_ref().map(|date| format!("made {date}")));
    title.push(counted(table.rules().len(), "rule"));
    let mut out = format!("{}\n\n", title.join(", "));
    if table.rules().is_empty() {
        return out;
    }
    let head = [
        "NAME",
        "RULE IPv6",
        "RULE IPv4",
        "EA",
        "OFFSET",
        "PSID",
        "SHARED BY",
        "PORTS/CE",
        "CEs",
        "END-USER",
        "FMR",
        "DMR",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (n, rule) in table.rules().iter().enumerate() {
        rows.push(row(table, RuleId(n as u32), rule));
    }
    out.push_str(&text::columns(&rows));
    for (rules, first) in shapes(table) {
        out.push('\n');
        out.push_str(&drawing(table, &rules, first));
    }
    out
}

fn row(table: &RuleTable, id: RuleId, rule: &Rule) -> Vec<String> {
    let spec = rule.spec();
    let none = || "-".to_string();
    let params = rule.port_params();
    vec![
        spec.name.clone(),
        spec.rule_ipv6_prefix.to_string(),
        spec.rule_ipv4_prefix.to_string(),
        spec.ea_len.to_string(),
        params.map_or_else(none, |params| params.a().to_string()),
        match (params, rule.explicit_psid()) {
            (Some(params), Some(psid)) => format!("{} ({} bits)", psid.0, params.k()),
            (Some(params), None) => format!("{} bits", params.k()),
            (None, _) => none(),
        },
        if params.is_some() { rule.sharing_ratio().to_string() } else { none() },
        rule.ports_per_ce().to_string(),
        text::power(rule.ce_count()),
        format!("/{}", rule.end_user_prefix_len()),
        if spec.forwarding { "yes" } else { "no" }.to_string(),
        table.dmr(id).prefix().to_string(),
    ]
}

/// Rules whose bits stand alike, in the order of their first one.
fn shapes(table: &RuleTable) -> Vec<(Vec<&Rule>, usize)> {
    let mut groups: Vec<(Vec<&Rule>, usize)> = Vec::new();
    let mut known = HashMap::new();
    for (n, rule) in table.rules().iter().enumerate() {
        let spec = rule.spec();
        let lengths = (spec.rule_ipv6_prefix.prefix_len(), spec.rule_ipv4_prefix.prefix_len(), spec.ea_len);
        let shape = (lengths, rule.port_params(), rule.explicit_psid().is_some());
        let group = *known.entry(shape).or_insert(groups.len());
        match groups.get_mut(group) {
            Some((rules, _)) => rules.push(rule),
            None => groups.push((vec![rule], n)),
        }
    }
    groups
}

/// The bits of a MAP address (RFC 7597 §5.2 figure 3, §6) and of a port (§5.1), and the first customer as an example.
fn drawing(table: &RuleTable, rules: &[&Rule], first: usize) -> String {
    let rule = rules[0];
    let names: Vec<&str> = rules.iter().take(MOST_NAMES).map(|rule| rule.spec().name.as_str()).collect();
    let more = if rules.len() > MOST_NAMES { format!(" and {} more", rules.len() - MOST_NAMES) } else { String::new() };
    let mut out = format!("{}{more}\n", names.join(", "));
    let mut section = |title: &str, body: &str| {
        let _ = writeln!(out, "  {title}");
        for line in body.lines() {
            let _ = writeln!(out, "    {line}");
        }
    };
    section("MAP address (RFC 7597 §5.2, §6)", &text::bits(&address_fields(rule)));
    match rule.port_params() {
        Some(params) => {
            let (a, k) = (u32::from(params.a()), u32::from(params.k()));
            let field = |start, end, label: &str| BitField { start, end, label: label.into() };
            let fields = [field(0, a, "not 0"), field(a, a + k, "PSID"), field(a + k, 16, "any")];
            section("Port (RFC 7597 §5.1)", &text::bits(&fields));
        }
        None if rule.ce_ipv4_prefix_len() == 32 => section("Port", "all 65536: the address is not shared"),
        None => section("Port", "all 65536 of each address: the CE has an IPv4 prefix"),
    }
    let id = RuleId(first as u32);
    let prefix = Ipv6Prefix::truncating(rule.spec().rule_ipv6_prefix.addr(), rule.end_user_prefix_len());
    if let Ok(customer) = table.customer(EndUserPrefix(prefix))
        && customer.rule == id
    {
        let ipv4 =
            if customer.ipv4.prefix_len() < 32 { customer.ipv4.to_string() } else { customer.ipv4.addr().to_string() };
        let psid = customer.psid.map(|psid| format!(" PSID {}", psid.0)).unwrap_or_default();
        let mut ranges = customer.ports.ranges().map(|r| format!("{}-{}", r.start(), r.end()));
        let (one, two) = (ranges.next().unwrap_or_default(), ranges.next());
        let ports = match two {
            Some(two) => format!("{one}, {two}, ..."),
            None => one,
        };
        section("First CE", &format!("{prefix}  {ipv4}{psid}  {}  ports {ports}", customer.map_address));
    }
    out
}

fn address_fields(rule: &Rule) -> Vec<BitField> {
    let n = u32::from(rule.spec().rule_ipv6_prefix.prefix_len());
    let end = u32::from(rule.end_user_prefix_len());
    let suffix = n + u32::from(rule.ipv4_suffix_len());
    let shared = rule.port_params().is_some();
    let field = |start, end, label: &str| BitField { start, end, label: label.into() };
    let mut fields =
        vec![field(0, n, "Rule IPv6 prefix"), field(n, suffix, "EA: IPv4 suffix"), field(suffix, end, "EA: PSID")];
    // A prefix longer than 64 bits stands on the front of the interface id (RFC 7597 §6).
    let psid = if shared { "PSID" } else { "0" };
    for (start, stop, label) in [(0, 64, "subnet 0"), (64, 80, "0"), (80, 112, "IPv4 address"), (112, 128, psid)] {
        let rest =
            if start < end && start >= 64 && end < stop { format!("rest of {label}") } else { label.to_string() };
        fields.push(field(start.max(end), stop, &rest));
    }
    fields
}
