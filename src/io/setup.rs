//! Carrying out a plan, and undoing it: a start that fails leaves nothing behind.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::mend::{Mender, Upkeep};
use super::netlink::{Link, Netlink, NetlinkError, Route, stale};
use super::plan::{Plan, Program};
use super::state::{Line, StateError, StateFile};
use super::sysctl::{self, Applied, Finding, SysctlError};
use super::tun::{Device, TunError};
use super::watch::{Ours, Watch};
use crate::config::Sysctl;

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The TUN.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Link, addresses, routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A sysctl cannot be read or set.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Sysctls of the host are not as needed.
    #[error("{}", sysctl_message(.0))]
    HostSysctls(Vec<Finding>),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// No IPv6.
    #[error(
        "this host has no IPv6 address (link-local ones aside), and {} needs the IPv6 network: give an interface one, \
         or start the daemon after the network; `ip -6 address show scope global` lists them",
        .0.name()
    )]
    NoIpv6(Program),
}

fn sysctl_message(findings: &[Finding]) -> String {
    let mut text = String::from("sysctls of this host are not as needed:");
    for finding in findings {
        text += &format!("\n  {finding}");
    }
    text += "\nset them, and keep them in /etc/sysctl.d, or let the daemon do it with `sysctl: manage`:";
    for finding in findings {
        text += &format!("\n  {}", finding.setting.command());
    }
    text
}

/// What was done to the host, and how to undo it.
#[derive(Debug)]
pub struct Installed {
    pub(super) netlink: Netlink,
    pub(super) link: Link,
    /// To be removed at the end.
    pub(super) address: Option<Ipv4Addr>,
    /// Ours or found there.
    pub(super) wanted_address: Option<Ipv4Addr>,
    pub(super) routes: Vec<Route>,
    /// An address inside the DMR, for a CE.
    pub(super) br: Option<Ipv6Addr>,
    pub(super) mender: Mender,
    state: Option<StateFile>,
    device_sysctls: Applied,
    host_sysctls: Applied,
}

/// Carries out the plan, in the network namespace of this thread: the device comes back open, up and routed to.
pub async fn install(plan: &Plan) -> Result<(Device, Installed), SetupError> {
    let netlink = Netlink::connect()?;
    let before = netlink.link(&plan.tun).await?;
    check_ipv6(plan, &netlink, before.as_ref().map_or(0, |link| link.index)).await?;
    if plan.sysctl == Sysctl::Check {
        check_host(plan)?;
    }
    let device = open(plan, before)?;
    let Some(link) = netlink.link(&plan.tun).await? else {
        return Err(TunError::Kernel {
            name: plan.tun.clone(),
            what: "it was removed while it was being set up",
            errno: nix::errno::Errno::ENODEV,
        }
        .into());
    };
    let mut installed = Installed {
        netlink,
        link,
        address: None,
        wanted_address: plan.address,
        routes: Vec::new(),
        br: plan.br,
        mender: Mender::default(),
        state: None,
        device_sysctls: Applied::default(),
        host_sysctls: Applied::default(),
    };
    match installed.carry_out(plan).await {
        Ok(()) => Ok((device, installed)),
        Err(error) => {
            installed.undo().await;
            Err(error)
        }
    }
}

async fn check_ipv6(plan: &Plan, netlink: &Netlink, tun: u32) -> Result<(), SetupError> {
    if !netlink.has_ipv6_address(tun).await? {
        if plan.provisioned {
            return Err(SetupError::NoIpv6(plan.program));
        }
        tracing::warn!("this host has no IPv6 address yet");
    } else if let Some(br) = plan.br
        && !netlink.reaches(br).await?
    {
        tracing::warn!("this host has no IPv6 route to the BR ({br}): translated packets cannot leave it");
    }
    Ok(())
}

fn check_host(plan: &Plan) -> Result<(), SetupError> {
    let findings = sysctl::check(plan.host_sysctls())?;
    if findings.iter().any(|finding| finding.setting.required) {
        return Err(SetupError::HostSysctls(findings));
    }
    for finding in findings {
        tracing::warn!("{finding}; `{}` mends it", finding.setting.command());
    }
    Ok(())
}

fn open(plan: &Plan, before: Option<Link>) -> Result<Device, TunError> {
    let name = plan.tun.clone();
    let device = match before {
        None => Device::create(&name, plan.queues)?,
        Some(Link { free_tun: Some(found), .. }) => Device::adopt(&name, plan.queues, found)?,
        Some(Link { kind, .. }) if kind == "tun" => return Err(TunError::Busy(name)),
        Some(Link { kind, .. }) => {
            let kind = if kind.is_empty() { "a device of its own".to_owned() } else { format!("`{kind}`") };
            return Err(TunError::NotTun { name, kind });
        }
    };
    if usize::from(plan.queues) > device.queues.len() {
        tracing::warn!("the persistent TUN device `{name}` has one queue: it was made without `multi_queue`");
    }
    Ok(device)
}

impl Installed {
    async fn carry_out(&mut self, plan: &Plan) -> Result<(), SetupError> {
        self.device_sysctls = sysctl::apply(plan.device_sysctls())?;
        self.netlink.bring_up(&self.link, plan.mtu).await?;
        if let Some(address) = plan.address
            && self.netlink.add_address(&self.link, address).await?
        {
            self.address = Some(address);
        }
        if plan.install {
            self.install_routes(plan).await?;
        }
        if plan.sysctl == Sysctl::Manage {
            self.host_sysctls = sysctl::apply(plan.host_sysctls())?;
            for finding in self.host_sysctls.changed() {
                tracing::info!("set {} to {} (was {})", finding.setting.name(), finding.setting.value, finding.is);
            }
        }
        Ok(())
    }

    async fn install_routes(&mut self, plan: &Plan) -> Result<(), SetupError> {
        let file = plan.state_directory.as_ref().map(|directory| StateFile::new(directory, &plan.instance));
        let remembered = file.as_ref().map_or(Ok(HashSet::new()), StateFile::read)?;
        let found = self.netlink.routes_of(plan.protocol).await?;
        let links = self.netlink.links().await?;
        let wanted: HashSet<Route> = plan.routes.iter().copied().collect();
        let (stale, kept) = stale(found, &self.link, &links, &remembered, &wanted);
        if !stale.is_empty() || !kept.is_empty() {
            tracing::info!("a former process left {} route(s); {} are removed", stale.len() + kept.len(), stale.len());
        }
        self.netlink.remove_found(stale).await;
        if let Some(file) = file {
            file.write(plan.routes.iter().map(|route| Line::new(route, &plan.tun)))?;
            self.state = Some(file);
        }
        let mut missing = plan.routes.clone();
        missing.retain(|route| !kept.contains(route));
        self.routes = kept.into_iter().collect();
        self.netlink.add_routes(&self.link, &missing).await?;
        self.routes.append(&mut missing);
        Ok(())
    }

    /// What `widen` and `narrow` would do.
    pub fn compare(&self, plan: &Plan) -> RouteCounts {
        let wanted: &[Route] = if plan.install { &plan.routes } else { &[] };
        let change = Change::between(&self.routes, wanted);
        let (added, changed) = (change.added.len(), change.altered.len());
        RouteCounts { added, removed: self.routes.len() + added - wanted.len(), changed }
    }

    /// Adds the routes of a new plan, and changes those that it has otherwise, so that either plan's packets find their
    /// way; all or, at an error, none. The plans differ in their routes and MTUs alone.
    pub async fn widen(&mut self, plan: &Plan) -> Result<(), SetupError> {
        let before = self.routes.clone();
        let change = Change::between(&before, if plan.install { &plan.routes } else { &[] });
        let both: Vec<Route> = before.iter().chain(&change.added).chain(&change.altered).copied().collect();
        self.remember(plan, &both)?;
        if let Err(error) = self.carry_over(plan, &change).await {
            self.remember(plan, &before)?;
            return Err(error);
        }
        let former: HashSet<Route> = change.former.into_iter().collect();
        self.routes.retain(|route| !former.contains(route));
        self.routes.extend(change.added.into_iter().chain(change.altered));
        Ok(())
    }

    async fn carry_over(&mut self, plan: &Plan, change: &Change) -> Result<(), SetupError> {
        self.netlink.add_routes(&self.link, &change.added).await?;
        let mut result = self.netlink.replace_routes(&self.link, &change.altered).await;
        if result.is_ok() && self.link.mtu != plan.mtu {
            result = self.netlink.bring_up(&self.link, plan.mtu).await;
        }
        if let Err(error) = result {
            let _ = self.netlink.replace_routes(&self.link, &change.former).await;
            self.netlink.remove_routes(&self.link, &change.added).await;
            return Err(error.into());
        }
        self.link.mtu = plan.mtu;
        Ok(())
    }

    /// Removes what a new plan no longer has.
    pub async fn narrow(&mut self, plan: &Plan) {
        let wanted: HashSet<&Route> = if plan.install { plan.routes.iter().collect() } else { HashSet::new() };
        let (kept, gone): (Vec<Route>, Vec<Route>) = self.routes.iter().partition(|route| wanted.contains(route));
        self.netlink.remove_routes(&self.link, &gone).await;
        (self.routes, self.br) = (kept, plan.br);
        if let Err(error) = self.remember(plan, &self.routes) {
            // It still names all that is there.
            tracing::warn!("{error}");
        }
    }

    fn remember(&self, plan: &Plan, routes: &[Route]) -> Result<(), SetupError> {
        match &self.state {
            Some(file) => Ok(file.write(routes.iter().map(|route| Line::new(route, &plan.tun)))?),
            None => Ok(()),
        }
    }

    /// How many routes there are.
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// How the routes fare from now on.
    pub fn upkeep(&self) -> Arc<Upkeep> {
        self.mender.upkeep.clone()
    }

    /// Watches what was installed, in the network namespace of this thread. To be called within a runtime.
    pub fn watch(&self, plan: &Plan) -> Watch {
        let Plan { protocol, table, metric, program, .. } = *plan;
        Watch::start(Ours { tun: self.link.index, protocol, table, metric, needs_route: program == Program::Ce })
    }

    /// Removes routes, state file and address. The host's sysctls stay: others may count on them by now.
    pub async fn remove(&mut self) {
        self.netlink.remove_routes(&self.link, &std::mem::take(&mut self.routes)).await;
        if let Some(state) = self.state.take() {
            state.remove();
        }
        if let Some(address) = self.address.take()
            && let Err(error) = self.netlink.remove_address(&self.link, address).await
        {
            tracing::warn!("{error}");
        }
    }

    /// As if nothing had been.
    pub async fn undo(&mut self) {
        self.host_sysctls.restore();
        self.remove().await;
        self.device_sysctls.restore();
    }
}

/// How many routes come, go, or get another MTU or source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteCounts {
    /// New ones.
    pub added: usize,
    /// Those that go.
    pub removed: usize,
    /// Those that change.
    pub changed: usize,
}

/// From one list of routes to another.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    added: Vec<Route>,
    /// At the place of a former one, with another MTU or source.
    altered: Vec<Route>,
    /// What those were.
    former: Vec<Route>,
}

impl Change {
    fn between(before: &[Route], after: &[Route]) -> Change {
        let place = |route: &Route| (route.destination, route.table, route.metric);
        let there: HashMap<_, &Route> = before.iter().map(|route| (place(route), route)).collect();
        let mut change = Change::default();
        for route in after {
            match there.get(&place(route)) {
                None => change.added.push(*route),
                Some(&old) if old != route => {
                    change.altered.push(*route);
                    change.former.push(*old);
                }
                Some(_) => {}
            }
        }
        change
    }
}
