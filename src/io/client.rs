//! The other end of a daemon's control socket, on this machine or by way of ssh.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv6Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;

use crate::ops::control::{Answer, Ask, Request};

/// How long a daemon may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves it.
    #[error("`{target}`: {error}; is the daemon running, and is this its `control.socket`?")]
    Connect {
        /// What was to be asked.
        target: String,
        /// The system's answer.
        error: io::Error,
    },
    /// The daemon says no.
    #[error("`{target}`: {reason}")]
    Refused {
        /// What was asked.
        target: String,
        /// Its words.
        reason: String,
    },
    /// It broke off.
    #[error("`{target}` broke off its answer: {reason}")]
    Broken {
        /// What was asked.
        target: String,
        /// How.
        reason: String,
    },
    /// stdout.
    #[error("the answer cannot be written: {0}")]
    Write(io::Error),
}

/// A daemon's control socket: on this machine, or on another one by way of ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path.
    Socket(PathBuf),
    /// `ssh://[USER@]HOST[:PORT][/SOCKET]`; without a socket the only one in `/run/mapt` there.
    Ssh {
        /// As ssh takes it.
        host: String,
        /// Of ssh.
        port: Option<u16>,
        /// A path there.
        socket: Option<String>,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let Some(rest) = text.strip_prefix("ssh://") else {
            return match text.contains("://") || text.is_empty() {
                true => Err("expected the path of a socket, or ssh://HOST[/SOCKET]".into()),
                false => Ok(Target::Socket(text.into())),
            };
        };
        let (host, socket) = match rest.split_once('/') {
            Some((host, socket)) => (host, Some(format!("/{socket}"))),
            None => (rest, None),
        };
        // An address of IPv6 stands in brackets.
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, Some(port.parse().map_err(|_| format!("`{port}` is no port"))?))
            }
            _ => (host, None),
        };
        let (user, name) = host.rsplit_once('@').map_or((None, host), |(user, name)| (Some(user), name));
        let name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            // A link-local one has its interface behind it.
            Some(name) if name.split('%').next().is_some_and(|addr| addr.parse::<Ipv6Addr>().is_ok()) => name,
            Some(name) => return Err(format!("`{name}` is no IPv6 address")),
            None if name.contains([':', '[', ']']) => {
                return Err(format!("`{name}`: an IPv6 address stands in brackets"));
            }
            None => name,
        };
        let host = user.map_or(name.to_owned(), |user| format!("{user}@{name}"));
        // One that begins with a hyphen would be an option of ssh.
        if name.is_empty() || host.starts_with('-') {
            return Err(format!("`{host}` is no host: expected ssh://HOST[/SOCKET]"));
        }
        Ok(Target::Ssh { host, port, socket: socket.filter(|socket| socket != "/") })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(path) => path.display().fmt(f),
            Target::Ssh { host, port, socket } => {
                match host.rsplit_once('@') {
                    Some((user, name)) if name.contains(':') => write!(f, "ssh://{user}@[{name}]")?,
                    None if host.contains(':') => write!(f, "ssh://[{host}]")?,
                    _ => write!(f, "ssh://{host}")?,
                }
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

/// A conversation with a daemon.
pub struct Connection {
    target: String,
    reader: Box<dyn BufRead + Send>,
    writer: Box<dyn Write + Send>,
    socket: Option<UnixStream>,
    ssh: Option<Child>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(ssh) = &mut self.ssh {
            let _ = ssh.kill();
            let _ = ssh.wait();
        }
    }
}

impl Connection {
    /// Connects. `MAPT_SSH` in the environment names another program than `ssh`.
    pub fn open(target: &Target) -> Result<Connection, ClientError> {
        let failed = |error| ClientError::Connect { target: target.to_string(), error };
        let name = target.to_string();
        match target {
            Target::Socket(path) => {
                let open = || {
                    let stream = UnixStream::connect(path)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    Ok((Box::new(BufReader::new(stream.try_clone()?)), Box::new(stream.try_clone()?), stream))
                };
                let (reader, writer, socket) = open().map_err(failed)?;
                Ok(Connection { target: name, reader, writer, socket: Some(socket), ssh: None })
            }
            Target::Ssh { host, port, socket } => {
                let program = std::env::var_os("MAPT_SSH").unwrap_or_else(|| "ssh".into());
                let mut command = Command::new(program);
                command.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=10"]);
                command.args(port.map(|port| format!("-p{port}"))).arg("--").arg(host).args(["mapt", "relay"]);
                command.args(socket).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut ssh = command.spawn().map_err(failed)?;
                let pipes = ssh.stdout.take().zip(ssh.stdin.take());
                let (reader, writer) = pipes.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
                let (reader, writer) = (Box::new(BufReader::new(reader)), Box::new(writer));
                Ok(Connection { target: name, reader, writer, socket: None, ssh: Some(ssh) })
            }
        }
    }

    /// Waits as long as it takes.
    pub fn be_patient(&self) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| socket.set_read_timeout(None))
    }

    fn broken(&self, reason: impl ToString) -> ClientError {
        ClientError::Broken { target: self.target.clone(), reason: reason.to_string() }
    }

    /// Asks, gives each row to `row`, and returns what was said at the end. A `row` that fails ends it.
    pub fn ask<R: DeserializeOwned, D: DeserializeOwned>(
        &mut self,
        ask: Ask,
        body: &[u8],
        mut row: impl FnMut(R) -> io::Result<()>,
    ) -> Result<D, ClientError> {
        let writer = &mut self.writer;
        let said = writer.write_all(&Request::line(ask)).and_then(|()| writer.write_all(body));
        // A daemon that refuses says why before it closes: that is worth more than the broken pipe.
        let said = said.and_then(|()| writer.flush()).err();
        let mut line = Vec::new();
        loop {
            line.clear();
            match self.reader.read_until(b'\n', &mut line) {
                Ok(0) => return Err(self.broken(said.map_or("it closed the connection".to_owned(), |e| e.to_string()))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.broken(format!("nothing within {} s", PATIENCE.as_secs())));
                }
                Err(error) => return Err(self.broken(error)),
                Ok(_) => {}
            }
            match serde_json::from_slice(&line).map_err(|error| self.broken(error))? {
                Answer::Row(one) => row(one).map_err(ClientError::Write)?,
                Answer::Done(done) => return Ok(done),
                Answer::Error(reason) => return Err(ClientError::Refused { target: self.target.clone(), reason }),
            }
        }
    }
}

/// `mapt relay`: what ssh runs on the other machine.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// The control socket; the only one in /run/mapt if none is named
    socket: Option<PathBuf>,
}

/// Joins stdin and stdout to a socket, until either end closes.
pub fn relay(args: &RelayArgs) -> ExitCode {
    let run = || -> Result<(), String> {
        let path = args.socket.clone().map_or_else(only_socket, Ok)?;
        let socket = UnixStream::connect(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let reader = socket.try_clone().map_err(|error| error.to_string())?;
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut &socket);
            let _ = socket.shutdown(std::net::Shutdown::Write);
        });
        let mut out = io::stdout().lock();
        let mut buffer = [0; 65_536];
        loop {
            match (&reader).read(&mut buffer) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) => out.write_all(&buffer[..n]).and_then(|()| out.flush()).map_err(|e| e.to_string())?,
            }
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mapt relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn only_socket() -> Result<PathBuf, String> {
    let found = std::fs::read_dir("/run/mapt").map_err(|error| format!("`/run/mapt`: {error}"))?;
    let sockets: Vec<PathBuf> = found
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "sock"))
        .collect();
    match &sockets[..] {
        [one] => Ok(one.clone()),
        all => Err(format!("there are {} sockets in /run/mapt: name one", all.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let ssh = |host: &str, port, socket: Option<&str>| Target::Ssh {
            host: host.into(),
            port,
            socket: socket.map(Into::into),
        };
        let good = [
            ("/run/mapt/br.sock", Target::Socket("/run/mapt/br.sock".into())),
            ("br.sock", Target::Socket("br.sock".into())),
            ("ssh://br1", ssh("br1", None, None)),
            ("ssh://br1/", ssh("br1", None, None)),
            (
                "ssh://root@br1.example.net:2222/run/x.sock",
                ssh("root@br1.example.net", Some(2222), Some("/run/x.sock")),
            ),
            ("ssh://[2001:db8::7]/run/x.sock", ssh("2001:db8::7", None, Some("/run/x.sock"))),
            ("ssh://noc@[2001:db8::7]", ssh("noc@2001:db8::7", None, None)),
            ("ssh://[2001:db8::7]:22", ssh("2001:db8::7", Some(22), None)),
        ];
        for (text, target) in good {
            assert_eq!(text.parse(), Ok(target.clone()), "{text}");
            assert_eq!(target.to_string().parse(), Ok(target), "{text}");
        }
        for bad in [
            "",
            "http://x",
            "ssh://",
            "ssh:///run/x",
            "ssh://-oProxyCommand=x",
            "ssh://a:99999",
            "ssh://a:b",
            "ssh://2001:db8::7",
            "ssh://[x",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
