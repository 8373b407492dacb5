//! The address plan of RFC 7597 Appendix A, and the namespaces that it is laid out in.
//!
//! ```text
//!  home 1                                                             IPv4 Internet
//!  h1 ── ce1 (mapt-ce) ══╗                                     ╔══ br (mapt-br) ── srv
//!  192.168.1.2           ╠═ 2001:db8:f000:1::/64     f000:3::/64      198.51.100.0/24
//!                        acc ════════════════════════╝
//!  h2 ── ce2 (mapt-ce) ══╝  2001:db8:f000:2::/64          ── IPv4 only   ══ IPv6 only
//!  home 2
//! ```

use std::net::Ipv4Addr;

use super::LabError;
use super::netns::{Netns, ip};
use super::registry::Site;

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The IPv4 address that both homes share.
pub const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
/// The source of ICMP errors whose IPv6 sender has no IPv4 address (RFC 7600's dummy address).
pub const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// What an IPv4 packet may measure so that its translation fits 1500 octets.
pub const IPV4_MTU: u32 = 1480;

/// The rule set of RFC 7597 Appendix A with the DMR of RFC 7599 Appendix A.
pub fn rules_yaml(forwarding: bool) -> String {
    format!(
        "\
version: 1
date: 2026-11-22T00:00:00Z
dmr-ipv6-prefix: 2001:db8:ffff::/64
rules:
  - name: appendix-a
    rule-ipv6-prefix: 2001:db8::/40
    rule-ipv4-prefix: 192.0.2.0/24
    ea-len: 16
    psid-offset: 6
    forwarding: {forwarding}
"
    )
}

/// One home: an IPv4-only host behind a CE.
#[derive(Clone, Debug)]
pub struct Home {
    /// 1 or 2.
    pub number: u8,
    /// The host's namespace.
    pub host: Netns,
    /// The CE's.
    pub ce: Netns,
    /// What the CE was delegated.
    pub end_user_prefix: &'static str,
    /// The PSID that this prefix carries.
    pub psid: u16,
}

impl Home {
    /// For the table.
    pub fn name(&self) -> String {
        format!("home {}", self.number)
    }

    /// Whether `port` is in this home's port set: offset a = 6, k = 8, m = 2, so `AAAAAA PPPPPPPP jj` with
    /// A > 0 (RFC 7597 §5.1). Written out here, so that it does not lean on what it tests.
    pub fn owns(&self, port: u16) -> bool {
        port >= 1024 && (port >> 2) & 0xff == self.psid
    }
}

/// Two homes that share one IPv4 address: they differ in the PSID.
fn homes(netns: impl Fn(&str) -> Netns) -> [Home; 2] {
    let home = |number: u8, end_user_prefix, psid: u16| Home {
        number,
        host: netns(&format!("h{number}")),
        ce: netns(&format!("ce{number}")),
        end_user_prefix,
        psid,
    };
    [home(1, "2001:db8:12:3400::/56", 0x34), home(2, "2001:db8:12:5600::/56", 0x56)]
}

/// All namespaces.
#[derive(Clone, Debug)]
pub struct Topology {
    /// The two homes.
    pub homes: [Home; 2],
    /// The IPv6-only access router.
    pub access: Netns,
    /// The Border Relay.
    pub br: Netns,
    /// The IPv4-only server.
    pub server: Netns,
}

impl Topology {
    /// The names; nothing is made yet.
    pub fn plan(site: &Site) -> Topology {
        Topology {
            homes: homes(|role| site.netns(role)),
            access: site.netns("acc"),
            br: site.netns("br"),
            server: site.netns("srv"),
        }
    }

    /// Every namespace with what stands in it.
    pub fn all(&self) -> Vec<(&Netns, String)> {
        let mut all = Vec::new();
        for home in &self.homes {
            all.push((&home.host, format!("host in home {}, 192.168.{}.2, IPv4 only", home.number, home.number)));
            all.push((&home.ce, format!("mapt-ce of home {}, {}", home.number, home.end_user_prefix)));
        }
        all.push((&self.access, "access router, IPv6 only".to_owned()));
        all.push((&self.br, "mapt-br".to_owned()));
        all.push((&self.server, format!("server {SERVER}, IPv4 only")));
        all
    }

    /// Makes namespaces, links, addresses and routes. What the daemons install is left to them.
    pub fn build(&self) -> Result<(), LabError> {
        for (netns, _) in self.all() {
            netns.create()?;
            quiet(netns)?;
        }
        for home in &self.homes {
            let n = home.number;
            ipv4_only(&home.host)?;
            link(&home.ce, "lan", &home.host, "eth0")?;
            link(&home.ce, "wan", &self.access, &format!("home{n}"))?;
            home.host.ip(&format!("addr add 192.168.{n}.2/24 dev eth0"))?;
            home.host.ip(&format!("route add default via 192.168.{n}.1"))?;
            home.ce.ip(&format!("addr add 192.168.{n}.1/24 dev lan"))?;
            home.ce.ip(&format!("addr add 2001:db8:f000:{n}::2/64 dev wan"))?;
            home.ce.ip(&format!("route add default via 2001:db8:f000:{n}::1"))?;
            self.access.ip(&format!("addr add 2001:db8:f000:{n}::1/64 dev home{n}"))?;
            self.access.ip(&format!("route add {}", self.home_route(home)))?;
        }
        link(&self.br, "access", &self.access, "br")?;
        self.access.ip("addr add 2001:db8:f000:3::1/64 dev br")?;
        self.access.ip("route add 2001:db8:ffff::/64 via 2001:db8:f000:3::2")?;
        self.access.ip("-4 addr flush dev lo")?;
        self.access.sysctl(&["net/ipv6/conf/all/forwarding=1", "net/ipv4/ip_forward=0"])?;
        self.br.ip("addr add 2001:db8:f000:3::2/64 dev access")?;
        self.br.ip("route add 2001:db8::/40 via 2001:db8:f000:3::1")?;

        ipv4_only(&self.server)?;
        link(&self.br, "internet", &self.server, "eth0")?;
        self.br.ip("addr add 198.51.100.1/24 dev internet")?;
        self.server.ip(&format!("addr add {SERVER}/24 dev eth0"))?;
        self.server.ip("route add default via 198.51.100.1")?;
        // Traceroute and PMTU discovery of many checks in a row must not meet the routers' limit of one
        // error a second.
        for router in [&self.homes[0].ce, &self.homes[1].ce, &self.br, &self.access] {
            router.sysctl(&["net/ipv6/icmp/ratelimit=0", "net/ipv4/icmp_ratelimit=0"])?;
        }
        Ok(())
    }

    /// The access router's route to a home, as `ip route` takes it.
    pub fn home_route(&self, home: &Home) -> String {
        format!("{} via 2001:db8:f000:{}::2 dev home{}", home.end_user_prefix, home.number, home.number)
    }
}

/// A veth pair with its two ends up, made in its namespaces: it is never seen outside of them.
pub fn link(a: &Netns, a_name: &str, b: &Netns, b_name: &str) -> Result<(), LabError> {
    ip(&["link", "add", a_name, "netns", a.name(), "type", "veth", "peer", "name", b_name, "netns", b.name()])?;
    a.ip(&format!("link set dev {a_name} up"))?;
    b.ip(&format!("link set dev {b_name} up"))
}

/// Loopback up, addresses usable at once, no router solicitations.
pub fn quiet(netns: &Netns) -> Result<(), LabError> {
    netns.sysctl(&[
        "net/ipv6/conf/all/accept_dad=0",
        "net/ipv6/conf/default/accept_dad=0",
        "net/ipv6/conf/default/router_solicitations=0",
        "net/ipv6/conf/default/accept_ra=0",
    ])?;
    netns.ip("link set lo up")
}

/// No IPv6 at all.
pub fn ipv4_only(netns: &Netns) -> Result<(), LabError> {
    netns.sysctl(&["net/ipv6/conf/all/disable_ipv6=1", "net/ipv6/conf/default/disable_ipv6=1"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7597 Appendix A, example 1: port set of PSID 0x34 with a = 6.
    #[test]
    fn the_port_sets_are_the_rfc_s() {
        let [one, two] = homes(|role| Netns::named(role.into()));
        for port in [1232, 1235, 2256, 2259, 63696, 63699, 64720, 64723] {
            assert!(one.owns(port), "{port}");
            assert!(!two.owns(port), "{port}");
        }
        for port in [0, 208, 211, 1231, 1236, 80] {
            assert!(!one.owns(port), "{port}");
        }
        let count = |home: &Home| (0..=u16::MAX).filter(|&port| home.owns(port)).count();
        assert_eq!((count(&one), count(&two)), (252, 252));
    }
}
