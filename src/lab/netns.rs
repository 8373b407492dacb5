//! Network namespaces by name, as `ip netns` keeps them: a bind mount in `/run/netns`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

use super::LabError;

/// Where `ip netns` keeps its names.
pub const NETNS_DIR: &str = "/run/netns";

/// A namespace of ours. Cheap to clone; dropping one deletes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace called `name`; it need not exist yet.
    pub fn named(name: String) -> Self {
        Netns { name }
    }

    /// The name that `ip netns exec` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that names it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NETNS_DIR).join(&self.name)
    }

    /// Makes it.
    pub fn create(&self) -> Result<(), LabError> {
        ip(&["netns", "add", &self.name])
    }

    /// Takes the name away; the namespace goes with its last process.
    pub fn delete(&self) -> Result<(), LabError> {
        if !self.path().exists() {
            return Ok(());
        }
        ip(&["netns", "del", &self.name])
    }

    /// Runs `ip` on what is in it, arguments split at blanks.
    pub fn ip(&self, arguments: &str) -> Result<(), LabError> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        ip(&all)
    }

    /// The same for a question: its standard output.
    pub fn ask_ip(&self, arguments: &str) -> Result<String, LabError> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        ip_output(&all)
    }

    /// Runs `job` on a thread that has entered the namespace. Sockets that it opens belong there.
    pub fn spawn<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<io::Result<T>>, LabError> {
        let file = File::open(self.path()).map_err(|e| LabError::failed(format!("open namespace {}", self.name), e))?;
        Ok(std::thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            Ok(job())
        }))
    }

    /// [`Netns::spawn`] and its result.
    pub fn within<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, LabError> {
        match self.spawn(job)?.join() {
            Ok(result) => result.map_err(|e| LabError::failed(format!("enter namespace {}", self.name), e)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Writes settings below `/proc/sys`, each `path=value`.
    pub fn sysctl(&self, settings: &[&'static str]) -> Result<(), LabError> {
        let settings = settings.to_vec();
        self.within(move || {
            for setting in settings {
                let (path, value) = setting.split_once('=').unwrap_or((setting, ""));
                fs::write(format!("/proc/sys/{path}"), value)
                    .map_err(|e| LabError::failed(format!("set {setting}"), e))?;
            }
            Ok(())
        })?
    }

    /// Reads a file below `/proc/sys` as the namespace sees it.
    pub fn read_sysctl(&self, path: &'static str) -> Result<String, LabError> {
        self.within(move || fs::read_to_string(format!("/proc/sys/{path}")))?
            .map(|text| text.trim().to_owned())
            .map_err(|e| LabError::failed(format!("read {path} in {}", self.name), e))
    }

    /// Whether something listens on this TCP port. Looks in /proc, so that the listener sees no connection.
    pub fn listens(&self, port: u16) -> Result<bool, LabError> {
        self.within(move || {
            ["tcp", "tcp6"].iter().any(|table| {
                let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
                text.lines().skip(1).any(|line| {
                    let mut fields = line.split_whitespace();
                    let local = fields.nth(1).unwrap_or_default();
                    let state = fields.nth(1).unwrap_or_default();
                    state == "0A" && local.ends_with(&format!(":{port:04X}"))
                })
            })
        })
    }

    /// Processes that live in it. A process that goes meanwhile is left out.
    pub fn pids(&self) -> Vec<i32> {
        let Ok(wanted) = fs::metadata(self.path()) else { return Vec::new() };
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if let Ok(own) = fs::metadata(format!("/proc/{pid}/ns/net"))
                && own.ino() == wanted.ino()
                && own.dev() == wanted.dev()
            {
                pids.push(pid);
            }
        }
        pids
    }
}

/// Names in `/run/netns` that begin with `prefix`.
pub fn names(prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(NETNS_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    found.sort();
    found
}

/// Runs `ip`, and fails with its own words.
pub fn ip(arguments: &[&str]) -> Result<(), LabError> {
    ip_output(arguments).map(drop)
}

fn ip_output(arguments: &[&str]) -> Result<String, LabError> {
    let line = format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output().map_err(|e| LabError::failed(line.clone(), e))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(LabError::failed(line, String::from_utf8_lossy(&output.stderr).trim()))
    }
}
