//! `mapt lab` as an operator runs it: what it answers, and that nothing of it stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

const MAPT: &str = env!("CARGO_BIN_EXE_mapt");
const PATIENCE: Duration = Duration::from_secs(120);

/// False, and said aloud, where the lab cannot run.
fn can_run() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root may make network namespaces");
    }
    root
}

/// A lab at work; killed if the test fails.
struct Lab {
    child: Child,
    progress: Receiver<String>,
    seen: Vec<String>,
}

impl Lab {
    fn start(arguments: &[&str]) -> Lab {
        let mut child = Command::new(MAPT)
            .arg("lab")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (tell, progress) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Lab { child, progress, seen: Vec::new() }
    }

    fn name(&self) -> String {
        format!("mapt-lab-{}", self.child.id())
    }

    /// Waits for a line of progress.
    fn wait_for(&mut self, text: &str) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.progress.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    let found = line.contains(text);
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
        panic!("no \"{text}\" in:\n{}", self.seen.join("\n"));
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Its end: exit status, standard output, all progress.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut out = String::new();
        std::io::Read::read_to_string(&mut self.child.stdout.take().unwrap(), &mut out).unwrap();
        let status = self.child.wait().unwrap();
        self.seen.extend(self.progress.iter());
        (status.code(), out, self.seen.join("\n"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn mapt_lab(arguments: &[&str]) -> Output {
    Command::new(MAPT).arg("lab").args(arguments).output().unwrap()
}

fn namespaces(lab: &str) -> Vec<String> {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(&format!("{lab}-"))).collect()
}

/// Processes that name the lab in their command line: all of its helpers do, by a namespace or a file.
fn processes(lab: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if line.contains(&format!("{lab}-")) && !state.contains(") Z ") {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

fn files(lab: &str) -> Vec<String> {
    let mut found = Vec::new();
    for directory in [std::env::temp_dir(), "/run/mapt-lab".into()] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if name == lab || name.starts_with(&format!("{lab}-")) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// Interfaces in our own namespace that bear the names the lab uses in its.
fn strays() -> Vec<String> {
    let lab = ["lan", "wan", "home1", "home2", "br", "access", "internet", "mapt-br", "mapt-ce"];
    lab.iter().filter(|name| Path::new("/sys/class/net").join(name).exists()).map(ToString::to_string).collect()
}

fn assert_nothing_left(lab: &str) {
    let start = Instant::now();
    loop {
        let left: Vec<String> = [namespaces(lab), processes(lab), files(lab), strays()].into_iter().flatten().collect();
        if left.is_empty() {
            return;
        }
        // A process killed with its lab takes a moment.
        assert!(start.elapsed() < Duration::from_secs(5), "{lab} left behind:\n{}", left.join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rows(json: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e} in:\n{json}"));
    value["rows"].as_array().unwrap().clone()
}

fn failed(json: &str) -> BTreeSet<String> {
    let rows = rows(json);
    let failed = rows.iter().filter(|row| row["passed"] == false);
    failed.map(|row| row["check"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_labs_side_by_side_pass_and_leave_nothing() {
    if !can_run() {
        return;
    }
    let labs = [Lab::start(&["--quick", "--json"]), Lab::start(&["--quick"])];
    let names = labs.each_ref().map(Lab::name);
    let [(one, json, progress), (two, text, progress_2)] = labs.map(Lab::end);
    assert_eq!(one, Some(0), "{json}\n{progress}");
    assert_eq!(two, Some(0), "{text}\n{progress_2}");
    names.iter().for_each(|name| assert_nothing_left(name));

    let rows = rows(&json);
    for (mode, check) in [
        ("mesh", "ping"),
        ("mesh", "traceroute, UDP"),
        ("mesh", "web page, curl"),
        ("mesh", "DNS over UDP, dig"),
        ("mesh", "DNS over TCP, dig"),
        ("mesh", "iperf3 TCP"),
        ("mesh", "large download, curl"),
        ("mesh", "TCP home to home"),
        ("hub", "TCP home to home"),
        ("all", "IPv6 only on the access links"),
    ] {
        assert!(rows.iter().any(|row| row["mode"] == mode && row["check"] == check), "no row {mode} {check}");
    }
    let witness = rows.iter().find(|row| row["check"] == "IPv6 only on the access links").unwrap();
    assert!(witness["values"]["ipv6-packets"].as_u64().unwrap() > 1000, "{witness}");
    assert_eq!(witness["values"]["other-frames"], 0);
    assert!(text.contains("passed in"), "{text}");
}

#[test]
fn ipv4_on_an_access_link_fails_the_run() {
    if !can_run() {
        return;
    }
    let mut lab = Lab::start(&["--quick", "--json", "--mode", "mesh"]);
    lab.wait_for("ping, home 1 → server: ok");
    let (name, br) = (lab.name(), format!("{}-br", lab.name()));
    // One IPv4 packet from the BR to the access router. Its neighbour is given, so that it is not ARP.
    for line in [
        format!("ip -n {br} addr add 10.99.0.1/24 dev access"),
        format!("ip -n {br} neigh add 10.99.0.2 lladdr 02:00:00:00:00:01 dev access"),
        format!("ip netns exec {br} ping -c 1 -W 1 10.99.0.2"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success() || line.contains("ping"), "{line}: {output:?}");
    }
    let (status, json, progress) = lab.end();
    assert_eq!(status, Some(1), "{json}\n{progress}");
    assert_eq!(failed(&json), BTreeSet::from(["IPv6 only on the access links".to_owned()]), "{json}");
    assert!(json.contains("10.99.0.1 > 10.99.0.2"), "the frame is not quoted in\n{json}");
    assert_nothing_left(&name);
}

#[test]
fn ctrl_c_at_any_moment_leaves_nothing() {
    if !can_run() {
        return;
    }
    for (moment, signal, status) in [
        ("building", Signal::SIGINT, 130),
        ("starting mapt-br", Signal::SIGTERM, 143),
        ("ping, home 1", Signal::SIGINT, 130),
        ("one address, two homes", Signal::SIGHUP, 129),
    ] {
        let mut lab = Lab::start(&["--quick"]);
        lab.wait_for(moment);
        let name = lab.name();
        let start = Instant::now();
        lab.signal(signal);
        let (code, out, progress) = lab.end();
        assert_eq!(code, Some(status), "{moment}: {out}\n{progress}");
        assert!(start.elapsed() < Duration::from_secs(15), "{moment}: took {:?} to stop", start.elapsed());
        assert_nothing_left(&name);
    }
}

#[test]
fn a_killed_lab_is_cleaned_up_and_a_living_one_is_not() {
    if !can_run() {
        return;
    }
    let mut living = Lab::start(&["--quick", "--mode", "mesh"]);
    let mut killed = Lab::start(&["--quick"]);
    killed.wait_for("ping, home 1 → server");
    living.wait_for("ping, home 1 → server");
    let dead = killed.name();
    killed.signal(Signal::SIGKILL);
    killed.child.wait().unwrap();
    assert!(!namespaces(&dead).is_empty(), "nothing to clean up");

    let output = mapt_lab(&["--clean", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let cleaned: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |key: &str| cleaned[key].as_array().unwrap().clone();
    // Another lab may have found it first.
    assert!(!names("removed").contains(&living.name().into()), "{cleaned}");
    assert!(names("running").contains(&living.name().into()), "{cleaned}");
    assert_nothing_left(&dead);
    let alive = living.name();
    let (status, text, progress) = living.end();
    assert_eq!(status, Some(0), "{text}\n{progress}");
    assert_nothing_left(&alive);
}

#[test]
fn keep_leaves_it_up_until_it_is_taken_down() {
    if !can_run() {
        return;
    }
    let lab = Lab::start(&["--quick", "--keep", "--mode", "mesh"]);
    let name = lab.name();
    let (status, text, progress) = lab.end();
    let result = std::panic::catch_unwind(|| {
        assert_eq!(status, Some(0), "{text}\n{progress}");
        // What it says works as it stands there.
        let command = text.lines().find(|line| line.contains("curl http")).unwrap().trim();
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(page, format!("the web server of {name}-srv\n"), "{output:?}");
        let cleaned: Value = serde_json::from_slice(&mapt_lab(&["--clean", "--json"]).stdout).unwrap();
        assert!(cleaned["kept"].as_array().unwrap().contains(&name.clone().into()), "{cleaned}");
        assert_eq!(namespaces(&name).len(), 7);
    });
    let down = mapt_lab(&["--down", &name]);
    result.unwrap();
    assert!(text.contains(&format!("mapt lab --down {name}")), "{text}");
    assert!(down.status.success(), "{down:?}");
    assert_nothing_left(&name);
    assert_eq!(mapt_lab(&["--down", &name]).status.code(), Some(1));
}

#[test]
fn a_daemon_that_does_not_start_is_quoted() {
    if !can_run() {
        return;
    }
    let programs = std::env::temp_dir().join(format!("lab-run-programs-{}", std::process::id()));
    fs::create_dir_all(&programs).unwrap();
    for name in ["mapt-br", "mapt-ce"] {
        let path = programs.join(name);
        fs::write(&path, "#!/bin/sh\necho no luck today >&2\nexit 3\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let lab = Lab::start(&["--quick", "--programs", programs.to_str().unwrap()]);
    let name = lab.name();
    let (status, out, progress) = lab.end();
    fs::remove_dir_all(&programs).unwrap();
    assert_eq!(status, Some(1), "{out}\n{progress}");
    assert!(progress.contains("exit status: 3") && progress.contains("no luck today"), "{progress}");
    assert_nothing_left(&name);
}

#[test]
fn missing_programs_are_named_with_their_packages() {
    let output = Command::new(MAPT).arg("lab").env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for package in ["curl", "bind9-dnsutils", "iputils-ping"] {
        assert!(text.contains(package), "{package} is not in {text}");
    }
    assert!(text.contains("apt-get install"), "{text}");
}
