//! What outlives a restart of `mapt-ce`, and an upgrade to another copy of it: an upload, a download, an ssh session,
//! and a hole for UDP. After a kill nothing does, and nothing old comes back.
mod io_support;
mod net_support;

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use io_support::daemon::Daemon;
use io_support::{Namespace, wait_for};
use net_support::{Helper, SERVER, SHARED, World, again, in_shared_set, ready};
use nix::sys::signal::Signal;

const PROGRAMS: [&str; 6] = ["ip", "iperf3", "ssh", "ssh-keygen", "sshd", "unshare"];

/// A session in which what is typed comes back.
struct Session {
    ssh: Child,
    keys: ChildStdin,
    screen: BufReader<ChildStdout>,
}

impl Session {
    /// `sshd` on the server and `ssh` on the host, with keys and files of this test alone.
    fn open(host: &Namespace, server: &Namespace, directory: &Path) -> (Helper, Session) {
        std::fs::create_dir(directory).unwrap();
        let file = |name: &str| directory.join(name).display().to_string();
        for key in ["host", "user"] {
            let status = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]).status();
            assert!(status.unwrap().success());
        }
        let config = format!(
            "Port 2222\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nUseDNS no\n",
            file("host"),
            file("user.pub")
        );
        std::fs::write(directory.join("sshd_config"), config).unwrap();
        // It wants an empty directory /run/sshd, which only its service makes.
        let script = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f \"$0\"";
        let mut sshd = Command::new("unshare");
        sshd.args(["--mount", "sh", "-c", script, &file("sshd_config")]).stderr(Stdio::null());
        let sshd = Helper::start(server, &mut sshd);
        let listens = || server.output("ss", "-Hltn sport = 2222").stdout.starts_with(b"LISTEN");
        wait_for("sshd", listens);
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-p", "2222", "-i", &file("user"), "-o", "BatchMode=yes"]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR", "-o"]);
        ssh.arg(format!("UserKnownHostsFile={}", file("known"))).args([&format!("root@{SERVER}"), "cat"]);
        let mut ssh = host.run(|| ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let (keys, screen) = (ssh.stdin.take().unwrap(), BufReader::new(ssh.stdout.take().unwrap()));
        (sshd, Session { ssh, keys, screen })
    }

    fn says(&mut self, word: &str) {
        writeln!(self.keys, "{word}").unwrap();
        let mut line = String::new();
        self.screen.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// `iperf3` for eight seconds; its report.
fn iperf(host: &Namespace, server: &Namespace, port: u16, more: &'static [&'static str]) -> (Helper, Child) {
    let port = port.to_string();
    let mut serve = Command::new("iperf3");
    let serving = Helper::start(server, serve.args(["-s", "-1", "-p", &port]).stdout(Stdio::null()));
    wait_for("iperf3", || server.output("ss", &format!("-Hltn sport = {port}")).stdout.starts_with(b"LISTEN"));
    let mut command = Command::new("iperf3");
    command.args(["-c", SERVER, "-p", &port, "-t", "8", "-b", "20M", "--json"]).args(more);
    (serving, host.run(|| command.stdout(Stdio::piped()).spawn().unwrap()))
}

/// That a transfer ended as it should, and went on in its last second.
fn went_on(Output { status, stdout, .. }: Output) {
    let report: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert!(status.success(), "{report:#}");
    let seconds = report["intervals"].as_array().unwrap();
    let last = seconds.iter().rev().take(2).map(|second| second["sum"]["bytes"].as_u64().unwrap()).max();
    assert!(last > Some(1_000_000), "{seconds:#?}");
}

fn stop(world: &mut World, file: &Path) {
    let daemon = world.sites[0].daemon.take().unwrap();
    daemon.signal(Signal::SIGTERM);
    let (status, said) = daemon.end();
    assert!(status.success(), "{said}");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn flows_outlive_a_restart_and_an_upgrade() {
    if !ready(&PROGRAMS) {
        return;
    }
    let mut world = World::new("restart", &[SHARED], "2001:db8:ffff::/64", 1500);
    world.ce_more = "state-directory: state\n";
    world.start_br();
    world.start_ce(0);
    let (host, server) = (world.host(SHARED), &world.server);
    let (_sshd, mut session) = Session::open(host, server, &world.files.path("ssh"));
    session.says("before");
    let (_up, upload) = iperf(host, server, 5201, &[]);
    let (_down, download) = iperf(host, server, 5202, &["-R"]);
    let hole = Hole::open(host, server);
    let daemon = world.sites[0].daemon.as_ref().unwrap();
    wait_for("transfers", || daemon.counters().get("forwarded").iter().all(|n| *n > 200));

    let file = world.files.path("state/ce.mappings");
    stop(&mut world, &file);
    let text = std::fs::read_to_string(&file).unwrap();
    for remote in [":2222 ", ":5201 ", ":5202 "] {
        assert!(text.lines().any(|line| line.starts_with("tcp ") && line.contains(remote)), "{remote}\n{text}");
    }
    world.start_ce(0);
    assert!(!file.exists(), "it serves once");
    session.says("after a restart");
    hole.is_open();

    stop(&mut world, &file);
    let next: PathBuf = world.files.path("mapt-ce-next");
    std::fs::copy(env!("CARGO_BIN_EXE_mapt-ce"), &next).unwrap();
    let config = world.files.path("ce1.yaml");
    let daemon = Daemon::start(&world.sites[0].ce, next.to_str().unwrap(), &config);
    session.says("after an upgrade");
    hole.is_open();
    went_on(upload.wait_with_output().unwrap());
    went_on(download.wait_with_output().unwrap());
    assert_eq!(daemon.counters().get("napt-no-mapping"), [0, 0]);

    // Killed, it leaves nothing, and what it had taken over does not come back.
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    assert!(!file.exists());
    world.start_ce(0);
    hole.knock();
    let daemon = world.sites[0].daemon.as_ref().unwrap();
    wait_for("the drop", || daemon.counters().get("napt-no-mapping") == [0, 1]);
}

/// A hole that the host has made for one server.
struct Hole {
    host: UdpSocket,
    server: UdpSocket,
    outside: std::net::SocketAddr,
}

impl Hole {
    fn open(host: &Namespace, server: &Namespace) -> Hole {
        let host = host.run(|| UdpSocket::bind("0.0.0.0:41000").unwrap());
        let server = server.run(|| UdpSocket::bind("0.0.0.0:5300").unwrap());
        for socket in [&host, &server] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        host.send_to(b"hello", (SERVER, 5300)).unwrap();
        let (_, outside) = again(|| server.recv_from(&mut [0; 16])).expect("the datagram");
        assert!(in_shared_set(outside.port()));
        Hole { host, server, outside }
    }

    fn knock(&self) {
        self.server.send_to(b"knock", self.outside).unwrap();
    }

    /// The host hears the server without having said anything since.
    fn is_open(&self) {
        self.knock();
        let (_, from) = again(|| self.host.recv_from(&mut [0; 16])).expect("the knock");
        assert_eq!(from.to_string(), format!("{SERVER}:5300"));
    }
}
