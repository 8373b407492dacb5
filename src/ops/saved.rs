//! The text of a file of flows that one process leaves to the next.
//!
//! ```text
//! mapt mappings 1
//! customer 192.0.2.18 psid-offset 6 psid-len 8 psid 52
//! saved 1790000000 boot 1f0c8a0e-6d5e-4f5e-9d0c-3f8e7a1b2c3d up 86400
//! tcp 192.168.1.10:40000 1232 203.0.113.7:443 own 1250 - 1e3 4fa2 33 12 4f80
//! udp 192.168.1.11:5353 2256 203.0.113.9:53 shared 750 750 0
//! icmp 192.168.1.12:77 3281 - own 0 -
//! map tcp 192.168.1.10:80 1233 pcp 5a1e0c3b9d7f2a4466aa01ff 3600000 203.0.113.0/24:0
//! peer udp 192.168.1.11:5353 2256 nat-pmp 3600000 203.0.113.9:53
//! end 5
//! ```
//!
//! A flow is: protocol, inside endpoint, outside port, remote endpoint, whose the port is, milliseconds for which it has
//! idled and for which nobody has answered it, what has been seen of it, sequence numbers. A mapping is one that a host
//! has asked for: kind, protocol, inside endpoint, outside port, who has asked, milliseconds for which it lasts, and who may
//! send (prefix and port, 0 for all), or the one remote endpoint.
//! What is not just so is refused as a whole: better no flow than a wrong one.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::map::PortSet;
use crate::napt::{Allowed, Inside, Napt, Nonce, Origin, Protocol, Remote, SavedFlow, SavedMapping, SavedState};

pub use crate::napt::Restored;

const HEAD: &str = "mapt mappings 1";
/// The longest line, in octets.
pub const MAX_LINE: usize = 200;
/// Longer than any idle time: a week.
const MAX_IDLE: Duration = Duration::from_secs(604_800);
/// The longest that PCP can tell (RFC 6887 §7.1).
const MAX_LIFETIME: Duration = Duration::from_secs(1 << 32);
/// Filters of a mapping.
const MAX_ALLOWED: usize = 4;

/// Whose flows they are: another customer has other ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Outside address.
    pub addr: Ipv4Addr,
    /// Its ports.
    pub psid_offset: u8,
    /// k
    pub psid_len: u8,
    /// 0 where the address is not shared.
    pub psid: u16,
}

impl Owner {
    /// Of an address and port set.
    pub fn new(addr: Ipv4Addr, ports: PortSet) -> Owner {
        let params = ports.params();
        Owner { addr, psid_offset: params.a(), psid_len: params.k(), psid: ports.psid().0 }
    }
}

impl Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Owner { addr, psid_offset, psid_len, psid } = self;
        write!(f, "{addr} psid-offset {psid_offset} psid-len {psid_len} psid {psid}")
    }
}

/// When a file was written, by two clocks: the one that people set, and the one that counts from the start of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since 1970.
    pub wall: Duration,
    /// Which start of the machine: hexadecimal digits and hyphens, at most 64.
    pub boot: String,
    /// Since then.
    pub up: Duration,
}

impl Moment {
    /// From `earlier` to here: by the machine's clock where it has not been started anew, else by the one that people set.
    /// `None` where that one has been set back.
    pub fn since(&self, earlier: &Moment) -> Option<Duration> {
        if self.boot == earlier.boot { self.up.checked_sub(earlier.up) } else { self.wall.checked_sub(earlier.wall) }
    }
}

/// What stood in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Whose flows they are.
    pub owner: Owner,
    /// When it was written.
    pub at: Moment,
    /// The flows, not yet compared with anything.
    pub flows: Vec<SavedFlow>,
    /// What hosts had asked for.
    pub mappings: Vec<SavedMapping>,
}

/// Why a file is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SavedError {
    /// From 1.
    pub line: usize,
    /// What stands there, and what was expected.
    pub message: String,
}

/// Writes the flows and mappings of a NAPT that live at `now`; how many flows.
pub fn write(out: &mut dyn Write, owner: Owner, at: &Moment, napt: &Napt<Inside>, now: Duration) -> io::Result<usize> {
    writeln!(out, "{HEAD}\ncustomer {owner}")?;
    writeln!(out, "saved {} boot {} up {}", at.wall.as_secs(), at.boot, at.up.as_secs())?;
    let (mut count, mut result) = (0, Ok(()));
    napt.save(now, &mut |flow| {
        if result.is_ok() {
            result = line(out, flow);
            count += 1;
        }
    });
    result?;
    let mappings = napt.save_mappings(now);
    for mapping in &mappings {
        mapping_line(out, mapping)?;
    }
    writeln!(out, "end {}", count + mappings.len())?;
    Ok(count)
}

fn mapping_line(out: &mut dyn Write, mapping: &SavedMapping) -> io::Result<()> {
    let SavedMapping { protocol, inside, port, remote, origin, lifetime, allowed } = mapping;
    let kind = if remote.is_some() { "peer" } else { "map" };
    write!(out, "{kind} {} {}:{} {port} ", name(*protocol), inside.addr, inside.port)?;
    match origin {
        Origin::Pcp(nonce) => {
            write!(out, "pcp ")?;
            nonce.iter().try_for_each(|octet| write!(out, "{octet:02x}"))?;
        }
        _ => write!(out, "nat-pmp")?,
    }
    write!(out, " {}", lifetime.as_millis())?;
    for Allowed { addr, prefix_len, port } in allowed {
        write!(out, " {addr}/{prefix_len}:{port}")?;
    }
    match remote {
        Some(remote) => writeln!(out, " {}:{}", remote.addr, remote.port),
        None => writeln!(out),
    }
}

fn line(out: &mut dyn Write, flow: &SavedFlow) -> io::Result<()> {
    let SavedFlow { protocol, inside, port, remote, shared, state, idle, waited } = flow;
    let used = if *shared { "shared" } else { "own" };
    write!(out, "{} {}:{} {port} ", name(*protocol), inside.addr, inside.port)?;
    match remote {
        Some(remote) => write!(out, "{}:{}", remote.addr, remote.port)?,
        None => write!(out, "-")?,
    }
    write!(out, " {used} {} ", idle.as_millis())?;
    match waited {
        Some(waited) => write!(out, "{}", waited.as_millis())?,
        None => write!(out, "-")?,
    }
    let [seen, a, b, c, d] = state.numbers();
    match protocol {
        Protocol::Tcp => writeln!(out, " {seen:x} {a:x} {b:x} {c:x} {d:x}"),
        Protocol::Udp => writeln!(out, " {seen:x}"),
        Protocol::Icmp => writeln!(out),
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

/// Reads a whole file of at most `most` flows and mappings.
pub fn parse(text: &str, most: usize) -> Result<Saved, SavedError> {
    let mut lines = Lines { rest: text.lines(), number: 0 };
    let (mut words, at) = lines.next()?;
    if (words.next(), words.next()) != (Some("mapt"), Some("mappings")) {
        return at.refuse(format!("this is no file of mappings: expected `{HEAD}`"));
    }
    at.expect(&mut words, "1", "version")?;
    at.end(words)?;

    let (mut words, at) = lines.next()?;
    at.expect(&mut words, "customer", "word")?;
    let addr = at.value(&mut words, "an IPv4 address")?;
    let mut number = |key, what| {
        at.expect(&mut words, key, "word")?;
        at.value::<u16>(&mut words, what)
    };
    let offset = number("psid-offset", "a PSID offset of 0 to 15")?;
    let len = number("psid-len", "a PSID length of 0 to 16")?;
    let psid = number("psid", "a PSID")?;
    at.end(words)?;
    if offset > 15 || len > 16 {
        return at.refuse(format!("PSID offset {offset} and length {len}: expected at most 15 and 16"));
    }
    let owner = Owner { addr, psid_offset: offset as u8, psid_len: len as u8, psid };

    let (mut words, at) = lines.next()?;
    at.expect(&mut words, "saved", "word")?;
    let wall = Duration::from_secs(at.value(&mut words, "seconds since 1970")?);
    at.expect(&mut words, "boot", "word")?;
    let boot = words.next().unwrap_or_default();
    if boot.is_empty() || boot.len() > 64 || !boot.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return at.refuse(format!("{} is no boot id", shown(boot)));
    }
    at.expect(&mut words, "up", "word")?;
    let up = Duration::from_secs(at.value(&mut words, "seconds since the start of the machine")?);
    at.end(words)?;
    let moment = Moment { wall, boot: boot.to_owned(), up };

    let (mut flows, mut mappings) = (Vec::new(), Vec::new());
    loop {
        let found = flows.len() + mappings.len();
        let (mut words, at) = lines.next()?;
        match words.next() {
            Some("end") => {
                let count: usize = at.value(&mut words, "a number of flows")?;
                at.end(words)?;
                if count != found {
                    return at.refuse(format!("it says {count} flows and mappings, and there are {found}"));
                }
                return match lines.rest.next() {
                    None => Ok(Saved { owner, at: moment, flows, mappings }),
                    Some(_) => {
                        Err(SavedError { line: lines.number + 1, message: "expected nothing behind `end`".into() })
                    }
                };
            }
            Some(kind @ ("map" | "peer")) if found < most => mappings.push(mapping(kind == "peer", words, at)?),
            Some(protocol) if found < most => flows.push(flow(protocol, words, at)?),
            Some(_) => return at.refuse(format!("expected at most {most} flows and mappings")),
            None => return at.refuse("is empty: expected a flow or `end`".into()),
        }
    }
}

type Words<'t> = std::str::SplitAsciiWhitespace<'t>;

fn flow(protocol: &str, mut words: Words<'_>, at: At) -> Result<SavedFlow, SavedError> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let Some(protocol) = protocols.into_iter().find(|known| name(*known) == protocol) else {
        return at.refuse(format!("{} is no protocol: expected tcp, udp, icmp or end", shown(protocol)));
    };
    let inside: SocketAddrV4 = at.value(&mut words, "an inside address and port")?;
    let port: u16 = at.value(&mut words, "an outside port")?;
    let remote = match protocol {
        Protocol::Icmp => at.expect(&mut words, "-", "remote endpoint of an echo identifier").map(|()| None)?,
        _ => {
            let remote: SocketAddrV4 = at.value(&mut words, "a remote address and port")?;
            Some(Remote { addr: *remote.ip(), port: remote.port() })
        }
    };
    let shared = match words.next() {
        Some("own") => false,
        Some("shared") => true,
        other => return at.refuse(format!("{}: expected own or shared", shown(other.unwrap_or_default()))),
    };
    let milliseconds = |text: Option<&str>| {
        let text = text.unwrap_or_default();
        let time = text.parse().ok().map(Duration::from_millis).filter(|time| *time <= MAX_IDLE);
        time.ok_or(()).or_else(|()| at.refuse(format!("{} is no time of at most a week, in milliseconds", shown(text))))
    };
    let idle = milliseconds(words.next())?;
    let waited = match words.next() {
        Some("-") => None,
        text => Some(milliseconds(text)?),
    };
    let mut numbers = [0; 5];
    let known = match protocol {
        Protocol::Tcp => 5,
        Protocol::Udp => 1,
        Protocol::Icmp => 0,
    };
    for number in &mut numbers[..known] {
        let text = words.next().unwrap_or_default();
        let Ok(value) = u32::from_str_radix(text, 16) else {
            return at.refuse(format!("{} is no hexadecimal number of 32 bits", shown(text)));
        };
        *number = value;
    }
    at.end(words)?;
    let Some(state) = SavedState::new(numbers) else {
        return at.refuse(format!("`{:x}` is no state", numbers[0]));
    };
    let inside = Inside { addr: *inside.ip(), port: inside.port() };
    Ok(SavedFlow { protocol, inside, port, remote, shared, state, idle, waited })
}

fn mapping(is_peer: bool, mut words: Words<'_>, at: At) -> Result<SavedMapping, SavedError> {
    let protocol = match words.next() {
        Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        other => return at.refuse(format!("{}: expected tcp or udp", shown(other.unwrap_or_default()))),
    };
    let inside: SocketAddrV4 = at.value(&mut words, "an inside address and port")?;
    let port: u16 = at.value(&mut words, "an outside port")?;
    let origin = match words.next() {
        Some("nat-pmp") => Origin::NatPmp,
        Some("pcp") => {
            let text = words.next().unwrap_or_default();
            let Some(nonce) = nonce(text) else {
                return at.refuse(format!("{} is no nonce of 24 hexadecimal digits", shown(text)));
            };
            Origin::Pcp(nonce)
        }
        other => return at.refuse(format!("{}: expected pcp or nat-pmp", shown(other.unwrap_or_default()))),
    };
    let lifetime = Duration::from_millis(at.value(&mut words, "a lifetime in milliseconds")?);
    if lifetime > MAX_LIFETIME {
        return at.refuse(format!("{} ms: expected a lifetime of at most 2^32 seconds", lifetime.as_millis()));
    }
    let (mut remote, mut allowed) = (None, Vec::new());
    if is_peer {
        let endpoint: SocketAddrV4 = at.value(&mut words, "a remote address and port")?;
        remote = Some(Remote { addr: *endpoint.ip(), port: endpoint.port() });
    }
    for text in words.by_ref() {
        match filter(text).filter(|_| !is_peer && allowed.len() < MAX_ALLOWED) {
            Some(filter) => allowed.push(filter),
            None => return at.refuse(format!("{}: expected at most {MAX_ALLOWED} prefixes and ports", shown(text))),
        }
    }
    let inside = Inside { addr: *inside.ip(), port: inside.port() };
    Ok(SavedMapping { protocol, inside, port, remote, origin, lifetime, allowed })
}

fn nonce(text: &str) -> Option<Nonce> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let octets: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit)).collect();
    octets.try_into().ok().filter(|_| digits.len() == 24)
}

/// Such as `203.0.113.0/24:0`.
fn filter(text: &str) -> Option<Allowed> {
    let (prefix, port) = text.rsplit_once(':')?;
    let (addr, len) = prefix.split_once('/')?;
    let prefix_len = len.parse().ok().filter(|len| *len <= 32)?;
    Some(Allowed { addr: addr.parse().ok()?, prefix_len, port: port.parse().ok()? })
}

struct Lines<'t> {
    rest: std::str::Lines<'t>,
    number: usize,
}

impl<'t> Lines<'t> {
    fn next(&mut self) -> Result<(Words<'t>, At), SavedError> {
        self.number += 1;
        let at = At(self.number);
        match self.rest.next() {
            Some(line) if line.len() <= MAX_LINE => Ok((line.split_ascii_whitespace(), at)),
            Some(_) => at.refuse(format!("is longer than {MAX_LINE} octets")),
            None => at.refuse("the file ends here: expected `end` and the number of flows".into()),
        }
    }
}

#[derive(Clone, Copy)]
struct At(usize);

impl At {
    fn refuse<T>(self, message: String) -> Result<T, SavedError> {
        Err(SavedError { line: self.0, message })
    }

    fn value<T: std::str::FromStr>(self, words: &mut Words<'_>, what: impl Display) -> Result<T, SavedError> {
        let text = words.next().unwrap_or_default();
        text.parse().or_else(|_| self.refuse(format!("{}: expected {what}", shown(text))))
    }

    fn expect(self, words: &mut Words<'_>, expected: &str, what: &str) -> Result<(), SavedError> {
        match words.next() {
            Some(word) if word == expected => Ok(()),
            other => self.refuse(format!("{}: expected the {what} `{expected}`", shown(other.unwrap_or_default()))),
        }
    }

    fn end(self, mut words: Words<'_>) -> Result<(), SavedError> {
        words.next().map_or(Ok(()), |word| self.refuse(format!("{}: expected the end of the line", shown(word))))
    }
}

/// A word as a person may see it.
fn shown(word: &str) -> String {
    if word.is_empty() { "nothing".into() } else { format!("`{}`", word.escape_debug()) }
}
