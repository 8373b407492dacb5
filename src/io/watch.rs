//! What the kernel says about links, addresses and routes, boiled down to what may have to be mended. However much it
//! says (a border router's BGP changes thousands of routes a second), little is kept and nothing is done for each word.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{Stream, StreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;
use tokio::sync::Notify;

use super::netlink::{FoundRoute, Place};
use super::setup::Installed;

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];
/// Octets asked for the socket's buffer; the kernel gives at most `net.core.rmem_max`.
const BUFFER: i32 = 1 << 20;
/// From the first word to a look: one command often says a lot.
const SETTLE: Duration = Duration::from_millis(200);
/// Everything is looked at as often as this, whatever the kernel has said.
const PERIOD: Duration = Duration::from_secs(60);
/// Routes remembered one by one.
const FEW: usize = 1000;

/// What there is to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Our device, its address and all routes.
    pub all: bool,
    /// Places where a route of ours may be missing.
    pub places: HashSet<Place>,
    /// Interfaces, addresses and routes that are not ours.
    pub surroundings: bool,
}

impl fmt::Display for Suspects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all {
            true => write!(f, "everything"),
            false => write!(f, "{} place(s)", self.places.len()),
        }
    }
}

/// Which of the kernel's words concern us.
#[derive(Debug)]
pub struct Ours {
    /// Index of our TUN.
    pub tun: u32,
    /// `routes.protocol`.
    pub protocol: u8,
    /// `routes.table`.
    pub table: u32,
    /// `routes.metric`.
    pub metric: u32,
    /// Whether IPv6 routes of others matter: to a CE that needs one to its BR.
    pub needs_route: bool,
}

impl Ours {
    /// Adds what this message makes suspicious; whether it does.
    fn take(&self, message: NetlinkMessage<RouteNetlinkMessage>, suspects: &mut Suspects) -> bool {
        let new = if message.header.flags & NLM_F_REPLACE == 0 { Change::New } else { Change::Replaced };
        match message.payload {
            // The socket's buffer was full: anything may have happened.
            NetlinkPayload::Overrun(_) => {
                tracing::debug!("the kernel had more to say than fits: everything is looked at");
                (suspects.all, suspects.surroundings) = (true, true);
            }
            NetlinkPayload::InnerMessage(message) => match message {
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                    suspects.all |= link.header.index == self.tun;
                    suspects.surroundings |= link.header.index != self.tun;
                }
                RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                    suspects.all |= address.header.index == self.tun;
                    suspects.surroundings |= address.header.index != self.tun;
                }
                RouteNetlinkMessage::DelRoute(route) => return self.take_route(route, Change::Gone, suspects),
                RouteNetlinkMessage::NewRoute(route) => return self.take_route(route, new, suspects),
                _ => return false,
            },
            _ => return false,
        }
        true
    }

    fn take_route(&self, route: RouteMessage, change: Change, suspects: &mut Suspects) -> bool {
        let surroundings = self.needs_route && route.header.address_family == AddressFamily::Inet6;
        let Some(FoundRoute { route, oif, .. }) = FoundRoute::from_message(route) else { return false };
        let ours = oif == Some(self.tun) && route.protocol == self.protocol;
        let suspect = match change {
            Change::Gone => ours,
            Change::Replaced => (route.table, route.metric) == (self.table, self.metric),
            Change::New => false,
        };
        let surroundings = surroundings && !ours;
        suspects.surroundings |= surroundings;
        if suspect && !suspects.all {
            suspects.places.insert(route.place());
            suspects.all = suspects.places.len() > FEW;
        }
        suspect || surroundings
    }
}

/// What became of a route.
#[derive(Clone, Copy, Debug)]
enum Change {
    New,
    /// The one that was at its place before has gone.
    Replaced,
    Gone,
}

#[derive(Debug)]
struct Notice {
    ours: Ours,
    suspects: Mutex<Suspects>,
    bell: Notify,
}

impl Notice {
    async fn listen(self: Arc<Self>, messages: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>) {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
            if self.ours.take(message, &mut suspects) {
                self.bell.notify_one();
            }
        }
    }
}

/// Tells when to look at what was installed.
#[derive(Debug)]
pub struct Watch {
    notice: Arc<Notice>,
    /// Which listens.
    task: Option<tokio::task::JoinHandle<()>>,
    /// The next look.
    next: Instant,
    /// Whether `next` is due to the bell.
    rung: bool,
    /// When the next look at everything may be that the kernel's words ask for.
    not_before: Instant,
    period: Instant,
}

impl Watch {
    /// Begins to listen, in the network namespace of this thread; the first look is at everything, at once.
    pub fn start(ours: Ours) -> Watch {
        let now = Instant::now();
        let suspects = Mutex::new(Suspects { all: true, places: HashSet::new(), surroundings: true });
        let notice = Arc::new(Notice { ours, suspects, bell: Notify::new() });
        let mut watch = Watch { notice, task: None, next: now, rung: false, not_before: now, period: now };
        watch.listen();
        watch
    }

    /// Unless somebody does already. Without ears, everything is looked at once a minute.
    fn listen(&mut self) {
        if self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (mut connection, _, messages) = match rtnetlink::new_multicast_connection(&GROUPS) {
            Ok(parts) => parts,
            Err(error) => return tracing::warn!("changes of routes cannot be followed: {error}"),
        };
        let _ = connection.socket_mut().socket_mut().set_rx_buf_sz(BUFFER);
        let notice = Arc::clone(&self.notice);
        self.task = Some(tokio::spawn(async move {
            let messages = messages.map(|(message, _)| message);
            tokio::join!(connection, notice.listen(messages));
        }));
    }

    /// Returns when there is something to look at. May be dropped and called again.
    pub async fn due(&mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.next.into()) => return,
                () = self.notice.bell.notified(), if !self.rung => {
                    self.rung = true;
                    self.next = self.next.min((Instant::now() + SETTLE).max(self.not_before));
                }
            }
        }
    }

    /// Looks, and mends.
    pub async fn look(&mut self, installed: &mut Installed) {
        let mut suspects = std::mem::take(&mut *self.notice.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        let asked = std::mem::take(&mut self.rung);
        let begin = Instant::now();
        if begin >= self.period {
            self.period = begin + PERIOD;
            (suspects.all, suspects.surroundings) = (true, true);
            self.listen();
        }
        let again = installed.mend(&suspects, begin).await;
        let end = Instant::now();
        tracing::debug!("looked at {suspects}: {:?}", end - begin);
        if asked && (suspects.all || suspects.surroundings) {
            // A fifth of the time at most, however much the kernel says.
            self.not_before = end + (end - begin) * 4;
        }
        self.next = again.map_or(self.period, |again| again.min(self.period));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rtnetlink::RouteMessageBuilder;
    use rtnetlink::packet_core::NetlinkHeader;
    use rtnetlink::packet_route::route::RouteProtocol;

    use super::*;

    const OURS: Ours = Ours { tun: 7, protocol: 182, table: 254, metric: 1024, needs_route: false };

    fn route(number: u32, oif: u32, protocol: u8, metric: u32) -> RouteMessage {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::from(0x1400_0000 + (number << 8)), 24)
            .table_id(254)
            .protocol(RouteProtocol::from(protocol))
            .priority(metric)
            .output_interface(oif)
            .build()
    }

    fn message(flags: u16, message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message))
    }

    #[test]
    fn other_peoples_routes_make_nothing_suspicious() {
        let mut suspects = Suspects::default();
        for number in 0..100_000 {
            // BIRD's, and the kernel's IPv6 metric beside another device.
            let (theirs, kernels) = (route(number, 3, 12, 32), route(number, 3, 2, 1024));
            assert!(!OURS.take(message(0, RouteNetlinkMessage::NewRoute(theirs.clone())), &mut suspects));
            assert!(!OURS.take(message(NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(theirs.clone())), &mut suspects));
            assert!(!OURS.take(message(0, RouteNetlinkMessage::DelRoute(theirs)), &mut suspects));
            assert!(!OURS.take(message(0, RouteNetlinkMessage::DelRoute(kernels)), &mut suspects));
        }
        assert_eq!(suspects, Suspects::default());
    }

    #[test]
    fn ours_are_remembered_while_they_are_few() {
        let mut suspects = Suspects::default();
        let gone = |number| message(0, RouteNetlinkMessage::DelRoute(route(number, 7, 182, 1024)));
        assert!(OURS.take(gone(1), &mut suspects));
        let instead = route(2, 3, 3, 1024);
        assert!(OURS.take(message(NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(instead)), &mut suspects));
        let mut places: Vec<String> = suspects.places.iter().map(|(net, ..)| net.to_string()).collect();
        places.sort();
        assert_eq!((suspects.all, places), (false, vec!["20.0.1.0/24".to_owned(), "20.0.2.0/24".to_owned()]));
        for number in 0..100_000 {
            assert!(OURS.take(gone(number), &mut suspects) || suspects.all);
        }
        assert!(suspects.all && suspects.places.len() <= FEW + 1);
    }

    #[test]
    fn an_overflow_has_everything_looked_at() {
        let mut suspects = Suspects::default();
        let overrun = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Overrun(Vec::new()));
        assert!(OURS.take(overrun, &mut suspects));
        assert!(suspects.all && suspects.surroundings);
    }
}
