//! YAML text to valid values; every error at once, with path, line, column, section.

pub mod error;
pub mod routes;

use std::path::PathBuf;

use crate::br::BrParams;
use crate::ce::CeParams;
use crate::map::Provisioning;

/// A daemon's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names the daemon among others in its namespace: `instance`, the role's name by default.
    pub instance: String,
    /// Rules, End-user prefix, version.
    pub provisioning: Provisioning,
    /// What is particular to the role.
    pub role: Role,
    /// The TUN device.
    pub tun: TunConfig,
    /// Routes.
    pub routes: RoutesConfig,
    /// Whether missing sysctls are set or only reported.
    pub sysctl: Sysctl,
    /// `control: {socket: PATH}`.
    pub control_socket: Option<PathBuf>,
    /// `state-directory`.
    pub state_directory: Option<PathBuf>,
}

/// `role`.
#[derive(Clone, Debug)]
pub enum Role {
    /// Border Relay.
    Br(BrParams),
    /// Customer Edge.
    Ce(CeParams),
}

/// The `tun` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Interface name, at most 15 octets; default `mapt-` and the instance.
    pub name: String,
    /// Queues and threads, 1..=16; `None`: one for each core at the BR, 1 at the CE.
    pub queues: Option<u16>,
    /// IPv4 address of the CE host's own traffic; default 192.0.0.2 at the CE (RFC 7335), none at the BR.
    pub ipv4_address: Option<std::net::Ipv4Addr>,
}

/// The `routes` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesConfig {
    /// Install them. Default true.
    pub install: bool,
    /// Routing table, default 254 (main).
    pub table: u32,
    /// Metric, default 1024.
    pub metric: u32,
    /// Route protocol number by which ours are known, 5..=255 without the assigned ones; default 182.
    pub protocol: u8,
}

/// `sysctl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sysctl {
    /// Look, and say which command is needed.
    #[default]
    Check,
    /// Set what is needed.
    Manage,
}
