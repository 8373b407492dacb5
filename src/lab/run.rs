//! One run from the command line to the exit status.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::bench::What;
use super::checks::{Checks, Sizes};
use super::daemons::{Daemons, Mode, Programs};
use super::process::Runner;
use super::registry::{self, Site};
use super::servers::Servers;
use super::signals::Stop;
use super::table::{Figures, Table};
use super::topology::{SERVER, Topology};
use super::witness::Witness;
use super::{LabError, bench, tools};

/// Whether homes reach each other directly or through the BR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeChoice {
    /// Directly (`forwarding: true`).
    Mesh,
    /// Through the BR (`forwarding: false`).
    Hub,
    /// Everything directly, then what differs once more through the BR.
    #[default]
    Both,
}

/// Build a whole MAP-T network in namespaces of this machine, use it, print what passed.
#[derive(Clone, Debug, clap::Args)]
pub struct LabArgs {
    /// How homes reach each other.
    #[arg(long, value_enum, default_value_t)]
    pub mode: ModeChoice,
    /// Leave it up and print the commands to look around in it.
    #[arg(long)]
    pub keep: bool,
    /// Shorter measurements.
    #[arg(long)]
    pub quick: bool,
    /// The table as JSON.
    #[arg(long)]
    pub json: bool,
    /// Measure instead [default: throughput].
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "keep", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "throughput")]
    pub bench: Option<What>,
    /// Only print the Debian packages that are missing, for the Makefile.
    #[arg(long, hide = true)]
    pub missing_packages: bool,
    /// Only remove what killed labs left behind.
    #[arg(long, conflicts_with_all = ["keep", "quick", "down"])]
    pub clean: bool,
    /// Only take down a lab that --keep left up.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["keep", "quick"])]
    pub down: Option<String>,
    /// Where mapt-br and mapt-ce are [default: beside mapt].
    #[arg(long, value_name = "DIR", hide = true)]
    pub programs: Option<PathBuf>,
}

/// Runs it. 0: all passed; 1: not all, or it could not be built; 130 and the like: ended by a signal.
pub fn run(args: &LabArgs) -> ExitCode {
    let needed = if args.bench.is_some() { tools::BENCH } else { tools::LAB };
    let done = if args.missing_packages {
        println!("{}", tools::missing(needed).join(" "));
        Ok(true)
    } else if args.clean {
        clean(args)
    } else if let Some(name) = &args.down {
        registry::down(name).map(|name| {
            println!("{name} is gone");
            true
        })
    } else {
        return lab(args);
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("mapt lab: {e}");
            ExitCode::FAILURE
        }
    }
}

fn clean(args: &LabArgs) -> Result<bool, LabError> {
    let cleaned = registry::clean()?;
    if args.json {
        println!("{}", json!(cleaned));
        return Ok(true);
    }
    for name in &cleaned.removed {
        println!("{name}: its process was gone; removed");
    }
    for name in &cleaned.kept {
        println!("{name}: kept on purpose; `mapt lab --down {name}` removes it");
    }
    for name in &cleaned.running {
        println!("{name}: at work; left alone");
    }
    if cleaned.removed.is_empty() {
        println!("nothing to remove");
    }
    Ok(true)
}

fn lab(args: &LabArgs) -> ExitCode {
    let start = Instant::now();
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(e) => {
            eprintln!("mapt lab: {e}");
            return ExitCode::FAILURE;
        }
    };
    let mut table = Table::new(start);
    if let Some(what) = args.bench {
        return match bench(args, what, &stop, &mut table) {
            Ok(text) => {
                println!("\n{text}");
                ExitCode::SUCCESS
            }
            Err(_) if stop.signal().is_some() => by_signal(&stop),
            Err(e) => {
                eprintln!("mapt lab: {e}");
                ExitCode::FAILURE
            }
        };
    }
    let result = whole_run(args, &stop, &mut table);
    if stop.signal().is_some() {
        return by_signal(&stop);
    }
    // What passed before something broke is worth seeing.
    let passed = result.is_ok() && table.all_passed();
    if args.json {
        let error = result.as_ref().err().map(ToString::to_string);
        println!("{:#}", json!({"passed": passed, "rows": table.rows(), "error": error}));
    } else if !table.rows().is_empty() {
        let (good, all) = table.counts();
        println!("\n{}\n{good} of {all} passed in {:.0} s", table.render(), start.elapsed().as_secs_f64());
    }
    if let Ok(Some(farewell)) = &result {
        // Not on standard output with --json, which is to be parsed.
        if args.json { eprintln!("\n{farewell}") } else { println!("\n{farewell}") }
    }
    if let Err(e) = &result {
        eprintln!("mapt lab: {e}");
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// As a shell says it.
fn by_signal(stop: &Stop) -> ExitCode {
    ExitCode::from(128 + u8::try_from(stop.signal().unwrap_or(0)).unwrap_or(0))
}

/// The benchmark's table, as text or JSON.
fn bench(args: &LabArgs, what: What, stop: &Stop, table: &mut Table) -> Result<String, LabError> {
    tools::check(tools::BENCH)?;
    let programs = Programs::find(args.programs.as_deref())?;
    let mut lab = Lab::claim(args, stop, table)?;
    let plan = if args.quick {
        bench::Plan { seconds: 1, repetitions: 1 }
    } else {
        bench::Plan { seconds: if what == What::Throughput { 5 } else { 3 }, repetitions: 3 }
    };
    let site = lab.site.as_ref().ok_or(LabError::Interrupted)?;
    let (text, json) = bench::run(&lab.runner, site, &programs, what, plan, table)?;
    lab.take_down()?;
    Ok(if args.json { format!("{json:#}") } else { text })
}

/// Builds, checks, takes down. With `--keep`, the text that tells how to look around.
fn whole_run(args: &LabArgs, stop: &Stop, table: &mut Table) -> Result<Option<String>, LabError> {
    tools::check(tools::LAB)?;
    let programs = Programs::find(args.programs.as_deref())?;
    let mut lab = Lab::claim(args, stop, table)?;
    lab.run(args, &programs, table)?;
    if args.keep {
        return lab.keep().map(Some);
    }
    lab.take_down()?;
    Ok(None)
}

/// A lab that is taken down when it is dropped, in a panic too.
struct Lab {
    // Dropped in this order: programs first, then the namespaces.
    up: Option<(Daemons, Servers)>,
    runner: Runner,
    topology: Topology,
    site: Option<Site>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(e) = self.take_down() {
            eprintln!("mapt lab: {e}");
        }
    }
}

impl Lab {
    /// A new one, with nothing in it yet; first, what killed labs left is removed.
    fn claim(args: &LabArgs, stop: &Stop, table: &Table) -> Result<Lab, LabError> {
        for name in registry::clean()?.removed {
            table.progress(&format!("removed {name}, left by a killed lab"), true);
        }
        let site = Site::claim()?;
        let runner = Runner::new(site.directory().to_owned(), stop.clone(), args.keep);
        Ok(Lab { topology: Topology::plan(&site), runner, site: Some(site), up: None })
    }

    fn take_down(&mut self) -> Result<(), LabError> {
        self.up = None;
        self.site.take().map_or(Ok(()), Site::remove)
    }

    fn directory(&self) -> PathBuf {
        self.site.as_ref().map(|site| site.directory().to_owned()).unwrap_or_default()
    }

    fn run(&mut self, args: &LabArgs, programs: &Programs, table: &mut Table) -> Result<(), LabError> {
        let sizes = if args.quick { Sizes::QUICK } else { Sizes::FULL };
        let directory = self.directory();
        let (topology, runner) = (&self.topology, &self.runner);
        table.progress(&format!("building {}", topology.access.name().trim_end_matches("-acc")), true);
        topology.build()?;
        runner.stop().check()?;
        let witness = Witness::start(runner, &topology.access, &directory)?;
        let servers = Servers::start(runner, &topology.server, &directory, sizes.download)?;

        let first = if args.mode == ModeChoice::Hub { Mode::Hub } else { Mode::Mesh };
        table.mode = first.name();
        let mut daemons = start_daemons(runner, programs, topology, &directory, first, table)?;
        let checks = Checks { runner, topology, servers: &servers, sizes };
        all_checks(&checks, &mut daemons, first, table)?;

        if args.mode == ModeChoice::Both {
            stop_daemons(daemons, topology, table)?;
            table.mode = Mode::Hub.name();
            daemons = start_daemons(runner, programs, topology, &directory, Mode::Hub, table)?;
            homes_checks(&checks, &mut daemons, Mode::Hub, table)?;
        }

        table.mode = "all";
        let file = witness.file().to_owned();
        let seen = || {
            let seen = witness.stop()?;
            if seen.other > 0 || seen.missed > 0 || seen.ipv6 == 0 {
                let why = format!(
                    "{} IPv6 packets, {} frames that are not IPv6, {} missed; see {}\n{}",
                    seen.ipv6,
                    seen.other,
                    seen.missed,
                    file.display(),
                    first_frames(runner, topology, &file)
                );
                return Err(LabError::failed("tcpdump on the access router", why));
            }
            let text = format!("{} IPv6 packets, 0 IPv4, 0 missed by tcpdump", seen.ipv6);
            Ok(Figures::text(text).with("ipv6-packets", seen.ipv6).with("other-frames", seen.other))
        };
        table.check("IPv6 only on the access links", "all three links", seen, String::new)?;
        if !args.keep {
            stop_daemons(daemons, topology, table)?;
            return Ok(());
        }
        self.up = Some((daemons, servers));
        Ok(())
    }

    /// Leaves everything up; the commands to look around.
    fn keep(mut self) -> Result<String, LabError> {
        let mut text = String::from("The lab is up. Look around in it:\n");
        for (netns, what) in self.topology.all() {
            text.push_str(&format!("  ip netns exec {:<22} bash    # {what}\n", netns.name()));
        }
        let (host, access) = (self.topology.homes[0].host.name(), self.topology.access.name());
        let (ce, br) = (self.topology.homes[0].ce.name(), self.topology.br.name());
        text.push_str("For example:\n");
        for line in [
            format!("ip netns exec {host} traceroute -n {SERVER}"),
            format!("ip netns exec {host} curl http://{SERVER}/"),
            format!("ip netns exec {host} iperf3 -c {SERVER}"),
            format!("ip netns exec {access} tcpdump -n -i any"),
            format!("ip -n {ce} route show table all proto 182"),
            format!("ip -n {br} -6 route show proto 182"),
        ] {
            text.push_str(&format!("  {line}\n"));
        }
        if let Some((daemons, servers)) = self.up.take() {
            text.push_str("The daemons:\n");
            for line in daemons.describe() {
                text.push_str(&format!("  {line}\n"));
            }
            daemons.release();
            servers.release(&self.runner, &self.topology.server)?;
        }
        text.push_str(&format!("Files and output of all programs: {}\n", self.directory().display()));
        if let Some(site) = self.site.take() {
            text.push_str(&format!("Take it down:\n  mapt lab --down {}", site.name()));
            site.keep()?;
        }
        Ok(text)
    }
}

fn first_frames(runner: &Runner, topology: &Topology, file: &std::path::Path) -> String {
    let argv = ["tcpdump", "-n", "-r", &*file.to_string_lossy(), "-c", "5"];
    match runner.run(&topology.access, "tcpdump-read", &argv, Duration::from_secs(10)) {
        Ok(done) => done.stdout,
        Err(e) => e.to_string(),
    }
}

fn start_daemons(
    runner: &Runner,
    programs: &Programs,
    topology: &Topology,
    directory: &std::path::Path,
    mode: Mode,
    table: &mut Table,
) -> Result<Daemons, LabError> {
    table.progress(&format!("{:<5} starting mapt-br and two mapt-ce", mode.name()), true);
    Daemons::start(runner, programs, topology, directory, mode)
}

fn stop_daemons(daemons: Daemons, topology: &Topology, table: &mut Table) -> Result<(), LabError> {
    let stopped = || {
        daemons.stop()?;
        Ok(Figures::text("exit status 0, no route left"))
    };
    let routes = || {
        let left = topology.br.ask_ip("route show table all proto 182").unwrap_or_default();
        format!("routes of the BR: {}", left.trim())
    };
    table.check("daemons end on SIGTERM", "br, ce1, ce2", stopped, routes).map(drop)
}

/// Everything that a home does.
fn all_checks(checks: &Checks, daemons: &mut Daemons, mode: Mode, table: &mut Table) -> Result<(), LabError> {
    let homes = &checks.topology.homes;
    let to_server = |n: usize| format!("home {} → server", n + 1);
    let from_server = |n: usize| format!("server → home {}", n + 1);
    let one = &homes[0];
    table.check("address families", "all namespaces", || checks.families(), String::new)?;
    for (n, home) in homes.iter().enumerate() {
        table.check("ping", &to_server(n), || checks.ping(home), || daemons.explain())?;
    }
    table.check("traceroute, UDP", &to_server(0), || checks.traceroute(one, false), || daemons.explain())?;
    table.check("traceroute, ICMP", &to_server(1), || checks.traceroute(&homes[1], true), || daemons.explain())?;
    for (n, home) in homes.iter().enumerate() {
        table.check("web page, curl", &to_server(n), || checks.web(home), || daemons.explain())?;
    }
    for (n, home) in homes.iter().enumerate() {
        table.check("DNS over UDP, dig", &to_server(n), || checks.dns(home, false), || daemons.explain())?;
        table.check("DNS over TCP, dig", &to_server(n), || checks.dns(home, true), || daemons.explain())?;
    }
    table.check("path MTU", &to_server(0), || checks.path_mtu(one), || daemons.explain())?;
    table.check("path MTU, narrow link", "home 1 ↔ server", || checks.narrow_path(one), || daemons.explain())?;
    table.check("one address, two homes", "homes 1 and 2 → server", || checks.sharing(), || daemons.explain())?;
    table.check("iperf3 TCP", &to_server(0), || checks.iperf(one, false), || daemons.explain())?;
    table.check("iperf3 TCP", &from_server(0), || checks.iperf(one, true), || daemons.explain())?;
    table.check("large download, curl", &from_server(0), || checks.download(one), || daemons.explain())?;
    homes_checks(checks, daemons, mode, table)
}

/// What depends on the mode.
fn homes_checks(checks: &Checks, daemons: &mut Daemons, mode: Mode, table: &mut Table) -> Result<(), LabError> {
    if mode == Mode::Hub {
        let home = &checks.topology.homes[1];
        table.check("ping", "home 2 → server", || checks.ping(home), || daemons.explain())?;
    }
    let path = "home 1 ↔ home 2";
    table.check("UDP home to home", path, || checks.home_to_home_udp(), || daemons.explain())?;
    let tcp = || checks.home_to_home_tcp(mode == Mode::Hub);
    table.check("TCP home to home", path, tcp, || daemons.explain())?;
    daemons.check_alive()
}
