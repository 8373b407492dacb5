//! Mapping rules (RFC 7597 §5) and their arithmetic.
//!
//! ```text
//!  MAP address (RFC 7597 §5.2, §6)
//!  |         n bits       |  o bits  |            | bits 64..128                          |
//!  |   Rule IPv6 prefix   |  EA bits | subnet: 0  | 0 (16) | IPv4 address (32) | PSID (16) |
//!                        /            \
//!               | p bits of IPv4 | q bits of PSID |
//! ```
//! Where n + o exceeds 64 the EA bits win over the interface id. With r bits of Rule IPv4 prefix:
//! - o + r < 32: an IPv4 prefix, p = o, no PSID. The interface id holds the whole IPv4 address of the packet, host bits
//!   included (erratum 5225 to RFC 7599), and they are read back from there.
//! - o + r = 32: one IPv4 address, p = o; shared only where PSID and its length are given apart (RFC 7598 §4.5).
//! - o + r > 32: a shared address, p = 32 - r, q = k = o - p.

use super::{CompiledRule, Dmr, Ipv4Prefix, Ipv6Prefix, PortParams, PortSet, Psid};

/// The leaves of a rule as an operator writes them (RFC 8676 names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Unique name.
    pub name: String,
    /// Rule IPv6 prefix.
    pub rule_ipv6_prefix: Ipv6Prefix,
    /// Rule IPv4 prefix.
    pub rule_ipv4_prefix: Ipv4Prefix,
    /// EA-bits length, 0..=48.
    pub ea_len: u8,
    /// PSID offset a, 0..=15. Unused where the address is not shared.
    pub psid_offset: u8,
    /// Explicit PSID length k, 0..=16; only where the EA bits carry no PSID, or equal to what they carry.
    pub psid_len: Option<u8>,
    /// Explicit PSID, below 2^k; only where the EA bits carry none.
    pub psid: Option<u16>,
    /// Whether CEs send to it directly (FMR).
    pub forwarding: bool,
    /// The rule's own DMR; `None` takes the rule set's.
    pub dmr_ipv6_prefix: Option<Dmr>,
}

/// What a CE of a rule gets (RFC 7597 §5.2, figures 4 to 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An IPv4 prefix.
    Prefix,
    /// An IPv4 address of its own.
    Full,
    /// A shared address; `explicit` where the PSID is not in the EA bits.
    Shared { params: PortParams, explicit: Option<Psid> },
}

/// A rule that RFC 7597 accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    spec: RuleSpec,
    kind: Kind,
}

/// Which leaf of the rule is refused, why, and by which section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// YAML leaf name, such as `ea-len`.
    pub leaf: &'static str,
    /// For people: the value and what was expected.
    pub message: String,
    /// Such as `RFC 7597 §5.2`.
    pub rfc: &'static str,
}

/// What is allowed, but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleWarning {
    /// YAML leaf name.
    pub leaf: &'static str,
    /// For people.
    pub message: String,
    /// The section that explains it.
    pub rfc: &'static str,
}

const RFC_ADDRESS: &str = "RFC 7597 §5.2";
const RFC_PORTS: &str = "RFC 7597 §5.1";
const RFC_EXPLICIT: &str = "RFC 7598 §4.5";

impl Rule {
    /// All that is wrong with the leaves, not the first alone.
    pub fn new(spec: RuleSpec) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let mut refuse = |leaf, rfc, message| errors.push(RuleError { leaf, message, rfc });
        let n = spec.rule_ipv6_prefix.prefix_len();
        let r = spec.rule_ipv4_prefix.prefix_len();
        let (o, a) = (spec.ea_len, spec.psid_offset);

        if spec.name.is_empty() {
            refuse("name", "", "the name is empty; expected a name that no other rule has".into());
        }
        // A sum that cannot be is measured no further: one mistake, one message.
        let ea_fits = o <= 48;
        if !ea_fits {
            refuse("ea-len", RFC_ADDRESS, format!("{o} EA bits; expected 0 to 48"));
        } else if n + o > 128 {
            let left = 128 - n;
            refuse("ea-len", RFC_ADDRESS, format!("{o} EA bits behind a /{n} do not fit; expected at most {left}"));
        }
        if a > 15 {
            refuse("psid-offset", RFC_EXPLICIT, format!("PSID offset {a}; expected 0 to 15"));
        }
        let given_psid = spec.psid.is_some() || spec.psid_len.is_some();
        let mut k = 0;
        let mut explicit = None;
        if !ea_fits {
        } else if o + r > 32 {
            k = o + r - 32;
            if k > 16 {
                let most = 48 - r;
                let message =
                    format!("{o} EA bits behind an IPv4 /{r} leave {k} for the PSID; expected at most {most}");
                refuse("ea-len", RFC_PORTS, message);
            }
            if spec.psid_len.is_some_and(|len| len != k) {
                let given = spec.psid_len.unwrap_or_default();
                let message = format!(
                    "PSID length {given}, but the EA bits carry a PSID of {k} ({o} + {r} - 32); leave `psid-len` out"
                );
                refuse("psid-len", RFC_EXPLICIT, message);
            }
            if let Some(psid) = spec.psid {
                let message = format!("PSID {psid}, but the EA bits carry the PSID; leave `psid` out");
                refuse("psid", RFC_EXPLICIT, message);
            }
        } else {
            match (spec.psid_len, spec.psid) {
                (None | Some(0), None) | (Some(0), Some(0)) => {}
                (Some(len @ 1..), _) if len > 16 => {
                    refuse("psid-len", RFC_PORTS, format!("PSID length {len}; expected 0 to 16"));
                }
                (None, Some(psid)) => {
                    refuse("psid", RFC_EXPLICIT, format!("PSID {psid} without its length; expected `psid-len` too"));
                }
                (Some(len), None) => {
                    let most = (1u32 << len) - 1;
                    let message = format!("PSID length {len} without a PSID; expected `psid` too, 0 to {most}");
                    refuse("psid-len", RFC_EXPLICIT, message);
                }
                (Some(len), Some(psid)) if u32::from(psid) >= 1 << len => {
                    let most = (1u32 << len) - 1;
                    refuse("psid", RFC_PORTS, format!("PSID {psid} has more than {len} bits; expected 0 to {most}"));
                }
                (Some(len), Some(psid)) => {
                    k = len;
                    explicit = Some(Psid(psid));
                }
            }
            if o + r < 32 {
                if k > 0 {
                    let message = format!(
                        "a PSID for an IPv4 prefix of {} bits; only a full address of 32 ({o} + {r}) can be shared",
                        o + r
                    );
                    refuse("psid-len", RFC_EXPLICIT, message);
                    k = 0;
                }
                // The EA bits would stand on host bits: bits 80 + r + o to 111 of the MAP address.
                if n > 80 + r {
                    let message = format!(
                        "{n} bits and {o} EA bits cover the interface id's host bits of the IPv4 prefix; expected at most {} bits",
                        80 + r
                    );
                    refuse("rule-ipv6-prefix", "RFC 7597 §6", message);
                }
            }
        }
        if (1..=16).contains(&k) && a <= 15 && a + k > 16 {
            let leaf = if given_psid { "psid-len" } else { "psid-offset" };
            let message = format!("PSID offset {a} and PSID length {k} exceed the 16 bits of a port");
            refuse(leaf, RFC_PORTS, message);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let kind = match PortParams::new(a, k) {
            Ok(params) if k > 0 => Kind::Shared { params, explicit },
            _ if o + r < 32 => Kind::Prefix,
            _ => Kind::Full,
        };
        Ok(Rule { spec, kind })
    }

    /// The leaves.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// What is allowed, but probably not meant.
    pub fn warnings(&self) -> Vec<RuleWarning> {
        let mut warnings = Vec::new();
        let mut warn = |leaf, rfc, message| warnings.push(RuleWarning { leaf, message, rfc });
        if let Some(params) = self.port_params() {
            let a = params.a();
            if a > 6 {
                let first = params.first_port();
                let message =
                    format!("PSID offset {a} hands out system ports from {first} on; 6 keeps all of 0-1023 back");
                warn("psid-offset", RFC_PORTS, message);
            }
            // With a = 0 the first PSIDs own system ports.
            if a == 0 && self.explicit_psid().is_none_or(|psid| u32::from(psid.0) << params.m() < 1024) {
                let below = 1024u32.div_ceil(1 << params.m());
                let message =
                    format!("with PSID offset 0 the PSIDs below {below} own ports of 0-1023; do not assign them");
                warn("psid-offset", "RFC 7597 §B.1", message);
            }
        }
        if self.spec.dmr_ipv6_prefix.is_some_and(|dmr| dmr.is_well_known()) {
            warn("dmr-ipv6-prefix", "RFC 6052 §3.1", WELL_KNOWN_WARNING.into());
        }
        let ipv4 = &self.spec.rule_ipv4_prefix;
        for (unusable, what) in
            [("0.0.0.0/8", "\"this network\""), ("127.0.0.0/8", "loopback"), ("224.0.0.0/3", "multicast or reserved")]
        {
            if unusable.parse::<Ipv4Prefix>().is_ok_and(|unusable| unusable.covers(ipv4)) {
                warn("rule-ipv4-prefix", "RFC 6890 §2.2", format!("{ipv4} is {what} space"));
            }
        }
        warnings
    }

    /// p: bits of the IPv4 address that the EA bits carry, 0..=32.
    pub fn ipv4_suffix_len(&self) -> u8 {
        self.spec.ea_len.min(32 - self.spec.rule_ipv4_prefix.prefix_len())
    }
    /// Length in bits of the IPv4 prefix that a CE gets: 32 for an address, shared or not.
    pub fn ce_ipv4_prefix_len(&self) -> u8 {
        self.spec.rule_ipv4_prefix.prefix_len() + self.ipv4_suffix_len()
    }
    /// Port parameters of a shared address; `None` where it is not shared.
    pub fn port_params(&self) -> Option<PortParams> {
        match self.kind {
            Kind::Shared { params, .. } => Some(params),
            Kind::Prefix | Kind::Full => None,
        }
    }
    /// The PSID of a rule whose EA bits carry none; `None` for all others.
    pub fn explicit_psid(&self) -> Option<Psid> {
        match self.kind {
            Kind::Shared { explicit, .. } => explicit,
            Kind::Prefix | Kind::Full => None,
        }
    }
    /// k: PSID length in bits, 0 where the address is not shared.
    pub fn psid_len(&self) -> u8 {
        self.port_params().map_or(0, PortParams::k)
    }
    /// How many CEs can share an address: 2^k, 1..=65536.
    pub fn sharing_ratio(&self) -> u32 {
        1 << self.psid_len()
    }
    /// Ports of a CE on each of its addresses, 1..=65536; the PSIDs of a rule all have as many.
    pub fn ports_per_ce(&self) -> u32 {
        self.port_params().and_then(|params| params.port_set(Psid(0))).unwrap_or(PortSet::ALL).count()
    }
    /// n + o: the shortest End-user IPv6 prefix that tells CEs apart, in bits, 0..=128.
    pub fn end_user_prefix_len(&self) -> u8 {
        self.spec.rule_ipv6_prefix.prefix_len() + self.spec.ea_len
    }
    /// How many CEs the EA bits tell apart: 2^o, 1..=2^48.
    pub fn ce_count(&self) -> u64 {
        1 << self.spec.ea_len
    }

    /// The rule as the packet path uses it.
    pub fn compile(&self) -> CompiledRule {
        CompiledRule::new(self)
    }
}

pub(super) const WELL_KNOWN_WARNING: &str =
    "64:ff9b::/96 must not carry non-global IPv4 addresses: packets to and from private addresses are dropped";
