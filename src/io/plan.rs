//! What a daemon does to its host, as a list: `--dry-run` prints it, `setup` carries it out.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::netlink::Route;
use super::sysctl::{self, Setting};
use super::tun::MAX_QUEUES;
use crate::config::routes::{Destination, wanted};
use crate::config::{Config, Role, Sysctl};

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `mapt-br`.
    Br,
    /// `mapt-ce`.
    Ce,
}

impl Program {
    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Program::Br => "mapt-br",
            Program::Ce => "mapt-ce",
        }
    }

    /// The `role` that it runs.
    pub fn role(self) -> &'static str {
        match self {
            Program::Br => "br",
            Program::Ce => "ce",
        }
    }

    /// The daemon for a configuration.
    pub fn of(config: &Config) -> Program {
        match config.role {
            Role::Br(_) => Program::Br,
            Role::Ce(_) => Program::Ce,
        }
    }
}

/// Everything that a daemon does to its host.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which daemon.
    pub program: Program,
    /// `instance`.
    pub instance: String,
    /// `tun.name`.
    pub tun: String,
    /// Queues and threads, 1..=16.
    pub queues: u16,
    /// MTU of the TUN, in octets.
    pub mtu: u32,
    /// IPv4 address of the TUN.
    pub address: Option<Ipv4Addr>,
    /// Routes into the TUN.
    pub routes: Vec<Route>,
    /// `routes.install`.
    pub install: bool,
    /// `routes.protocol`.
    pub protocol: u8,
    /// `routes.table`.
    pub table: u32,
    /// `routes.metric`.
    pub metric: u32,
    /// `sysctl`.
    pub sysctl: Sysctl,
    /// `state-directory`.
    pub state_directory: Option<PathBuf>,
    /// `pcp.listen`.
    pub pcp: Vec<Ipv4Addr>,
    /// `napt.restore-within`.
    pub restore_within: Duration,
    /// Whether the node can translate at all: a CE without End-user prefix waits for one.
    pub provisioned: bool,
    /// An address inside the DMR, for a CE that should have a route to it.
    pub br: Option<Ipv6Addr>,
}

impl Plan {
    /// The plan for a configuration.
    pub fn of(config: &Config) -> Plan {
        let translation = match &config.role {
            Role::Br(br) => &br.translation,
            Role::Ce(ce) => &ce.translation,
        };
        let program = Program::of(config);
        let queues = match program {
            Program::Br => config.tun.queues.unwrap_or_else(cores),
            // One NAPT, one thread: the kernel would pick the queue of a packet without regard to its mapping.
            Program::Ce => 1,
        };
        if queues < config.tun.queues.unwrap_or(1) {
            tracing::warn!("`tun.queues` is not used: the NAPT of a CE runs on one thread");
        }
        let table = &config.provisioning.table;
        let routes = wanted(config).into_iter().map(|route| Route {
            destination: match route.destination {
                Destination::V4(p) => IpNet::new_assert(p.addr().into(), p.prefix_len()),
                Destination::V6(p) => IpNet::new_assert(p.addr().into(), p.prefix_len()),
            },
            table: config.routes.table,
            metric: config.routes.metric,
            protocol: config.routes.protocol,
            mtu: route.mtu,
            source: route.source,
        });
        Plan {
            program,
            instance: config.instance.clone(),
            tun: config.tun.name.clone(),
            queues: queues.clamp(1, MAX_QUEUES),
            mtu: device_mtu(translation.mtu.ipv6, translation.mtu.ipv4),
            address: config.tun.ipv4_address,
            routes: routes.collect(),
            install: config.routes.install,
            protocol: config.routes.protocol,
            table: config.routes.table,
            metric: config.routes.metric,
            sysctl: config.sysctl,
            state_directory: config.state_directory.clone(),
            pcp: config.pcp.as_ref().map_or(Vec::new(), |pcp| pcp.listen.clone()),
            restore_within: config.restore_within,
            provisioned: program == Program::Br || config.provisioning.end_user_prefix.is_some(),
            br: match program {
                Program::Br => None,
                Program::Ce => table.dmrs().first().map(|dmr| dmr.prefix().addr()),
            },
        }
    }

    /// The host's sysctls that are looked at, or set with `sysctl: manage`.
    pub fn host_sysctls(&self) -> Vec<Setting> {
        sysctl::of_host()
    }

    /// The sysctls of our own device.
    pub fn device_sysctls(&self) -> Vec<Setting> {
        sysctl::of_device(&self.tun)
    }
}

fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(usize::from(MAX_QUEUES)) as u16)
}

/// The TUN's MTU must be no limit of its own: IPv4 packets are limited by the `mtu` metric of their routes, IPv6
/// packets by the engine, which knows what becomes of them. So it takes the largest packet of either side, an IPv4
/// one with the 20 octets by which it grows.
fn device_mtu(ipv6: u32, ipv4: u32) -> u32 {
    ipv6.max(ipv4 + 20).clamp(1500, 65_535)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { tun, mtu, .. } = self;
        let (program, instance) = (self.program.name(), &self.instance);
        writeln!(f, "# {program}, instance `{instance}`: what it would do, as commands. Nothing was changed.")?;
        let queues = self.queues;
        let multi_queue = if queues > 1 { " multi_queue" } else { "" };
        writeln!(f, "# device with {queues} queue(s), its offloads switched on; it goes with the daemon")?;
        writeln!(f, "ip tuntap add dev {tun} mode tun{multi_queue} vnet_hdr")?;
        for setting in self.device_sysctls() {
            writeln!(f, "{}", setting.command())?;
        }
        writeln!(f, "ip link set dev {tun} mtu {mtu} multicast off addrgenmode none")?;
        writeln!(f, "ip link set dev {tun} up")?;
        if let Some(address) = self.address {
            writeln!(f, "ip address add {address}/32 dev {tun}")?;
        }
        match (self.install, self.routes.len()) {
            (false, n) => {
                writeln!(f, "# {n} route(s), not installed (`routes.install: false`); to be installed by others:")?
            }
            (true, n) => writeln!(f, "# {n} route(s), removed at exit")?,
        }
        for route in &self.routes {
            writeln!(f, "{}{}", if self.install { "" } else { "# " }, route.command(tun))?;
        }
        for addr in &self.pcp {
            writeln!(f, "# PCP requests are answered at {addr}, UDP port 5351")?;
        }
        match self.sysctl {
            Sysctl::Manage => writeln!(f, "# sysctls of the host (`sysctl: manage`); they stay at exit")?,
            Sysctl::Check => writeln!(f, "# sysctls of the host, only looked at (`sysctl: check`)")?,
        }
        for setting in self.host_sysctls() {
            writeln!(f, "{}{}", if self.sysctl == Sysctl::Manage { "" } else { "# " }, setting.command())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_never_the_limit() {
        assert_eq!(device_mtu(1500, 1500), 1520);
        assert_eq!(device_mtu(1520, 1500), 1520);
        assert_eq!(device_mtu(9000, 1500), 9000);
        assert_eq!(device_mtu(1280, 68), 1500);
        assert_eq!(device_mtu(1500, 65_535), 65_535);
    }
}
