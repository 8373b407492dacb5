//! What is said over a daemon's control socket: one line of JSON asks, lines of JSON answer, the last one being `done`
//! or `error`. Every line names the version of the protocol that its writer speaks.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::push::Offer;
use crate::napt::{Inside, Protocol, Remote};

/// The version of the protocol. A daemon answers no other.
pub const PROTOCOL: u32 = 1;

/// Octets of a line, at most.
pub const MAX_LINE: usize = 64 << 10;

/// One line of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `PROTOCOL`.
    pub mapt: u32,
    /// What is asked.
    pub ask: Ask,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// What the daemon is and has in force.
    Status,
    /// Which program it is.
    Version,
    /// The rule set in force: its YAML text in pieces, a row each.
    Rules,
    /// The routes that are wanted beside those that the kernel has, a row each.
    Routes,
    /// All counters: a row for each rule by which something went on, then the others.
    Counters,
    /// What is in the fragment table.
    Fragments,
    /// What was dropped lately, a row each.
    Drops,
    /// The flows of a CE's NAPT, a row each.
    Mappings(Filter),
    /// What is made and what ends in a CE's NAPT, a row each, until the client goes.
    Events(Filter),
    /// Check a rule set, whose text follows; held until this client commits it or goes.
    Prepare(Offer),
    /// Put in force what this client had checked.
    Commit,
    /// Put the former set in force again; only for the client that has just committed another.
    Revert,
    /// Keep the set that would go back by itself.
    Confirm,
}

/// A rule set's version and date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Version {
    /// 0 where the set has none.
    pub version: u64,
    /// As written.
    pub date: Option<String>,
}

impl Request {
    /// Reads a line. The error is for people.
    pub fn parse(line: &[u8]) -> Result<Ask, String> {
        let Request { mapt, ask } = match serde_json::from_slice(line) {
            Ok(request) => request,
            // A later version may have other asks: then that is what is wrong.
            Err(error) => match serde_json::from_slice::<Spoken>(line) {
                Ok(Spoken { mapt }) if mapt != PROTOCOL => return Err(foreign(mapt)),
                _ => return Err(format!("no request: {error}")),
            },
        };
        if mapt == PROTOCOL { Ok(ask) } else { Err(foreign(mapt)) }
    }

    /// The line of an ask, with its newline.
    pub fn line(ask: Ask) -> Vec<u8> {
        line(&Request { mapt: PROTOCOL, ask })
    }
}

#[derive(Deserialize)]
struct Spoken {
    mapt: u32,
}

fn foreign(version: u32) -> String {
    format!(
        "version {version} of the control protocol is not spoken here: expected {PROTOCOL}; daemon and `mapt` should be of one release"
    )
}

/// One line of a daemon. `R` is a row, `D` what is said at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer<R, D> {
    /// One of many.
    Row(R),
    /// All has been said.
    Done(D),
    /// Nothing more comes, and why.
    Error(String),
}

impl<R: Serialize, D: Serialize> Answer<R, D> {
    /// The line, with its newline.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// An address and perhaps a port: `192.168.1.2`, `192.168.1.2:40000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// address
    pub addr: Ipv4Addr,
    /// port or ICMP identifier; `None` stands for any
    pub port: Option<u16>,
}

impl Endpoint {
    fn is(&self, addr: Ipv4Addr, port: u16) -> bool {
        self.addr == addr && self.port.is_none_or(|wanted| wanted == port)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, port) = match text.split_once(':') {
            Some((addr, port)) => (addr, Some(port.parse())),
            None => (text, None),
        };
        match (addr.parse(), port.transpose()) {
            (Ok(addr), Ok(port)) => Ok(Endpoint { addr, port }),
            _ => Err("expected IPV4 or IPV4:PORT, such as 192.168.1.2:40000".into()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.addr),
            None => self.addr.fmt(f),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A protocol's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProtocolName {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// ICMP echo
    Icmp,
}

impl ProtocolName {
    /// As text.
    pub fn name(self) -> &'static str {
        match self {
            ProtocolName::Tcp => "tcp",
            ProtocolName::Udp => "udp",
            ProtocolName::Icmp => "icmp",
        }
    }
}

impl From<Protocol> for ProtocolName {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => ProtocolName::Tcp,
            Protocol::Udp => ProtocolName::Udp,
            Protocol::Icmp => ProtocolName::Icmp,
        }
    }
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Tcp => Protocol::Tcp,
            ProtocolName::Udp => Protocol::Udp,
            ProtocolName::Icmp => Protocol::Icmp,
        }
    }
}

/// Which mappings; what is left out stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Filter {
    /// Of this protocol
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolName>,
    /// Of this host of the home, or of this port of it
    #[arg(long, value_name = "IPV4[:PORT]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<Endpoint>,
    /// On this port of the port set, or this ICMP identifier
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside_port: Option<u16>,
    /// With this host of the Internet, or with this port of it
    #[arg(long, value_name = "IPV4[:PORT]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Endpoint>,
}

impl Filter {
    /// Whether a mapping is one of these. One that is with nobody in particular has no `remote`.
    pub fn admits(&self, protocol: Protocol, inside: Inside, outside_port: u16, remote: Option<Remote>) -> bool {
        self.protocol.is_none_or(|wanted| Protocol::from(wanted) == protocol)
            && self.inside.is_none_or(|wanted| wanted.is(inside.addr, inside.port))
            && self.outside_port.is_none_or(|wanted| wanted == outside_port)
            && self.remote.is_none_or(|wanted| remote.is_some_and(|remote| wanted.is(remote.addr, remote.port)))
    }
}

/// Who made a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A packet of the home; the port is its sender's own.
    Own,
    /// A packet of the home; other flows have the port too (RFC 7857 §3).
    Shared,
    /// `napt.forwards`.
    Static,
    /// A PCP client (RFC 6887).
    Pcp,
    /// A NAT-PMP client (RFC 6886).
    NatPmp,
}

impl Origin {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Own => "own",
            Origin::Shared => "shared",
            Origin::Static => "static",
            Origin::Pcp => "pcp",
            Origin::NatPmp => "nat-pmp",
        }
    }
}

/// One mapping: a flow, or what waits for flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mapping {
    /// TCP, UDP, echo.
    pub protocol: ProtocolName,
    /// In the home.
    pub inside: SocketAddrV4,
    /// As the Internet sees it.
    pub outside: SocketAddrV4,
    /// Whom the flow is with; null where anybody.
    pub remote: Option<SocketAddrV4>,
    /// Who made it.
    pub origin: Origin,
    /// Of a flow: `opening`, `established`, `closing`, `unanswered`, `answered`, `query`.
    pub state: Option<String>,
    /// Of a flow: since when nothing has refreshed it, in seconds.
    pub idle: Option<f64>,
    /// Until it ends, in seconds; null: never.
    pub expires_in: Option<f64>,
}

/// A port set of one protocol and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ports {
    /// TCP, UDP, echo.
    pub protocol: ProtocolName,
    /// Ports that there are.
    pub ports: usize,
    /// Those in use.
    pub in_use: usize,
    /// Of those, shared by flows.
    pub shared: usize,
    /// Flows.
    pub flows: usize,
    /// Flows that ended since another needed their place.
    pub gave_way: u64,
}

/// A mapping was made or has ended: of a port that is one endpoint's when it is taken and when it is free again, of a
/// shared one for each flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Event {
    /// When (RFC 3339), to a quarter of a second.
    pub at: String,
    /// Which of both.
    pub event: Happened,
    /// Of an end: `expired`, `gave-way` (another flow needed its place), `purged` (the configuration).
    pub why: Option<String>,
    /// TCP, UDP, echo.
    pub protocol: ProtocolName,
    /// In the home.
    pub inside: SocketAddrV4,
    /// As the Internet sees it.
    pub outside: SocketAddrV4,
    /// Whom the flow is with, on a shared port alone.
    pub remote: Option<SocketAddrV4>,
}

/// What has happened to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It begins.
    Made,
    /// It ends.
    Ended,
}

impl Happened {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Happened::Made => "made",
            Happened::Ended => "ended",
        }
    }
}

impl Filter {
    /// Whether an event is of one of these.
    pub fn admits_event(&self, event: &Event) -> bool {
        let of = |addr: SocketAddrV4| (*addr.ip(), addr.port());
        let (inside, remote) = (of(event.inside), event.remote.map(of));
        self.protocol.is_none_or(|wanted| wanted == event.protocol)
            && self.inside.is_none_or(|wanted| wanted.is(inside.0, inside.1))
            && self.outside_port.is_none_or(|wanted| wanted == event.outside.port())
            && self.remote.is_none_or(|wanted| remote.is_some_and(|remote| wanted.is(remote.0, remote.1)))
    }
}
