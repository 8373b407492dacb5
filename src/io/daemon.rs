//! A daemon from its command line to its exit status.

use std::collections::HashMap;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::control::{Control, ControlError};
use super::events::Hub;
use super::live::{Candidate, Chosen, Live};
use super::metrics::{Endpoint, MetricsError};
use super::netlink::Netlink;
use super::pcp::{PcpError, Server, Sockets};
use super::plan::{Plan, Program};
use super::run::{self, RunError, Running};
use super::saved;
use super::service::{Act, Service};
use super::setup::{self, SetupError};
use super::standing::Standing;
use super::tun;
use super::watch::Watch;
use crate::ops;
use crate::ops::counters::ByRule;
use crate::ops::engine::Machine;

/// A MAP-T (RFC 7599) translator between IPv4 and IPv6. SIGTERM and SIGINT end it, SIGHUP has it read its files again,
/// SIGUSR1 prints its counters.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration: br.yaml or ce.yaml
    #[arg(value_name = "FILE", required_unless_present = "config", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The configuration, as an option
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what would be done to this host, as commands, and do nothing; needs no privileges
    #[arg(long)]
    dry_run: bool,
}

/// Why a daemon ends with status 1.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("control.socket: {0}")]
    Control(#[from] ControlError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error(transparent)]
    Pcp(#[from] PcpError),
    #[error("no signals or no runtime: {0}")]
    Runtime(std::io::Error),
}

/// The whole of `mapt-br` and `mapt-ce`. Status 0: ended by a signal, or dry run done; 1: the reason is on
/// stderr; 2: wrong usage.
pub fn main_of(program: Program) -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr();
    let Some(file) = arguments.config.or(arguments.file) else { return ExitCode::from(2) };
    let chosen = if arguments.dry_run { Chosen::without_history(&file) } else { Chosen::at_start(&file) };
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(findings) => {
            eprintln!("{findings}");
            return ExitCode::FAILURE;
        }
    };
    let config = &chosen.config;
    if Program::of(config) != program {
        let other = Program::of(config);
        eprintln!(
            "{}: {} says `role: {}`: start `{}` with it, or say `role: {}`",
            program.name(),
            file.display(),
            other.role(),
            other.name(),
            program.role()
        );
        return ExitCode::FAILURE;
    }
    let result = if arguments.dry_run { dry_run(&Plan::of(config)) } else { serve(file, chosen) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", program.name());
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        // What netlink_proto fails at is said by whoever asked for it; that the kernel knows more than it, is no news.
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,netlink_proto=off"));
    // A second caller in one process keeps the first one's.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .try_init();
}

fn dry_run(plan: &Plan) -> Result<(), DaemonError> {
    if !tun::is_interface_name(&plan.tun) {
        return Err(SetupError::from(tun::TunError::Name(plan.tun.clone())).into());
    }
    print(&plan.to_string());
    Ok(())
}

/// A reader that has gone away is no reason to end.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn serve(file: PathBuf, chosen: Chosen) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Runtime)?;
    runtime.block_on(async {
        // Before anything is done that a signal would leave undone.
        let mut signals = Signals::new().map_err(DaemonError::Runtime)?;
        let config = &chosen.config;
        let plan = Plan::of(config);
        let control = config.control.as_ref().map(Control::open).transpose()?;
        let metrics = match &config.metrics {
            Some(config) => Some(Endpoint::open(config).await?),
            None => None,
        };
        let pcp = match &config.pcp {
            Some(config) => Some(Sockets::open(config).await?),
            None => None,
        };
        let kernel = Netlink::connect().map_err(SetupError::from)?;
        let (device, mut installed) = setup::install(&plan).await?;
        let (queues, offloads) = (device.queues.len(), device.offloads);
        let mut engines = ops::engine::build_all(config, queues);
        saved::take_up(&plan, &mut engines);
        let by_rule = ByRule::new(engines.iter().map(Machine::by_rule).collect());
        let fragments = engines.first().map(Machine::fragments);
        let mut running = match run::start(device, engines) {
            Ok(running) => running,
            Err(error) => {
                installed.undo().await;
                return Err(error.into());
            }
        };
        running.count_also(installed.upkeep());
        let jobs = running.jobs();
        let mut live = Live::new(file, chosen, plan, installed, jobs.clone(), by_rule);
        let pcp = pcp.zip(jobs.first().cloned()).map(|(sockets, jobs)| sockets.serve(jobs));
        let (acts, mut asked) = mpsc::channel(16);
        // A task that waits, where nobody listens.
        let events = jobs.first().map(|jobs| Arc::new(Hub::new(jobs.clone(), live.config.log_mappings)));
        let standing = Arc::new(Standing {
            in_force: live.look(),
            meters: running.meters().clone(),
            offloads: offloads.to_string(),
            queues,
            fragments,
            started: jiff::Timestamp::now(),
            kernel: kernel.into(),
        });
        let service = events.map(|events| Arc::new(Service { acts, events, jobs, standing }));
        let _served = control.zip(service.clone()).map(|(control, service)| control.serve(service));
        let _metrics = metrics.zip(service.clone()).map(|(metrics, service)| metrics.serve(service));
        let Live { plan, installed, .. } = &live;
        print(&format!(
            "ready: {} `{}` on {}: {queues} queue(s), {offloads}, MTU {}, {} route(s)\n",
            plan.program.name(),
            plan.instance,
            plan.tun,
            plan.mtu,
            installed.route_count()
        ));
        if !plan.provisioned {
            tracing::warn!("no `end-user-ipv6-prefix`: nothing is translated");
        }
        let mut watch = live.installed.watch(&live.plan);
        notify("READY=1");
        attend(&mut live, &mut watch, pcp.as_ref(), &mut signals, &mut asked, &mut running).await;
        notify("STOPPING=1");
        // The routes first: what comes after them would be lost in the TUN.
        live.installed.remove().await;
        let stopped = running.stop();
        saved::leave(&live.plan, &stopped);
        print(&running.meters().document().table(&live.plan.tun));
        Ok(stopped.result?)
    })
}

/// Until a signal or a thread's end.
async fn attend(
    live: &mut Live,
    watch: &mut Watch,
    pcp: Option<&Server>,
    signals: &mut Signals,
    asked: &mut mpsc::Receiver<Act>,
    running: &mut Running<Machine>,
) {
    let mut held = Held::default();
    loop {
        let returns_in = live.returns_in();
        tokio::select! {
            () = running.ended() => return,
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => {
                reload(live).await;
                pcp.inspect(|pcp| pcp.changed());
            }
            _ = signals.report.recv() => {
                print(&running.meters().document().table(&live.plan.tun));
            }
            Some(act) = asked.recv() => {
                held.act(act, live).await;
                pcp.inspect(|pcp| pcp.changed());
            }
            () = watch.due() => watch.look(&mut live.installed).await,
            () = tokio::time::sleep(returns_in.unwrap_or_default()), if returns_in.is_some() => {
                go_back(live).await;
                pcp.inspect(|pcp| pcp.changed());
            }
        }
    }
}

/// Nobody has confirmed what was pushed.
async fn go_back(live: &mut Live) {
    match live.go_back().await {
        Ok(changed) => print(&format!("returned: {changed}; nobody confirmed it in time\n")),
        Err(error) => {
            tracing::error!("the former rule set cannot come back, and will be tried again: {error}");
            live.try_again_later();
        }
    }
}

/// Rule sets that were checked and wait for their clients' commits.
#[derive(Default)]
struct Held {
    candidates: HashMap<u64, Candidate>,
    last: u64,
}

impl Held {
    async fn act(&mut self, act: Act, live: &mut Live) {
        // Nobody may wait for the answer any more: a change is made all the same, a check is forgotten.
        match act {
            Act::Prepare { reply, .. } if !self.candidates.is_empty() => {
                let _ = reply.send(Err("another push is under way here".to_owned()));
            }
            Act::Prepare { text, offer, reply } => {
                let result = live.prepare(text, &offer).await;
                let answer = result.map_err(|error| error.to_string()).map(|(prepared, candidate)| {
                    self.last += 1;
                    self.candidates.insert(self.last, candidate);
                    (prepared, self.last)
                });
                if reply.send(answer).is_err() {
                    self.candidates.remove(&self.last);
                }
            }
            Act::Abort(token) => drop(self.candidates.remove(&token)),
            Act::Commit { token, reply } => {
                let former = live.rules();
                let result = match self.candidates.remove(&token) {
                    Some(candidate) => live.commit(candidate).await.map_err(|error| error.to_string()),
                    None => Err("what was checked is no longer held".to_owned()),
                };
                if let Ok(committed) = &result {
                    let until = committed.confirm_until.as_ref();
                    let until = until.map(|at| format!(", to be confirmed until {at}")).unwrap_or_default();
                    print(&format!(
                        "pushed: rule set version {} -> {}{until}\n",
                        former.version, committed.version.version
                    ));
                }
                let _ = reply.send(result.map(|committed| (committed, former)));
            }
            Act::Revert { rules, reply } => {
                let result = live.return_to(&rules).await;
                if let Ok(changed) = &result {
                    print(&format!("returned: {changed}; the push failed elsewhere\n"));
                }
                let _ = reply.send(result.map(|_| live.version()).map_err(|error| error.to_string()));
            }
            Act::Confirm(reply) => {
                let result = live.confirm();
                if let Ok(version) = &result {
                    print(&format!("confirmed: rule set version {}\n", version.version));
                }
                let _ = reply.send(result.map_err(|error| error.to_string()));
            }
        }
    }
}

async fn reload(live: &mut Live) {
    let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from);
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", since_boot.unwrap_or_default().as_micros()));
    match live.reload().await {
        Ok(changed) => {
            for key in &changed.waiting {
                tracing::warn!("`{key}` has changed; it waits for a restart");
            }
            print(&format!("reloaded: {changed}\n"));
        }
        Err(error) => tracing::error!("not reloaded, all stays as it was: {error}"),
    }
    notify("READY=1");
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    report: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            report: signal(SignalKind::user_defined1())?,
        })
    }
}

/// Tells a service manager (sd_notify(3)); without one, nothing happens.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || {
        let socket = UnixDatagram::unbound()?;
        let address = match path.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        socket.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = send() {
        tracing::warn!("the service manager cannot be told `{state}`: {error}");
    }
}
