//! What those see of a daemon who only look: put together anew at every change, read without asking anybody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};

use super::netlink::{FoundRoute, Netlink, NetlinkError, Place, Route};
use super::plan::Plan;
use super::run::Meters;
use super::sysctl;
use crate::config::{Config, Role};
use crate::ops::control::PROTOCOL;
use crate::ops::counters::{ByRule, RuleCount};
use crate::ops::engine;
use crate::ops::fragments::Fragments;
use crate::ops::history::Origin;
use crate::ops::route_table::{RouteRow, RouteState};
use crate::ops::status::{Own, ProgramVersion, RouteSums, Status, SysctlFinding, TunStatus};

/// What is in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The configuration.
    pub config: Config,
    /// What it does to the host.
    pub plan: Arc<Plan>,
    /// How its rules came.
    pub origin: Origin,
    /// Since when they are in force.
    pub since: Timestamp,
    /// When the former ones come back.
    pub confirm_until: Option<Timestamp>,
    /// What went on by each rule.
    pub by_rule: Arc<ByRule>,
}

/// A running daemon as those see it who only look.
pub struct Standing {
    /// What is in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Counters.
    pub meters: Meters,
    /// Offloads that the device has, in words.
    pub offloads: String,
    /// Queues of the device.
    pub queues: usize,
    /// Where fragments wait.
    pub fragments: Option<engine::Fragments>,
    /// When the daemon started.
    pub started: Timestamp,
    /// One list of routes at a time: it may be long.
    pub kernel: Mutex<Netlink>,
}

impl Standing {
    /// What is in force now.
    pub fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.borrow())
    }

    /// Since the start.
    pub fn uptime(&self) -> Duration {
        self.meters.uptime()
    }

    /// Which program this is.
    pub fn program(&self) -> ProgramVersion {
        let plan = Arc::clone(&self.now().plan);
        ProgramVersion {
            program: plan.program.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            instance: plan.instance.clone(),
            pid: std::process::id(),
        }
    }

    /// The whole of it.
    pub async fn status(&self) -> Result<Status, String> {
        let InForce { config, plan, origin, since, confirm_until, .. } = &*self.now();
        let (_, routes) = self.routes(false).await.map_err(|error| error.to_string())?;
        let settings = plan.host_sysctls().into_iter().chain(plan.device_sysctls()).collect();
        let findings = sysctl::check(settings).map_err(|error| error.to_string())?;
        Ok(Status {
            role: plan.program.role().to_owned(),
            instance: plan.instance.clone(),
            rules_version: config.provisioning.version,
            rules_date: config.provisioning.date.clone(),
            rules: config.provisioning.table.rules().len(),
            rules_origin: origin.name().to_owned(),
            rules_since: format!("{since:.3}"),
            confirm_until: confirm_until.map(|until| format!("{until:.3}")),
            uptime: self.uptime().as_secs(),
            started: format!("{:.3}", self.started),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            customer: Own::of(config),
            tun: TunStatus {
                name: plan.tun.clone(),
                mtu: plan.mtu,
                queues: self.queues,
                offloads: self.offloads.clone(),
            },
            routes,
            sysctls: findings
                .into_iter()
                .map(|found| SysctlFinding {
                    name: found.setting.name(),
                    expected: found.setting.value.to_owned(),
                    because: found.setting.because.to_owned(),
                    value: found.is,
                })
                .collect(),
        })
    }

    /// What went on by each rule.
    pub fn rules(&self) -> Vec<RuleCount> {
        let InForce { config, by_rule, .. } = &*self.now();
        by_rule.counts(&config.provisioning.table)
    }

    /// The fragment table. Its parts are locked one after another, each for less than a microsecond.
    pub fn fragments(&self) -> Fragments {
        let params = match &self.now().config.role {
            Role::Br(br) => br.fragments,
            Role::Ce(ce) => ce.fragments,
        };
        let usage = self.fragments.as_ref().map(engine::Fragments::usage);
        Fragments::of(usage.unwrap_or_default(), &params)
    }

    /// The routes that are wanted beside those that the kernel has; rows only if they are `listed`.
    pub async fn routes(&self, listed: bool) -> Result<(Vec<RouteRow>, RouteSums), NetlinkError> {
        let plan = Arc::clone(&self.now().plan);
        let mut sums = RouteSums { install: plan.install, wanted: plan.routes.len(), ..RouteSums::default() };
        if !plan.install {
            let rows = if listed {
                plan.routes.iter().map(|r| row(r, RouteState::LeftToOthers, None)).collect()
            } else {
                Vec::new()
            };
            return Ok((rows, sums));
        }
        let netlink = self.kernel.lock().await;
        let found = found_of(&netlink, &plan).await?;
        let Compared { mut rows, missing, unwanted } = compare(&plan, found, listed, &mut sums);
        if listed {
            let foreign = netlink.those_in_the_way(&missing).await?;
            rows.extend(missing.iter().zip(foreign).map(|(route, there)| {
                let state = if there.is_some() { RouteState::InTheWay } else { RouteState::Missing };
                row(route, state, there)
            }));
            rows.extend(unwanted.iter().map(|route| row(route, RouteState::Unwanted, None)));
        }
        Ok((rows, sums))
    }
}

/// Routes that are there, as far as they are listed, and those that are not.
struct Compared {
    rows: Vec<RouteRow>,
    missing: Vec<Route>,
    unwanted: Vec<Route>,
}

fn compare(plan: &Plan, found: Vec<Route>, listed: bool, sums: &mut RouteSums) -> Compared {
    let mut found: HashMap<Place, Route> = found.into_iter().map(|route| (route.place(), route)).collect();
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    for wanted in &plan.routes {
        let (state, there) = match found.remove(&wanted.place()) {
            None => {
                missing.push(*wanted);
                continue;
            }
            Some(there) if there == *wanted => (RouteState::Installed, None),
            Some(there) => (RouteState::Differs, Some(there.command(&plan.tun))),
        };
        *(if there.is_none() { &mut sums.installed } else { &mut sums.differing }) += 1;
        if listed {
            rows.push(row(wanted, state, there));
        }
    }
    let mut unwanted: Vec<Route> = found.into_values().collect();
    unwanted.sort_unstable();
    (sums.missing, sums.unwanted) = (missing.len(), unwanted.len());
    Compared { rows, missing, unwanted }
}

/// Ours by protocol number and device.
async fn found_of(netlink: &Netlink, plan: &Plan) -> Result<Vec<Route>, NetlinkError> {
    let Some(device) = netlink.link(&plan.tun).await? else { return Ok(Vec::new()) };
    let found = netlink.routes_of(plan.protocol).await?;
    let ours = found.into_iter().filter(|found: &FoundRoute| found.oif == Some(device.index));
    Ok(ours.map(|found| found.route).collect())
}

fn row(route: &Route, state: RouteState, found: Option<String>) -> RouteRow {
    RouteRow {
        destination: route.destination.to_string(),
        table: route.table,
        metric: route.metric,
        mtu: route.mtu,
        source: route.source.map(|source| source.to_string()),
        state,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_way_in_which_a_route_can_stand() {
        let rule =
            |n: u8| format!("{{rule-ipv6-prefix: 2001:db8:{n}00::/40, rule-ipv4-prefix: 192.0.{n}.0/24, ea-len: 16}}");
        let text = format!(
            "{{role: br, rules: {{dmr-ipv6-prefix: '2001:db8:ffff::/64', rules: [{}, {}, {}]}}}}",
            rule(2),
            rule(3),
            rule(4)
        );
        let mut loader = |_: &Path| Err(std::io::ErrorKind::Unsupported.into());
        let plan = Plan::of(&Config::load(&text, Path::new("br.yaml"), &mut loader).unwrap().value);
        let [two, three, four, dmr] = plan.routes[..] else { panic!("{:?}", plan.routes) };
        let other_mtu = Route { mtu: Some(1300), ..three };
        let other_metric = Route { metric: 7, ..four };
        let mut sums = RouteSums::default();
        let Compared { rows, missing, unwanted } =
            compare(&plan, vec![two, other_mtu, other_metric, dmr], true, &mut sums);
        let states: Vec<_> = rows.iter().map(|row| (row.destination.as_str(), row.state)).collect();
        let (installed, differs) = (RouteState::Installed, RouteState::Differs);
        assert_eq!(states, [("192.0.2.0/24", installed), ("192.0.3.0/24", differs), ("2001:db8:ffff::/64", installed)]);
        assert!(rows[1].found.as_ref().unwrap().contains("mtu 1300"), "{rows:?}");
        assert_eq!((missing, unwanted), (vec![four], vec![other_metric]));
        assert_eq!((sums.installed, sums.missing, sums.differing, sums.unwanted), (2, 1, 1, 1));
    }
}
