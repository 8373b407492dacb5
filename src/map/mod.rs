//! RFC 7597 arithmetic on addresses and ports: rules, port sets, MAP addresses, the DMR. Knows no bytes of packets.

pub mod address;
pub mod dmr;
pub mod port_set;
pub mod prefix;
pub mod provisioning;
pub mod rule;
pub mod table;

pub use address::MapAddress;
pub use dmr::Dmr;
pub use port_set::{PortParams, PortSet, Psid};
pub use prefix::{Ipv4Prefix, Ipv6Prefix};
pub use provisioning::{Customer, EndUserPrefix, Provisioning};
pub use rule::{CompiledRule, Rule, RuleSpec};
pub use table::{RuleId, RuleTable, Unmapped};
