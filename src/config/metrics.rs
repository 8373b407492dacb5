//! `metrics`: where the counters are served to Prometheus.
use super::daemon::{socket_path, unix_socket};
use super::decode::{self, Fields, Slot};
use super::error::Reporter;
use super::{Listen, MetricsConfig};
use std::net::{Ipv4Addr, SocketAddr};

/// A path has a slash; a bare port is one of 127.0.0.1.
pub(super) fn metrics(slot: Slot<'_, '_>, directory: &std::path::Path, r: &mut Reporter<'_>) -> Option<MetricsConfig> {
    const WHAT: &str = "a port of 127.0.0.1, an address and port such as 127.0.0.1:9782 or \"[::1]:9782\", or the path of a Unix socket with a `/`";
    enum Where {
        Tcp(SocketAddr),
        Path(std::path::PathBuf),
    }
    let fields = Fields::of(slot, decode::METRICS, "a mapping with the key `listen`", r)?;
    let listen = fields.require("listen", r, WHAT, "", |slot, r| {
        let text = decode::text(WHAT, 4096)(slot.again(), r)?;
        if text.contains('/') {
            return socket_path(&slot, directory.join(text), r).map(Where::Path);
        }
        let local = text.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        match local.or_else(|| text.parse().ok()).filter(|at: &SocketAddr| at.port() != 0) {
            Some(at) => {
                if !at.ip().is_loopback() {
                    slot.warning(
                        r,
                        format!("whoever reaches {at} can read the counters: the endpoint asks nobody who he is"),
                        "",
                    );
                }
                Some(Where::Tcp(at))
            }
            None => {
                slot.expected(r, WHAT, "");
                None
            }
        }
    });
    let rules = fields.get("rules", r, decode::integer(0..=1000u32, "", "")).unwrap_or(100) as usize;
    let listen = match listen? {
        Where::Path(path) => Listen::Unix(unix_socket(&fields, Some(path), r)?),
        Where::Tcp(at) => {
            for key in ["mode", "group"] {
                if fields.has(key) {
                    fields.error(key, r, "is for a Unix socket alone", "");
                }
            }
            Listen::Tcp(at)
        }
    };
    Some(MetricsConfig { listen, rules })
}
