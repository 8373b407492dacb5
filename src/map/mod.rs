//! RFC 7597 arithmetic on addresses and ports: rules, port sets, MAP addresses, the DMR. Knows no bytes of packets.
//!
//! The RFC's letters stand in this folder alone: n and r are the lengths of the Rule IPv6 and IPv4 prefix, o of the EA
//! bits, p and q of the IPv4 suffix and the PSID in them, a, k and m of the three fields of a port.

pub mod address;
mod by_ipv4;
mod by_ipv6;
pub mod compiled;
mod conflicts;
pub mod dmr;
pub mod port_set;
pub mod prefix;
pub mod provisioning;
pub mod rule;
mod search;
pub mod table;

pub use address::MapAddress;
pub use compiled::CompiledRule;
pub use dmr::{Dmr, DmrError};
pub use port_set::{PortParams, PortParamsError, PortSet, Psid};
pub use prefix::{Ipv4Prefix, Ipv6Prefix, PrefixError};
pub use provisioning::{Customer, CustomerError, EndUserPrefix, Provisioning};
pub use rule::{Rule, RuleError, RuleSpec, RuleWarning};
pub use table::{Conflict, RuleId, RuleTable, Unmapped, Warning};
