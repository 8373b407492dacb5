//! What runs on the server: nginx, dnsmasq, iperf3 and the reflector.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::LabError;
use super::netns::Netns;
use super::pattern;
use super::process::{Helper, Runner};
use super::topology::SERVER;

/// The name that dnsmasq knows.
pub const NAME: &str = "www.example.net";
/// iperf3's port.
const IPERF_PORT: u16 = 5201;
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// The servers at work; dropping them ends them.
#[derive(Debug)]
pub struct Servers {
    helpers: Vec<Helper>,
    access_log: PathBuf,
    /// What `/` answers.
    pub greeting: String,
}

impl Servers {
    /// Starts all on [`SERVER`]. `/large` measures `large` octets of [`pattern`].
    pub fn start(runner: &Runner, netns: &Netns, directory: &Path, large: u64) -> Result<Servers, LabError> {
        let greeting = format!("the web server of {}\n", netns.name());
        let www = directory.join("www");
        let failed = |e: std::io::Error| LabError::failed(format!("fill {}", www.display()), e);
        fs::create_dir_all(&www).map_err(failed)?;
        fs::write(www.join("index.html"), &greeting).map_err(failed)?;
        write_pattern(&www.join("slow"), SLOW_SIZE).map_err(failed)?;
        write_pattern(&www.join("large"), large).map_err(failed)?;

        let conf = directory.join("nginx.conf");
        fs::write(&conf, nginx_conf(directory))
            .map_err(|e| LabError::failed(format!("write {}", conf.display()), e))?;
        let errors = directory.join("nginx.error.log");
        let nginx = ["nginx", "-c", &*conf.to_string_lossy(), "-e", &*errors.to_string_lossy()];
        let pid_file = format!("--pid-file={}", directory.join("dnsmasq.pid").display());
        let listen = format!("--listen-address={SERVER}");
        let answer = format!("--address=/{NAME}/{SERVER}");
        let dnsmasq = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--log-facility=-",
            "--log-queries",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--bind-interfaces",
            &pid_file,
            &listen,
            &answer,
        ];
        let mut helpers = Vec::new();
        for (name, argv, port) in [("nginx", &nginx[..], 80), ("dnsmasq", &dnsmasq[..], 53)] {
            let mut helper = runner.start(netns, name, argv)?;
            let what = format!("wait for {name} on port {port}");
            runner.wait_for(&what, START, &mut [&mut helper], || netns.listens(port))?;
            helpers.push(helper);
        }
        Ok(Servers { helpers, access_log: directory.join("nginx.access.log"), greeting })
    }

    /// Whom nginx has served so far: address, port, status and path of each request.
    pub fn clients(&self) -> Result<Vec<(String, u16, u16, String)>, LabError> {
        let text = fs::read_to_string(&self.access_log)
            .map_err(|e| LabError::failed(format!("read {}", self.access_log.display()), e))?;
        let client = |line: &str| {
            let mut fields = line.split(' ');
            let (address, port) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
            Some((address, port, fields.next()?.parse().ok()?, fields.next()?.to_owned()))
        };
        Ok(text.lines().filter_map(client).collect())
    }

    /// Leaves them running, with an iperf3 for whoever looks around.
    pub fn release(self, runner: &Runner, netns: &Netns) -> Result<(), LabError> {
        iperf3_server(runner, netns, &[])?.release();
        self.helpers.into_iter().for_each(Helper::release);
        Ok(())
    }
}

/// Starts an iperf3 server on [`SERVER`] in `netns`; returns when it listens.
fn iperf3_server(runner: &Runner, netns: &Netns, more: &[&str]) -> Result<Helper, LabError> {
    let (server, port) = (SERVER.to_string(), IPERF_PORT.to_string());
    let mut argv = vec!["iperf3", "-s", "-B", &server, "-p", &port];
    argv.extend(more);
    let mut helper = runner.start(netns, "iperf3-server", &argv)?;
    runner.wait_for("wait for iperf3", START, &mut [&mut helper], || netns.listens(IPERF_PORT))?;
    Ok(helper)
}

/// What iperf3 measures from `client` to [`SERVER`] in `netns`, as its JSON says at the end. Each run has a server of
/// its own: between two runs a server stops listening for a moment.
pub fn iperf3(
    runner: &Runner,
    client: &Netns,
    netns: &Netns,
    seconds: u32,
    more: &[&str],
) -> Result<serde_json::Value, LabError> {
    let mut listening = iperf3_server(runner, netns, &["-1"])?;
    let (server, port, time) = (SERVER.to_string(), IPERF_PORT.to_string(), seconds.to_string());
    let mut argv = vec!["iperf3", "-c", &server, "-p", &port, "-t", &time, "-J", "--connect-timeout", "3000"];
    argv.extend(more);
    let done = runner.run(client, "iperf3", &argv, Duration::from_secs(u64::from(seconds) + 20))?;
    listening.stop();
    let done = done.success()?;
    let mut json: serde_json::Value = serde_json::from_str(&done.stdout).map_err(|e| done.unexpected(e))?;
    match json["end"]["sum_received"]["bits_per_second"].as_f64() {
        Some(bits) if bits >= 1e6 => Ok(json["end"].take()),
        _ => Err(done.unexpected("less than 1 Mbit/s")),
    }
}

/// Size of `/slow`, in octets; at [`SLOW_RATE`] it takes about two seconds.
const SLOW_SIZE: u64 = 16 * 1024;
/// Octets a second.
const SLOW_RATE: &str = "8k";

fn nginx_conf(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "\
daemon off;
master_process off;
user root;
pid {directory}/nginx.pid;
error_log {directory}/nginx.error.log info;
events {{ worker_connections 2048; }}
http {{
    log_format lab '$remote_addr $remote_port $status $request_uri';
    access_log {directory}/nginx.access.log lab;
    client_body_temp_path {directory}/nginx-1;
    proxy_temp_path {directory}/nginx-2;
    fastcgi_temp_path {directory}/nginx-3;
    uwsgi_temp_path {directory}/nginx-4;
    scgi_temp_path {directory}/nginx-5;
    default_type text/plain;
    sendfile on;
    server {{
        listen {SERVER}:80 backlog=1024;
        root {directory}/www;
        location /slow {{ limit_rate {SLOW_RATE}; keepalive_timeout 0; }}
    }}
}}
"
    )
}

fn write_pattern(path: &Path, size: u64) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(pattern::BLOCK, File::create(path)?);
    let mut source = pattern::Source::new();
    let mut left = size;
    while left > 0 {
        let block = source.next_block();
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..take])?;
        left -= take as u64;
    }
    file.flush()
}
