//! The generalised modulus algorithm: port = A | PSID | j (RFC 7597 §5.1).
use std::ops::RangeInclusive;

/// A Port-Set Identifier, right-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Psid(pub u16);
/// PSID offset a and PSID length k of a shared address; a + k <= 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortParams {
    a: u8,
    k: u8,
}
/// Why (a, k) is no port mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a={a} k={k}")]
pub struct PortParamsError {
    /// a
    pub a: u8,
    /// k
    pub k: u8,
}
impl PortParams {
    /// Refuses a > 15, k > 16 and a + k > 16.
    pub fn new(_a: u8, _k: u8) -> Result<Self, PortParamsError> {
        todo!()
    }
    /// PSID offset in bits.
    pub fn a(self) -> u8 {
        self.a
    }
    /// PSID length in bits.
    pub fn k(self) -> u8 {
        self.k
    }
    /// Bits of contiguous ports, 16 - a - k.
    pub fn m(self) -> u8 {
        16 - self.a - self.k
    }
    /// The owner of a port; `None` for a port that no PSID owns (a > 0 and A = 0).
    #[inline]
    pub fn psid_of(self, _port: u16) -> Option<Psid> {
        todo!()
    }
    /// The ports of one PSID; `None` where the PSID has more than k bits.
    pub fn port_set(self, _psid: Psid) -> Option<PortSet> {
        todo!()
    }
}
/// The ports that one customer owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSet {
    params: Option<(PortParams, Psid)>,
}
impl PortSet {
    /// All 65,536 ports: an address that is not shared (RFC 7597 §5.2).
    pub const ALL: PortSet = PortSet { params: None };
    /// Whether the port is in the set.
    #[inline]
    pub fn contains(&self, _port: u16) -> bool {
        todo!()
    }
    /// How many ports, 0..=65536.
    pub fn count(&self) -> u32 {
        todo!()
    }
    /// The n-th port in ascending order.
    #[inline]
    pub fn nth(&self, _n: u32) -> Option<u16> {
        todo!()
    }
    /// The inverse of `nth`.
    #[inline]
    pub fn index_of(&self, _port: u16) -> Option<u32> {
        todo!()
    }
    /// The runs of contiguous ports, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> + use<> {
        std::iter::empty()
    }
}
