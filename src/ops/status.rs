//! What a running daemon is and has in force, for whoever asks.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::text;
use crate::config::{Config, Role};
use crate::map::Provisioning;

/// A running daemon. Keys that do not apply are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// `br` or `ce`.
    pub role: String,
    /// `instance`.
    pub instance: String,
    /// 0 where the set has none.
    pub rules_version: u64,
    /// As written.
    pub rules_date: Option<String>,
    /// Rules in force.
    pub rules: usize,
    /// How they came: `file`, `pushed`, `returned`.
    pub rules_origin: String,
    /// Since when they are in force (RFC 3339).
    pub rules_since: String,
    /// When the former set comes back unless this one is confirmed.
    pub confirm_until: Option<String>,
    /// Since the start, in seconds.
    pub uptime: u64,
    /// When it started (RFC 3339).
    pub started: String,
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// A CE's customer; null at a BR, and where no prefix is configured.
    pub customer: Option<Own>,
    /// Its device.
    pub tun: TunStatus,
    /// Routes into it.
    pub routes: RouteSums,
    /// Sysctls that are not as needed.
    pub sysctls: Vec<SysctlFinding>,
}

/// Which program runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProgramVersion {
    /// `mapt-br` or `mapt-ce`.
    pub program: String,
    /// Of it.
    pub version: String,
    /// Of the control socket.
    pub protocol: u32,
    /// `instance`.
    pub instance: String,
    /// Its process.
    pub pid: u32,
}

impl ProgramVersion {
    /// For people.
    pub fn in_words(&self) -> String {
        let ProgramVersion { program, version, protocol, instance, pid } = self;
        let own = env!("CARGO_PKG_VERSION");
        let mut text =
            format!("{program} {version}, instance `{instance}`, process {pid}, control protocol {protocol}\n");
        if version != own {
            text += &format!("this mapt is {own}\n");
        }
        text
    }
}

/// What follows from a CE's End-user prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Own {
    /// As configured.
    pub end_user_ipv6_prefix: String,
    /// The Basic Mapping Rule.
    pub rule: String,
    /// The address, or the first one of the prefix.
    pub ipv4: Ipv4Addr,
    /// 32 for an address.
    pub ipv4_prefix_len: u8,
    /// Of a shared address.
    pub psid: Option<u16>,
    /// In bits.
    pub psid_len: Option<u8>,
    /// In bits.
    pub psid_offset: Option<u8>,
    /// The CE's MAP address.
    pub map_ipv6_address: Ipv6Addr,
    /// Ports of one address.
    pub port_count: u32,
    /// Whether there is a NAPT.
    pub napt: bool,
}

impl Own {
    /// `None` without a prefix, and for a prefix without a rule.
    pub fn of(config: &Config) -> Option<Own> {
        let Role::Ce(params) = &config.role else { return None };
        let Provisioning { table, end_user_prefix, .. } = &config.provisioning;
        let prefix = (*end_user_prefix)?;
        let customer = table.customer(prefix).ok()?;
        let shape = table.get(customer.rule).port_params();
        Some(Own {
            end_user_ipv6_prefix: prefix.0.to_string(),
            rule: table.name(customer.rule).to_owned(),
            ipv4: customer.ipv4.addr(),
            ipv4_prefix_len: customer.ipv4.prefix_len(),
            psid: customer.psid.map(|psid| psid.0),
            psid_len: shape.map(|shape| shape.k()),
            psid_offset: shape.map(|shape| shape.a()),
            map_ipv6_address: customer.map_address.ipv6(),
            port_count: customer.ports.count(),
            napt: params.napt,
        })
    }

    fn words(&self) -> String {
        let address = match self.ipv4_prefix_len {
            32 => self.ipv4.to_string(),
            len => format!("{}/{len}", self.ipv4),
        };
        let psid = match (self.psid, self.psid_len, self.psid_offset) {
            (Some(psid), Some(k), Some(a)) => format!(", PSID {psid} ({psid:#x}; {k} bits behind an offset of {a})"),
            _ => String::new(),
        };
        format!("{address}{psid}, {} ports", self.port_count)
    }
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TunStatus {
    /// Of the interface.
    pub name: String,
    /// In octets.
    pub mtu: u32,
    /// Queues and threads.
    pub queues: usize,
    /// What the kernel took, in words.
    pub offloads: String,
}

/// Routes that are wanted beside those that the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteSums {
    /// `routes.install`; where it is off, others are to have them, and nothing is looked at.
    pub install: bool,
    /// What the rules ask for.
    pub wanted: usize,
    /// Of those, the kernel has so many just so.
    pub installed: usize,
    /// It has not.
    pub missing: usize,
    /// It has with another MTU or source.
    pub differing: usize,
    /// Ours that nobody wants.
    pub unwanted: usize,
}

/// A sysctl that is not as needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SysctlFinding {
    /// As sysctl(8) takes it.
    pub name: String,
    /// What it is.
    pub value: String,
    /// What is needed.
    pub expected: String,
    /// What happens without it.
    pub because: String,
}

impl Status {
    /// For people.
    pub fn in_words(&self) -> String {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let dated = self.rules_date.as_ref().map(|date| format!(" of {date}")).unwrap_or_default();
        let origin = match self.rules_origin.as_str() {
            "pushed" => "by a push",
            "returned" => "put back",
            _ => "out of the file",
        };
        let mut pairs = vec![
            (
                "Daemon",
                format!("mapt-{} `{}`, version {}, process {}", self.role, self.instance, self.version, self.pid),
            ),
            ("Running for", format!("{}, since {}", text::time(self.uptime as f64), self.started)),
            ("Rule set", format!("version {}{dated}, {}", self.rules_version, text::counted(self.rules, "rule"))),
            ("", format!("{origin}, since {}", self.rules_since)),
        ];
        if let Some(until) = &self.confirm_until {
            pairs.push(("", format!("to be confirmed until {until}, or the former one comes back")));
        }
        match &self.customer {
            Some(own) => pairs.extend([
                ("End-user prefix", own.end_user_ipv6_prefix.clone()),
                ("Rule", own.rule.clone()),
                ("IPv4", format!("{}, NAPT {}", own.words(), if own.napt { "on" } else { "off" })),
                ("MAP address", own.map_ipv6_address.to_string()),
            ]),
            None if self.role == "ce" => pairs.push(("End-user prefix", or_none(&None) + ": nothing is translated")),
            None => {}
        }
        let TunStatus { name, mtu, queues, offloads } = &self.tun;
        pairs.push(("TUN", format!("{name}, MTU {mtu} octets, {}, {offloads}", text::counted(*queues, "queue"))));
        pairs.push(("Routes", self.routes.words()));
        match &self.sysctls[..] {
            [] => pairs.push(("Sysctls", "as needed".to_owned())),
            findings => pairs.extend(findings.iter().map(|found| ("Sysctls", found.words()))),
        }
        text::fields(&pairs)
    }
}

impl RouteSums {
    /// `3 wanted, 3 installed`, and what is wrong.
    pub fn words(&self) -> String {
        let RouteSums { install, wanted, installed, missing, differing, unwanted } = self;
        if !install {
            return format!("{wanted} wanted, left to others (`routes.install: false`)");
        }
        let mut text = format!("{wanted} wanted, {installed} installed");
        for (count, what) in
            [(missing, "missing"), (differing, "with another MTU or source"), (unwanted, "of ours unwanted")]
        {
            if *count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text
    }
}

impl SysctlFinding {
    fn words(&self) -> String {
        format!("{} is {}, not {}: {}", self.name, self.value, self.expected, self.because)
    }
}
