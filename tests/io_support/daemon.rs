//! A built daemon as a process, and its files.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Namespace, wait_for};

/// A directory with files and an empty directory `state`; gone when dropped.
pub struct Files(pub PathBuf);

impl Files {
    pub fn new(name: &str, files: &[(&str, &str)]) -> Files {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mapt-{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("state")).unwrap();
        let made = Files(path);
        for (file, text) in files {
            made.write(file, text);
        }
        made
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Writes one more file and returns where it is.
    pub fn write(&self, file: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(file), text).unwrap();
        self.path(file)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a daemon printed about itself: packets by row, IPv4 to IPv6 first.
#[derive(Debug)]
pub struct Printed {
    rows: BTreeMap<String, [u64; 2]>,
    /// Packets that the TUN device did not take.
    pub refused: u64,
}

impl Printed {
    /// A row's packets `[v4_to_v6, v6_to_v4]`; zero where the row is not printed.
    pub fn get(&self, row: &str) -> [u64; 2] {
        self.rows.get(row).copied().unwrap_or_default()
    }

    /// received = forwarded + held + dropped, each way.
    pub fn balance(&self) {
        for way in [0, 1] {
            let [received, forwarded, held, dropped] =
                ["received", "forwarded", "held", "dropped"].map(|row| self.get(row)[way]);
            assert_eq!(received, forwarded + held + dropped, "{self:?}");
        }
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    pub child: Child,
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Daemon {
    /// Starts it and waits for its word that it is ready.
    pub fn start(namespace: &Namespace, program: &str, config: &Path) -> Daemon {
        let daemon = Daemon::spawn(namespace, Command::new(program).arg("--config").arg(config));
        let ready = daemon.line();
        assert!(ready.starts_with("ready: "), "{ready}");
        daemon
    }

    pub fn spawn(namespace: &Namespace, command: &mut Command) -> Daemon {
        let mut child = namespace.run(|| command.stdout(Stdio::piped()).spawn().unwrap());
        let (lines_in, lines) = mpsc::channel();
        let stdout: ChildStdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| lines_in.send(l))
        });
        Daemon { child, lines: Mutex::new(lines) }
    }

    pub fn line(&self) -> String {
        self.lines.lock().unwrap().recv_timeout(Duration::from_secs(20)).expect("the daemon says nothing")
    }

    /// The next line, if there is one in time.
    pub fn line_within(&self, time: Duration) -> Option<String> {
        self.lines.lock().unwrap().recv_timeout(time).ok()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Its counters now.
    pub fn counters(&self) -> Printed {
        self.signal(Signal::SIGUSR1);
        while !self.line().contains("v4_to_v6") {}
        let mut rows = BTreeMap::new();
        loop {
            let line = self.line();
            let words: Vec<&str> = line.split_whitespace().collect();
            if words[0] == "device:" {
                let refused = words[words.iter().position(|&word| word == "refused,").unwrap() - 1];
                return Printed { rows, refused: refused.parse().unwrap() };
            }
            let (name, cells) = words.split_at(words.len() - 4);
            if let (Ok(a), Ok(b)) = (cells[0].parse(), cells[2].parse()) {
                rows.insert(name.join(" "), [a, b]);
            }
        }
    }

    /// Waits for its end, and returns what it printed since.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_for("the daemon to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), self.lines.lock().unwrap().iter().collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
