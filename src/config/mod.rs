//! YAML text to valid values; every error at once, with path, line, column, section.
//!
//! `raw` makes a tree of nodes out of the text, `decode` has the helpers that turn nodes into values,
//! `rules` and `daemon` know the keys. Nothing here touches a file: whoever asks hands in a loader.

mod daemon;
mod decode;
pub mod error;
mod forwards;
mod metrics;
mod pcp;
mod raw;
pub mod routes;
pub mod rules;

use std::io;
use std::path::{Path, PathBuf};

use crate::br::BrParams;
use crate::ce::CeParams;
use crate::map::Provisioning;
use crate::pcp::PcpParams;

pub use error::{ConfigError, Findings, Loaded};
pub use raw::MAX_TEXT;
pub use rules::RuleSet;

/// Reads the file that `rules:` names; the path is relative to where the program runs.
pub type Loader<'l> = &'l mut dyn FnMut(&Path) -> io::Result<String>;

/// Either kind of file.
#[derive(Clone, Debug)]
pub enum Document {
    /// A rule set: there is no key `role`.
    Rules(RuleSet),
    /// A daemon's file.
    Daemon(Box<Config>),
}

impl Document {
    /// Reads a rule set, or, where the text has a key `role`, a daemon's file. All errors come at once, those of the
    /// rules' own file after those of `text`.
    pub fn load(text: &str, file: &Path, loader: Loader<'_>) -> Result<Loaded<Document>, Findings> {
        load(text, file, loader, Kind::Either, None)
    }

    /// The rules, wherever they stood.
    pub fn provisioning(&self) -> Provisioning {
        match self {
            Document::Rules(set) => Provisioning {
                version: set.version,
                date: set.date.clone(),
                table: set.table.clone(),
                end_user_prefix: None,
            },
            Document::Daemon(config) => config.provisioning.clone(),
        }
    }
}

impl RuleSet {
    /// Reads a rule set. All errors come at once.
    pub fn load(text: &str, file: &Path) -> Result<Loaded<RuleSet>, Findings> {
        let mut loader = |_: &Path| Err(io::ErrorKind::Unsupported.into());
        match load(text, file, &mut loader, Kind::Rules, None)? {
            Loaded { value: Document::Rules(value), warnings } => Ok(Loaded { value, warnings }),
            _ => Err(ConfigError::of_file(&file.to_string_lossy(), "this is no rule set").into()),
        }
    }
}

impl Config {
    /// Reads a daemon's file. All errors come at once, those of the rules' own file after those of `text`.
    ///
    /// `seed` of the role's parameters is 0: whoever runs an engine draws one from the system.
    pub fn load(text: &str, file: &Path, loader: Loader<'_>) -> Result<Loaded<Config>, Findings> {
        Config::of(load(text, file, loader, Kind::Daemon, None)?, file)
    }

    /// Reads a daemon's file, with `rules` in the place of what its key `rules` says, which is not looked at.
    pub fn load_with(text: &str, file: &Path, rules: &RuleSet) -> Result<Loaded<Config>, Findings> {
        let mut loader = |_: &Path| Err(io::ErrorKind::Unsupported.into());
        Config::of(load(text, file, &mut loader, Kind::Daemon, Some(rules))?, file)
    }

    /// `state-directory` and `instance` of a daemon's file, whatever is wrong with the rest of it.
    pub fn state_of(text: &str, file: &Path) -> Option<(PathBuf, String)> {
        let node = raw::parse(text).ok()?;
        let slot = decode::Slot { node: &node, path: error::Path::Root };
        daemon::state(slot, file.parent().unwrap_or(Path::new("")), &mut error::Reporter::new("", text))
    }

    fn of(loaded: Loaded<Document>, file: &Path) -> Result<Loaded<Config>, Findings> {
        match loaded {
            Loaded { value: Document::Daemon(value), warnings } => Ok(Loaded { value: *value, warnings }),
            _ => Err(ConfigError::of_file(&file.to_string_lossy(), "this is no daemon's file").into()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Either,
    Rules,
    Daemon,
}

fn load(
    text: &str,
    file: &Path,
    loader: Loader<'_>,
    kind: Kind,
    given: Option<&RuleSet>,
) -> Result<Loaded<Document>, Findings> {
    let name = file.to_string_lossy().replace(char::is_control, "?");
    let mut r = error::Reporter::new(&name, text);
    let mut elsewhere = Findings::default();
    let document =
        raw::parse(text).map_err(|e| r.error(error::Path::Root, e.at, e.message, "")).ok().and_then(|node| {
            let slot = decode::Slot { node: &node, path: error::Path::Root };
            let daemon = kind == Kind::Daemon || (kind == Kind::Either && decode::has_key(&node, "role"));
            if !daemon {
                return rules::rule_set(slot, &mut r).map(Document::Rules);
            }
            let directory = file.parent().unwrap_or(Path::new(""));
            let mut rules_file = |rules: &str| {
                let path = directory.join(rules);
                let text = loader(&path).map_err(|e| {
                    format!("cannot read `{}`: {e}", path.to_string_lossy().replace(char::is_control, "?"))
                })?;
                Ok(RuleSet::load(&text, &path))
            };
            let config = daemon::daemon(slot, directory, given, &mut rules_file, &mut elsewhere, &mut r)?;
            Some(Document::Daemon(Box::new(config)))
        });
    let mut findings = r.finish();
    findings.errors.append(&mut elsewhere.errors);
    findings.warnings.append(&mut elsewhere.warnings);
    match document {
        Some(value) if findings.errors.is_empty() => Ok(Loaded { value, warnings: findings.warnings }),
        _ => Err(findings),
    }
}

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
    /// `control`.
    pub control: Option<ControlConfig>,
    /// `metrics`; default none: nobody is told.
    pub metrics: Option<MetricsConfig>,
    /// `napt.log-mappings`.
    pub log_mappings: bool,
    /// `state-directory`.
    pub state_directory: Option<PathBuf>,
    /// `pcp`, of a CE; default none: nobody is served.
    pub pcp: Option<PcpConfig>,
    /// `napt.restore-within`: how old flows of a former process may be; 0: they are not kept. Default 600 s.
    pub restore_within: std::time::Duration,
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

/// The `pcp` block: PCP and NAT-PMP for hosts of the home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcpConfig {
    /// Our own addresses in the LAN, 1 to 16.
    pub listen: Vec<std::net::Ipv4Addr>,
    /// Lifetimes and quotas.
    pub params: PcpParams,
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

/// `control`: the Unix socket that a daemon serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// Its path.
    pub socket: PathBuf,
    /// Who may connect.
    pub mode: ControlMode,
    /// `group`: name or number; only with `ControlMode::Group`.
    pub group: Option<String>,
}

/// `metrics`: the counters for Prometheus, over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where.
    pub listen: Listen,
    /// Most rules that have series of their own; where there are more, none has. 0 to 1000, default 100.
    pub rules: usize,
}

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(std::net::SocketAddr),
    /// A Unix socket.
    Unix(ControlConfig),
}

/// Who may connect to the control socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControlMode {
    /// 0600.
    #[default]
    Owner,
    /// 0660.
    Group,
}
