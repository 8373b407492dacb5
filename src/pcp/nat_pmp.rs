//! NAT-PMP (RFC 6886).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::At;
use crate::napt::{Denied, Inside, InsideKey, Napt, Origin, Protocol, Want};

pub(super) const VERSION: u8 = 0;

const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const MAP_TCP: u8 = 2;

/// RFC 6886 §3.5.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Success = 0,
    Refused = 2,
    NetworkFailure = 3,
    OutOfResources = 4,
    UnsupportedOpcode = 5,
}

/// `None` for what is too short (RFC 6886 §3.3).
pub(super) fn answer(at: &At<'_>, napt: Option<&mut Napt<Inside>>, request: &[u8]) -> Option<Vec<u8>> {
    match *request {
        [_, ADDRESS, ..] => {
            let (code, addr) = match napt {
                Some(napt) => (Code::Success, napt.addr()),
                None => (Code::NetworkFailure, Ipv4Addr::UNSPECIFIED),
            };
            Some(address(code, at.epoch, addr))
        }
        [_, opcode @ (MAP_UDP | MAP_TCP), _, _, p0, p1, s0, s1, l0, l1, l2, l3, ..] => {
            let protocol = if opcode == MAP_UDP { Protocol::Udp } else { Protocol::Tcp };
            let inside = Inside { addr: at.from, port: u16::from_be_bytes([p0, p1]) };
            let suggested = u16::from_be_bytes([s0, s1]);
            let lifetime = u32::from_be_bytes([l0, l1, l2, l3]);
            let (code, port, lifetime) = match map(at, napt, protocol, inside, suggested, lifetime) {
                Ok((port, lifetime)) => (Code::Success, port, lifetime),
                Err(code) => (code, 0, 0),
            };
            let mut answer = header(opcode, code, at.epoch);
            answer.extend([p0, p1]);
            answer.extend(port.to_be_bytes());
            answer.extend(lifetime.to_be_bytes());
            Some(answer)
        }
        [_, MAP_UDP | MAP_TCP, ..] => None,
        [_, opcode, ..] => Some(header(opcode, Code::UnsupportedOpcode, at.epoch)),
        _ => None,
    }
}

/// The outside port and lifetime of a mapping; both 0 of one that is gone (RFC 6886 §3.4).
fn map(
    at: &At<'_>,
    napt: Option<&mut Napt<Inside>>,
    protocol: Protocol,
    inside: Inside,
    suggested: u16,
    lifetime: u32,
) -> Result<(u16, u32), Code> {
    let napt = napt.ok_or(Code::NetworkFailure)?;
    let origin = Origin::NatPmp;
    match (lifetime, inside.port) {
        (0, 0) => napt.unmap_all(Some(protocol), inside.host(), origin),
        (0, _) => napt.unmap(protocol, inside, origin).map_err(|_| Code::Refused)?,
        // Nobody listens on port 0.
        (_, 0) => return Err(Code::Refused),
        _ => {
            // Never longer than asked for.
            let lifetime = Duration::from_secs(lifetime.into()).min(at.params.max_lifetime);
            let want = Want {
                protocol,
                inside,
                origin,
                lifetime,
                suggested,
                prefer_failure: false,
                filters: Vec::new(),
                per_host: at.params.per_host,
            };
            let granted = napt.map(&want, at.now).map_err(|denied| match denied {
                Denied::NotAuthorized => Code::Refused,
                _ => Code::OutOfResources,
            })?;
            return Ok((granted.outside.port, granted.lifetime.min(lifetime).as_secs() as u32));
        }
    }
    Ok((0, 0))
}

/// What hosts are told of a new address (RFC 6886 §3.2.1).
pub(super) fn announcement(epoch: u32, addr: Ipv4Addr) -> Vec<u8> {
    address(Code::Success, epoch, addr)
}

fn address(code: Code, epoch: u32, addr: Ipv4Addr) -> Vec<u8> {
    let mut answer = header(ADDRESS, code, epoch);
    answer.extend(addr.octets());
    answer
}

fn header(opcode: u8, code: Code, epoch: u32) -> Vec<u8> {
    let mut header = vec![VERSION, 128 + opcode, 0, code as u8];
    header.extend(epoch.to_be_bytes());
    header
}
