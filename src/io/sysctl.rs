//! The sysctls that forwarding through the TUN needs.
//!
//! Two of them are combined by the kernel out of `all` and the device: `send_redirects` by OR, `rp_filter` by
//! maximum. So what is set on our own device (always: it is ours) does not suffice, and `all` belongs to the host:
//! it is looked at, and changed only with `sysctl: manage`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::tun::is_interface_name;

const ROOT: &str = "/proc/sys";

/// One sysctl and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Components of the name; an interface name may contain dots.
    name: Vec<String>,
    /// The value.
    pub value: &'static str,
    /// What happens without it.
    pub because: &'static str,
    /// Whether a daemon is useless without it.
    pub required: bool,
}

impl Setting {
    fn new(name: &[&str], value: &'static str, required: bool, because: &'static str) -> Setting {
        Setting { name: name.iter().map(|&part| part.to_owned()).collect(), value, because, required }
    }

    fn path(&self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        path.extend(&self.name);
        path
    }

    /// The name as sysctl(8) takes it: a dot inside a component is written as a slash.
    pub fn name(&self) -> String {
        self.name.iter().map(|part| part.replace('.', "/")).collect::<Vec<_>>().join(".")
    }

    /// The command that sets it.
    pub fn command(&self) -> String {
        format!("sysctl -w {}={}", self.name(), self.value)
    }
}

/// A sysctl that is not as needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is needed.
    pub setting: Setting,
    /// What it is.
    pub is: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}: {}", self.setting.name(), self.is, self.setting.value, self.setting.because)
    }
}

/// A sysctl cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("sysctl {name} cannot be {act} ({error}); {hint}")]
pub struct SysctlError {
    name: String,
    act: &'static str,
    error: io::Error,
    hint: String,
}

/// What is set on our own TUN, whatever the configuration says about the host's.
pub fn of_device(tun: &str) -> Vec<Setting> {
    debug_assert!(is_interface_name(tun));
    let v4 = |leaf, value, because| Setting::new(&["net", "ipv4", "conf", tun, leaf], value, true, because);
    let v6 = |leaf, value, because| Setting::new(&["net", "ipv6", "conf", tun, leaf], value, true, because);
    vec![
        v4("forwarding", "1", "translated IPv4 packets are not forwarded"),
        v4("rp_filter", "0", "translated packets come in by the TUN, whatever their source, and would be dropped"),
        v4(
            "send_redirects",
            "0",
            "traffic between two customers comes in and goes out by the TUN and would be answered with Redirects",
        ),
        v4(
            "accept_local",
            "1",
            "ICMP errors translated to an address of this host's own (icmp.rfc6791-pool) would be dropped",
        ),
        v6("disable_ipv6", "0", "the TUN takes no IPv6 routes"),
        // The all-routers group, which every device joins where forwarding is the default, is left: of one device
        // alone `forwarding` means no more than that. MLDv1 leaves in silence a group that it has not reported yet.
        v6("force_mld_version", "1", "the kernel sends MLD reports into the TUN"),
        v6("forwarding", "0", "the kernel sends MLD reports into the TUN"),
    ]
}

/// What the host must have.
pub fn of_host() -> Vec<Setting> {
    vec![
        Setting::new(&["net", "ipv4", "ip_forward"], "1", true, "IPv4 packets do not reach the TUN"),
        Setting::new(&["net", "ipv6", "conf", "all", "forwarding"], "1", true, "IPv6 packets do not reach the TUN"),
        Setting::new(
            &["net", "ipv4", "conf", "all", "rp_filter"],
            "0",
            true,
            "the kernel takes the maximum of it and the TUN's own, and drops translated packets whose source it would not route to the TUN",
        ),
        Setting::new(
            &["net", "ipv4", "conf", "all", "send_redirects"],
            "0",
            false,
            "it overrides the TUN's own, and traffic between two customers is answered with ICMP Redirects",
        ),
    ]
}

/// Compares; changes nothing.
pub fn check(settings: Vec<Setting>) -> Result<Vec<Finding>, SysctlError> {
    check_below(Path::new(ROOT), settings)
}

/// Sets those that differ. `Applied::restore` undoes it; nothing stays where one of them fails.
pub fn apply(settings: Vec<Setting>) -> Result<Applied, SysctlError> {
    apply_below(Path::new(ROOT), settings)
}

fn check_below(root: &Path, settings: Vec<Setting>) -> Result<Vec<Finding>, SysctlError> {
    let mut findings = Vec::new();
    for setting in settings {
        let is = read(root, &setting)?;
        if is != setting.value {
            findings.push(Finding { setting, is });
        }
    }
    Ok(findings)
}

fn apply_below(root: &Path, settings: Vec<Setting>) -> Result<Applied, SysctlError> {
    let mut applied = Applied { root: root.to_owned(), changed: Vec::new() };
    for finding in check_below(root, settings)? {
        if let Err(error) = write(root, &finding.setting, finding.setting.value) {
            applied.restore();
            return Err(error);
        }
        applied.changed.push(finding);
    }
    Ok(applied)
}

/// What was changed.
#[derive(Debug, Default)]
pub struct Applied {
    root: PathBuf,
    changed: Vec<Finding>,
}

impl Applied {
    /// The sysctls that were changed, with their former values.
    pub fn changed(&self) -> &[Finding] {
        &self.changed
    }

    /// Gives them their former values, the last first.
    pub fn restore(&mut self) {
        while let Some(finding) = self.changed.pop() {
            if let Err(error) = write(&self.root, &finding.setting, &finding.is) {
                tracing::warn!("{error}");
            }
        }
    }
}

fn read(root: &Path, setting: &Setting) -> Result<String, SysctlError> {
    match std::fs::read_to_string(setting.path(root)) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(SysctlError {
            name: setting.name(),
            act: "read",
            hint: if error.kind() == io::ErrorKind::NotFound {
                format!("is {ROOT} mounted, and does the kernel have this address family?")
            } else {
                "the service's sandbox must let it read /proc/sys/net".to_owned()
            },
            error,
        }),
    }
}

fn write(root: &Path, setting: &Setting, value: &str) -> Result<(), SysctlError> {
    // No O_CREAT: a file that is not there is a sysctl that the kernel does not have.
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).open(setting.path(root))?;
        io::Write::write_all(&mut file, value.as_bytes())
    };
    write().map_err(|error| SysctlError {
        name: setting.name(),
        act: "set",
        error,
        hint: format!("it needs CAP_NET_ADMIN and a writable {ROOT}; by hand: `{}`", setting.command()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(format!("mapt-sysctl-{}-{name}", std::process::id()));
            for (file, value) in files {
                let file = root.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, format!("{value}\n")).unwrap();
            }
            Tree(root)
        }

        fn value(&self, file: &str) -> String {
            std::fs::read_to_string(self.0.join(file)).unwrap().trim().to_owned()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const HOST: [&str; 4] = [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/all/send_redirects",
    ];

    #[test]
    fn only_what_differs_is_found_and_named_with_its_command() {
        let tree = Tree::new("found", &[(HOST[0], "1"), (HOST[1], "0"), (HOST[2], "2"), (HOST[3], "0")]);
        let findings = check_below(&tree.0, of_host()).unwrap();
        let commands: Vec<String> = findings.iter().map(|f| f.setting.command()).collect();
        assert_eq!(commands, ["sysctl -w net.ipv6.conf.all.forwarding=1", "sysctl -w net.ipv4.conf.all.rp_filter=0"]);
        assert!(findings[1].to_string().starts_with("net.ipv4.conf.all.rp_filter is 2, not 0: "));
    }

    #[test]
    fn what_is_applied_is_restored_and_a_failure_leaves_nothing() {
        let tree = Tree::new("apply", &[(HOST[0], "0"), (HOST[1], "0"), (HOST[2], "1"), (HOST[3], "0")]);
        let mut applied = apply_below(&tree.0, of_host()).unwrap();
        assert_eq!(applied.changed().len(), 3);
        assert_eq!(HOST.map(|f| tree.value(f)), ["1", "1", "0", "0"]);
        applied.restore();
        assert_eq!(HOST.map(|f| tree.value(f)), ["0", "0", "1", "0"]);

        std::fs::remove_file(tree.0.join(HOST[3])).unwrap();
        let error = apply_below(&tree.0, of_host()).unwrap_err().to_string();
        assert!(error.contains("net.ipv4.conf.all.send_redirects cannot be read"), "{error}");
        assert_eq!(tree.value(HOST[0]), "0");
    }

    #[test]
    fn a_dot_in_an_interface_name_is_a_slash_for_sysctl() {
        let setting = &of_device("mapt.7")[1];
        assert_eq!(setting.name(), "net.ipv4.conf.mapt/7.rp_filter");
        assert_eq!(setting.path(Path::new(ROOT)), Path::new("/proc/sys/net/ipv4/conf/mapt.7/rp_filter"));
    }
}
