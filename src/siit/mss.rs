//! Lowering the MSS option of a SYN (RFC 9293 §3.7.1), so that what comes back fits (RFC 7599 §10).

use super::{Plan, TranslationParams};
use crate::wire::checksum::{Sum, adjust};
use crate::wire::ip::be16;

/// The flag.
pub(super) const SYN: u8 = 2;
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
const HEADER: usize = 20;
/// Octets of options in the longest header.
const MOST: usize = 40;

/// The options of a TCP header with a lower MSS.
struct Lowered {
    bytes: [u8; MOST],
    /// Octets that there are of them.
    len: usize,
    /// What that changes in the sum of the segment.
    delta: Sum,
}

/// Lowers the MSS of a SYN, whose 20 octets of header stand at `at` in the plan and whose options still belong to what
/// stays behind it. A partial checksum does not cover them.
#[cold]
pub(super) fn clamp(
    plan: &mut Plan,
    at: usize,
    tcp: &[u8],
    header_len: usize,
    params: &TranslationParams,
    partial: bool,
) {
    let Some(new) = lowered(tcp, header_len, params) else { return };
    plan.take_in(&new.bytes[..new.len]);
    if !partial {
        let sum = adjust(be16(plan.head(), at + 16), new.delta);
        plan.patch(at + 16, sum.to_be_bytes());
    }
}

/// Reads the options of a SYN, whose header should be `header_len` octets and is in `tcp` as far as a first fragment
/// has it. `None` where nothing is above the limit. No option is ever added.
fn lowered(tcp: &[u8], header_len: usize, params: &TranslationParams) -> Option<Lowered> {
    let limit = params.mss_limit()?;
    let options = tcp.get(HEADER..header_len.min(tcp.len()))?;
    let mut new = Lowered { bytes: [0; MOST], len: options.len(), delta: Sum::ZERO };
    let bytes = new.bytes.get_mut(..options.len())?;
    bytes.copy_from_slice(options);
    let mut at = 0;
    let mut changed = false;
    while let Some(&kind) = bytes.get(at) {
        let len = match (kind, bytes.get(at + 1)) {
            (END, _) | (_, None) => break,
            (NOTHING, _) => 1,
            // A length below 2 would never end.
            (_, Some(&len)) if len < 2 => break,
            (_, Some(&len)) => usize::from(len),
        };
        let Some(option) = bytes.get_mut(at..at + len) else { break };
        if kind == MSS && len == 4 && be16(option, 2) > limit {
            let old = be16(option, 2);
            option[2..4].copy_from_slice(&limit.to_be_bytes());
            // At an odd offset its octets stand in two words, the wrong way round.
            let word = |value: u16| Sum::ZERO.word(if at % 2 == 0 { value } else { value.swap_bytes() });
            new.delta = new.delta.plus(word(limit)).minus(word(old));
            changed = true;
        }
        at += len;
    }
    changed.then_some(new)
}

#[cfg(test)]
mod tests {
    use super::super::MssClamp;
    use super::*;

    fn clamped(options: &[u8], header_len: usize) -> Option<Vec<u8>> {
        let params = TranslationParams { tcp_mss_clamp: MssClamp::To(1000), ..Default::default() };
        let tcp = [&[0; HEADER], options].concat();
        lowered(&tcp, header_len, &params).map(|l| l.bytes[..l.len].to_vec())
    }

    #[test]
    fn p37_options_that_lie() {
        assert_eq!(clamped(&[2, 4, 5, 180], 24), Some(vec![2, 4, 3, 232]));
        assert_eq!(clamped(&[2, 4, 3, 232], 24), None, "P37: only lowering");
        assert_eq!(clamped(&[2, 4, 5, 180], 20), None, "behind the header");
        assert_eq!(clamped(&[2, 4, 5], 24), None, "P37: cut by a first fragment");
        assert_eq!(clamped(&[2], 24), None);
        assert_eq!(clamped(&[2, 0, 5, 180, 2, 4, 5, 180], 28), None, "P37: length 0");
        assert_eq!(clamped(&[3, 1, 2, 4, 5, 180, 0, 0], 28), None, "P37: length 1");
        assert_eq!(clamped(&[9, 200, 2, 4, 5, 180, 0, 0], 28), None, "P37: beyond the header");
        assert_eq!(clamped(&[2, 3, 5, 2, 4, 5, 180, 0], 28), Some(vec![2, 3, 5, 2, 4, 3, 232, 0]), "no MSS option");
        assert_eq!(clamped(&[0, 2, 4, 5, 180, 0, 0, 0], 28), None, "behind the end");
        assert_eq!(clamped(&[1, 2, 4, 5, 180, 0, 0, 0], 28), Some(vec![1, 2, 4, 3, 232, 0, 0, 0]));
        assert_eq!(clamped(&[2, 4, 5, 180, 2, 4, 9, 9], 28), Some(vec![2, 4, 3, 232, 2, 4, 3, 232]), "every one");
        let long = [[1; 36].as_slice(), &[2, 4, 5, 180]].concat();
        assert_eq!(clamped(&long, 60).map(|b| b[36..].to_vec()), Some(vec![2, 4, 3, 232]));
    }
}
