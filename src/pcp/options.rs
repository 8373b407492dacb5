//! Options of a PCP request (RFC 6887 §7.3, §13).

use std::net::Ipv4Addr;

use super::v2::{Code, Opcode, ipv4};
use crate::napt::Allowed;

const THIRD_PARTY: u8 = 1;
const PREFER_FAILURE: u8 = 2;
const FILTER: u8 = 3;
/// From here on an option that is not understood is passed over (RFC 6887 §7.3).
const OPTIONAL: u8 = 128;

/// What the options say, and those that go into the answer.
#[derive(Default)]
pub(super) struct Options {
    pub(super) prefer_failure: bool,
    /// `None` removes those before it.
    pub(super) filters: Vec<Option<Allowed>>,
    pub(super) processed: Vec<u8>,
}

/// Reads options in their order; the first that is wrong is the answer.
pub(super) fn read(opcode: Opcode, from: Ipv4Addr, mut rest: &[u8]) -> Result<Options, Code> {
    let mut options = Options::default();
    let mut third_party = false;
    while let [code, _, len0, len1, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*len0, *len1]));
        let data = after.get(..len).ok_or(Code::MalformedOption)?;
        let end = 4 + len.next_multiple_of(4);
        let whole = rest.get(..end).ok_or(Code::MalformedOption)?;
        match *code {
            THIRD_PARTY if opcode != Opcode::Announce => {
                let addr = <&[u8; 16]>::try_from(data).map_err(|_| Code::MalformedOption)?;
                if ipv4(addr) == Some(from) {
                    return Err(Code::MalformedRequest);
                }
                if third_party {
                    return Err(Code::MalformedOption);
                }
                third_party = true;
            }
            PREFER_FAILURE | FILTER if opcode != Opcode::Map => return Err(Code::MalformedRequest),
            PREFER_FAILURE if len != 0 || options.prefer_failure => return Err(Code::MalformedOption),
            PREFER_FAILURE => {
                options.prefer_failure = true;
                options.processed.extend(whole);
            }
            FILTER => {
                options.filters.push(filter(data)?);
                options.processed.extend(whole);
            }
            OPTIONAL.. => {}
            _ => return Err(Code::UnsuppOption),
        }
        rest = &rest[end..];
    }
    // Nobody speaks for others here.
    if third_party { Err(Code::UnsuppOption) } else { Ok(options) }
}

/// A prefix length counts bits of the IPv4 address, or of its IPv4-mapped form (RFC 6887 §5, §13.3).
fn filter(data: &[u8]) -> Result<Option<Allowed>, Code> {
    let [_, prefix_len, port0, port1, addr @ ..] = data else { return Err(Code::MalformedOption) };
    let addr = <&[u8; 16]>::try_from(addr).map_err(|_| Code::MalformedOption)?;
    let prefix_len = match prefix_len {
        0 => return Ok(None),
        bits @ 1..=32 => *bits,
        bits @ 96..=128 => bits - 96,
        _ => return Err(Code::MalformedOption),
    };
    let addr = ipv4(addr).ok_or(Code::MalformedOption)?;
    Ok(Some(Allowed { addr, prefix_len, port: u16::from_be_bytes([*port0, *port1]) }))
}
