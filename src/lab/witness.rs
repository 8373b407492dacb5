//! tcpdump on all links of the access router, for the whole run: whatever is not IPv6 is written to a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LabError;
use super::netns::Netns;
use super::process::{Helper, Runner};

/// The capture at work.
#[derive(Debug)]
pub struct Witness {
    helper: Helper,
    file: PathBuf,
    netns: Netns,
}

/// What it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// IPv6 packets that the access router received (a packet of segmentation offload counts once).
    pub ipv6: u64,
    /// Frames of any other kind.
    pub other: u64,
    /// Frames that tcpdump missed.
    pub missed: u64,
}

impl Witness {
    /// Starts it; returns when it listens.
    pub fn start(runner: &Runner, netns: &Netns, directory: &Path) -> Result<Witness, LabError> {
        let file = directory.join("not-ipv6.pcap");
        let argv = ["tcpdump", "-i", "any", "-n", "-U", "-Z", "root", "-w", &*file.to_string_lossy(), "not ip6"];
        let mut helper = runner.start(netns, "witness", &argv)?;
        let err = helper.error_file().to_owned();
        let listens = || Ok(std::fs::read_to_string(&err).unwrap_or_default().contains("listening on"));
        runner.wait_for("wait for tcpdump", Duration::from_secs(10), &mut [&mut helper], listens)?;
        Ok(Witness { helper, file, netns: netns.clone() })
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<Seen, LabError> {
        let ipv6 = ipv6_received(&self.netns)?;
        self.helper.interrupt();
        let text = self.helper.errors();
        match (number(&text, "captured"), number(&text, "dropped by kernel")) {
            (Some(other), Some(missed)) => Ok(Seen { ipv6, other, missed }),
            _ => Err(LabError::failed(self.helper.command().to_owned(), format!("no summary in: {}", text.trim()))),
        }
    }

    /// Where the frames that should not be are.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// `3 packets captured` is 3.
fn number(text: &str, what: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim_end().ends_with(what))?;
    line.split_whitespace().next()?.parse().ok()
}

fn ipv6_received(netns: &Netns) -> Result<u64, LabError> {
    let text = netns
        .within(|| std::fs::read_to_string("/proc/thread-self/net/snmp6"))?
        .map_err(|e| LabError::failed("read /proc/net/snmp6", e))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Ip6InReceives"))
        .and_then(|rest| rest.trim().parse().ok())
        .ok_or_else(|| LabError::failed("read /proc/net/snmp6", "no Ip6InReceives"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcpdump_s_summary() {
        let text = "tcpdump: listening on any, link-type LINUX_SLL2\n12 packets captured\n13 packets received by filter\n0 packets dropped by kernel\n";
        assert_eq!(number(text, "captured"), Some(12));
        assert_eq!(number(text, "dropped by kernel"), Some(0));
        assert_eq!(number("1 packet captured\n", "captured"), Some(1));
        assert_eq!(number("tcpdump: no\n", "captured"), None);
    }
}
