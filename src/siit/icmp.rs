//! ICMP types and codes, both tables side by side (RFC 7915 §4.2, §5.2). What is not listed is dropped.

/// What the four octets behind the checksum hold in the translated error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Zeros.
    Unused,
    /// A next-hop MTU, by `siit::mtu`.
    Mtu,
    /// A pointer.
    Pointer(u8),
}

/// Type, code and field of a translated error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four octets behind the checksum.
    pub field: Field,
}

const fn plain(kind: u8, code: u8) -> Option<IcmpError> {
    Some(IcmpError { kind, code, field: Field::Unused })
}

fn pointer(kind: u8, code: u8, pointer: Option<u8>) -> Option<IcmpError> {
    pointer.map(|p| IcmpError { kind, code, field: Field::Pointer(p) })
}

/// ICMPv4 error to ICMPv6 error. `at` is the pointer octet of a Parameter Problem.
pub fn error_v4_to_v6(kind: u8, code: u8, at: u8) -> Option<IcmpError> {
    match (kind, code) {
        (3, 0 | 1 | 5 | 6 | 7 | 8 | 11 | 12) => plain(1, 0),
        (3, 2) => pointer(4, 1, Some(6)),
        (3, 3) => plain(1, 4),
        (3, 4) => Some(IcmpError { kind: 2, code: 0, field: Field::Mtu }),
        (3, 9 | 10 | 13 | 15) => plain(1, 1),
        (11, code) => plain(3, code),
        (12, 0 | 2) => pointer(4, 0, pointer_v4_to_v6(at)),
        _ => None,
    }
}

/// ICMPv6 error to ICMPv4 error. `at` is the pointer of a Parameter Problem.
pub fn error_v6_to_v4(kind: u8, code: u8, at: u32) -> Option<IcmpError> {
    match (kind, code) {
        (1, 0 | 2 | 3) => plain(3, 1),
        (1, 1) => plain(3, 10),
        (1, 4) => plain(3, 3),
        (2, 0) => Some(IcmpError { kind: 3, code: 4, field: Field::Mtu }),
        (3, code) => plain(11, code),
        (4, 0) => pointer(12, 0, pointer_v6_to_v4(at)),
        (4, 1) => plain(3, 2),
        _ => None,
    }
}

/// RFC 7915 figure 3.
fn pointer_v4_to_v6(at: u8) -> Option<u8> {
    Some(match at {
        0 => 0,
        1 => 1,
        2 | 3 => 4,
        8 => 7,
        9 => 6,
        12..=15 => 8,
        16..=19 => 24,
        _ => return None,
    })
}

/// RFC 7915 figure 6.
fn pointer_v6_to_v4(at: u32) -> Option<u8> {
    Some(match at {
        0 => 0,
        1 => 1,
        4 | 5 => 2,
        6 => 9,
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return None,
    })
}
