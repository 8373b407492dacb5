//! PCP, version 2 (RFC 6887).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::options::{self, Options};
use super::{At, MAX_MESSAGE};
use crate::napt::{Denied, Granted, Inside, InsideKey, Napt, Nonce, Origin, Protocol, Remote, Want};

const VERSION: u8 = 2;
/// The R bit.
pub(super) const RESPONSE: u8 = 0x80;
const HEADER: usize = 24;
const MAP: usize = 36;
const PEER: usize = 56;

/// How long a client need not ask again (RFC 6887 §7.4).
const LONG: u32 = 30 * 60;
const SHORT: u32 = 30;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Announce,
    Map,
    Peer,
}

/// Result codes (RFC 6887 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    UnsuppVersion = 1,
    NotAuthorized = 2,
    MalformedRequest = 3,
    UnsuppOpcode = 4,
    UnsuppOption = 5,
    MalformedOption = 6,
    NetworkFailure = 7,
    NoResources = 8,
    UnsuppProtocol = 9,
    UserExQuota = 10,
    CannotProvideExternal = 11,
    AddressMismatch = 12,
    ExcessiveRemotePeers = 13,
}

impl Code {
    /// Whether the request was not parsed: the answer has the client's address then (RFC 6887 §7.2).
    fn is_of_parsing(self) -> bool {
        use Code::*;
        matches!(self, UnsuppVersion | MalformedRequest | UnsuppOpcode | UnsuppOption | MalformedOption)
    }

    fn lifetime(self) -> u32 {
        use Code::*;
        match self {
            NetworkFailure | NoResources | UserExQuota | CannotProvideExternal => SHORT,
            _ => LONG,
        }
    }
}

impl From<Denied> for Code {
    fn from(denied: Denied) -> Code {
        match denied {
            Denied::NotAuthorized => Code::NotAuthorized,
            Denied::NoResources => Code::NoResources,
            Denied::Quota => Code::UserExQuota,
            Denied::CannotProvide => Code::CannotProvideExternal,
            Denied::TooManyFilters => Code::ExcessiveRemotePeers,
        }
    }
}

/// The answer to a datagram of two octets or more that is no response.
pub(super) fn answer(at: &At<'_>, napt: Option<&mut Napt<Inside>>, request: &[u8]) -> Vec<u8> {
    process(at, napt, request).unwrap_or_else(|code| error(at, request, code))
}

/// An unsolicited ANNOUNCE response (RFC 6887 §14.1.3).
pub(super) fn announcement(epoch: u32) -> Vec<u8> {
    header(0, 0, epoch)
}

fn process(at: &At<'_>, napt: Option<&mut Napt<Inside>>, request: &[u8]) -> Result<Vec<u8>, Code> {
    let fits = request.len() <= MAX_MESSAGE && request.len().is_multiple_of(4);
    let (opcode, len) = match *request {
        [version, ..] if version != VERSION => return Err(Code::UnsuppVersion),
        _ if !fits || request.len() < HEADER => return Err(Code::MalformedRequest),
        [_, 0, ..] => (Opcode::Announce, 0),
        [_, 1, ..] => (Opcode::Map, MAP),
        [_, 2, ..] => (Opcode::Peer, PEER),
        _ => return Err(Code::UnsuppOpcode),
    };
    let (Some(head), Some(body)) = (request.first_chunk::<HEADER>(), request.get(HEADER..HEADER + len)) else {
        return Err(Code::MalformedRequest);
    };
    if ipv4(&array(head, 8)) != Some(at.from) {
        return Err(Code::AddressMismatch);
    }
    let options = options::read(opcode, at.from, &request[HEADER + len..])?;
    let lifetime = u32::from_be_bytes(array(head, 4));
    let (lifetime, body) = match opcode {
        Opcode::Announce => (0, Vec::new()),
        Opcode::Map => map(at, napt, lifetime, body, &options)?,
        Opcode::Peer => peer(at, napt, lifetime, body)?,
    };
    let mut answer = header(opcode as u8, lifetime, at.epoch);
    answer.extend(body);
    answer.extend(options.processed);
    Ok(answer)
}

/// RFC 6887 §11.3, §15.1.
fn map(
    at: &At<'_>,
    napt: Option<&mut Napt<Inside>>,
    lifetime: u32,
    body: &[u8],
    options: &Options,
) -> Result<(u32, Vec<u8>), Code> {
    let ends = Ends::of(body);
    if ends.protocol == 0 && ends.inside != 0 {
        return Err(Code::MalformedRequest);
    }
    let unspecified = is_unspecified(&ends.suggested_addr);
    if options.prefer_failure && ends.suggested == 0 && unspecified {
        return Err(Code::MalformedOption);
    }
    let napt = napt.ok_or(Code::NetworkFailure)?;
    let inside = Inside { addr: at.from, port: ends.inside };
    let origin = Origin::Pcp(ends.nonce);
    if lifetime == 0 {
        match (protocol(ends.protocol), ends.inside) {
            _ if ends.protocol == 0 => napt.unmap_all(None, inside.host(), origin),
            (None, _) => return Err(Code::UnsuppProtocol),
            (Some(protocol), 0) => napt.unmap_all(Some(protocol), inside.host(), origin),
            (Some(protocol), _) => napt.unmap(protocol, inside, origin)?,
        }
        // What was suggested comes back as what is assigned.
        return Ok((0, body.to_vec()));
    }
    let protocol = protocol(ends.protocol).filter(|_| ends.inside != 0).ok_or(Code::UnsuppProtocol)?;
    if options.prefer_failure && !unspecified && ipv4(&ends.suggested_addr) != Some(napt.addr()) {
        return Err(Code::CannotProvideExternal);
    }
    let want = Want {
        protocol,
        inside,
        origin,
        lifetime: clamped(at, lifetime),
        suggested: ends.suggested,
        // The address alone may be what it insists on.
        prefer_failure: options.prefer_failure && ends.suggested != 0,
        filters: options.filters.clone(),
        per_host: at.params.per_host,
    };
    let granted = napt.map(&want, at.now)?;
    Ok(assigned(body, &granted))
}

/// RFC 6887 §12.3.
fn peer(at: &At<'_>, napt: Option<&mut Napt<Inside>>, lifetime: u32, body: &[u8]) -> Result<(u32, Vec<u8>), Code> {
    let ends = Ends::of(body);
    let remote_port = u16::from_be_bytes(array(body, MAP));
    let remote_addr = ipv4(&array(body, MAP + 4)).ok_or(Code::MalformedRequest)?;
    if ends.protocol == 0 || ends.inside == 0 || remote_port == 0 || !super::is_client(remote_addr) {
        return Err(Code::MalformedRequest);
    }
    let protocol = protocol(ends.protocol).ok_or(Code::UnsuppProtocol)?;
    let napt = napt.ok_or(Code::NetworkFailure)?;
    if !is_unspecified(&ends.suggested_addr) && ipv4(&ends.suggested_addr) != Some(napt.addr()) {
        return Err(Code::CannotProvideExternal);
    }
    let want = Want {
        protocol,
        inside: Inside { addr: at.from, port: ends.inside },
        origin: Origin::Pcp(ends.nonce),
        lifetime: clamped(at, lifetime),
        suggested: ends.suggested,
        prefer_failure: true,
        filters: Vec::new(),
        per_host: at.params.per_host,
    };
    let granted = napt.peer(&want, Remote { addr: remote_addr, port: remote_port }, at.now)?;
    Ok(assigned(body, &granted))
}

/// What MAP and PEER begin with (RFC 6887 §11.1, §12.1).
struct Ends {
    nonce: Nonce,
    protocol: u8,
    inside: u16,
    suggested: u16,
    suggested_addr: [u8; 16],
}

impl Ends {
    fn of(body: &[u8]) -> Ends {
        Ends {
            nonce: array(body, 0),
            protocol: array::<1>(body, 12)[0],
            inside: u16::from_be_bytes(array(body, 16)),
            suggested: u16::from_be_bytes(array(body, 18)),
            suggested_addr: array(body, 20),
        }
    }
}

/// The lifetime, and the request's body with what was assigned.
fn assigned(body: &[u8], granted: &Granted) -> (u32, Vec<u8>) {
    let mut body = body.to_vec();
    body[18..20].copy_from_slice(&granted.outside.port.to_be_bytes());
    body[20..36].copy_from_slice(&granted.outside.addr.to_ipv6_mapped().octets());
    (u32::try_from(granted.lifetime.as_secs()).unwrap_or(u32::MAX), body)
}

/// RFC 6887 §15.
fn clamped(at: &At<'_>, lifetime: u32) -> Duration {
    Duration::from_secs(lifetime.into()).min(at.params.max_lifetime).max(at.params.min_lifetime)
}

fn header(opcode: u8, lifetime: u32, epoch: u32) -> Vec<u8> {
    let mut header = vec![VERSION, RESPONSE | opcode, 0, 0];
    header.extend(lifetime.to_be_bytes());
    header.extend(epoch.to_be_bytes());
    header.resize(HEADER, 0);
    header
}

/// The request with another head: cut to 1100 octets, filled up to a multiple of four (RFC 6887 §8.2).
fn error(at: &At<'_>, request: &[u8], code: Code) -> Vec<u8> {
    let mut answer = request[..request.len().min(MAX_MESSAGE)].to_vec();
    answer.resize(answer.len().next_multiple_of(4).max(HEADER), 0);
    let opcode = answer[1];
    let fields = if code.is_of_parsing() { 12 } else { HEADER };
    answer[..fields].copy_from_slice(&header(opcode, code.lifetime(), at.epoch)[..fields]);
    answer[3] = code as u8;
    answer
}

/// The address in an IPv4-mapped one (RFC 6887 §5).
pub(super) fn ipv4(addr: &[u8; 16]) -> Option<Ipv4Addr> {
    std::net::Ipv6Addr::from(*addr).to_ipv4_mapped()
}

/// The all-zeros address of either family (RFC 6887 §5).
fn is_unspecified(addr: &[u8; 16]) -> bool {
    *addr == [0; 16] || ipv4(addr) == Some(Ipv4Addr::UNSPECIFIED)
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    }
}

/// `N` octets; zeros where there are not so many.
fn array<const N: usize>(octets: &[u8], at: usize) -> [u8; N] {
    octets.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
