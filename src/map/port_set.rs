//! The generalised modulus algorithm: port = A | PSID | j (RFC 7597 §5.1, §B).
//!
//! A is the highest a bits of a port, the PSID the next k, and j the last m = 16 - a - k. Where a > 0 a port with
//! A = 0 belongs to nobody: with the default a = 6 these are the ports 0-1023.

use std::ops::RangeInclusive;

/// A Port-Set Identifier, right-aligned: below 2^k.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Psid(pub u16);

/// PSID offset a and PSID length k of a shared address; a is 0..=15, k 0..=16, a + k at most 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortParams {
    a: u8,
    k: u8,
    m: u8,
    /// 2^k - 1.
    psid_mask: u16,
    /// 2^(16-a), or 0.
    first_port: u16,
}

/// Why a PSID offset and a PSID length are no port mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PSID offset {a} with PSID length {k}: the offset is 0 to 15, the length 0 to 16, both together at most 16")]
pub struct PortParamsError {
    /// PSID offset in bits.
    pub a: u8,
    /// PSID length in bits.
    pub k: u8,
}

impl PortParams {
    /// All ports in one set: an address that is not shared.
    pub(super) const UNSHARED: PortParams = PortParams::of(0, 0);

    const fn of(a: u8, k: u8) -> Self {
        let psid_mask = ((1u32 << k) - 1) as u16;
        PortParams { a, k, m: 16 - a - k, psid_mask, first_port: if a == 0 { 0 } else { 1 << (16 - a) } }
    }
    /// Refuses a > 15 (RFC 7598 §4.5), k > 16 and a + k > 16. Both are in bits.
    pub fn new(a: u8, k: u8) -> Result<Self, PortParamsError> {
        if a > 15 || k > 16 || a + k > 16 { Err(PortParamsError { a, k }) } else { Ok(Self::of(a, k)) }
    }
    /// PSID offset in bits, 0..=15.
    #[inline(always)]
    pub fn a(self) -> u8 {
        self.a
    }
    /// PSID length in bits, 0..=16; 2^k customers share an address.
    #[inline(always)]
    pub fn k(self) -> u8 {
        self.k
    }
    /// Bits of contiguous ports, 16 - a - k: a customer's ports come in runs of 2^m.
    #[inline(always)]
    pub fn m(self) -> u8 {
        self.m
    }
    /// The lowest port that somebody owns: 0 where a = 0, else 2^(16-a) (RFC 7597 §5.1).
    #[inline(always)]
    pub fn first_port(self) -> u16 {
        self.first_port
    }
    /// The owner of a port; `None` for a port that no PSID owns (a > 0 and A = 0, RFC 7597 §5.1).
    #[inline(always)]
    pub fn psid_of(self, port: u16) -> Option<Psid> {
        let psid = Psid((u32::from(port) >> self.m) as u16 & self.psid_mask);
        (port >= self.first_port).then_some(psid)
    }
    /// The ports of one PSID; `None` where the PSID has more than k bits.
    pub fn port_set(self, psid: Psid) -> Option<PortSet> {
        (psid.0 & !self.psid_mask == 0).then_some(PortSet { params: self, psid })
    }
}

/// The ports that one customer owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSet {
    params: PortParams,
    psid: Psid,
}

impl PortSet {
    /// All 65,536 ports: an address that is not shared (RFC 7597 §5.2).
    pub const ALL: PortSet = PortSet { params: PortParams::UNSHARED, psid: Psid(0) };

    /// PSID offset and length; both 0 for [`PortSet::ALL`].
    pub fn params(&self) -> PortParams {
        self.params
    }
    /// The PSID; 0 for [`PortSet::ALL`].
    pub fn psid(&self) -> Psid {
        self.psid
    }
    /// Whether the port is in the set.
    #[inline(always)]
    pub fn contains(&self, port: u16) -> bool {
        self.params.psid_of(port) == Some(self.psid)
    }
    /// How many ports, 1..=65536: 2^16 where a = k = 0, else 2^(16-k) - 2^m, or 2^(16-k) where a = 0
    /// (RFC 7597 §5.1).
    #[inline(always)]
    pub fn count(&self) -> u32 {
        self.range_count() << self.params.m()
    }
    /// How many runs of contiguous ports, 1..=32767: 2^a - 1, or 1 where a = 0.
    #[inline(always)]
    pub fn range_count(&self) -> u32 {
        (1 << self.params.a) - self.first_a()
    }
    /// The first A of the set.
    #[inline(always)]
    fn first_a(&self) -> u32 {
        u32::from(self.params.a > 0)
    }
    /// The n-th port in ascending order, n from 0; `None` from `count` on.
    #[inline(always)]
    pub fn nth(&self, n: u32) -> Option<u16> {
        if n >= self.count() {
            return None;
        }
        let m = self.params.m();
        let a = (n >> m) + self.first_a();
        let j = n & ((1 << m) - 1);
        Some(((a << (16 - self.params.a)) | (u32::from(self.psid.0) << m) | j) as u16)
    }
    /// The inverse of `nth`: `None` for a port that is not in the set.
    #[inline(always)]
    pub fn index_of(&self, port: u16) -> Option<u32> {
        if !self.contains(port) {
            return None;
        }
        let m = self.params.m();
        let a = (u32::from(port) >> (16 - self.params.a)) - self.first_a();
        let j = u32::from(port) & ((1 << m) - 1);
        Some((a << m) | j)
    }
    /// The runs of contiguous ports, ascending. Runs that happen to touch (k = 0) stay apart.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> + use<> {
        let set = *self;
        let m = set.params.m();
        (0..set.range_count()).filter_map(move |i| Some(set.nth(i << m)?..=set.nth((i << m) | ((1 << m) - 1))?))
    }
}
