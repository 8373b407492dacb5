//! Putting back what somebody else removed of what was installed, and telling what happens around it.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::netlink::{Link, Netlink, NetlinkError, Place, Route, Tried};
use super::patience::{FIRST, Patience};
use super::setup::Installed;
use super::watch::Suspects;

/// Names in one line of the log.
const NAMED: usize = 3;

/// How the routes fare, for whoever asks.
#[derive(Debug, Default)]
pub struct Upkeep {
    restored: AtomicU64,
    missing: Mutex<Vec<Route>>,
}

impl Upkeep {
    /// Routes put back since the start.
    pub fn restored(&self) -> u64 {
        self.restored.load(Ordering::Relaxed)
    }

    /// Routes of ours that are known to be missing now, because they were removed again and again or the kernel
    /// refuses them.
    pub fn missing(&self) -> Vec<Route> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Part {
    Link,
    Address,
    Route(Place),
}

/// What mending remembers.
#[derive(Debug, Default)]
pub struct Mender {
    patience: Patience<Part>,
    /// Places that wait for their turn.
    waiting: HashSet<Place>,
    surroundings: Option<Surroundings>,
    /// For whoever asks.
    pub upkeep: Arc<Upkeep>,
    /// A trouble that was told.
    told: Option<String>,
    /// The device was not there the last time.
    gone: bool,
    /// The device or its address waits for its turn.
    all_again: bool,
}

impl Installed {
    /// Looks at what is suspect, and puts back what is missing. When to look again, if something has to wait.
    pub async fn mend(&mut self, suspects: &Suspects, now: Instant) -> Option<Instant> {
        self.mender.patience.forgive(now);
        if suspects.surroundings {
            self.look_around().await;
        }
        match self.mend_all(suspects, now).await {
            Ok(again) => {
                (self.mender.told, self.mender.gone) = (None, false);
                again
            }
            // A device that was removed ends the daemon, which says so; one that was moved elsewhere does not.
            Err(NetlinkError::Kernel { errno: Errno::ENODEV, .. })
                if !std::mem::replace(&mut self.mender.gone, true) =>
            {
                Some(now + Duration::from_secs(1))
            }
            Err(error) => {
                let error = error.to_string();
                if self.mender.told.as_ref() != Some(&error) {
                    tracing::warn!("the routes cannot be looked after, and it is tried every minute: {error}");
                    self.mender.told = Some(error);
                }
                None
            }
        }
    }

    async fn mend_all(&mut self, suspects: &Suspects, now: Instant) -> Result<Option<Instant>, NetlinkError> {
        let all = std::mem::take(&mut self.mender.all_again) || suspects.all;
        let mut again = None;
        if all {
            let Some(link) = self.netlink.link_at(self.link.index).await? else {
                // Deleted, and the daemon is about to end; or it was moved to another network namespace.
                let what = format!("link `{}`", self.link.name);
                return Err(NetlinkError::Kernel { what, errno: nix::errno::Errno::ENODEV });
            };
            if !link.up && !self.mend_link(&link, now).await? {
                return Ok(Some(self.mender.patience.when(&Part::Link, now)));
            }
            again = self.mend_address(now).await?;
        }
        let routes = self.mend_routes(suspects, all, now).await?;
        Ok(again.into_iter().chain(routes).min())
    }

    /// Whether it could be done already.
    async fn mend_link(&mut self, link: &Link, now: Instant) -> Result<bool, NetlinkError> {
        if self.mender.patience.when(&Part::Link, now) > now {
            self.mender.all_again = true;
            return Ok(false);
        }
        let wait = self.mender.patience.mended(Part::Link, now);
        self.netlink.bring_up(link, self.link.mtu).await?;
        tracing::warn!("TUN device `{}` was set down: it is up again{}", link.name, waits(wait));
        Ok(true)
    }

    /// When to try again, if it has to wait.
    async fn mend_address(&mut self, now: Instant) -> Result<Option<Instant>, NetlinkError> {
        let Some(address) = self.wanted_address else { return Ok(None) };
        let when = self.mender.patience.when(&Part::Address, now);
        if when > now {
            self.mender.all_again = true;
            return Ok(Some(when));
        }
        if self.netlink.add_address(&self.link, address).await? {
            self.address = Some(address);
            let wait = self.mender.patience.mended(Part::Address, now);
            tracing::warn!("address {address} of `{}` was removed: it is back{}", self.link.name, waits(wait));
        }
        Ok(None)
    }

    async fn mend_routes(
        &mut self,
        suspects: &Suspects,
        all: bool,
        now: Instant,
    ) -> Result<Option<Instant>, NetlinkError> {
        let missing: Vec<Route> = match all {
            true => self.missing_routes().await?,
            false => {
                let suspect = |place: &Place| suspects.places.contains(place) || self.mender.waiting.contains(place);
                self.routes.iter().filter(|route| suspect(&route.place())).copied().collect()
            }
        };
        let patience = &self.mender.patience;
        let ready = |route: &Route| patience.when(&Part::Route(route.place()), now) <= now;
        let (due, mut waiting): (Vec<Route>, Vec<Route>) = missing.into_iter().partition(ready);
        let mut tried = self.netlink.add_each(&self.link, &due).await;
        if !tried.taken.is_empty() {
            self.take_back(&mut tried).await?;
        }
        let Tried { done, failed, .. } = tried;
        let mut longest = Duration::ZERO;
        for route in done.iter().chain(failed.iter().map(|(route, _)| route)) {
            longest = longest.max(self.mender.patience.mended(Part::Route(route.place()), now));
        }
        if !done.is_empty() {
            self.mender.upkeep.restored.fetch_add(done.len() as u64, Ordering::Relaxed);
            let names = named(done.iter().map(|route| route.destination.to_string()));
            tracing::warn!("{} route(s) of ours were gone and are back: {names}{}", done.len(), waits(longest));
        }
        if let Some((route, error)) = failed.first() {
            let (count, destination) = (failed.len(), route.destination);
            tracing::warn!("{count} route(s) of ours cannot be put back: {destination}: {error}{}", waits(longest));
        }
        waiting.extend(failed.into_iter().map(|(route, _)| route));
        let again = waiting.iter().map(|route| self.mender.patience.when(&Part::Route(route.place()), now)).min();
        self.mender.waiting = waiting.iter().map(Route::place).collect();
        *self.mender.upkeep.missing.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
        Ok(again)
    }

    /// Where a place is taken, it is by ours, and nothing is missing, or by somebody who has put another route there.
    async fn take_back(&self, tried: &mut Tried) -> Result<(), NetlinkError> {
        let missing: HashSet<Route> = self.missing_routes().await?.into_iter().collect();
        tried.taken.retain(|route| missing.contains(route));
        for route in tried.taken.iter().take(NAMED) {
            let there = self.netlink.in_the_way(route).await?;
            tracing::warn!("in the place of our route {} somebody has put `{there}`: it goes", route.destination);
        }
        let replaced = self.netlink.replace_each(&self.link, &tried.taken).await;
        tried.done.extend(replaced.done);
        tried.failed.extend(replaced.failed);
        Ok(())
    }

    /// Those that the kernel does not have as they should be. It is asked for those of our protocol number alone.
    async fn missing_routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let Some(protocol) = self.routes.first().map(|route| route.protocol) else { return Ok(Vec::new()) };
        let found = self.netlink.routes_of(protocol).await?;
        let there = found.into_iter().filter(|found| found.oif == Some(self.link.index)).map(|found| found.route);
        let there: HashSet<Route> = there.collect();
        Ok(self.routes.iter().filter(|route| !there.contains(route)).copied().collect())
    }

    /// Interfaces with addresses, IPv6, the way to the BR: says what has changed since the last time.
    async fn look_around(&mut self) {
        let before = self.mender.surroundings.take();
        match Surroundings::of(&self.netlink, self.link.index, self.br, before.as_ref()).await {
            Ok(now) => {
                if let Some(before) = before {
                    now.tell(&before, self.br);
                }
                self.mender.surroundings = Some(now);
            }
            Err(error) => {
                tracing::debug!("{error}");
                self.mender.surroundings = before;
            }
        }
    }
}

/// Said of what had to be put back more than once.
fn waits(wait: Duration) -> String {
    match wait > FIRST {
        true => format!(
            "; it happens again and again (`ip monitor` shows it): the next time it stays so for {} s",
            wait.as_secs()
        ),
        false => String::new(),
    }
}

fn named(mut names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names.by_ref().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// What a translator needs around it.
#[derive(Debug, PartialEq, Eq)]
struct Surroundings {
    /// Whether interfaces work that have or had addresses, by name.
    interfaces: BTreeMap<String, bool>,
    /// Whether the host has an IPv6 address.
    ipv6: bool,
    /// Whether it knows where to send a packet for the BR.
    br: bool,
}

impl Surroundings {
    async fn of(
        netlink: &Netlink,
        tun: u32,
        br: Option<Ipv6Addr>,
        before: Option<&Surroundings>,
    ) -> Result<Surroundings, NetlinkError> {
        let addresses = netlink.addresses(tun).await?;
        let links = netlink.links().await?;
        let named = addresses.iter().filter_map(|(index, _)| Some(links.get(index)?.name.clone()));
        let names: HashSet<String> =
            before.into_iter().flat_map(|before| before.interfaces.keys().cloned()).chain(named).collect();
        let working: HashSet<&str> =
            links.values().filter(|link| link.up && link.carrier).map(|link| link.name.as_str()).collect();
        let interfaces = names.into_iter().map(|name| (working.contains(name.as_str()), name));
        Ok(Surroundings {
            interfaces: interfaces.map(|(works, name)| (name, works)).collect(),
            ipv6: addresses.iter().any(|(_, address)| address.is_ipv6()),
            br: match br {
                Some(br) => netlink.reaches(br).await?,
                None => true,
            },
        })
    }

    fn tell(&self, before: &Surroundings, br: Option<Ipv6Addr>) {
        let changed = |to: bool| {
            let changed = self.interfaces.iter().filter(move |(name, works)| {
                **works == to && before.interfaces.get(*name).is_some_and(|before| *before != to)
            });
            changed.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>()
        };
        let (down, up) = (changed(false), changed(true));
        if !down.is_empty() {
            tracing::warn!("interface {} is down or gone", named(down.into_iter()));
        }
        if !up.is_empty() {
            tracing::info!("interface {} works again", named(up.into_iter()));
        }
        match (before.ipv6, self.ipv6) {
            (true, false) => tracing::warn!("this host has no IPv6 address any more"),
            (false, true) => tracing::info!("this host has an IPv6 address again"),
            _ => {}
        }
        if let Some(br) = br {
            match (before.br, self.br) {
                (true, false) => tracing::warn!("this host has no IPv6 route to the BR ({br}) any more"),
                (false, true) => tracing::info!("this host has an IPv6 route to the BR ({br}) again"),
                _ => {}
            }
        }
    }
}
