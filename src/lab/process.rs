//! Helper programs: started in a namespace, their output kept in files, stopped by their own id and reaped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::LabError;
use super::netns::Netns;
use super::signals::Stop;

/// How often a condition or a child is looked at.
pub const TICK: Duration = Duration::from_millis(5);
/// What a process is given between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// Starts programs for one lab. Every program must be started from the lab's main thread: its parent-death
/// signal is bound to the thread that started it.
#[derive(Debug)]
pub struct Runner {
    directory: PathBuf,
    stop: Stop,
    outlive: bool,
    sequence: AtomicU32,
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// What it was, for people.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself if the program succeeded, else its last lines.
    pub fn success(self) -> Result<Finished, LabError> {
        if self.status.success() {
            Ok(self)
        } else {
            let why = format!("{}\n{}", self.status, last_lines(&self.both(), 8));
            Err(LabError::failed(self.command, why.trim_end()))
        }
    }

    /// Standard output and standard error, one after the other.
    pub fn both(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// A failure that quotes the program.
    pub fn unexpected(&self, what: impl std::fmt::Display) -> LabError {
        LabError::failed(self.command.clone(), format!("{what}\n{}", last_lines(&self.both(), 8)).trim_end())
    }
}

impl Runner {
    /// Output goes to `directory`. With `outlive` the programs may outlive us (`--keep`); else the kernel kills
    /// them when we die, however that happens.
    pub fn new(directory: PathBuf, stop: Stop, outlive: bool) -> Self {
        Runner { directory, stop, outlive, sequence: AtomicU32::new(1) }
    }

    /// The flag that Ctrl-C raises.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Starts `argv` in `netns`; its output goes to `NN-name.out` and `NN-name.err`.
    pub fn start(&self, netns: &Netns, name: &str, argv: &[&str]) -> Result<Helper, LabError> {
        self.start_with(netns, name, argv, None)
    }

    /// The same with standard output to a pipe of ours: see [`Helper::take_stdout`].
    pub fn start_piped(&self, netns: &Netns, name: &str, argv: &[&str]) -> Result<Helper, LabError> {
        self.start_with(netns, name, argv, Some(Stdio::piped()))
    }

    fn start_with(&self, netns: &Netns, name: &str, argv: &[&str], stdout: Option<Stdio>) -> Result<Helper, LabError> {
        let shown = format!("ip netns exec {} {}", netns.name(), argv.join(" "));
        let failed = |e: std::io::Error| LabError::failed(shown.clone(), e);
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let base = self.directory.join(format!("{number:03}-{name}"));
        let (out, err) = (base.with_extension("out"), base.with_extension("err"));
        let out_file = File::create(&out).map_err(failed)?;
        let err_file = File::create(&err).map_err(failed)?;

        // nsenter and setpriv replace themselves, so the id is the program's own.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.path().display()));
        if !self.outlive {
            command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
        }
        command
            .args(argv)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(stdout.unwrap_or_else(|| Stdio::from(out_file)))
            .stderr(Stdio::from(err_file))
            .current_dir(&self.directory)
            // Ctrl-C at the terminal reaches us alone; we end the helpers in order.
            .process_group(0);
        let child = command.spawn().map_err(failed)?;
        Ok(Helper { name: name.to_owned(), command: shown, child: Some(child), status: None, out, err })
    }

    /// Runs `argv` to its end. A program that takes longer than `limit` is killed and is an error.
    pub fn run(&self, netns: &Netns, name: &str, argv: &[&str], limit: Duration) -> Result<Finished, LabError> {
        self.finish(self.start(netns, name, argv)?, limit)
    }

    /// Waits for `helper` to end by itself.
    pub fn finish(&self, mut helper: Helper, limit: Duration) -> Result<Finished, LabError> {
        let start = Instant::now();
        loop {
            if let Some(status) = helper.poll() {
                return Ok(Finished {
                    command: helper.command.clone(),
                    status,
                    stdout: read_lossy(&helper.out),
                    stderr: read_lossy(&helper.err),
                });
            }
            self.stop.check()?;
            if start.elapsed() > limit {
                helper.stop();
                let why = format!("no end after {} s\n{}", limit.as_secs(), last_lines(&helper.output(), 8));
                return Err(LabError::failed(helper.command.clone(), why.trim_end()));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Waits until `ready` is true. Fails after `limit`, or at once when one of `helpers` has ended.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        helpers: &mut [&mut Helper],
        mut ready: impl FnMut() -> Result<bool, LabError>,
    ) -> Result<(), LabError> {
        let start = Instant::now();
        loop {
            if ready()? {
                return Ok(());
            }
            self.stop.check()?;
            for helper in helpers.iter_mut() {
                if let Some(status) = helper.poll() {
                    let why = format!("ended with {status}\n{}", last_lines(&helper.output(), 12));
                    return Err(LabError::failed(helper.command.clone(), why.trim_end()));
                }
            }
            if start.elapsed() > limit {
                let mut why = format!("not so after {} s", limit.as_secs());
                for helper in helpers.iter() {
                    why.push_str(&format!("\n{}: {}", helper.name, last_lines(&helper.output(), 8)));
                }
                return Err(LabError::failed(what.to_owned(), why.trim_end()));
            }
            std::thread::sleep(TICK);
        }
    }
}

/// A running program; dropping it ends it.
#[derive(Debug)]
pub struct Helper {
    name: String,
    command: String,
    child: Option<Child>,
    status: Option<ExitStatus>,
    out: PathBuf,
    err: PathBuf,
}

impl Helper {
    /// The short name given at its start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its command line, as one would type it.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The pipe of a helper that was started with one.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.as_mut().and_then(|child| child.stdout.take())
    }

    /// Its exit status if it has ended.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.child = None;
            self.status = Some(status);
        }
        self.status
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        format!("{}{}", read_lossy(&self.out), read_lossy(&self.err))
    }

    /// Its standard error so far.
    pub fn errors(&self) -> String {
        read_lossy(&self.err)
    }

    /// The file with its standard output.
    pub fn output_file(&self) -> &Path {
        &self.out
    }

    /// The file with its standard error.
    pub fn error_file(&self) -> &Path {
        &self.err
    }

    /// Sends one signal to the program alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // Not reaped yet, so the id is still its own.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }

    /// Leaves it running.
    pub fn release(mut self) {
        self.child = None;
    }

    /// SIGINT for programs that write a summary then, and the end of [`Helper::stop`] if that does not help.
    pub fn interrupt(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// SIGTERM, then SIGKILL to its whole group; reaped on return.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, first: Signal) {
        if self.poll().is_some() {
            return;
        }
        let Some(mut child) = self.child.take() else { return };
        let group = Pid::from_raw(child.id().cast_signed());
        let _ = killpg(group, first);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if let Ok(Some(status)) = child.try_wait() {
                self.status = Some(status);
                return;
            }
            std::thread::sleep(TICK);
        }
        let _ = killpg(group, Signal::SIGKILL);
        self.status = child.wait().ok();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last `count` lines of `text` that are not blank.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
