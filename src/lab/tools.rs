//! The programs that the lab calls, and the Debian packages that have them.

use std::path::Path;

use super::LabError;

/// Program and package.
type Tool = (&'static str, &'static str);

/// What every lab needs.
pub const LAB: &[Tool] = &[
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("curl", "curl"),
    ("nginx", "nginx-light"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
];

/// What the benchmark needs.
pub const BENCH: &[Tool] = &[
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("iperf3", "iperf3"),
    ("tayga", "tayga"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
];

/// Fails, with one message, when programs are missing, we are not root, or there is no TUN.
pub fn check(tools: &[Tool]) -> Result<(), LabError> {
    let packages = missing(tools);
    if !packages.is_empty() {
        let why = format!("these Debian packages are missing; install them:\n  apt-get install {}", packages.join(" "));
        return Err(LabError::failed("look for programs", why));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::failed("make network namespaces", "only root may; run it with sudo"));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(LabError::failed("look for /dev/net/tun", "not there; `modprobe tun` may help"));
    }
    Ok(())
}

/// The packages to install, each once.
pub fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        tools.iter().filter(|(program, _)| !installed(program)).map(|&(_, package)| package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Also looks where root's programs are, which an ordinary user's PATH may leave out.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|directory| directory.join(program).is_file())
}
