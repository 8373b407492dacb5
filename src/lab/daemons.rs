//! `mapt-br` and the `mapt-ce`s: their files, their start, their counters when something failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::LabError;
use super::netns::Netns;
use super::process::{Helper, Runner, TICK, last_lines};
use super::topology::{Topology, rules_yaml};

/// How long a daemon may take until it serves.
const START: Duration = Duration::from_secs(15);

/// How the rules forward between homes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Home to home directly: `forwarding: true`.
    Mesh,
    /// Home to home through the BR: `forwarding: false`.
    Hub,
}

impl Mode {
    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Mesh => "mesh",
            Mode::Hub => "hub",
        }
    }
}

/// The programs, beside the one that runs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `mapt-br`.
    pub br: PathBuf,
    /// `mapt-ce`.
    pub ce: PathBuf,
}

impl Programs {
    /// Looks in `directory`, by default where `mapt` itself is.
    pub fn find(directory: Option<&Path>) -> Result<Programs, LabError> {
        let own;
        let directory = match directory {
            Some(directory) => directory,
            None => {
                own = std::env::current_exe().map_err(|e| LabError::failed("find the daemons", e))?;
                own.parent().unwrap_or(Path::new("/"))
            }
        };
        let find = |name: &str| {
            let path = directory.join(name);
            // Helpers run in the lab's directory, so the path must be a whole one.
            path.canonicalize().map_err(|e| {
                let why = format!("{e}; `cargo build --bins` makes it");
                LabError::failed(format!("find {}", path.display()), why)
            })
        };
        Ok(Programs { br: find("mapt-br")?, ce: find("mapt-ce")? })
    }
}

/// The three daemons at work; dropping them ends them.
#[derive(Debug)]
pub struct Daemons {
    running: Vec<(Helper, Netns)>,
}

impl Daemons {
    /// Writes the configuration files below `directory`, starts all, waits until they serve.
    pub fn start(
        runner: &Runner,
        programs: &Programs,
        topology: &Topology,
        directory: &Path,
        mode: Mode,
    ) -> Result<Daemons, LabError> {
        write(&directory.join("rules.yaml"), &rules_yaml(mode == Mode::Mesh))?;
        let br = start_br(runner, &programs.br, &topology.br, directory)?;
        let mut running = vec![(br, topology.br.clone())];
        for home in &topology.homes {
            let name = format!("ce{}", home.number);
            let helper = start_ce(runner, &programs.ce, &home.ce, &name, home.end_user_prefix, directory)?;
            running.push((helper, home.ce.clone()));
        }
        let mut daemons = Daemons { running };
        for (helper, _) in &mut daemons.running {
            wait_until_ready(runner, helper)?;
        }
        Ok(daemons)
    }

    /// Fails when one has ended.
    pub fn check_alive(&mut self) -> Result<(), LabError> {
        for (helper, _) in &mut self.running {
            if let Some(status) = helper.poll() {
                return Err(LabError::failed(
                    helper.command().to_owned(),
                    format!("ended with {status}\n{}", last_lines(&helper.output(), 12)),
                ));
            }
        }
        Ok(())
    }

    /// What one wants to see beside a failed check.
    pub fn explain(&mut self) -> String {
        let mut text = String::new();
        for (helper, netns) in &mut self.running {
            let state = match helper.poll() {
                Some(status) => format!("ended with {status}"),
                None => "running".to_owned(),
            };
            text.push_str(&format!("{} in {}: {state}\n", helper.name(), netns.name()));
            if helper.poll().is_none() {
                text.push_str(&counters(helper));
            }
            text.push_str(&last_lines(&helper.errors(), 4));
            text.push('\n');
        }
        text.trim_end().to_owned()
    }

    /// Ends all, and fails when one did not end well or left a route behind.
    pub fn stop(mut self) -> Result<(), LabError> {
        for (helper, _) in &self.running {
            helper.signal(Signal::SIGTERM);
        }
        for (helper, netns) in &mut self.running {
            helper.stop();
            match helper.poll() {
                Some(status) if status.success() => {}
                other => {
                    let status = other.map_or_else(|| "no status".to_owned(), |status| status.to_string());
                    let why = format!("on SIGTERM: {status}\n{}", last_lines(&helper.output(), 8));
                    return Err(LabError::failed(helper.command().to_owned(), why));
                }
            }
            let left = routes(netns)?;
            if !left.is_empty() {
                return Err(LabError::failed(helper.command().to_owned(), format!("left routes behind:\n{left}")));
            }
        }
        Ok(())
    }

    /// Leaves them running.
    pub fn release(self) {
        self.running.into_iter().for_each(|(helper, _)| helper.release());
    }

    /// Command lines and process ids.
    pub fn describe(&self) -> Vec<String> {
        self.running
            .iter()
            .map(|(helper, _)| format!("{} (process {})", helper.command(), helper.pid().unwrap_or_default()))
            .collect()
    }
}

/// Starts a BR in `netns`. Its rules are `rules.yaml` in `directory`.
pub fn start_br(runner: &Runner, program: &Path, netns: &Netns, directory: &Path) -> Result<Helper, LabError> {
    start(runner, program, netns, directory, "br", "role: br\nrules: rules.yaml\n")
}

/// Starts a CE in `netns`, with its files called `name`.
pub fn start_ce(
    runner: &Runner,
    program: &Path,
    netns: &Netns,
    name: &str,
    end_user_prefix: &str,
    directory: &Path,
) -> Result<Helper, LabError> {
    // Home 1 talks to home 2 unasked (`peers`), which address-dependent filtering is there to stop.
    start_ce_with(runner, program, netns, (name, end_user_prefix, "filtering: endpoint-independent"), directory)
}

/// The same with settings of the NAPT.
pub fn start_ce_with(
    runner: &Runner,
    program: &Path,
    netns: &Netns,
    (name, end_user_prefix, napt): (&str, &str, &str),
    directory: &Path,
) -> Result<Helper, LabError> {
    let config = format!("role: ce\nrules: rules.yaml\nend-user-ipv6-prefix: {end_user_prefix}\nnapt: {{{napt}}}\n");
    start(runner, program, netns, directory, name, &config)
}

fn start(
    runner: &Runner,
    program: &Path,
    netns: &Netns,
    directory: &Path,
    name: &str,
    config: &str,
) -> Result<Helper, LabError> {
    let file = directory.join(format!("{name}.yaml"));
    let state = directory.join(format!("state-{name}"));
    let socket = directory.join(format!("{name}.sock"));
    fs::create_dir_all(&state).map_err(|e| LabError::failed(format!("make {}", state.display()), e))?;
    let text = format!(
        "{config}sysctl: manage\nstate-directory: {}\ncontrol:\n  socket: {}\n",
        state.display(),
        socket.display()
    );
    write(&file, &text)?;
    let argv = [&*program.to_string_lossy(), "--config", &*file.to_string_lossy()];
    runner.start(netns, name, &argv)
}

/// Waits until a daemon of ours says that it serves.
pub fn wait_until_ready(runner: &Runner, helper: &mut Helper) -> Result<(), LabError> {
    let what = format!("wait until {} is ready", helper.name());
    let out = helper.output_file().to_owned();
    let ready = || Ok(fs::read_to_string(&out).unwrap_or_default().lines().any(|line| line.starts_with("ready: ")));
    runner.wait_for(&what, START, &mut [helper], ready)
}

/// Asks a daemon for its counters; empty if none come.
fn counters(helper: &Helper) -> String {
    let out = || fs::read_to_string(helper.output_file()).unwrap_or_default();
    let before = out().len();
    helper.signal(Signal::SIGUSR1);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(TICK);
        if let Some(new) = out().get(before..).filter(|new| new.ends_with('\n')) {
            return new.to_owned();
        }
    }
    String::new()
}

/// Routes that daemons have installed, by their protocol number.
fn routes(netns: &Netns) -> Result<String, LabError> {
    let four = netns.ask_ip("-4 route show proto 182")?;
    let six = netns.ask_ip("-6 route show proto 182")?;
    Ok(format!("{four}{six}").trim().to_owned())
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(|e| LabError::failed(format!("write {}", path.display()), e))
}
