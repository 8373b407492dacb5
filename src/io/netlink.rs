//! Link, addresses and routes, through Netlink on a current-thread runtime.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::stream::{Stream, StreamExt};
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteAddRequest, RouteHandle, RouteMessageBuilder};
use tokio::task::JoinSet;

use super::tun::Persistent;

/// Requests under way at a time: enough to keep the kernel busy, few enough that their answers fit into the
/// socket's receive buffer.
const WINDOW: usize = 64;

/// What Netlink would not do.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("no Netlink socket: {0}")]
    Socket(std::io::Error),
    /// CAP_NET_ADMIN is missing.
    #[error(
        "{0}: the capability CAP_NET_ADMIN is missing: run as root, or with `AmbientCapabilities=CAP_NET_ADMIN` in the unit"
    )]
    Capability(String),
    /// A route to the destination stands in the way.
    #[error(
        "route {wanted} is in the way of one that exists already: `{there}`; remove that one, or give ours another \
         `routes.metric` or `routes.table`"
    )]
    RouteExists {
        /// Destination, table and metric of ours.
        wanted: String,
        /// The one that is there.
        there: String,
    },
    /// The kernel's answer.
    #[error("{what}: {errno}")]
    Kernel {
        /// What was tried.
        what: String,
        /// The answer.
        errno: Errno,
    },
    /// The connection to the kernel broke.
    #[error("{what}: {error}")]
    Protocol {
        /// What was tried.
        what: String,
        /// Why.
        error: rtnetlink::Error,
    },
}

fn errno_of(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(e) => Some(Errno::from_raw(e.raw_code().abs())),
        _ => None,
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    let what = what.into();
    move |error| match errno_of(&error) {
        Some(Errno::EPERM) => NetlinkError::Capability(what),
        Some(errno) => NetlinkError::Kernel { what, errno },
        None => NetlinkError::Protocol { what, error },
    }
}

/// A link as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// `tun`, `tap`, `veth`, ...; empty for a physical device.
    pub kind: String,
    /// MTU in octets.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether something is at its other end: for a TUN, a process.
    pub carrier: bool,
    /// Whether IPv6 makes no addresses on it by itself.
    pub addr_gen_none: bool,
    /// Whether it takes part in multicast.
    pub multicast: bool,
    /// A persistent TUN (not TAP) without a process.
    pub free_tun: Option<Persistent>,
}

impl Link {
    fn from_message(message: &LinkMessage) -> Link {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            kind: String::new(),
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            addr_gen_none: false,
            multicast: flags.contains(LinkFlags::Multicast),
            free_tun: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => link.take_info(infos),
                LinkAttribute::AfSpecUnspec(families) => {
                    for family in families {
                        if let AfSpecUnspec::Inet6(inet6) = family {
                            link.addr_gen_none = inet6.contains(&AfSpecInet6::AddrGenMode(In6AddrGenMode::None));
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }

    fn take_info(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(InfoKind::Tun) => self.kind = "tun".to_owned(),
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Tun(attributes)) => {
                    // linux/if_link.h, IFLA_TUN_*: the crate knows none of them yet.
                    let value = |kind: u16| {
                        attributes.iter().find_map(|attribute| match attribute {
                            InfoTun::Other(nla) if nla.kind() == kind => Some(number(nla)),
                            _ => None,
                        })
                    };
                    let (layer, persist, multi_queue, queues, disabled) =
                        (value(3), value(6), value(7), value(8), value(9));
                    if layer == Some(2) {
                        self.kind = "tap".to_owned();
                    }
                    let attached = queues.unwrap_or(0) + disabled.unwrap_or(0);
                    if layer == Some(1) && persist == Some(1) && attached == 0 {
                        self.free_tun = Some(Persistent { multi_queue: multi_queue == Some(1) });
                    }
                }
                _ => {}
            }
        }
    }
}

fn number(nla: &DefaultNla) -> u32 {
    let mut value = vec![0; nla.value_len()];
    nla.emit_value(&mut value);
    match value[..] {
        [a] => u32::from(a),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// A route into our TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Destination.
    pub destination: IpNet,
    /// Routing table.
    pub table: u32,
    /// Metric; the lowest wins.
    pub metric: u32,
    /// Route protocol number.
    pub protocol: u8,
    /// `mtu` metric in octets.
    pub mtu: Option<u32>,
    /// Preferred source.
    pub source: Option<Ipv4Addr>,
}

/// Destination, table and metric: the kernel has one route there.
pub type Place = (IpNet, u32, u32);

impl Route {
    /// Where it stands.
    pub fn place(&self) -> Place {
        (self.destination, self.table, self.metric)
    }

    /// What `ip` would have to be told.
    pub fn command(&self, device: &str) -> String {
        let family = if self.destination.addr().is_ipv4() { 4 } else { 6 };
        let mut line = format!("ip -{family} route add {} dev {device} proto {}", self.destination, self.protocol);
        if self.table != u32::from(RouteHeader::RT_TABLE_MAIN) {
            line += &format!(" table {}", self.table);
        }
        if self.destination.addr().is_ipv4() {
            line += " scope link";
        }
        if let Some(source) = self.source {
            line += &format!(" src {source}");
        }
        line += &format!(" metric {}", self.metric);
        if let Some(mtu) = self.mtu {
            line += &format!(" mtu {mtu}");
        }
        line
    }

    fn message(&self, index: u32) -> RouteMessage {
        let protocol = RouteProtocol::from(self.protocol);
        let mut message = match self.destination {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .scope(RouteScope::Link)
                .table_id(self.table)
                .protocol(protocol)
                .priority(self.metric)
                .output_interface(index)
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .table_id(self.table)
                .protocol(protocol)
                .priority(self.metric)
                .output_interface(index)
                .build(),
        };
        if let Some(source) = self.source {
            message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
        }
        if let Some(mtu) = self.mtu {
            message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        message
    }
}

/// A route of the kernel's.
#[derive(Clone, Debug)]
pub struct FoundRoute {
    /// What it has in common with ours.
    pub route: Route,
    /// Where it leaves; `None` for unreachable and multipath routes.
    pub oif: Option<u32>,
    message: RouteMessage,
}

impl FoundRoute {
    /// `None` for what is neither IPv4 nor IPv6.
    pub fn from_message(message: RouteMessage) -> Option<FoundRoute> {
        let mut destination = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let (mut table, mut metric, mut mtu, mut source, mut oif) =
            (u32::from(message.header.table), 0, None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = IpAddr::V4(*addr),
                RouteAttribute::Destination(RouteAddress::Inet6(addr)) => destination = IpAddr::V6(*addr),
                RouteAttribute::PrefSource(RouteAddress::Inet(addr)) => source = Some(*addr),
                RouteAttribute::Table(t) => table = *t,
                RouteAttribute::Priority(p) => metric = *p,
                RouteAttribute::Oif(index) => oif = Some(*index),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
                }
                _ => {}
            }
        }
        let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
        let protocol = u8::from(message.header.protocol);
        Some(FoundRoute { route: Route { destination, table, metric, protocol, mtu, source }, oif, message })
    }

    fn describe(&self, links: &HashMap<u32, Link>) -> String {
        let mut line = self.route.destination.to_string();
        if let Some(index) = self.oif {
            match links.get(&index) {
                Some(link) => line += &format!(" dev {}", link.name),
                None => line += &format!(" dev #{index}"),
            }
        }
        format!("{line} table {} proto {} metric {}", self.route.table, self.route.protocol, self.route.metric)
    }
}

/// What became of routes that were each tried.
#[derive(Debug, Default)]
pub struct Tried {
    /// They are there.
    pub done: Vec<Route>,
    /// Something else has their place.
    pub taken: Vec<Route>,
    /// The kernel does not want them.
    pub failed: Vec<(Route, rtnetlink::Error)>,
}

/// A connection to the kernel.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
    /// Its dumps are filtered by the kernel: a full table has a million routes, of which few are ours.
    strict: Handle,
}

impl Netlink {
    /// Opens it in the network namespace of this thread. To be called within a runtime, which then drives it.
    pub fn connect() -> Result<Netlink, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        let (connection, strict, _) = rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Netlink { handle, strict })
    }

    /// The link of that name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name.to_owned()).execute());
        match found.next().await {
            Some(Ok(message)) => Ok(Some(Link::from_message(&message))),
            Some(Err(error)) if matches!(errno_of(&error), Some(Errno::ENODEV)) => Ok(None),
            Some(Err(error)) => Err(failed(format!("link `{name}`"))(error)),
            None => Ok(None),
        }
    }

    /// The link of that index.
    pub async fn link_at(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let mut found = std::pin::pin!(self.handle.link().get().match_index(index).execute());
        match found.next().await {
            Some(Ok(message)) => Ok(Some(Link::from_message(&message))),
            Some(Err(error)) if matches!(errno_of(&error), Some(Errno::ENODEV)) => Ok(None),
            Some(Err(error)) => Err(failed(format!("link #{index}"))(error)),
            None => Ok(None),
        }
    }

    /// All links, by index.
    pub async fn links(&self) -> Result<HashMap<u32, Link>, NetlinkError> {
        let messages = collect(self.handle.link().get().execute()).await.map_err(failed("list of links"))?;
        Ok(messages.iter().map(|m| (m.header.index, Link::from_message(m))).collect())
    }

    /// Brings a link up with this MTU, and keeps IPv6 from talking on it by itself (no link-local address, so no
    /// Router Solicitation; no multicast, so no MLD). Asks for nothing where all is so already.
    pub async fn bring_up(&self, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
        if link.up && link.mtu == mtu && link.addr_gen_none && !link.multicast {
            return Ok(());
        }
        let quiet = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]);
        let what = format!("link `{}` with MTU {mtu}", link.name);
        let request = LinkUnspec::new_with_index(link.index).mtu(mtu).multicast(false).append_extra_attribute(quiet);
        self.handle.link().set(request.build()).execute().await.map_err(failed(what.clone()))?;
        // In a request of its own: within one, the kernel brings the link up before it looks at the family's part.
        let request = LinkUnspec::new_with_index(link.index).up();
        self.handle.link().set(request.build()).execute().await.map_err(failed(what))
    }

    /// Adds an IPv4 address as /32. `false` where it stood there before.
    pub async fn add_address(&self, link: &Link, address: Ipv4Addr) -> Result<bool, NetlinkError> {
        match self.handle.address().add(link.index, IpAddr::V4(address), 32).execute().await {
            Ok(()) => Ok(true),
            Err(error) if matches!(errno_of(&error), Some(Errno::EEXIST)) => Ok(false),
            Err(error) => Err(failed(format!("address {address}/32 on `{}`", link.name))(error)),
        }
    }

    /// Removes an IPv4 address.
    pub async fn remove_address(&self, link: &Link, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().index(link.index).address(address, 32).build();
        let removed = self.handle.address().del(message).execute().await;
        removed.map_err(failed(format!("removal of address {address}/32 from `{}`", link.name)))
    }

    /// Whether a link other than `except` has an IPv6 address that others can answer to.
    pub async fn has_ipv6_address(&self, except: u32) -> Result<bool, NetlinkError> {
        Ok(self.addresses(except).await?.iter().any(|(_, address)| address.is_ipv6()))
    }

    /// Addresses that others can answer to, with the index of their link, which is not `except`: neither link-local
    /// nor loopback, and no duplicates of another node's.
    pub async fn addresses(&self, except: u32) -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
        let addresses = collect(self.handle.address().get().execute()).await.map_err(failed("list of addresses"))?;
        let usable = addresses.into_iter().filter(|message| {
            let header = &message.header;
            header.index != except
                && header.scope == AddressScope::Universe
                && !header.flags.contains(AddressHeaderFlags::Dadfailed)
        });
        let found = usable.filter_map(|message| {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) if !ip.is_loopback() && !ip.is_unspecified() => Some(*ip),
                _ => None,
            });
            Some((message.header.index, address?))
        });
        Ok(found.collect())
    }

    /// Whether the host would know where to send a packet for `to`.
    pub async fn reaches(&self, to: Ipv6Addr) -> Result<bool, NetlinkError> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128).build();
        let mut answer = std::pin::pin!(self.handle.route().get(message).execute());
        match answer.next().await {
            Some(Ok(route)) => Ok(route.header.kind == RouteType::Unicast || route.header.kind == RouteType::Local),
            Some(Err(error)) => match errno_of(&error) {
                Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL) => Ok(false),
                _ => Err(failed(format!("route to {to}"))(error)),
            },
            None => Ok(false),
        }
    }

    /// Every route with this protocol number, of either family and in any table.
    pub async fn routes_of(&self, protocol: u8) -> Result<Vec<FoundRoute>, NetlinkError> {
        let mut routes = self.dump(AddressFamily::Inet, protocol, 0).await?;
        routes.append(&mut self.dump(AddressFamily::Inet6, protocol, 0).await?);
        Ok(routes)
    }

    /// Routes of a family; 0 stands for any protocol, any table.
    async fn dump(&self, family: AddressFamily, protocol: u8, table: u32) -> Result<Vec<FoundRoute>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = RouteProtocol::from(protocol);
        if table > 255 {
            message.attributes.push(RouteAttribute::Table(table));
        } else {
            message.header.table = table as u8;
        }
        match collect(self.strict.route().get(message).execute()).await {
            Ok(messages) => Ok(messages.into_iter().filter_map(FoundRoute::from_message).collect()),
            // A table that nobody has used yet, or a kernel without the family.
            Err(error) if matches!(errno_of(&error), Some(Errno::ENOENT | Errno::EAFNOSUPPORT)) => Ok(Vec::new()),
            Err(error) => Err(failed("list of routes")(error)),
        }
    }

    /// Adds all routes, or none: the first that the kernel refuses removes those added before.
    pub async fn add_routes(&self, link: &Link, routes: &[Route]) -> Result<(), NetlinkError> {
        let handle = self.handle.route();
        let index = link.index;
        let (added, error) = pipeline(routes.iter().copied(), |route| {
            let request = handle.add(route.message(index));
            async move { (route, request.execute().await) }
        })
        .await;
        let Some((route, error)) = error else { return Ok(()) };
        self.remove_routes(link, &added).await;
        let wanted = format!("{} metric {} in table {}", route.destination, route.metric, route.table);
        if errno_of(&error) != Some(Errno::EEXIST) {
            return Err(failed(format!("route {wanted}"))(error));
        }
        let there = self.in_the_way(&route).await.unwrap_or_else(|_| "unknown".to_owned());
        Err(NetlinkError::RouteExists { wanted, there })
    }

    /// Gives routes that stand there other metrics or another source; stops at the first that the kernel refuses.
    pub async fn replace_routes(&self, link: &Link, routes: &[Route]) -> Result<(), NetlinkError> {
        let handle = self.handle.route();
        let (_, error) = pipeline(routes.iter().copied(), |route| {
            let request = handle.add(route.message(link.index)).replace();
            async move { (route, request.execute().await) }
        })
        .await;
        match error {
            None => Ok(()),
            Some((route, error)) => Err(failed(format!("change of route {}", route.destination))(error)),
        }
    }

    /// Adds those whose place is free; one refusal does not keep the rest from it.
    pub async fn add_each(&self, link: &Link, routes: &[Route]) -> Tried {
        self.try_each(routes, |handle, route| handle.add(route.message(link.index))).await
    }

    /// Puts each at its place, whatever is there.
    pub async fn replace_each(&self, link: &Link, routes: &[Route]) -> Tried {
        self.try_each(routes, |handle, route| handle.add(route.message(link.index)).replace()).await
    }

    async fn try_each(
        &self,
        routes: &[Route],
        request: impl Fn(&RouteHandle, &Route) -> RouteAddRequest<IpAddr>,
    ) -> Tried {
        let handle = self.handle.route();
        let mut tried = Tried::default();
        let results = pipeline(routes.iter().copied(), |route| {
            let request = request(&handle, &route);
            async move {
                let result = request.execute().await;
                ((route, result), Ok(()))
            }
        });
        for (route, result) in results.await.0 {
            match result {
                Ok(()) => tried.done.push(route),
                Err(error) if errno_of(&error) == Some(Errno::EEXIST) => tried.taken.push(route),
                Err(error) => tried.failed.push((route, error)),
            }
        }
        tried
    }

    /// What has the place of this route, in words.
    pub async fn in_the_way(&self, of: &Route) -> Result<String, NetlinkError> {
        let family = if of.destination.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let links = self.links().await?;
        let found = self.dump(family, 0, of.table).await?;
        let same = |found: &&FoundRoute| found.route.place() == of.place();
        Ok(found.iter().find(same).map_or("gone by now".to_owned(), |found| found.describe(&links)))
    }

    /// For each of these routes what has its destination, table and metric, in words. It lists whole tables.
    pub async fn those_in_the_way(&self, of: &[Route]) -> Result<Vec<Option<String>>, NetlinkError> {
        let family = |route: &Route| route.destination.addr().is_ipv4();
        let tables: HashSet<(bool, u32)> = of.iter().map(|route| (family(route), route.table)).collect();
        let links = if of.is_empty() { HashMap::new() } else { self.links().await? };
        let mut there = HashMap::new();
        for (ipv4, table) in tables {
            let family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let found = self.dump(family, 0, table).await?;
            there.extend(found.into_iter().map(|f| (f.route.place(), f)));
        }
        Ok(of.iter().map(|route| there.get(&route.place()).map(|found| found.describe(&links))).collect())
    }

    /// Removes routes of ours; what is gone already is no error, anything else a warning.
    pub async fn remove_routes(&self, link: &Link, routes: &[Route]) {
        self.delete(routes.iter().map(|route| route.message(link.index))).await;
    }

    /// Removes routes that were found.
    pub async fn remove_found(&self, routes: impl IntoIterator<Item = FoundRoute>) {
        self.delete(routes.into_iter().map(|found| found.message)).await;
    }

    async fn delete(&self, messages: impl Iterator<Item = RouteMessage>) {
        let handle = self.handle.route();
        let mut messages = messages.peekable();
        let mut warned = false;
        while messages.peek().is_some() {
            // One refusal must not keep the rest from going.
            let (_, error) = pipeline(messages.by_ref(), |message| {
                let request = handle.del(message);
                async move {
                    match request.execute().await {
                        Err(error) if matches!(errno_of(&error), Some(Errno::ESRCH | Errno::ENODEV)) => ((), Ok(())),
                        result => ((), result),
                    }
                }
            })
            .await;
            if let Some(((), error)) = error
                && !std::mem::replace(&mut warned, true)
            {
                tracing::warn!("a route could not be removed: {error}");
            }
        }
    }
}

async fn collect<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>, rtnetlink::Error> {
    let mut stream = std::pin::pin!(stream);
    let mut all = Vec::new();
    while let Some(item) = stream.next().await {
        all.push(item?);
    }
    Ok(all)
}

/// Runs a request for each item, `WINDOW` of them at a time. Ends with the first refusal, and then says which
/// items had succeeded.
async fn pipeline<T, U, F>(
    items: impl Iterator<Item = T>,
    mut request: impl FnMut(T) -> F,
) -> (Vec<U>, Option<(U, rtnetlink::Error)>)
where
    U: Send + 'static,
    F: Future<Output = (U, Result<(), rtnetlink::Error>)> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let mut items = items.fuse();
    let (mut done, mut refused) = (Vec::new(), None);
    loop {
        while refused.is_none() && under_way.len() < WINDOW {
            match items.next() {
                Some(item) => drop(under_way.spawn(request(item))),
                None => break,
            }
        }
        match under_way.join_next().await {
            Some(Ok((item, Ok(())))) => done.push(item),
            Some(Ok((item, Err(error)))) => refused = refused.or(Some((item, error))),
            Some(Err(_)) => {}
            None => return (done, refused),
        }
    }
}

/// Which routes a start removes: ours (by protocol number) that leave by our TUN, or that our state file remembers
/// on a device which no process holds, as far as they are not `wanted` just as they are.
pub fn stale(
    found: Vec<FoundRoute>,
    tun: &Link,
    links: &HashMap<u32, Link>,
    remembered: &HashSet<super::state::Line>,
    wanted: &HashSet<Route>,
) -> (Vec<FoundRoute>, HashSet<Route>) {
    let (mut stale, mut kept) = (Vec::new(), HashSet::new());
    for route in found {
        if route.oif == Some(tun.index) {
            if wanted.contains(&route.route) {
                kept.insert(route.route);
            } else {
                stale.push(route);
            }
            continue;
        }
        let device = route.oif.and_then(|index| links.get(&index));
        // Another instance may have taken that name and route since.
        if device.is_some_and(|device| device.carrier) {
            continue;
        }
        let device = device.map_or("", |device| device.name.as_str());
        if remembered.contains(&super::state::Line::new(&route.route, device)) {
            stale.push(route);
        }
    }
    (stale, kept)
}
